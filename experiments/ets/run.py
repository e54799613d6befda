"""Row 05: does ETS hold fewer keys and values than REBASE, and lose nothing (Hooper et al. 2025, arXiv 2502.13575)?

    python -m experiments.ets.run            # 300 problems of 4 to 8 computations; an hour on two idle cores

Beam search, DVTS, REBASE and ETS with the same model, rewards and seeds, at widths 8 and 16; ETS without its coverage
term, and with node prices around the published one. What is held is counted as published: at each depth all nodes that
were sampled there with their ancestors, before that depth is pruned; the prompt once.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt

from experiments.arms import Arm, held, minus, models, points, ratio, run_arms, summary, times, write
from experiments.plot import COLOURS, bars, save
from thinktime.bench.runner import Outcome
from thinktime.bench.statistics import mean_interval
from thinktime.bench.tasks import load
from thinktime.generators.local import LocalGenerator
from thinktime.strategies import parse

HERE = Path(__file__).parent
LEVELS = (3, 4, 5)
METHODS = ("beam_search", "dvts", "rebase", "ets", "ets:coverage=0")
PRICES = (0.5, 2, 4)


def labelled(method: str, n: int) -> str:
    """The strategy as it is typed."""
    name, _, options = method.partition(":")
    return f"{name}:n={n}" + (f",{options}" if options else "")


def final_answers(outcome: Outcome) -> float:
    """How many solutions finished with something different to say at the end."""
    return float(len({node["text"].strip() for node in outcome.trace if node["finish"] == "eos"}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--problems", type=int, default=500, help="of all levels; those of 3 to 5 are used")
    parser.add_argument("--sizes", type=int, nargs="+", default=[8, 16])
    parser.add_argument("--bank", type=Path, default=Path("runs/experiments/bank.db"))
    args = parser.parse_args()
    task = load("pocket", args.problems, seed=0)
    task = replace(task, problems=tuple(p for p in task.problems if p.metadata["level"] in LEVELS))
    generator, scorer = models()
    labels = [labelled(method, n) for n in args.sizes for method in METHODS]
    labels += [labelled(f"ets:node_price={price}", max(args.sizes)) for price in PRICES]
    outcomes = run_arms([Arm(label, parse(label)[1]) for label in labels], task, generator, scorer, args.bank)
    sizes = {label: held_by(found, generator) for label, found in outcomes.items()}
    rows: dict[str, Any] = {}
    for label, found in outcomes.items():
        rebase = labelled("rebase", int(label.partition("n=")[2].partition(",")[0]))
        rows[label] = summary(found) | {
            "held_tokens": mean_interval(sizes[label]).as_dict(),
            "rebase_over_this_held": ratio(sizes[rebase], sizes[label]),
            "minus_rebase": minus(found, outcomes[rebase]),
            "final_answers": mean_interval([final_answers(outcome) for outcome in found]).as_dict(),
        }
    ablation = {
        str(n): {
            "final_answers": minus(
                outcomes[labelled("ets", n)], outcomes[labelled("ets:coverage=0", n)], of=final_answers
            ),
            "accuracy": minus(outcomes[labelled("ets", n)], outcomes[labelled("ets:coverage=0", n)]),
        }
        for n in args.sizes
    }
    lines = verdict(rows, ablation, args.sizes)
    write(HERE, 0, task, {"levels": LEVELS, "arms": rows, "coverage_term": ablation, "verdict": lines})
    plot({label: (row["held_tokens"]["value"], row["accuracy"]) for label, row in rows.items()})
    print("\n".join(lines))


def held_by(found: Sequence[Outcome], generator: LocalGenerator) -> list[float]:
    """Tokens held, problem by problem."""
    return [held(outcome, len(generator.root(outcome.problem).prompt)) for outcome in found]


def verdict(rows: Mapping[str, Any], ablation: Mapping[str, Any], sizes: Sequence[int]) -> list[str]:
    """Against the card: under 1.1 times fewer tokens held at matched accuracy, or a coverage term without effect."""
    lines = []
    for n in sizes:
        row, term = rows[labelled("ets", n)], ablation[str(n)]["final_answers"]
        saved, lost = row["rebase_over_this_held"], row["minus_rebase"]
        holds = saved["value"] >= 1.1 and lost["value"] >= -0.02 and not term["low"] <= 0 <= term["high"]
        lines.append(
            f"width {n}: {'holds' if holds else 'falsified'}: REBASE holds {times(saved)} times as many tokens; "
            f"accuracy {points(lost)} points; the coverage term makes {times(term)} more different final answers"
        )
    return lines


def plot(points: dict[str, tuple[float, dict[str, float]]]) -> None:
    """Accuracy against what is held; a line joins the sizes of a method."""
    figure, axes = plt.subplots(figsize=(8, 4.8), dpi=150)
    methods = [*METHODS, "ets:node_price"]
    for place, method in enumerate(methods):
        name, _, option = method.partition(":")
        mine = [
            point
            for label, point in points.items()
            if label.startswith(f"{name}:") and (option in label if option else label.count("=") == 1)
        ]
        mine.sort(key=lambda point: point[0])
        y, whiskers = bars(accuracy for _, accuracy in mine)
        axes.errorbar(
            [size for size, _ in mine], y, whiskers,
            label=method.replace("_", " ").replace(":", ", "), color=COLOURS[place], marker="o", ms=4, elinewidth=0.7,
        )  # fmt: skip
    axes.set_xlabel("tokens of keys and values held, mean over depths")
    axes.set_ylabel("right answers, %")
    axes.set_title("Tree searches at widths 8 and 16, problems of 4 to 8 computations", loc="left", fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    axes.legend(frameon=False, fontsize=8)
    save(figure, HERE / "plot.png")


if __name__ == "__main__":
    main()
