"""Diagnoses whether right solutions are shorter than wrong ones, the assumption of first finish search.

All comparisons are within a problem, because across problems the hard ones are long and wrong (arXiv 2505.18149).
Only samples that ended by themselves with an answer count.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, pstdev
from typing import Literal

import numpy as np
from scipy.integrate import trapezoid
from scipy.stats import norm

from thinktime.bench.samples import Sample
from thinktime.bench.statistics import Estimate, expected_best, mean_interval
from thinktime.core.errors import InputError
from thinktime.strategies.sampling.first_finish import FirstFinish

LEAST_MIXED = 30
NARROWEST = 0.5
"""Least fitted spread in tokens, because lengths are whole numbers."""

Traces = Sequence[Sequence[Sample]]
"""The samples of every problem."""


@dataclass(frozen=True)
class Lengths:
    """How lengths relate to correctness.

    ``gap`` is the mean over mixed problems of (wrong - right) length, divided by the standard deviation of all lengths.
    ``shorter_is_right`` is the share of (right, wrong) pairs in which the right one is shorter; ties count half.
    ``spread`` is the ratio of the standard deviations, wrong over right. ``cut`` is the share of samples that did not
    end by themselves.
    """

    gap: Estimate
    shorter_is_right: Estimate
    spread: float | None
    mixed: int
    cut: float


@dataclass(frozen=True)
class Diagnosis:
    """Accuracy of first finish search by n, replayed on the samples and predicted by `predict`, with advice."""

    lengths: Lengths
    replayed: dict[int, float]
    predicted: dict[int, float]
    advice: Literal["use", "do not use"]
    n: int

    def strategy(self, guard: str = "warn") -> FirstFinish:
        """First finish search with the advised n. It warns, or refuses, if the advice is against it."""
        return FirstFinish(self.n, advice=self.advice, guard=guard)


def measure(problems: Traces, seed: int = 0) -> Lengths:
    """Compare the lengths of right and wrong samples, within problems.

    Raises:
        InputError: no problem has both right and wrong samples.
    """
    mixed = _mixed(problems)
    if not mixed:
        raise InputError("problems", 0, "no problem has right and wrong samples; lengths can't be compared")
    gaps, wins, ratios = [], [], []
    for samples in mixed:
        right = [sample.length for sample in samples if sample.correct]
        wrong = [sample.length for sample in samples if not sample.correct]
        spread = pstdev([sample.length for sample in samples])
        gaps.append((fmean(wrong) - fmean(right)) / spread if spread else 0.0)
        wins.append(fmean((a < b) + 0.5 * (a == b) for a in right for b in wrong))
        if len(right) > 1 and len(wrong) > 1 and pstdev(right):
            ratios.append(pstdev(wrong) / pstdev(right))
    cut = fmean(not sample.ended for samples in problems for sample in samples)
    spreads = fmean(ratios) if ratios else None
    return Lengths(mean_interval(gaps, seed), mean_interval(wins, seed), spreads, len(mixed), cut)


def diagnose(problems: Traces, sizes: Sequence[int] = (1, 2, 4, 8, 16), seed: int = 0) -> Diagnosis:
    """Advise whether to use first finish search, and with which n.

    Use separate problems for the diagnosis, because the best n on the test problems is partly luck.

    Raises:
        InputError: fewer than 30 problems have right and wrong samples.
    """
    if len(mixed := _mixed(problems)) < LEAST_MIXED:
        raise InputError("problems", len(mixed), f"not enough mixed problems to diagnose; it takes {LEAST_MIXED}")
    lengths = measure(problems, seed)
    fewest = min(len(samples) for samples in problems)
    sizes = [n for n in sizes if n <= fewest]
    replayed = {n: fmean(first_of(problems, n)) for n in sizes}
    best = max(replayed, key=lambda n: replayed[n])
    favoured = lengths.gap.low > 0 and replayed[best] > replayed[min(replayed)]
    return Diagnosis(
        lengths,
        replayed,
        {n: fmean(predict(problems, n)) for n in sizes},
        "use" if favoured else "do not use",
        best if favoured else 1,
    )


def first_of(problems: Traces, n: int, *, last: bool = False) -> list[float]:
    """The chance per problem that the shortest of ``n`` samples is right; with ``last`` the longest, as a control.

    Raises:
        InputError: a problem has fewer than ``n`` samples.
    """
    sign = -1 if last else 1
    return [
        expected_best([(sign * s.length, s.correct) for s in samples if s.answered], len(samples), n)
        for samples in problems
    ]


def first_length(problems: Traces, n: int) -> list[float]:
    """The expected length per problem at which the first of ``n`` samples ends and the others are cancelled.

    If none ends, it is the length of the longest one.
    """
    waited: list[float] = []
    for samples in problems:
        ranked = [(float(s.length), float(s.length)) for s in samples if s.answered]
        late = sorted((s.length for s in samples if not s.answered), reverse=True)
        beyond = max([length for length, _ in ranked], default=0.0)
        ranked += [(beyond + 1 + place, float(length)) for place, length in enumerate(late)]
        waited.append(expected_best(ranked, len(samples), n))
    return waited


def predict(problems: Traces, n: int) -> list[float]:
    """`first_of` under the assumption that lengths of right and of wrong samples are normally distributed.

    A class with one sample uses the standard deviation of all samples of the problem.
    """
    found = []
    for samples in problems:
        arrived = [sample for sample in samples if sample.answered]
        right = [sample.length for sample in arrived if sample.correct]
        wrong = [sample.length for sample in arrived if not sample.correct]
        if not right or not wrong:
            found.append(float(bool(right)))
            continue
        common = pstdev([sample.length for sample in arrived])
        spreads = [max(NARROWEST, pstdev(lengths) if len(lengths) > 1 else common) for lengths in (right, wrong)]
        p = len(right) / len(arrived)
        found.append(normal_first(p, (fmean(right), spreads[0]), (fmean(wrong), spreads[1]), n))
    return found


def normal_first(p: float, right: tuple[float, float], wrong: tuple[float, float], n: int) -> float:
    """The chance that the shortest of ``n`` is right, for two normal distributions of lengths (mean, deviation).

    It is the integral of n p f_right(x) P(longer than x)^(n-1), where ``p`` is the share of right samples.
    """
    (m1, s1), (m2, s2) = right, wrong
    x = np.union1d(np.linspace(m1 - 9 * s1, m1 + 9 * s1, 4001), np.linspace(m2 - 9 * s2, m2 + 9 * s2, 4001))
    longer = p * norm.sf(x, m1, s1) + (1 - p) * norm.sf(x, m2, s2)
    return float(trapezoid(n * p * norm.pdf(x, m1, s1) * longer ** (n - 1), x))


def _mixed(problems: Traces) -> list[list[Sample]]:
    answered = [[sample for sample in samples if sample.answered] for samples in problems]
    return [samples for samples in answered if len({sample.correct for sample in samples}) == 2]
