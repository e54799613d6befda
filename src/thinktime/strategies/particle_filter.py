"""Particle filtering over steps (Puri et al. 2025, arXiv 2502.01618) with Feynman-Kac potentials (arXiv 2501.06848).

Solutions are particles: each goes on by a step, gets a weight from its reward, and the population is redrawn in
proportion to the weights. What comes out is distributed as the model's own solutions times ``exp(factor * reward)``,
the reward being the log-odds of the process reward model.
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, replace
from math import inf
from typing import ClassVar

from thinktime.core.particles import POTENTIALS, effective_size, log_odds, log_potential, normalised, systematic
from thinktime.core.search import Answer, Search
from thinktime.core.selection import vote
from thinktime.core.types import Capability, Node
from thinktime.strategies.options import TREE_SEARCH, above, at_least, not_below, one_of


@dataclass(frozen=True)
class Particle:
    """A partial solution, its weight since it was last redrawn, its rewards so far and the potentials they gave."""

    node: Node
    log_weight: float = 0.0
    rewards: tuple[float, ...] = ()
    log_product: float = 0.0


@dataclass(frozen=True)
class ParticleFilter:
    """``n`` particles, redrawn whenever their effective number falls below ``ess`` of them.

    The answer is the one with the most weight.

    Args:
        n: particles.
        potential: what a reward on the way weighs: its rise (``diff``), the highest so far (``max``), all so far
            (``sum``) or itself (``rt``). The last potential of a solution makes the product the same for all of them.
        factor: of the reward in the exponent; 0 is plain sampling.
        ess: share of ``n`` below which the population is redrawn; 1 redraws at every step.
        anneal: steps over which the factor rises to its full value, for rewards that mislead early.
        max_rounds: after so many steps the search ends with what has finished.
    """

    n: int = 16
    potential: str = "diff"
    factor: float = 1.0
    ess: float = 0.5
    anneal: int = 0
    max_rounds: int = 40
    needs: ClassVar[frozenset[Capability]] = TREE_SEARCH

    def __post_init__(self) -> None:
        at_least("n", self.n, 1)
        one_of("potential", self.potential, POTENTIALS)
        above("factor", self.factor, 0)
        not_below("ess", self.ess, 0)
        at_least("anneal", self.anneal, 0)
        at_least("max_rounds", self.max_rounds, 1)

    async def __call__(self, search: Search) -> Answer:
        dice = search.random("resampling")
        population = [Particle(search.root)] * self.n
        for turn in range(1, self.max_rounds + 1):
            moving = Counter(particle.node for particle in population if particle.node.finish in ("root", "step"))
            if not moving:
                break
            children = await search.extend(list(moving), list(moving.values()), until="step")
            scores = dict(zip(children, await search.score(children), strict=True))
            born: dict[Node | None, deque[Node]] = {}
            for child in children:
                born.setdefault(child.parent, deque()).append(child)
            moved = []
            for particle in population:
                if particle.node not in moving:
                    moved.append(particle)
                elif siblings := born.get(particle.node):
                    child = siblings.popleft()
                    moved.append(self._weighed(particle, child, scores[child], turn))
            population = moved
            if not population:
                break
            weights = [particle.log_weight for particle in population]
            size = effective_size(weights)
            search.log(turn=turn, ess=size, finished=sum(p.node.done for p in population))
            if size < self.ess * len(population):
                ancestors = systematic(weights, self.n, dice.random())
                kept = {population[place].node for place in ancestors}
                search.prune([p.node for p in population if p.node not in kept and not p.node.done])
                population = [replace(population[place], log_weight=0.0) for place in ancestors]
        ended = [particle for particle in population if particle.node.done]
        share: dict[Node, float] = {}
        for particle, weight in zip(ended, normalised([p.log_weight for p in ended]), strict=True):
            share[particle.node] = share.get(particle.node, 0.0) + weight
        return search.finish(vote(search.candidates(share, share.values()), lambda candidate: candidate.score or 0.0))

    def _weighed(self, particle: Particle, child: Node, score: float | None, turn: int) -> Particle:
        """The particle after a step. A missing score is no news; what can't go on and isn't complete weighs nothing."""
        if child.finish not in ("step", "eos"):
            return Particle(child, -inf)
        if score is None:
            return replace(particle, node=child)
        heat = 1.0 if child.done or not self.anneal else min(1.0, turn / self.anneal)
        rewards = (*particle.rewards, self.factor * heat * log_odds(score))
        gained = log_potential(self.potential, rewards, particle.log_product, child.done)
        return Particle(child, particle.log_weight + gained, rewards, particle.log_product + gained)
