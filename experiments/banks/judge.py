"""Judge the samples of an export once, so that an analysis needs neither a sandbox nor the benchmark's data.

    python -m experiments.banks.judge EXPORT... --data FOLDER

Of ``NAME.jsonl.gz`` this writes ``NAME.judged.json.gz``: of every sample its answer, whether it is right, its length,
whether it ended by itself, and its log-probability; for functions also whether it passes the examples of its prompt
(`experiments.banks.examples`). The answer of a function is a hash of its program. The programs run in the sandbox.
"""

from __future__ import annotations

import argparse
import asyncio
import gzip
import hashlib
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments.banks.examples import visible_tests
from thinktime.bench.bank_export import exported_pool, header_of
from thinktime.bench.execution import Checks, program_of
from thinktime.bench.samples import Pool, Sample, Sampled
from thinktime.bench.tasks import Task, load
from thinktime.core.errors import InputError, ThinktimeError
from thinktime.files import write_whole

SUFFIX = ".jsonl.gz"
HERE = Path(__file__).parent
SMALL = "qwen2.5-coder-0.5b-instruct"
"""The model whose samples the experiments read unless they name another."""
LARGE = "qwen2.5-coder-1.5b-instruct"
OTHER = ("-greedy", "-train", "-confidences")
"""Endings of exports that are no samples of a test split at the usual settings."""
FIELDS = ("answer", "right", "length", "ended", "logprob", "examples")
"""Of a sample, in the order of its row."""


def judgements(path: Path) -> Path:
    """The file with the judgements of an export."""
    return path.with_name(path.name.removesuffix(SUFFIX) + ".judged.json.gz")


def known_exports(model: str = SMALL) -> dict[str, Path]:
    """The committed exports of a model by name, as ``gsm8k-program``."""
    return {path.name.removesuffix(SUFFIX): path for path in sorted((HERE / model).glob(f"*{SUFFIX}"))}


def exports(names: Sequence[str] = ()) -> list[Path]:
    """The committed exports of `SMALL` with these names; without names all but `OTHER`.

    Raises:
        InputError: there is no such export.
    """
    found = known_exports()
    if missing := [name for name in names if name not in found]:
        raise InputError("export", missing[0], f"the repository has: {', '.join(found)}")
    return [found[name] for name in names or found if names or not name.endswith(OTHER)]


def digest(path: Path) -> str:
    """The SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def judged(path: Path) -> dict[str, Any]:
    """The file of judgements of an export, as `judge` made it.

    Raises:
        InputError: it is missing, or of another export.
    """
    file = judgements(path)
    if not file.exists():
        raise InputError("judgements", file.name, "they are not there; run python -m experiments.banks.judge")
    found: dict[str, Any] = json.loads(gzip.decompress(file.read_bytes()))
    if found["export"] != digest(path):
        raise InputError("judgements", file.name, f"they are of another {path.name}; run experiments.banks.judge again")
    return found


def judged_pool(path: Path, n: int | None = None) -> Pool:
    """The samples of an export, with the judgements beside it.

    The ``reward`` of a sample is 1 if it passes the examples of its prompt, 0 if not, and None if there are none.

    Args:
        path: the export.
        n: the first so many samples of each problem; all unless given. Problems with fewer are left out.

    Raises:
        InputError: the judgements are missing, or of another export; or no problem has ``n`` samples.
    """
    found = judged(path)
    problems = tuple(
        Sampled(problem["id"], tuple(_sample(row) for row in problem["samples"][:n]), problem["reference"])
        for problem in found["problems"]
        if len(problem["samples"]) >= (n or 1)
    )
    if not problems:
        raise InputError("n", n, f"no problem of {path.name} has as many samples")
    return Pool(found["model"], found["setting"], "tokens", problems)


def _sample(row: Sequence[Any]) -> Sample:
    answer, right, length, ended, logprob, examples = row
    return Sample(length, answer, right, ended, logprob=logprob, reward=examples)


def judge(path: Path, task: Task, n: int) -> dict[str, Any]:
    """The judgements of the first ``n`` samples of each problem of an export.

    Raises:
        ThinktimeError: the export cannot be read, or no problem has ``n`` samples.
    """
    pool = exported_pool(path, task, n)
    shown = asyncio.run(_passed_examples(pool, task)) if task.programs else {}

    def row(problem: Sampled, sample: Sample) -> list[Any]:
        answer = None if sample.key is None else str(sample.key)
        if task.programs and answer is not None:
            answer = hashlib.sha256(answer.encode()).hexdigest()[:12]
        logprob = None if sample.logprob is None else round(sample.logprob, 3)
        examples = shown.get((problem.id, sample.text))
        return [answer, sample.correct, sample.length, sample.ended, logprob, examples]

    return {
        "export": digest(path),
        "model": pool.generator,
        "setting": pool.setting,
        "fields": FIELDS,
        "problems": [
            {
                "id": problem.id,
                "reference": None if task.programs else str(problem.reference),
                "samples": [row(problem, sample) for sample in problem.samples],
            }
            for problem in pool.problems
        ],
    }


async def _passed_examples(pool: Pool, task: Task) -> dict[tuple[str, str], float]:
    """By problem and text: 1 if the program passes the examples of its prompt, 0 if not; no entry without examples."""
    assert task.programs is not None
    checks, preambles = Checks(task.programs.sandbox), {p.id: p.metadata["preamble"] for p in task.problems}
    found: dict[tuple[str, str], float] = {}

    async def check(problem: str, text: str, tests: str) -> None:
        found[problem, text] = float(await checks.passes(program_of(text), tests, preambles[problem]))

    tests = {id: visible_tests(preamble, _function(preamble)) for id, preamble in preambles.items()}
    texts = {(problem.id, sample.text) for problem in pool.problems for sample in problem.samples if sample.answered}
    await asyncio.gather(*(check(id, text, tests[id]) for id, text in texts if tests[id]))
    return found


def _function(prompt: str) -> str:
    """The name of the function that the prompt ends with."""
    return str(re.findall(r"^def (\w+)\(", prompt, re.MULTILINE)[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("exports", nargs="+", type=Path)
    parser.add_argument("--data", type=Path, help="a folder with the benchmarks' files")
    parser.add_argument("--samples", type=int, default=8, help="of each problem; problems with fewer are left out")
    args = parser.parse_args()
    try:
        for path in args.exports:
            task = header_of(path)["task"]
            found = judge(path, load(task["name"], data=args.data, split=task.get("split", "test")), args.samples)
            text = json.dumps(found, separators=(",", ":")).replace('{"id"', '\n{"id"')
            write_whole(judgements(path), gzip.compress(text.encode(), 9, mtime=0))
            right = sum(row[1] for problem in found["problems"] for row in problem["samples"])
            print(f"{path.name}: {len(found['problems'])} problems, {right} right samples")
    except ThinktimeError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
