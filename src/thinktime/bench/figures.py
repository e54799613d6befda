"""Draws the plot of a result as a file for papers and slides: accuracy against generated tokens."""

from __future__ import annotations

import importlib
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from thinktime.bench.tally import is_incomplete
from thinktime.core.errors import InputError
from thinktime.files import write_whole

COLOURS = ("#555555", "#0072b2", "#009e73", "#d55e00", "#cc79a7", "#56b4e9", "#a07800")
"""The Okabe-Ito palette: distinct to colour-blind eyes."""
FORMATS = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}, ".png": {}}
"""Suffixes of figures, and the metadata without which two files of the same result are the same."""
STYLE = {
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "figure.dpi": 150,
    "grid.alpha": 0.25,
    "legend.frameon": False,
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "thinktime",
}


def write_figure(result: Mapping[str, Any], path: Path) -> None:
    """Draw a line for each strategy over its sizes, with 95% intervals, and coverage above them.

    As in the report, a run whose samples are missing is left out, unless the result says ``plot_missing``.

    Args:
        result: of a bench.
        path: the file; its suffix is one of `FORMATS`.

    Raises:
        InputError: matplotlib is not installed, or the suffix is of no known format.
    """
    if path.suffix not in FORMATS:
        raise InputError("figure", str(path), f"give a name that ends in {', '.join(FORMATS)}")
    try:
        matplotlib = importlib.import_module("matplotlib")
        figures = importlib.import_module("matplotlib.figure")
    except ModuleNotFoundError:
        raise InputError("figure", str(path), "it needs a package: pip install matplotlib") from None
    with matplotlib.rc_context(STYLE):
        figure = figures.Figure(figsize=(9, 5.2), layout="tight")
        _draw(figure.subplots(), result)
        content = io.BytesIO()
        figure.savefig(content, format=path.suffix[1:], metadata=FORMATS[path.suffix])
    write_whole(path, content.getvalue())


def _draw(axes: Any, result: Mapping[str, Any]) -> None:
    hidden = (lambda run: False) if result.get("plot_missing") else is_incomplete
    drawn = [run for run in result["runs"] if not hidden(run) and run["accuracy"] and run["usage"]["generated_tokens"]]
    families: dict[str, list[Mapping[str, Any]]] = {}
    for run in drawn:
        families.setdefault(run["strategy"], []).append(run)
    for place, (name, unsorted) in enumerate(families.items()):
        runs = sorted(unsorted, key=_tokens)
        values = [[100 * run["accuracy"][end] for run in runs] for end in ("low", "value", "high")]
        low, value, high = values
        whiskers = [
            [v - at for v, at in zip(value, low, strict=True)],
            [at - v for v, at in zip(value, high, strict=True)],
        ]
        style = ("o-", "o--", "o:")[place // len(COLOURS) % 3]
        look = {"color": COLOURS[place % len(COLOURS)], "ms": 4, "lw": 1.6, "elinewidth": 0.7}
        axes.errorbar(list(map(_tokens, runs)), value, whiskers, fmt=style, label=name, **look)
    votes = {str(run["n"]): _tokens(run) for run in families.get("majority", [])}
    covered = {votes[k]: 100 * share["value"] for k, share in result.get("coverage", {}).items() if k in votes}
    if covered:
        axes.plot(list(covered), list(covered.values()), "--", color="#999999", label="coverage (pass@k)")
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}" if value >= 1 else f"{value:g}")
    axes.set(xlabel="generated tokens per problem", ylabel="right answers, %")
    axes.set_title(f"{result['task']['name']}: {result['task']['n']} problems, 95% intervals", size=12)
    if families:
        axes.legend(loc="best", ncols=2)


def _tokens(run: Mapping[str, Any]) -> float:
    return float(run["usage"]["generated_tokens"])
