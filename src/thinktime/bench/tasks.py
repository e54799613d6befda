"""Tasks: problems with references, and how their answers are read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from thinktime.answers import TextAnswers, equivalent, extract
from thinktime.bench.execution import Programs, passes
from thinktime.bench.jsonl import read_jsonl
from thinktime.core.errors import InputError
from thinktime.core.types import Problem
from thinktime.pocket.problems import LEVELS, problems, read_answer


@dataclass(frozen=True)
class Task:
    """Named problems, each with a reference, and the reader of their answers."""

    name: str
    problems: tuple[Problem, ...]
    answers: TextAnswers
    check: Callable[[str | None, str | None], bool] = equivalent
    """Whether an answer is right: `thinktime.answers.equivalent`, the same notion that votes use."""

    @property
    def evaluator(self) -> str:
        """Who says what is right. A scorer of this name selects by the reference."""
        return f"reference answers of {self.name}"


PROGRAMS = "programs:"
"""Before the path of a file whose references are tests: what a model writes is run."""


def load(
    name: str,
    n: int | None = None,
    *,
    levels: Sequence[int] = LEVELS,
    split: str = "test",
    seed: int = 0,
    question: str = "question",
    answer: str = "answer",
) -> Task:
    """``pocket`` (n problems of the split, levels in turn) or the path of a JSONL file (its first n problems).

    A file's answers may be GSM8K's (``…#### 18``), boxed, or bare. With ``programs:`` before the path answers are
    programs in Python; the file has ``tests`` in place of answers, and an answer is right if it passes them.

    Raises:
        InputError: no such task or file, a broken line, a missing field, or n is not positive.
    """
    if n is not None and n < 1:
        raise InputError("problems", n, "ask for 1 or more")
    if name == "pocket":
        if split not in ("train", "dev", "test"):
            raise InputError("split", split, "give train, dev or test")
        if unknown := [level for level in levels if level not in LEVELS]:
            raise InputError("levels", unknown[0], f"the pocket task has levels {', '.join(map(str, LEVELS))}")
        drawn = problems(split, n or 100, seed=seed, levels=levels)  # type: ignore[arg-type]  # checked above
        return Task(
            "pocket",
            tuple(Problem(p.id, p.question, str(p.answer), {"level": p.level, "family": p.family}) for p in drawn),
            TextAnswers(read_answer),
        )
    path, programs = Path(name.removeprefix(PROGRAMS)), name.startswith(PROGRAMS)
    if programs and answer == "answer":
        answer = "tests"
    if not path.exists():
        raise InputError("task", name, "give 'pocket' or the path of a JSONL file")
    loaded = []
    for number, row in read_jsonl(path):
        for field in (question, answer):
            if field not in row:
                raise InputError(
                    "field", field, f"{path}, line {number} lacks it; its fields are: {', '.join(sorted(row))}"
                )
        if not isinstance(row[question], str) or not row[question].strip():
            raise InputError("question", row[question], f"{path}, line {number}: give a text")
        reference = str(row[answer])
        if not programs:
            reference = extract(reference) or reference.strip()
        level = {"level": row["level"]} if "level" in row else {}
        loaded.append(Problem(f"{path.stem}-{number}", row[question], reference, level))
        if n is not None and len(loaded) == n:
            break
    return (
        Task(path.stem, tuple(loaded), Programs(), _passes)
        if programs
        else Task(path.stem, tuple(loaded), TextAnswers())
    )


@lru_cache(maxsize=4096)  # equal samples are run once, and a bench that is asked again says the same
def _passes(program: str | None, tests: str | None) -> bool:
    return program is not None and tests is not None and passes(program, tests) is True
