"""Row 45 on a real model: Qwen2.5-Coder-0.5B writes programs for GSM8K, and a step is a line.

    python -m experiments.a_star.real --data FOLDER       # 40 problems; half an hour on one core

The reward is the model's confidence, which costs nothing. Best-of-n, the weighted vote and the vote select among the
committed independent samples by the same confidence.
"""

from __future__ import annotations

from pathlib import Path

from experiments.a_star.run import went_back
from experiments.live import RECORDED, Live, options, rows

HERE = Path(__file__).parent
A_STAR = ["a_star:k=4", "a_star:k=4,edge_cost=zero"]
BEST = f"best_of_n:n={RECORDED}"


def main() -> None:
    live = Live(HERE, options(__doc__, problems=40).parse_args())
    outcomes = live.searches(A_STAR) | live.beside()
    found = rows(outcomes, BEST)
    for label in A_STAR:
        found[label]["went_back"] = went_back(outcomes[label])
    live.finish({"arms": found})


if __name__ == "__main__":
    main()
