"""Let a real model compare the answers that it gave itself, two at a time (2603.04304).

    python -m experiments.pairwise_tournament.ask --data FOLDER        # ten minutes; run it again to go on

Of the first problems of the committed bank that have several answers among their first samples, each pair of answers is
shown in both orders. One token is read: the log-odds of "A" against "B", so nothing is generated. The judgements go to
``judgements.json``, problem by problem. `experiments.pairwise_tournament.real` makes tournaments of them.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections.abc import Sequence
from itertools import permutations
from pathlib import Path
from typing import Any

from experiments.banks.judge import exports, judged_pool
from experiments.banks.words import texts
from experiments.provenance import provenance, write_json
from thinktime.bench.bank_export import LONGEST
from thinktime.bench.jsonl import read_jsonl
from thinktime.bench.samples import Sampled
from thinktime.bench.tasks import load
from thinktime.core.errors import InputError
from thinktime.core.types import Problem
from thinktime.generators.local import LocalGenerator
from thinktime.prompts.turns import question_text

HERE = Path(__file__).parent
FILE = HERE / "judgements.json"
TASK = "gsm8k-program"
SAMPLES = 4
"""Samples of a problem whose answers meet."""
PROMPT = """Two programs were written for the same problem. One of them is right.

Problem: {question}

Program A:
{a}

Program B:
{b}

Which program is right? Reply with A or B."""


def entrants(problem: Sampled, n: int = SAMPLES) -> dict[str, int]:
    """The different answers among the first ``n`` samples, as `words.texts` labels them, with their first samples."""
    found: dict[str, int] = {}
    for place, (sample, words) in enumerate(zip(problem.samples[:n], texts(problem), strict=False)):
        if sample.answered:
            found.setdefault(words.split()[-1], place)
    return found


async def odds(generator: LocalGenerator, prompts: Sequence[str]) -> list[float]:
    """The log-odds of A against B after each prompt.

    Raises:
        InputError: the letters are not single tokens of the model.
    """
    letters = [token for letter in "AB" if (token := generator.single_id(letter)) is not None]
    if len(letters) < 2:
        raise InputError("model", generator.name, "A and B are not single tokens of it; take another model")
    roots = [generator.root(Problem("pair", prompt)).prompt for prompt in prompts]
    found = await generator.logprobs([root for root in roots for _ in letters], letters * len(roots))
    return [round(a - b, 4) for a, b in zip(found[::2], found[1::2], strict=True)]


async def ask(args: argparse.Namespace) -> None:
    """Judge one problem after another, and write the file after each."""
    started = time.monotonic()
    (path,) = exports([TASK])
    questions = {each.id: question_text(each) for each in load(TASK, data=args.data, template="{question}").problems}
    programs = {(row["problem"], row["index"]): row["text"] for _, row in read_jsonl(path, LONGEST) if "index" in row}
    pool = [problem for problem in judged_pool(path).problems if len(entrants(problem)) > 1][: args.problems]
    generator = LocalGenerator(args.model, dtype=args.dtype)
    made: dict[str, Any] = {**provenance(HERE, 0, "ask"), "model": generator.name, "samples": SAMPLES, "problems": {}}
    if FILE.exists():
        made["problems"] = json.loads(FILE.read_text())["problems"]
    for problem in pool:
        if problem.id in made["problems"]:
            continue
        if time.monotonic() - started > args.seconds:
            break
        pairs = list(permutations(entrants(problem).items(), 2))
        prompts = [
            PROMPT.format(question=questions[problem.id], a=programs[problem.id, first], b=programs[problem.id, second])
            for (_, first), (_, second) in pairs
        ]
        answers = await odds(generator, prompts)
        made["problems"][problem.id] = [[a, b, each] for ((a, _), (b, _)), each in zip(pairs, answers, strict=True)]
        write_json(FILE, made)
    print(f"{len(made['problems'])} of {len(pool)} problems, {time.monotonic() - started:.0f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="a folder with the benchmarks' files")
    parser.add_argument("--model", type=Path, required=True, help="the directory or the GGUF file of the model")
    parser.add_argument("--dtype", default="float16")
    parser.add_argument("--problems", type=int, default=100, help="the most problems with several answers")
    parser.add_argument("--seconds", type=float, default=500, help="start no problem after this time")
    asyncio.run(ask(parser.parse_args()))


if __name__ == "__main__":
    main()
