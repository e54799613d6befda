"""All methods that need no trained skill, on the same 500 held-out problems, at four sizes each.

    python -m experiments.summary.run            # an hour on two idle cores; a killed run goes on

Arms share samples here, so seconds are measured apart: see ``experiments.summary.seconds``.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from statistics import fmean

from experiments.harness import Arm, Experiment, flops, minus, nearest_cost, options, summary
from experiments.plot import ResultRow, generated, grouped, legend_below, lines, logarithmic, panels, save
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
    experiment = Experiment(HERE, options(__doc__).parse_args())
    outcomes = experiment.run(arms())
    votes = [label for label in outcomes if label.startswith("weighted_majority")]
    rows = {}
    for label, found in outcomes.items():
        nearest = nearest_cost(found, outcomes, votes)
        rows[label] = summary(found) | {
            "flops": fmean(map(flops, found)),
            "against": nearest,
            "minus": minus(found, outcomes[nearest]),
        }
    experiment.finish({"arms": rows})
    plot(experiment.out)


def plot(out: Path = HERE) -> None:
    """One line a method: in tokens, in operations, in the longest path, and in seconds where they were measured."""
    rows = json.loads((out / "result.json").read_text())["arms"]
    costs: dict[str, Callable[[ResultRow], float]] = {
        "generated tokens a problem": generated,
        "GFLOPs a problem, solver and reward model": lambda row: float(row["flops"]) / 1e9,
        "tokens on the longest path of the search": lambda row: float(row["passes"]),
    }
    timed = json.loads(SECONDS.read_text()) if SECONDS.exists() else {"seconds": {}}
    if rows.keys() <= timed["seconds"].keys():
        seconds = f"seconds a problem, {timed['n_problems']} at once, median of three rounds"
        costs[seconds] = lambda row: float(row["seconds"]["value"])
        rows = {label: row | {"seconds": timed["seconds"][label]} for label, row in rows.items()}
    figure, each = panels(len(costs), 4.7 * len(costs), 5.2, sharey=True)
    families = grouped((label.partition("@")[0].replace("_", " "), row) for label, row in rows.items())
    for axes, (title, cost) in zip(each, costs.items(), strict=True):
        lines(axes, families, cost)
        if "longest" in title:
            axes.set_xlabel(title)
        else:
            logarithmic(axes, title)
    each[0].set(ylabel="right answers, %", title="500 held-out word problems, 95% intervals")
    legend_below(figure, each[0], 6)
    save(figure, out / "plot.png", (0, 0.14, 1, 1))


if __name__ == "__main__":
    main()
