"""Policies by difficulty: the first samples of a problem decide which strategy goes on (row 08).

The difficulty is a signal that needs no reference. Bins have equal shares of the problems (Snell et al. 2024, arXiv
2408.03314), or fixed limits of the pass@1 that the signal predicts (Liu et al. 2025, arXiv 2502.06703). The cost of the
first samples is charged, and a strategy that draws independent samples of the same model has them already.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from random import Random

import numpy as np
import numpy.typing as npt

from thinktime.bench.statistics import DIFFERENCES, Estimate, paired_difference
from thinktime.core.types import MAIN
from thinktime.planning.arms import Arm, Floats, begins_with, families, on_curves
from thinktime.planning.difficulty import LIMITS, crossing
from thinktime.strategies import split

FOLDS = 5
COUNTS = (2, 3)
"""Numbers of bins of equal shares that are tried."""
ABSOLUTE = (LIMITS, LIMITS[:1], LIMITS[1:])
"""Limits of pass@1 that are tried."""
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
        model: the role of the model that draws them.
        limits: the predicted pass@1 at each edge, of absolute bins; none for bins of equal shares.
    """

    signal: str
    samples: int
    edges: tuple[float, ...]
    model: str = MAIN
    limits: tuple[float, ...] = ()

    def place(self, value: float) -> int:
        """The bin of a value, from 0, the hardest."""
        return bisect_right(self.edges, value)

    def name(self, number: int) -> str:
        """The values of a bin in words."""
        name = _between(self.signal, self.edges, number)
        return f"pass@1 {_between('predicted', self.limits, number)}: {name}" if self.limits else name


def _between(name: str, edges: Sequence[float], number: int) -> str:
    low, high = (None, *edges)[number], (*edges, None)[number]
    ends = [] if low is None else [f"from {low:.3g}"]
    ends += [] if high is None else [f"below {high:.3g}"]
    return f"{name} {' and '.join(ends)}"


@dataclass(frozen=True)
class Policy:
    """Bins, the arm of each, and how the policy did on folds of problems that it was not chosen on.

    Args:
        budget: the cost that it is for, in its unit; in each bin the mean cost of its arm is within it.
        bins: the cut.
        strategies: of each bin, the hardest first.
        gain: its accuracy minus that of one arm for all, paired by problem.
        cost: its mean cost for a problem, that of the first samples included.
        cost_of_one: that of one arm for all.
        saved: the mean cost that it is below `CHEAPER` times that of one arm, paired by problem.
        unit: of the costs, the name of a limit of a `Budget`.
    """

    budget: float
    bins: Bins
    strategies: tuple[str, ...]
    gain: Estimate
    cost: float
    cost_of_one: float
    saved: Estimate
    unit: str = "tokens"

    @property
    def is_better(self) -> bool:
        """Whether it is surely more accurate, or surely cheaper and no less accurate."""
        return self.gain.low > 0 or (self.gain.value >= 0 and self.saved.low > 0)


def policy(
    arms: Sequence[Arm], budget: float, unit: str = "tokens", slack: float = 0.0, rates: Sequence[float] = ()
) -> Policy | None:
    """The best policy by bins within a budget, and how it does across folds.

    Args:
        arms: the cheapest first.
        budget: in the unit; in each bin the mean cost of an arm is within it.
        unit: of the costs, the name of a limit of a `Budget`.
        slack: an accuracy that is not worth a more expensive arm for all.
        rates: pass@1 of each problem, for absolute bins; empty if it is unknown.

    Returns:
        None if no arm has signals, if the first samples cost too much of the budget, or if there are too few problems.
    """
    choosing = _Choosing(arms, budget, unit, slack, rates)
    count = len(arms[0].right)
    order = Random(0).sample(range(count), count)
    right, cost, right_of_one, cost_of_one = np.zeros((4, count))
    for fold in range(FOLDS):
        held = np.array(sorted(order[fold::FOLDS]))
        seen = np.array(sorted(set(range(count)) - set(held.tolist())))
        found, one = choosing.by_bins(seen), choosing.one(seen)
        if found is None:
            return None
        right_of_one[held], cost_of_one[held] = choosing.right[one, held], choosing.costs[one, held]
        picks = np.array(found.arms)[found.bins_of(held)]
        right[held], cost[held] = choosing.right[picks, held], found.costs[picks, held]
    whole = choosing.by_bins(np.arange(count))
    if whole is None:
        return None
    return Policy(
        budget,
        whole.bins,
        tuple(arms[place].strategy for place in whole.arms),
        paired_difference(right.tolist(), right_of_one.tolist(), bounds=DIFFERENCES),
        float(cost.mean()),
        float(cost_of_one.mean()),
        paired_difference((CHEAPER * cost_of_one).tolist(), cost.tolist()),
        unit,
    )


def charged(arm: Arm, first: Arm) -> Arm:
    """The arm after the first samples, which are those of ``first``.

    An arm of independent samples of the same model has them among its own, so it pays for the larger of both costs;
    another arm pays for both. Of costs that are known only as means, the mean is taken as the cost of each problem.
    """
    join = max if begins_with(arm.strategy, first.model) else _sum

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
    return begins_with(arm.strategy, arm.model) and split(arm.own)[0] in PLAIN and arm.size <= MOST


def _sum(a: float, b: float) -> float:
    return a + b


@dataclass(frozen=True)
class _Chosen:
    """Bins by a signal, and the arm of each bin, by its place."""

    bins: Bins
    arms: list[int]
    values: tuple[float, ...]
    """The signal of each problem."""
    costs: Floats
    """By arm and problem, the first samples charged."""

    def bins_of(self, places: Places) -> list[int]:
        """The bins of the problems at these places."""
        return [self.bins.place(self.values[place]) for place in places]


class _Choosing:
    """Chooses arms within a budget from what is known of some of the problems. The arguments are those of `policy`."""

    def __init__(self, arms: Sequence[Arm], budget: float, unit: str, slack: float, rates: Sequence[float]) -> None:
        self.right = np.array([arm.right for arm in arms])
        self.costs = _costs(arms, unit)
        self._families = families(arms)
        self._budget, self._slack, self._rates = budget, slack, np.array(rates)
        firsts = {
            (arm.model, arm.size): place for place, arm in reversed([*enumerate(arms)]) if arm.signals and is_plain(arm)
        }
        self._firsts = [(arms[place], self.costs[place], self._after(arms, place)) for place in firsts.values()]

    def _after(self, arms: Sequence[Arm], place: int) -> Floats:
        """The costs by arm and problem after first samples that are those of one of the arms, as `charged`."""
        first = self.costs[place]
        has_them = np.array([[begins_with(arm.strategy, arms[place].model)] for arm in arms])
        after: Floats = np.where(has_them, np.maximum(self.costs, first), self.costs + first)
        return after

    def one(self, seen: Places) -> int:
        """The place of the best arm for all problems; the cheapest one if none is within the budget."""
        means = on_curves(self.right[:, seen], self._families).mean(1)
        within = np.flatnonzero(self.costs[:, seen].mean(1) <= self._budget)
        return int(within[means[within] >= means[within].max() - self._slack][0]) if len(within) else 0

    def by_bins(self, seen: Places) -> _Chosen | None:
        """The bins and arms that solve most of these problems; of those that are as good, the cheapest."""
        found: list[tuple[float, float, _Chosen]] = []
        for first, cost, after in self._firsts:
            if cost[seen].mean() > SHARE * self._budget:
                continue
            for signal, values in first.signals.items():
                for edges, limits in self._cuts(np.array(values)[seen], seen):
                    bins = Bins(signal, first.size, edges, first.model, limits)
                    chosen = self._arms_of(bins, after, values, seen)
                    found += [] if chosen is None else [chosen]
        if not found:
            return None
        most = max(right for right, _, _ in found)
        return min((each for each in found if each[0] >= most - EQUAL), key=lambda each: (each[1], -each[0]))[2]

    def _cuts(self, values: Floats, seen: Places) -> Iterator[tuple[tuple[float, ...], tuple[float, ...]]]:
        """Edges of bins of equal shares; and those at which the predicted pass@1 reaches fixed limits, with these."""
        for count in COUNTS:
            shares = np.arange(1, count) / count
            yield tuple(np.unique(np.quantile(values, shares).round(6)).tolist()), ()
        for limits in ABSOLUTE if len(self._rates) else ():
            edges = tuple(crossing(values, self._rates[seen], limit) for limit in limits)
            if None not in edges and len(set(edges)) == len(limits):
                yield tuple(edge for edge in edges if edge is not None), limits

    def _arms_of(
        self, bins: Bins, charged: Floats, values: tuple[float, ...], seen: Places
    ) -> tuple[float, float, _Chosen] | None:
        """The mean accuracy and cost of the best arm of each bin; None if a bin has too few problems."""
        numbers = np.array([bins.place(values[place]) for place in seen])
        right = cost = 0.0
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
            cost += costs[pick] * len(members) / len(seen)
        return right, cost, _Chosen(bins, arms, values, charged)


def _costs(arms: Sequence[Arm], unit: str) -> Floats:
    """Costs by arm and problem; infinite if they are unknown.

    Tokens are known for each problem, and those of judges as means. Of other units the means are known: the cost of a
    problem is its share of the mean by its tokens.
    """
    tokens = np.array([arm.tokens for arm in arms], dtype=np.float64)
    if unit == "tokens":
        judged = [arm.usage.get("judge_tokens", 0.0) for arm in arms]
        with_judges: Floats = tokens + np.array([[np.inf if extra is None else extra] for extra in judged])
        return with_judges
    means = np.array([[arm.cost(unit)] for arm in arms])
    shares = tokens / np.maximum(tokens.mean(1, keepdims=True), 1e-9)
    return np.where(np.isfinite(means), np.where(np.isfinite(means), means, 0.0) * shares, np.inf)
