"""The plot that every experiment shares: accuracy against generated tokens, with intervals."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

COLOURS = ("#555555", "#0072b2", "#009e73", "#d55e00", "#cc79a7", "#56b4e9", "#a07800")
"""The Okabe-Ito palette: distinct to colour-blind eyes."""


def accuracy_against_cost(result: Mapping[str, Any], path: Path) -> None:
    """One line per strategy over its budgets, whiskers at 95%, coverage dashed above them."""
    figure, axes = plt.subplots(figsize=(9, 5.2), dpi=150)
    lines: dict[str, list[Mapping[str, Any]]] = {}
    for run in result["runs"]:
        lines.setdefault(run["strategy"], []).append(run)
    for place, (name, runs) in enumerate(lines.items()):
        x = [run["usage"]["generated_tokens"] * 1.012 ** (place - 3) for run in runs]  # whiskers side by side
        y = [100 * run["accuracy"]["value"] for run in runs]
        low = [100 * (run["accuracy"]["value"] - run["accuracy"]["low"]) for run in runs]
        high = [100 * (run["accuracy"]["high"] - run["accuracy"]["value"]) for run in runs]
        colour = COLOURS[place % len(COLOURS)]
        axes.errorbar(
            x, y, [low, high], label=name.replace("_", " "), color=colour, marker="o", ms=4, lw=1.8, elinewidth=0.7
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
    figure.tight_layout()
    figure.savefig(path)
    plt.close(figure)
