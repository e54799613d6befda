"""Selectors over random subsets: their accuracy at every k, and the k from which they stop gaining."""

from __future__ import annotations

import pytest
from toy import ANSWERS, drawn, extend, solve, toy_search

from thinktime.answers import canonical
from thinktime.bench.samples import Sample, Sampled
from thinktime.bench.selectors import candidates, curve, first_finish, length_vote, plateau
from thinktime.bench.statistics import pass_at_k
from thinktime.core.errors import InputError
from thinktime.core.search import Search
from thinktime.core.selection import best, majority, weighted_majority
from thinktime.core.types import Problem
from thinktime.generators.recorded import RecordedAnswers, RecordedGenerator, RecordedSample
from thinktime.strategies.sampling.first_finish import FirstFinish
from thinktime.strategies.sampling.length_vote import LengthVote


def right(reward: float | None = None, length: int = 1) -> Sample:
    return Sample(length, "7", True, reward=reward)


def wrong(key: str | None = "8", reward: float | None = None, length: int = 1) -> Sample:
    return Sample(length, key, False, reward=reward)


def problem(*samples: Sample, id: str = "p") -> Sampled:
    return Sampled(id, samples)


def test_one_sample_has_the_share_of_right_samples_and_all_samples_have_no_variance() -> None:
    """3 of 5 samples are right: a subset of one is right in about 60 of 100 draws, the vote of all in every draw."""
    points = curve([problem(right(), right(), right(), wrong(), wrong())], [1, 5], majority, draws=400)
    assert points[1].accuracy.value == pytest.approx(0.6, abs=0.075)
    assert points[5].accuracy.value == 1.0
    assert points[5].sd == 0.0, "all subsets of all samples are the same, so the deviation is 0"
    assert points[1].sd == pytest.approx((0.6 * 0.4) ** 0.5, abs=0.03)


def test_draws_are_without_replacement() -> None:
    """Any 4 of 3 right and 2 wrong samples have two or more right ones, so the vote is right except for ties."""
    alone = [problem(right(), right(), right(), wrong("8"), wrong("9"))]
    assert curve(alone, [4], majority)[4].accuracy.value == 1.0


def test_with_a_perfect_reward_selection_equals_coverage() -> None:
    samples = [right(1.0), right(1.0), *(wrong(reward=0.0) for _ in range(6))]
    points = curve([problem(*samples)], [1, 2, 4, 8], best, draws=500)
    assert {k: p.accuracy.value for k, p in points.items()} == pytest.approx(
        {k: pass_at_k(8, 2, k) for k in points}, abs=0.06
    )


def test_rewards_can_be_passed_in() -> None:
    alone = [problem(wrong(length=3), wrong(length=3), right(length=9))]
    points = curve(alone, [3], weighted_majority, score=lambda sample: float(sample.length))
    assert points[3].accuracy.value == 1.0, "9 against 3 + 3"


def test_unreadable_and_cut_samples_have_no_vote() -> None:
    cut = Sample(9, "8", False, ended=False)
    points = curve([problem(right(), wrong(None), wrong(None), cut, cut)], [5], majority)
    assert points[5].accuracy.value == 1.0
    nothing = [problem(wrong(None), wrong(None), right(), id="q")]
    assert curve(nothing, [1], majority, draws=300)[1].accuracy.value == pytest.approx(1 / 3, abs=0.09)


def test_a_vote_is_right_if_its_answer_is_right_even_if_one_label_differs() -> None:
    mislabelled = Sample(1, "7", False)
    assert curve([problem(right(), right(), mislabelled)], [1], majority)[1].accuracy.value == 1.0


def test_the_interval_is_over_problems() -> None:
    points = curve([problem(right(), id="a"), problem(wrong(), id="b")], [1], majority)
    assert points[1].each == (1.0, 0.0)
    assert (points[1].accuracy.low, points[1].accuracy.high) == (0.0, 1.0)


def test_every_selector_sees_the_same_subsets() -> None:
    alone = [problem(right(0.5), wrong(reward=0.5), wrong("9", 0.5), right(0.5))]
    assert curve(alone, [1, 2], majority) == curve(alone, [1, 2], weighted_majority)


@pytest.mark.parametrize("k", [0, 3])
def test_a_k_out_of_range_is_refused_with_the_problem(k: int) -> None:
    with pytest.raises(InputError, match=f"k={k}: problem .* has . samples; give 1 to that many"):
        curve([problem(*[right()] * 4), problem(right(), right(), id="q")], [1, k], majority)


@pytest.mark.parametrize("side", ["short", "long"])
def test_the_length_vote_equals_the_strategy_of_that_name(side: str) -> None:
    """Answers by length 1..8: 7 7 8 8 | 8 9 9 9. The shortest half ties, and 7 is first; the longest half votes 9."""
    keys = ["7", "7", "8", "8", "8", "9", "9", "9"]
    samples = [
        Sample(index + 1, canonical(key), key == "7", text="so " * index + key) for index, key in enumerate(keys)
    ]

    class InWords(RecordedGenerator):
        def length(self, state: RecordedSample) -> int:
            return len(state.text.split())

    recorded = [RecordedSample(sample.text, key) for sample, key in zip(samples, keys, strict=True)]
    search = Search(Problem("p", "?"), InWords(recorded), answers=RecordedAnswers())
    answer = solve(LengthVote(n=8, side=side), search)
    chosen = length_vote(side)(candidates(samples, lambda sample: None))
    assert chosen is not None and answer.value is not None
    assert chosen.key == canonical(answer.value) == canonical({"short": "7", "long": "9"}[side])


def test_at_least_three_samples_vote_by_length() -> None:
    drawn = candidates([wrong("1", length=1), right(length=2), right(length=3), wrong("2", length=4)], lambda s: None)
    chosen = length_vote("short", keep=0.1)(drawn)
    assert chosen is not None and chosen.key == "7"


# The plateau


@pytest.mark.parametrize("k", [1, 2, 5])
def test_first_finish_equals_the_strategy_of_that_name(k: int) -> None:
    for seed in range(12):
        search = toy_search(drawn, None, seed=seed)
        samples = []
        for leaf in extend(search, [search.root], 5):
            answer = ANSWERS.read(leaf.state) if leaf.done else None
            samples.append(Sample(len(leaf.state.ids), answer, answer == "7", leaf.done))
        chosen = first_finish(k)(candidates(samples, lambda sample: None))
        raced = solve(FirstFinish(n=5, k=k), toy_search(drawn, None, seed=seed))
        assert (chosen and chosen.key) == raced.value


def test_the_control_takes_the_last_samples_to_finish() -> None:
    samples = [right(length=3), wrong(length=9), Sample(99, None, False, ended=False)]
    found = [first_finish(1, last=last)(candidates(samples, lambda sample: None)) for last in (False, True)]
    assert [chosen and chosen.key for chosen in found] == ["7", "8"]


def test_the_plateau_begins_where_no_later_doubling_gains() -> None:
    """+0, +5, +3, +0.4 and +0.1 points: no gain from 8 on. The first doubling does not count: two cannot vote."""
    assert plateau({1: 0.40, 2: 0.40, 4: 0.45, 8: 0.48, 16: 0.484, 32: 0.485}) == 8


def test_a_curve_that_still_rises_has_no_plateau() -> None:
    assert plateau({1: 0.1, 2: 0.2, 4: 0.3}) is None
    assert plateau({1: 0.1}) is None


def test_a_curve_that_falls_is_past_its_plateau() -> None:
    assert plateau({1: 0.5, 2: 0.4, 4: 0.3}) == 1
