"""The harness of the experiments on independent samples: the samples, the result file, the lines that are printed."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Mapping
from math import exp, inf
from pathlib import Path
from statistics import fmean
from typing import Any

from experiments.banks.judge import SUFFIX, exports, judged_pool, known_exports
from experiments.intervals import as_number, difference, mean
from experiments.provenance import FORCE, provenance, refuse_another, write_json
from thinktime import pocket
from thinktime.bank.store import Bank
from thinktime.bench.samples import Pool, Sample, banked_pool, recorded_pool
from thinktime.bench.selectors import Score, Select, curve
from thinktime.bench.tasks import load
from thinktime.core.errors import ThinktimeError
from thinktime.core.selection import best, majority
from thinktime.core.types import Sampling

RECORDED = Path("../shared/data/recorded")
FEW = 30
"""Problems below which a result says that its intervals are wide."""


def arguments(doc: str | None, argv: list[str] | None = None, *, real: bool = False) -> argparse.Namespace:
    """The options that all these experiments have; recorded samples unless a bank, ``--real`` or ``real`` is given."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, default=RECORDED, help="JSONL files of recorded samples")
    parser.add_argument("--bank", type=Path, help="measure the shipped model's samples in this bank instead")
    only = "measure these committed exports of real models, or all, instead"
    parser.add_argument("--real", nargs="*", default=[] if real else None, metavar="NAME", help=only)
    parser.add_argument("--problems", type=int, default=200, help="of the pocket task, with --bank")
    parser.add_argument("--samples", type=int, default=256, help="of each problem, with --bank")
    parser.add_argument("--split", default="test")
    parser.add_argument("--temperature", type=float, default=pocket.TEMPERATURE)
    parser.add_argument("--max-tokens", type=int, default=pocket.MAX_TOKENS)
    parser.add_argument("--model", help="whose samples, if the bank holds several models'")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="folder of the result; beside the script unless given")
    parser.add_argument(FORCE, action="store_true", help="overwrite the result of another command")
    return parser.parse_args(argv)


def pools(args: argparse.Namespace) -> dict[str, Pool]:
    """The pools to measure, by name; ends the program with one line if there are none."""
    if args.real is not None:
        return {path.name.removesuffix(SUFFIX): judged_pool(path) for path in exports(args.real)}
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
    """The contents of a pool; what is unknown is named."""
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


def likelihood(sample: Sample) -> float:
    """The log-probability of the sample, by which the likeliest one is chosen."""
    return -inf if sample.logprob is None else sample.logprob


def confidence(sample: Sample) -> float:
    """The geometric mean of the probabilities of its tokens."""
    return exp(likelihood(sample) / max(1, sample.length))


def reward(sample: Sample) -> float | None:
    """The reward of the sample: for functions, whether it passes the examples of its prompt."""
    return sample.reward


def selectors(pool: Pool) -> dict[str, tuple[Select, Score]]:
    """What chooses among samples without a reference. Functions have no vote: two are equal only as texts."""
    found: dict[str, tuple[Select, Score]] = {"likeliest sample": (best, likelihood)}
    if all(problem.reference is not None for problem in pool.problems):
        found = {"vote": (majority, likelihood)} | found
    if any(sample.reward is not None for problem in pool.problems for sample in problem.samples):
        found["examples of the prompt"] = (best, reward)
    return found


def beside_greedy(found: Mapping[str, Pool], measured: Mapping[str, Any]) -> dict[str, Any]:
    """One sample at temperature 0 beside one sample and the vote, for pools whose export ``NAME-greedy`` is there."""
    rows = {}
    known = known_exports()
    for name, path in ((name, known.get(f"{name}-greedy")) for name in found):
        if path is None:
            continue
        greedy = {problem.id: problem for problem in judged_pool(path).problems}
        problems = [problem for problem in found[name].problems if problem.id in greedy]
        right = [greedy[problem.id].pass_rate for problem in problems]
        vote = curve(problems, [found[name].fewest], majority)[found[name].fewest].each
        rows[name] = {
            "n_problems": len(problems),
            "accuracy": mean(right),
            "tokens": fmean(greedy[problem.id].samples[0].length for problem in problems),
            "minus_one_sample": difference(right, [problem.pass_rate for problem in problems]),
            "minus_vote_of_all_samples": difference(right, vote) if problems[0].reference is not None else None,
        }
    return {"greedy": rows}


def run(
    folder: Path,
    doc: str | None,
    analyse: Callable[[Pool, int], dict[str, Any]],
    verdict: Callable[[dict[str, Any]], dict[str, Any]],
    plot: Callable[[Mapping[str, Any], Path], None],
    lines: Callable[[Mapping[str, Any]], Iterable[str]],
    more: Callable[[Mapping[str, Pool], Mapping[str, Any]], dict[str, Any]] = lambda pools, measured: {},
    argv: list[str] | None = None,
    module: str = "run",
) -> None:
    """Measure every pool, write the result as JSON, plot it and print it; what the data lack is said in one line.

    Args:
        folder: of the script; the result goes there unless ``--out`` is given.
        doc: the description of the command.
        analyse: the measurements of a pool, under a seed.
        verdict: the conclusion from these measurements.
        plot: of the whole result, into a file.
        lines: that are printed of a pool.
        more: of the result, over all pools.
        argv: the words of the command, those of the process unless given.
        module: the script, without ``.py``; ``real`` measures committed exports by default.
    """
    args = arguments(doc, argv, real=module == "real")
    name = "pocket" if args.bank else "recorded" if args.real is None else "real"
    file, made = (args.out or folder) / f"{name}.json", provenance(folder, args.seed, module)
    refuse_another(file, made["command"], force=args.force)
    try:
        found = pools(args)
        measured = {name: analyse(pool, args.seed) for name, pool in found.items()}
        for one in measured.values():
            one["verdict"] = verdict(one)
        result = {"pools": measured} | more(found, measured)
    except ThinktimeError as error:
        sys.exit(str(error))
    write_json(file, made | result)
    plot(result, file.with_suffix(".png"))
    for name, one in measured.items():
        print(f"{name}: {one['n_problems']} problems, {one['n_samples']} samples; length in {one['length_unit']}")
        for line in lines(one):
            print(f"  {line}")
        print(f"  verdict: {one['verdict']}")


def text(estimate: Mapping[str, float]) -> str:
    """An estimate of a result, to print."""
    return as_number(estimate, digits=3)
