"""All methods that need no trained skill, on the same 500 held-out problems, at four sizes each.

    python -m experiments.summary.run            # an hour on two idle cores; a killed run goes on

Accuracy against tokens, operations and the longest path, every point with its interval, and every method against the
weighted vote over samples at the size whose tokens are nearest. Operations are those of solver and reward model.
Arms share samples here, so seconds are measured apart: see ``experiments.summary.seconds``.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from statistics import fmean

import matplotlib.pyplot as plt

from experiments.arms import Arm, flops, minus, models, run_arms, summary, tokens, write
from experiments.plot import COLOURS, bars, save
from thinktime.bench.tasks import load
from thinktime.strategies import make

HERE = Path(__file__).parent
SECONDS = HERE / "seconds.json"
SIZES = (2, 4, 8, 16)
SAMPLED = ("majority", "best_of_n", "weighted_majority", "adaptive_consistency", "first_finish", "length_vote")
SEARCHES = ("beam_search", "rebase", "ets", "particle_filter", "early_rejection", "dvts", "mcts")
WIDE = ("beam_search", "dvts", "early_rejection")
"""Four children a step, so of two sizes below four there is nothing to choose from."""


def arms() -> list[Arm]:
    """Every method at its sizes: samples, steps sampled a round, or solutions to reach."""
    found = [Arm("single", make("single"))]
    for name in SAMPLED:
        found += [Arm(f"{name}@{n}", make(name, {"n": n})) for n in SIZES]
    for n in reversed(SIZES):
        found += [Arm(f"{name}@{n}", make(name, {"n": n})) for name in SEARCHES if n >= 4 or name not in WIDE]
    for goals in SIZES[:3]:
        found += [Arm(f"{name}@{goals}", make(name, {"n_goals": goals})) for name in ("a_star", "best_first")]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--problems", type=int, default=500)
    parser.add_argument("--bank", type=Path, default=Path("runs/experiments/bank.db"))
    args = parser.parse_args()
    task = load("pocket", args.problems, seed=0)
    generator, scorer = models()
    outcomes = run_arms(arms(), task, generator, scorer, args.bank)
    votes = [label for label in outcomes if label.startswith("weighted_majority")]
    rows = {}
    for label, found in outcomes.items():
        cost = sum(map(tokens, found))
        nearest = min(votes, key=lambda vote: abs(sum(map(tokens, outcomes[vote])) / cost - 1))
        rows[label] = summary(found) | {
            "flops": fmean(map(flops, found)),
            "against": nearest,
            "minus": minus(found, outcomes[nearest]),
        }
    write(HERE, 0, task, {"arms": rows})
    plot()


def plot() -> None:
    """One line a method: in tokens, in operations, in the longest path, and in seconds where they were measured."""
    rows = json.loads((HERE / "result.json").read_text())["arms"]
    costs: dict[str, Callable[[str], float]] = {
        "generated tokens a problem": lambda label: float(rows[label]["usage"]["generated_tokens"]),
        "GFLOPs a problem, solver and reward model": lambda label: float(rows[label]["flops"]) / 1e9,
        "tokens on the longest path of the search": lambda label: float(rows[label]["passes"]),
    }
    timed = json.loads(SECONDS.read_text()) if SECONDS.exists() else {"seconds": {}}
    if rows.keys() <= timed["seconds"].keys():
        seconds = f"seconds a problem, {timed['n_problems']} at once, median of three rounds"
        costs[seconds] = lambda label: float(timed["seconds"][label]["value"])
    figure, panels = plt.subplots(1, len(costs), figsize=(4.7 * len(costs), 5.2), dpi=150, sharey=True)
    names = list(dict.fromkeys(label.partition("@")[0] for label in rows))
    for axes, (title, cost) in zip(panels, costs.items(), strict=True):
        for place, name in enumerate(names):
            mine = sorted((label for label in rows if label.partition("@")[0] == name), key=cost)
            y, whiskers = bars(rows[label]["accuracy"] for label in mine)
            style = {"color": COLOURS[place % len(COLOURS)], "ls": ("-", "--", ":")[place // len(COLOURS)]}
            x, shown = list(map(cost, mine)), name.replace("_", " ")
            axes.errorbar(x, y, whiskers, label=shown, marker="o", ms=3.5, elinewidth=0.4, **style)
        if "longest" not in title:
            axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}" if value >= 1 else f"{value:g}")
        axes.set_xlabel(title)
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("right answers, %")
    panels[0].set_title("500 held-out word problems, 95% intervals", loc="left", fontsize=10)
    figure.legend(
        *panels[0].get_legend_handles_labels(), frameon=False, loc="outside lower center", ncols=6, fontsize=9
    )
    save(figure, HERE / "plot.png", (0, 0.14, 1, 1))


if __name__ == "__main__":
    main()
