"""``thinktime report``: the report and the table of a result."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from thinktime.cli.common import Json, read_json
from thinktime.core.errors import InputError


def report(
    result: Annotated[Path, typer.Argument(help="A result.json of `thinktime bench`.")],
    out: Annotated[Path | None, typer.Option(help="The HTML file; default: report.html beside the result.")] = None,
    plot_missing: Annotated[
        bool, typer.Option("--plot-missing", help="Draw runs although some of their samples are missing.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Draw the HTML report of a result again, and print its table."""
    from thinktime.bench.report import write_report

    loaded = read_json(result)
    if "runs" not in loaded or loaded.get("schema") != 1:
        raise InputError("result", str(result), "it is no result of `thinktime bench` (schema 1)")
    timing_file = result.with_name("timing.json")
    timing = read_json(timing_file) if timing_file.exists() else {}
    target = out or result.with_name("report.html")
    loaded["plot_missing"] = plot_missing or loaded.get("plot_missing", False)
    try:
        write_report(loaded, timing, target)
        if not as_json:
            print_table(loaded, timing)
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise InputError("result", str(result), f"it is no whole result of `thinktime bench` ({reason})") from None
    print(json.dumps({"report": str(target)}) if as_json else f"report: {target}")


def print_table(result: dict[str, Any], timing: dict[str, float]) -> None:
    """Print the table of a result."""
    from rich.console import Console

    from thinktime.bench.table import results_table

    table = results_table(result, timing)
    needed = Console(width=1000).measure(table).maximum
    Console(width=max(Console().width, needed)).print(table)
    for run in result["runs"]:
        if undecided := run.get("undecided"):
            what = f"{undecided} of {run['n_problems']} answers take too long to compute"
            print(f"{run['strategy']}, n = {run['n']}: {what}; only the same text equals them")
    if "sandbox" in result:
        verdicts = ", ".join(f"{n} {verdict}" for verdict, n in result["verdicts"].items())
        print(f"sandbox: {result['sandbox']}   programs: {verdicts or 'none'}")
