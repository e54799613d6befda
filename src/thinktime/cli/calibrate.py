"""``thinktime calibrate``: measures what strategies gain and cost, or takes it from results of benches."""

from __future__ import annotations

import contextlib
import io
import json
import sys
from collections.abc import Sequence
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from thinktime.cli.common import (
    EXIT_FAILED,
    Dtype,
    Json,
    MaxTokens,
    PriceText,
    Seed,
    Temperature,
    Yes,
    numbers_in,
    read_json,
)
from thinktime.cli.plan import priced, print_wide, table_of
from thinktime.cli.tasks import Data
from thinktime.core.errors import InputError

if TYPE_CHECKING:
    from thinktime.planning.calibration import Calibration

MEASURED = ("single", "majority", "most_likely", "adaptive_consistency")
SCORED = ("weighted_majority", "best_of_n")
"""Strategies that are measured, without and with a scorer. They share their samples."""
PROBLEMS = 300


def calibrate(
    results: Annotated[
        list[str],
        typer.Argument(help="Results of `thinktime bench` on the same problems, or with --budgets a task to measure."),
    ],
    out: Annotated[Path, typer.Option(help="The calibration file.")] = Path("calibration.json"),
    budgets: Annotated[
        str | None, typer.Option(help="Measure a task at these tokens for a problem: 500,1000,4000. Runs the model.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="The model that is measured, as for `thinktime bench`.")] = None,
    scorer: Annotated[str | None, typer.Option(help="Its scorer, as for `thinktime bench`.")] = None,
    problems: Annotated[int, typer.Option(help="How many problems are measured.")] = PROBLEMS,
    split: Annotated[
        str | None, typer.Option(help="Of the task; default: train, or dev of pocket. Report no results on it.")
    ] = None,
    data: Data = None,
    temperature: Temperature = 1.0,
    max_tokens: MaxTokens = None,
    seed: Seed = 0,
    dtype: Dtype = "auto",
    yes: Yes = False,
    price: PriceText = None,
    as_json: Json = False,
) -> None:
    """Measure what strategies gain and cost.

    The file is for `thinktime plan` and `auto:policy=FILE`. It comes from benches that are done, or from new ones.
    """
    from thinktime.files import write_whole
    from thinktime.planning.calibration_files import text

    if budgets is not None:
        options: dict[str, Any] = {
            "scorer": [scorer or "none"],
            "data": data,
            "temperature": temperature,
            "max_tokens": max_tokens,
        }
        options |= {"seed": seed, "dtype": dtype, "yes": yes, "problems": problems}
        options |= {"model": None if model is None else [model], "split": split or _split(results[0])}
        results = [str(_measure(results, numbers_in("budgets", budgets), out.with_suffix(""), options))]
    elif model is not None or scorer is not None:
        raise InputError("budgets", None, "give the tokens for a problem to measure a task: --budgets 500,1000,4000")
    found = reduce(lambda mine, more: mine.merged(more), [_of_result(Path(path)) for path in results])
    found = priced(found, price).with_policies()
    try:
        write_whole(out, text(found))
    except OSError as error:
        raise InputError("out", str(out), f"cannot write it ({error})") from None
    if as_json:
        print(json.dumps({"calibration": str(out), "arms": len(found.arms), "problems": len(found.problems)}))
        return
    print_wide(table_of(found))
    print(f"calibration: {out}")


def sizes_of(budgets: Sequence[int], tokens: float, most: int) -> list[int]:
    """Sizes to measure: what fits into each budget at these mean tokens of a sample, and the powers of two below.

    Args:
        budgets: in tokens for a problem.
        tokens: of a sample, the mean.
        most: the largest size.
    """
    largest = min(most, int(max(budgets) / tokens))
    powers = {2**power for power in range(1, most.bit_length())}
    fitting = {int(budget / tokens) for budget in budgets}
    return sorted(size for size in powers | fitting | {largest} if 1 < size <= largest)


def _split(task: str) -> str:
    return "dev" if task == "pocket" else "train"


def _measure(tasks: Sequence[str], budgets: Sequence[int], folder: Path, options: dict[str, Any]) -> Path:
    """Bench the strategies on a task, all on the same samples; the path of the result."""
    from thinktime.planning.auto import SAMPLES

    if len(tasks) > 1:
        raise InputError("task", ", ".join(tasks), "measure one task at a time")
    most = max(budgets)
    cost = f"{options['problems']} problems of {most} tokens, {options['problems'] * most:,} in all"
    print(f"this generates at most {cost}; samples are kept in {folder}", file=sys.stderr)
    options |= {"task": tasks[0], "bank": folder / "bank.db", "force": True}
    options |= {"budget": f"{most}tok"}
    first = read_json(_bench(folder / "single", strategies="single", n="1", **options))
    tokens = first["runs"][0]["usage"]["generated_tokens"]
    sizes = sizes_of(budgets, max(tokens, 1.0), SAMPLES)
    if not sizes:
        raise InputError("budgets", most, f"one sample has {tokens:.0f} tokens; give room for two or more")
    scored = SCORED if options["scorer"] != ["none"] else ()
    return _bench(folder / "all", strategies=",".join((*MEASURED, *scored)), n=",".join(map(str, sizes)), **options)


def _bench(out: Path, **options: Any) -> Path:
    """Run a bench; a strategy that this model cannot run is left out."""
    from thinktime.cli.bench import bench

    out.mkdir(parents=True, exist_ok=True)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            bench(out=out, **options)
    except typer.Exit as left:
        if left.exit_code != EXIT_FAILED:
            raise
    return out / "result.json"


def _of_result(path: Path) -> Calibration:
    from thinktime.planning.calibration_files import of_result

    result, beside = read_json(path), path.with_name("timing.json")
    if "runs" not in result or result.get("schema") != 1:
        raise InputError("result", str(path), "it is no result of `thinktime bench` (schema 1)")
    try:
        return of_result(result, read_json(beside) if beside.exists() else {})
    except InputError:
        raise
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise InputError("result", str(path), f"it is no whole result of `thinktime bench` ({reason})") from None
