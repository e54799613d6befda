"""What the control and the real run share: the best architecture of a space, and what searches find of it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

from experiments.intervals import as_number, mean
from thinktime.planning.architectures import SearchSpace, search

METHODS = ("gp", "tpe", "greedy", "random")
SEEDS = 20
EVALUATIONS = 40
CLOSE = 0.01
"""A search has found the optimum if it is this close."""


def best(space: SearchSpace, scores: Sequence[float]) -> int:
    """The place of the best architecture; of equal ones the one with the fewest calls."""
    return max(range(len(scores)), key=lambda place: (round(scores[place], 9), -space.costs[place].calls))


def compared(space: SearchSpace, scores: Sequence[float]) -> dict[str, Any]:
    """What each search has found after as many evaluations, over seeds."""
    optimum = max(scores)
    found: dict[str, dict[str, Any]] = {}
    by_layers = dict(zip(space.layers, scores, strict=True))
    for method in METHODS:
        runs = []
        for seed in range(SEEDS):
            trials = search(space, by_layers.__getitem__, method, n_init=10, n_iter=EVALUATIONS - 10, seed=seed)
            runs.append(list(accumulate((trial.score for trial in trials), max)))
        until = [next((i for i, s in enumerate(r, 1) if s >= optimum - CLOSE), EVALUATIONS + 1) for r in runs]
        found[method] = {
            "gap": {str(k): mean(optimum - run[min(k, len(run)) - 1] for run in runs) for k in (10, 20, EVALUATIONS)},
            "found": mean(float(u <= EVALUATIONS) for u in until),
            "evaluations_until_found": mean(until),
        }
        print(f"  {method}: evaluations {as_number(found[method]['evaluations_until_found'], 1)}", flush=True)
    return found
