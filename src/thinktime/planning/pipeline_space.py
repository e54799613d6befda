"""Allocations of a pipeline: a model and a number of samples for each subtask, and their costs (arXiv 2508.00890)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from thinktime.core.errors import InputError
from thinktime.strategies.options import above, at_least, one_of


@dataclass(frozen=True)
class Reference:
    """The call that costs are counted in: a model's parameters, prompt tokens and generated tokens."""

    parameters: float = 3e9
    prompt_tokens: float = 128
    answer_tokens: float = 64

    def __post_init__(self) -> None:
        for name in ("parameters", "prompt_tokens", "answer_tokens"):
            above(name, getattr(self, name), 0)


@dataclass(frozen=True)
class Subtask:
    """A stage of a pipeline.

    Args:
        name: of the subtask.
        models: parameters by the role of the model.
        prompt_tokens: mean tokens of its prompt, measured.
        answer_tokens: mean tokens of one sample, measured.
    """

    name: str
    models: Mapping[str, float]
    prompt_tokens: float
    answer_tokens: float

    def __post_init__(self) -> None:
        if not self.models:
            raise InputError(f"{self.name}.models", {}, "name at least one model")
        for model, parameters in self.models.items():
            above(f"{self.name}.models.{model}", parameters, 0)
        for field in ("prompt_tokens", "answer_tokens"):
            above(f"{self.name}.{field}", getattr(self, field), 0)


@dataclass(frozen=True)
class StageChoice:
    """What one subtask gets."""

    model: str
    samples: int


Allocation = tuple[StageChoice, ...]
"""A choice for each subtask, in order."""


@dataclass(frozen=True)
class PipelineSpace:
    """The allocations within a budget.

    Args:
        subtasks: in order.
        budget: in calls of the reference.
        samples: fewest and most samples of a subtask.
        reference: see `Reference`.
        shares_prompt: whether the samples of a subtask share their prompt's keys and values, so that it is paid once.

    Raises:
        InputError: a value is out of range, or no allocation is within the budget.
    """

    subtasks: tuple[Subtask, ...]
    budget: float
    samples: tuple[int, int] = (1, 100)
    reference: Reference = Reference()
    shares_prompt: bool = True

    def __post_init__(self) -> None:
        if not self.subtasks:
            raise InputError("subtasks", (), "name at least one")
        above("budget", self.budget, 0)
        low, high = self.samples
        at_least("samples", low, 1)
        at_least("samples", high, low)
        cheapest = self.cheapest()
        if self.cost(cheapest) > self.budget:
            words = ", ".join(f"{t.name}: {c.model}*{c.samples}" for t, c in zip(self.subtasks, cheapest, strict=True))
            raise InputError("budget", self.budget, f"the cheapest is {words}, which costs {self.cost(cheapest):.4g}")

    def units(self, subtask: Subtask, choice: StageChoice) -> float:
        """The cost of a choice in calls of the reference: the prompt once, then each sample; never below 0.

        Attention and the merging of samples are left out.
        """
        scale, base = self._scale(subtask, choice.model)
        prompts = 1 if self.shares_prompt else choice.samples
        tokens = prompts * subtask.prompt_tokens + choice.samples * subtask.answer_tokens
        return max(0.0, scale * tokens - base)

    def most_samples(self, subtask: Subtask, model: str, units: float) -> float:
        """How many samples, also in parts, cost so much: the inverse of `units`."""
        scale, base = self._scale(subtask, model)
        tokens = (units + base) / scale
        if self.shares_prompt:
            return (tokens - subtask.prompt_tokens) / subtask.answer_tokens
        return tokens / (subtask.prompt_tokens + subtask.answer_tokens)

    def cost(self, allocation: Allocation) -> float:
        """The sum over all subtasks."""
        return sum(self.units(subtask, choice) for subtask, choice in zip(self.subtasks, allocation, strict=True))

    def flops(self, allocation: Allocation) -> float:
        """Operations of an allocation, two for each parameter and token; not clamped."""
        found = 0.0
        for subtask, choice in zip(self.subtasks, allocation, strict=True):
            prompts = 1 if self.shares_prompt else choice.samples
            tokens = prompts * subtask.prompt_tokens + choice.samples * subtask.answer_tokens
            found += 2 * subtask.models[choice.model] * tokens
        return found

    def cheapest(self) -> Allocation:
        """The smallest model with the fewest samples, for each subtask."""
        return tuple(StageChoice(self.sizes(subtask)[0], self.samples[0]) for subtask in self.subtasks)

    def sizes(self, subtask: Subtask) -> list[str]:
        """The models of a subtask, the smallest first."""
        return sorted(subtask.models, key=lambda name: subtask.models[name])

    def check(self, allocation: Allocation) -> None:
        """Refuse an allocation that is none, or that is over the budget.

        Raises:
            InputError: says why.
        """
        if len(allocation) != len(self.subtasks):
            raise InputError("allocation", len(allocation), f"give a choice for each of {len(self.subtasks)} subtasks")
        low, high = self.samples
        for subtask, choice in zip(self.subtasks, allocation, strict=True):
            one_of(f"{subtask.name}.model", choice.model, subtask.models)
            if not isinstance(choice.samples, int) or not low <= choice.samples <= high:
                raise InputError(f"{subtask.name}.samples", choice.samples, f"give {low} to {high}")
        if self.cost(allocation) > self.budget:
            raise InputError("cost", round(self.cost(allocation), 4), f"the budget is {self.budget:g}")

    def allows(self, allocation: Allocation) -> bool:
        """Whether the models of an allocation are known, and its samples and its cost within the limits."""
        low, high = self.samples
        pairs = list(zip(self.subtasks, allocation, strict=True))
        known = all(choice.model in subtask.models and low <= choice.samples <= high for subtask, choice in pairs)
        return known and self.cost(allocation) <= self.budget

    def _scale(self, subtask: Subtask, model: str) -> tuple[float, float]:
        """The cost of one token, and what is taken off because the reference has a prompt."""
        one_of(f"{subtask.name}.model", model, subtask.models)
        unit = self.reference
        scale = subtask.models[model] / unit.parameters / unit.answer_tokens
        return scale, unit.prompt_tokens / unit.answer_tokens
