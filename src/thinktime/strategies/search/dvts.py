"""Diverse verifier tree search: independent subtrees, the best step of each (Beeching, Tunstall and Rush 2024)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from thinktime.core.search import Search
from thinktime.core.selection import ranked, weighted_majority
from thinktime.core.trace import Answer
from thinktime.core.types import Node
from thinktime.strategies.options import TREE_SEARCH, at_least, divides


@dataclass(frozen=True)
class DVTS:
    """``n / width`` subtrees that never compete: each continues from the best of its ``width`` steps.

    A beam may end with siblings only; here every subtree is followed to its end. The answer is the weighted vote of all
    finished solutions.

    Args:
        n: steps sampled in a round.
        width: steps of one subtree in a round.
        max_rounds: the most rounds; the search then ends with the finished solutions.
    """

    n: int = 16
    width: int = 4
    max_rounds: int = 40
    needs: ClassVar[frozenset[str]] = TREE_SEARCH

    def __post_init__(self) -> None:
        at_least("n", self.n, 1)
        at_least("width", self.width, 1)
        at_least("max_rounds", self.max_rounds, 1)
        divides(self.width, self.n)

    async def __call__(self, search: Search) -> Answer:
        width = min(self.n, self.width)
        finished: dict[Node, float | None] = {}
        children = await search.extend([search.root], self.n, until="step")
        subtrees = [children[start : start + width] for start in range(0, len(children), width)]
        for _ in range(self.max_rounds):
            scores = dict(zip(children, await search.score(children), strict=True))
            frontier = []
            for siblings in subtrees:
                (best, _), *rest = ranked(siblings, [scores[node] for node in siblings])
                search.prune([node for node, _ in rest if not node.done])
                finished |= {node: scores[node] for node in siblings if node.done}
                if best.finish == "step":
                    frontier.append(best)
            if not frontier:
                break
            children = await search.extend(frontier, width, until="step")
            subtrees = [found for parent in frontier if (found := [c for c in children if c.parent is parent])]
        return search.finish(weighted_majority(search.candidates(finished, finished.values())))
