"""Reward-balanced search (Wu et al. 2024, arXiv 2408.00724): children in proportion to the softmax of the rewards."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from thinktime.core.allocation import shares
from thinktime.core.search import Search
from thinktime.core.selection import weighted_majority
from thinktime.core.trace import Answer
from thinktime.core.types import Node
from thinktime.strategies.options import TREE_SEARCH, above, at_least


@dataclass(frozen=True)
class Rebase:
    """Allocate ``n`` steps in every round to the nodes of the previous one, by the softmax of their rewards.

    A solution that finishes, or reaches the length limit, keeps occupying a slot, so later rounds have fewer steps. The
    answer is the weighted vote of all finished solutions.

    Args:
        n: steps sampled in the first round.
        balance: temperature of the softmax, for rewards between 0 and 1; a lower one favours the best nodes more.
        max_rounds: the most rounds; the search then ends with the finished solutions.
    """

    n: int = 16
    balance: float = 0.2
    max_rounds: int = 40
    needs: ClassVar[frozenset[str]] = TREE_SEARCH

    def __post_init__(self) -> None:
        at_least("n", self.n, 1)
        above("balance", self.balance, 0)
        at_least("max_rounds", self.max_rounds, 1)

    async def __call__(self, search: Search) -> Answer:
        finished: dict[Node, float | None] = {}
        frontier, counts, left = [search.root], [self.n], self.n
        for _ in range(self.max_rounds):
            children = await search.extend(frontier, counts, until="step")
            scores = dict(zip(children, await search.score(children), strict=True))
            finished |= {node: scores[node] for node in children if node.done}
            frontier = [node for node in children if node.finish == "step"]
            left -= len(children) - len(frontier)
            if not frontier or left <= 0:
                break
            counts = shares([scores[node] for node in frontier], left, self.balance)
            search.prune([node for node, count in zip(frontier, counts, strict=True) if not count])
        return search.finish(weighted_majority(search.candidates(finished, finished.values())))
