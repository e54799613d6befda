"""All methods that need no trained skill, on the same 500 held-out problems, at four sizes each.

    python -m experiments.summary.run            # an hour and a half on two idle cores; a killed run goes on

Accuracy against tokens, operations and machine seconds, every point with its interval, and every method against the
weighted vote over samples at the size whose tokens are nearest.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from experiments.arms import Arm, minus, models, run_arms, summary, tokens, write
from thinktime.bench.tasks import load
from thinktime.strategies import make

HERE = Path(__file__).parent
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
    outcomes = run_arms(arms(), task, *models(), args.bank)
    votes = [label for label in outcomes if label.startswith("weighted_majority")]
    rows = {}
    for label, found in outcomes.items():
        cost = sum(map(tokens, found))
        nearest = min(votes, key=lambda vote: abs(sum(map(tokens, outcomes[vote])) / cost - 1))
        rows[label] = summary(found) | {"against": nearest, "minus": minus(found, outcomes[nearest])}
    write(HERE, 0, task, {"arms": rows})


if __name__ == "__main__":
    main()
