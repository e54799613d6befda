"""What experiments over independent samples share: where the samples come from, and how a result is written."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from experiments.facts import facts
from thinktime import pocket
from thinktime.bank.store import Bank
from thinktime.bench.samples import Pool, banked_pool, recorded_pool
from thinktime.bench.statistics import Estimate
from thinktime.bench.tasks import load
from thinktime.core.errors import ThinktimeError
from thinktime.core.types import Sampling

RECORDED = Path("../shared/data/recorded")
FEW = 30
"""Problems below which a result says that its intervals are wide."""


def arguments(doc: str | None, argv: list[str] | None = None) -> argparse.Namespace:
    """The options that all these experiments have; recorded samples unless a bank is named."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, default=RECORDED, help="JSONL files of recorded samples")
    parser.add_argument("--bank", type=Path, help="measure the shipped model's samples in this bank instead")
    parser.add_argument("--problems", type=int, default=200, help="of the pocket task, with --bank")
    parser.add_argument("--samples", type=int, default=256, help="of each problem, with --bank")
    parser.add_argument("--split", default="test")
    parser.add_argument("--temperature", type=float, default=pocket.TEMPERATURE)
    parser.add_argument("--max-tokens", type=int, default=pocket.MAX_TOKENS)
    parser.add_argument("--model", help="whose samples, if the bank holds several models'")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="folder of the result; beside the script unless given")
    return parser.parse_args(argv)


def pools(args: argparse.Namespace) -> dict[str, Pool]:
    """The pools to measure, by name; ends the program with one line if there are none."""
    if args.bank is not None:
        if not args.bank.exists():
            sys.exit(f"bank={str(args.bank)!r}: it is not there; fill it with the shipped model's samples first")
        task = load("pocket", args.problems, split=args.split, seed=args.seed)
        sampling = Sampling(temperature=args.temperature, max_length=args.max_tokens)
        with Bank(args.bank) as bank:
            return {"pocket": banked_pool(bank, task, sampling, args.samples, args.seed, args.model)}
    files = sorted(args.folder.glob("*.jsonl"))
    if not files:
        sys.exit(
            f"folder={str(args.folder)!r}: no recorded samples (*.jsonl) are there; give the folder that holds them"
        )
    return {file.stem: recorded_pool(file) for file in files}


def describe(pool: Pool) -> dict[str, Any]:
    """What a pool holds; unknown things are named."""
    n = len(pool.problems)
    known: dict[str, Any] = {
        "generator": pool.generator,
        "setting": pool.setting if pool.unit == "tokens" else "unknown; one file is taken as one setting",
        "n_problems": n,
        "n_samples": sum(len(problem.samples) for problem in pool.problems),
        "length_unit": pool.unit if pool.unit == "tokens" else "words; tokens are not recorded",
    }
    if n < FEW:
        known["note"] = f"only {n} problems: intervals over problems are wide, and nothing carries over to a whole task"
    return known


def write(args: argparse.Namespace, here: Path, result: dict[str, Any]) -> Path:
    """Write the result as JSON; returns where its plot goes."""
    out: Path = args.out or here
    out.mkdir(parents=True, exist_ok=True)
    name = "recorded" if args.bank is None else "pocket"
    (out / f"{name}.json").write_text(json.dumps(facts(here, args.seed) | result, indent=1) + "\n")
    return out / f"{name}.png"


def text(estimate: Mapping[str, float]) -> str:
    """An estimate of a result, to print."""
    return str(Estimate(estimate["value"], estimate["low"], estimate["high"]))


def run(main: Callable[[], None]) -> None:
    """Run it; what the data can't give is said in one line."""
    try:
        main()
    except ThinktimeError as error:
        sys.exit(str(error))
