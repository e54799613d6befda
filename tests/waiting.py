"""Waits for events in another thread or process, and a clock that tests move: no test depends on timing."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

PATIENCE = 300.0
"""Most seconds that an event takes on a busy machine; only a fault takes longer."""


class MovableClock:
    """Reads the time of `time.monotonic` plus the seconds by which a test has moved it ahead."""

    def __init__(self) -> None:
        self.ahead = 0.0
        self._now = time.monotonic

    def monotonic(self) -> float:
        """The time."""
        return self._now() + self.ahead


def eventually(found: Callable[[], Any]) -> Any:
    """The first true value of ``found``.

    Raises:
        TimeoutError: there is none within `PATIENCE`.
    """
    until = time.monotonic() + PATIENCE
    while not (value := found()):
        if time.monotonic() > until:
            raise TimeoutError(f"still {value!r} after {PATIENCE:g} s")
        time.sleep(0.01)
    return value
