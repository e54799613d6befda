"""The input of a diffusion model."""

from __future__ import annotations

from typing import NamedTuple

from thinktime.models.diffusion.levels import Array

Condition = int | str | None
"""What a picture should show: a class, a text, or None for an unconditional picture."""


class Call(NamedTuple):
    """One evaluation of the network: a state ``x`` [channels, height, width], its timestep and its condition."""

    x: Array
    timestep: int
    condition: Condition
    guidance: float
    """Strength of classifier-free guidance, which takes two passes; 1 is none (Ho and Salimans 2022)."""
