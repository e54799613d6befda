"""Make the shipped models from nothing: the commands that made them, in their order, with their parameters.

    python -m training.reproduce                 # three hours on two idle CPU cores

The same code, torch build and kind of processor give the same weights; the fingerprints to expect are in
``training/LOG.md``. A stage whose product is there is skipped, so a stopped run goes on where it stopped.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

SOLVER = "018.1M"
"""The checkpoint that is shipped, by tokens seen; the end of the same run is the reward model's backbone."""
SCHEDULE = "--steps 4600 --save-every 1e6"
AGAIN = "--steps 700 --seed 1 --muon-rate 0.008 --adam-rate 0.0015"
"""The second run of the skills. The first run of the shipped weights had another task among its rows: see the log."""
ON = "--steps 750 --seed 1 --adam-rate 0.0012"
"""The second run of the retries."""
SCALE = "--scale 1.848"
"""What ``training.calibrate`` printed."""


def stages(runs: Path, out: Path) -> list[tuple[Path, str]]:
    """What each stage makes, and the module and arguments that make it."""
    samples = f"training.sample --model {out}/solver --samples 8"
    own = f"--samples {runs}/own --dev {runs}/own_dev --out"
    retry = f"--samples {runs}/retry_samples --out {runs}/retry"
    reward = f"--init {runs}/compare/final --samples {runs}/samples --dev {runs}/dev"
    return [
        (runs / "solver/final", f"training.solver --compile {SCHEDULE} --out {runs}/solver"),
        (out / "solver", f"training.ship solver {runs}/solver/{SOLVER} --out {out}/solver"),
        (runs / "samples", f"{samples} --problems 14000 --out {runs}/samples"),
        (runs / "dev", f"{samples} --problems 300 --split dev --out {runs}/dev"),
        (runs / "compare/final", f"training.compare --steps 200 --backbone {runs}/solver/final --out {runs}/compare"),
        (runs / "reward/final", f"training.reward --steps 1500 {reward} --out {runs}/reward"),
        (out / "reward", f"training.ship reward {runs}/reward/final --out {out}/reward"),
        (runs / "own", f"{samples} --problems 12000 --seed 17 --out {runs}/own"),
        (runs / "own_dev", f"{samples} --problems 300 --seed 17 --split dev --out {runs}/own_dev"),
        (runs / "own_compare/final", f"training.compare --steps 200 --backbone {out}/solver --out {runs}/own_compare"),
        (runs / "skills/final", f"training.skills --steps 1100 --init {runs}/own_compare/final {own} {runs}/skills"),
        (runs / "skilled/final", f"training.skills {AGAIN} --init {runs}/skills/final {own} {runs}/skilled"),
        (out / "skilled", f"training.ship skilled {runs}/skilled/final --out {out}/skilled"),
        (runs / "retry_samples", f"{samples} --problems 4000 --seed 17 --out {runs}/retry_samples"),
        (runs / "retry_first/final", f"training.retry --steps 1300 --until 300 --init {out}/reward {retry}_first"),
        (runs / "retry/final", f"training.retry {ON} --init {runs}/retry_first/final {retry}"),
        (out / "retry", f"training.ship retry {runs}/retry/final --out {out}/retry"),
        (
            runs / "self/final",
            f"training.self_evaluation --steps 700 --init {runs}/own_compare/final {own} {runs}/self",
        ),
        (
            out / "self_evaluation",
            f"training.ship self_evaluation {runs}/self/final {SCALE} --out {out}/self_evaluation",
        ),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="checkpoints and samples")
    parser.add_argument("--out", type=Path, default=Path("runs/shipped"), help="the two model directories")
    args = parser.parse_args()
    torchrun = str(Path(sys.executable).with_name("torchrun"))
    for product, command in stages(args.runs, args.out):
        if product.exists():
            print(f"{product} is there", flush=True)
            continue
        print(command, flush=True)
        alone = command.startswith("training.ship") or "--split dev" in command
        start = [sys.executable, "-m"] if alone else [torchrun, "--nproc-per-node", "2", "-m"]
        subprocess.run([*start, *command.split()], check=True, env=os.environ | {"OMP_NUM_THREADS": "1"})


if __name__ == "__main__":
    main()
