"""The Pareto frontier of accuracy against cost (Wang et al. 2025, arXiv 2504.14047)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import log

from thinktime.core.errors import InputError


@dataclass(frozen=True)
class Point:
    """A configuration with its mean cost, in any common unit, and its accuracy."""

    label: str
    cost: float
    accuracy: float


def frontier(points: Sequence[Point]) -> list[Point]:
    """The points that are more accurate than every point of at most their cost, the cheapest first."""
    kept: list[Point] = []
    for point in sorted(points, key=lambda point: (point.cost, -point.accuracy)):
        if not kept or point.accuracy > kept[-1].accuracy:
            kept.append(point)
    return kept


def within(points: Sequence[Point], cost: float) -> Point | None:
    """The most accurate point of at most this cost, the cheaper one of ties; None if there is none."""
    return next((point for point in reversed(frontier(points)) if point.cost <= cost), None)


def cost_to_reach(points: Sequence[Point], accuracy: float) -> float | None:
    """The least cost of a point with at least this accuracy; None if there is none."""
    return next((point.cost for point in frontier(points) if point.accuracy >= accuracy), None)


def area(points: Sequence[Point], low: float, high: float) -> float:
    """Mean of the best accuracy within a cost, over costs from ``low`` to ``high`` on a logarithmic scale.

    Below the cheapest point the accuracy is 0.

    Raises:
        InputError: not ``0 < low < high``.
    """
    if not 0 < low < high:
        raise InputError("cost", (low, high), "give two costs above 0, the lower one first")
    kept = frontier(points)
    steps = sorted({low, high, *(point.cost for point in kept if low < point.cost < high)})
    bought = [(log(b / a), within(kept, a)) for a, b in pairwise(steps)]
    return sum(width * point.accuracy for width, point in bought if point) / log(high / low)
