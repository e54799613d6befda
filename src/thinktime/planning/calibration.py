"""Calibrations: how often strategies were right on problems with known answers, what they cost, and which to choose.

A calibration is valid for one model, scorer, task and way of sampling. It is made from the results of benches, of which
a replay of a bank needs no model.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from math import inf, isfinite, log
from statistics import fmean
from typing import Any

from thinktime.bench.statistics import Estimate
from thinktime.config import DTYPES
from thinktime.core.errors import InputError
from thinktime.core.search import Search
from thinktime.core.types import MAIN, missing
from thinktime.core.usage import Budget
from thinktime.planning.arms import Arm, begins_with, fitted
from thinktime.planning.bins import Policy, charged, is_plain
from thinktime.planning.bins import policy as by_first_samples
from thinktime.strategies import make, split

ROOM = 1.1
"""Budgets of policies over the mean costs of arms; they are larger because the samples of a bin may be longer."""
NEGLIGIBLE = 0.01
"""A gain of accuracy that is not worth a search."""
ACCURACY, AGREEMENT = "accuracy", "agreement"
"""What a calibration measures: whether answers are right; or whether they are those of a vote of other samples."""


@dataclass(frozen=True)
class Advice:
    """What a calibration advises, and why, in one sentence.

    Args:
        arm: one arm for all problems.
        reason: why this arm, or why the policy.
        policy: what to take instead: an arm by the first samples of each problem; None if one arm for all is as good.
    """

    arm: Arm
    reason: str
    policy: Policy | None = None

    @property
    def strategies(self) -> tuple[str, ...]:
        """The strategies that may run."""
        return (self.arm.strategy,) if self.policy is None else self.policy.strategies


@dataclass(frozen=True)
class Calibration:
    """Arms that are measured on the same problems.

    Args:
        task: name, split and data of the task, as a result of a bench has them.
        model: the names of the generator and the scorer, and where they come from.
        sampling: temperature and limits.
        seed: of the samples.
        problems: their ids.
        arms: the cheapest first, in the unit.
        policies: by difficulty, the smallest budget first.
        sources: for each bench, its command, the program's version and the date of the reading.
        unit: of the costs that are compared, the name of a limit of a `Budget`.
        rates: pass@1 of each problem over all of its samples; empty if it is unknown.
        measure: `ACCURACY`; or `AGREEMENT`, which says nothing about right and wrong: of arms that agree as often,
            the cheapest one is taken.
    """

    task: Mapping[str, Any]
    model: Mapping[str, Any]
    sampling: Mapping[str, Any]
    seed: int
    problems: tuple[str, ...]
    arms: tuple[Arm, ...]
    sources: tuple[Mapping[str, Any], ...]
    policies: tuple[Policy, ...] = ()
    unit: str = "tokens"
    rates: tuple[float, ...] = ()
    measure: str = ACCURACY

    @property
    def models(self) -> Mapping[str, str]:
        """The names of the models by their roles."""
        return {MAIN: self.model["generator"], **self.model.get("models", {})}

    def merged(self, other: Calibration) -> Calibration:
        """Both calibrations' arms; of an arm that is in both, the other's counts. It has no policies.

        Raises:
            InputError: the other one has another task, model, sampling, seed or measure, or other problems.
        """
        for name in ("task", "model", "sampling", "seed", "problems", "measure"):
            if getattr(self, name) != getattr(other, name):
                fix = f"calibrations with another {name} cannot be merged"
                raise InputError("result", other.sources[0].get("command"), fix)
        arms = {arm.strategy: arm for arm in (*self.arms, *other.arms)}
        rates = self.rates or other.rates
        return replace(
            self, arms=by_cost(arms.values()), sources=(*self.sources, *other.sources), policies=(), rates=rates
        )

    def refuse_other(self, search: Search) -> None:
        """Raise an `InputError` if the search has another model, scorer or temperature than the calibration."""
        scorer = search.scorer.name if search.scorer is not None else None
        its = {role: model.name for role, model in search.models.items()} | {MAIN: search.generator.name}
        compared: list[tuple[str, Any, Any]] = [
            ("model" if role == MAIN else f"model of the role {role!r}", _weights(name), _weights(its[role]))
            for role, name in self.models.items()
            if role in its
        ]
        compared.append(("scorer", self.model["scorer"] if scorer is not None else None, scorer))
        compared.append(("temperature", self.sampling["temperature"], search.sampling.temperature))
        for name, mine, other in compared:
            if mine != other:
                fix = f"it is of another {name}; this search has {other}: calibrate that"
                raise InputError("auto.policy", mine, fix)

    def runnable(self, offered: frozenset[str]) -> Calibration:
        """The calibration with those arms that run with these capabilities, and the policies over them.

        Raises:
            InputError: none runs.
        """
        able = tuple(arm for arm in self.arms if not missing(make(*split(arm.strategy)).needs, offered))
        if not able:
            raise InputError("auto.policy", self.task["name"], "this model and scorer can run none of its strategies")
        names = {arm.strategy for arm in able}
        policies = (each for each in self.policies if names.issuperset(each.strategies))
        roles = {MAIN, *(arm.model for arm in able)}  # the first samples may be of a model that no bin takes
        return replace(self, arms=able, policies=tuple(each for each in policies if each.bins.model in roles))

    def with_policies(self) -> Calibration:
        """The calibration with the best policy by difficulty at each budget at which another arm comes within reach.

        The budgets are tokens. Over several models they are in the unit of a search without a budget, and if that is
        tokens, there are no policies.
        """
        unit = self.unit_of(Budget())
        if self.has_several_models and unit == "tokens":
            return self
        costs = {arm.cost(unit) for arm in self.arms}
        if self.has_several_models:  # an arm may come within reach after a first sample of another model
            ones = [arm for arm in self.arms if arm.signals and is_plain(arm) and arm.size == 1]
            pairs = ((arm, one) for arm in self.arms for one in ones if not begins_with(arm.strategy, one.model))
            costs |= {arm.cost(unit) + one.cost(unit) for arm, one in pairs}
        arms, rates = by_cost(self.arms, unit), self.rates if self.measure == ACCURACY else ()
        budgets = sorted(ROOM * cost for cost in costs if isfinite(cost))
        found = (by_first_samples(arms, budget, unit, self._slack, rates) for budget in budgets)
        return replace(self, policies=tuple(each for each in found if each is not None))

    @property
    def _slack(self) -> float:
        """A gain for all problems that is not worth a more expensive arm: the same answer is worth no tokens."""
        return NEGLIGIBLE if self.measure == AGREEMENT else 0.0

    @cached_property
    def curves(self) -> Mapping[str, Arm]:
        """The arms with their values on the curves through the sizes, by strategy, see `thinktime.planning.arms`."""
        return {arm.strategy: arm for arm in fitted(self.arms)}

    def choose(self, budget: Budget) -> Advice:
        """The policy by first samples at this budget if it is better across folds, and one arm for all otherwise.

        Raises:
            InputError: it limits a cost that is known of no arm.
        """
        for limit in self.unknown(budget):
            value = getattr(budget, limit)
            raise InputError(f"budget.{limit}", value, f"no measured strategy has known {limit}; limit tokens or calls")
        if (unit := self.unit_of(budget)) != self.unit:
            return self.in_unit(unit).choose(budget)
        advice = self.one(budget)
        comparable = (each for each in self.policies if each.unit == unit or not self.has_several_models)
        within = (each for each in comparable if each.budget <= _limit(budget, each.unit))
        found = max(within, key=lambda each: each.budget, default=None)
        if found is not None and found.is_better and self._fits(found, budget):
            costs = f"{_number(found.cost, found.unit)} in place of {amount(found.cost_of_one, found.unit)}"
            reason = f"across folds {_points(found.gain)} points over one strategy for all, for {costs}"
            advice = Advice(advice.arm, reason, found)
        if self.measure == AGREEMENT:
            note = "this is agreement with a vote of other samples, measured without right answers"
            advice = replace(advice, reason=f"{advice.reason}; {note}")
        return advice

    def unit_of(self, budget: Budget) -> str:
        """The unit in which costs are compared: that of the only limit of the budget, and else tokens.

        Tokens of different models have different costs. So for several models it is else the first of dollars, FLOPs
        and seconds that is known of all arms.
        """
        limits = [name for name, limit in vars(budget).items() if limit is not None]
        if len(limits) == 1:
            return limits[0]
        for unit in ("dollars", "flops", "seconds") if self.has_several_models else ():
            if all(0 < arm.cost(unit) < inf for arm in self.arms):
                return unit
        return "tokens"

    def in_unit(self, unit: str) -> Calibration:
        """The calibration with the arms in the order of their costs in this unit."""
        return replace(self, unit=unit, arms=by_cost(self.arms, unit))

    @property
    def has_several_models(self) -> bool:
        """Whether its roles have different models."""
        return len(set(self.models.values())) > 1

    def unknown(self, budget: Budget) -> list[str]:
        """The limits of a budget whose cost is known of no arm. An arm without a price costs no dollars."""
        limits = [name for name, limit in vars(budget).items() if limit is not None]
        return [name for name in limits if not any(0 < arm.cost(name) < inf for arm in self.arms)]

    def _fits(self, policy: Policy, budget: Budget) -> bool:
        """Whether the mean costs of a policy are within the limits of other units than its own."""
        arms = {arm.strategy: arm for arm in self.arms}
        bins, firsts = policy.bins, (arm for arm in self.arms if is_plain(arm))
        first = next((arm for arm in firsts if (arm.model, arm.size) == (bins.model, bins.samples)), None)
        rest = replace(budget, **{policy.unit: None})
        return first is not None and all(charged(arms[each], first).fits(rest) for each in policy.strategies)

    def one(self, budget: Budget) -> Advice:
        """One arm for all problems: the most accurate one whose mean cost is within the budget; of equals the cheapest.

        The accuracies are those of the curves. It is the cheapest arm of all if the paired gain over that arm is below
        `NEGLIGIBLE` within its interval. If agreement is measured, arms within `NEGLIGIBLE` of the best one are equal.
        """
        cheapest = self.arms[0]
        within = [arm for arm in self.arms if arm.fits(budget)]
        if not within:
            return Advice(cheapest, f"the budget is below the cheapest measured strategy, {self._cost(cheapest)}")
        most = max(map(self.value, within))
        best = next(arm for arm in within if self.value(arm) >= most - self._slack)  # of equal ones the cheapest
        if best is cheapest:
            reason = f"no other strategy within the budget has a higher {self.measure} than {_percent(best.accuracy)}"
            return Advice(best, reason)
        gain = self.curves[best.strategy].gain(self.curves[cheapest.strategy])
        if gain.high < NEGLIGIBLE:
            return Advice(cheapest, f"more compute does not help here: {best.strategy} gains {_points(gain)} points")
        reason = f"{_points(gain)} points over {cheapest.strategy}, for {self._cost(best)}"
        if gain.low <= 0:
            reason += "; the gain may be none, which a calibration of more problems would tell"
        if best is self.arms[-1] and budget != Budget():
            reason += "; no strategy with a higher cost is measured, so more may help"
        return Advice(best, reason)

    def value(self, arm: Arm) -> float:
        """The accuracy of an arm on its curve."""
        return fmean(self.curves[arm.strategy].right)

    def _cost(self, arm: Arm) -> str:
        return f"{amount(arm.cost(self.unit), self.unit)} ({arm.strategy})"

    def frontier(self) -> list[Arm]:
        """The arms that no cheaper arm equals in accuracy, on the curves, by mean cost."""
        found: list[Arm] = []
        for arm in self.arms:
            if not found or self.value(arm) > self.value(found[-1]):
                found.append(arm)
        return found

    def knee(self) -> Arm:
        """The arm of the frontier farthest above the line between its ends, over the logarithm of the cost.

        Satopää et al. 2011, "Finding a 'Kneedle' in a Haystack".
        """
        frontier = self.frontier()
        x = [log(max(arm.cost(self.unit), 1e-9)) for arm in frontier]
        y = [self.value(arm) for arm in frontier]
        if len(frontier) < 3:
            return frontier[-1]
        slope = (y[-1] - y[0]) / (x[-1] - x[0])
        heights = [here - y[0] - slope * (across - x[0]) for across, here in zip(x, y, strict=True)]
        return frontier[heights.index(max(heights))]


def by_cost(arms: Iterable[Arm], unit: str = "tokens") -> tuple[Arm, ...]:
    """The arms in the order that a calibration has."""
    return tuple(sorted(arms, key=lambda arm: (arm.cost(unit), -fmean(arm.right))))


def amount(cost: float, unit: str) -> str:
    """A cost with its unit, as ``244 tokens`` and ``3.4e+11 flops``."""
    return f"{_number(cost, unit)} {unit}"


def _number(cost: float, unit: str) -> str:
    return f"{cost:.0f}" if unit == "tokens" else f"{cost:.3g}"


def _limit(budget: Budget, unit: str) -> float:
    limit = getattr(budget, unit)
    return inf if limit is None else float(limit)


def _weights(name: str | None) -> str | None:
    """A local model's name without its number format."""
    if name is None:
        return None
    before, _, last = name.rpartition("/")
    return before if last in DTYPES[1:] else name


def _percent(estimate: Estimate) -> str:
    return f"{100 * estimate.value:.1f} % [{100 * estimate.low:.1f}, {100 * estimate.high:.1f}]"


def _points(estimate: Estimate) -> str:
    return f"{100 * estimate.value:+.1f} [{100 * estimate.low:+.1f}, {100 * estimate.high:+.1f}]"
