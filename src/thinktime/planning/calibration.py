"""Calibrations: how often strategies were right on problems with known answers, what they cost, and which to choose.

A calibration is valid for one model, scorer, task and way of sampling. It is made from the results of benches, of which
a replay of a bank needs no model.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime
from functools import lru_cache
from math import inf, isfinite, log
from pathlib import Path
from statistics import fmean
from typing import Any

from thinktime.bench.statistics import DIFFERENCES, SHARES, Estimate, mean_interval, paired_difference
from thinktime.config import DTYPES
from thinktime.core.errors import InputError
from thinktime.core.search import Search
from thinktime.core.types import missing
from thinktime.core.usage import Budget
from thinktime.files import user_path
from thinktime.strategies import find, make, options, spec, split

SCHEMA = 1
LEAST_PROBLEMS = 20
"""Fewer problems cannot tell strategies apart."""
NEGLIGIBLE = 0.01
"""A gain of accuracy that is not worth a search."""
SHIPPED = Path(__file__).with_name("calibrations")


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
    """

    strategy: str
    right: tuple[float, ...]
    tokens: tuple[float, ...]
    usage: Mapping[str, float | None]
    seconds: float | None
    samples: Mapping[str, int]

    @property
    def accuracy(self) -> Estimate:
        """The share of solved problems."""
        return mean_interval(self.right, bounds=SHARES)

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

    def gain(self, other: Arm) -> Estimate:
        """The difference of the accuracies, paired by problem."""
        return paired_difference(self.right, other.right, bounds=DIFFERENCES)


@dataclass(frozen=True)
class Advice:
    """The arm that a calibration advises, and why, in one sentence."""

    arm: Arm
    reason: str


@dataclass(frozen=True)
class Calibration:
    """Arms that are measured on the same problems.

    Args:
        task: name, split and data of the task, as a result of a bench has them.
        model: the names of the generator and the scorer, and where they come from.
        sampling: temperature and limits.
        seed: of the samples.
        problems: their ids.
        arms: the cheapest first, by tokens.
        sources: for each bench, its command, the program's version and the date of the reading.
    """

    task: Mapping[str, Any]
    model: Mapping[str, Any]
    sampling: Mapping[str, Any]
    seed: int
    problems: tuple[str, ...]
    arms: tuple[Arm, ...]
    sources: tuple[Mapping[str, Any], ...]

    @classmethod
    def of_result(cls, result: Mapping[str, Any], timing: Mapping[str, float]) -> Calibration:
        """Read a bench's result and its machine seconds by run.

        Runs that lack some of the problems are left out, because all arms need the same problems.

        Raises:
            InputError: the scorer uses the reference answers, or there are too few problems or no whole run.
        """
        if result["stamp"]:
            raise InputError("scorer", result["model"]["scorer"], f"{result['stamp']} A calibration needs another one")
        whole = [run for run in result["runs"] if run["n_problems"] == result["task"]["n"]]
        if not whole:
            raise InputError("result", result["command"], "it has no run over all problems; finish the bench")
        ids = tuple(problem["id"] for problem in whole[0]["problems"])
        if len(ids) < LEAST_PROBLEMS:
            raise InputError("problems", len(ids), f"take {LEAST_PROBLEMS} or more; fewer cannot tell strategies apart")
        arms = [
            Arm(
                _text(run),
                tuple(float(problem["correct"]) for problem in run["problems"]),
                tuple(float(problem["generated_tokens"]) for problem in run["problems"]),
                run["usage"],
                timing.get(f"{run['strategy']}@{run['n']}"),
                run["samples"],
            )
            for run in whole
        ]
        version = result["environment"]["thinktime"]
        source = {
            "command": _without_folders(result["command"]),
            "thinktime": version,
            "date": datetime.now(UTC).date().isoformat(),
        }
        return cls(result["task"], result["model"], result["sampling"], result["seed"], ids, _sorted(arms), (source,))

    @classmethod
    def read(cls, path: Path) -> Calibration:
        """Read a file that `write` made.

        Raises:
            InputError: the file cannot be read, or is no calibration.
        """
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise InputError("calibration", str(path), f"cannot read it as JSON ({error})") from None
        try:
            return cls._of(found)
        except (InputError, LookupError, TypeError, ValueError, AttributeError) as error:
            reason = error if isinstance(error, InputError) else f"{type(error).__name__}: {error}"
            raise InputError("calibration", str(path), f"make it with `thinktime calibrate` ({reason})") from None

    @classmethod
    def _of(cls, found: Mapping[str, Any]) -> Calibration:
        if found.get("schema") != SCHEMA or found.get("kind") != "calibration":
            raise ValueError(f"it has no kind 'calibration' of schema {SCHEMA}")
        arms = []
        for row in found["arms"]:
            arm = Arm(
                row["strategy"], tuple(row["right"]), tuple(row["tokens"]), row["usage"], row["seconds"], row["samples"]
            )
            if not len(arm.right) == len(arm.tokens) == len(found["problems"]) >= LEAST_PROBLEMS:
                raise ValueError(f"{arm.strategy} has not one value for each of {LEAST_PROBLEMS} problems or more")
            if not all(0 <= value <= 1 for value in arm.right):
                raise ValueError(f"{arm.strategy}: right has a value outside of 0 to 1")
            costs = [*arm.tokens, *arm.usage.values(), arm.seconds]
            if not all(cost is None or (isfinite(cost) and cost >= 0) for cost in costs):
                raise ValueError(f"{arm.strategy}: a cost is below 0 or no number")
            make(*split(arm.strategy))  # an unknown strategy or option fails here
            arms.append(arm)
        if not arms:
            raise ValueError("it has no arm")
        rest = {name: found[name] for name in ("task", "model", "sampling", "seed")}
        return cls(**rest, problems=tuple(found["problems"]), arms=_sorted(arms), sources=tuple(found["sources"]))

    def text(self) -> str:
        """The file. The summary is for readers; `read` takes the other values."""
        summary = [
            {
                "strategy": arm.strategy,
                "accuracy": arm.accuracy.as_dict(),
                "tokens": round(arm.cost("tokens"), 1),
                "gain": None if arm is self.arms[0] else arm.gain(self.arms[0]).as_dict(),
            }
            for arm in self.arms
        ]
        head = {"schema": SCHEMA, "kind": "calibration", "n_problems": len(self.problems), "summary": summary}
        rest = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "arms"}
        arms = ",\n".join(f"  {json.dumps(_short(asdict(arm)))}" for arm in self.arms)
        return json.dumps(head | rest, indent=1)[:-2] + f',\n "arms": [\n{arms}\n ]\n}}\n'

    def merged(self, other: Calibration) -> Calibration:
        """Both calibrations' arms; of an arm that is in both, the other's counts.

        Raises:
            InputError: the other one has another task, model, sampling, seed or other problems.
        """
        for name in ("task", "model", "sampling", "seed", "problems"):
            if getattr(self, name) != getattr(other, name):
                fix = f"calibrations with another {name} cannot be merged"
                raise InputError("result", other.sources[0].get("command"), fix)
        arms = {arm.strategy: arm for arm in (*self.arms, *other.arms)}
        return replace(self, arms=_sorted(arms.values()), sources=(*self.sources, *other.sources))

    def refuse_other(self, search: Search) -> None:
        """Raise an `InputError` if the search has another model, scorer or temperature than the calibration."""
        scorer = search.scorer.name if search.scorer is not None else None
        for name, mine, its in (
            ("model", _weights(self.model["generator"]), _weights(search.generator.name)),
            ("scorer", self.model["scorer"] if scorer is not None else None, scorer),
            ("temperature", self.sampling["temperature"], search.sampling.temperature),
        ):
            if mine != its:
                raise InputError("auto.policy", mine, f"it is of another {name}; this search has {its}: calibrate that")

    def runnable(self, search: Search) -> Calibration:
        """The calibration with those arms that the search can run.

        Raises:
            InputError: it can run none.
        """
        able = tuple(arm for arm in self.arms if not missing(make(*split(arm.strategy)).needs, search.capabilities))
        if not able:
            raise InputError("auto.policy", self.task["name"], "this model and scorer can run none of its strategies")
        return replace(self, arms=able)

    def choose(self, budget: Budget) -> Advice:
        """The most accurate arm whose mean cost is within the budget; of several, the cheapest.

        It is the cheapest arm of all if the paired gain over that arm is below `NEGLIGIBLE` within its interval.
        """
        cheapest = self.arms[0]
        limits = {name: limit for name, limit in vars(budget).items() if limit is not None}
        within = [arm for arm in self.arms if all(arm.cost(name) <= limit for name, limit in limits.items())]
        if not within:
            return Advice(cheapest, f"the budget is below the cheapest measured strategy, {_cost(cheapest)}")
        best = max(within, key=lambda arm: fmean(arm.right))  # the first, which is the cheapest, of equal ones
        if best is cheapest:
            return Advice(best, f"no other strategy within the budget is more accurate than {_percent(best.accuracy)}")
        gain = best.gain(cheapest)
        if gain.high < NEGLIGIBLE:
            return Advice(cheapest, f"more compute does not help here: {best.strategy} gains {_points(gain)} points")
        reason = f"{_points(gain)} points over {cheapest.strategy}, for {_cost(best)}"
        if gain.low <= 0:
            reason += "; the gain may be none, which a calibration of more problems would tell"
        if best is self.arms[-1] and limits:
            reason += "; no strategy with a higher cost is measured, so more may help"
        return Advice(best, reason)

    def frontier(self) -> list[Arm]:
        """The arms that no cheaper arm equals in accuracy, by mean tokens."""
        found: list[Arm] = []
        for arm in self.arms:
            if not found or fmean(arm.right) > fmean(found[-1].right):
                found.append(arm)
        return found

    def knee(self) -> Arm:
        """The arm of the frontier farthest above the line between its ends, over the logarithm of tokens.

        Satopää et al. 2011, "Finding a 'Kneedle' in a Haystack".
        """
        frontier = self.frontier()
        x = [log(max(arm.cost("tokens"), 1)) for arm in frontier]
        y = [fmean(arm.right) for arm in frontier]
        if len(frontier) < 3:
            return frontier[-1]
        slope = (y[-1] - y[0]) / (x[-1] - x[0])
        heights = [here - y[0] - slope * (across - x[0]) for across, here in zip(x, y, strict=True)]
        return frontier[heights.index(max(heights))]


@lru_cache(maxsize=32)
def policy(name: str) -> Calibration:
    """The calibration in a file, or a shipped one by name, which is read once.

    Raises:
        InputError: there is none, or it is no calibration.
    """
    path = SHIPPED / f"{name}.json"
    return Calibration.read(path if is_shipped(name) else user_path("auto.policy", name))


def is_shipped(name: str) -> bool:
    """Whether a shipped calibration has this name."""
    return name in {path.stem for path in SHIPPED.glob("*.json")}


def shipped(task: str, generator: str | None = None) -> Iterator[Calibration]:
    """The calibrations that are shipped for a task, and for a model if it is named.

    Args:
        task: its name.
        generator: the model's name in the catalogue of models.
    """
    for path in sorted(SHIPPED.glob("*.json")):
        found = Calibration.read(path)
        if found.task["name"] == task and generator in (None, *model_names(found)):
            yield found


def model_names(calibration: Calibration) -> set[str]:
    """The generator's name, and its name in the catalogue of models."""
    provenance = calibration.model.get("provenance", {}).get("main", {})
    return {str(calibration.model["generator"]), str(provenance.get("name", ""))} - {""}


def _short(row: dict[str, Any]) -> dict[str, Any]:
    """An arm's row with whole numbers written as such, which halves the file."""
    for name in ("right", "tokens"):
        row[name] = [int(value) if value == int(value) else value for value in row[name]]
    return row


def _without_folders(command: str) -> str:
    """The command with the names of files alone, because a calibration goes to other machines."""
    return shlex.join(Path(word).name if Path(word).is_absolute() else word for word in shlex.split(command))


def _text(run: Mapping[str, Any]) -> str:
    """The strategy of a run with its size."""
    name, values = split(run["strategy"])
    sized = {"n": str(run["n"])} if "n" in options(find(name)) else {}
    return spec(make(name, sized | values))


def _sorted(arms: Iterable[Arm]) -> tuple[Arm, ...]:
    return tuple(sorted(arms, key=lambda arm: (arm.cost("tokens"), -fmean(arm.right))))


def _weights(name: str | None) -> str | None:
    """A local model's name without its number format."""
    if name is None:
        return None
    before, _, last = name.rpartition("/")
    return before if last in DTYPES[1:] else name


def _cost(arm: Arm) -> str:
    return f"{arm.cost('tokens'):.0f} tokens ({arm.strategy})"


def _percent(estimate: Estimate) -> str:
    return f"{100 * estimate.value:.1f} % [{100 * estimate.low:.1f}, {100 * estimate.high:.1f}]"


def _points(estimate: Estimate) -> str:
    return f"{100 * estimate.value:+.1f} [{100 * estimate.low:+.1f}, {100 * estimate.high:+.1f}]"
