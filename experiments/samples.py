"""Fill a bank with independent samples of the shipped solver, for the experiments that only read samples.

python -m experiments.samples --bank runs/samples.db     # 200 problems, 256 samples each; ten minutes on two cores
"""

from __future__ import annotations

import argparse
from pathlib import Path

from experiments.harness import language_model, reward_model, run_arms
from thinktime.bench.tasks import load


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--problems", type=int, default=200)
    parser.add_argument("--samples", type=int, default=256)
    parser.add_argument("--split", default="test")
    parser.add_argument("--bank", type=Path, default=Path("runs/samples.db"))
    args = parser.parse_args()
    task = load("pocket", args.problems, split=args.split, seed=0)
    run_arms([f"majority:n={args.samples}"], task, language_model(), reward_model(), args.bank)


if __name__ == "__main__":
    main()
