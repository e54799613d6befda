"""The plot: scaffolds against votes by tokens, and selectors by size of the pool."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from experiments.plot import COLOURS, line, logarithmic, panels, save

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
    figure, (left, right) = panels(2, 12, 4.8)
    votes = sorted((row for label, row in rows.items() if label.startswith("majority")), key=lambda r: r["tokens"])
    line(left, [r["tokens"] for r in votes], [r["accuracy"] for r in votes], 0, "vote", ".-")
    for place, (name, label) in enumerate(LABELS.items()):
        mine = [row for key, row in rows.items() if key.partition(":")[0] == name]
        colour = 1 + place % (len(COLOURS) - 1)
        line(left, [r["tokens"] for r in mine], [r["accuracy"] for r in mine], colour, label, SHAPES[place])
    logarithmic(left, "tokens a problem: generated, and read once")
    left.set_ylabel("right answers, %")
    sizes = [1, *map(int, swept)]
    for place, name in enumerate(next(iter(swept.values()))):
        estimates = [rows["single"]["accuracy"], *(of[name]["accuracy"] for of in swept.values())]
        x = [n * 1.03 ** (place - 1.5) for n in sizes]  # whiskers side by side
        line(right, x, estimates, 1 + place, name, "o--" if "upper bound" in name else "o-")
    logarithmic(right, "samples in the pool")
    right.set_xticks(sizes, [str(n) for n in sizes])
    for axes in (left, right):
        axes.legend(frameon=False, fontsize=8, loc="upper left")
    save(figure, path)
