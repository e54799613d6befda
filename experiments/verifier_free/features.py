"""Measures how length and marker words relate to correctness, within problems (arXiv 2504.14047).

Samples cut at the limit are left out, because they are long and wrong by construction.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize
from scipy.special import expit

from thinktime.bench.samples import Sample, Sampled
from thinktime.bench.statistics import Estimate, auc, mean_interval
from thinktime.core.errors import InputError
from thinktime.scorers.markers import FEATURES, Markers, Weights

RIDGE = 1.0
"""Ridge penalty, in units of one sample's log-likelihood. It bounds the coefficients of rare markers."""


@dataclass(frozen=True)
class Association:
    """The association of one feature with correctness.

    ``auc`` is the chance that a right sample has a higher value than a wrong sample of the same problem (ties count
    half), averaged over the ``mixed`` problems that have both. ``difference`` is the mean of right minus wrong.
    ``pooled`` is the AUC over the samples of all problems together, which mostly measures difficulty.
    """

    auc: Estimate
    difference: Estimate
    pooled: float | None
    mixed: int


def association(problems: Sequence[Sampled], markers: Markers, seed: int = 0) -> dict[str, Association]:
    """Association of correctness with length (in the samples' unit) and with marker rates (per 100 words).

    Raises:
        InputError: no problem has right and wrong samples that ended.
    """
    ended = [[sample for sample in problem.samples if sample.ended] for problem in problems]
    mixed = [place for place, samples in enumerate(ended) if len({sample.correct for sample in samples}) == 2]
    if not mixed:
        raise InputError("problems", 0, "no problem has right and wrong samples; their features can't be compared")
    truths = [[sample.correct for sample in samples] for samples in ended]
    found = {}
    for name, values in _features(ended, markers).items():
        areas = [area for place in mixed if (area := auc(values[place], truths[place])) is not None]
        gaps = []
        for place in mixed:
            right = fmean(v for v, true in zip(values[place], truths[place], strict=True) if true)
            wrong = fmean(v for v, true in zip(values[place], truths[place], strict=True) if not true)
            gaps.append(right - wrong)
        pooled = auc([v for row in values for v in row], [true for row in truths for true in row])
        found[name] = Association(mean_interval(areas, seed), mean_interval(gaps, seed), pooled, len(mixed))
    return found


def _features(ended: Sequence[Sequence[Sample]], markers: Markers) -> dict[str, list[list[float]]]:
    rates = [[markers.rates(sample.text) for sample in samples] for samples in ended]
    return {
        "length": [[float(sample.length) for sample in samples] for samples in ended],
        **{name: [[rate[name] for rate in row] for row in rates] for name in FEATURES[1:]},
    }


def fit_weights(problems: Sequence[Sampled], generator: str, markers: Markers) -> Weights:
    """Fit `Weights` by logistic regression on the problems that have right and wrong samples.

    Every problem has its own intercept, so the coefficients compare samples of one problem and do not learn which
    problems are hard. The saved intercept is the mean.

    Raises:
        InputError: the samples are all right or all wrong, or no problem has both.
    """
    kept = [[sample for sample in problem.samples if sample.ended] for problem in problems]
    outcomes = {sample.correct for samples in kept for sample in samples}
    if len(outcomes) < 2:
        which = "right" if outcomes == {True} else "wrong"
        raise InputError(
            "calibration", len(problems), f"its samples are all {which}; add problems until there are both"
        )
    mixed = [samples for samples in kept if len({sample.correct for sample in samples}) == 2]
    if not mixed:
        raise InputError("calibration", len(problems), "no problem has both right and wrong samples; add problems")
    raw = np.array([markers.features(sample.text) for samples in mixed for sample in samples])
    right = np.array([sample.correct for samples in mixed for sample in samples], dtype=np.float64)
    owner = np.repeat(np.arange(len(mixed)), [len(samples) for samples in mixed])
    means, spreads = raw.mean(axis=0), raw.std(axis=0)
    spreads[spreads < 1e-12] = 1.0  # a constant marker gets coefficient 0
    x = (raw - means) / spreads
    width = x.shape[1]

    def loss(parameters: npt.NDArray[np.float64]) -> tuple[float, npt.NDArray[np.float64]]:
        beta, own = parameters[:width], parameters[width:]
        z = x @ beta + own[owner]
        error = expit(z) - right
        gradient = np.concatenate([x.T @ error + RIDGE * beta, np.bincount(owner, error, len(own))])
        return float((np.logaddexp(0, z) - right * z).sum() + RIDGE / 2 * beta @ beta), gradient

    found = minimize(loss, np.zeros(width + len(mixed)), jac=True, method="L-BFGS-B", options={"maxiter": 2000}).x
    return Weights(
        generator,
        tuple(map(float, found[:width])),
        float(found[width:].mean()),
        tuple(map(float, means)),
        tuple(map(float, spreads)),
        markers,
        len(mixed),
        len(right),
    )
