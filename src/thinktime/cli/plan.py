"""``thinktime plan``: which strategy to take within a budget, what it gains and what it costs."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from thinktime.cli.common import BudgetText, Json, PriceText, budget_of
from thinktime.core.errors import InputError, UnknownNameError
from thinktime.core.types import MAIN

if TYPE_CHECKING:
    from rich.table import Table

    from thinktime.planning.arms import Arm
    from thinktime.planning.calibration import Advice, Calibration


def plan(
    task: Annotated[str, typer.Argument(help="A benchmark, as gsm8k-program.")],
    model: Annotated[str | None, typer.Option(help="The model's name, as in `thinktime models`.")] = None,
    budget: BudgetText = None,
    calibration: Annotated[Path | None, typer.Option(help="A file of `thinktime calibrate`; default: shipped.")] = None,
    price: PriceText = None,
    as_json: Json = False,
) -> None:
    """Say which strategy to take for a task within a budget.

    It prints what each strategy gains and costs. No model is loaded.
    """
    from thinktime.planning.calibration_files import model_names, read

    name, found = (str(calibration), read(calibration)) if calibration is not None else _shipped(task, model)
    if calibration is not None and found.task["name"] != task:
        raise InputError("calibration", str(calibration), f"it is of the task {found.task['name']!r}")
    found = priced(found, price)
    if model is not None and model not in model_names(found):
        raise UnknownNameError("model", model, model_names(found))
    limits = budget_of(budget)
    found = found.in_unit(found.unit_of(limits))
    advice, frontier = found.choose(limits), found.frontier()
    strategy = advice.arm.strategy if advice.policy is None else f"auto:policy={name}"
    sampling = f"--temperature {found.sampling['temperature']}"
    limit = f" --budget {budget}" if budget else ""
    command = f"thinktime bench {task} {_models(found, model)} --strategies {shlex.quote(strategy)} {sampling}{limit}"
    if as_json:
        rows = [_row(found, arm) for arm in found.arms]
        choice = {"strategy": strategy, "reason": advice.reason, "policy": _policy(advice), "command": command}
        print(json.dumps({"arms": rows, "knee": found.knee().strategy, **choice}))
        return
    print_wide(table_of(found))
    print(f"knee:    {found.knee().strategy}: beyond it, a point of accuracy costs more and more")
    print(f"take:    {strategy}: {advice.reason}")
    if policy := advice.policy:
        of_model = "" if policy.bins.model == MAIN else f" of the model {policy.bins.model}"
        print(f"         draws {policy.bins.samples} first{of_model}, and goes on with")
        for number, text in enumerate(policy.strategies):
            print(f"         - {policy.bins.name(number)}: {text}")
    print(f"command: {command}")
    if advice.policy is None and advice.arm not in frontier:
        print("note:    a cheaper strategy is as accurate, but costs more in another unit of the budget")


def priced(found: Calibration, price: str | None) -> Calibration:
    """The calibration with the dollars of the model's tokens at a price; without a price as it is.

    Raises:
        InputError: the price cannot be read, or the calibration has several models.
    """
    if price is None:
        return found
    if found.has_several_models:
        raise InputError("price", price, "the calibration has several models; give each its price in `thinktime bench`")
    from thinktime.models.remote.prices import Price

    rate = Price.parse(price)

    def dollars(usage: Mapping[str, float | None]) -> float | None:
        prompt, cached, generated = (usage.get(f"{kind}_tokens") for kind in ("prompt", "cached", "generated"))
        return None if prompt is None or generated is None else rate.dollars(prompt, cached or 0, generated)

    arms = tuple(replace(arm, usage={**arm.usage, "dollars": dollars(arm.usage)}) for arm in found.arms)
    return replace(found, arms=arms)


def _models(found: Calibration, model: str | None) -> str:
    """The options that name the models."""
    noted = found.model.get("provenance", {})
    names = {role: noted.get(role, {}).get("name") or name for role, name in found.models.items() if role != MAIN}
    others = [f"--model {role}={name}" for role, name in names.items()]
    return " ".join([f"--model {model or 'MODEL'}", *others])


def _policy(advice: Advice) -> dict[str, object] | None:
    if (policy := advice.policy) is None:
        return None
    bins = {policy.bins.name(number): text for number, text in enumerate(policy.strategies)}
    costs = {"cost": policy.cost, "cost_of_one": policy.cost_of_one, "unit": policy.unit}
    return {"first_samples": policy.bins.samples, "bins": bins, "gain": policy.gain.as_dict(), **costs}


def _shipped(task: str, model: str | None) -> tuple[str, Calibration]:
    from thinktime.planning.calibration_files import model_names, shipped

    found = list(shipped(task, model))
    if not found:
        of = f"{task} with {model}" if model else task
        fix = f"no calibration of {of} is shipped; run `thinktime bench`, then `thinktime calibrate`, and give the file"
        raise InputError("calibration", None, f"{fix} with --calibration")
    if len(found) > 1:
        raise InputError(
            "model", None, f"name one: {', '.join(name for _, each in found for name in model_names(each))}"
        )
    return found[0]


def _row(found: Calibration, arm: Arm) -> dict[str, object]:
    frontier = found.frontier()
    return {
        "strategy": arm.strategy,
        found.measure: arm.accuracy.as_dict(),
        "gain": arm.gain(found.arms[0]).as_dict(),
        f"{found.measure}_on_curve": found.value(arm),
        "tokens": arm.cost("tokens"),
        "cost": arm.cost(found.unit),
        "unit": found.unit,
        "cost_per_point": _per_point(found, frontier, arm) if arm in frontier else None,
        "on_frontier": arm in frontier,
    }


def _per_point(found: Calibration, frontier: list[Arm], arm: Arm) -> float | None:
    """The cost of each percentage point more than the arm before it on the frontier; None for the first."""
    place = frontier.index(arm)
    if not place:
        return None
    before = frontier[place - 1]
    return (arm.cost(found.unit) - before.cost(found.unit)) / (100 * (found.value(arm) - found.value(before)))


def table_of(found: Calibration) -> Table:
    """The arms of a calibration with their costs and gains."""
    from rich.table import Table

    from thinktime.bench.table import difference, interval
    from thinktime.planning.calibration import amount

    generator, scorer = found.model["generator"], found.model["scorer"]
    judged = f", scorer {scorer}" if scorer else ""
    title = f"{found.task['name']}, {len(found.problems)} problems, {generator}{judged}, seed {found.seed}"
    table = Table(title=title, title_justify="left")
    table.add_column("strategy", no_wrap=True)
    first = found.arms[0].strategy
    units = ["tokens"] if found.unit == "tokens" else ["tokens", found.unit]
    for name in (found.measure, "on its curve", f"minus {first}", *units, f"{found.unit} for a point", "lost samples"):
        table.add_column(name, justify="right", no_wrap=True)
    frontier = found.frontier()
    for arm in found.arms:
        gain = "" if arm is found.arms[0] else difference(arm.gain(found.arms[0]).as_dict())
        price = _per_point(found, frontier, arm) if arm in frontier else None
        lost = sum(count for name, count in arm.samples.items() if name != "total") / max(arm.samples["total"], 1)
        curve = f"{found.value(arm):.1%}"
        costs = [amount(arm.cost(unit), unit).split()[0] for unit in units]
        costs += ["" if price is None else amount(price, found.unit).split()[0], f"{lost:.1%}"]
        style = None if arm in frontier else "dim"
        table.add_row(arm.strategy, interval(arm.accuracy.as_dict()), curve, gain, *costs, style=style)
    return table


def print_wide(table: Table) -> None:
    """Print a table without wrapping its cells, also in a narrow terminal."""
    from rich.console import Console

    needed = Console(width=1000).measure(table).maximum
    Console(width=max(Console().width, needed)).print(table)
