"""Row 17: can a step be given up after its first tokens (Cheshmi et al. 2025, arXiv 2508.01969)?

    python -m experiments.early_rejection.run        # 500 problems; half an hour on two idle cores

The reward model is read at every prefix of dev steps. The least tau that keeps 90% of the best quarter of 16 steps is
held to its promise on test problems: against beam search of the same size, against giving up as many steps at random,
and against the weighted vote that takes as many operations.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from math import sqrt
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from scipy.stats import kendalltau

from experiments.harness import (
    SAMPLING,
    Experiment,
    flops,
    minus,
    options,
    over,
    reward_model,
    summary,
    tokens,
    vote_of_equal_cost,
)
from experiments.intervals import Estimate, as_number, as_points, mean
from experiments.plot import COLOURS, grouped, lines, panels, save
from thinktime.bench.tasks import load
from thinktime.core.types import MAIN, Node
from thinktime.planning.rejection import Steps, least_tau, partial, read_along, recall
from thinktime.session import Session

HERE = Path(__file__).parent
TAUS = (2, 4, 6, 8, 12, 16, 24)
VOTE = "weighted_majority:n=16"


def calibration(found: Sequence[Steps], share: float = 0.25) -> dict[str, Any]:
    """How partial scores go with whole ones by tokens read, and how many of the best steps they would keep.

    Many of the steps of a problem are the same; ``recall`` counts them as a search does, ``recall_of_different`` once,
    over the problems where there are two or more.
    """
    lengths = [len(rewards) for steps in found for rewards in steps.values()]
    several = [steps for steps in map(different, found) if len(steps) > 1]
    mean_length = fmean(lengths)

    def recalls(some: Sequence[Steps], tau: int) -> Estimate:
        return mean(recall(partial(steps, tau), partial(steps, max(lengths)), share) for steps in some)

    by_tau = {}
    for tau in TAUS:
        pairs = [(partial(steps, tau), partial(steps, max(lengths))) for steps in found]
        by_tau[str(tau)] = {
            "correlation": float(np.corrcoef(np.hstack(pairs))[0, 1]),
            "if_tokens_were_independent": min(1.0, sqrt(tau / mean_length)),
            "kendall": mean(rank_correlation(early, whole) for early, whole in pairs),
            "recall": recalls(found, tau),
            "recall_of_different": recalls(several, tau),
            "steps_ended_by_then": fmean(length <= tau for length in lengths),
        }
    return {
        "n_problems": len(found),
        "n_problems_with_different_steps": len(several),
        "step_tokens": {"mean": mean_length, "p10_p90": np.percentile(lengths, [10, 90]).tolist()},
        "by_tau": by_tau,
    }


def rank_correlation(a: Sequence[float], b: Sequence[float]) -> float:
    """Kendall's tau, 0 where all values of a side are the same."""
    return float(kendalltau(a, b).statistic) if len(set(a)) > 1 < len(set(b)) else 0.0


def different(steps: Steps) -> Steps:
    """The first of each that say the same."""
    first: dict[Any, Node] = {}
    for node in steps:
        first.setdefault(node.state, node)
    return {node: steps[node] for node in first.values()}


def main() -> None:
    scorer = reward_model()
    experiment = Experiment(HERE, options(__doc__).parse_args(), scorer=scorer)
    dev = load("pocket", 200, split="dev", seed=3)
    steps = asyncio.run(read_along(dev, Session({MAIN: experiment.generator}, sampling=SAMPLING), scorer))
    calibrated = calibration(steps)
    chosen, kept = least_tau(steps, share=0.25)
    print(f"tau {chosen} keeps {kept:.3f} of the best quarter", flush=True)
    rejecting = f"early_rejection:n=16,tau={chosen}"
    at_random = f"{rejecting},keep=random"
    labels = ["beam_search:n=16", "beam_search:n=8", rejecting, at_random, f"early_rejection:n=8,tau={chosen}"]
    labels += [f"early_rejection:n=16,tau={tau}" for tau in (4, 8, 16) if tau != chosen]
    outcomes = experiment.run([*labels, VOTE])
    equal = vote_of_equal_cost(outcomes[rejecting], outcomes[VOTE], 16)
    outcomes |= experiment.run([equal])
    rows = {}
    for label, found in outcomes.items():
        beam = outcomes["beam_search:n=8" if "n=8" in label else "beam_search:n=16"]
        rows[label] = summary(found) | {
            "minus_beam": minus(found, beam),
            "flops": fmean(map(flops, found)),
            "beam_over_this_flops": over(beam, found, flops),
            "beam_over_this_tokens": over(beam, found, tokens),
        }
    against_random = minus(outcomes[rejecting], outcomes[at_random])
    against_vote = minus(outcomes[rejecting], outcomes[equal])
    sentences = verdict(rows[rejecting], against_random, kept, chosen)
    sentences.append(f"{as_points(against_vote)} points against {equal}, which takes as many operations")
    against = {"minus_random": against_random, "minus_vote_of_equal_cost": against_vote}
    plot(calibrated, rows, experiment.out)
    experiment.finish({"calibration": calibrated, "tau": chosen, "arms": rows} | against, sentences)


def verdict(row: dict[str, Any], random: dict[str, float], recall: float, tau: int) -> list[str]:
    """Against the card: at a tau of recall 0.9, more than 2 points lost, or random rejection as good."""
    lost, saved = row["minus_beam"], row["beam_over_this_flops"]
    holds = lost["value"] >= -0.02 and random["low"] > 0
    return [
        f"tau {tau}, recall {recall:.2f}: {'holds' if holds else 'falsified'}: {as_points(lost)} points against beam "
        f"search, which takes {as_number(saved)} times the operations; {as_points(random)} against random rejection"
    ]


def line_of(label: str) -> str:
    """Arms of one line: all taus of a width, all widths of the others."""
    name, _, options = label.partition(":")
    if name == "early_rejection":
        name += " of " + re.sub(r"n=|,tau=\d+", "", options).replace(",keep=random", " at random")
    return name.replace("_", " ")


def plot(calibration: dict[str, Any], rows: dict[str, dict[str, Any]], out: Path) -> None:
    """What a partial score knows, and what acting on it costs and saves."""
    figure, (left, right) = panels(2, 10, 4.2)
    by_tau = [calibration["by_tau"][str(tau)] for tau in TAUS]
    known = {
        "correlation with the whole step": [row["correlation"] for row in by_tau],
        "if tokens were independent": [row["if_tokens_were_independent"] for row in by_tau],
        "best quarter kept": [row["recall"]["value"] for row in by_tau],
        "the same of different steps": [row["recall_of_different"]["value"] for row in by_tau],
        "steps ended by then": [row["steps_ended_by_then"] for row in by_tau],
    }
    for colour, (name, values) in zip(COLOURS, known.items(), strict=False):
        left.plot(TAUS, values, "o-", ms=4, color=colour, label=name)
    left.set(xlabel="tokens of the step that are read", ylim=(0, 1.02))
    families = grouped(sorted(((line_of(label), row) for label, row in rows.items()), key=lambda pair: pair[0]))
    lines(right, families, lambda row: float(row["flops"]) / 1e9)
    right.set(xlabel="GFLOPs a problem, generator and reward model", ylabel="right answers, %")
    for axes in (left, right):
        axes.legend(fontsize=7, loc="lower right")
    save(figure, out / "plot.png")


if __name__ == "__main__":
    main()
