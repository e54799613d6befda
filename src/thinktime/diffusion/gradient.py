"""Guidance by gradients: the reference that needs a measure with a slope, where searches need only its values."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf
from typing import NamedTuple

from torch import Tensor

from thinktime.core.errors import InputError
from thinktime.diffusion.calls import Condition

Measure = Callable[[Tensor, Sequence[Condition]], Tensor | Sequence[float]]
"""From pictures [n, channels, height, width] between 0 and 1, and what they should show, to n numbers.

One that gives a tensor with a gradient has a slope to follow."""


class Part(NamedTuple):
    """One of the measures that make up a score."""

    name: str
    measure: Measure
    weight: float = 1.0


@dataclass(frozen=True)
class Pull:
    """Every step goes up the slope of the measures at the clean estimate (Chung et al. 2023, arXiv 2209.14687).

    With their value at the clean estimate in place of their expectation the noise of ``p(x) * exp(scale * measures)``
    is what the model tells, less ``spread * scale`` times the gradient by the state.

    Args:
        parts: the measures, whose weighted sum it is.
        scale: of that in the exponent, above 0.
    """

    parts: Sequence[Part]
    scale: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.scale < inf:
            raise InputError("pull", self.scale, "give a number above 0; negate the measure to be pulled away from it")
        if not self.parts:
            raise InputError("pull", self.scale, "there is no measure whose slope could be followed; name one")

    @property
    def name(self) -> str:
        """What is followed, and how strongly."""
        return f"{self.scale:g}*({'+'.join(f'{part.weight:g}*{part.name}' for part in self.parts)})"

    def of(self, pictures: Tensor, conditions: Sequence[Condition]) -> Tensor:
        """The weighted sum over measures and pictures.

        Raises:
            InputError: one of the measures has no slope.
        """
        whole = pictures.new_zeros(())
        for part in self.parts:
            found = part.measure(pictures, conditions)
            if not isinstance(found, Tensor) or not found.requires_grad:
                raise InputError("pull", part.name, "this measure has no slope; take class, ink, symmetry, or search")
            whole = whole + part.weight * found.sum()
        return whole
