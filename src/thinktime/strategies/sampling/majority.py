"""Self-consistency: sample many solutions, return the most frequent answer (Wang et al. 2022, arXiv 2203.11171)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from thinktime.core.search import Search
from thinktime.core.selection import majority, tied
from thinktime.core.trace import Answer
from thinktime.core.types import Capability
from thinktime.strategies.options import at_least


@dataclass(frozen=True)
class Majority:
    """Vote over ``n`` samples; equivalent answers count as one, unreadable ones have no vote."""

    n: int = 16
    needs: ClassVar[frozenset[str]] = frozenset({Capability.ANSWERS})

    def __post_init__(self) -> None:
        at_least("n", self.n, 1)

    async def __call__(self, search: Search) -> Answer:
        candidates = search.candidates(await search.extend([search.root], self.n))
        search.log(tied=tied(candidates))
        return search.finish(majority(candidates))
