"""What is asked of a diffusion model."""

from __future__ import annotations

from typing import NamedTuple

from thinktime.diffusion.levels import Array

Condition = int | str | None
"""What a picture should show: a class, words, or nothing in particular."""


class Call(NamedTuple):
    """One question to the network: what noise is in ``x`` at this timestep, for a picture of this condition?"""

    x: Array
    timestep: int
    condition: Condition
    guidance: float
    """Above 1: away from what it would say without the condition, so two passes (Ho and Salimans 2022)."""
