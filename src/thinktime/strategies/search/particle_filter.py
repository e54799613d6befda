"""Particle filtering over steps (Puri et al. 2025, arXiv 2502.01618) with Feynman-Kac potentials (arXiv 2501.06848).

Solutions are particles: each is extended by a step and weighted by its reward, and the population is resampled in
proportion to the weights. The result is distributed as the model's own solutions times ``exp(factor * reward)``, where
the reward is the log-odds of the process reward model.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from math import inf, isfinite
from typing import ClassVar

from thinktime.core.particles import (
    POTENTIALS,
    RESAMPLERS,
    effective_size,
    log_mean_exp,
    log_odds,
    log_potential,
    normalised,
)
from thinktime.core.search import Search
from thinktime.core.selection import Candidate, best, vote
from thinktime.core.trace import Answer
from thinktime.core.types import Node
from thinktime.strategies.options import TREE_SEARCH, above, at_least, not_below, one_of

REWARDS: dict[str, Callable[[float], float]] = {"log_odds": log_odds, "score": float}
"""Functions from a score to the reward in the exponent."""
ALL_IN_ONE = 1.01
"""An effective size below this counts as a single particle."""


@dataclass(frozen=True)
class Particle:
    """A partial solution, its weight since the last resampling, its rewards, and the sum of its log-potentials."""

    node: Node
    log_weight: float = 0.0
    rewards: tuple[float, ...] = ()
    log_product: float = 0.0

    @property
    def moving(self) -> bool:
        """Whether it can be extended."""
        return self.node.finish in ("root", "step")


@dataclass(frozen=True)
class ParticleFilter:
    """``n`` particles, resampled whenever their effective size falls below the share ``ess`` of them.

    The answer is the one with the most weight.

    Args:
        n: particles.
        potential: the potential of a partial solution: the change of its reward (``diff``), the highest reward so far
            (``max``), the sum so far (``sum``), the reward itself (``rt``), or 1 before the end (``is``). The last
            potential of a solution makes the product the same for all of these. ``bon`` is best-of-n, the baseline: no
            resampling, no score before the end, and the highest reward answers.
        factor: multiplies the reward in the exponent.
        ess: resample if the effective size is below this share of ``n``; 1 resamples at every scored step.
        anneal: steps over which the factor rises to its full value, for rewards that mislead early.
        start: initial steps without a score.
        every: steps from one scored step to the next; complete solutions are always scored.
        reward: ``log_odds`` of the score, for probabilities, or the ``score`` itself.
        rollouts: roll-outs to the end that value a partial solution, by the logarithm of the mean of
            ``exp(factor * reward)``; 0 scores the partial solution itself.
        resampler: ``systematic`` with one draw for all particles, ``stratified`` with one draw in each ``n``-th of the
            weight, or ``multinomial`` with independent draws.
        max_rounds: the most steps; the search then ends with the finished solutions.
    """

    n: int = 16
    potential: str = "diff"
    factor: float = 1.0
    ess: float = 0.5
    anneal: int = 0
    start: int = 0
    every: int = 1
    max_rounds: int = 40
    reward: str = "log_odds"
    rollouts: int = 0
    resampler: str = "systematic"
    needs: ClassVar[frozenset[str]] = TREE_SEARCH

    def __post_init__(self) -> None:
        at_least("n", self.n, 1)
        one_of("potential", self.potential, (*POTENTIALS, "bon"))
        above("factor", self.factor, 0)
        not_below("ess", self.ess, 0)
        at_least("anneal", self.anneal, 0)
        at_least("start", self.start, 0)
        at_least("every", self.every, 1)
        at_least("max_rounds", self.max_rounds, 1)
        one_of("reward", self.reward, REWARDS)
        at_least("rollouts", self.rollouts, 0)
        one_of("resampler", self.resampler, RESAMPLERS)

    async def __call__(self, search: Search) -> Answer:
        ended = [particle for particle in await self.filter(search) if particle.node.done]
        return search.finish(self._chosen(search, ended))

    async def filter(self, search: Search) -> list[Particle]:
        """The final population, with the weights since the last resampling."""
        rng = search.random("resampling")
        population = [Particle(search.root)] * self.n
        redraws = collapses = partial = 0
        for turn in range(1, self.max_rounds + 1):
            moving = Counter(particle.node for particle in population if particle.moving)
            if not moving:
                break
            children = await search.extend(list(moving), list(moving.values()), until="step")
            scored = [child for child in children if child.done or self._is_scored(turn)]
            partial += sum(not child.done for child in scored)
            rewards = dict(zip(scored, await self._rewards(search, scored), strict=True))
            born: dict[Node | None, deque[Node]] = {}
            for child in children:
                born.setdefault(child.parent, deque()).append(child)
            moved = []
            for particle in population:
                if particle.node not in moving:
                    moved.append(particle)
                elif siblings := born.get(particle.node):
                    child = siblings.popleft()
                    moved.append(self._weighed(particle, child, rewards.get(child), turn))
            population = moved
            if not population:
                break
            weights = [particle.log_weight for particle in population]
            if not isfinite(max(weights)):
                search.log(warning=f"step {turn}: no particle has a finite weight, so all of them count equally")
            size = effective_size(weights)
            roots = len({next(node for node in p.node.lineage() if node.depth <= 1) for p in population})
            search.log(turn=turn, ess=size, finished=sum(p.node.done for p in population), roots=roots)
            if size < self.ess * len(population) and self.potential != "bon":
                redraws += 1
                collapses += size < ALL_IN_ONE
                ancestors = RESAMPLERS[self.resampler](weights, self.n, rng)
                kept = {population[place].node for place in ancestors}
                search.prune([p.node for p in population if p.node not in kept and not p.node.done])
                population = [replace(population[place], log_weight=0.0) for place in ancestors]
        unfinished = sum(particle.moving for particle in population)
        if unfinished:
            warning = f"{unfinished} of {len(population)} particles had not finished after max_rounds={self.max_rounds}"
            search.log(warning=f"{warning} steps; the answer leaves them out")
        if 2 * collapses > redraws:
            warning = f"one particle had all the weight at {collapses} of {redraws} redraws, so the others are lost"
            search.log(warning=f"{warning}; lower factor={self.factor:g}")
        if not partial and self.potential not in ("is", "bon"):
            search.log(warning=f"no step is scored before the end with {self._schedule}: this is importance sampling")
        return population

    @property
    def _schedule(self) -> str:
        return f"start={self.start}, every={self.every}"

    async def _rewards(self, search: Search, nodes: list[Node]) -> list[float | None]:
        """The factor times the reward of each node; a partial solution is valued by its score or by roll-outs."""
        read = REWARDS[self.reward]
        if not self.rollouts:
            return [None if score is None else self.factor * read(score) for score in await search.score(nodes)]
        ends = {node: [node] if node.done else [] for node in nodes}
        for end in await search.extend([node for node in nodes if not node.done], self.rollouts):
            if end.done and end.parent is not None:
                ends[end.parent].append(end)
        flat = [end for group in ends.values() for end in group]
        scores = dict(zip(flat, await search.score(flat), strict=True))
        known = [
            [self.factor * read(score) for end in ends[node] if (score := scores[end]) is not None] for node in nodes
        ]
        return [log_mean_exp(rewards) if rewards else None for rewards in known]

    def _is_scored(self, turn: int) -> bool:
        return self.potential != "bon" and turn > self.start and (turn - self.start - 1) % self.every == 0

    def _chosen(self, search: Search, ended: list[Particle]) -> Candidate | None:
        """The answer with the most weight; the highest reward if answers cannot be compared, and with ``bon``."""
        if search.answers is None or self.potential == "bon":
            nodes = list(dict.fromkeys(particle.node for particle in ended))
            return best(search.candidates(nodes, [search.trace[node.key].score for node in nodes]))
        share: dict[Node, float] = {}
        for particle, weight in zip(ended, normalised([p.log_weight for p in ended]), strict=True):
            share[particle.node] = share.get(particle.node, 0.0) + weight
        return vote(search.candidates(share, share.values()), lambda candidate: candidate.score or 0.0)

    def _weighed(self, particle: Particle, child: Node, reward: float | None, turn: int) -> Particle:
        """The particle after a step.

        A step from a proposal other than the model's own distribution adds the logarithm of their ratio. A missing
        reward changes nothing; a particle that stops before its end has weight 0.
        """
        if child.finish not in ("step", "eos"):
            return Particle(child, -inf)
        log_weight = particle.log_weight + child.log_weight
        if reward is None:
            return replace(particle, node=child, log_weight=log_weight)
        heat = 1.0 if child.done or not self.anneal else min(1.0, turn / self.anneal)
        rewards = (*particle.rewards, heat * reward)
        gained = log_potential(self.potential, rewards, particle.log_product, child.done)
        return Particle(child, log_weight + gained, rewards, particle.log_product + gained)
