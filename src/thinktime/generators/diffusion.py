"""Pictures by diffusion: nodes are noisy states, a step is some denoising, and everybody's states share one batch.

A state knows what its model told of it, so all its children share that one evaluation, and a scorer finds the clean
estimate of a state that has just been sampled. From noise to picture that makes one evaluation a step, none of them
at the clean end.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from thinktime.core.errors import CapabilityError, InputError
from thinktime.core.transitions import Neighbour, Redo, Renoise, Transition
from thinktime.core.types import Capability, Child, Extension, Finish, Node, Problem
from thinktime.core.usage import Usage
from thinktime.diffusion.batch import Batch
from thinktime.diffusion.calls import Call, Condition
from thinktime.diffusion.levels import Array, Levels, neighbour
from thinktime.diffusion.shelf import Kept, Shelf

if TYPE_CHECKING:
    from thinktime.diffusion.gradient import Pull
    from thinktime.diffusion.models import DiffusionModel

ROOT = -1
"""The position of a picture of which there is not even noise."""


@dataclass(frozen=True, eq=False)
class Latents:
    """A picture on its way, of which the generator's shelf keeps the numbers.

    They are ``x`` [channels, height, width] at a position, and what the model told of it. At the root there is neither;
    at the last position ``x`` is clean and nobody asks the model.
    """

    condition: Condition
    position: int = ROOT
    kept: Kept | None = None

    @property
    def x(self) -> Array | None:
        """The state."""
        return None if self.kept is None else self.kept.take()[0]

    @property
    def told(self) -> Array | None:
        """What the model told of it."""
        if self.kept is None:
            return None
        numbers = self.kept.take()
        return numbers[1] if len(numbers) == 2 else None


class DiffusionGenerator:
    """Samples from a diffusion model on this machine.

    Args:
        model: a directory of ``diffusers``, or the model loaded from it.
        steps: of the sampler, from noise to picture.
        eta: noise of a step; with 0 the first noise decides everything, with 1 every step draws as much as was added.
        guidance: above 1 the model is pushed to what was asked for, for two evaluations a step.
        pull: measures whose slope every step follows, for a pass backwards each.
        stride: denoising steps that a search takes for one.
        max_batch: states in one forward pass.
        memory: bytes of states; the longest unused of what is beyond goes to a temporary file.
        device: where the model runs; states are kept in memory.

    Raises:
        InputError: a value is out of range, or the directory cannot be loaded.
    """

    unit = "steps"

    def __init__(
        self,
        model: DiffusionModel | Path | str,
        *,
        steps: int = 20,
        eta: float = 1.0,
        guidance: float = 1.0,
        pull: Pull | None = None,
        stride: int = 1,
        max_batch: int = 128,
        memory: int = 1 << 30,
        device: str = "cpu",
    ) -> None:
        from thinktime.diffusion.models import DiffusionModel

        if not 0 <= eta <= 1:
            raise InputError("eta", eta, "give 0 (the first noise decides) to 1")
        if not 0 <= guidance < inf:
            raise InputError("guidance", guidance, "give 1 for none, or a number above")
        self.model = model if isinstance(model, DiffusionModel) else DiffusionModel(Path(model), device)
        self.levels = self.model.levels(steps)
        if not 1 <= stride <= steps:
            raise InputError("stride", stride, f"give 1 to steps={steps}")
        if guidance != 1 and self.model.labels and self.model.hidden is None:
            fix = "this model cannot paint without a class, so there is nothing to be guided away from; give 1"
            raise InputError("guidance", guidance, fix)
        self.eta, self.guidance, self.pull, self.stride = eta, guidance, pull, stride
        self.name = f"{self.model.name}/steps={steps},eta={eta:g},guidance={guidance:g},stride={stride}"
        self.name += "" if pull is None else f",pull={pull.name}"
        noise = Capability.NOISE if eta else Capability.NO_NOISE
        self.capabilities = frozenset({Capability.STEPS, Capability.PREFIX, Capability.TRANSITIONS, noise})
        self.shelf = Shelf(memory)
        self._batch: Batch[Call, tuple[Array, float]] = Batch(self._compute, max_batch)

    def root(self, problem: Problem, known: Sequence[Any] = (), *, quotes: bool = False) -> Latents:
        """What the prompt asks for.

        Raises:
            InputError: it names no class of this model.
        """
        return Latents(self.model.condition(problem.prompt))

    def adopt(self, root: Latents, state: Any, known: Sequence[Any] = ()) -> Latents:
        """Refuse.

        Raises:
            CapabilityError: always; latents of another model mean something else.
        """
        raise CapabilityError(f"model={self.name!r}: it cannot go on from the latents of another model")

    def length(self, state: Latents) -> int:
        """Denoising steps done."""
        return max(0, state.position)

    def worst_case(self, node: Node, max_length: int) -> Usage:
        """An evaluation at every position that is still to come."""
        position = node.state.position
        left = max_length if position == ROOT else min(max_length, self.levels.steps - 1 - position)
        return self._usage(node.state, left)

    async def extend(self, extensions: Sequence[Extension]) -> list[Child]:
        """Sample one child per extension; all of them, and whoever else samples, share their batches.

        Raises:
            InputError: the sampling asks for another number of steps than this sampler takes.
        """
        for extension in extensions:
            if extension.sampling.max_length != self.levels.steps:
                fix = f"this sampler takes {self.levels.steps} steps: Sampling(max_length={self.levels.steps})"
                raise InputError("max_length", extension.sampling.max_length, fix)
        return list(await asyncio.gather(*map(self._child, extensions)))

    def cut(self, extension: Extension, child: Child, tokens: int) -> Child:
        """Nothing races here.

        Raises:
            NotImplementedError: always; `Capability.CANCEL` is not offered.
        """
        raise NotImplementedError

    def pack(self, node_state: Latents, state: Latents) -> dict[str, Any]:
        """The position, and the numbers as bytes of float32."""
        assert state.kept is not None
        return {"position": state.position, "numbers": state.kept.take().tobytes()}

    def unpack(self, node_state: Latents, packed: Mapping[str, Any]) -> Latents:
        """The state that `pack` described."""
        numbers = np.frombuffer(packed["numbers"], np.float32)
        return self._state(node_state.condition, packed["position"], numbers.reshape(-1, *self.model.shape))

    def clean(self, state: Latents) -> Array | None:
        """The picture's state, or the model's estimate of it; None where nothing has been drawn."""
        x, told = state.x, state.told
        return x if x is None or told is None else self.levels.clean(x, told, state.position)

    async def _child(self, extension: Extension) -> Child:
        if isinstance(extension.transition, Redo):
            return await self._redone(extension, self.model.levels(extension.transition.steps))
        state: Latents = extension.node.state
        dice = np.random.Generator(np.random.Philox(key=int(extension.key, 16)))
        calls, steps, seconds = 0, 0, 0.0
        finish: Finish = "budget"
        while extension.deadline is None or time.monotonic() < extension.deadline:
            noise = dice.standard_normal(self.model.shape, np.float32)
            position, x = (
                self._next(state, noise)
                if extension.transition is None
                else self._moved(state, noise, extension.transition)
            )
            numbers = [x]
            if position < self.levels.steps:
                timestep = self.levels.timesteps[position]
                told, took = await self._batch.ask(Call(x, timestep, state.condition, self.guidance))
                numbers, calls, seconds = [x, told], calls + 1, seconds + took
            state = self._state(state.condition, position, np.stack(numbers))
            steps += position > 0
            if stopped := self._stopped(state, steps, extension):
                finish = stopped
                break
        length = self.length(state) - self.length(extension.node.state)
        return Child(state, finish, self._usage(state, calls, seconds), passes=calls, length=length)

    async def _redone(self, extension: Extension, levels: Levels) -> Child:
        """The picture that the first noise of a node becomes at these levels, no noise added on the way."""
        state = next(node.state for node in extension.node.lineage() if node.state.position == 0)
        x, seconds = state.x, 0.0
        for position, timestep in enumerate(levels.timesteps):
            if extension.deadline is not None and time.monotonic() >= extension.deadline:
                return Child(extension.node.state, "budget", self._usage(state, position, seconds), passes=position)
            told, took = await self._batch.ask(Call(x, timestep, state.condition, self.guidance))
            x, seconds = levels.step(x, told, position, eta=0.0).mean, seconds + took
        clean = self._state(state.condition, self.levels.steps, np.stack([x]))
        length = self.length(clean) - self.length(extension.node.state)
        return Child(clean, "eos", self._usage(state, levels.steps, seconds), passes=levels.steps, length=length)

    def _state(self, condition: Condition, position: int, numbers: Array) -> Latents:
        return Latents(condition, position, self.shelf.keep(numbers))

    def _next(self, state: Latents, noise: Array) -> tuple[int, Array]:
        """One position on."""
        x, told = state.x, state.told
        if x is None or told is None:
            return 0, noise
        mean, sigma, _ = self.levels.step(x, told, state.position, self.eta)
        return state.position + 1, mean + np.float32(sigma) * noise if sigma else mean

    def _moved(self, state: Latents, noise: Array, transition: Transition) -> tuple[int, Array]:
        x = state.x
        if x is None:
            raise InputError("transition", transition, "there is no noise yet; extend the root by a step first")
        if isinstance(transition, Renoise):
            back_to = round((1 - transition.left) * self.levels.steps)
            return back_to, self.levels.renoise(x, state.position, back_to, noise)
        assert isinstance(transition, Neighbour)
        if state.position != 0:
            raise InputError(
                "transition", transition, f"only pure noise has neighbours, and this is position {state.position}"
            )
        return 0, neighbour(x, noise, transition.cosine)

    def _stopped(self, state: Latents, steps: int, extension: Extension) -> Finish | None:
        if state.position == self.levels.steps:
            return "eos"
        if extension.transition or (extension.until == "step" and state.position % self.stride == 0):
            return "step"
        if steps == extension.max_length:
            return "cut" if steps == extension.at_most else "length"
        return None

    def _usage(self, state: Latents, calls: int, seconds: float = 0.0) -> Usage:
        evaluations = calls * self.model.evaluations(state.condition, self.guidance)
        flops = evaluations * self.model.flops * (1 if self.pull is None else 2)
        return Usage(model_calls=1, denoiser_calls=evaluations, flops=flops, seconds=seconds, dollars=0.0)

    def _compute(self, calls: Sequence[Call]) -> list[tuple[Array, float]]:
        """What the model tells of each, and its share of the seconds."""
        start = time.perf_counter()
        told = self.model.predict(calls, self.pull)
        share = (time.perf_counter() - start) / len(calls)
        return [(each, share) for each in told]
