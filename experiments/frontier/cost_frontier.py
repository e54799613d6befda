"""Quality against cost: which ways of spending nothing cheaper beats (Wang et al. 2025, arXiv 2504.14047)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import log

from thinktime.core.errors import InputError


@dataclass(frozen=True)
class Point:
    """A way of spending: its mean cost, in any one unit, and the accuracy that buys."""

    label: str
    cost: float
    accuracy: float


def frontier(points: Sequence[Point]) -> list[Point]:
    """The points that are more accurate than all that cost no more, the cheapest first."""
    kept: list[Point] = []
    for point in sorted(points, key=lambda point: (point.cost, -point.accuracy)):
        if not kept or point.accuracy > kept[-1].accuracy:
            kept.append(point)
    return kept


def within(points: Sequence[Point], cost: float) -> Point | None:
    """The most accurate point that costs no more, the cheaper of equals; None if there is none."""
    return next((point for point in reversed(frontier(points)) if point.cost <= cost), None)


def cost_to_reach(points: Sequence[Point], accuracy: float) -> float | None:
    """The least cost of a point that is as accurate; None if none is."""
    return next((point.cost for point in frontier(points) if point.accuracy >= accuracy), None)


def area(points: Sequence[Point], low: float, high: float) -> float:
    """Mean accuracy of what a cost buys, over costs from ``low`` to ``high`` that are even in logarithms.

    Below the cheapest point it buys nothing.

    Raises:
        InputError: not ``0 < low < high``.
    """
    if not 0 < low < high:
        raise InputError("cost", (low, high), "give two costs above 0, the lower one first")
    kept = frontier(points)
    steps = sorted({low, high, *(point.cost for point in kept if low < point.cost < high)})
    bought = [(log(b / a), within(kept, a)) for a, b in pairwise(steps)]
    return sum(width * point.accuracy for width, point in bought if point) / log(high / low)
