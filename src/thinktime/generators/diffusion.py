"""Pictures by diffusion: nodes are noisy states, a step is some denoising, and everybody's states share one batch.

A state knows what its model told of it, so all its children share that one evaluation, and a scorer finds the clean
estimate of a state that has just been sampled. From noise to picture that makes one evaluation a step, none of them
at the clean end.
"""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from thinktime.core.errors import InputError
from thinktime.core.types import Capability, Child, Extension, Finish, Move, Node, Problem, Renoise
from thinktime.core.usage import Usage
from thinktime.diffusion.batch import Batch
from thinktime.diffusion.calls import Call, Condition
from thinktime.diffusion.levels import Array, neighbour

if TYPE_CHECKING:
    from thinktime.diffusion.models import DiffusionModel

ROOT = -1
"""The position of a picture of which there is not even noise."""


@dataclass(frozen=True, eq=False)
class Latents:
    """A picture on its way: ``x`` [channels, height, width] at a position, and what the model told of it.

    At the root there is neither; at the last position ``x`` is clean and nobody asks the model.
    """

    condition: Condition
    position: int = ROOT
    x: Array | None = None
    told: Array | None = None


class DiffusionGenerator:
    """Samples from a diffusion model on this machine.

    Args:
        model: a directory of ``diffusers``, or the model loaded from it.
        steps: of the sampler, from noise to picture.
        eta: noise of a step; with 0 the first noise decides everything, with 1 every step draws as much as was added.
        guidance: above 1 the model is pushed to what was asked for, for two evaluations a step.
        stride: denoising steps that a search takes for one.
        max_batch: states in one forward pass.
        device: where the model runs; states are kept in memory.

    Raises:
        InputError: a value is out of range, or the directory cannot be loaded.
    """

    def __init__(
        self,
        model: DiffusionModel | Path | str,
        *,
        steps: int = 20,
        eta: float = 1.0,
        guidance: float = 1.0,
        stride: int = 1,
        max_batch: int = 128,
        device: str = "cpu",
    ) -> None:
        from thinktime.diffusion.models import DiffusionModel

        if not 0 <= eta <= 1:
            raise InputError("eta", eta, "give 0 (the first noise decides) to 1")
        self.model = model if isinstance(model, DiffusionModel) else DiffusionModel(Path(model), device)
        self.levels = self.model.levels(steps)
        if not 1 <= stride <= steps:
            raise InputError("stride", stride, f"give 1 to steps={steps}")
        self.eta, self.guidance, self.stride = eta, guidance, stride
        self.name = f"{self.model.name}/steps={steps},eta={eta:g},guidance={guidance:g},stride={stride}"
        noise = Capability.NOISE if eta else Capability.NO_NOISE
        self.capabilities = frozenset({Capability.STEPS, Capability.PREFIX, Capability.MOVES, noise})
        self._batch: Batch[Call, tuple[Array, float]] = Batch(self._compute, max_batch)

    def root(self, problem: Problem, asked: Any = None, known: Sequence[Any] = ()) -> Latents:
        """What the prompt asks for.

        Raises:
            InputError: it names no class of this model.
        """
        return Latents(self.model.condition(problem.prompt))

    def length(self, state: Latents) -> int:
        """Denoising steps done."""
        return max(0, state.position)

    def worst_case(self, node: Node, max_tokens: int) -> Usage:
        """An evaluation at every position that is still to come."""
        return self._usage(node.state, min(max_tokens, self.levels.steps - 1 - node.state.position))

    async def extend(self, extensions: Sequence[Extension]) -> list[Child]:
        """Sample one child per extension; all of them, and whoever else samples, share their batches.

        Raises:
            InputError: the sampling asks for another number of steps than this sampler takes.
        """
        for extension in extensions:
            if extension.sampling.max_tokens != self.levels.steps:
                fix = f"this sampler takes {self.levels.steps} steps: Sampling(max_tokens={self.levels.steps})"
                raise InputError("max_tokens", extension.sampling.max_tokens, fix)
        return list(await asyncio.gather(*map(self._child, extensions)))

    def cut(self, extension: Extension, child: Child, tokens: int) -> Child:
        """Nothing races here.

        Raises:
            NotImplementedError: always; `Capability.CANCEL` is not offered.
        """
        raise NotImplementedError

    def pack(self, node_state: Latents, state: Latents) -> dict[str, Any]:
        """The position, and the numbers as base64 of float32."""
        packed: dict[str, Any] = {"position": state.position}
        for name, array in (("x", state.x), ("told", state.told)):
            if array is not None:
                packed[name] = base64.b64encode(array.tobytes()).decode()
        return packed

    def unpack(self, node_state: Latents, packed: Mapping[str, Any]) -> Latents:
        """The state that `pack` described."""
        x, told = (
            np.frombuffer(base64.b64decode(packed[name]), np.float32).reshape(self.model.shape)
            if name in packed
            else None
            for name in ("x", "told")
        )
        return Latents(node_state.condition, packed["position"], x, told)

    def clean(self, state: Latents) -> Array | None:
        """The picture's state, or the model's estimate of it; None where nothing has been drawn."""
        if state.x is None or state.told is None:
            return state.x
        return self.levels.clean(state.x, state.told, state.position)

    async def _child(self, extension: Extension) -> Child:
        state: Latents = extension.node.state
        dice = np.random.Generator(np.random.Philox(key=int(extension.key, 16)))
        calls, steps, seconds = 0, 0, 0.0
        finish: Finish = "budget"
        while extension.deadline is None or time.monotonic() < extension.deadline:
            noise = dice.standard_normal(self.model.shape, np.float32)
            state = self._next(state, noise) if extension.move is None else self._moved(state, noise, extension.move)
            steps += state.position > 0
            if state.position < self.levels.steps:
                timestep = self.levels.timesteps[state.position]
                assert state.x is not None
                told, took = await self._batch.ask(Call(state.x, timestep, state.condition, self.guidance))
                state, calls, seconds = replace(state, told=told), calls + 1, seconds + took
            if stopped := self._stopped(state, steps, extension):
                finish = stopped
                break
        return Child(state, finish, self._usage(state, calls, seconds), passes=calls)

    def _next(self, state: Latents, noise: Array) -> Latents:
        """One position on, what the model tells of it still unknown."""
        if state.x is None or state.told is None:
            return Latents(state.condition, 0, noise)
        step = self.levels.step(state.x, state.told, state.position, self.eta)
        x = step.mean + np.float32(step.sigma) * noise if step.sigma else step.mean
        return Latents(state.condition, state.position + 1, x)

    def _moved(self, state: Latents, noise: Array, move: Move) -> Latents:
        if state.x is None:
            raise InputError("move", move, "there is no noise yet to move; extend the root by a step first")
        if isinstance(move, Renoise):
            back_to = round((1 - move.left) * self.levels.steps)
            return Latents(state.condition, back_to, self.levels.renoise(state.x, state.position, back_to, noise))
        if state.position != 0:
            raise InputError("move", move, f"only pure noise has neighbours, and this is position {state.position}")
        return Latents(state.condition, 0, neighbour(state.x, noise, move.cosine))

    def _stopped(self, state: Latents, steps: int, extension: Extension) -> Finish | None:
        if state.position == self.levels.steps:
            return "eos"
        if extension.move or (extension.until == "step" and state.position % self.stride == 0):
            return "step"
        if steps == extension.max_tokens:
            return "cut" if steps == extension.at_most else "length"
        return None

    def _usage(self, state: Latents, calls: int, seconds: float = 0.0) -> Usage:
        evaluations = calls * self.model.evaluations(state.condition, self.guidance)
        flops = evaluations * self.model.flops
        return Usage(model_calls=1, denoiser_calls=evaluations, flops=flops, seconds=seconds, dollars=0.0)

    def _compute(self, calls: Sequence[Call]) -> list[tuple[Array, float]]:
        """What the model tells of each, and its share of the seconds."""
        start = time.perf_counter()
        told = self.model.predict(calls)
        share = (time.perf_counter() - start) / len(calls)
        return [(each, share) for each in told]
