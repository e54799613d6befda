"""A clock that a caller can replace, and deadlines on it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

Clock = Callable[[], float]
"""Returns seconds since a fixed moment; it never goes back."""


@dataclass(frozen=True)
class Deadline:
    """The moment at which a clock shows ``at``, in seconds."""

    at: float
    clock: Clock = time.monotonic

    @property
    def seconds(self) -> float:
        """Seconds until the deadline; negative after it."""
        return self.at - self.clock()

    @property
    def passed(self) -> bool:
        """Whether the deadline has passed."""
        return self.seconds <= 0
