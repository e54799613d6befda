"""Compares contenders in alternating rounds, and summarises the spread over rounds."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from statistics import median
from typing import Any, TypeVar

T = TypeVar("T")
STATUS = Path("/proc/self/status")
"""What Linux tells a process of itself. The peak of ``getrusage`` is also that of the process that started this one."""


@dataclass(frozen=True)
class Timed:
    """One round of one contender: its tokens without padding, and its wall time."""

    tokens: int
    seconds: float

    @property
    def rate(self) -> float:
        """Tokens per second."""
        return self.tokens / self.seconds


def alternate(contenders: Mapping[str, Callable[[], T]], rounds: int) -> dict[str, list[T]]:
    """Run every contender once per round; every second round is in reverse order, so drift affects all equally."""
    results: dict[str, list[T]] = {name: [] for name in contenders}
    for round_ in range(rounds):
        for name in list(contenders)[:: 1 if round_ % 2 == 0 else -1]:
            results[name].append(contenders[name]())
    return results


def spread(values: Sequence[float], digits: int = 4) -> dict[str, float]:
    """Median, minimum and maximum."""
    return {
        "median": _round(median(values), digits),
        "min": _round(min(values), digits),
        "max": _round(max(values), digits),
    }


def ratio(over: Sequence[float], under: Sequence[float]) -> dict[str, float]:
    """Spread of the ratios within each round."""
    return spread([a / b for a, b in zip(over, under, strict=True)])


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least ``share`` of the values do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, -int(-share * len(ordered) // 1) - 1))]


def status(name: str) -> int:
    """Bytes of memory of this process, by a name of `STATUS`: ``VmRSS`` now, ``VmHWM`` at most."""
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(f"{name}:"))
    return int(line.split()[1]) * 1024


class Stopwatch:
    """Seconds spent in wrapped calls, by name."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def wrap(self, owner: Any, attribute: str, name: str) -> Callable[[], None]:
        """Time every call of ``owner.attribute``; return a function that undoes this."""
        inner = getattr(owner, attribute)
        self.seconds[name] = 0.0

        @wraps(inner)
        def timed(*args: Any, **options: Any) -> Any:
            started = time.perf_counter()
            try:
                return inner(*args, **options)
            finally:
                self.seconds[name] += time.perf_counter() - started

        setattr(owner, attribute, timed)
        return lambda: setattr(owner, attribute, inner)

    def reset(self) -> None:
        """Start again from zero."""
        self.seconds = dict.fromkeys(self.seconds, 0.0)


def _round(value: float, digits: int) -> float:
    return float(f"{value:.{digits}g}")
