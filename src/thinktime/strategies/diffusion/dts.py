"""Diffusion tree sampling and search (Jain et al. 2025, arXiv 2506.20701).

A tree over the steps of a generation. Every round descends to a node with too few children, samples one more child,
rolls it out to the end, keeps the whole roll-out in the tree, and backs the reward up by a soft maximum. No sample is
discarded, so the answer keeps improving. Steps are those of denoising or of text.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from math import ceil, inf, log, sqrt
from random import Random
from typing import ClassVar

from thinktime.core.errors import InputError, check_number
from thinktime.core.particles import log_mean_exp, normalised
from thinktime.core.search import Search, refuse_copies
from thinktime.core.selection import best
from thinktime.core.trace import Answer
from thinktime.core.types import Capability, Node
from thinktime.strategies.options import above, at_least, not_below, one_of

BACKUPS = ("mean", "sum", "max")


@dataclass(eq=False)
class Branch:
    """A node of the tree: ``value`` estimates ``log E[exp(factor * reward)] / factor`` over the ends below it."""

    node: Node
    parent: Branch | None = field(default=None, repr=False)
    children: list[Branch] = field(default_factory=list, repr=False)
    visits: float = 0
    value: float = -inf

    @property
    def known(self) -> list[Branch]:
        """The children with a reward below them."""
        return [child for child in self.children if child.value > -inf]

    def lineage(self) -> Iterator[Branch]:
        """This branch and its ancestors."""
        branch: Branch | None = self
        while branch is not None:
            yield branch
            branch = branch.parent

    def leaves(self) -> Iterator[Branch]:
        """All complete generations below this branch, or itself, that have a reward."""
        if self.node.done and self.value > -inf:
            yield self
        for child in self.children:
            yield from child.leaves()

    def draw(self, factor: float, rng: Random) -> Branch:
        """Descend to an end, choosing each child in proportion to ``exp(factor * value)``."""
        branch = self
        while branch.known:
            (branch,) = rng.choices(branch.known, normalised([factor * child.value for child in branch.known]))
        return branch

    def climb(self) -> Branch:
        """Descend to an end, always to the child with the highest value."""
        branch = self
        while branch.known:
            branch = max(branch.known, key=lambda child: child.value)
        return branch


@dataclass(frozen=True)
class DTS:
    """``n`` rounds on a tree. DTS* searches for the highest reward; DTS samples from ``p * exp(factor * reward)``.

    A child is sampled with fresh noise, so the sampler must not be deterministic. The answer of DTS* is the best end;
    the answer of DTS is drawn from the tree.

    Args:
        n: rounds; each adds one end.
        variant: ``star`` descends by upper confidence bounds, ``sample`` in proportion to ``exp(factor * value)``.
        factor: multiplies the reward in the exponent, above 0.
        widen: a node with N visits has at most ``widen * N ** alpha`` children, and at least one.
        alpha: see ``widen``; between 0 and 1.
        explore: weight of the uncertainty in the bounds of ``star``.
        backup: how values of children combine: their soft ``mean``; their ``sum``, which favours nodes with many
            children; or their ``max``, which favours lucky ends.
        walks: rounds at once; a walk counts as a visit, so the other walks choose other nodes.
    """

    n: int = 64
    variant: str = "star"
    factor: float = 1.0
    widen: float = 1.0
    alpha: float = 0.5
    explore: float = 1.0
    backup: str = "mean"
    walks: int = 1
    needs: ClassVar[frozenset[str]] = frozenset(
        {Capability.STEPS, Capability.PREFIX, Capability.NOISE, Capability.SCORES}
    )

    def __post_init__(self) -> None:
        at_least("n", self.n, 1)
        one_of("variant", self.variant, ("star", "sample"))
        above("factor", self.factor, 0)
        above("widen", self.widen, 0)
        check_number("alpha", self.alpha)
        if not 0 < self.alpha < 1:
            fix = "give a number between 0 and 1; with 1 the tree never reuses a node, with 0 it never widens"
            raise InputError("alpha", self.alpha, fix)
        not_below("explore", self.explore, 0)
        one_of("backup", self.backup, BACKUPS)
        at_least("walks", self.walks, 1)

    async def __call__(self, search: Search) -> Answer:
        tree = await self.grow(search)
        seen = list(tree.leaves())
        greedy, drawn = tree.climb(), tree.draw(self.factor, search.random("answer"))
        top = max(seen, key=lambda leaf: leaf.value, default=tree)
        if self.variant == "sample" and len(seen) == 1:
            search.log(warning="the tree has 1 end; every sample of it would be the same")
        search.log(ends=len(seen), best=top.node.path, greedy=greedy.node.path, root=tree.value)
        chosen = (top if self.variant == "star" else drawn).node
        return search.finish(best(search.candidates([chosen])))

    async def grow(self, search: Search) -> Branch:
        """The tree after ``n`` rounds, or fewer if the budget ends."""
        if search.sampling.temperature == 0:
            refuse_copies(self.n)
        rng, tree, left = search.random("walk"), Branch(search.root), self.n
        while left > 0:
            ends = self._select(tree, min(self.walks, left), rng)
            left -= len(ends)
            tips = await self._roll_out(search, [end for end in ends if not end.node.done])
            if len(tips) < sum(not end.node.done for end in ends):
                left = 0  # the budget is exhausted
            finished = [tip for tip in tips if tip.node.done]
            for tip, reward in zip(finished, await search.score([tip.node for tip in finished]), strict=True):
                if reward is None:
                    search.log(missing=tip.node.path)
                else:
                    tip.value = reward
            for end in [*finished, *(end for end in ends if end.node.done)]:
                self._back_up(end)
        return tree

    def _select(self, tree: Branch, n: int, rng: Random) -> list[Branch]:
        """The nodes for the next rounds: nodes with too few children, or ends. A selected node counts as visited."""
        found: list[Branch] = []
        for _ in range(n):
            branch = tree
            while branch.known and len(branch.children) >= self._room(branch):
                branch = self._child(branch, rng)
            found.append(branch)
            for over in branch.lineage():
                over.visits += 1
        for branch in found:
            for over in branch.lineage():
                over.visits -= 1
        return found

    def _room(self, branch: Branch) -> int:
        """The number of children a node may have at its current visits; an end has none."""
        return 0 if branch.node.done else max(1, ceil(self.widen * max(1.0, branch.visits) ** self.alpha))

    def _child(self, branch: Branch, rng: Random) -> Branch:
        if self.variant == "sample":
            (child,) = rng.choices(branch.known, normalised([self.factor * child.value for child in branch.known]))
            return child
        return max(
            branch.known, key=lambda child: child.value + self.explore * sqrt(log(branch.visits) / max(1, child.visits))
        )

    async def _roll_out(self, search: Search, ends: list[Branch]) -> list[Branch]:
        """Roll out one new child of each node to its end, adding a branch for every step; return the last branches."""
        grown: list[Branch] = []
        tips = ends
        while tips:
            parents = {tip.node: tip for tip in tips}
            children = await search.extend([tip.node for tip in tips], until="step")
            tips = []
            for node in children:
                assert node.parent is not None
                child = Branch(node, parents[node.parent])
                parents[node.parent].children.append(child)
                (tips if node.finish == "step" else grown).append(child)
        return grown

    def _back_up(self, end: Branch) -> None:
        for branch in end.lineage():
            branch.visits += 1
            if branch.known:
                branch.value = self._value([child.value for child in branch.known])

    def _value(self, values: list[float]) -> float:
        if self.backup == "max":
            return max(values)
        mean = log_mean_exp([self.factor * value for value in values])
        return (mean if self.backup == "mean" else mean + log(len(values))) / self.factor
