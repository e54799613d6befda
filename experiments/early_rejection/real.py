"""Row 17 on a real model: Qwen2.5-Coder-0.5B writes programs for GSM8K, and a step is a line.

    python -m experiments.early_rejection.real --data FOLDER       # 40 problems; half an hour on one core

The reward is the model's confidence, which costs nothing. A line of code has 9 tokens (median), so a step is judged
after 4. Beam search is the same search without rejection.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import exp
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from experiments.early_rejection.run import rank_correlation
from experiments.intervals import mean
from experiments.live import Live, options, rows
from thinktime.bank.store import Bank
from thinktime.bench.runner import Outcome
from thinktime.generators.text import LOGPROB_DIGITS
from thinktime.planning.rejection import recall

HERE = Path(__file__).parent
TAU = 4
TAUS = (1, 2, 4, 6, 8)
BEAM = "beam_search:n=8,width=4"
REJECTING = f"early_rejection:n=8,width=4,tau={TAU}"
KEPT = 1 / 4
"""Share of the steps that the search keeps."""


def siblings(outcomes: Sequence[Outcome], bank: Bank) -> Iterator[tuple[list[list[float]], float, int]]:
    """The steps after each prefix: the log-probabilities of their tokens, the prefix's log-probability and tokens."""
    for outcome in outcomes:
        logprobs: dict[str, list[float]] = {}
        children: dict[str, list[list[float]]] = {}
        for node in outcome.trace:
            sample = bank.find_sample(node["key"])
            new = [-lp / 10**LOGPROB_DIGITS for lp in sample["state"]["logprobs"]] if sample is not None else []
            logprobs[node["key"]] = logprobs.get(node["parent"], []) + new
            if new and node["finish"] == "step":
                children.setdefault(node["parent"], []).append(new)
        for parent, steps in children.items():
            before = logprobs.get(parent, [])
            yield steps, sum(before), len(before)


def confidence(step: Sequence[float], tau: int, before: float, length: int) -> float:
    """The confidence of a prefix and the first ``tau`` tokens of its next step."""
    read = step[:tau]
    return exp((before + sum(read)) / (length + len(read)))


def calibration(found: Sequence[tuple[list[list[float]], float, int]]) -> dict[str, Any]:
    """How partial rewards go with whole ones: over all steps longer than tau, and among different steps of a prefix."""
    by_tau = {}
    for tau in TAUS:
        early: list[float] = []
        whole: list[float] = []
        ranks, kept = [], []
        for steps, before, length in found:
            longer = [step for step in steps if len(step) > tau]
            early += [confidence(step, tau, before, length) for step in longer]
            whole += [confidence(step, len(step), before, length) for step in longer]
            distinct = [list(step) for step in dict.fromkeys(map(tuple, steps))]
            if len(distinct) > 1:
                partial = [confidence(step, tau, before, length) for step in distinct]
                final = [confidence(step, len(step), before, length) for step in distinct]
                kept.append(recall(partial, final, KEPT))
                ranks.append(rank_correlation(partial, final))
        by_tau[str(tau)] = {
            "correlation": float(np.corrcoef(early, whole)[0, 1]) if len(early) > 2 else None,
            "n_steps": len(early),
            "kendall_within": mean(ranks),
            "recall_of_different": mean(kept),
            "n_prefixes": len(kept),
        }
    lengths = [len(step) for steps, _, _ in found for step in steps]
    return {"by_tau": by_tau, "step_tokens": {"mean": fmean(lengths), "median": float(np.median(lengths))}}


def main() -> None:
    live = Live(HERE, options(__doc__, problems=40).parse_args())
    outcomes = live.searches([BEAM, REJECTING]) | live.beside()
    with Bank(live.bank) as bank:
        calibrated = calibration(list(siblings(outcomes[BEAM], bank)))
    found = rows(outcomes, BEAM)
    live.finish({"tau": TAU, "calibration": calibrated, "arms": found})
    print(text(found, calibrated))


def text(found: Mapping[str, Any], calibrated: Mapping[str, Any]) -> str:
    """The main figures."""
    row, of_tau = found[REJECTING], calibrated["by_tau"][str(TAU)]
    return f"{row['minus_baseline']} for {row['baseline_over_this_tokens']}; correlation {of_tau['correlation']:.2f}"


if __name__ == "__main__":
    main()
