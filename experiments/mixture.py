"""A diffusion model without a network, so that the law from which a search has to sample is known exactly.

Clean states are points in the plane, drawn from a mixture of narrow Gaussians. Each step samples x_{t-1} from the
exact q(x_{t-1} | x_t), which is again a mixture of Gaussians. So a chain of any number of steps ends exactly in the
mixture.

Sixteen modes form four clusters of four. The cluster of a state is decided in early steps, its mode in later ones. One
mode, the first, is wanted. Its weight is the dial: how rarely the model makes what is wanted.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from math import cos, hypot, log, pi, sqrt
from random import Random
from typing import Any

from thinktime.core.particles import normalised
from thinktime.core.search import Search
from thinktime.core.types import Capability, Child, Extension, Node, Problem, Sampling, Score
from thinktime.core.usage import Budget, Usage

Point = tuple[float, float]
DEVIATION = 0.05
"""Of every Gaussian. Modes are at least 0.6 apart, so the nearest mode of a clean state is the one it comes from."""
MEANS: tuple[Point, ...] = tuple((0.85 * a + 0.3 * b, 0.85 * c + 0.3 * d) for a, c, b, d in product((-1, 1), repeat=4))
"""The modes; four in a row share a cluster."""


@dataclass(frozen=True)
class Mixture:
    """The mixture, and what its modes are worth.

    Args:
        rarity: weight of the wanted mode; the others share the rest equally.
        hint: the reward of the other modes of the wanted mode's cluster. The wanted mode has 1, all others 0.
        steps: from noise to a clean state.
        stride: steps of the sampler that form one step of a search.
    """

    rarity: float
    hint: float = 0.0
    steps: int = 20
    stride: int = 1

    @cached_property
    def weights(self) -> tuple[float, ...]:
        """The probability of each mode."""
        return (self.rarity, *[(1 - self.rarity) / (len(MEANS) - 1)] * (len(MEANS) - 1))

    @cached_property
    def rewards(self) -> tuple[float, ...]:
        """The reward of each mode."""
        return (1.0, *[self.hint] * 3, *[0.0] * (len(MEANS) - 4))

    @cached_property
    def signal(self) -> tuple[float, ...]:
        """The share of the clean state's variance that is left at each position, from noise to clean (1)."""
        return tuple(cos(0.49 * pi * (1 - at / self.steps)) ** 2 for at in range(self.steps + 1))

    def tilted(self, factor: float) -> list[float]:
        """The probability of each mode in ``p * exp(factor * reward)``."""
        return normalised([log(w) + factor * r for w, r in zip(self.weights, self.rewards, strict=True)])

    def posterior(self, position: int, point: Point) -> list[float]:
        """The probability of each mode, given a state."""
        left = self.signal[position]
        spread = 2 * (left * DEVIATION**2 + 1 - left)
        scale = sqrt(left)
        near = [-((point[0] - scale * x) ** 2 + (point[1] - scale * y) ** 2) / spread for x, y in MEANS]
        return normalised([log(weight) + each for weight, each in zip(self.weights, near, strict=True)])

    def step(self, position: int, point: Point, rng: Random) -> Point:
        """A state at the next position, given the state at this one."""
        before, after = self.signal[position], self.signal[position + 1]
        ratio = before / after  # the forward process takes x to sqrt(ratio) * x + sqrt(1 - ratio) * noise
        (mode,) = rng.choices(range(len(MEANS)), self.posterior(position, point))
        spread = after * DEVIATION**2 + 1 - after
        total = ratio * spread + 1 - ratio
        gain, deviation = spread * sqrt(ratio) / total, sqrt(spread * (1 - ratio) / total)
        centre = (sqrt(after) * MEANS[mode][0], sqrt(after) * MEANS[mode][1])
        x, y = (c + gain * (p - sqrt(ratio) * c) + rng.gauss(0, deviation) for c, p in zip(centre, point, strict=True))
        return x, y

    def noise(self, rng: Random) -> Point:
        """A state at the first position."""
        left = self.signal[0]
        (mode,) = rng.choices(range(len(MEANS)), self.weights)
        deviation = sqrt(left * DEVIATION**2 + 1 - left)
        x, y = (sqrt(left) * each + rng.gauss(0, deviation) for each in MEANS[mode])
        return x, y

    def search(self, seed: int, budget: Budget | None = None) -> Search:
        """A search on this model; the scorer gives the reward of the clean estimate of a state."""
        return Search(
            Problem("mixture", "draw"),
            MixtureGenerator(self),
            scorers=MixtureScorer(self),
            sampling=Sampling(max_length=self.steps),
            seed=seed,
            budget=budget,
        )


def nearest(point: Point) -> int:
    """The mode of a clean state."""
    return min(range(len(MEANS)), key=lambda mode: hypot(point[0] - MEANS[mode][0], point[1] - MEANS[mode][1]))


@dataclass(frozen=True)
class Spot:
    """A point and its position on the way: -1 before the noise is drawn, then from 0 (noise) to ``steps`` (clean)."""

    position: int = -1
    point: Point = (0.0, 0.0)


class MixtureGenerator:
    """Takes the reverse steps of a mixture. As with pictures, every state but a clean one costs an evaluation."""

    capabilities = frozenset({Capability.STEPS, Capability.PREFIX, Capability.NOISE})
    unit = "steps"

    def __init__(self, mixture: Mixture) -> None:
        self.mixture, self.name = mixture, repr(mixture)

    def root(self, problem: Problem, known: Sequence[Any] = (), *, quotes: bool = False) -> Spot:
        """No noise yet."""
        return Spot()

    def adopt(self, root: Spot, state: Any, known: Sequence[Any] = ()) -> Spot:
        """Not supported: there is one generator."""
        raise NotImplementedError

    def length(self, state: Spot) -> int:
        """Steps taken."""
        return max(0, state.position)

    def worst_case(self, node: Node, max_length: int) -> Usage:
        """One evaluation per state on the way."""
        return Usage(denoiser_calls=self.mixture.steps - 1 - node.state.position, model_calls=1)

    async def extend(self, extensions: Sequence[Extension]) -> list[Child]:
        """Take steps, with a random generator seeded by each key."""
        await asyncio.sleep(0)
        return [self._child(extension) for extension in extensions]

    def _child(self, extension: Extension) -> Child:
        rng, spot, last = Random(extension.key), extension.node.state, self.mixture.steps
        start = spot.position
        while spot.position < last:
            if spot.position < 0:
                spot = Spot(0, self.mixture.noise(rng))
            else:
                spot = Spot(spot.position + 1, self.mixture.step(spot.position, spot.point, rng))
            if extension.until == "step" and spot.position % self.mixture.stride == 0:
                break
        done = spot.position == last
        calls = spot.position - start - done
        usage = Usage(denoiser_calls=calls, model_calls=1)
        return Child(spot, "eos" if done else "step", usage, calls, length=self.length(spot) - self.length(Spot(start)))

    def cut(self, extension: Extension, child: Child, tokens: int) -> Child:
        """Not supported: there are no races."""
        raise NotImplementedError

    def pack(self, node_state: Spot, state: Spot) -> dict[str, Any]:
        """The state."""
        return {"position": state.position, "point": list(state.point)}

    def unpack(self, node_state: Spot, packed: Mapping[str, Any]) -> Spot:
        """The state that `pack` described."""
        x, y = packed["point"]
        return Spot(packed["position"], (x, y))


class MixtureScorer:
    """Scores a clean state by the reward of its mode, any other by that of the mode nearest to its clean estimate."""

    capabilities = frozenset({Capability.SCORES, Capability.PROCESS_REWARD})
    name = "reward of the nearest mode"

    def __init__(self, mixture: Mixture) -> None:
        self.mixture = mixture

    def worst_case(self, problem: Problem, node: Node, known: Node | None) -> Usage:
        """One call."""
        return Usage(scorer_calls=1)

    async def score(self, problem: Problem, nodes: Sequence[Node], known: Sequence[Node | None]) -> list[Score]:
        """One score per node."""
        return [Score(self._reward(node.state), Usage(scorer_calls=1)) for node in nodes]

    def _reward(self, spot: Spot) -> float:
        if spot.position == self.mixture.steps:
            return self.mixture.rewards[nearest(spot.point)]
        # E[x0 | x_t] up to the pull of the point within a mode, which is at most as wide as a mode
        share = self.mixture.posterior(spot.position, spot.point)
        x, y = (sum(p * mean[axis] for p, mean in zip(share, MEANS, strict=True)) for axis in (0, 1))
        return self.mixture.rewards[nearest((x, y))]
