"""``thinktime calibrate`` and ``plan``: what strategies gain and cost, and which to take within a budget."""

from __future__ import annotations

import json
from functools import reduce
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Annotated

import typer

from thinktime.cli.common import BudgetText, Json, budget_of, read_json
from thinktime.core.errors import InputError, UnknownNameError

if TYPE_CHECKING:
    from rich.table import Table

    from thinktime.planning.calibration import Arm, Calibration


def calibrate(
    results: Annotated[
        list[Path],
        typer.Argument(help="Results of `thinktime bench` on the same problems; its --replay needs no model."),
    ],
    out: Annotated[Path, typer.Option(help="The calibration file.")] = Path("calibration.json"),
    as_json: Json = False,
) -> None:
    """Make a calibration of the results of benches.

    It says what each strategy gains and costs. `plan` and `auto:policy=FILE` read it.
    """
    from thinktime.files import write_whole

    found = reduce(lambda mine, more: mine.merged(more), [_of_result(path) for path in results])
    try:
        write_whole(out, found.text())
    except OSError as error:
        raise InputError("out", str(out), f"cannot write it ({error})") from None
    if as_json:
        print(json.dumps({"calibration": str(out), "arms": len(found.arms), "problems": len(found.problems)}))
        return
    _print(_table(found))
    print(f"calibration: {out}")


def plan(
    task: Annotated[str, typer.Argument(help="A benchmark, as gsm8k-program.")],
    model: Annotated[str | None, typer.Option(help="The model's name, as in `thinktime models`.")] = None,
    budget: BudgetText = None,
    calibration: Annotated[Path | None, typer.Option(help="A file of `thinktime calibrate`; default: shipped.")] = None,
    as_json: Json = False,
) -> None:
    """Say which strategy to take for a task within a budget.

    It prints what each strategy gains and costs. No model is loaded.
    """
    from thinktime.planning.calibration import Calibration, model_names

    found = Calibration.read(calibration) if calibration is not None else _shipped(task, model)
    if calibration is not None and found.task["name"] != task:
        raise InputError("calibration", str(calibration), f"it is of the task {found.task['name']!r}")
    if model is not None and model not in model_names(found):
        raise UnknownNameError("model", model, model_names(found))
    choice, frontier = found.choose(budget_of(budget)), found.frontier()
    sampling = f"--temperature {found.sampling['temperature']}"
    limit = f" --budget {budget}" if budget else ""
    command = f"thinktime bench {task} --model {model or 'MODEL'} --strategies {choice.arm.strategy} {sampling}{limit}"
    if as_json:
        rows = [_row(found, arm) for arm in found.arms]
        advice = {"strategy": choice.arm.strategy, "reason": choice.reason, "command": command}
        print(json.dumps({"arms": rows, "knee": found.knee().strategy, **advice}))
        return
    _print(_table(found))
    print(f"knee:    {found.knee().strategy}: beyond it, a point of accuracy costs more and more")
    print(f"take:    {choice.arm.strategy}: {choice.reason}")
    print(f"command: {command}")
    if choice.arm not in frontier:
        print("note:    a cheaper strategy is as accurate, but costs more in another unit of the budget")


def _of_result(path: Path) -> Calibration:
    from thinktime.planning.calibration import Calibration

    result, beside = read_json(path), path.with_name("timing.json")
    if "runs" not in result or result.get("schema") != 1:
        raise InputError("result", str(path), "it is no result of `thinktime bench` (schema 1)")
    try:
        return Calibration.of_result(result, read_json(beside) if beside.exists() else {})
    except InputError:
        raise
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise InputError("result", str(path), f"it is no whole result of `thinktime bench` ({reason})") from None


def _shipped(task: str, model: str | None) -> Calibration:
    from thinktime.planning.calibration import model_names, shipped

    found = list(shipped(task, model))
    if not found:
        of = f"{task} with {model}" if model else task
        fix = f"no calibration of {of} is shipped; run `thinktime bench`, then `thinktime calibrate`, and give the file"
        raise InputError("calibration", None, f"{fix} with --calibration")
    if len(found) > 1:
        raise InputError("model", None, f"name one: {', '.join(name for each in found for name in model_names(each))}")
    return found[0]


def _row(found: Calibration, arm: Arm) -> dict[str, object]:
    frontier = found.frontier()
    return {
        "strategy": arm.strategy,
        "accuracy": arm.accuracy.as_dict(),
        "gain": arm.gain(found.arms[0]).as_dict(),
        "tokens": arm.cost("tokens"),
        "tokens_per_point": _per_point(frontier, arm) if arm in frontier else None,
        "on_frontier": arm in frontier,
    }


def _per_point(frontier: list[Arm], arm: Arm) -> float | None:
    """Tokens for each percentage point more than the arm before it on the frontier; None for the first."""
    place = frontier.index(arm)
    if not place:
        return None
    before = frontier[place - 1]
    return (arm.cost("tokens") - before.cost("tokens")) / (100 * (fmean(arm.right) - fmean(before.right)))


def _table(found: Calibration) -> Table:
    from rich.table import Table

    from thinktime.bench.table import difference, interval

    generator, scorer = found.model["generator"], found.model["scorer"]
    judged = f", scorer {scorer}" if scorer else ""
    title = f"{found.task['name']}, {len(found.problems)} problems, {generator}{judged}, seed {found.seed}"
    table = Table(title=title, title_justify="left")
    table.add_column("strategy", no_wrap=True)
    first = found.arms[0].strategy
    for name in ("accuracy", f"minus {first}", "tokens", "tokens for a point", "lost samples"):
        table.add_column(name, justify="right", no_wrap=True)
    frontier = found.frontier()
    for arm in found.arms:
        gain = "" if arm is found.arms[0] else difference(arm.gain(found.arms[0]).as_dict())
        price = _per_point(frontier, arm) if arm in frontier else None
        lost = sum(count for name, count in arm.samples.items() if name != "total") / max(arm.samples["total"], 1)
        costs = (f"{arm.cost('tokens'):.0f}", "" if price is None else f"{price:.0f}", f"{lost:.1%}")
        style = None if arm in frontier else "dim"
        table.add_row(arm.strategy, interval(arm.accuracy.as_dict()), gain, *costs, style=style)
    return table


def _print(table: Table) -> None:
    from rich.console import Console

    needed = Console(width=1000).measure(table).maximum
    Console(width=max(Console().width, needed)).print(table)
