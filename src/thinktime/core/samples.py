"""Sampling as work for the meter: it takes children from the bank or a model, ends races, and banks new samples."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from thinktime.core.journal import Samples
from thinktime.core.ledger import Ledger
from thinktime.core.meter import Work
from thinktime.core.protocols import Generator
from thinktime.core.transitions import Race, Redo
from thinktime.core.types import Child, Extension, Node
from thinktime.core.usage import Usage

InFlight = dict[str, tuple[Extension, Child | None]]


class Drawing(Work[Extension, Child]):
    """The children of one `Search.extend` by one model.

    Args:
        role: the account that pays.
        generator: the model.
        root: the search's root; a transition costs what a first step from it costs.
        samples: the banked samples of this model.
        ledger: says how much of the budget is left.
        in_flight: holds each child from its reservation until it is in the trace.
        race: the race between these children, or None.
    """

    def __init__(
        self,
        role: str,
        generator: Generator,
        root: Node,
        samples: Samples,
        ledger: Ledger,
        in_flight: InFlight,
        race: Race | None,
    ) -> None:
        super().__init__(role)
        self._generator, self._root, self._samples, self._ledger = generator, root, samples, ledger
        self._in_flight, self._race = in_flight, race
        self._worst: dict[tuple[Node, int], Usage] = {}
        """The worst case of a child by its parent and its length limit."""

    def worst_case(self, item: Extension) -> Usage:
        """A transition costs one step, like a first step from the root; a `Redo` costs all its steps."""
        if item.transition is not None:
            steps = item.transition.steps if isinstance(item.transition, Redo) else 1
            return self._generator.worst_case(self._root, steps)
        case = item.node, item.max_length
        if case not in self._worst:
            self._worst[case] = self._generator.worst_case(*case)
        return self._worst[case]

    def shorter(self, item: Extension) -> Extension | None:
        """The same extension cut to the tokens left, if a child of the usual length still fits."""
        room = self._ledger.room_for_tokens()
        calls = self._ledger.spent.model_calls
        if room is None or not calls or room < self._ledger.spent.generated_tokens / calls:
            return None
        return replace(item, max_length=room)

    def over(self) -> bool:
        """Whether the race is decided."""
        return self._race is not None and self._race.limit is not None

    def repeatable(self, results: Sequence[Child]) -> bool:
        """Whether all children failed in a way that is worth a second try."""
        return all(child.error is not None and child.error.repeatable for child in results)

    def joined(self, first: Child, second: Child) -> Child:
        """The second child, with the cost of both."""
        return replace(second, usage=first.usage + second.usage, passes=first.passes + second.passes)

    def find(self, items: Sequence[Extension]) -> Mapping[int, Child]:
        """Banked children; if these end the race, also children that an earlier race cut."""
        found: dict[int, Child] = {}
        for place, extension in enumerate(items):
            child = self._samples.find(extension)
            if child is not None:
                found[place] = child
                if self._race is not None:
                    self._race.arrive(child)
        limit = self._race.limit if self._race else None
        for place, extension in enumerate(items):
            if limit is not None and place not in found:
                loser = self._samples.cut_short(extension, limit, extension.max_length, "pruned")
                if loser is not None:
                    found[place] = loser
        self._in_flight |= {extension.key: (extension, found.get(place)) for place, extension in enumerate(items)}
        return found

    async def run(self, items: Sequence[Extension]) -> Sequence[Child]:
        """Children from the model. Each is banked when it arrives, and all are banked before the search sees them."""
        fresh = await self._generator.extend(items)
        pairs = zip(items, fresh, strict=True)
        self._samples.add([pair for pair in pairs if self._in_flight[pair[0].key][1] is None])
        return fresh

    def arrived(self, key: str) -> Callable[[Child], None]:
        """A callback: the generator may call it when the child of this key is complete."""

        def keep(child: Child) -> None:
            extension, _ = self._in_flight[key]
            self._samples.add([(extension, child)])
            self._in_flight[key] = extension, child

        return keep

    def trim(self, items: Sequence[Extension], results: Sequence[Child]) -> Sequence[Child]:
        """Cut the losers of a race at its limit. They are charged up to the limit, even if they ran further."""
        limit = self._race.limit if self._race else None
        if limit is None:
            return results
        pairs = zip(items, results, strict=True)
        return [child if child.length <= limit else self._loser(e, child, limit) for e, child in pairs]

    def _loser(self, extension: Extension, child: Child, limit: int) -> Child:
        cut = self._samples.cut_short(extension, limit, limit, "pruned")
        if cut is None:
            cut = self._generator.cut(extension, child, limit)
            if cut.length < child.length and cut.usage.flops is not None:  # a replay cannot tell the cost of a cut
                self._samples.add([(extension, cut)])
        return cut
