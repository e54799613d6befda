"""Pictures by diffusion: nodes are noisy states, a step is some denoising, and all states share one batch.

A state keeps the model's prediction for it. All its children share that evaluation, and a scorer can compute the clean
estimate of a new state without another one. A picture takes one evaluation per step, and none for the clean state.
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

from thinktime.core.errors import CapabilityError, InputError, ModelError
from thinktime.core.transitions import Neighbour, Redo, Renoise, Transition
from thinktime.core.types import Capability, Child, Extension, Finish, Node, Problem
from thinktime.core.usage import Usage
from thinktime.models.diffusion.batch import Batch
from thinktime.models.diffusion.calls import Call, Condition
from thinktime.models.diffusion.levels import Array, Levels, neighbour
from thinktime.models.diffusion.spill_store import SpillStore, StoredArray

if TYPE_CHECKING:
    from thinktime.models.diffusion.gradient import Pull
    from thinktime.models.diffusion.models import DiffusionModel

ROOT = -1
"""The position of the root, before the first noise is drawn."""


@dataclass(frozen=True, eq=False)
class Latents:
    """A partly denoised picture, whose arrays are in the generator's store.

    The arrays are ``x`` and the predictions for it, all [channels, height, width]: the prediction that steps follow,
    and the model's own prediction if a gradient shifts the first one. The root has no arrays. At the last position
    ``x`` is clean and has no prediction.
    """

    condition: Condition
    position: int = ROOT
    kept: StoredArray | None = None

    @property
    def x(self) -> Array | None:
        """The state."""
        return None if self.kept is None else self.kept.get()[0]

    @property
    def predicted(self) -> Array | None:
        """The prediction for ``x`` that the next step follows."""
        return self._prediction(1)

    @property
    def unshifted(self) -> Array | None:
        """The model's own prediction, if a gradient shifts the one that steps follow."""
        return self._prediction(2)

    def _prediction(self, index: int) -> Array | None:
        numbers = () if self.kept is None else self.kept.get()
        return numbers[index] if len(numbers) > index else None


class DiffusionGenerator:
    """Samples from a diffusion model on this machine.

    Args:
        model: a directory of ``diffusers``, or the model loaded from it.
        steps: denoising steps from noise to picture.
        eta: noise of each step: 0 is none (the first noise decides everything), 1 is that of the forward process.
        guidance: strength of classifier-free guidance, which takes two evaluations a step; 1 is none.
        pull: measures whose gradient every step follows, which takes a backward pass a step.
        stride: denoising steps that form one step of a search.
        max_batch: most states in one forward pass.
        memory: bytes of states in memory; beyond it the least recently used ones move to a temporary file.
        device: the device of the model; states are in the memory of the CPU.

    Raises:
        InputError: a value is out of range, or the directory cannot be loaded or is not supported.
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
        from thinktime.models.diffusion.models import DiffusionModel

        if not 0 <= eta <= 1:
            raise InputError("eta", eta, "give 0 (the first noise decides) to 1")
        if not 0 <= guidance < inf:
            raise InputError("guidance", guidance, "give 1 for no guidance, or a number above 1")
        self.model = model if isinstance(model, DiffusionModel) else DiffusionModel(Path(model), device)
        self.levels = self.model.levels(steps)
        if not 1 <= stride <= steps:
            raise InputError("stride", stride, f"give 1 to steps={steps}")
        if guidance != 1 and self.model.labels and self.model.hidden is None:
            fix = "guidance needs predictions without a class, which this model cannot make; give 1"
            raise InputError("guidance", guidance, fix)
        if pull is not None and (self.levels.threshold is not None or self.levels.alphas[0] == 0):
            found = "thresholding" if self.levels.threshold is not None else "a first level of pure noise"
            raise InputError("pull", pull.scale, f"the model has {found}, which has no gradient; search instead")
        self.eta, self.guidance, self.pull, self.stride = eta, guidance, pull, stride
        self.name = f"{self.model.name}/steps={steps},eta={eta:g},guidance={guidance:g},stride={stride}"
        self.name += "" if pull is None else f",pull={pull.name}"
        self.fingerprint = self.model.fingerprint
        noise = Capability.NOISE if eta else Capability.NO_NOISE
        self.capabilities = frozenset({Capability.STEPS, Capability.PREFIX, Capability.TRANSITIONS, noise})
        self.store = SpillStore(memory)
        self._batch: Batch[Call, tuple[Array, float]] = Batch(self._compute, max_batch)

    def root(self, problem: Problem, known: Sequence[Any] = (), *, quotes: bool = False) -> Latents:
        """The root state for a prompt.

        Raises:
            InputError: the prompt names no class of this model, or is longer than its text encoder reads.
        """
        return Latents(self.model.condition(problem.prompt))

    def adopt(self, root: Latents, state: Any, known: Sequence[Any] = ()) -> Latents:
        """Refuse.

        Raises:
            CapabilityError: always; latents of another model mean something else.
        """
        raise CapabilityError(f"model={self.name!r}: it cannot continue the latents of another model")

    def length(self, state: Latents) -> int:
        """Denoising steps done."""
        return max(0, state.position)

    def worst_case(self, node: Node, max_length: int) -> Usage:
        """One evaluation at every remaining position."""
        position = node.state.position
        left = max_length if position == ROOT else min(max_length, self.levels.steps - 1 - position)
        return self._usage(node.state, left)

    async def extend(self, extensions: Sequence[Extension]) -> list[Child]:
        """Sample one child per extension. Concurrent calls share batches.

        Raises:
            InputError: the sampling's limit differs from the sampler's number of steps.
        """
        for extension in extensions:
            if extension.sampling.max_length != self.levels.steps:
                fix = f"this sampler takes {self.levels.steps} steps: Sampling(max_length={self.levels.steps})"
                raise InputError("max_length", extension.sampling.max_length, fix)
        return list(await asyncio.gather(*map(self._child, extensions)))

    def cut(self, extension: Extension, child: Child, tokens: int) -> Child:
        """Not supported, because children do not race.

        Raises:
            NotImplementedError: always; `Capability.CANCEL` is not offered.
        """
        raise NotImplementedError

    def pack(self, node_state: Latents, state: Latents) -> dict[str, Any]:
        """The position, and the arrays as bytes of float32."""
        assert state.kept is not None
        return {"position": state.position, "numbers": state.kept.get().tobytes()}

    def unpack(self, node_state: Latents, packed: Mapping[str, Any]) -> Latents:
        """The state that `pack` described."""
        numbers = np.frombuffer(packed["numbers"], np.float32)
        return self._state(node_state.condition, packed["position"], numbers.reshape(-1, *self.model.shape))

    def clean(self, state: Latents) -> Array | None:
        """The clean state, or the model's estimate of it; None at the root."""
        x, predicted = state.x, state.predicted
        return x if x is None or predicted is None else self.levels.clean(x, predicted, state.position)

    async def _child(self, extension: Extension) -> Child:
        if isinstance(extension.transition, Redo):
            return await self._redone(extension, self.model.levels(extension.transition.steps))
        state: Latents = extension.node.state
        rng = np.random.Generator(np.random.Philox(key=int(extension.key, 16)))
        calls, steps, seconds, log_weight = 0, 0, 0.0, 0.0
        finish: Finish = "budget"
        while extension.deadline is None or not extension.deadline.passed:
            noise = rng.standard_normal(self.model.shape, np.float32)
            if extension.transition is None:
                position, x, gained = self._next(state, noise)
                log_weight += gained
            else:
                position, x = self._moved(state, noise, extension.transition)
            numbers = [x]
            if position < self.levels.steps:
                timestep = self.levels.timesteps[position]
                predicted, took = await self._batch.ask(Call(x, timestep, state.condition, self.guidance))
                numbers, calls, seconds = [x, *predicted], calls + 1, seconds + took
            if not all(np.isfinite(each).all() for each in numbers):
                return self._failed(extension, position, calls, seconds)
            state = self._state(state.condition, position, np.stack(numbers))
            steps += position > 0
            if stopped := self._stopped(state, steps, extension):
                finish = stopped
                break
        length = self.length(state) - self.length(extension.node.state)
        usage = self._usage(state, calls, seconds)
        return Child(state, finish, usage, passes=calls, length=length, log_weight=log_weight)

    async def _redone(self, extension: Extension, levels: Levels) -> Child:
        """The picture that a node's first noise becomes at these levels, without further noise."""
        state = next(node.state for node in extension.node.lineage() if node.state.position == 0)
        x, seconds = state.x, 0.0
        for position, timestep in enumerate(levels.timesteps):
            if extension.deadline is not None and extension.deadline.passed:
                return Child(extension.node.state, "budget", self._usage(state, position, seconds), passes=position)
            predicted, took = await self._batch.ask(Call(x, timestep, state.condition, self.guidance))
            x, seconds = levels.step(x, predicted[0], position, eta=0.0).mean, seconds + took
            if not np.isfinite(x).all():
                return self._failed(extension, position, position + 1, seconds)
        clean = self._state(state.condition, self.levels.steps, np.stack([x]))
        length = self.length(clean) - self.length(extension.node.state)
        return Child(clean, "eos", self._usage(state, levels.steps, seconds), passes=levels.steps, length=length)

    def _failed(self, extension: Extension, position: int, calls: int, seconds: float) -> Child:
        """A failed child for a state with NaN or infinity, with the cost so far."""
        state: Latents = extension.node.state
        fix = "check its weights and its scheduler_config.json, or lower the guidance"
        error = ModelError(f"model={self.name!r}: NaN or infinity in a state at position {position}; {fix}")
        return Child(state, "error", self._usage(state, calls, seconds), passes=calls, error=error)

    def _state(self, condition: Condition, position: int, numbers: Array) -> Latents:
        return Latents(condition, position, self.store.put(numbers))

    def _next(self, state: Latents, noise: Array) -> tuple[int, Array, float]:
        """The next position, its state, and the state's log-density under the model minus under the shifted step."""
        x, predicted, unshifted = state.x, state.predicted, state.unshifted
        if x is None or predicted is None:
            return 0, noise, 0.0
        mean, sigma, _ = self.levels.step(x, predicted, state.position, self.eta)
        if not sigma:
            return state.position + 1, mean, 0.0
        log_weight = 0.0
        if unshifted is not None:
            shift = (mean - self.levels.step(x, unshifted, state.position, self.eta).mean).astype(np.float64) / sigma
            log_weight = -float((shift * (shift / 2 + noise)).sum())
        return state.position + 1, mean + np.float32(sigma) * noise, log_weight

    def _moved(self, state: Latents, noise: Array, transition: Transition) -> tuple[int, Array]:
        x = state.x
        if x is None:
            raise InputError("transition", transition, "the root has no noise to move; extend it by a step first")
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
        """The model's predictions, each with its share of the seconds."""
        start = time.perf_counter()
        predicted = self.model.predict(calls, self.pull)
        share = (time.perf_counter() - start) / len(calls)
        return [(each, share) for each in predicted]
