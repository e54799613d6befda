"""Are the right solutions of a problem shorter than its wrong ones? First finish search must know before it is used.

Everything is within a problem: over problems, hard ones are long and wrong, which says nothing (arXiv 2505.18149).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, pstdev
from typing import Literal

from thinktime.bench.statistics import Estimate, expected_best, mean_interval
from thinktime.core.errors import InputError

LEAST_MIXED = 30


@dataclass(frozen=True)
class Trace:
    """A sample's length in tokens, its answer's key, whether it was right, and whether it ended by itself."""

    length: int
    key: object
    correct: bool
    ended: bool = True


@dataclass(frozen=True)
class Diagnosis:
    """What lengths say about correctness, and what first finish search would make of them.

    ``gap`` is the mean over mixed problems of (wrong - right) length over their common spread; ``shorter_is_right`` the
    share of (right, wrong) pairs in which the right one is shorter, ties half; ``spread`` the ratio of the spreads,
    wrong over right.
    """

    gap: Estimate
    shorter_is_right: Estimate
    spread: float
    mixed: int
    cut: float
    accuracy: dict[int, float]
    """Of the first of n to finish, replayed."""
    advice: Literal["use", "do not use"]
    n: int


def diagnose(problems: Sequence[Sequence[Trace]], sizes: Sequence[int] = (1, 2, 4, 8, 16), seed: int = 0) -> Diagnosis:
    """Look at the lengths of calibration samples; those cut at the limit are left out.

    Raises:
        InputError: fewer than 30 problems have right and wrong samples.
    """
    ended = [[trace for trace in traces if trace.ended] for traces in problems]
    mixed = [traces for traces in ended if len({trace.correct for trace in traces}) == 2]
    if len(mixed) < LEAST_MIXED:
        raise InputError("problems", len(mixed), f"not enough mixed problems to diagnose; it takes {LEAST_MIXED}")
    gaps, wins, ratios = [], [], []
    for traces in mixed:
        right = [trace.length for trace in traces if trace.correct]
        wrong = [trace.length for trace in traces if not trace.correct]
        spread = pstdev([trace.length for trace in traces])
        gaps.append((fmean(wrong) - fmean(right)) / spread if spread else 0.0)
        wins.append(fmean((a < b) + 0.5 * (a == b) for a in right for b in wrong))
        if len(right) > 1 and len(wrong) > 1 and pstdev(right):
            ratios.append(pstdev(wrong) / pstdev(right))
    gap = mean_interval(gaps, seed)
    most = max((len(traces) for traces in problems), default=0)
    accuracy = {n: first_of(problems, n) for n in sizes if n <= most}
    best = max(accuracy, key=lambda n: accuracy[n])
    cut = fmean(not trace.ended for traces in problems for trace in traces)
    favoured = gap.low > 0 and accuracy[best] > accuracy[min(accuracy)]
    return Diagnosis(
        gap,
        mean_interval(wins, seed),
        fmean(ratios) if ratios else 1.0,
        len(mixed),
        cut,
        accuracy,
        "use" if favoured else "do not use",
        best if favoured else 1,
    )


def first_of(problems: Sequence[Sequence[Trace]], n: int) -> float:
    """Expected accuracy of the shortest of ``n`` samples that ends by itself."""
    return fmean(
        expected_best([(trace.length, trace.correct) for trace in traces if trace.ended], len(traces), n)
        for traces in problems
        if len(traces) >= n
    )
