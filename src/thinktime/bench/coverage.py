"""The law of repeated sampling (Brown et al. 2024, arXiv 2407.21787): how coverage grows with samples.

Coverage is what an oracle would reach: the share of problems with a right answer among k samples.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from math import exp

import numpy as np
from scipy.optimize import curve_fit, minimize
from scipy.special import betaln

from thinktime.bench.statistics import pass_at_k
from thinktime.core.errors import InputError


@dataclass(frozen=True)
class PowerLaw:
    """coverage(k) = exp(a * k**-b), with the errors of the fit in points of coverage."""

    a: float
    b: float
    mean_error: float
    max_error: float

    def __call__(self, k: float) -> float:
        """Coverage at k samples."""
        return exp(self.a * k**-self.b)


def coverage(counts: Sequence[tuple[int, int]], k: int) -> float:
    """Mean unbiased pass@k of problems with (samples, right ones)."""
    return sum(pass_at_k(n, right, k) for n, right in counts) / len(counts)


def grid(most: int, points: int = 40) -> list[int]:
    """Different whole numbers from 1 to ``most``, spread evenly in logarithms."""
    return sorted({round(k) for k in np.geomspace(1, most, points)})


def fit_power_law(ks: Sequence[int], values: Sequence[float]) -> PowerLaw:
    """Least squares in log coverage; values of 0 before the first success are left out.

    Raises:
        InputError: fewer than five different k have a coverage above 0.
    """
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
    """A Beta distribution of the problems' success rates: a second, better behaved forecast."""

    alpha: float
    beta: float

    def __call__(self, k: float) -> float:
        """Expected coverage, E[1 - (1 - p)**k]."""
        return float(1 - np.exp(betaln(self.alpha, self.beta + k) - betaln(self.alpha, self.beta)))


def fit_rates(counts: Sequence[tuple[int, int]]) -> Rates:
    """Maximum likelihood of a beta-binomial."""
    n = np.array([n for n, _ in counts], dtype=float)
    right = np.array([right for _, right in counts], dtype=float)

    def loss(logs: np.ndarray) -> float:
        alpha, beta = np.exp(logs)
        return float(-(betaln(alpha + right, beta + n - right) - betaln(alpha, beta)).sum())

    found = minimize(loss, np.zeros(2), method="Nelder-Mead", options={"xatol": 1e-6, "fatol": 1e-8})
    alpha, beta = np.exp(found.x)
    return Rates(float(alpha), float(beta))


def chance(answers: Sequence[Sequence[Hashable]], references: Sequence[Hashable], k: int) -> float:
    """Coverage of a sampler that draws from the answers given to the *other* problems.

    Args:
        answers: keys of the answers to each problem; None is unreadable.
        references: the key of each right answer.
        k: samples drawn.
    """
    pool = Counter(key for keys in answers for key in keys)
    total = pool.total()
    missed = 0.0
    for keys, reference in zip(answers, references, strict=True):
        others = total - len(keys)
        hits = pool[reference] - sum(key == reference for key in keys)
        missed += (1 - hits / others) ** k if others else 1.0
    return 1 - missed / len(references)
