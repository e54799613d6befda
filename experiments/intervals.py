"""Estimates with 95% intervals over problems, as they are written into results, and as text."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from thinktime.bench.statistics import RESAMPLES, auc, mean_interval, paired_difference

Estimate = dict[str, float]
"""``value``, ``low`` and ``high``."""
Floats = npt.NDArray[np.float64]


def mean(values: Iterable[float], seed: int = 0) -> Estimate:
    """The mean over problems."""
    return mean_interval([float(value) for value in values], seed).as_dict()


def difference(a: Iterable[float], b: Iterable[float], seed: int = 0) -> Estimate:
    """The mean of ``a - b`` over the same problems."""
    return paired_difference([float(x) for x in a], [float(y) for y in b], seed).as_dict()


def ratio(a: Sequence[float] | Floats, b: Sequence[float] | Floats, seed: int = 0) -> Estimate:
    """The sum of ``a`` over the sum of ``b``, of the same problems."""
    x, y = np.asarray(a), np.asarray(b)
    return bootstrap(lambda picks: x[picks].sum(-1) / y[picks].sum(-1), len(x), seed)


def unpaired_difference(a: Floats, b: Floats, seed: int = 0, resamples: int = RESAMPLES) -> Estimate:
    """The difference of the means of two groups of problems, each of which is resampled by itself."""
    rng = np.random.default_rng(seed)
    drawn = [group[rng.integers(0, len(group), (resamples, len(group)))].mean(1) for group in (a, b)]
    return _estimate(a.mean() - b.mean(), drawn[0] - drawn[1])


def bootstrap(statistic: Callable[[Any], Any], n: int, seed: int = 0, resamples: int = RESAMPLES) -> Estimate:
    """A statistic of ``n`` problems, with the interval from resampling them.

    Args:
        statistic: of the places of problems, ``[..., n]``; gives one number for each resample, ``[...]``.
        n: number of problems.
        seed: of the resamples.
        resamples: how many.
    """
    picks = np.random.default_rng(seed).integers(0, n, (resamples, n))
    return _estimate(statistic(np.arange(n)), statistic(picks))


def share(part: Sequence[float], whole: Sequence[float]) -> Estimate | None:
    """The sum of ``part`` over the sum of ``whole``; None where no problem has any."""
    some = [(p, w) for p, w in zip(part, whole, strict=True) if w]  # the others weigh nothing in a ratio of sums
    return ratio([p for p, _ in some], [w for _, w in some]) if some else None


def areas(scores: Iterable[Sequence[float]], right: Iterable[Sequence[bool]]) -> tuple[float | None, list[float]]:
    """The AUC over the samples of all problems, and the AUC of each problem that has right and wrong samples."""
    pairs = list(zip(map(list, scores), map(list, right), strict=True))
    within = [area for pair in pairs if (area := auc(*pair)) is not None]
    return auc([s for mine, _ in pairs for s in mine], [r for _, mine in pairs for r in mine]), within


def _estimate(value: float, drawn: Floats) -> Estimate:
    low, high = np.percentile(drawn, [2.5, 97.5])
    return {"value": float(value), "low": float(low), "high": float(high)}


def as_points(estimate: Mapping[str, float]) -> str:
    """A difference of shares, in points of a hundred."""
    return as_percent(estimate, "+")


def as_percent(estimate: Mapping[str, float], sign: str = "") -> str:
    """A share or a difference of shares, without its percent sign."""
    value, low, high = (100 * estimate[name] for name in ("value", "low", "high"))
    return f"{value:{sign}.1f} [{low:{sign}.1f}, {high:{sign}.1f}]"


def as_number(estimate: Mapping[str, float], digits: int = 2) -> str:
    """A number with its interval."""
    return "{value:.{n}f} [{low:.{n}f}, {high:.{n}f}]".format(n=digits, **estimate)
