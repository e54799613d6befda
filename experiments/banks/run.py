"""Fill a bank with samples of real models on benchmarks.

The work is done in rounds: 4 samples of every problem first, then 8, 16, and so on. So an interrupted run leaves a bank
that is useful for every task, and a later run goes on where it stopped. Each round is one `thinktime bench`, whose
command is printed; the table of the last finished round stays in the folder.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from experiments.banks.judge import LARGE, SMALL

TEMPERATURE = 0.7


@dataclass(frozen=True)
class Plan:
    """The samples that a bank shall have of one task: ``n`` for each of the first ``problems`` problems."""

    task: str
    model: str
    problems: int
    n: int


PLANS = (
    Plan("gsm8k-program", SMALL, 300, 64),
    Plan("humaneval", SMALL, 164, 64),
    Plan("gsm8k", SMALL, 200, 32),
    Plan("math500", SMALL, 100, 16),
    Plan("gsm8k-program", LARGE, 200, 16),
    Plan("humaneval", LARGE, 164, 16),
    Plan("gsm8k", LARGE, 100, 8),
)


def rounds(plans: Sequence[Plan], first: int = 4) -> Iterator[tuple[Plan, int]]:
    """Each plan with the number of samples of a round; a plan is left out when it is complete."""
    n = first
    while any(plan.n >= n for plan in plans):
        yield from ((plan, n) for plan in plans if plan.n >= n)
        n *= 2


def command(plan: Plan, n: int, args: argparse.Namespace) -> list[str]:
    """The bench that makes a round's samples."""
    fixed = {"strategies": "majority", "scorer": "none", "temperature": TEMPERATURE, "dtype": args.dtype}
    paths = {"bank": args.bank, "out": args.out / f"{plan.model}-{plan.task}"}
    options = {"problems": plan.problems, "n": n, "model": plan.model, "concurrency": args.rows} | fixed | paths
    if args.data:
        options["data"] = args.data
    given = [text for name, value in options.items() for text in (f"--{name}", str(value))]
    return [sys.executable, "-m", "thinktime", "bench", plan.task, *given, "--force"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bank", type=Path, default=Path("runs/banks/real.db"))
    parser.add_argument("--out", type=Path, default=Path("runs/banks"))
    parser.add_argument("--data", type=Path, help="a folder with the benchmarks' files")
    parser.add_argument("--rows", type=int, default=192, help="samples that run at once")
    parser.add_argument("--dtype", default="float16", help="it is part of the samples' names: keep it for one bank")
    args = parser.parse_args()
    for plan, n in rounds(PLANS):
        words = command(plan, n, args)
        print(" ".join(words[1:]), flush=True)
        subprocess.run(words, check=True)


if __name__ == "__main__":
    main()
