"""The plot: success against tokens and against solutions' worth, and which splits are best."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from experiments.plot import COLOURS, line, logarithmic, panels, save

NAMES = {"best_of_n": "best of n by checks", "weighted": "vote weighted by checks"}


def plot(result: Mapping[str, Any], path: Path) -> None:
    """By tokens, by the cost model, and the law with its fit."""
    figure, (by_tokens, by_cost, law) = panels(3, 15, 4.6)
    for axes, x in ((by_tokens, "tokens"), (by_cost, "budget")):
        rows = result["votes"]
        line(axes, [r[x] for r in rows], [r["accuracy"] for r in rows], 0, "vote")
        covered = [100 * r["coverage"]["value"] for r in rows]
        axes.plot([r[x] for r in rows], covered, "--", color="#999999", label="coverage (upper bound)")
        place = 0
        for name, found in result["verifiers"].items():
            for select, of in found["by_select"].items():
                place += 1
                label = NAMES[select] + (", second verifier" if name == "second" else "")
                xs = [r[x] * 1.02**place for r in of["curve"]]  # whiskers side by side
                line(axes, xs, [r["accuracy"] for r in of["curve"]], place, label)
        axes.set_ylabel("right answers, %")
    logarithmic(by_tokens, "tokens a problem: generated, and read for the first time")
    logarithmic(by_cost, "budget S(1 + λV), in solutions")
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
    logarithmic(law, "budget, in solutions")
    law.set_yscale("log", base=2)
    for axes in (by_tokens, by_cost, law):
        axes.legend(frameon=False, fontsize=8)
    save(figure, path)
