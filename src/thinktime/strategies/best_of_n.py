"""Best-of-n: sample many solutions, answer the one with the highest score (Cobbe et al. 2021, arXiv 2110.14168)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from thinktime.core.errors import CapabilityError
from thinktime.core.search import Search
from thinktime.core.selection import best
from thinktime.core.trace import Answer
from thinktime.core.types import Capability
from thinktime.strategies.ensemble import BY, need_parts, ratings
from thinktime.strategies.options import at_least, one_of


@dataclass(frozen=True)
class BestOfN:
    """The highest-scored of ``n`` samples.

    Args:
        n: samples.
        by: how to compare candidates: by their ``score``; by the mean of their ``ranks`` under the parts of a composed
            score (an ensemble of verifiers, Ma et al. 2025, arXiv 2501.09732); or by one ``comparison``, in which a
            judge sees all of them side by side.
    """

    n: int = 16
    by: str = "score"
    needs: ClassVar[frozenset[str]] = frozenset({Capability.SCORES})

    def __post_init__(self) -> None:
        at_least("n", self.n, 1)
        one_of("by", self.by, (*BY, "comparison"))

    def validate(self, search: Search) -> None:
        if self.by == "comparison" and Capability.COMPARE not in search.capabilities:
            raise CapabilityError(f"best_of_n: by='comparison' needs {Capability.COMPARE}; give by=score")
        need_parts(search, self.by)

    async def __call__(self, search: Search) -> Answer:
        leaves = await search.extend([search.root], self.n)
        if self.by == "comparison":
            nodes = [candidate.node for candidate in search.candidates(leaves) if candidate.answer is not None]
            return search.finish(best(search.candidates(nodes, await search.compare(nodes))))
        await search.score(leaves)
        return search.finish(best(search.candidates(leaves, ratings(search, leaves, self.by))))
