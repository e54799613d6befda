"""Replays recorded samples without a model: coverage, votes and selection by reward.

A file has one problem per line. Its samples are either a list of objects or parallel lists of the problem; values may
be one-element lists. Field names are options.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from thinktime.answers import canonical
from thinktime.bench.jsonl import EXPORT, read_jsonl
from thinktime.bench.statistics import mean_interval, pass_at_k
from thinktime.core.errors import InputError
from thinktime.core.search import Search
from thinktime.core.types import Problem
from thinktime.generators.recorded import RecordedAnswers, RecordedGenerator, RecordedSample
from thinktime.scorers.recorded import RecordedReward
from thinktime.strategies import Strategy, make

UNREADABLE = ("", "[invalid]")
"""Values that stand for an unreadable answer, which has no vote."""
LABELS = {
    **dict.fromkeys(("1", "1.0", "true", "yes", "correct", "right", "pass", "passed"), True),
    **dict.fromkeys(("0", "0.0", "false", "no", "incorrect", "wrong", "fail", "failed"), False),
}
"""Labels in any case of letters. A sample with another label, or without one, counts as unjudged."""


@dataclass(frozen=True)
class Fields:
    """The names of a file's fields: the list of samples, and the fields of one sample."""

    samples: str = "outputs"
    text: str = "response"
    answer: str = "response_answer"
    correct: str = "label"
    reward: str | None = None


@dataclass(frozen=True)
class RecordedProblem:
    """A problem with its recorded samples."""

    problem: Problem
    samples: tuple[RecordedSample, ...]

    @property
    def n_correct(self) -> int:
        """Samples judged right."""
        return sum(sample.correct is True for sample in self.samples)


def read_recorded(path: Path, fields: Fields, *, drop_unjudged: bool = False) -> list[RecordedProblem]:
    """Read recorded samples.

    Raises:
        InputError: a line is malformed or lacks a field. The message has the line and its fields.
    """
    problems = []
    for number, row in read_jsonl(path):
        if row.get("format") == EXPORT:
            fix = f"it is an export of a bank; read it with: thinktime bench TASK --replay --bank {path}"
            raise InputError("file", str(path), fix)
        samples = tuple(
            sample
            for sample in _samples(row, fields, f"{path}, line {number}")
            if not (drop_unjudged and sample.correct is None)
        )
        prompt = next((row[name] for name in ("question", "prompt", "input", "problem") if name in row), "")
        known = (row[name] for name in ("ground_truth", "reference") if row.get(name) is not None)
        reference = next(map(str, known), None)
        identity = str(next((row[name] for name in ("id", "idx", "index") if name in row), number))
        if samples:
            problems.append(RecordedProblem(Problem(f"{identity}/{number}", prompt, reference), samples))
    if not problems:
        raise InputError("file", str(path), "no sample is left; all of them may be unjudged")
    return problems


def _samples(row: dict[str, Any], fields: Fields, where: str) -> Iterator[RecordedSample]:
    names = [fields.text, fields.answer, fields.correct, *([fields.reward] if fields.reward else [])]
    if fields.samples in row:
        objects = row[fields.samples]
        if not isinstance(objects, list) or not all(isinstance(o, dict) for o in objects):
            raise InputError("samples", f"{fields.samples} of {where}", "it is not a list of objects")
    else:
        columns = {name: row[name] for name in names if isinstance(row.get(name), list)}
        if fields.answer not in columns:
            raise InputError(
                "samples", fields.samples, f"{where} has no such list; its fields are: {', '.join(sorted(row))}"
            )
        lengths = {name: len(column) for name, column in columns.items()}
        if len(set(lengths.values())) > 1:
            raise InputError("samples", str(lengths), f"parallel lists of {where} differ in length")
        objects = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    for place, item in enumerate(objects):
        if fields.answer not in item or (fields.reward and fields.reward not in item):
            missing = fields.answer if fields.answer not in item else fields.reward
            raise InputError(
                "field", missing, f"sample {place} of {where} lacks it; its fields are: {', '.join(sorted(item))}"
            )
        values = {name: _single(item.get(name)) for name in names}
        answer = values[fields.answer]
        yield RecordedSample(
            text=str(values[fields.text] or ""),
            answer=None if answer is None or str(answer).strip() in UNREADABLE else str(answer),
            correct=LABELS.get(str(values[fields.correct]).strip().lower()),
            reward=_reward(values[fields.reward]) if fields.reward else None,
        )


def _reward(value: Any) -> float | None:
    """A finite number, also as text; else None."""
    try:
        reward = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return reward if math.isfinite(reward) else None


def _single(value: Any) -> Any:
    return value[0] if isinstance(value, list) and len(value) == 1 else value


def replay(problems: Sequence[RecordedProblem], ks: Sequence[int], *, rewards: bool, seed: int = 0) -> dict[str, Any]:
    """Coverage at every ``k``, and the accuracy of votes (and with ``rewards``, of selection) over all samples.

    Raises:
        InputError: a ``k`` exceeds the number of samples of a problem.
    """
    fewest = min(len(problem.samples) for problem in problems)
    if bad := [k for k in ks if not 1 <= k <= fewest]:
        raise InputError("k", bad[0], f"some problem has {fewest} samples; give values from 1 to {fewest}")
    coverage = {
        str(k): mean_interval([pass_at_k(len(p.samples), p.n_correct, k) for p in problems], seed).as_dict() for k in ks
    }
    selected = {"majority": _accuracy(problems, "majority", seed)}
    if rewards:
        selected["best_of_n"] = _accuracy(problems, "best_of_n", seed)
        selected["weighted_majority"] = _accuracy(problems, "weighted_majority", seed)
    return {
        "n_problems": len(problems),
        "n_samples": sum(len(problem.samples) for problem in problems),
        "pass_at_k": coverage,
        **selected,
        "unjudged": sum(sample.correct is None for problem in problems for sample in problem.samples),
        "seed": seed,
    }


def _accuracy(problems: Sequence[RecordedProblem], strategy: str, seed: int) -> dict[str, float]:
    right = [asyncio.run(_is_right(problem, make(strategy, {"n": len(problem.samples)}))) for problem in problems]
    return mean_interval([float(value) for value in right], seed).as_dict()


async def _is_right(problem: RecordedProblem, strategy: Strategy) -> bool:
    """Whether the strategy's answer is right, by the majority of labels of the samples with this answer."""
    search = Search(
        problem.problem,
        RecordedGenerator(problem.samples),
        scorers=RecordedReward(),
        answers=RecordedAnswers(),
    )
    answer = await strategy(search)
    if answer.value is None:
        return False
    key = canonical(answer.value)
    judged = [s.correct for s in problem.samples if s.answer is not None and canonical(s.answer) == key]
    right, wrong = judged.count(True), judged.count(False)
    return right > wrong
