"""Policies by difficulty: the first samples of a problem decide which strategy goes on (row 08).

The difficulty is a signal that needs no reference. Bins have equal shares of the problems (Snell et al. 2024, arXiv
2408.03314). The cost of the first samples is charged, and a strategy that draws independent samples has them already.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random

import numpy as np
import numpy.typing as npt

from thinktime.bench.statistics import DIFFERENCES, Estimate, paired_difference
from thinktime.planning.arms import Arm, Floats, families, on_curves
from thinktime.strategies import split

FOLDS = 5
COUNTS = (2, 3)
"""Numbers of bins that are tried."""
PLAIN = ("single", "majority", "most_likely")
"""Strategies that draw a fixed number of samples and no scores, so their cost is that of first samples."""
MOST = 4
"""Most first samples."""
SHARE = 0.25
"""The part of the budget that first samples may cost."""
LEAST = 20
"""Fewest problems of a bin."""
EQUAL = 0.005
"""A difference of accuracy that is worth no tokens."""
CHEAPER = 0.8
"""A policy that is no more accurate has to cost less than this share."""

Places = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Bins:
    """A cut of problems by a signal of their first samples.

    Args:
        signal: its name, of `thinktime.bench.signals`.
        samples: how many samples are drawn first.
        edges: rising; a problem on an edge is in the easier bin.
    """

    signal: str
    samples: int
    edges: tuple[float, ...]

    def place(self, value: float) -> int:
        """The bin of a value, from 0, the hardest."""
        return bisect_right(self.edges, value)

    def name(self, number: int) -> str:
        """The values of a bin in words."""
        low, high = (None, *self.edges)[number], (*self.edges, None)[number]
        ends = [] if low is None else [f"from {low:.3g}"]
        ends += [] if high is None else [f"below {high:.3g}"]
        return f"{self.signal} {' and '.join(ends)}"


@dataclass(frozen=True)
class Policy:
    """Bins, the arm of each, and how the policy did on folds of problems that it was not chosen on.

    Args:
        budget: the tokens that it is for; in each bin the mean cost of its arm is within them.
        bins: the cut.
        strategies: of each bin, the hardest first.
        gain: its accuracy minus that of one arm for all, paired by problem.
        tokens: its mean tokens for a problem, those of the first samples among them.
        tokens_of_one: those of one arm for all.
        saved: the mean tokens that it is below `CHEAPER` times those of one arm, paired by problem.
    """

    budget: float
    bins: Bins
    strategies: tuple[str, ...]
    gain: Estimate
    tokens: float
    tokens_of_one: float
    saved: Estimate

    @property
    def is_better(self) -> bool:
        """Whether it is surely more accurate, or surely cheaper and no less accurate."""
        return self.gain.low > 0 or (self.gain.value >= 0 and self.saved.low > 0)


def policy(arms: Sequence[Arm], budget: float) -> Policy | None:
    """The best policy by bins within a budget, and how it does across folds.

    Args:
        arms: the cheapest first.
        budget: tokens; in each bin the mean cost of an arm is within them.

    Returns:
        None if no arm has signals, if the first samples cost too much of the budget, or if there are too few problems.
    """
    choosing = _Choosing(arms, budget)
    count = len(arms[0].right)
    order = Random(0).sample(range(count), count)
    right, tokens, right_of_one, tokens_of_one = np.zeros((4, count))
    for fold in range(FOLDS):
        held = np.array(sorted(order[fold::FOLDS]))
        seen = np.array(sorted(set(range(count)) - set(held.tolist())))
        found, one = choosing.by_bins(seen), choosing.one(seen)
        if found is None:
            return None
        right_of_one[held], tokens_of_one[held] = choosing.right[one, held], choosing.tokens[one, held]
        picks = np.array(found.arms)[found.bins_of(held)]
        right[held], tokens[held] = choosing.right[picks, held], found.tokens[picks, held]
    whole = choosing.by_bins(np.arange(count))
    if whole is None:
        return None
    return Policy(
        budget,
        whole.bins,
        tuple(arms[place].strategy for place in whole.arms),
        paired_difference(right.tolist(), right_of_one.tolist(), bounds=DIFFERENCES),
        float(tokens.mean()),
        float(tokens_of_one.mean()),
        paired_difference((CHEAPER * tokens_of_one).tolist(), tokens.tolist()),
    )


def charged(arm: Arm, first: Arm) -> Arm:
    """The arm after the first samples, which are those of ``first``.

    An arm of independent samples has them among its own, so it pays for the larger of both costs; another arm pays for
    both. Of costs that are known only as means, the mean is taken as the cost of each problem.
    """
    join = max if arm.is_independent else _sum

    def joined(a: float | None, b: float | None) -> float | None:
        return None if a is None or b is None else join(a, b)

    return replace(
        arm,
        tokens=tuple(join(a, b) for a, b in zip(arm.tokens, first.tokens, strict=True)),
        usage={name: joined(value, first.usage.get(name, 0.0)) for name, value in arm.usage.items()},
        seconds=joined(arm.seconds, first.seconds),
    )


def is_plain(arm: Arm) -> bool:
    """Whether its cost is that of a fixed number of samples alone, and not of too many to begin with."""
    return split(arm.strategy)[0] in PLAIN and arm.size <= MOST


def _sum(a: float, b: float) -> float:
    return a + b


@dataclass(frozen=True)
class _Chosen:
    """Bins by a signal, and the arm of each bin, by its place."""

    bins: Bins
    arms: list[int]
    values: tuple[float, ...]
    """The signal of each problem."""
    tokens: Floats
    """By arm and problem, the first samples charged."""

    def bins_of(self, places: Places) -> list[int]:
        """The bins of the problems at these places."""
        return [self.bins.place(self.values[place]) for place in places]


class _Choosing:
    """Chooses arms within a budget from what is known of some of the problems."""

    def __init__(self, arms: Sequence[Arm], budget: float) -> None:
        self.right = np.array([arm.right for arm in arms])
        self.tokens = _tokens(arms)
        self._families = families(arms)
        self._budget = budget
        firsts = {arm.size: arm for arm in reversed(arms) if arm.signals and is_plain(arm)}
        self._firsts = [(arm, _tokens([charged(other, arm) for other in arms])) for arm in firsts.values()]

    def one(self, seen: Places) -> int:
        """The place of the best arm for all problems; the cheapest one if none is within the budget."""
        means = on_curves(self.right[:, seen], self._families).mean(1)
        within = np.flatnonzero(self.tokens[:, seen].mean(1) <= self._budget)
        return int(within[means[within].argmax()]) if len(within) else 0

    def by_bins(self, seen: Places) -> _Chosen | None:
        """The bins and arms that solve most of these problems; of those that are as good, the cheapest."""
        found: list[tuple[float, float, _Chosen]] = []
        for first, tokens in self._firsts:
            if first.on(seen.tolist()).cost("tokens") > SHARE * self._budget:
                continue
            for signal, values in first.signals.items():
                for count in COUNTS:
                    shares = np.arange(1, count) / count
                    edges = tuple(np.unique(np.quantile(np.array(values)[seen], shares).round(6)).tolist())
                    chosen = self._arms_of(Bins(signal, first.size, edges), tokens, values, seen)
                    found += [] if chosen is None else [chosen]
        if not found:
            return None
        most = max(right for right, _, _ in found)
        return min((each for each in found if each[0] >= most - EQUAL), key=lambda each: (each[1], -each[0]))[2]

    def _arms_of(
        self, bins: Bins, charged: Floats, values: tuple[float, ...], seen: Places
    ) -> tuple[float, float, _Chosen] | None:
        """The mean accuracy and tokens of the best arm of each bin; None if a bin has too few problems."""
        numbers = np.array([bins.place(values[place]) for place in seen])
        right = tokens = 0.0
        arms = []
        for number in range(len(bins.edges) + 1):
            members = seen[numbers == number]
            if len(members) < LEAST:
                return None
            means = on_curves(self.right[:, members], self._families).mean(1)
            costs = charged[:, members].mean(1)
            within = costs <= self._budget if (costs <= self._budget).any() else costs == costs.min()
            equal = np.flatnonzero(within & (means >= means[within].max() - EQUAL))
            pick = int(equal[np.lexsort((-means[equal], costs[equal]))[0]])
            arms.append(pick)
            right += means[pick] * len(members) / len(seen)
            tokens += costs[pick] * len(members) / len(seen)
        return right, tokens, _Chosen(bins, arms, values, charged)


def _tokens(arms: Sequence[Arm]) -> Floats:
    """Tokens by arm and problem, those of judges among them; infinite if they are unknown."""
    judged = [arm.usage.get("judge_tokens", 0.0) for arm in arms]
    return np.array(
        [np.array(arm.tokens) + (np.inf if extra is None else extra) for arm, extra in zip(arms, judged, strict=True)]
    )
