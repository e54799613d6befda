"""How well scores tell right samples from wrong ones: over all samples, within a problem, and as probabilities.

A search only chooses between samples of one problem, so the AUC within a problem is what a selection can use. The AUC
over all samples is usually higher, because scores also tell easy problems from hard ones. All intervals come from
resampling problems.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from math import exp
from typing import Any

import numpy as np
import numpy.typing as npt

from thinktime.bench.samples import Sample, Sampled
from thinktime.bench.statistics import Estimate, auc, mean_interval
from thinktime.core.errors import InputError
from thinktime.core.usage import Usage, total

BINS = 10
RESAMPLES = 2000

Array = npt.NDArray[np.float64]
Scoring = Callable[[Sampled, Sample], float | None]


@dataclass(frozen=True)
class Scored:
    """The scored samples of a problem, and how many were left out.

    Args:
        scores: of the samples that have an answer; a higher score says that the sample is more likely right.
        right: whether each of these is right.
        missing: the number of samples without a score. A sample without an answer has none, as it cannot be chosen.
        cost: the usage of all these scores.
    """

    scores: tuple[float, ...]
    right: tuple[bool, ...]
    missing: int = 0
    cost: Usage = field(default_factory=Usage)

    @property
    def auc(self) -> float | None:
        """The AUC within the problem; None if all samples are right, or all wrong."""
        return auc(self.scores, self.right)


@dataclass(frozen=True)
class Bin:
    """The scores from ``low`` to ``high``: their number, their mean, and the share of right samples."""

    low: float
    high: float
    n: int
    score: float
    right: float


@dataclass(frozen=True)
class Report:
    """How good a verifier is.

    Args:
        n_problems: problems with a scored sample.
        n_samples: scored samples.
        missing: samples without a score.
        pooled: the AUC over all samples; None if all are right, or all wrong.
        within: the mean over problems of the AUC within a problem.
        n_within: problems with right and wrong samples, which alone have an AUC.
        n_all_right: problems whose samples are all right.
        n_all_wrong: problems whose samples are all wrong.
        ece: the expected calibration error over `BINS` bins of equal width (Naeini et al. 2015); None if the scores are
            not probabilities.
        bins: of the scores, without empty ones; none if the scores are not probabilities.
        cost: the mean usage of a score.
    """

    n_problems: int
    n_samples: int
    missing: int
    pooled: Estimate | None
    within: Estimate | None
    n_within: int
    n_all_right: int
    n_all_wrong: int
    ece: Estimate | None
    bins: tuple[Bin, ...]
    cost: Mapping[str, float | None]

    def as_dict(self) -> dict[str, Any]:
        """JSON values, rounded to six digits."""
        estimates = {name: getattr(self, name) for name in ("pooled", "within", "ece")}
        rounded = {name: None if each is None else each.as_dict() for name, each in estimates.items()}
        bins = [{name: round(value, 6) for name, value in asdict(one).items()} for one in self.bins]
        return {**asdict(self), **rounded, "bins": bins, "cost": dict(self.cost)}


def verify(problems: Sequence[Scored], *, probabilities: bool = False, seed: int = 0) -> Report:
    """Measure the scores of a verifier.

    Args:
        problems: at least one has a scored sample; the others count as missing only.
        probabilities: whether a score is a probability of being right, so that its calibration is measured.
        seed: of the resamples.

    Raises:
        InputError: no sample is scored, or a probability is not within 0 and 1.
    """
    some = [problem for problem in problems if problem.scores]
    if not some:
        raise InputError("scores", 0, "no sample is scored")
    weights = np.random.default_rng(seed).multinomial(len(some), [1 / len(some)] * len(some), RESAMPLES)
    within = [found for problem in some if (found := problem.auc) is not None]
    ece, bins = _calibration(some, weights) if probabilities else (None, ())
    n = sum(len(problem.scores) for problem in some)
    cost = total([Usage(), *(problem.cost for problem in problems)]).as_dict()
    return Report(
        n_problems=len(some),
        n_samples=n,
        missing=sum(problem.missing for problem in problems),
        pooled=_pooled(some, weights),
        within=mean_interval(within, seed) if within else None,
        n_within=len(within),
        n_all_right=sum(all(problem.right) for problem in some),
        n_all_wrong=sum(not any(problem.right) for problem in some),
        ece=ece,
        bins=bins,
        cost={name: None if value is None else value / n for name, value in cost.items() if value != 0},
    )


def _pooled(problems: Sequence[Scored], weights: npt.NDArray[np.int64]) -> Estimate | None:
    """The AUC over all samples.

    ``wins[i, j]`` counts the pairs of a right sample of problem i and a wrong one of problem j that are in order. So a
    resample, in which problems have weights, needs no new comparison of scores.
    """
    right = [np.sort([s for s, good in zip(p.scores, p.right, strict=True) if good]) for p in problems]
    wrong = [[s for s, good in zip(p.scores, p.right, strict=True) if not good] for p in problems]
    n_right, n_wrong = (np.array([len(each) for each in side], dtype=np.float64) for side in (right, wrong))
    everything = np.array([score for each in wrong for score in each])
    owner = np.repeat(np.arange(len(problems)), n_wrong.astype(int))
    wins = np.zeros((len(problems), len(problems)))
    for place, ordered in enumerate(right):
        below = np.searchsorted(ordered, everything, "left") + np.searchsorted(ordered, everything, "right")
        wins[place] = np.bincount(owner, len(ordered) - below / 2, len(problems))
    draws = np.vstack([np.ones(len(problems)), weights])
    pairs = (draws @ n_right) * (draws @ n_wrong)
    ordered_pairs = np.einsum("ri,ij,rj->r", draws, wins, draws, optimize=True)
    if not pairs[0]:
        return None
    return _estimate(ordered_pairs[pairs > 0] / pairs[pairs > 0])


def _calibration(problems: Sequence[Scored], weights: npt.NDArray[np.int64]) -> tuple[Estimate, tuple[Bin, ...]]:
    sums = np.zeros((3, len(problems), BINS))  # of samples, scores and right samples
    for place, problem in enumerate(problems):
        scores = np.array(problem.scores)
        if bad := [score for score in problem.scores if not 0 <= score <= 1]:
            raise InputError("score", bad[0], "a probability is within 0 and 1")
        bins = np.minimum((scores * BINS).astype(int), BINS - 1)
        for kind, values in enumerate((None, scores, np.array(problem.right, dtype=np.float64))):
            sums[kind, place] = np.bincount(bins, values, BINS)
    draws = np.vstack([np.ones(len(problems)), weights])
    n, score, right = (draws @ part for part in sums)
    errors = np.abs(score - right).sum(axis=1) / n.sum(axis=1)
    found = tuple(
        Bin(
            place / BINS,
            (place + 1) / BINS,
            int(n[0, place]),
            score[0, place] / n[0, place],
            right[0, place] / n[0, place],
        )
        for place in range(BINS)
        if n[0, place]
    )
    return _estimate(errors), found


def _estimate(values: Array) -> Estimate:
    """The first value, with the interval of the others."""
    low, high = np.percentile(values[1:], [2.5, 97.5])
    return Estimate(float(values[0]), float(low), float(high))


def scored(problem: Sampled, scoring: Scoring) -> Scored:
    """The samples of a problem under a scoring."""
    pairs = [(scoring(problem, sample) if sample.answered else None, sample) for sample in problem.samples]
    kept = [(score, sample.correct) for score, sample in pairs if score is not None]
    return Scored(
        tuple(score for score, _ in kept), tuple(right for _, right in kept), len(problem.samples) - len(kept)
    )


def agreement(problem: Sampled, sample: Sample) -> float:
    """The share of the problem's samples that have this answer, with the sample itself and those without an answer."""
    return sum(other.answered and other.key == sample.key for other in problem.samples) / len(problem.samples)


def confidence(problem: Sampled, sample: Sample) -> float | None:
    """The geometric mean of the tokens' probabilities; it orders samples as their mean log-probability does."""
    return None if sample.logprob is None or not sample.length else exp(sample.logprob / sample.length)


def likelihood(problem: Sampled, sample: Sample) -> float | None:
    """The log-probability of the whole sample."""
    return sample.logprob


def shortness(problem: Sampled, sample: Sample) -> float:
    """Minus the length of the sample."""
    return -float(sample.length)


FREE: Mapping[str, tuple[Scoring, bool]] = {
    "agreement": (agreement, True),
    "confidence": (confidence, True),
    "likelihood": (likelihood, False),
    "shortness": (shortness, False),
}
"""Verifiers that cost nothing beyond the samples, and whether their scores are read as probabilities."""
