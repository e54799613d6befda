"""The plot: success against tokens and against solutions' worth, and which splits are best."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.ticker import FuncFormatter

from experiments.plot import COLOURS, bars, save

NAMES = {"best_of_n": "best of n by checks", "weighted": "vote weighted by checks"}


def plot(result: Mapping[str, Any], path: Path) -> None:
    """By tokens, by the cost model, and the law with its fit."""
    figure, axes = plt.subplots(1, 3, figsize=(15, 4.6), dpi=150)
    by_tokens, by_cost, law = axes
    for panel, x in ((by_tokens, "tokens"), (by_cost, "budget")):
        rows = result["votes"]
        panel.errorbar([r[x] for r in rows], *bars(r["accuracy"] for r in rows), label="vote", **_look(0))
        covered = [100 * r["coverage"]["value"] for r in rows]
        panel.plot([r[x] for r in rows], covered, "--", color="#999999", label="coverage (upper bound)")
        place = 0
        for name, found in result["verifiers"].items():
            for select, of in found["by_select"].items():
                place += 1
                label = NAMES[select] + (", second verifier" if name == "second" else "")
                xs = [r[x] * 1.02**place for r in of["curve"]]  # whiskers side by side
                panel.errorbar(xs, *bars(r["accuracy"] for r in of["curve"]), label=label, **_look(place))
        panel.set_xscale("log", base=2)
        panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        panel.set_ylabel("right answers, %")
    by_tokens.set_xlabel("tokens a problem: generated, and read for the first time")
    by_cost.set_xlabel("budget S(1 + λV), in solutions")
    of = result["verifiers"]["own"]["by_select"]["weighted"]
    spent = [r["budget"] for r in of["curve"]]
    for place, (what, factor, exponent) in enumerate(
        (("solutions", "alpha_s", "a"), ("checks of each", "alpha_v", "b"))
    ):
        alpha, power = (of["law"][name]["value"] for name in (factor, exponent))
        best = [sum(split[place] for split in r["splits"]) / len(r["splits"]) for r in of["curve"]]
        law.plot(spent, best, "o", color=COLOURS[place + 1], label=f"{what}, best")
        fitted = [alpha * c**power for c in spent]
        law.plot(spent, fitted, "-", color=COLOURS[place + 1], label=f"{alpha:.2f} · budget^{power:.2f}")
    law.set_xscale("log", base=2)
    law.set_yscale("log", base=2)
    law.set_xlabel("budget, in solutions")
    for panel in axes:
        panel.grid(alpha=0.25)
        panel.spines[["top", "right"]].set_visible(False)
        panel.legend(frameon=False, fontsize=8)
    save(figure, path)


def _look(place: int) -> dict[str, Any]:
    return {"color": COLOURS[place % len(COLOURS)], "marker": "o", "ms": 4, "lw": 1.6, "elinewidth": 0.7}
