"""Estimates with intervals, which come from resampling problems, never samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import comb

import numpy as np
import numpy.typing as npt

from thinktime.core.errors import InputError

RESAMPLES = 10_000
TAIL = 0.025
"""Probability beyond each end of an interval."""
SHARES, DIFFERENCES = (0.0, 1.0), (-1.0, 1.0)
"""Bounds of shares, and of their differences."""


@dataclass(frozen=True)
class Estimate:
    """A mean over problems with its 95% interval."""

    value: float
    low: float
    high: float

    def as_dict(self) -> dict[str, float]:
        """``value``, ``low`` and ``high``, rounded to six digits."""
        return {name: round(number, 6) for name, number in asdict(self).items()}

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def mean_interval(
    values: Sequence[float],
    seed: int = 0,
    resamples: int = RESAMPLES,
    bounds: tuple[float, float] | None = None,
) -> Estimate:
    """Mean of one value per problem with its percentile bootstrap interval (Efron and Tibshirani 1993).

    For a paired difference pass the differences, so that resampling keeps the pairs together.

    If all values are equal, every resample is the same, and the interval has no width. With ``bounds``, it is exact
    then: of ``n`` problems none has another value, so other problems have one with a probability of at most
    1 - 0.025^(1/n) (Clopper and Pearson 1934), and their values are within the bounds.

    Args:
        values: one per problem.
        seed: of the resampling.
        resamples: how many.
        bounds: the least and the greatest value that a problem can have.

    Raises:
        InputError: there is no value.
    """
    data = np.asarray(values, dtype=np.float64)
    if not len(data):
        raise InputError("values", [], "a mean needs at least one problem")
    if bounds is not None and np.all(data == data[0]):
        (least, greatest), value, other = bounds, float(data[0]), 1 - (TAIL ** (1 / len(data)))
        return Estimate(value, value - other * (value - least), value + other * (greatest - value))
    rng = np.random.default_rng(seed)
    means = np.empty(resamples)
    for start in range(0, resamples, 1000):  # at most 1000 resamples in memory
        picks = rng.integers(0, len(data), size=(min(1000, resamples - start), len(data)))
        means[start : start + 1000] = data[picks].mean(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    return Estimate(float(data.mean()), float(low), float(high))


def paired_difference(
    a: Sequence[float], b: Sequence[float], seed: int = 0, bounds: tuple[float, float] | None = None
) -> Estimate:
    """Mean of ``a - b`` over the same problems in the same order, with its interval.

    ``bounds`` are those of the differences, see `mean_interval`.

    Raises:
        InputError: the two are not of the same length.
    """
    if len(a) != len(b):
        raise InputError("problems", (len(a), len(b)), "a paired difference needs the same problems on both sides")
    return mean_interval([x - y for x, y in zip(a, b, strict=True)], seed, bounds=bounds)


def pass_at_k(n: int, correct: int, k: int) -> float:
    """Unbiased pass@k of one problem: 1 - C(n-correct, k) / C(n, k) (Chen et al. 2021, arXiv 2107.03374).

    Raises:
        InputError: ``k`` is not in 1..n.
    """
    if not 1 <= k <= n:
        raise InputError("k", k, f"pass@k needs 1 to {n} samples of a problem that has {n}")
    return 1.0 - comb(n - correct, k) / comb(n, k)


def expected_best(ranked: Sequence[tuple[float, float]], n: int, k: int) -> float:
    """Expected value of the best-ranked of ``k`` out of ``n`` samples, exactly over all subsets.

    With value 1 for right and 0 for wrong samples, it is the chance that the winner is right.

    Args:
        ranked: rank (lower is better) and value of the samples that can win; ties win equally often. A subset without
            any of them has value 0.
        n: number of samples of the problem.
        k: samples drawn, without replacement.

    Raises:
        InputError: ``k`` is not in 1..n, or more samples are ranked than there are.
    """
    if not 1 <= k <= n:
        raise InputError("k", k, f"draw 1 to {n} samples of a problem that has {n}")
    if len(ranked) > n:
        raise InputError("ranked", len(ranked), f"the problem has {n} samples")
    values: dict[float, list[float]] = {}
    for rank, value in ranked:
        values.setdefault(rank, []).append(value)
    mean, place, subsets = 0.0, 0, comb(n, k)
    for rank in sorted(values):
        share = sum(values[rank]) / len(values[rank])
        for _ in values[rank]:
            mean += share * (comb(n - 1 - place, k - 1) / subsets)
            place += 1
    return mean


def auc(scores: Sequence[float], positive: Sequence[bool]) -> float | None:
    """Area under the ROC curve by ranks, ties counted half; None where one class is missing."""
    s, y = np.asarray(scores, dtype=np.float64), np.asarray(positive, dtype=bool)
    n_positive, n_negative = int(y.sum()), int((~y).sum())
    if not n_positive or not n_negative:
        return None
    ranks: npt.NDArray[np.float64] = np.empty(len(s))
    order = np.argsort(s, kind="stable")
    sorted_scores = s[order]
    first = np.searchsorted(sorted_scores, sorted_scores, side="left")
    last = np.searchsorted(sorted_scores, sorted_scores, side="right")
    ranks[order] = (first + last + 1) / 2
    return float((ranks[y].sum() - n_positive * (n_positive + 1) / 2) / (n_positive * n_negative))
