"""Aggregate and synthesise: one answer written out of several proposals (Wang et al. 2024, arXiv 2406.04692).

A mixture of agents with one model: a way to use many samples where there is no verifier (2025, arXiv 2504.14047).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from thinktime.core.search import Answer, Search
from thinktime.core.selection import majority
from thinktime.core.types import Capability
from thinktime.strategies.options import at_least


@dataclass(frozen=True)
class Aggregate:
    """``n`` proposals, then one answer written with all of them in sight.

    Where that cannot be had or read, the proposals vote.

    Args:
        n: proposals.
        layers: times that answers are written out of the last ones; ``n`` of them in all but the last.
    """

    n: int = 4
    layers: int = 1
    needs: ClassVar[frozenset[Capability]] = frozenset({Capability.AGGREGATE, Capability.ANSWERS})

    def __post_init__(self) -> None:
        at_least("n", self.n, 1)
        at_least("layers", self.layers, 1)

    async def __call__(self, search: Search) -> Answer:
        written = [await search.extend([search.root], self.n)]
        for left in reversed(range(self.layers)):
            shown = [leaf for leaf in written[-1] if leaf.done]
            question = search.ask(Capability.AGGREGATE, shown) if shown else None
            if question is None:
                break
            written.append(await search.extend([question], self.n if left else 1))
        votes = (majority(search.candidates(leaves)) for leaves in reversed(written))
        return search.finish(next((winner for winner in votes if winner is not None), None))
