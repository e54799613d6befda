"""The diagnosis for first finish search: within problems, by replay and by two normal distributions."""

from __future__ import annotations

from random import Random
from statistics import fmean

import pytest

from thinktime.bench.samples import Sample
from thinktime.core.errors import InputError
from thinktime.planning.lengths import diagnose, first_length, first_of, measure, normal_first, predict
from thinktime.strategies.sampling.first_finish import FirstFinish


def right(length: int) -> Sample:
    return Sample(length, "7", True)


def wrong(length: int, *, ended: bool = True, key: str | None = "8") -> Sample:
    return Sample(length, key, False, ended)


def simulated(
    right_at: tuple[float, float], wrong_at: tuple[float, float], problems: int = 40, n: int = 400
) -> list[list[Sample]]:
    """Six samples of ten are right; lengths are normally distributed."""
    rng = Random(9)
    drawn = []
    for _ in range(problems):
        samples = []
        for _ in range(n):
            mean, spread = right_at if (good := rng.random() < 0.6) else wrong_at
            samples.append(Sample(round(1000 * max(0.0, rng.gauss(mean, spread))), "7" if good else "8", good))
        drawn.append(samples)
    return drawn


PUBLISHED = [
    ((120.0, 20.0), {1: 0.60, 4: 0.82, 16: 0.91}),
    ((120.0, 60.0), {1: 0.60, 4: 0.59, 16: 0.27}),
    ((80.0, 20.0), {1: 0.60, 4: 0.36, 16: 0.20}),
]


@pytest.mark.parametrize(("wrong_at", "expected"), PUBLISHED)
def test_the_replay_reproduces_the_published_simulation(
    wrong_at: tuple[float, float], expected: dict[int, float]
) -> None:
    problems = simulated((100.0, 20.0), wrong_at)
    assert {n: fmean(first_of(problems, n)) for n in expected} == pytest.approx(expected, abs=0.02)


@pytest.mark.parametrize(("wrong_at", "expected"), PUBLISHED)
def test_the_predictor_reproduces_the_published_simulation(
    wrong_at: tuple[float, float], expected: dict[int, float]
) -> None:
    """To the two published digits, with a tolerance of one in the last digit for the simulation's noise."""
    found = {n: normal_first(0.6, (100.0, 20.0), wrong_at, n) for n in expected}
    assert found == pytest.approx(expected, abs=0.011)


def test_the_predictor_agrees_with_the_replay_if_lengths_are_normal() -> None:
    problems = simulated((100.0, 20.0), (120.0, 60.0))
    for n in (1, 4, 16):
        assert fmean(predict(problems, n)) == pytest.approx(fmean(first_of(problems, n)), abs=0.02)


def test_equal_distributions_predict_the_share_of_right_samples() -> None:
    assert normal_first(0.3, (50, 5), (50, 5), 8) == pytest.approx(0.3, abs=1e-4)


def test_problems_that_are_all_right_or_all_wrong_are_predicted_exactly() -> None:
    assert predict([[right(3), right(4)], [wrong(3), wrong(4)], [wrong(3, ended=False)]], 2) == [1.0, 0.0, 0.0]


def test_lengths_that_do_not_vary_are_still_predicted() -> None:
    """Right samples have length 10, wrong ones 20: the first of two is wrong only if both are, (1/2)^2."""
    assert predict([[right(10), right(10), wrong(20), wrong(20)]], 2) == pytest.approx([0.75], abs=1e-4)


# Replay


def test_the_first_is_the_shortest_sample_that_ended_with_an_answer() -> None:
    """Pairs of {2 cut, 3 unreadable, 5 right, 6 wrong}: only 5 and 6 can win; 5 is in three pairs of six."""
    samples = [wrong(2, ended=False, key=None), wrong(3, key=None), right(5), wrong(6)]
    assert first_of([samples], 2) == pytest.approx([3 / 6])
    assert first_of([samples], 2, last=True) == pytest.approx([2 / 6]), (
        "the right sample is the longest in the pairs with 2 and with 3"
    )


def test_samples_of_equal_length_win_equally_often() -> None:
    assert first_of([[right(5), wrong(5)]], 2) == [0.5]


def test_a_problem_with_too_few_samples_is_refused_and_not_skipped() -> None:
    with pytest.raises(InputError, match="k=2: draw 1 to 1 samples"):
        first_of([[right(5), wrong(6)], [right(5)]], 2)


def test_the_race_lasts_until_the_first_sample_ends_or_until_all_are_cut() -> None:
    """Pairs of {2, 6, 9 cut} last 2, 2 and 6. Two samples cut at 9 and 8 last 9."""
    samples = [right(2), wrong(6), wrong(9, ended=False, key=None)]
    assert first_length([samples], 2) == pytest.approx([(2 + 2 + 6) / 3])
    both = [wrong(8, ended=False, key=None), wrong(9, ended=False, key=None)]
    assert first_length([both], 2) == [9.0]


# Measures


def test_gap_and_pairs_by_hand() -> None:
    """Right 2 and 4, wrong 4 and 6: means 3 and 5, standard deviation sqrt 2; of 4 pairs, 3 are won and 1 is tied."""
    found = measure([[right(2), right(4), wrong(4), wrong(6)]])
    assert found.gap.value == pytest.approx(2 / 2**0.5)
    assert found.shorter_is_right.value == pytest.approx(3.5 / 4)
    assert (found.spread, found.mixed, found.cut) == (1.0, 1, 0.0)


def test_differences_between_problems_do_not_count() -> None:
    """Over all problems, wrong samples are ten times as long; within each, right and wrong have equal lengths."""
    easy = [right(10), right(10), right(10), wrong(10)]
    hard = [right(100), wrong(100), wrong(100), wrong(100)]
    found = measure([easy, hard] * 5)
    assert (found.gap.value, found.shorter_is_right.value) == (0.0, 0.5)


def test_cut_samples_are_counted_but_not_measured() -> None:
    found = measure([[right(5), wrong(5), wrong(400, ended=False, key=None), wrong(400, ended=False, key=None)]])
    assert (found.gap.value, found.cut) == (0.0, 0.5)


def test_an_unknown_ratio_of_spreads_is_unknown() -> None:
    assert measure([[right(5), wrong(6)]]).spread is None


# Diagnosis


def test_if_right_samples_are_short_it_advises_use_with_the_best_n() -> None:
    found = diagnose([[right(5), right(6), wrong(8), wrong(9)]] * 30, sizes=(1, 2, 3, 8))
    assert list(found.replayed) == [1, 2, 3], "8 would take more samples than there are"
    assert found.replayed[1] == 0.5
    assert found.replayed[3] == pytest.approx(1.0), "of three samples one is right"
    assert (found.advice, found.n) == ("use", 3)
    assert found.strategy() == FirstFinish(n=3, advice="use")


def test_if_right_samples_are_long_it_advises_against() -> None:
    found = diagnose([[right(9), wrong(5), wrong(6)]] * 30)
    assert (found.advice, found.n) == ("do not use", 1)
    with pytest.raises(InputError, match="advice='do not use'"):
        found.strategy(guard="refuse")


def test_if_lengths_are_equal_it_advises_against() -> None:
    found = diagnose([[right(9), wrong(9)]] * 30)
    assert (found.advice, found.n) == ("do not use", 1)


def test_fewer_than_30_mixed_problems_are_not_diagnosed() -> None:
    problems = [[right(5), wrong(6)]] * 12 + [[right(5), right(6)]] * 100
    with pytest.raises(InputError, match="problems=12: not enough mixed problems to diagnose; it takes 30"):
        diagnose(problems)
    with pytest.raises(InputError, match="no problem has right and wrong samples"):
        measure([[right(5)]])
