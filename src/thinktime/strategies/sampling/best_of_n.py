"""Best-of-n: sample many solutions, answer the one that a scorer ranks first (Cobbe et al. 2021, arXiv 2110.14168)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from thinktime.core.errors import CapabilityError, InputError
from thinktime.core.search import Search
from thinktime.core.selection import best
from thinktime.core.trace import Answer
from thinktime.core.types import Capability
from thinktime.strategies.options import at_least, one_of
from thinktime.strategies.sampling.ensemble import BY, need_parts, ratings


@dataclass(frozen=True)
class BestOfN:
    """The highest-scored of ``n`` samples.

    Args:
        n: samples.
        by: what candidates are compared by: their ``score``; the mean of their ``ranks`` under every part of a composed
            score (an ensemble of verifiers, Ma et al. 2025, arXiv 2501.09732); or one ``comparison`` by a judge that
            sees all of them side by side, such as `thinktime.scorers.generative_reward`.
    """

    n: int = 16
    by: str = "score"
    needs: ClassVar[frozenset[str]] = frozenset({Capability.SCORES})

    def __post_init__(self) -> None:
        at_least("n", self.n, 1)
        one_of("by", self.by, (*BY, "comparison"))

    def validate(self, search: Search) -> None:
        if self.by == "comparison":
            if Capability.COMPARE not in search.capabilities:
                raise CapabilityError(f"best_of_n: by='comparison' needs {Capability.COMPARE}; give by=score")
            most = getattr(search.scorer, "candidates", self.n)
            if self.n > most:
                raise InputError("n", self.n, f"the judge compares {most} candidates at most; give n={most} or fewer")
        need_parts(search, self.by)

    async def __call__(self, search: Search) -> Answer:
        leaves = await search.extend([search.root], self.n)
        if self.by == "comparison":
            nodes = [candidate.node for candidate in search.candidates(leaves) if candidate.answer is not None]
            scores = await search.compare(nodes) if len(nodes) > 1 else None
            return search.finish(best(search.candidates(nodes, scores)))
        await search.score(leaves)
        return search.finish(best(search.candidates(leaves, ratings(search, leaves, self.by))))
