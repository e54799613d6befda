"""Time: a clock that a caller can replace, and a moment on it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

Clock = Callable[[], float]
"""Seconds since some moment; never goes back."""


@dataclass(frozen=True)
class Deadline:
    """The moment at which a clock shows ``at``, in seconds."""

    at: float
    clock: Clock = time.monotonic

    @property
    def seconds(self) -> float:
        """The time left; negative afterwards."""
        return self.at - self.clock()

    @property
    def passed(self) -> bool:
        """Whether it is over."""
        return self.seconds <= 0
