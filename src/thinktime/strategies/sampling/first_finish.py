"""First finish search (Agarwal et al. 2025, arXiv 2505.18149): the shortest of n samples; the others are cancelled.

It helps if the right solutions of a problem are shorter than its wrong ones (`thinktime.planning.lengths` measures
this). It saves time; it saves tokens only in comparison with a vote of all n.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from thinktime.core.errors import InputError
from thinktime.core.search import Search
from thinktime.core.selection import majority
from thinktime.core.trace import Answer
from thinktime.core.transitions import Race
from thinktime.core.types import Capability
from thinktime.strategies.options import at_least, one_of

WARNINGS = {
    "use": "",
    "do not use": "short samples of this model are not the right ones",
    "unknown": "measure first whether short samples of this model are the right ones (thinktime.planning.lengths)",
}
"""The warning for each advice."""


@dataclass(frozen=True)
class FirstFinish:
    """Start ``n`` samples, stop all when ``k`` have ended with an answer, and vote over these ``k``.

    Two samples of the same length both have a vote; among answers with equal votes the shortest wins. For models that
    cannot cancel samples, ``length_vote`` with a tiny ``keep`` and ``least=k`` is similar, but pays for all samples.

    Args:
        n: samples started.
        k: samples that have to end.
        by: the order of ends: by ``length``, so an endpoint's other samples run until they are as long (the paper's
            grace); or by ``time``, so all others are cancelled at once. A local model's batch runs in lockstep, so
            both are the same.
        counts: an end with a readable ``answer``, or ``any`` end.
        min_tokens: a shorter sample does not count.
        advice: result of the diagnosis of this model on held-out problems: ``use``, ``do not use``, or ``unknown``.
        guard: reaction to an advice other than ``use``: ``warn``, ``refuse``, or ``off``.
    """

    n: int = 4
    k: int = 1
    by: str = "length"
    counts: str = "answer"
    min_tokens: int = 0
    advice: str = "unknown"
    guard: str = "warn"
    needs: ClassVar[frozenset[str]] = frozenset({Capability.CANCEL, Capability.ANSWERS})

    def __post_init__(self) -> None:
        at_least("n", self.n, 1)
        at_least("k", self.k, 1)
        at_least("min_tokens", self.min_tokens, 0)
        one_of("by", self.by, ("length", "time"))
        one_of("counts", self.counts, ("answer", "any"))
        one_of("advice", self.advice, tuple(WARNINGS))
        one_of("guard", self.guard, ("warn", "refuse", "off"))
        if self.k > self.n:
            raise InputError("k", self.k, f"give 1 to n={self.n}")
        if self.guard == "refuse" and (warning := WARNINGS[self.advice]):
            raise InputError("advice", self.advice, f"{warning}; take majority, or guard=off")

    async def __call__(self, search: Search) -> Answer:
        if self.min_tokens >= search.sampling.max_length:
            raise InputError("min_tokens", self.min_tokens, f"give less than max_tokens={search.sampling.max_length}")
        if self.guard == "warn" and (warning := WARNINGS[self.advice]):
            search.log(warning=f"first_finish: {warning}")
        race = Race(self.k, lambda state: self._counts(search, state), at_once=self.by == "time")
        leaves = await search.extend([search.root], self.n, race=race)
        arrived = [leaf for leaf in leaves if leaf.done and self._counts(search, leaf.state)]
        arrived = sorted(arrived, key=lambda leaf: leaf.passes)
        first = [leaf for leaf in arrived if leaf.passes <= (race.limit or leaf.passes)]
        search.log(lengths=[leaf.passes for leaf in arrived], given_up=sum(leaf.finish == "pruned" for leaf in leaves))
        return search.finish(majority(search.candidates(first)))

    def _counts(self, search: Search, state: Any) -> bool:
        assert search.answers is not None
        long_enough = search.generator.length(state) >= self.min_tokens
        return long_enough and (self.counts == "any" or search.answers.read(state) is not None)
