"""Adaptive-consistency (Aggarwal et al. 2023, arXiv 2305.11860): a vote that stops once its leader is likely to win."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from math import comb
from typing import ClassVar

from thinktime.core.search import Search, refuse_copies
from thinktime.core.selection import Candidate, majority
from thinktime.core.trace import Answer
from thinktime.core.types import Capability
from thinktime.strategies.options import above, at_least, below


def lead(first: int, second: int) -> float:
    """Probability that the answer with ``first`` votes is likelier than the one with ``second``; the prior is uniform.

    It is P(x > 1/2) for x ~ Beta(first + 1, second + 1), a sum of binomials.
    """
    tosses = first + second + 1
    return float(sum(comb(tosses, heads) for heads in range(first + 1)) / 2**tosses)


@dataclass(frozen=True)
class AdaptiveConsistency:
    """Sample one by one, at most ``n``; stop when the leading answer is likelier than the second with ``confidence``.

    Args:
        n: the most samples.
        confidence: required probability that the leading answer is likelier than the second.
        batch: samples drawn between two counts of the votes.
    """

    n: int = 16
    confidence: float = 0.95
    batch: int = 1
    needs: ClassVar[frozenset[str]] = frozenset({Capability.ANSWERS})

    def __post_init__(self) -> None:
        at_least("n", self.n, 1)
        above("confidence", self.confidence, 0)
        below("confidence", self.confidence, 1)
        at_least("batch", self.batch, 1)

    async def __call__(self, search: Search) -> Answer:
        if search.sampling.temperature == 0:
            refuse_copies(self.n)
        candidates: list[Candidate] = []
        drawn = 0
        while drawn < self.n:
            leaves = await search.extend([search.root], min(self.batch, self.n - drawn))
            if not leaves:
                break
            drawn += len(leaves)
            candidates += search.candidates(leaves)
            if self._safe(candidates):
                break
        search.log(samples=drawn)
        return search.finish(majority(candidates))

    def _safe(self, candidates: Sequence[Candidate]) -> bool:
        votes: Counter[Hashable] = Counter(c.key for c in candidates if c.answer is not None)
        first, second = [*(count for _, count in votes.most_common(2)), 0, 0][:2]
        return first > 0 and lead(first, second) >= self.confidence
