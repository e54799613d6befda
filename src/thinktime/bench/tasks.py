"""Tasks: problems with references, and readers for their answers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from thinktime.answers import TextAnswers, equivalent, extract, is_quick
from thinktime.bench.execution import Checks, Programs
from thinktime.bench.jsonl import read_jsonl
from thinktime.core.errors import InputError
from thinktime.core.types import Problem
from thinktime.files import user_path
from thinktime.plugins import made
from thinktime.pocket.problems import LEVELS, problems, read_answer
from thinktime.sandbox.running import find_sandbox


@dataclass(frozen=True)
class Task:
    """Named problems, each with a reference, and the reader of their answers."""

    name: str
    problems: tuple[Problem, ...]
    answers: TextAnswers
    check: Callable[[str | None, str | None], bool] = equivalent
    """Whether an answer is right; the default is the equivalence that votes use."""
    programs: Checks | None = None
    """Runs answers that are programs; None for other tasks."""

    async def right(self, answer: str | None, reference: str | None) -> bool:
        """The same as ``check`` without blocking the event loop while programs run or formulas are computed."""
        if self.programs is not None:
            return await self.programs.passes(answer, reference)
        if all(each is None or is_quick(each) for each in (answer, reference)):
            return self.check(answer, reference)
        return await asyncio.to_thread(self.check, answer, reference)

    @property
    def evaluator(self) -> str:
        """The name of the evaluator. A scorer of the same name selects by the reference."""
        return f"reference answers of {self.name}"


PROGRAMS = "programs:"
"""Prefix for the path of a file whose references are tests. It runs programs that a model writes."""


def load(
    name: str,
    n: int | None = None,
    *,
    levels: Sequence[int] = LEVELS,
    split: str = "test",
    seed: int = 0,
    question: str = "question",
    answer: str = "answer",
    unsafe: bool = False,
) -> Task:
    """Load a task: ``pocket`` (n problems of the split, levels in turn) or a JSONL file (its first n problems).

    If there is no such file, an installed package may have a task of this name (see `thinktime.plugins`).

    A file's answers may be in the format of GSM8K (``…#### 18``), boxed, or bare. After the prefix ``programs:``,
    answers are Python programs, and the file has ``tests`` in place of answers; an answer is right if it passes them.
    Programs run in a sandbox. With ``unsafe`` they run without one.

    Raises:
        InputError: the task or file does not exist, a line is malformed, a field is missing, n is not positive, or
            there is no sandbox for programs.
    """
    if n is not None and n < 1:
        raise InputError("problems", n, "give 1 or more")
    if name == "pocket":
        if split not in ("train", "dev", "test"):
            raise InputError("split", split, "give train, dev or test")
        if unknown := [level for level in levels if level not in LEVELS]:
            raise InputError("levels", unknown[0], f"the pocket task has levels {', '.join(map(str, LEVELS))}")
        drawn = problems(split, n or 100, seed=seed, levels=levels)  # type: ignore[arg-type]  # checked above
        return Task(
            "pocket",
            tuple(Problem(p.id, p.question, str(p.answer), {"level": p.level, "family": p.family}) for p in drawn),
            TextAnswers(read_answer, "pocket"),
        )
    path, programs = user_path("task", name.removeprefix(PROGRAMS)), name.startswith(PROGRAMS)
    if programs and answer == "answer":
        answer = "tests"
    if not path.exists():
        made_task: Task | None = made("tasks", name)
        if made_task is None:
            raise InputError(
                "task", name, "give 'pocket', the path of a JSONL file or the task of an installed package"
            )
        return replace(made_task, problems=made_task.problems[:n])
    loaded = []
    for number, row in read_jsonl(path):
        for field in (question, answer):
            if field not in row:
                raise InputError(
                    "field", field, f"{path}, line {number} lacks it; its fields are: {', '.join(sorted(row))}"
                )
        if not isinstance(row[question], str) or not row[question].strip():
            raise InputError("question", row[question], f"{path}, line {number}: give a text")
        if row[answer] is None or isinstance(row[answer], list | dict):
            raise InputError(answer, row[answer], f"{path}, line {number}: give a text or a number")
        reference = str(row[answer])
        if not programs:
            reference = extract(reference) or reference.strip()
        level = {"level": row["level"]} if "level" in row else {}
        loaded.append(Problem(f"{path.stem}-{number}", row[question], reference, level))
        if n is not None and len(loaded) == n:
            break
    if not programs:
        return Task(path.stem, tuple(loaded), TextAnswers())
    checks = Checks(find_sandbox(unsafe))

    def check(program: str | None, tests: str | None) -> bool:
        return asyncio.run(checks.passes(program, tests))

    return Task(path.stem, tuple(loaded), Programs(), check, checks)
