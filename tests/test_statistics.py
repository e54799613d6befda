"""Estimates against brute force, hand computation and theory."""

from __future__ import annotations

from itertools import combinations, product
from math import sqrt
from random import Random
from statistics import fmean

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thinktime.bench.statistics import (
    DIFFERENCES,
    SHARES,
    Estimate,
    auc,
    expected_best,
    mean_interval,
    paired_difference,
    pass_at_k,
)
from thinktime.core.errors import InputError

unhurried = settings(deadline=None)


# pass@k


@pytest.mark.parametrize("n", range(1, 9))
def test_pass_at_k_is_the_share_of_subsets_with_a_right_sample(n: int) -> None:
    for correct in range(n + 1):
        samples = [True] * correct + [False] * (n - correct)
        for k in range(1, n + 1):
            subsets = list(combinations(samples, k))
            assert pass_at_k(n, correct, k) == pytest.approx(sum(map(any, subsets)) / len(subsets), abs=1e-12)


def test_pass_at_k_of_many_samples_is_exact() -> None:
    """1 - (499 choose 2) / (500 choose 2) = 1 - 498 / 500."""
    assert pass_at_k(500, 1, 2) == pytest.approx(2 / 500, abs=1e-15)
    assert pass_at_k(10_000, 0, 5000) == 0.0
    assert pass_at_k(10_000, 5001, 5000) == 1.0


@unhurried
@given(st.integers(1, 60), st.data())
def test_pass_at_k_grows_with_k_from_the_share_of_right_samples(n: int, data: st.DataObject) -> None:
    correct = data.draw(st.integers(0, n))
    curve = [pass_at_k(n, correct, k) for k in range(1, n + 1)]
    assert curve[0] == pytest.approx(correct / n)
    assert curve == sorted(curve)
    assert curve[-1] == float(correct > 0)


@pytest.mark.parametrize("k", [0, -1, 5])
def test_a_k_above_the_number_of_samples_is_refused(k: int) -> None:
    with pytest.raises(InputError, match=f"k={k}: pass@k needs 1 to 4 samples"):
        pass_at_k(4, 2, k)


@pytest.mark.parametrize(
    ("n", "correct", "k", "expected"), [(10, 3, 1, 0.3), (10, 3, 5, 0.916667), (10, 0, 5, 0.0), (10, 6, 5, 1.0)]
)
def test_pass_at_k_as_published(n: int, correct: int, k: int, expected: float) -> None:
    assert pass_at_k(n, correct, k) == pytest.approx(expected, abs=5e-7)


# Intervals of equal values


@pytest.mark.parametrize(
    ("values", "bounds", "expected"),
    [
        ([1.0, 1.0], SHARES, (1.0, 0.158114, 1.0)),  # Clopper and Pearson: 0.025 ** (1 / 2)
        ([0.0] * 10, SHARES, (0.0, 0.0, 0.308497)),
        ([1.0], SHARES, (1.0, 0.025, 1.0)),
        ([0.0] * 100, DIFFERENCES, (0.0, -0.036217, 0.036217)),
        ([1.0] * 10, DIFFERENCES, (1.0, 1 - 2 * 0.308497, 1.0)),
    ],
)
def test_equal_values_have_an_exact_interval(
    values: list[float], bounds: tuple[float, float], expected: tuple[float, float, float]
) -> None:
    found = mean_interval(values, bounds=bounds)
    assert (found.value, found.low, found.high) == pytest.approx(expected, abs=1e-6)
    assert paired_difference(values, [0.0] * len(values), bounds=bounds) == found
    assert mean_interval(values) == Estimate(values[0], values[0], values[0])


def test_bounds_do_not_change_the_interval_of_other_values() -> None:
    assert mean_interval([1.0, 0.0, 1.0], bounds=SHARES) == mean_interval([1.0, 0.0, 1.0])


# The best of k


@unhurried
@given(st.lists(st.tuples(st.integers(0, 3), st.booleans()), max_size=6), st.integers(0, 2), st.data())
def test_expected_best_is_the_mean_over_all_subsets(
    ranked: list[tuple[int, bool]], others: int, data: st.DataObject
) -> None:
    """Samples that cannot win are in the subsets too; samples with equal first ranks win equally often."""
    samples = [*ranked, *[None] * others]
    if not samples:
        return
    k = data.draw(st.integers(1, len(samples)))
    values = []
    for subset in combinations(samples, k):
        able = [sample for sample in subset if sample is not None]
        first = [right for rank, right in able if rank == min(rank for rank, _ in able)]
        values.append(fmean(first) if first else 0.0)
    assert expected_best(ranked, len(samples), k) == pytest.approx(fmean(values), abs=1e-12)


def test_the_first_of_two_by_hand() -> None:
    """Three samples, pairs {1, 2}, {1, 3}, {2, 3}: rank 1 wins twice, rank 2 once."""
    assert expected_best([(1, 1.0), (2, 0.0), (3, 1.0)], 3, 2) == pytest.approx(2 / 3)
    assert expected_best([(1, 10.0), (2, 40.0), (3, 70.0)], 3, 2) == pytest.approx((10 + 10 + 40) / 3)


@pytest.mark.parametrize("k", [0, 4])
def test_the_best_of_more_than_all_samples_is_refused(k: int) -> None:
    with pytest.raises(InputError, match=f"k={k}: draw 1 to 3 samples"):
        expected_best([(1.0, True)], 3, k)
    with pytest.raises(InputError, match="ranked=2: the problem has 1 samples"):
        expected_best([(1.0, True), (2.0, True)], 1, 1)


# Intervals


@pytest.mark.parametrize("values", [[0, 1, 1, 9], [0, 2, 2, 8], [0, 0, 3, 3, 12]])
def test_the_interval_has_the_percentiles_of_the_means_of_all_resamples(values: list[int]) -> None:
    """All 256 or 3,125 equally likely resamples are listed, and 2.5% are cut off at both ends."""
    means = sorted(fmean(resample) for resample in product(values, repeat=len(values)))
    found = mean_interval(values)
    assert found.value == fmean(values)
    assert found.low == pytest.approx(means[int(0.025 * len(means))])
    assert found.high == pytest.approx(means[int(0.975 * len(means))])


def test_the_interval_of_a_coin_equals_that_of_the_binomial() -> None:
    """100 problems, half right: 0.5 +- 1.96 * sqrt(0.25 / 100), in steps of 0.01."""
    found = mean_interval([0.0, 1.0] * 50)
    half = 1.96 * sqrt(0.25 / 100)
    assert found.value == 0.5
    assert found.low == pytest.approx(0.5 - half, abs=0.011)
    assert found.high == pytest.approx(0.5 + half, abs=0.011)


def test_at_least_nine_of_ten_intervals_cover_the_true_value() -> None:
    """The nominal rate is 95%; 200 experiments of 40 problems at 30% accuracy give 95% within three points."""
    rng = Random(0)
    covered = 0
    for seed in range(200):
        found = mean_interval([float(rng.random() < 0.3) for _ in range(40)], seed, resamples=500)
        covered += found.low <= 0.3 <= found.high
    assert 0.90 <= covered / 200 <= 0.99


def test_more_problems_narrow_the_interval_by_the_square_root() -> None:
    few, many = mean_interval([0.0, 1.0] * 50), mean_interval([0.0, 1.0] * 5000, resamples=2000)
    assert (few.high - few.low) / (many.high - many.low) == pytest.approx(10, rel=0.1)


def test_equal_values_have_an_interval_of_width_zero() -> None:
    assert mean_interval([0.25] * 7) == Estimate(0.25, 0.25, 0.25)
    assert mean_interval([1.0]) == Estimate(1.0, 1.0, 1.0)


def test_the_same_seed_gives_the_same_interval_and_another_seed_another() -> None:
    values = [sqrt(i) for i in range(50)]
    assert mean_interval(values, 1) == mean_interval(values, 1)
    assert mean_interval(values, 1) != mean_interval(values, 2)


def test_the_requested_number_of_resamples_is_drawn() -> None:
    """One resample is its own 2.5th and 97.5th percentile; 2,500 is no multiple of the block of 1,000."""
    one = mean_interval([0.0, 1.0, 5.0], resamples=1)
    assert one.low == one.high
    many = mean_interval([0.0, 1.0, 5.0], resamples=2500)
    assert 0 <= many.low < many.value < many.high <= 5


@unhurried
@given(st.lists(st.integers(0, 10).map(float), min_size=1, max_size=20))
def test_an_interval_contains_its_mean_and_stays_within_the_values(values: list[float]) -> None:
    found = mean_interval(values, resamples=400)
    assert found.value == pytest.approx(fmean(values))
    assert min(values) <= found.low <= found.high <= max(values)
    assert found.low <= found.value + 1e-12 and found.value <= found.high + 1e-12


def test_no_problems_have_no_mean() -> None:
    with pytest.raises(InputError, match="at least one problem"):
        mean_interval([])


def test_an_estimate_is_written_with_its_interval() -> None:
    estimate = Estimate(0.51234567, 0.4, 0.6)
    assert str(estimate) == "0.512 [0.400, 0.600]"
    assert estimate.as_dict() == {"value": 0.512346, "low": 0.4, "high": 0.6}


# Pairs


def test_a_constant_difference_has_an_interval_of_width_zero_even_if_problems_differ() -> None:
    theirs = [float(i * i) for i in range(30)]
    mine = [value + 0.5 for value in theirs]
    assert paired_difference(mine, theirs) == Estimate(0.5, 0.5, 0.5)
    assert paired_difference(theirs, mine) == Estimate(-0.5, -0.5, -0.5)


def test_a_paired_difference_is_the_mean_of_the_differences_with_their_interval() -> None:
    """2 wins, 1 loss and 1 tie give 1/4."""
    mine, theirs = [1.0, 1.0, 0.0, 1.0], [0.0, 0.0, 1.0, 1.0]
    assert paired_difference(mine, theirs, 3) == mean_interval([1, 1, -1, 0], 3)
    assert paired_difference(mine, theirs).value == 0.25


def test_a_pair_needs_both_sides() -> None:
    with pytest.raises(InputError, match="same problems on both sides"):
        paired_difference([1.0, 0.0], [1.0])
    with pytest.raises(InputError, match="at least one problem"):
        paired_difference([], [])


# AUC


@unhurried
@given(st.lists(st.tuples(st.integers(-2, 2), st.booleans()), max_size=12))
def test_auc_is_the_share_of_pairs_in_the_right_order_ties_counted_half(scored: list[tuple[int, bool]]) -> None:
    right = [score for score, positive in scored if positive]
    wrong = [score for score, positive in scored if not positive]
    found = auc([float(score) for score, _ in scored], [positive for _, positive in scored])
    if not right or not wrong:
        assert found is None
    else:
        points = sum(1.0 if r > w else 0.5 if r == w else 0.0 for r in right for w in wrong)
        assert found == pytest.approx(points / (len(right) * len(wrong)))


@pytest.mark.parametrize(
    ("scores", "positive", "expected"),
    [
        ([0.1, 0.2, 0.8, 0.9], [False, False, True, True], 1.0),
        ([0.9, 0.8, 0.2, 0.1], [False, False, True, True], 0.0),
        ([0.5, 0.5, 0.5], [True, False, True], 0.5),
        ([0.1, 0.4, 0.35, 0.8], [False, False, True, True], 0.75),
        ([0.3, 0.6], [True, True], None),
        ([], [], None),
    ],
)
def test_auc_by_hand(scores: list[float], positive: list[bool], expected: float | None) -> None:
    assert auc(scores, positive) == expected
