"""Beam search over steps with a process reward model (Snell et al. 2024, arXiv 2408.03314, section 5.2).

Sample first steps, keep the best, sample several next steps from each, repeat. With ``lookahead`` the reward of a step
is that of a greedy roll-out of some further steps; the roll-out is then discarded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isqrt
from typing import ClassVar, Literal

from thinktime.core.search import Search
from thinktime.core.selection import ranked, weighted_majority
from thinktime.core.trace import Answer
from thinktime.core.types import Node
from thinktime.strategies.options import TREE_SEARCH, at_least, divides, one_of


@dataclass(frozen=True)
class BeamSearch:
    """Sample ``n`` first steps; keep the best ``n / width``; sample ``width`` next steps from each; repeat.

    A solution that finishes among the best keeps occupying a slot of the beam; one that finishes below them frees its
    slot. No finished solution is lost: the answer is the weighted vote of all of them.

    Args:
        n: steps sampled in a round.
        width: children of a kept step; ``sqrt`` is the largest divisor of n that is at most its square root.
        max_rounds: the most rounds; the search then ends with the finished solutions.
        lookahead: steps of the greedy roll-out that is scored in place of a step; 0 scores the step itself.
    """

    n: int = 16
    width: int | Literal["sqrt"] = 4
    max_rounds: int = 40
    lookahead: int = 0
    needs: ClassVar[frozenset[str]] = TREE_SEARCH

    def __post_init__(self) -> None:
        at_least("n", self.n, 1)
        at_least("max_rounds", self.max_rounds, 1)
        at_least("lookahead", self.lookahead, 0)
        if isinstance(self.width, int):
            at_least("width", self.width, 1)
            divides(self.width, self.n)
        else:
            one_of("width", self.width, ("sqrt",))

    async def __call__(self, search: Search) -> Answer:
        width = self.width if isinstance(self.width, int) else root(self.n)
        if self.width == "sqrt" and width**2 < self.n:
            search.log(warning=f"width=sqrt: n={self.n} is no square; a kept step has width={width}")
        places = max(1, self.n // width)
        finished: dict[Node, float | None] = {}
        frontier, children_each = [search.root], self.n
        for _ in range(self.max_rounds):
            children = await search.extend(frontier, children_each, until="step")
            order = ranked(children, await self._judge(search, children))
            kept, rest = order[:places], order[places:]
            finished |= {node: score for node, score in order if node.done}
            search.prune([node for node, _ in rest if not node.done])
            frontier = [node for node, _ in kept if node.finish == "step"]
            places, children_each = len(frontier), min(self.n, width)
            if not frontier:
                break
        return search.finish(weighted_majority(search.candidates(finished, finished.values())))

    async def _judge(self, search: Search, nodes: Sequence[Node]) -> list[float | None]:
        ends, rolled_out = list(nodes), []
        for _ in range(self.lookahead):
            further = await search.extend(ends, until="step", temperature=0.0)
            by_parent = {node.parent: node for node in further}
            ends = [by_parent.get(end, end) for end in ends]
            rolled_out += further
        search.prune(rolled_out)
        return await search.score(ends)


def root(n: int) -> int:
    """The largest divisor of ``n`` that is not above its square root."""
    return next(width for width in range(isqrt(n), 0, -1) if n % width == 0)
