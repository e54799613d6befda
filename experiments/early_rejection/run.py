"""Row 17: can a step be given up after its first tokens (Cheshmi et al. 2025, arXiv 2508.01969)?

    python -m experiments.early_rejection.run        # 500 problems; half an hour on two idle cores

First the reward model is read at every prefix of dev steps: how its partial score goes with that of the whole step, and
how many of the best quarter of 16 steps it keeps, by tokens read. The least tau that keeps 90% is then held
to its promise on test problems: against beam search of the same size, and against giving up as many steps at random.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Sequence
from math import ceil, sqrt
from pathlib import Path
from statistics import fmean
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from scipy.stats import kendalltau

from experiments.arms import (
    SAMPLING,
    Arm,
    flops,
    minus,
    models,
    points,
    ratio,
    run_arms,
    summary,
    times,
    tokens,
    write,
)
from experiments.plot import COLOURS, bars, save
from thinktime.bench.statistics import mean_interval
from thinktime.bench.tasks import Task, load
from thinktime.core.search import Search
from thinktime.core.types import Node
from thinktime.engine.models import load_reward_model
from thinktime.engine.rows import Read
from thinktime.generators.local import LocalGenerator
from thinktime.pocket import directory
from thinktime.scorers.prm import DIGITS, ProcessReward
from thinktime.strategies import parse

HERE = Path(__file__).parent
TAUS = (2, 4, 6, 8, 12, 16, 24)
RECALL = 0.9


def calibrate(
    task: Task, generator: LocalGenerator, scorer: ProcessReward, n: int = 16, share: float = 0.25
) -> dict[str, Any]:
    """Partial against whole scores of ``n`` next steps behind a prefix of every problem, and how many they would keep.

    Many of ``n`` steps are the same; ``recall`` counts them as a search does, ``recall_of_different`` once, over the
    problems where there are two or more.
    """
    engine = load_reward_model(directory("reward"), "float64").engine()
    found: dict[int, list[tuple[float, float]]] = {tau: [] for tau in TAUS}
    pooled: dict[int, list[tuple[float, float]]] = {tau: [] for tau in TAUS}
    different: dict[int, list[float]] = {tau: [] for tau in TAUS}
    lengths: list[int] = []

    async def steps_of(place: int) -> list[Node]:
        search = Search(task.problems[place], generator, scorer=scorer, sampling=SAMPLING, seed=1)
        node = search.root
        for _ in range(place % 4):  # behind 0 to 3 steps
            further = await search.extend([node], until="step")
            node = further[0] if further and further[0].finish == "step" else node
        return await search.extend([node], n, until="step")

    async def all_steps() -> list[list[Node]]:
        return list(await asyncio.gather(*(steps_of(place) for place in range(len(task.problems)))))

    for children in asyncio.run(all_steps()):
        reads = [Read(c.state.prompt + c.state.ids, len(c.state.prompt)) for c in children]
        values = [output.values for output in engine.run(reads)]
        right = [np.round(v.double().softmax(-1)[:, 1].numpy(), DIGITS) for v in values if v is not None]
        starts = [len(child.parent.state.ids) if child.parent else 0 for child in children]
        first = list({child.state: place for place, child in reversed(list(enumerate(children)))}.values())
        lengths += [len(row) - start for row, start in zip(right, starts, strict=True)]
        whole = [float(row[-1]) for row in right]
        for tau in TAUS:
            partial = [float(row[min(start + tau, len(row)) - 1]) for row, start in zip(right, starts, strict=True)]
            rank = float(kendalltau(partial, whole).statistic) if len(set(partial)) > 1 < len(set(whole)) else 0.0
            found[tau].append((recall(partial, whole, share), rank))
            pooled[tau] += zip(partial, whole, strict=True)
            if len(first) > 1:
                different[tau].append(recall([partial[i] for i in first], [whole[i] for i in first], share))
    mean_length = fmean(lengths)
    return {
        "n_problems": len(task.problems),
        "n_problems_with_different_steps": len(different[TAUS[0]]),
        "step_tokens": {"mean": mean_length, "p10_p90": np.percentile(lengths, [10, 90]).tolist()},
        "by_tau": {
            str(tau): {
                "correlation": float(np.corrcoef(np.array(pooled[tau]).T)[0, 1]),
                "if_tokens_were_independent": min(1.0, sqrt(tau / mean_length)),
                "kendall": mean_interval([rank for _, rank in found[tau]]).as_dict(),
                "recall": mean_interval([kept for kept, _ in found[tau]]).as_dict(),
                "recall_of_different": mean_interval(different[tau]).as_dict(),
                "steps_ended_by_then": fmean(length <= tau for length in lengths),
            }
            for tau in TAUS
        },
    }


def recall(partial: Sequence[float], whole: Sequence[float], share: float) -> float:
    """How many of the best by whole scores are the best by partial ones; ties go to the earlier, as in a search."""
    keep = ceil(share * len(whole))
    best, kept = (set(np.argsort([-v for v in side], kind="stable")[:keep].tolist()) for side in (whole, partial))
    return len(best & kept) / keep


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--problems", type=int, default=500)
    parser.add_argument("--bank", type=Path, default=Path("runs/experiments/bank.db"))
    args = parser.parse_args()
    generator, scorer = models()
    calibration = calibrate(load("pocket", 200, split="dev", seed=3), generator, scorer)
    recalls = {tau: calibration["by_tau"][str(tau)]["recall"]["value"] for tau in TAUS}
    chosen = next((tau for tau in TAUS if recalls[tau] >= RECALL), TAUS[-1])
    print({tau: round(recall, 3) for tau, recall in recalls.items()}, "tau", chosen, flush=True)
    others = [tau for tau in (4, 8, 16) if tau != chosen]
    labels = ["beam_search:n=16", "beam_search:n=8", f"early_rejection:n=16,tau={chosen}"]
    labels += [f"early_rejection:n=16,tau={chosen},keep=random", f"early_rejection:n=8,tau={chosen}"]
    labels += [f"early_rejection:n=16,tau={tau}" for tau in others]
    task = load("pocket", args.problems, seed=0)
    outcomes = run_arms([Arm(label, parse(label)[1]) for label in labels], task, generator, scorer, args.bank)
    cost = {label: list(map(flops, found)) for label, found in outcomes.items()}
    rows = {}
    for label, found in outcomes.items():
        peer = "beam_search:n=8" if "n=8" in label else "beam_search:n=16"
        beam = outcomes[peer]
        rows[label] = summary(found) | {
            "minus_beam": minus(found, beam),
            "flops": fmean(cost[label]),
            "beam_over_this_flops": ratio(cost[peer], cost[label]),
            "beam_over_this_tokens": ratio([tokens(o) for o in beam], [tokens(o) for o in found]),
        }
    against_random = minus(outcomes[labels[2]], outcomes[labels[3]])
    lines = verdict(rows[labels[2]], against_random, recalls[chosen], chosen)
    result = {"calibration": calibration, "tau": chosen, "arms": rows, "minus_random": against_random, "verdict": lines}
    write(HERE, 0, task, result)
    plot(calibration, rows)
    print("\n".join(lines))


def verdict(row: dict[str, Any], random: dict[str, float], recall: float, tau: int) -> list[str]:
    """Against the card: at a tau of recall 0.9, more than 2 points lost, or random rejection as good."""
    lost, saved = row["minus_beam"], row["beam_over_this_flops"]
    holds = lost["value"] >= -0.02 and random["low"] > 0
    return [
        f"tau {tau}, recall {recall:.2f}: {'holds' if holds else 'falsified'}: {points(lost)} points against beam "
        f"search, which takes {times(saved)} times the operations; {points(random)} against random rejection"
    ]


def plot(calibration: dict[str, Any], rows: dict[str, dict[str, Any]]) -> None:
    """What a partial score knows, and what acting on it costs and saves."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4.2), dpi=150)
    by_tau = calibration["by_tau"]
    for place, (name, values) in enumerate(
        {
            "correlation with the whole step": [by_tau[str(tau)]["correlation"] for tau in TAUS],
            "if tokens were independent": [by_tau[str(tau)]["if_tokens_were_independent"] for tau in TAUS],
            "best quarter kept": [by_tau[str(tau)]["recall"]["value"] for tau in TAUS],
            "the same of different steps": [by_tau[str(tau)]["recall_of_different"]["value"] for tau in TAUS],
            "steps ended by then": [by_tau[str(tau)]["steps_ended_by_then"] for tau in TAUS],
        }.items()
    ):
        left.plot(TAUS, values, "o-", ms=4, color=COLOURS[place], label=name)
    left.set_xlabel("tokens of the step that are read")
    left.set_ylim(0, 1.02)
    labels = {label: label.replace("early_rejection:", "early rejection, ").replace("_", " ") for label in rows}
    for place, (label, row) in enumerate(rows.items()):
        x = [row["flops"] / 1e9]
        right.errorbar(
            x, *bars([row["accuracy"]]), fmt="o", ms=5, color=COLOURS[place % len(COLOURS)], label=labels[label]
        )
    right.set_xlabel("GFLOPs a problem, generator and reward model")
    right.set_ylabel("right answers, %")
    for axes in (left, right):
        axes.legend(frameon=False, fontsize=7)
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    save(figure, HERE / "plot.png")


if __name__ == "__main__":
    main()
