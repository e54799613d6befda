"""Weighted majority: a vote in which each sample is weighted by its score (Li et al. 2023, arXiv 2206.02336).

Also known as best-of-n weighted (Snell et al. 2024, arXiv 2408.03314).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from thinktime.core.search import Search
from thinktime.core.selection import weighted_majority
from thinktime.core.trace import Answer
from thinktime.core.types import Capability
from thinktime.strategies.options import at_least


@dataclass(frozen=True)
class WeightedMajority:
    """Vote over ``n`` samples, each weighted by its score."""

    n: int = 16
    needs: ClassVar[frozenset[str]] = frozenset({Capability.SCORES, Capability.ANSWERS})

    def __post_init__(self) -> None:
        at_least("n", self.n, 1)

    async def __call__(self, search: Search) -> Answer:
        leaves = await search.extend([search.root], self.n)
        return search.finish(weighted_majority(search.candidates(leaves, await search.score(leaves))))
