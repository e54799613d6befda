"""Best-of-n: sample many solutions, answer the one the scorer likes best (Cobbe et al. 2021, arXiv 2110.14168)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from thinktime.core.search import Answer, Search
from thinktime.core.selection import best
from thinktime.core.types import Capability
from thinktime.strategies.options import at_least


@dataclass(frozen=True)
class BestOfN:
    """The highest-scored of ``n`` samples."""

    n: int = 16
    needs: ClassVar[frozenset[Capability]] = frozenset({Capability.SCORES})

    def __post_init__(self) -> None:
        at_least("n", self.n, 1)

    async def __call__(self, search: Search) -> Answer:
        leaves = await search.extend([search.root], self.n)
        return search.finish(best(search.candidates(leaves, await search.score(leaves))))
