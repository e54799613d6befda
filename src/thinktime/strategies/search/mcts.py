"""Monte Carlo tree search over steps (Kocsis and Szepesvari 2006), valued by a process reward model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from math import inf, log, sqrt
from typing import ClassVar

from thinktime.core.search import Search, refuse_copies
from thinktime.core.selection import ranked, weighted_majority
from thinktime.core.trace import Answer
from thinktime.core.types import Node
from thinktime.strategies.options import TREE_SEARCH, at_least, not_below


@dataclass(eq=False)
class Place:
    """A node of the tree with its statistics. It is closed when no node below it can be extended."""

    node: Node
    parent: Place | None = None
    children: list[Place] = field(default_factory=list)
    visits: float = 0
    value: float = 0.0
    closed: bool = False

    def bound(self, explore: float) -> float:
        """Upper confidence bound: the mean value plus a bonus that falls with the visits."""
        if self.parent is None or not self.visits:
            return inf
        return self.value / self.visits + explore * sqrt(log(self.parent.visits) / self.visits)

    def lineage(self) -> Iterator[Place]:
        """This node and its ancestors."""
        place: Place | None = self
        while place is not None:
            yield place
            place = place.parent

    def learn(self, score: float | None) -> None:
        """Back up a reward from this node to the root. A missing reward changes nothing."""
        for place in self.lineage() if score is not None else ():
            place.visits += 1
            place.value += score or 0.0

    def close(self) -> None:
        """Close this node, and every ancestor whose children are all closed."""
        for place in self.lineage():
            if not all(child.closed for child in place.children):
                break
            place.closed = True


@dataclass(frozen=True)
class MCTS:
    """``n`` times: expand the most promising leaf by ``width`` steps, roll out the best step, back the rewards up.

    A step's value is the mean reward of the samples below it. Leaves of one batch are chosen one after the other; each
    chosen leaf counts as a visit with reward 0 (virtual loss). So a batch of 8 extends 8 different leaves if there are
    as many. The answer is the weighted vote of all finished solutions.

    Args:
        n: total number of leaves expanded and rolled out.
        width: steps sampled from a leaf.
        explore: weight of the uncertainty against the mean value.
        batch: leaves extended at once.
    """

    n: int = 16
    width: int = 4
    explore: float = 0.5
    batch: int = 8
    needs: ClassVar[frozenset[str]] = TREE_SEARCH

    def __post_init__(self) -> None:
        at_least("n", self.n, 1)
        at_least("width", self.width, 1)
        at_least("batch", self.batch, 1)
        not_below("explore", self.explore, 0)

    async def __call__(self, search: Search) -> Answer:
        if search.sampling.temperature == 0:
            refuse_copies(max(self.n, self.width))
        root = Place(search.root)
        finished: dict[Node, float | None] = {}
        left = self.n
        while left > 0 and not root.closed and not search.exhausted:
            leaves = self._select(root, min(self.batch, left))
            left -= len(leaves)
            steps = await search.extend([leaf.node for leaf in leaves], self.width, until="step")
            scores = dict(zip(steps, await search.score(steps), strict=True))
            best = []
            for leaf in leaves:
                leaf.children = [Place(step, leaf) for step in steps if step.parent is leaf.node]
                for child in leaf.children:
                    child.learn(scores[child.node])
                    if child.node.finish != "step":
                        child.close()
                if not leaf.children:
                    leaf.close()
                    continue
                nodes = [child.node for child in leaf.children]
                (favourite, _), *_ = ranked(nodes, [scores[node] for node in nodes])
                first = leaf.children[nodes.index(favourite)]
                if not first.closed:
                    best.append(first)
            ends = await search.extend([place.node for place in best])
            scores |= dict(zip(ends, await search.score(ends), strict=True))
            for end in ends:
                next(place for place in best if place.node is end.parent).learn(scores[end])
            finished |= {node: scores[node] for node in (*steps, *ends) if node.done}
        return search.finish(weighted_majority(search.candidates(finished, finished.values())))

    def _select(self, root: Place, n: int) -> list[Place]:
        """Up to ``n`` different leaves. During the selection, chosen leaves are closed and count as losses."""
        leaves: list[Place] = []
        while len(leaves) < n and not root.closed:
            place = root
            while place.children:
                open_children = (child for child in place.children if not child.closed)
                place = max(open_children, key=lambda child: child.bound(self.explore))
            leaves.append(place)
            place.close()
            for above in place.lineage():
                above.visits += 1
        for leaf in leaves:
            for above in leaf.lineage():
                above.visits -= 1
                above.closed = False
        return leaves
