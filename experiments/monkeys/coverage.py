"""The law of repeated sampling (Brown et al. 2024, arXiv 2407.21787): how coverage grows with samples.

Coverage is the share of problems with a right answer among k samples, the accuracy of an oracle.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from math import exp

import numpy as np
from scipy.optimize import curve_fit, minimize
from scipy.special import betaln

from thinktime.bench.samples import Sampled
from thinktime.bench.statistics import pass_at_k
from thinktime.core.errors import InputError

NEEDLE = 0.01
"""Share of right samples below which a vote cannot solve a problem."""


@dataclass(frozen=True)
class PowerLaw:
    """coverage(k) = exp(a * k**-b), with the mean and maximum absolute error of the fitted coverage."""

    a: float
    b: float
    mean_error: float
    max_error: float

    def __call__(self, k: float) -> float:
        """Coverage at k samples."""
        return exp(self.a * k**-self.b)


def coverage(counts: Sequence[tuple[int, int]], k: int) -> float:
    """Mean unbiased pass@k of problems with (samples, right ones).

    Raises:
        InputError: ``k`` exceeds the samples of some problem, or there is no problem.
    """
    if not counts:
        raise InputError("problems", 0, "coverage needs at least one problem")
    return sum(pass_at_k(n, right, k) for n, right in counts) / len(counts)


def grid(most: int, points: int = 40) -> list[int]:
    """Distinct whole numbers from 1 to ``most``, spaced evenly on a logarithmic scale."""
    return sorted({round(k) for k in np.geomspace(1, most, points)})


def fit_power_law(ks: Sequence[int], values: Sequence[float]) -> PowerLaw:
    """Fit by least squares in log coverage. Points with coverage 0 are left out.

    Raises:
        InputError: fewer than five different k have a coverage above 0.
    """
    if not any(values):
        raise InputError("coverage", 0, "cannot fit: it is 0 for every k; draw more samples or take easier problems")
    known = [(k, value) for k, value in zip(ks, values, strict=True) if value > 0]
    if len({k for k, _ in known}) < 5:
        raise InputError("k", list(ks), "a fit needs 5 different k with a coverage above 0")
    x, y = np.array([k for k, _ in known], dtype=float), np.array([value for _, value in known])
    start = (min(-1e-3, float(np.log(y[0]))), 0.3)
    bounds = ([-np.inf, 0.0], [0.0, np.inf])
    (a, b), _ = curve_fit(lambda k, a, b: a * k**-b, x, np.log(y), p0=start, bounds=bounds)
    errors = np.abs(np.exp(a * x**-b) - y)
    return PowerLaw(float(a), float(b), float(errors.mean()), float(errors.max()))


@dataclass(frozen=True)
class Rates:
    """A Beta distribution of the problems' success rates, which extrapolates more robustly than the power law."""

    alpha: float
    beta: float

    def __call__(self, k: float) -> float:
        """Expected coverage, E[1 - (1 - p)**k]."""
        return float(1 - np.exp(betaln(self.alpha, self.beta + k) - betaln(self.alpha, self.beta)))


_FAR = 14.0
"""Bound on the logarithms of alpha and beta: equal rates send both to infinity, where `betaln` has no digits left."""


def fit_rates(counts: Sequence[tuple[int, int]]) -> Rates:
    """Maximum likelihood of a beta-binomial.

    Raises:
        InputError: no sample is right.
    """
    if not any(right for _, right in counts):
        raise InputError("coverage", 0, "cannot fit: it is 0 for every k; draw more samples or take easier problems")
    n = np.array([n for n, _ in counts], dtype=float)
    right = np.array([right for _, right in counts], dtype=float)

    def loss(logs: np.ndarray) -> float:
        alpha, beta = np.exp(logs)
        return float(-(betaln(alpha + right, beta + n - right) - betaln(alpha, beta)).sum())

    options = {"xatol": 1e-6, "fatol": 1e-8}
    found = minimize(loss, np.zeros(2), method="Nelder-Mead", bounds=[(-_FAR, _FAR)] * 2, options=options)
    alpha, beta = np.exp(found.x)
    return Rates(float(alpha), float(beta))


def chance(answers: Sequence[Sequence[Hashable]], references: Sequence[Hashable], k: int) -> list[float]:
    """Coverage by guessing: the chance per problem that k draws from the *other* problems' answers hit the right one.

    Args:
        answers: keys of the answers to each problem; None is unreadable.
        references: the key of each right answer.
        k: number of guesses.
    """
    pool = Counter(key for keys in answers for key in keys)
    total = pool.total()
    found = []
    for keys, reference in zip(answers, references, strict=True):
        others = total - len(keys)
        hits = pool[reference] - sum(key == reference for key in keys)
        found.append(1 - (1 - hits / others) ** k if others else 0.0)
    return found


def needles(counts: Sequence[tuple[int, int]]) -> float:
    """Share of problems that have right samples, but less than 1% of them."""
    return sum(0 < right < NEEDLE * n for n, right in counts) / len(counts)


def distinct(problem: Sampled) -> float:
    """Share of distinct texts among a problem's samples. For long texts, a share far below 1 means repeated seeds."""
    return len({sample.text for sample in problem.samples}) / len(problem.samples)


@dataclass(frozen=True)
class SampledModel:
    """A model's samples (number, right ones) per problem, and its costs in FLOPs or another common unit.

    A problem costs ``prompt_cost`` once, and ``sample_cost`` for each sample.
    """

    name: str
    counts: Sequence[tuple[int, int]]
    prompt_cost: float
    sample_cost: float


@dataclass(frozen=True)
class ModelChoice:
    """A model and its number of samples, with the resulting coverage and the cost per problem."""

    model: str
    k: int
    coverage: float
    cost: float


def cheapest(models: Sequence[SampledModel], target: float) -> ModelChoice | None:
    """The model and number of samples that reach a coverage at the least cost; None if no model reaches it."""
    reached = []
    for model in models:
        ks = range(1, min(n for n, _ in model.counts) + 1)
        place = bisect_left(ks, target, key=lambda k: coverage(model.counts, k))
        if place < len(ks):
            k = ks[place]
            cost = model.prompt_cost + k * model.sample_cost
            reached.append(ModelChoice(model.name, k, coverage(model.counts, k), cost))
    return min(reached, key=lambda choice: choice.cost, default=None)
