"""Plans by model, samples and cap of the length: how often they are right, what they cost, and which one is best.

Quality is coverage, as in the paper: a problem counts as solved if one of the samples is right. A vote is less.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from experiments.intervals import Estimate, bootstrap
from thinktime.planning.kinetics import KineticsCost

Floats = npt.NDArray[np.float64]
RESAMPLES = 500
FLOPS = 0.0
"""The FLOPs per byte at which the eFLOPs are the FLOPs."""


@dataclass(frozen=True)
class Measured:
    """A plan with its success and its cost on every problem, in the same order for all plans.

    ``flops`` include the prompt, which is read once; ``traffic`` are bytes of keys and values.
    """

    model: str
    size: float
    samples: int
    cap: int
    right: Floats
    flops: Floats
    traffic: Floats

    def cost(self, intensity: float) -> Floats:
        """eFLOPs of each problem at these FLOPs per byte; at `FLOPS` the FLOPs."""
        return self.flops + intensity * self.traffic

    @property
    def label(self) -> str:
        """The plan in words."""
        return f"{self.model}, {self.samples} of at most {self.cap}"


def flops_of(cost: KineticsCost) -> float:
    """FLOPs with the prompt."""
    return cost.flops + cost.prefill


def cheapest(plans: Sequence[Measured], target: float, intensity: float, of: npt.NDArray[np.int64]) -> Measured | None:
    """The plan that reaches a quality on these problems at the least cost; None if no plan reaches it."""
    able = [plan for plan in plans if plan.right[of].mean() >= target]
    return min(able, key=lambda plan: float(plan.cost(intensity)[of].mean()), default=None)


def compared(plans: Sequence[Measured], targets: Sequence[float], intensity: float) -> dict[str, Any]:
    """Plans that are the cheapest by FLOPs, and by eFLOPs, for the same qualities.

    For costs and success they are chosen on one half of the problems and measured on the other, both ways. A target
    counts if some plan reaches it on both halves.

    Returns:
        The plans for each target; how many times larger the models by eFLOPs are than those by FLOPs (the mean over
        targets of logarithms of base 2, chosen again on every resample of the problems); and on held-out problems, the
        eFLOPs of the plans by FLOPs over those of the plans by eFLOPs, and the difference of their success.
    """
    n = len(plans[0].right)
    halves = (np.arange(0, n, 2), np.arange(1, n, 2))
    ours, theirs, right = (np.zeros(n) for _ in range(3))
    picks: dict[str, Any] = {}
    reached = [t for t in targets if all(cheapest(plans, t, FLOPS, half) for half in halves)]
    for target in reached:
        row: dict[str, list[str]] = {"by_flops": [], "by_eflops": []}
        for seen, unseen in (halves, halves[::-1]):
            plain, charged = (cheapest(plans, target, each, seen) for each in (FLOPS, intensity))
            assert plain is not None and charged is not None
            row["by_flops"].append(plain.label)
            row["by_eflops"].append(charged.label)
            scale = charged.cost(intensity)[unseen].mean()  # so that dear targets do not count for more
            ours[unseen] += charged.cost(intensity)[unseen] / scale
            theirs[unseen] += plain.cost(intensity)[unseen] / scale
            right[unseen] += (charged.right[unseen] - plain.right[unseen]) / len(reached)
        picks[f"{target:g}"] = row
    return {
        "targets": picks,
        "doublings_of_size": doublings(plans, reached, intensity),
        "cost_of_plans_by_flops": bootstrap(lambda p: theirs[p].sum(-1) / ours[p].sum(-1), n),
        "right_minus_plans_by_flops": _mean(right),
    }


def doublings(plans: Sequence[Measured], targets: Sequence[float], intensity: float) -> Estimate:
    """The mean over targets of the logarithm of base 2 of the size by eFLOPs over that by FLOPs, see `compared`."""
    size = np.log2([plan.size for plan in plans])

    def difference(picks: npt.NDArray[np.int64]) -> Floats:
        ours, theirs = (_choices(plans, targets, each, picks)[0] for each in (intensity, FLOPS))
        return _over_targets(np.where(ours < 0, np.nan, size[ours] - size[theirs]), picks)

    return bootstrap(difference, len(plans[0].right), resamples=RESAMPLES)


def savings(
    mine: Sequence[Measured], others: Sequence[Measured], targets: Sequence[float], intensity: float
) -> Estimate:
    """The least cost of ``others`` over that of ``mine`` for the same quality, as the geometric mean over targets."""

    def factor(picks: npt.NDArray[np.int64]) -> Floats:
        ours, theirs = (_choices(plans, targets, intensity, picks)[1] for plans in (mine, others))
        return np.exp(_over_targets(np.log(theirs / ours), picks))

    return bootstrap(factor, len(mine[0].right), resamples=RESAMPLES)


def _choices(
    plans: Sequence[Measured], targets: Sequence[float], intensity: float, picks: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], Floats]:
    """The cheapest plan of each target and resample, and its cost; -1 and NaN if no plan reaches the target."""
    right, cost = np.array([plan.right for plan in plans]), np.array([plan.cost(intensity) for plan in plans])
    shares = np.apply_along_axis(np.bincount, -1, np.atleast_2d(picks), minlength=right.shape[1]) / right.shape[1]
    able = (shares @ right.T)[None] >= np.array(targets)[:, None, None]
    costs = np.where(able, (shares @ cost.T)[None], np.inf)
    best, least = costs.argmin(-1), costs.min(-1)
    none = np.isinf(least)
    return np.where(none, -1, best), np.where(none, np.nan, least)


def _over_targets(values: Floats, picks: npt.NDArray[np.int64]) -> Floats:
    """The mean over the targets that are reached."""
    found: Floats = np.nanmean(values, axis=0).reshape(picks.shape[:-1])
    return found


def _mean(values: Floats) -> Estimate:
    return bootstrap(lambda picks: values[picks].mean(-1), len(values))


def best_by_budget(plans: Sequence[Measured], intensity: float, budgets: Sequence[float]) -> list[dict[str, Any]]:
    """The most successful plan within each budget of mean cost; the cheaper one of ties."""
    rows: list[dict[str, Any]] = []
    for budget in budgets:
        able = [plan for plan in plans if plan.cost(intensity).mean() <= budget]
        if able:
            best = max(able, key=lambda plan: (plan.right.mean(), -plan.cost(intensity).mean()))
            rows.append({"budget": budget, "plan": best.label, "size": best.size, "right": float(best.right.mean())})
    return rows


def frontier(plans: Sequence[Measured], intensity: float) -> list[Measured]:
    """The plans that are more successful than every plan of at most their mean cost, the cheapest first."""
    kept: list[Measured] = []
    for plan in sorted(plans, key=lambda plan: (plan.cost(intensity).mean(), -plan.right.mean())):
        if not kept or plan.right.mean() > kept[-1].right.mean():
            kept.append(plan)
    return kept
