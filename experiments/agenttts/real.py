"""Row 39 on a real model: Qwen2.5-Coder-0.5B writes functions for HumanEval, and repairs failing ones.

    python -m experiments.agenttts.real --data FOLDER --fill     # draws repairs; can be interrupted
    python -m experiments.agenttts.real --data FOLDER            # analyses what there is, without a model

The pipeline is generate, test, repair. The functions come from the committed bank, the tests are the examples of the
prompt and run in the sandbox, and repairs are drawn live.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from experiments.agenttts.examples import Examples
from experiments.banks.judge import known_exports
from experiments.live import MODEL, TEMPERATURE
from experiments.partial import fill
from experiments.provenance import FORCE
from thinktime.bank.store import Bank
from thinktime.bench.bank_export import import_samples
from thinktime.bench.tasks import Task, load
from thinktime.config import Config, ModelSpec
from thinktime.core.types import MAIN
from thinktime.session import Session, open_session

HERE = Path(__file__).parent
TASK = "humaneval"
GENERATED, REPAIRED = 4, 3


def settings(task: Task) -> Config:
    """The model and the sampling of the committed bank."""
    model = ModelSpec(MODEL, dtype="float16")
    return Config(model, "none", temperature=TEMPERATURE, max_tokens=task.max_tokens, stop=task.stop)


def live(task: Task) -> Session:
    """The model, with the examples of the prompts as its scorer."""
    return replace(open_session(settings(task)), answers=task.answers, scorers={MAIN: Examples(task)})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", type=int, default=64, help="the first ones")
    parser.add_argument("--data", type=Path, help="a folder with the files of HumanEval")
    parser.add_argument("--bank", type=Path, default=Path("runs/experiments/repairs.db"))
    parser.add_argument("--out", type=Path, default=HERE, help="folder of the result")
    parser.add_argument("--fill", action="store_true", help="draw the samples")
    parser.add_argument(FORCE, action="store_true", help="overwrite the result of another command")
    args = parser.parse_args()
    task = load(TASK, args.problems, data=args.data)
    with Bank(args.bank) as bank:
        if not bank.imports():
            import_samples(known_exports()[TASK], bank)
        if args.fill:
            fill({"repairs": f"pipeline:stages=generate;repair*{REPAIRED}"}, task, live(task), bank)
            return


if __name__ == "__main__":
    main()
