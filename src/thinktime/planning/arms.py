"""Arms: strategies of one size, measured on the problems of a calibration, and the curves through their sizes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import inf
from statistics import fmean

import numpy as np
import numpy.typing as npt

from thinktime.bench.statistics import DIFFERENCES, SHARES, Estimate, mean_interval, paired_difference
from thinktime.core.types import MAIN
from thinktime.core.usage import Budget
from thinktime.strategies import INNER, make, settings, split
from thinktime.strategies.options import DRAFT

INDEPENDENT = frozenset(
    {
        "single",
        "majority",
        "weighted_majority",
        "best_of_n",
        "most_likely",
        "summed_probability",
        "adaptive_consistency",
        "length_vote",
    }
)
"""Strategies that draw whole samples one after another. So they share their first samples, and one of size 1 is
``single``."""
DELEGATE = "delegate"
VOTES = frozenset({"majority", "adaptive_consistency"})
"""Plain votes. One more sample after an odd number changes no vote between two answers."""
BEND = 2.0
"""Standard errors beyond which a curve is bent."""

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Arm:
    """A strategy of one size on the problems of a calibration.

    Args:
        strategy: with its options, as ``majority:n=8``.
        right: whether it solves each problem, from 0 to 1.
        tokens: that it generates for each problem.
        usage: its mean cost for a problem, by the names of `thinktime.core.usage.Usage`; None is unknown.
        seconds: mean machine time for a problem; None is unknown.
        samples: how many it drew in all, and how many of them are unreadable, missing, cut or timed out.
        signals: of difficulty, by name, for each problem; see `thinktime.bench.signals`.
    """

    strategy: str
    right: tuple[float, ...]
    tokens: tuple[float, ...]
    usage: Mapping[str, float | None]
    seconds: float | None
    samples: Mapping[str, int]
    signals: Mapping[str, tuple[float, ...]] = field(default_factory=dict)

    @property
    def accuracy(self) -> Estimate:
        """The share of solved problems."""
        return mean_interval(self.right, bounds=SHARES)

    @property
    def model(self) -> str:
        """The role of the model that it runs with."""
        return role_of(self.strategy)

    @property
    def own(self) -> str:
        """The strategy without its model."""
        return own_of(self.strategy)

    @property
    def size(self) -> int:
        """The option ``n``, 1 if there is none."""
        return int(getattr(make(*split(self.own)), "n", 1))

    def cost(self, limit: str) -> float:
        """The mean cost for a problem, in the unit of a limit of a `Budget`; infinite if it is unknown."""
        parts = {
            "tokens": [fmean(self.tokens), self.usage.get("judge_tokens")],
            "calls": [self.usage.get("model_calls"), self.usage.get("scorer_calls")],
            "flops": [self.usage.get("flops"), self.usage.get("scorer_flops")],
            "seconds": [self.seconds],
            "dollars": [self.usage.get("dollars")],
            "nfe": [self.usage.get("denoiser_calls")],
            "actions": [self.usage.get("actions")],
        }[limit]
        return inf if None in parts else float(sum(part for part in parts if part is not None))

    def fits(self, budget: Budget) -> bool:
        """Whether its mean cost is within all limits."""
        limits = {name: limit for name, limit in vars(budget).items() if limit is not None}
        return all(self.cost(name) <= limit for name, limit in limits.items())

    def gain(self, other: Arm) -> Estimate:
        """The difference of the accuracies, paired by problem."""
        return paired_difference(self.right, other.right, bounds=DIFFERENCES)

    def on(self, places: Sequence[int]) -> Arm:
        """The arm on some of the problems. Costs that are known only as means stay those of all problems."""

        def some(values: Sequence[float]) -> tuple[float, ...]:
            return tuple(values[place] for place in places)

        signals = {name: some(values) for name, values in self.signals.items()}
        return replace(self, right=some(self.right), tokens=some(self.tokens), signals=signals)


def role_of(strategy: str) -> str:
    """The role of the model that a strategy runs with."""
    name, values = split(strategy)
    return values.get("model", DRAFT) if name == DELEGATE else MAIN


def own_of(strategy: str) -> str:
    """A strategy without its model."""
    name, values = split(strategy)
    return values.get(INNER, "single") if name == DELEGATE else strategy


def begins_with(strategy: str, role: str) -> bool:
    """Whether its first samples are whole samples of the model of this role, so they can be drawn before it runs."""
    delegated = split(strategy)[0] == DELEGATE
    return delegated == (role != MAIN) and role_of(strategy) == role and is_independent(own_of(strategy))


def is_independent(strategy: str) -> bool:
    """Whether its samples are whole and the main model's, one after another."""
    return split(strategy)[0] in INDEPENDENT


@dataclass(frozen=True)
class Family:
    """Arms that differ in their size alone, with at least three sizes for a curve.

    Args:
        places: of its arms.
        points: the places of the points of its curve. ``single`` is the first one of `INDEPENDENT` strategies.
        line, parabola: take the measurements at the points to the values of a least-squares curve at the arms.
        square: takes them to the square term of the parabola.
    """

    places: list[int]
    points: list[int]
    line: Floats
    parabola: Floats
    square: Floats


def families(arms: Sequence[Arm]) -> list[Family]:
    """The families of these arms; an arm may be in none."""
    groups: dict[tuple[str, str], list[int]] = {}
    for place, arm in enumerate(arms):
        groups.setdefault((arm.model, _without_size(arm)), []).append(place)
    singles = {model: groups.pop((model, "single"), []) for model in {model for model, _ in groups}}
    found = []
    for (model, _), places in groups.items():
        points = [*singles[model], *places] if is_independent(arms[places[0]].own) else places
        x = np.log2([_odd(arms[place]) for place in points])
        if len(set(x.tolist())) > 2:
            bases = np.vander(x, 2), np.vander(x, 3)
            line, parabola = ((basis @ np.linalg.pinv(basis))[-len(places) :] for basis in bases)
            found.append(Family(places, points, line, parabola, np.linalg.pinv(bases[1])[0]))
    return found


def on_curves(right: Floats, of: Sequence[Family]) -> Floats:
    """Accuracies with the values of a curve through the sizes of a strategy in place of what was measured at each size.

    So the noise of single sizes does not choose. The curve is a straight line over the logarithm of the size, or a
    parabola if the bend is larger than `BEND` standard errors. A plain vote of an even size is taken for one of the odd
    size before. It is linear in the measurements, so each problem has a
    value on it, and gains over the same problems stay paired. A value of one problem may be below 0 or above 1.

    Args:
        right: by arm and problem.
        of: the families of these arms.
    """
    found = right.astype(np.float64)  # a file has whole numbers
    for family in of:
        measured = right[family.points]
        bend = family.square @ measured
        is_bent = abs(bend.mean()) > BEND * bend.std(ddof=1) / len(bend) ** 0.5
        found[family.places] = ((family.parabola if is_bent else family.line) @ measured).round(9)
    return found


def fitted(arms: Sequence[Arm]) -> tuple[Arm, ...]:
    """The arms with their values on the curves, see `on_curves`."""
    right = on_curves(np.array([arm.right for arm in arms]), families(arms))
    return tuple(replace(arm, right=tuple(row)) for arm, row in zip(arms, right.tolist(), strict=True))


def _odd(arm: Arm) -> int:
    """The size; of a plain vote, the odd size of the same accuracy."""
    return arm.size - (arm.size % 2 == 0) if split(arm.own)[0] in VOTES else arm.size


def _without_size(arm: Arm) -> str:
    strategy = make(*split(arm.own))
    options = {option: value for option, value in settings(strategy).items() if option != "n"}
    return f"{split(arm.own)[0]}{options or ''}"
