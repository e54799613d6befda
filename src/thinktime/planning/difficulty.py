"""The best method for each difficulty, and the exchange rate to a larger model (Snell et al. 2024, arXiv 2408.03314).

Difficulty is measured for one model, so bins of equal size are valid only for that model. Bins with absolute limits
mean the same for all models (Liu et al. 2025, arXiv 2502.06703).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from thinktime.core.errors import InputError

BINS = 5
LIMITS = (0.1, 0.5)
"""Success rates at which a problem is no longer hard, and at which it is easy."""
LEVELS = ("hard", "medium", "easy")


def binned(difficulty: Sequence[float], bins: int = BINS) -> list[int]:
    """Bin problems into equal sizes by success rate; bin 0 is the easiest. Ties go by order."""
    order = np.argsort([-value for value in difficulty], kind="stable")
    found = np.empty(len(order), dtype=int)
    found[order] = np.arange(len(order)) * bins // len(order)
    return [int(number) for number in found]


def absolute_bins(rates: Sequence[float] | None, limits: tuple[float, float] = LIMITS, least: int = 0) -> list[str]:
    """The level of each problem by its success rate: hard below the first limit, easy from the second one on.

    Args:
        rates: right samples of each problem, as a share; None if there are no labels.
        limits: the two limits.
        least: problems that every level has to have.

    Raises:
        InputError: there are no labels, a rate is not between 0 and 1, the limits are not in order, or a level has too
            few problems, which a model that is much better or worse than the problems leads to.
    """
    if rates is None:
        raise InputError("difficulty", "oracle", "it needs right answers; predict it from samples instead")
    low, high = limits
    if not 0 < low < high <= 1:
        raise InputError("limits", limits, "give two rising shares between 0 and 1")
    if bad := [rate for rate in rates if not 0 <= rate <= 1]:
        raise InputError("rates", bad[0], "a success rate is between 0 and 1")
    found = [LEVELS[(rate >= low) + (rate >= high)] for rate in rates]
    for level in LEVELS:
        if (count := found.count(level)) < least:
            raise InputError("bins", level, f"{count} problems are {level}, and it takes {least}; take other problems")
    return found


def crossing(signal: npt.NDArray[np.float64], rates: npt.NDArray[np.float64], limit: float) -> float | None:
    """The least value of a signal at which the success rate that it predicts reaches a limit.

    The prediction is the isotonic regression of the rates on the signal (pooling of adjacent violators), so a larger
    value never predicts a smaller rate.

    Args:
        signal, rates: of each problem.
        limit: between 0 and 1.

    Returns:
        None if all values predict a smaller rate, or all at least the limit.
    """
    values, where = np.unique(signal, return_inverse=True)
    weights = np.bincount(where).astype(float)
    blocks: list[tuple[float, float, int]] = []  # rate, weight, and number of values
    for rate, weight in zip(np.bincount(where, rates) / weights, weights, strict=True):
        block = float(rate), float(weight), 1
        while blocks and blocks[-1][0] >= block[0]:
            before = blocks.pop()
            both = before[1] + block[1]
            block = (before[0] * before[1] + block[0] * block[1]) / both, both, before[2] + block[2]
        blocks.append(block)
    below = sum(count for rate, _, count in blocks if rate < limit)
    return float(values[below]) if 0 < below < len(values) else None


def cross_validated(right: Mapping[str, Sequence[float]], bins: Sequence[int]) -> tuple[list[float], list[str]]:
    """Two-fold cross-validation of a policy that picks the best arm of each bin on the other half.

    Args:
        right: by arm, whether (or how often) it solves each problem.
        bins: the bin of each problem, from 0.

    Returns:
        The success of the policy on each problem, and its picks by bin and fold.

    Raises:
        InputError: half of a bin has fewer than two problems.
    """
    gained = [0.0] * len(bins)
    picks = []
    for number in range(max(bins) + 1):
        members = [place for place, mine in enumerate(bins) if mine == number]
        if len(members) < 4:
            count = f"bin {number} has {len(members)} problem{'s' * (len(members) != 1)}"
            raise InputError("bins", max(bins) + 1, f"{count}; each half needs 2 or more, so take fewer bins")
        for fold in (0, 1):
            seen, unseen = members[fold::2], members[1 - fold :: 2]
            pick = max(right, key=lambda arm: sum(right[arm][place] for place in seen))
            picks.append(pick)
            for place in unseen:
                gained[place] = right[pick][place]
    return gained, picks


def exchange_rate(times: float, pretraining_tokens: float | None, inference_tokens: float | None) -> float:
    """Factor of inference compute at which a small model costs as much as one that is ``times`` as large.

    Training takes 6 FLOPs per parameter and token, inference 2.

    Args:
        times: parameters of the larger model over those of the smaller one.
        pretraining_tokens: training tokens of either model.
        inference_tokens: tokens that the smaller model generates over its lifetime.

    Raises:
        InputError: a number is missing or not positive.
    """
    for name, value in (
        ("times", times),
        ("pretraining_tokens", pretraining_tokens),
        ("inference_tokens", inference_tokens),
    ):
        if value is None or not value > 0:
            raise InputError(name, value, "give a number above 0; the rate depends on training and on inference")
    assert pretraining_tokens is not None and inference_tokens is not None
    return times + 3 * pretraining_tokens / inference_tokens * (times - 1)
