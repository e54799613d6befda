"""The plot: scaffolds against votes by tokens, and selectors by size of the pool."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.ticker import FuncFormatter

from experiments.plot import COLOURS, bars, save

LABELS = {
    "single": "direct",
    "generative_reward": "best of n, own judgement",
    "stepwise_best_of_n": "step-wise best of n",
    "self_refine": "self-refine",
    "plan_then_solve": "plan, then solve",
    "best_of_n": "best of n, reward model",
}
SHAPES = "os^Dvp"


def plot(rows: Mapping[str, Mapping[str, Any]], swept: Mapping[str, Any], path: Path) -> None:
    """Tokens are those generated and those read, by a reward model too."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(12, 4.8), dpi=150)
    votes = sorted((row for label, row in rows.items() if label.startswith("majority")), key=lambda r: r["tokens"])
    left.errorbar(
        [r["tokens"] for r in votes], *bars(r["accuracy"] for r in votes), marker=".", color=COLOURS[0], label="vote"
    )
    for place, (name, label) in enumerate(LABELS.items()):
        mine = [row for key, row in rows.items() if key.partition(":")[0] == name]
        left.errorbar(
            [r["tokens"] for r in mine],
            *bars(r["accuracy"] for r in mine),
            fmt=SHAPES[place],
            ms=5,
            elinewidth=0.7,
            color=COLOURS[1 + place % (len(COLOURS) - 1)],
            label=label,
        )
    left.set_xscale("log", base=2)
    left.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    left.set_xlabel("tokens a problem: generated, and read once")
    left.set_ylabel("right answers, %")
    sizes = [1, *map(int, swept)]
    for place, name in enumerate(next(iter(swept.values()))):
        estimates = [rows["single"]["accuracy"], *(of[name]["accuracy"] for of in swept.values())]
        x = [n * 1.03 ** (place - 1.5) for n in sizes]  # whiskers side by side
        style = "--" if "upper bound" in name else "-"
        right.errorbar(x, *bars(estimates), ls=style, marker="o", ms=4, color=COLOURS[1 + place], label=name)
    right.set_xscale("log", base=2)
    right.set_xticks(sizes, [str(n) for n in sizes])
    right.set_xlabel("samples in the pool")
    for axes in (left, right):
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, fontsize=8, loc="upper left")
    save(figure, path)
