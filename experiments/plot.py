"""What the plots of the experiments share: panels, lines of estimates with whiskers, axes, colours."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from thinktime.bench.figures import COLOURS as COLOURS

ResultRow = Mapping[str, Any]


def panels(count: int, width: float, height: float, rows: int = 1, **options: Any) -> tuple[Figure, list[Axes]]:
    """A figure of ``width`` by ``height`` inches, and its panels, row by row; options are those of matplotlib.

    Args:
        count: panels in a row.
    """
    plt.rc("figure", dpi=150)
    plt.rc("axes", grid=True, titlelocation="left", titlesize=10)
    plt.rc("axes.spines", top=False, right=False)
    plt.rc("grid", alpha=0.25)
    plt.rc("legend", frameon=False)
    figure, table = plt.subplots(rows, count, figsize=(width, height), squeeze=False, **options)
    return figure, list(table.flat)


def bars(estimates: Iterable[Mapping[str, float]], scale: float = 100) -> tuple[list[float], list[list[float]]]:
    """Values, and how far their whiskers reach below and above, as matplotlib takes them."""
    rows = list(estimates)
    below = [scale * (row["value"] - row["low"]) for row in rows]
    above = [scale * (row["high"] - row["value"]) for row in rows]
    return [scale * row["value"] for row in rows], [below, above]


def line(
    axes: Axes,
    x: Iterable[float],
    estimates: Iterable[Mapping[str, float]],
    colour: int,
    label: str,
    style: str = "o-",
    scale: float = 100,
) -> None:
    """Estimates with whiskers; ``colour`` is a place in the palette, which repeats, and ``style`` one of matplotlib."""
    y, whiskers = bars(estimates, scale)
    of_palette = COLOURS[colour % len(COLOURS)]
    axes.errorbar(list(x), y, whiskers, fmt=style, label=label, color=of_palette, ms=4, lw=1.6, elinewidth=0.7)


def lines(
    axes: Axes,
    families: Mapping[str, Iterable[ResultRow]],
    x: Callable[[ResultRow], float],
    measure: str = "accuracy",
    scale: float = 100,
) -> None:
    """A line a family of rows of a result: what they measure against ``x``; dashed once the colours are used up."""
    for place, (name, rows) in enumerate(families.items()):
        mine = sorted(rows, key=x)
        style = ("o-", "o--", "o:")[place // len(COLOURS)]
        line(axes, map(x, mine), [row[measure] for row in mine], place, name, style, scale)


def grouped(rows: Iterable[tuple[str, ResultRow]]) -> dict[str, list[ResultRow]]:
    """The rows of every name, in the order of their first rows."""
    found: dict[str, list[ResultRow]] = {}
    for name, row in rows:
        found.setdefault(name, []).append(row)
    return found


def generated(row: ResultRow) -> float:
    """Tokens that an arm generates a problem."""
    return float(row["usage"]["generated_tokens"])


def logarithmic(axes: Axes, label: str) -> None:
    """Let the horizontal axis double, with plain numbers."""
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}" if value >= 1 else f"{value:g}")
    axes.set_xlabel(label)


def save(figure: Figure, path: Path, rect: tuple[float, float, float, float] = (0, 0, 1, 1)) -> None:
    """Lay the figure out within ``rect``, write it and close it."""
    figure.tight_layout(rect=rect)
    figure.savefig(path)
    plt.close(figure)


def legend_below(figure: Figure, axes: Axes, columns: int) -> None:
    """One legend for all panels, under them."""
    handles = axes.get_legend_handles_labels()
    figure.legend(*handles, loc="outside lower center", ncols=columns, fontsize=9)
