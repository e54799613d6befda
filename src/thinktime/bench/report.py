"""Writes a bench result as one HTML file that works offline: a plot of accuracy against cost, tables, traces."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from thinktime.bench.tally import is_incomplete, warnings
from thinktime.core.errors import InputError
from thinktime.files import write_whole
from thinktime.pages import page

SCHEMA = 1
"""The version of the result format this module reads."""

_PLACE = "{{data}}"
_UNKNOWN: Mapping[str, Any] = {"value": None}
_COSTS = (("FLOPs", ("flops", "scorer_flops")), ("generated tokens", ("generated_tokens",)))


def write_report(result: Mapping[str, Any], timing: Mapping[str, float], path: Path) -> None:
    """Write a self-contained report. It loads nothing, and shows text from models only as text.

    ``timing`` maps ``strategy@n`` to mean machine seconds per problem; a missing key is unknown.

    Raises:
        InputError: the result is of another schema or holds a number JSON lacks, or the file cannot be written.
    """
    if result.get("schema") != SCHEMA:
        raise InputError("schema", result.get("schema"), f"this version writes reports of schema {SCHEMA}")
    data = {"headline": headline(result), "warnings": list(warnings(result)), "result": result, "timing": timing}
    try:
        text = json.dumps(data, allow_nan=False)
    except ValueError as error:
        raise InputError("result", str(path), f"give null for an unknown number ({error})") from None
    text = text.translate({ord(c): f"\\u{ord(c):04x}" for c in "<>&"})  # so that no text ends the script element
    parts = page("parts.js").partition("\nexport {")[0]  # the report is one script without modules
    template = page("report.html").replace("{{look}}", page("look.css")).replace("{{parts}}", parts)
    try:
        write_whole(path, template.replace(_PLACE, text))
    except OSError as error:
        raise InputError("file", str(path), f"cannot write it ({error})") from None


def headline(result: Mapping[str, Any]) -> str:
    """One sentence that compares the best strategy at the largest budget with ``single``, after the result's stamp."""
    return f"{result['stamp']} {_comparison(result)}" if result.get("stamp") else _comparison(result)


def _comparison(result: Mapping[str, Any]) -> str:
    runs = [run for run in result["runs"] if None not in (run.get("accuracy") or _UNKNOWN).values()]
    if not runs:
        return "No run has a known accuracy."
    runs = [run for run in runs if result.get("plot_missing") or not is_incomplete(run)]
    if not runs:
        return "Every run lacks some of its samples."
    largest = max(run["n"] for run in runs)
    best = max((run for run in runs if run["n"] == largest), key=lambda run: float(run["accuracy"]["value"]))
    solves = f"{best['strategy']} solves {_percent(best['accuracy'])} of the problems"
    single = next((run for run in runs if run["strategy"] == "single"), None)
    difference = best.get("versus_single") or _UNKNOWN
    if single is None or None in difference.values():
        return f"At n={largest}, {solves}."
    low, high = difference["low"], difference["high"]
    verdict = " The interval of the difference includes 0." if low <= 0 <= high else ""
    return (
        f"At n={largest}, {solves}: {100 * difference['value']:+.1f} points "
        f"[{100 * low:+.1f}, {100 * high:+.1f}] against single ({100 * single['accuracy']['value']:.1f}%), "
        f"{_cost_factor(best['usage'], single['usage'])}.{verdict}"
    )


def _percent(estimate: Mapping[str, float]) -> str:
    return f"{100 * estimate['value']:.1f}% [{100 * estimate['low']:.1f}, {100 * estimate['high']:.1f}]"


def _cost_factor(usage: Mapping[str, Any], base: Mapping[str, Any]) -> str:
    for name, parts in _COSTS:
        spent, reference = _sum(usage, parts), _sum(base, parts)
        if spent is not None and reference:
            return f"for {spent / reference:.3g} times its {name}"
    return "at an unknown cost"


def _sum(usage: Mapping[str, Any], parts: Sequence[str]) -> float | None:
    values = [float(usage[part]) for part in parts if usage.get(part) is not None]
    return sum(values) if len(values) == len(parts) else None
