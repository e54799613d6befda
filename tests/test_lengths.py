"""First finish search diagnosed: within problems, by replay and by two normal distributions."""

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
    """Six in ten are right; lengths are normal."""
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
def test_the_published_simulation_comes_out_of_the_replay(
    wrong_at: tuple[float, float], expected: dict[int, float]
) -> None:
    problems = simulated((100.0, 20.0), wrong_at)
    assert {n: fmean(first_of(problems, n)) for n in expected} == pytest.approx(expected, abs=0.02)


@pytest.mark.parametrize(("wrong_at", "expected"), PUBLISHED)
def test_the_published_simulation_comes_out_of_the_predictor(
    wrong_at: tuple[float, float], expected: dict[int, float]
) -> None:
    """To the two digits it is given with, give or take one of a simulation."""
    found = {n: normal_first(0.6, (100.0, 20.0), wrong_at, n) for n in expected}
    assert found == pytest.approx(expected, abs=0.011)


def test_the_predictor_agrees_with_the_replay_where_lengths_are_normal() -> None:
    problems = simulated((100.0, 20.0), (120.0, 60.0))
    for n in (1, 4, 16):
        assert fmean(predict(problems, n)) == pytest.approx(fmean(first_of(problems, n)), abs=0.02)


def test_equal_distributions_leave_the_share_of_right_samples() -> None:
    assert normal_first(0.3, (50, 5), (50, 5), 8) == pytest.approx(0.3, abs=1e-4)


def test_problems_of_one_kind_are_predicted_as_they_are() -> None:
    assert predict([[right(3), right(4)], [wrong(3), wrong(4)], [wrong(3, ended=False)]], 2) == [1.0, 0.0, 0.0]


def test_lengths_that_do_not_vary_are_still_predicted() -> None:
    """All right ones are 10 long, all wrong ones 20: the first of two is wrong only if both are, (1/2)^2."""
    assert predict([[right(10), right(10), wrong(20), wrong(20)]], 2) == pytest.approx([0.75], abs=1e-4)


# Replay


def test_the_first_is_the_shortest_that_ended_with_an_answer() -> None:
    """Of {2 cut, 3 unreadable, 5 right, 6 wrong} the pairs: only 5 and 6 can arrive; 5 is in three pairs of six."""
    samples = [wrong(2, ended=False, key=None), wrong(3, key=None), right(5), wrong(6)]
    assert first_of([samples], 2) == pytest.approx([3 / 6])
    assert first_of([samples], 2, last=True) == pytest.approx([2 / 6]), "right is the longest with 2 and with 3"


def test_equally_short_ones_win_as_often() -> None:
    assert first_of([[right(5), wrong(5)]], 2) == [0.5]


def test_a_problem_with_fewer_samples_is_refused_not_left_out() -> None:
    with pytest.raises(InputError, match="k=2: draw 1 to 1 samples"):
        first_of([[right(5), wrong(6)], [right(5)]], 2)


def test_the_wait_is_for_the_first_to_end_and_for_all_if_none_does() -> None:
    """Of {2, 6, 9 cut} pairs: 2, 2, 6. Of two that were cut at 9 and 8: 9."""
    samples = [right(2), wrong(6), wrong(9, ended=False, key=None)]
    assert first_length([samples], 2) == pytest.approx([(2 + 2 + 6) / 3])
    both = [wrong(8, ended=False, key=None), wrong(9, ended=False, key=None)]
    assert first_length([both], 2) == [9.0]


# Measures


def test_gap_and_pairs_by_hand() -> None:
    """Right 2 and 4, wrong 4 and 6: means 3 and 5, all of {2, 4, 4, 6} spread by sqrt 2; of 4 pairs 3 won, 1 tied."""
    found = measure([[right(2), right(4), wrong(4), wrong(6)]])
    assert found.gap.value == pytest.approx(2 / 2**0.5)
    assert found.shorter_is_right.value == pytest.approx(3.5 / 4)
    assert (found.spread, found.mixed, found.cut) == (1.0, 1, 0.0)


def test_hard_problems_that_are_long_and_wrong_say_nothing() -> None:
    """Over problems the wrong ones are ten times as long; within each, right and wrong are alike."""
    easy = [right(10), right(10), right(10), wrong(10)]
    hard = [right(100), wrong(100), wrong(100), wrong(100)]
    found = measure([easy, hard] * 5)
    assert (found.gap.value, found.shorter_is_right.value) == (0.0, 0.5)


def test_cut_samples_are_neither_long_nor_wrong_but_counted() -> None:
    found = measure([[right(5), wrong(5), wrong(400, ended=False, key=None), wrong(400, ended=False, key=None)]])
    assert (found.gap.value, found.cut) == (0.0, 0.5)


def test_an_unknown_ratio_of_spreads_is_unknown() -> None:
    assert measure([[right(5), wrong(6)]]).spread is None


# Diagnosis


def test_short_and_right_is_advised_with_the_best_n() -> None:
    found = diagnose([[right(5), right(6), wrong(8), wrong(9)]] * 30, sizes=(1, 2, 3, 8))
    assert list(found.replayed) == [1, 2, 3], "8 would take more samples than there are"
    assert found.replayed[1] == 0.5
    assert found.replayed[3] == pytest.approx(1.0), "of three samples one is right"
    assert (found.advice, found.n) == ("use", 3)
    assert found.strategy() == FirstFinish(n=3, advice="use")


def test_long_and_right_is_advised_against() -> None:
    found = diagnose([[right(9), wrong(5), wrong(6)]] * 30)
    assert (found.advice, found.n) == ("do not use", 1)
    with pytest.raises(InputError, match="advice='do not use'"):
        found.strategy(guard="refuse")


def test_lengths_without_spread_are_advised_against() -> None:
    found = diagnose([[right(9), wrong(9)]] * 30)
    assert (found.advice, found.n) == ("do not use", 1)


def test_fewer_than_30_mixed_problems_are_not_diagnosed() -> None:
    problems = [[right(5), wrong(6)]] * 12 + [[right(5), right(6)]] * 100
    with pytest.raises(InputError, match="problems=12: not enough mixed problems to diagnose; it takes 30"):
        diagnose(problems)
    with pytest.raises(InputError, match="no problem has right and wrong samples"):
        measure([[right(5)]])
