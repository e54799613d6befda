"""The plot that every experiment shares: accuracy against generated tokens, with intervals."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.figure import Figure

COLOURS = ("#555555", "#0072b2", "#009e73", "#d55e00", "#cc79a7", "#56b4e9", "#a07800")
"""The Okabe-Ito palette: distinct to colour-blind eyes."""


def bars(estimates: Iterable[Mapping[str, float]], scale: float = 100) -> tuple[list[float], list[list[float]]]:
    """Values, and how far their whiskers reach below and above, as matplotlib takes them."""
    rows = list(estimates)
    below = [scale * (row["value"] - row["low"]) for row in rows]
    above = [scale * (row["high"] - row["value"]) for row in rows]
    return [scale * row["value"] for row in rows], [below, above]


def save(figure: Figure, path: Path, rect: tuple[float, float, float, float] = (0, 0, 1, 1)) -> None:
    """Lay it out within ``rect``, write it and let go of it."""
    figure.tight_layout(rect=rect)
    figure.savefig(path)
    plt.close(figure)


def accuracy_against_cost(result: Mapping[str, Any], path: Path) -> None:
    """One line per strategy over its budgets, whiskers at 95%, coverage dashed above them."""
    figure, axes = plt.subplots(figsize=(9, 5.2), dpi=150)
    lines: dict[str, list[Mapping[str, Any]]] = {}
    for run in result["runs"]:
        lines.setdefault(run["strategy"], []).append(run)
    for place, (name, runs) in enumerate(lines.items()):
        x = [run["usage"]["generated_tokens"] * 1.012 ** (place - 3) for run in runs]  # whiskers side by side
        y, whiskers = bars(run["accuracy"] for run in runs)
        colour = COLOURS[place % len(COLOURS)]
        axes.errorbar(
            x, y, whiskers, label=name.replace("_", " "), color=colour, marker="o", ms=4, lw=1.8, elinewidth=0.7
        )
    votes = {str(run["n"]): run["usage"]["generated_tokens"] for run in lines.get("majority", [])}
    ks = [k for k in result["coverage"] if k in votes]
    axes.plot(
        [votes[k] for k in ks],
        [100 * result["coverage"][k]["value"] for k in ks],
        "--",
        color="#999999",
        label="coverage (pass@k)",
    )
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(matplotlib.ticker.FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.set_xlabel("generated tokens per problem")
    axes.set_ylabel("right answers, %")
    n = result["task"]["n"]
    axes.set_title(f"{result['task']['name']}: {n} held-out problems, 95% intervals", loc="left")
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="upper left", ncols=2)
    save(figure, path)
