"""Row 05: does ETS hold fewer keys and values than REBASE, and lose nothing (Hooper et al. 2025, arXiv 2502.13575)?

    python -m experiments.ets.run --problems 834    # 500 problems of 4 to 8 computations; an hour on one core

Beam search, DVTS, REBASE and ETS with the same model, rewards and seeds, at widths 8 and 16; ETS without its coverage
term, and with node prices around the published one. What is held is counted as published: at each depth all nodes that
were sampled there with their ancestors, before that depth is pruned; the prompt once. Two controls: ETS that keeps
leaves at random, as many nodes as the integer program would, and REBASE of the width that holds as many tokens as ETS.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

import matplotlib.pyplot as plt
import numpy as np

from experiments.arms import Arm, held, minus, models, points, ratio, run_arms, summary, times, write
from experiments.plot import COLOURS, bars, save
from thinktime.bench.runner import Outcome
from thinktime.bench.statistics import mean_interval
from thinktime.bench.tasks import load
from thinktime.generators.local import LocalGenerator
from thinktime.strategies import parse

HERE = Path(__file__).parent
LEVELS = (3, 4, 5)
METHODS = ("beam_search", "dvts", "rebase", "ets", "ets:coverage=0", "ets:keep=random")
PRICES = (0.5, 2, 4)


def labelled(method: str, n: int) -> str:
    """The strategy as it is typed."""
    name, _, options = method.partition(":")
    return f"{name}:n={n}" + (f",{options}" if options else "")


def width_of(label: str) -> int:
    """The width of a labelled strategy."""
    return int(label.partition("n=")[2].partition(",")[0])


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
    labels += [labelled("rebase", max(1, min(args.sizes) // 2))]
    outcomes = run_arms([Arm(label, parse(label)[1]) for label in labels], task, generator, scorer, args.bank)
    sizes = {label: means_held(found, generator) for label, found in outcomes.items()}
    equals = {n: labelled("rebase", width_that_holds(fmean(sizes[labelled("ets", n)]), sizes)) for n in args.sizes}
    arms = [Arm(label, parse(label)[1]) for label in equals.values() if label not in outcomes]
    outcomes |= run_arms(arms, task, generator, scorer, args.bank)
    sizes |= {arm.label: means_held(outcomes[arm.label], generator) for arm in arms}
    rows: dict[str, Any] = {}
    for label, found in outcomes.items():
        rebase = labelled("rebase", width_of(label))
        rows[label] = summary(found) | {
            "held_tokens": mean_interval(sizes[label]).as_dict(),
            "held_tokens_at_most": fmean(max(by_depth) for by_depth in all_held(found, generator)),
            "rebase_over_this_held": ratio(sizes[rebase], sizes[label]),
            "minus_rebase": minus(found, outcomes[rebase]),
            "final_answers": mean_interval([final_answers(outcome) for outcome in found]).as_dict(),
        }
        if label.startswith("ets"):
            rows[label] |= program(found)
    ablation = {
        str(n): {
            "final_answers": minus(
                outcomes[labelled("ets", n)], outcomes[labelled("ets:coverage=0", n)], of=final_answers
            ),
            "accuracy": minus(outcomes[labelled("ets", n)], outcomes[labelled("ets:coverage=0", n)]),
        }
        for n in args.sizes
    }
    controls = {
        str(n): {
            control: {
                "held_over_ets": ratio(sizes[control], sizes[labelled("ets", n)]),
                "ets_minus_this": minus(outcomes[labelled("ets", n)], outcomes[control]),
            }
            for control in (labelled("ets:keep=random", n), equals[n])
        }
        for n in args.sizes
    }
    lines = verdict(rows, ablation, controls)
    result = {"levels": LEVELS, "arms": rows, "coverage_term": ablation, "controls": controls, "verdict": lines}
    write(HERE, 0, task, result)
    plot({label: (row["held_tokens"]["value"], row["accuracy"]) for label, row in rows.items()})
    print("\n".join(lines))


def all_held(found: Sequence[Outcome], generator: LocalGenerator) -> list[list[int]]:
    """Tokens held, problem by problem and depth by depth."""
    return [held(outcome, len(generator.root(outcome.problem).prompt)) for outcome in found]


def means_held(found: Sequence[Outcome], generator: LocalGenerator) -> list[float]:
    """Tokens held, problem by problem, the mean over depths."""
    return [fmean(by_depth) for by_depth in all_held(found, generator)]


def width_that_holds(tokens: float, sizes: Mapping[str, Sequence[float]]) -> int:
    """The width at which REBASE holds about so many, between the widths that were run."""
    known = sorted((width_of(label), fmean(mine)) for label, mine in sizes.items() if label.startswith("rebase"))
    return round(np.interp(tokens, [holds for _, holds in known], [width for width, _ in known]))


def program(found: Sequence[Outcome]) -> dict[str, float]:
    """How often the integer program gives up a leaf, and how many of those it keeps REBASE gives no children."""
    rounds = [event for outcome in found for event in outcome.events if "kept" in event]
    kept = sum(event["kept"] for event in rounds)
    return {
        "rounds_with_a_leaf_given_up": fmean(event["kept"] < event["leaves"] for event in rounds),
        "kept_without_children": 1 - sum(event["expanded"] for event in rounds) / kept,
    }


def verdict(rows: Mapping[str, Any], ablation: Mapping[str, Any], controls: Mapping[str, Any]) -> list[str]:
    """Against the card: under 1.1 times fewer tokens held at matched accuracy, or a coverage term without effect."""
    lines = []
    for n, others in controls.items():
        row, term = rows[labelled("ets", int(n))], ablation[n]["final_answers"]
        saved, lost = row["rebase_over_this_held"], row["minus_rebase"]
        holds = saved["value"] >= 1.1 and lost["value"] >= -0.02 and not term["low"] <= 0 <= term["high"]
        lines.append(
            f"width {n}: {'holds' if holds else 'falsified'}: REBASE holds {times(saved)} times as many tokens; "
            f"accuracy {points(lost)} points; the coverage term makes {times(term)} more different final answers"
        )
        for control, found in others.items():
            lines.append(
                f"width {n}: {points(found['ets_minus_this'])} points against {control}, which holds "
                f"{times(found['held_over_ets'])} times as many tokens"
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
    widths = sorted(map(width_of, points))
    title = f"Tree searches of width {widths[0]} to {widths[-1]}, problems of 4 to 8 computations"
    axes.set_title(title, loc="left", fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    axes.legend(frameon=False, fontsize=8)
    save(figure, HERE / "plot.png")


if __name__ == "__main__":
    main()
