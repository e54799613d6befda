"""The files of calibrations: made of the results of benches, written, read and found by name."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import asdict, fields, replace
from datetime import UTC, datetime
from functools import lru_cache
from itertools import pairwise
from math import inf, isfinite
from pathlib import Path
from statistics import fmean
from types import UnionType
from typing import Any

from thinktime.bench.signals import SIGNALS
from thinktime.bench.statistics import Estimate
from thinktime.core.errors import InputError
from thinktime.core.types import MAIN, model_of
from thinktime.core.usage import Budget
from thinktime.files import user_path
from thinktime.planning.arms import Arm, begins_with
from thinktime.planning.bins import MOST, Bins, Policy, is_plain
from thinktime.planning.calibration import ACCURACY, AGREEMENT, Advice, Calibration, by_cost
from thinktime.strategies import find, make, options, spec, split
from thinktime.strategies.options import DRAFT

SCHEMA = 1
LEAST_PROBLEMS = 20
"""Fewer problems cannot tell strategies apart."""
SHIPPED = Path(__file__).with_name("calibrations")


def of_result(result: Mapping[str, Any], timing: Mapping[str, float]) -> Calibration:
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
            _signals([problem.get("signals", {}) for problem in run["problems"]]),
        )
        for run in whole
    ]
    arms = [arm if is_plain(arm) else replace(arm, signals={}) for arm in arms]
    rated = [(arm.size, run) for arm, run in zip(arms, whole, strict=True) if begins_with(arm.strategy, MAIN)]
    rows = max(rated, key=lambda each: each[0])[1]["problems"] if rated else ()
    rates = tuple(round(row["pass_at_1"], 4) for row in rows if row.get("pass_at_1") is not None)
    version = result["environment"]["thinktime"]
    source = {
        "command": _without_folders(result["command"]),
        "thinktime": version,
        "date": datetime.now(UTC).date().isoformat(),
        "machine": {name: result["environment"].get(name) for name in ("cpu", "platform", "torch")},
        "seconds_a_token": _seconds_a_token(arms),
    }
    measured = result["task"], result["model"], result["sampling"], result["seed"], ids, by_cost(arms), (source,)
    return Calibration(*measured, rates=rates if len(rates) == len(ids) else ())


def read(path: Path) -> Calibration:
    """Read a file that holds a `text`.

    Raises:
        InputError: the file cannot be read, or is no calibration.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError("calibration", str(path), f"cannot read it as JSON ({error})") from None
    try:
        return _of(found)
    except (InputError, LookupError, TypeError, ValueError, AttributeError) as error:
        reason = error if isinstance(error, InputError | ValueError) else f"{type(error).__name__}: {error}"
        raise InputError("calibration", str(path), f"make it with `thinktime calibrate` ({reason})") from None


def _of(found: Mapping[str, Any]) -> Calibration:
    if found.get("schema") != SCHEMA or found.get("kind") != "calibration":
        raise ValueError(f"it has no kind 'calibration' of schema {SCHEMA}")
    roles = _roles(found)
    problems = tuple(_typed(found, "problems", list))
    arms = tuple(_arm(row, roles, len(problems)) for row in _typed(found, "arms", list))
    if not arms:
        raise ValueError("it has no arm")
    rest = {name: found[name] for name in ("task", "model", "sampling", "seed")}
    sources = tuple(found["sources"])
    known = {arm.strategy for arm in arms}
    policies = tuple(_policy(row, known, roles) for row in found.get("policies", ()))
    rates = _shares(found, "rates", len(problems)) if found.get("rates") else ()
    if (measure := found.get("measure", ACCURACY)) not in (ACCURACY, AGREEMENT):
        raise ValueError(f"measure is {measure!r}")
    more = {"policies": policies, "rates": rates, "measure": measure}
    return Calibration(**rest, problems=problems, arms=by_cost(arms), sources=sources, **more)


def _arm(row: object, roles: Set[str], count: int) -> Arm:
    """An arm of a file with so many problems."""
    if not isinstance(row, dict) or not isinstance(name := row.get("strategy"), str):
        raise ValueError("an arm has no strategy")
    parsed = make(*split(name))  # an unknown strategy or option fails here
    if not isinstance(row.get("right"), list) or len(row["right"]) != count or count < LEAST_PROBLEMS:
        raise ValueError(f"{name} has not one value for each of {LEAST_PROBLEMS} problems or more")
    right, tokens = _shares(row, "right", count, name), _numbers(row, "tokens", count, name)
    signals = _typed({"signals": {}} | row, "signals", dict)
    signals = {each: _numbers(signals, each, count, f"{name}: signals") for each in signals}
    usage, samples = _typed(row, "usage", dict), _typed(row, "samples", dict)
    costs = {"seconds": row["seconds"], **usage}
    for what, cost in [*costs.items(), *(("tokens", each) for each in tokens)]:
        if cost is not None and not (_is_number(cost) and cost >= 0):
            raise ValueError(f"{name}: {what} is {cost!r}; a cost is a number, 0 or more")
    for what, number in (("total", samples.get("total")), *samples.items()):
        if not isinstance(number, int) or isinstance(number, bool):
            raise ValueError(f"{name}: samples.{what} is {number!r}, and no whole number")
    arm = Arm(name, right, tokens, usage, row["seconds"], samples, signals)
    needed = {DRAFT} if model_of(DRAFT) in parsed.needs else set()
    if lacking := {arm.model, *needed} - roles:
        raise ValueError(f"{name}: model.models has no role {min(lacking)!r}")
    return arm


def _shares(table: Mapping[str, Any], place: str, count: int, of: str = "") -> tuple[float, ...]:
    """Numbers from 0 to 1, one for each problem."""
    found = _numbers(table, place, count, of)
    if not all(0 <= value <= 1 for value in found):
        raise ValueError(f"{of}{': ' * bool(of)}{place} has a value outside of 0 to 1")
    return found


def _numbers(table: Mapping[str, Any], place: str, count: int, of: str) -> tuple[float, ...]:
    """Numbers, one for each problem."""
    found = table.get(place)
    if not isinstance(found, list) or len(found) != count or not all(map(_is_number, found)):
        raise ValueError(f"{of}{': ' * bool(of)}{place} is no list of {count} numbers")
    return tuple(found)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)


def _roles(found: Mapping[str, Any]) -> Set[str]:
    """The roles of the models, after a look at the types of what the file says of task, models and sampling."""
    task, model, sampling = (_typed(found, name, dict) for name in ("task", "model", "sampling"))
    _typed(task, "task.name", str)
    _typed(sampling, "sampling.temperature", int | float)
    main = _typed(model, "model.generator", str)
    _typed(model, "model.scorer", str | None)
    models = _typed({"models": {}} | model, "model.models", dict)
    for role in models:
        _typed(models, f"model.models.{role}", str)
    if models.get(MAIN, main) != main:
        raise ValueError(f"model.models.{MAIN} is {models[MAIN]!r} and model.generator is {main!r}")
    noted = _typed({"provenance": {}} | model, "model.provenance", dict)
    for role in noted:
        _typed(noted, f"model.provenance.{role}", dict)
    return {MAIN, *models}


def _typed(table: Mapping[str, Any], place: str, kind: type | UnionType) -> Any:
    """The value at the last name of a place, which messages name."""
    value = table[place.rpartition(".")[2]]
    if not isinstance(value, kind):
        raise ValueError(f"{place} is {value!r}")
    return value


def _policy(row: Mapping[str, Any], known: Set[str], roles: Set[str]) -> Policy:
    cut = row["bins"]
    bins = Bins(
        cut["signal"], cut["samples"], tuple(cut["edges"]), cut.get("model", MAIN), tuple(cut.get("limits", ()))
    )
    strategies = tuple(row["strategies"])
    rising = all(low < high for low, high in pairwise((-inf, *bins.edges, inf)))
    if bins.signal not in SIGNALS or not rising or len(strategies) != len(bins.edges) + 1:
        raise ValueError("a policy needs a known signal, rising edges, and one strategy more than edges")
    if not isinstance(bins.samples, int) or not 1 <= bins.samples <= MOST or not set(strategies) <= known:
        raise ValueError(f"a policy needs 1 to {MOST} first samples, and strategies that are measured")
    if bins.model not in roles or len(bins.limits) not in (0, len(bins.edges)):
        raise ValueError("a policy needs a role of model.models, and one limit for each edge or none")
    gain, saved = Estimate(**row["gain"]), Estimate(**row["saved"])
    names = ("cost", "cost_of_one") if "cost" in row else ("tokens", "tokens_of_one")  # older files have tokens alone
    cost, cost_of_one, unit = *(row[name] for name in names), row.get("unit", "tokens")
    if unit not in vars(Budget()):
        raise ValueError(f"a policy has the unit {unit!r}, which no budget limits")
    return Policy(float(row["budget"]), bins, strategies, gain, float(cost), float(cost_of_one), saved, unit)


def text(calibration: Calibration) -> str:
    """The file. The summary is for readers; `read` takes the other values."""
    summary = [
        {
            "strategy": arm.strategy,
            calibration.measure: arm.accuracy.as_dict(),
            "tokens": round(arm.cost("tokens"), 1),
            "gain": None if arm is calibration.arms[0] else arm.gain(calibration.arms[0]).as_dict(),
        }
        for arm in calibration.arms
    ]
    head = {"schema": SCHEMA, "kind": "calibration", "n_problems": len(calibration.problems), "summary": summary}
    rest = {
        field.name: getattr(calibration, field.name)
        for field in fields(calibration)
        if field.name not in ("arms", "policies", "unit")
    }
    rest["policies"] = [
        {"take": "the policy" if each.is_better else "one arm for all", **asdict(each)} for each in calibration.policies
    ]
    arms = ",\n".join(f"  {json.dumps(_short(asdict(arm)))}" for arm in calibration.arms)
    return json.dumps(head | rest, indent=1)[:-2] + f',\n "arms": [\n{arms}\n ]\n}}\n'


@lru_cache(maxsize=32)
def policy(name: str) -> Calibration:
    """The calibration in a file, or a shipped one by name, which is read once.

    Raises:
        InputError: there is none, or it is no calibration.
    """
    path = SHIPPED / f"{name}.json"
    return read(path if is_shipped(name) else user_path("auto.policy", name))


@lru_cache(maxsize=256)
def advise(name: str, budget: Budget, offered: frozenset[str]) -> Advice:
    """What the calibration of this name advises, among the strategies that run with these capabilities.

    A limit whose cost is unknown does not choose. The search keeps it nevertheless.

    Raises:
        InputError: there is no such calibration, or none of its strategies runs.
    """
    found = policy(name).runnable(offered)
    unknown = found.unknown(budget)
    advice = found.choose(replace(budget, **dict.fromkeys(unknown)))
    note = f"; no measured strategy has known {' and '.join(unknown)}" if unknown else ""
    return replace(advice, reason=advice.reason + note)


def forget() -> None:
    """Read files again that have changed."""
    policy.cache_clear()
    advise.cache_clear()


def is_shipped(name: str) -> bool:
    """Whether a shipped calibration has this name."""
    return name in {path.stem for path in SHIPPED.glob("*.json")}


def shipped(task: str, generator: str | None = None) -> Iterator[tuple[str, Calibration]]:
    """The calibrations that are shipped for a task, and for a model if it is named, with their names.

    Args:
        task: its name.
        generator: the model's name in the catalogue of models.
    """
    for path in sorted(SHIPPED.glob("*.json")):
        found = read(path)
        if found.task["name"] == task and generator in (None, *model_names(found)):
            yield path.stem, found


def model_names(calibration: Calibration) -> set[str]:
    """The generator's name, and its name in the catalogue of models."""
    provenance = calibration.model.get("provenance", {}).get("main", {})
    return {str(calibration.model["generator"]), str(provenance.get("name", ""))} - {""}


def _short(row: dict[str, Any]) -> dict[str, Any]:
    """An arm's row with whole numbers written as such, which halves the file."""
    row |= {name: _whole(row[name]) for name in ("right", "tokens")}
    row["signals"] = {name: _whole(values) for name, values in row["signals"].items()}
    return row


def _seconds_a_token(arms: Sequence[Arm]) -> float | None:
    """Machine seconds for a generated token, reading the prompt among them, over all arms whose seconds are known."""
    known = [arm for arm in arms if arm.seconds is not None]
    tokens = sum(fmean(arm.tokens) for arm in known)
    return sum(arm.seconds or 0.0 for arm in known) / tokens if tokens else None


def _whole(values: Iterable[float]) -> list[float]:
    return [int(value) if value == int(value) else value for value in values]


def _signals(rows: Sequence[Mapping[str, float]]) -> dict[str, tuple[float, ...]]:
    """The signals that all problems have, to four digits."""
    names = set.intersection(*map(set, rows))
    return {name: tuple(round(float(row[name]), 4) for row in rows) for name in sorted(names)}


def _without_folders(command: str) -> str:
    """The command with the names of files alone, because a calibration goes to other machines."""
    return shlex.join(Path(word).name if Path(word).is_absolute() else word for word in shlex.split(command))


def _text(run: Mapping[str, Any]) -> str:
    """The strategy of a run with its size."""
    name, values = split(run["strategy"])
    sized = {"n": str(run["n"])} if "n" in options(find(name)) else {}
    return spec(make(name, sized | values))
