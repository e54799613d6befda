"""Bins by difficulty, policies chosen on one half of the problems and measured on the other, and exchange rates."""

from __future__ import annotations

from typing import Any

import pytest

from thinktime.core.errors import InputError
from thinktime.planning.difficulty import absolute_bins, binned, cross_validated, exchange_rate


def test_bins_are_of_equal_size_the_easiest_first_and_ties_in_order() -> None:
    assert binned([0.0, 1.0, 0.5, 0.5], 2) == [1, 0, 0, 1]
    assert binned([0.1 * i for i in range(10)]) == [4, 4, 3, 3, 2, 2, 1, 1, 0, 0]


def test_levels_have_absolute_limits() -> None:
    rates = [0.0, 0.099, 0.1, 0.49, 0.5, 1.0]
    assert absolute_bins(rates) == ["hard", "hard", "medium", "medium", "easy", "easy"]
    assert absolute_bins(rates, (0.05, 1.0)) == ["hard", "medium", "medium", "medium", "medium", "easy"]
    assert absolute_bins([], least=0) == []


@pytest.mark.parametrize(
    ("rates", "options", "message"),
    [
        (None, {}, "difficulty='oracle': it needs right answers"),
        ([0.2, 0.9], {"least": 1}, "bins='hard': 0 problems are hard, and it takes 1"),
        ([0.0, 0.2], {"least": 1}, "bins='easy': 0 problems are easy"),
        ([1.2], {}, "rates=1.2: a success rate is between 0 and 1"),
        ([0.2], {"limits": (0.5, 0.1)}, "limits=.*give two rising shares"),
    ],
)
def test_levels_that_cannot_be_are_refused(rates: list[float] | None, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        absolute_bins(rates, **options)


def test_a_policy_is_chosen_on_one_half_and_measured_on_the_other() -> None:
    """In bin 0 the halves disagree, so choosing is wrong twice; in bin 1 they agree."""
    bins = [0, 0, 0, 0, 1, 1, 1, 1]
    right = {"a": [1.0, 0.0, 1.0, 0.0, 1.0, 1.0, 1.0, 1.0], "b": [0.0, 1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0]}
    gained, picks = cross_validated(right, bins)
    assert gained == [0, 0, 0, 0, 1, 1, 1, 1]
    assert picks == ["a", "b", "a", "a"]


def test_a_bin_too_small_to_choose_and_to_measure_is_refused() -> None:
    with pytest.raises(InputError, match="bins=2: bin 1 has 1 problem; each half needs 2 or more, so take fewer bins"):
        cross_validated({"a": [1.0] * 5}, [0, 0, 0, 0, 1])


@pytest.mark.parametrize(("ratio", "rate"), [(0.16, 257.8), (0.79, 63.4), (22, 15.8)])
def test_the_published_exchange_rates_of_a_model_14_times_as_large(ratio: float, rate: float) -> None:
    assert exchange_rate(14, 1.0, ratio) == pytest.approx(rate, abs=0.06)


@pytest.mark.parametrize(
    ("numbers", "field"),
    [((14, None, 1e9), "pretraining_tokens=None"), ((14, 1e9, None), "inference_tokens=None"), ((0, 1, 1), "times=0")],
)
def test_an_unknown_number_is_named_in_the_error(numbers: tuple[float, float | None, float | None], field: str) -> None:
    with pytest.raises(InputError, match=f"{field}: give a number above 0"):
        exchange_rate(*numbers)
