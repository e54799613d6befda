"""Beam search over steps with a process reward model (Snell et al. 2024, arXiv 2408.03314, section 5.2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from thinktime.core.errors import InputError
from thinktime.core.search import Answer, Search
from thinktime.core.selection import weighted_majority
from thinktime.core.types import Capability, Node
from thinktime.strategies.options import at_least


@dataclass(frozen=True)
class BeamSearch:
    """Sample ``n`` first steps; keep the best ``n / width``, give each ``width`` next steps; repeat.

    A solution that finishes among the best takes its place in the beam along; one that finishes below them does
    not, but no finished solution is lost: the answer is the weighted vote of all of them.
    """

    n: int = 16
    width: int = 4
    max_rounds: int = 40
    needs: ClassVar[frozenset[Capability]] = frozenset(
        {Capability.STEPS, Capability.PREFIX, Capability.PROCESS_REWARD, Capability.ANSWERS}
    )

    def __post_init__(self) -> None:
        at_least("n", self.n, 1)
        at_least("width", self.width, 1)
        at_least("max_rounds", self.max_rounds, 1)
        if self.n > self.width and self.n % self.width:
            raise InputError("n", self.n, f"give a multiple of width={self.width}")

    async def __call__(self, search: Search) -> Answer:
        places = max(1, self.n // self.width)
        branches = min(self.n, self.width)
        finished: list[tuple[Node, float | None]] = []
        frontier, children_each = [search.root], self.n
        for _ in range(self.max_rounds):
            children = await search.extend(frontier, children_each, until="step")
            ranked = sorted(
                zip(children, await search.score(children), strict=True),
                key=lambda pair: -float("inf") if pair[1] is None else pair[1],
                reverse=True,
            )
            kept, rest = ranked[:places], ranked[places:]
            finished += [pair for pair in ranked if pair[0].done]
            search.prune([node for node, _ in rest if not node.done])
            frontier = [node for node, _ in kept if node.finish == "step"]
            places = len(frontier)
            children_each = branches
            if not frontier:
                break
        nodes = [node for node, _ in finished]
        return search.finish(weighted_majority(search.candidates(nodes, [score for _, score in finished])))
