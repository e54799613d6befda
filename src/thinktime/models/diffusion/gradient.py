"""Guidance by gradients. It needs a differentiable measure, while a search needs only the measure's values."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf
from typing import NamedTuple

from torch import Tensor

from thinktime.core.errors import InputError
from thinktime.models.diffusion.calls import Condition

Measure = Callable[[Tensor, Sequence[Condition]], Tensor | Sequence[float]]
"""Maps pictures [n, channels, height, width] between 0 and 1, and their conditions, to n numbers.

A differentiable measure returns a tensor with a gradient."""


class Part(NamedTuple):
    """A measure with its weight in a score."""

    name: str
    measure: Measure
    weight: float = 1.0


@dataclass(frozen=True)
class Pull:
    """Moves every step along the gradient of the measures at the clean estimate (Chung et al. 2023, arXiv 2209.14687).

    The target is ``p(x) * exp(scale * measures)``. If the measures' expectation is replaced by their value at the clean
    estimate, its noise is the predicted noise minus ``spread * scale`` times the gradient with respect to the state.

    Args:
        parts: measures, whose weighted sum is followed.
        scale: factor of the sum in the exponent, above 0.

    Raises:
        InputError: the scale is not above 0, or there are no measures.
    """

    parts: Sequence[Part]
    scale: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.scale < inf:
            raise InputError("pull", self.scale, "give a number above 0; negate the measure to lower it")
        if not self.parts:
            raise InputError("pull", self.scale, "there is no measure to follow; name one")

    @property
    def name(self) -> str:
        """The scale, and the measures with their weights."""
        return f"{self.scale:g}*({'+'.join(f'{part.weight:g}*{part.name}' for part in self.parts)})"

    def of(self, pictures: Tensor, conditions: Sequence[Condition]) -> Tensor:
        """The weighted sum over measures and pictures, as a scalar tensor with a gradient.

        Raises:
            InputError: a measure is not differentiable.
        """
        whole = pictures.new_zeros(())
        for part in self.parts:
            found = part.measure(pictures, conditions)
            if not isinstance(found, Tensor) or not found.requires_grad:
                raise InputError("pull", part.name, "it has no gradient; use class, ink or symmetry, or search instead")
            whole = whole + part.weight * found.sum()
        return whole
