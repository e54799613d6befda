"""Greedy best-first search (Doran and Michie 1966): extend the most promising partial solution of any depth."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from thinktime.core.search import Search
from thinktime.core.trace import Answer
from thinktime.strategies.options import TREE_SEARCH
from thinktime.strategies.search.a_star import AStar


@dataclass(frozen=True)
class BestFirst:
    """A* without edge costs: extend the state with the highest reward next.

    Args:
        k: steps sampled from each extended state.
        n_goals: solutions to reach; several are put to a weighted vote.
    """

    k: int = 4
    n_goals: int = 1
    needs: ClassVar[frozenset[str]] = TREE_SEARCH

    def __post_init__(self) -> None:
        self._search()

    async def __call__(self, search: Search) -> Answer:
        return await self._search()(search)

    def _search(self) -> AStar:
        return AStar(k=self.k, n_goals=self.n_goals, edge_cost="zero")
