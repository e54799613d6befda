"""Reports on verifiers: AUC over all samples and within a problem, calibration and cost, worked out by hand."""

from __future__ import annotations

from math import log
from random import Random

import pytest

from thinktime.bench.samples import Sample, Sampled
from thinktime.bench.statistics import auc
from thinktime.bench.verifiers import FREE, Bin, Scored, agreement, confidence, likelihood, scored, shortness, verify
from thinktime.core.errors import InputError
from thinktime.core.usage import Usage

EASY = Scored((0.9, 0.8, 0.7), (True, True, False), cost=Usage(scorer_calls=3, scorer_tokens=60))
HARD = Scored((0.3, 0.2, 0.1), (False, True, False), missing=2, cost=Usage(scorer_calls=3, scorer_tokens=30))
SURE = Scored((0.95, 0.85), (True, True))
LOST = Scored((0.25,), (False,))
EMPTY = Scored((), (), missing=4)


def test_the_auc_within_problems_is_the_mean_over_those_with_right_and_wrong_samples() -> None:
    report = verify([EASY, HARD, SURE, LOST, EMPTY])
    # EASY: 2 of 2 pairs in order. HARD: 0.2 is above 0.1 and below 0.3, so 1 of 2.
    assert report.within is not None and report.within.value == 0.75
    assert (report.n_within, report.n_all_right, report.n_all_wrong) == (2, 1, 1)
    assert (report.n_problems, report.n_samples, report.missing) == (4, 9, 6)
    assert (report.within.low, report.within.high) == (0.5, 1.0)


def test_the_pooled_auc_counts_the_pairs_of_all_problems() -> None:
    report = verify([EASY, HARD, SURE, LOST])
    # Right: .9 .8 .2 .95 .85; wrong: .7 .3 .1 .25. All of .9, .8, .95, .85 beat the four; .2 beats .1 alone: 17 of 20.
    assert report.pooled is not None and report.pooled.value == 0.85
    assert report.pooled.low < 0.85 < report.pooled.high <= 1


def test_the_pooled_auc_of_random_scores_with_ties_is_the_auc_by_ranks() -> None:
    rng = Random(0)
    problems = []
    for _ in range(40):
        n = rng.randint(1, 6)
        right = tuple(rng.random() < 0.4 for _ in range(n))
        problems.append(Scored(tuple(round(rng.random() + 0.3 * good, 1) for good in right), right))
    report = verify(problems)
    by_ranks = auc([s for p in problems for s in p.scores], [r for p in problems for r in p.right])
    assert report.pooled is not None and report.pooled.value == pytest.approx(by_ranks, abs=1e-12)


def test_an_interval_comes_from_resampling_problems_and_not_samples() -> None:
    """Two equal problems, each repeated: more samples of the same problems do not narrow the interval."""
    once, often = verify([EASY, HARD]), verify([
        Scored(EASY.scores * 50, EASY.right * 50), Scored(HARD.scores * 50, HARD.right * 50)
    ])  # fmt: skip
    assert once.pooled == often.pooled


def test_samples_of_one_kind_have_no_auc() -> None:
    report = verify([SURE])
    assert report.pooled is None and report.within is None and report.n_all_right == 1
    assert verify([LOST]).n_all_wrong == 1


def test_calibration_by_hand() -> None:
    problems = [Scored((0.05, 0.95, 1.0), (False, True, False)), Scored((0.55, 0.91), (True, True))]
    report = verify(problems, probabilities=True)
    assert report.bins[:2] == (Bin(0.0, 0.1, 1, 0.05, 0.0), Bin(0.5, 0.6, 1, 0.55, 1.0))
    (last,) = report.bins[2:]
    assert (last.low, last.high, last.n) == (0.9, 1.0, 3)
    assert last.score == pytest.approx((0.95 + 1.0 + 0.91) / 3) and last.right == pytest.approx(2 / 3)
    assert report.ece is not None
    # 1/5 of .05, 1/5 of .45, 3/5 of |.95333 - .66667|
    assert report.ece.value == pytest.approx((0.05 + 0.45 + 0.86) / 5)
    # A resample has the first problem twice, each once, or the second twice.
    assert report.ece.low == pytest.approx((0.45 + 0.09) / 2) and report.ece.high == pytest.approx((0.05 + 0.95) / 3)


def test_scores_that_are_no_probabilities_have_no_calibration() -> None:
    assert verify([EASY]).ece is None and verify([EASY]).bins == ()
    with pytest.raises(InputError, match="a probability is within 0 and 1"):
        verify([Scored((1.5,), (True,))], probabilities=True)
    with pytest.raises(InputError, match="no sample is scored"):
        verify([EMPTY])


def test_the_cost_is_that_of_a_score() -> None:
    assert verify([EASY, HARD]).cost == {"scorer_calls": 1, "scorer_tokens": 15}
    assert verify([SURE]).cost == {}


def test_a_report_is_json() -> None:
    found = verify([EASY, HARD], probabilities=True).as_dict()
    assert found["within"] == {"value": 0.75, "low": 0.5, "high": 1.0}
    assert found["bins"][0] == {"low": 0.1, "high": 0.2, "n": 1, "score": 0.1, "right": 0.0}
    assert verify([EASY]).as_dict()["ece"] is None


SAMPLES = Sampled(
    "p",
    (
        Sample(10, "7", True, logprob=-1.0),
        Sample(20, "7", True, logprob=None),
        Sample(4, "5", False, logprob=4 * log(0.5)),
        Sample(8, None, False, logprob=-1.0),
        Sample(30, "7", True, ended=False, logprob=-1.0),
    ),
)


def test_free_verifiers_by_hand() -> None:
    first, second, third, *_ = SAMPLES.samples
    assert [agreement(SAMPLES, sample) for sample in (first, third)] == [0.4, 0.2]
    assert confidence(SAMPLES, third) == pytest.approx(0.5) and confidence(SAMPLES, second) is None
    assert likelihood(SAMPLES, first) == -1.0 and shortness(SAMPLES, first) == -10.0
    assert set(FREE) == {"agreement", "confidence", "likelihood", "shortness"}


def test_a_sample_without_an_answer_or_without_a_score_is_missing() -> None:
    assert scored(SAMPLES, agreement) == Scored((0.4, 0.4, 0.2), (True, True, False), missing=2)
    assert scored(SAMPLES, likelihood) == Scored((-1.0, 4 * log(0.5)), (True, False), missing=3)
