"""The frontier of quality against cost, worked out by hand."""

from __future__ import annotations

from itertools import pairwise
from math import log

import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.frontier.cost_frontier import Point, area, cost_to_reach, frontier, within
from thinktime.core.errors import InputError

POINTS = [Point("vote", 4, 0.7), Point("one", 1, 0.5), Point("slow", 8, 0.7), Point("worse", 2, 0.4)]


def labels(points: list[Point]) -> list[str]:
    return [point.label for point in points]


def test_a_point_that_another_one_beats_at_no_higher_cost_is_not_on_the_frontier() -> None:
    assert labels(frontier(POINTS)) == ["one", "vote"]
    assert labels(frontier([Point("a", 1, 0.5), Point("b", 1, 0.6)])) == ["b"]
    assert frontier([]) == []


def test_the_accuracy_at_a_budget_and_the_cost_of_an_accuracy() -> None:
    assert [(found := within(POINTS, cost)) and found.label for cost in (0.5, 1, 3.9, 4, 99)] == [
        *(None, "one", "one", "vote", "vote")
    ]
    assert [cost_to_reach(POINTS, accuracy) for accuracy in (0.4, 0.5, 0.6, 0.8)] == [1, 1, 4, None]


def test_the_area_is_a_mean_over_costs_even_in_logarithms() -> None:
    """From 1 to 16: half of the octaves at .5, half at .7. From 1/2 to 2, the first octave has accuracy 0."""
    assert area(POINTS, 1, 16) == pytest.approx(0.6)
    assert area(POINTS, 0.5, 2) == pytest.approx(0.25)
    assert area(POINTS, 2, 8) == pytest.approx((0.5 * log(2) + 0.7 * log(2)) / log(4))
    assert area([], 1, 2) == 0


def test_an_area_needs_two_costs() -> None:
    for low, high in ((0, 1), (2, 2), (3, 2)):
        with pytest.raises(InputError, match="give two costs above 0, the lower one first"):
            area(POINTS, low, high)


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(0, 9)), min_size=1))
def test_no_point_beats_one_of_the_frontier(pairs: list[tuple[int, int]]) -> None:
    points = [Point("", cost, right / 10) for cost, right in pairs]
    kept = frontier(points)
    for point in points:
        assert any(best.cost <= point.cost and best.accuracy >= point.accuracy for best in kept)
    assert all(a.cost < b.cost and a.accuracy < b.accuracy for a, b in pairwise(kept))
