"""The terminal table of a result."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.table import Table
from rich.text import Text

from thinktime.core.printable import printable

LOST = ("unreadable", "missing", "cut", "timed_out")


def results_table(result: Mapping[str, Any], timing: Mapping[str, float]) -> Table:
    """One row per run: accuracy and difference with 95% intervals, and costs per problem; failed entries below.

    There is a column for unreadable samples if any run has one, and likewise for those that are missing, cut or late.
    """
    task = result["task"]
    state = "" if result["complete"] else ", incomplete: finished problems only"
    title = f"{task['name']}, {task['n']} problems, seed {result['seed']}{state}"
    notes = [result["stamp"]] if result.get("stamp") else []
    notes += [f"failed: {entry['strategy']}@{entry['n']}: {entry['error']}" for entry in result.get("failed", ())]
    table = Table(title=title, title_justify="left", caption=Text(printable("\n".join(notes))), caption_justify="left")
    table.add_column("strategy", no_wrap=True)
    lost = [name for name in LOST if any((run.get("samples") or {}).get(name) for run in result["runs"])]
    costs = ("tokens", "scorer tokens", "GFLOPs", "seconds")
    for name in ("n", "problems", *lost, "accuracy", "minus single", *costs):
        table.add_column(name.replace("_", " "), justify="right", no_wrap=True)
    for run in result["runs"]:
        usage = run["usage"]
        flops = (
            None if usage["flops"] is None or usage["scorer_flops"] is None else usage["flops"] + usage["scorer_flops"]
        )
        seconds = timing.get(f"{run['strategy']}@{run['n']}")
        table.add_row(
            run["strategy"],
            str(run["n"]),
            str(run["n_problems"]),
            *(share(run.get("samples"), name) for name in lost),
            interval(run["accuracy"]),
            difference(run["versus_single"]),
            f"{usage['generated_tokens']:,.0f}",
            f"{usage['scorer_tokens']:,.0f}",
            "unknown" if flops is None else f"{flops / 1e9:.2f}",
            "unknown" if seconds is None else f"{seconds:.3f}",
        )
    return table


def share(samples: Mapping[str, int] | None, name: str) -> str:
    """The share of samples of this kind, in percent."""
    return "unknown" if samples is None else f"{100 * samples[name] / max(1, samples['total']):.1f}%"


def interval(estimate: Mapping[str, float]) -> str:
    """A share and its interval, in percent."""
    return f"{100 * estimate['value']:.1f}% [{100 * estimate['low']:.1f}, {100 * estimate['high']:.1f}]"


def difference(estimate: Mapping[str, float] | None) -> str:
    """A difference of shares with its interval in points; starred where the interval excludes 0."""
    if estimate is None:
        return ""
    star = "*" if estimate["low"] > 0 or estimate["high"] < 0 else " "
    return f"{100 * estimate['value']:+.1f} [{100 * estimate['low']:+.1f}, {100 * estimate['high']:+.1f}]{star}"
