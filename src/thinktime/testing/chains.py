"""A small Markov chain as a generator, so that the target distribution of steering is known exactly.

A sampler of ``p * exp(factor * reward)`` is right if `total_variation` between its samples and `Chain.tilted` goes to 0
as the number of samples grows.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from math import exp
from random import Random
from typing import Any

from thinktime.core.particles import normalised
from thinktime.core.search import Search
from thinktime.core.types import Capability, Child, Extension, Node, Problem, Sampling, Score
from thinktime.core.usage import Budget, Usage
from thinktime.strategies.diffusion.dts import Branch

Path = tuple[int, ...]


@dataclass(frozen=True)
class Chain:
    """A chain that starts uniformly and stays with probability ``stay``; every state of every level has a reward."""

    rewards: tuple[tuple[float, ...], ...]
    stay: float = 0.9

    @classmethod
    def drawn(cls, seed: int, levels: int, states: int = 3) -> Chain:
        """A chain with random rewards between 0 and 1."""
        rng = Random(seed)
        return cls(tuple(tuple(rng.random() for _ in range(states)) for _ in range(levels)))

    @property
    def levels(self) -> int:
        """Steps of a walk."""
        return len(self.rewards)

    @property
    def states(self) -> int:
        """States of a level."""
        return len(self.rewards[0])

    def search(self, seed: int, budget: Budget | None = None, **options: Any) -> Search:
        """A search on this chain; the scorer returns the reward of a walk's current state."""
        sampling = Sampling(max_length=self.levels)
        return Search(
            Problem("chain", "walk"),
            ChainGenerator(self),
            scorers=ChainScorer(self),
            sampling=sampling,
            seed=seed,
            budget=budget,
            **options,
        )

    def probability(self, before: Path, state: int) -> float:
        """The probability of a state after a walk."""
        if not before:
            return 1 / self.states
        return self.stay if state == before[-1] else (1 - self.stay) / (self.states - 1)

    def tilted(self, factor: float) -> dict[Path, float]:
        """The distribution of whole paths in proportion to their probability times ``exp(factor * last reward)``."""
        weights = {}
        for path in product(range(self.states), repeat=self.levels):
            weight = exp(factor * self.rewards[-1][path[-1]])
            for index, state in enumerate(path):
                weight *= self.probability(path[:index], state)
            weights[path] = weight
        total = sum(weights.values())
        return {path: weight / total for path, weight in weights.items()}


class ChainGenerator:
    """Walks along a chain; a step is a level and costs one evaluation."""

    capabilities = frozenset({Capability.STEPS, Capability.PREFIX, Capability.NOISE})
    unit = "steps"

    def __init__(self, chain: Chain) -> None:
        self.chain, self.name = chain, f"chain{hash(chain)}"

    def root(self, problem: Problem, known: Sequence[Any] = (), *, quotes: bool = False) -> Path:
        """The empty path."""
        return ()

    def adopt(self, root: Path, state: Any, known: Sequence[Any] = ()) -> Path:
        """The path of another chain with the same states."""
        return tuple(state)

    def length(self, state: Path) -> int:
        """Levels walked."""
        return len(state)

    def worst_case(self, node: Node, max_length: int) -> Usage:
        """One evaluation per level."""
        return Usage(denoiser_calls=min(max_length, self.chain.levels - len(node.state)), model_calls=1)

    async def extend(self, extensions: Sequence[Extension]) -> list[Child]:
        """Continue the walks, with a random generator seeded by each key."""
        await asyncio.sleep(0)
        return [self._child(extension) for extension in extensions]

    def _child(self, extension: Extension) -> Child:
        rng, state = Random(extension.key), extension.node.state
        while len(state) < self.chain.levels:
            weights = [self.chain.probability(state, each) for each in range(self.chain.states)]
            state = (*state, *rng.choices(range(self.chain.states), weights))
            if extension.until == "step":
                break
        taken = len(state) - len(extension.node.state)
        done = len(state) == self.chain.levels
        return Child(state, "eos" if done else "step", Usage(denoiser_calls=taken, model_calls=1), taken, length=taken)

    def cut(self, extension: Extension, child: Child, tokens: int) -> Child:
        """Not supported: this generator has no races."""
        raise NotImplementedError

    def pack(self, node_state: Path, state: Path) -> dict[str, Any]:
        """The walk."""
        return {"path": list(state)}

    def unpack(self, node_state: Path, packed: Mapping[str, Any]) -> Path:
        """The walk that `pack` described."""
        return tuple(packed["path"])


class ChainScorer:
    """Scores a path by the reward of its last state."""

    capabilities = frozenset({Capability.SCORES, Capability.PROCESS_REWARD})
    name = "chain"

    def __init__(self, chain: Chain) -> None:
        self.chain = chain

    def worst_case(self, problem: Problem, node: Node, known: Node | None) -> Usage:
        """One call."""
        return Usage(scorer_calls=1)

    async def score(self, problem: Problem, nodes: Sequence[Node], known: Sequence[Node | None]) -> list[Score]:
        """One score per node."""
        return [Score(self.chain.rewards[len(n.state) - 1][n.state[-1]], Usage(scorer_calls=1)) for n in nodes]


def descents(branch: Branch, factor: float, probability: float = 1.0) -> dict[Path, float]:
    """The exact distribution of the ends that `Branch.draw` returns below a branch of a tree over a chain."""
    if not branch.known:
        return {branch.node.state: probability}
    law: Counter[Path] = Counter()
    for child, share in zip(branch.known, normalised([factor * c.value for c in branch.known]), strict=True):
        law.update(descents(child, factor, probability * share))
    return dict(law)


def total_variation(found: Mapping[Path, float], exact: Mapping[Path, float]) -> float:
    """Half the summed absolute difference of two distributions."""
    return sum(abs(found.get(path, 0.0) - probability) for path, probability in exact.items()) / 2
