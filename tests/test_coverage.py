"""The law of repeated sampling: the fit recovers the parameters of the data, and separates luck from ability."""

from __future__ import annotations

from math import exp
from random import Random

import pytest

from experiments.monkeys.coverage import (
    ModelChoice,
    PowerLaw,
    Rates,
    SampledModel,
    chance,
    cheapest,
    coverage,
    distinct,
    fit_power_law,
    fit_rates,
    grid,
    needles,
)
from thinktime.bench.samples import Sample, Sampled
from thinktime.core.errors import InputError


def test_coverage_is_the_mean_over_problems_which_may_differ_in_samples() -> None:
    """(0.916667 + 0) / 2, as published; with 2 samples of which 1 is right, pass@1 is 1/2."""
    assert coverage([(10, 3), (10, 0)], 5) == pytest.approx(0.458333, abs=5e-7)
    assert coverage([(10, 3), (2, 1)], 1) == pytest.approx((0.3 + 0.5) / 2)


def test_coverage_of_more_samples_than_some_problem_has_is_refused() -> None:
    with pytest.raises(InputError, match="k=11: pass@k needs 1 to 10 samples"):
        coverage([(20, 3), (10, 3)], 11)
    with pytest.raises(InputError, match="at least one problem"):
        coverage([], 1)


def test_the_grid_is_even_in_logarithms_and_has_no_number_twice() -> None:
    assert grid(1000, 4) == [1, 10, 100, 1000]
    assert grid(8) == [1, 2, 3, 4, 5, 6, 7, 8]
    assert grid(1) == [1]


# The power law


def test_a_power_law_is_recovered_from_exact_values() -> None:
    ks = grid(1024)
    fit = fit_power_law(ks, [exp(-2.3 * k**-0.4) for k in ks])
    assert (fit.a, fit.b) == pytest.approx((-2.3, 0.4), abs=1e-5)
    assert fit.max_error < 1e-5
    assert fit(10_000) == pytest.approx(exp(-2.3 * 10_000**-0.4), abs=1e-5)


def test_the_errors_of_a_fit_are_in_coverage() -> None:
    """The law holds except for one value that is 0.1 too high: there the fit is off by almost 0.1."""
    ks = list(range(1, 41))
    values = [exp(-1.0 * k**-0.5) for k in ks]
    values[20] += 0.1
    fit = fit_power_law(ks, values)
    assert 0.08 < fit.max_error < 0.1
    assert 0.1 / 40 < fit.mean_error < 0.01


def test_the_fit_starts_at_the_first_coverage_above_0() -> None:
    ks = [1, 2, 4, 8, 16, 32, 64]
    values = [0.0, 0.0, *(exp(-3 * k**-0.3) for k in ks[2:])]
    assert fit_power_law(ks, values).b == pytest.approx(0.3, abs=1e-5)


def test_a_fit_needs_five_different_k_with_coverage_above_0() -> None:
    with pytest.raises(InputError, match="cannot fit: it is 0 for every k"):
        fit_power_law([1, 2, 4, 8, 16], [0.0] * 5)
    with pytest.raises(InputError, match="5 different k"):
        fit_power_law([1, 2, 4, 8], [0.1, 0.2, 0.3, 0.4])
    with pytest.raises(InputError, match="5 different k"):
        fit_power_law([1, 1, 1, 2, 4, 8], [0.1, 0.1, 0.1, 0.2, 0.3, 0.4])
    with pytest.raises(InputError, match="5 different k"):
        fit_power_law([1, 2, 4, 8, 16], [0.0, 0.2, 0.3, 0.4, 0.5])


# Success rates


def test_a_beta_distribution_is_recovered_from_its_samples() -> None:
    rng = Random(4)
    rates = [rng.betavariate(0.6, 2.0) for _ in range(1500)]
    fit = fit_rates([(100, sum(rng.random() < p for _ in range(100))) for p in rates])
    assert fit.alpha == pytest.approx(0.6, rel=0.1)
    assert fit.beta == pytest.approx(2.0, rel=0.1)


def test_the_forecast_of_a_beta_distribution_by_hand() -> None:
    """Uniform rates: E[1 - (1 - p)^k] = 1 - 1 / (k + 1)."""
    assert [Rates(1, 1)(k) for k in (1, 3, 99)] == pytest.approx([1 / 2, 3 / 4, 99 / 100])


def test_equal_rates_are_forecast_as_one_common_rate() -> None:
    """Less spread than any Beta distribution: both parameters would become infinite, but the forecast stays finite."""
    fit = fit_rates([(10, 5)] * 20)
    assert [fit(k) for k in (1, 2, 4)] == pytest.approx([1 / 2, 3 / 4, 15 / 16], abs=1e-3)
    assert fit_rates([(10, 10)] * 20)(4) == pytest.approx(1, abs=1e-3)


def test_rates_that_are_all_0_are_refused() -> None:
    with pytest.raises(InputError, match="cannot fit: it is 0 for every k"):
        fit_rates([(10, 0), (20, 0)])


# Luck


def test_chance_guesses_from_the_answers_to_other_problems() -> None:
    """First problem: 1 of the 4 other answers is 7, so 1/4, and 1 - (3/4)^2 in two guesses. Second: none is 9."""
    answers: list[list[str | None]] = [["7", "7"], ["9", "7", None, "3"]]
    assert chance(answers, ["7", "9"], 1) == [0.25, 0.0]
    assert chance(answers, ["7", "9"], 2) == [1 - 0.75**2, 0.0]


def test_a_single_problem_has_no_other_answers_to_guess_from() -> None:
    assert chance([["7", "7"]], ["7"], 4) == [0.0]


# Samples


def test_a_needle_has_right_samples_but_fewer_than_one_in_a_hundred() -> None:
    assert needles([(200, 1), (200, 2), (200, 0), (200, 100)]) == 0.25


def test_equal_texts_are_detected() -> None:
    samples = tuple(Sample(1, "7", True, text=text) for text in ("a", "b", "a", "a"))
    assert distinct(Sampled("p", samples)) == 0.5


# The cheapest plan


SMALL, LARGE = SampledModel("small", [(10, 2)] * 3, 5.0, 1.0), SampledModel("large", [(10, 9)] * 3, 50.0, 10.0)


def test_the_cheapest_way_to_a_coverage_counts_the_prompt_once_and_every_sample() -> None:
    """Small: pass@k of 2 in 10 is 1/5, 17/45, 24/45, so 3 samples reach 1/2, for 8; large: 1 sample, for 60."""
    assert cheapest([SMALL, LARGE], 0.5) == ModelChoice("small", 3, coverage(SMALL.counts, 3), 8.0)
    dear = SampledModel("small", SMALL.counts, 5.0, 20.0)
    assert cheapest([dear, LARGE], 0.5) == ModelChoice("large", 1, coverage(LARGE.counts, 1), 60.0)


def test_an_unreached_coverage_is_not_extrapolated() -> None:
    assert cheapest([SampledModel("half", [(10, 0), (10, 10)], 0.0, 1.0)], 0.6) is None


def test_a_law_is_called_with_any_k() -> None:
    assert PowerLaw(-2.0, 0.5, 0.0, 0.0)(4) == pytest.approx(exp(-1))
