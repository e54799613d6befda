"""Weights of particles and their resampling, worked out by hand."""

from __future__ import annotations

from math import inf, log

import pytest

from thinktime.core.particles import (
    POTENTIALS,
    effective_size,
    log_mean_exp,
    log_odds,
    log_potential,
    normalised,
    systematic,
)


def test_the_first_log_potential_is_the_reward_or_zero() -> None:
    assert {kind: log_potential(kind, [3.0], 0.0, last=False) for kind in POTENTIALS} == {
        "diff": 3.0, "max": 3.0, "sum": 3.0, "rt": 3.0, "is": 0.0,
    }  # fmt: skip


def test_the_diff_potential_uses_the_previous_reward() -> None:
    assert log_potential("diff", [1.0, 3.0], 0.0, last=False) == 2.0


def test_the_last_potential_makes_the_product_equal_to_the_last_reward() -> None:
    assert log_potential("sum", [1.0, 3.0], 5.0, last=True) == -2.0


def test_weights_sum_to_one_and_are_uniform_if_none_is_finite() -> None:
    assert normalised([log(3.0), 0.0]) == pytest.approx([0.75, 0.25])
    assert normalised([-inf, 0.0]) == [0.0, 1.0]
    assert normalised([-inf, -inf, -inf, -inf]) == [0.25] * 4
    assert normalised([inf, 0.0]) == [0.5, 0.5]


def test_the_mean_of_exponentials_does_not_overflow_or_underflow() -> None:
    assert log_mean_exp([log(1.0), log(3.0)]) == pytest.approx(log(2.0))
    assert log_mean_exp([1000.0, 1000.0 + log(3.0)]) == pytest.approx(1000.0 + log(2.0))
    assert log_mean_exp([-1000.0]) == -1000.0


def test_the_effective_size_is_one_over_the_sum_of_squares() -> None:
    """1 / (.75 ** 2 + .25 ** 2) = 1.6."""
    assert effective_size([log(3.0), 0.0]) == pytest.approx(1.6)


def test_a_tooth_at_the_end_of_a_particle_belongs_to_the_next() -> None:
    assert systematic([0.0, 0.0], 2, 0.0) == [0, 1]
    assert systematic([0.0, 0.0, 0.0, 0.0], 4, 0.0) == [0, 1, 2, 3]
    assert systematic([0.0, -inf, 0.0], 2, 0.0) == [0, 2]


def test_every_tooth_has_a_particle() -> None:
    """Ten weights of a tenth sum to less than one in floating point."""
    assert systematic([0.0] * 10, 1, 1.0 - 2**-53) == [9]


def test_the_number_of_descendants_can_differ_from_the_number_of_particles() -> None:
    assert systematic([log(3.0), 0.0], 8, 0.5) == [0] * 6 + [1] * 2
    assert systematic([0.0] * 8, 2, 0.5) == [2, 6]
    assert systematic([0.0], 3, 0.5) == [0, 0, 0]


def test_log_odds_are_clipped_by_the_edge() -> None:
    assert log_odds(1.0, edge=0.25) == log_odds(0.75) == pytest.approx(log(3.0))
    assert log_odds(0.0, edge=0.25) == log_odds(0.25) == pytest.approx(-log(3.0))
    assert log_odds(0.0) == pytest.approx(log(1e-9), rel=1e-6)
