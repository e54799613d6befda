"""What a scorer has read of a search: each node once, and charged only what is new."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import takewhile

from thinktime.core.journal import Journal
from thinktime.core.ledger import Ledger
from thinktime.core.types import Node, Reading, Scorer
from thinktime.core.usage import Usage, total


class Readings:
    """The readings of one search by one scorer.

    A reading is charged what lies behind the node's nearest ancestor that an earlier one went through, in an earlier
    call or for an earlier node of this one. Below a root of its own it is what differs from the first node that was
    read.
    """

    def __init__(self, scorer: Scorer, ledger: Ledger, journal: Journal | None) -> None:
        self._scorer, self._ledger, self._journal = scorer, ledger, journal
        self.failed: list[str] = []
        """Why readings could not be had."""
        self._found: dict[str, Reading] = {}
        self._covered: dict[str, Node] = {}
        """Nodes all of which a reading went through, the first that was read first."""

    async def read(self, nodes: Sequence[Node]) -> bool:
        """Read what was not read before, but no child that could not be had; whether the budget covers it all."""
        new: list[tuple[Node, Node | None, Usage]] = []
        covered = True
        for node in dict.fromkeys(nodes):
            if node.finish == "error" or node.key in self._found:
                continue
            unread = list(takewhile(lambda above: above.key not in self._covered, node.lineage()))
            known = (unread[-1].parent or next(iter(self._covered.values()), None)) if unread else node
            worst = self._scorer.worst_case(node, known)
            if not self._ledger.reserve(worst):
                covered = False
                continue
            self._covered.update((above.key, above) for above in unread)
            banked = self._banked(node, known)
            if banked is None:
                new.append((node, known, worst))
            else:
                self._ledger.settle(worst, banked.usage)
                self._found[node.key] = banked
        if new:
            asked, known_of, worst_of = zip(*new, strict=True)
            fresh = await self._scorer.score(asked, known_of)
            self._ledger.settle(total(worst_of), total(reading.usage for reading in fresh))
            self.failed += [reading.reason for reading in fresh if reading.reason]
            self._bank([(node, known, reading) for (node, known, _), reading in zip(new, fresh, strict=True)])
            self._found.update((node.key, reading) for node, reading in zip(asked, fresh, strict=True))
        return covered

    def of(self, node: Node) -> tuple[float | None, tuple[float, ...]]:
        """Its score and the parts it was made of; None where there is no finite number."""
        reading = self._found.get(node.key)
        if reading is None:
            return None, ()
        value = reading.value
        return (value if value is not None and math.isfinite(value) else None), reading.steps

    def _banked(self, node: Node, known: Node | None) -> Reading | None:
        if self._journal is None:
            return None
        return self._journal.find_reading(reading_key(node, known), self._scorer.name)

    def _bank(self, made: Sequence[tuple[Node, Node | None, Reading]]) -> None:
        if self._journal is not None:
            kept = [(reading_key(node, known), reading) for node, known, reading in made if not reading.reason]
            self._journal.add_readings(self._scorer.name, kept)


def reading_key(node: Node, known: Node | None) -> str:
    """What a reading is banked under: its cost depends on what had been read before."""
    return "<".join(_named(each) for each in (node, known) if each is not None)


def _named(node: Node) -> str:
    """A node that a budget or a race cut has the key of the whole sample, but another text."""
    return f"{node.key}+{node.usage.generated_tokens}" if node.finish in ("budget", "pruned") else node.key
