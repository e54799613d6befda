"""Tasks: problems with references, and readers for their answers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from thinktime.answers import TextAnswers, equivalent, extract, is_quick
from thinktime.bench.benchmarks import (
    BENCHMARKS,
    BOXED,
    FUNCTION,
    GYM,
    JUDGES,
    QUESTION,
    Asking,
    Benchmark,
    gym,
    read_gym,
)
from thinktime.bench.execution import Checks, Programs, ProgramValues
from thinktime.bench.jsonl import read_jsonl
from thinktime.core.errors import InputError
from thinktime.core.types import Problem
from thinktime.files import user_path
from thinktime.plugins import made
from thinktime.pocket.problems import LEVELS, problems, read_answer, right_so_far
from thinktime.prompts.turns import question_text
from thinktime.sandbox.running import find_sandbox


@dataclass(frozen=True)
class Task:
    """Named problems, each with a reference, and the reader of their answers.

    Args:
        name: of the task.
        problems: with their prompts.
        answers: reads answers and compares them.
        check: whether an answer is right, given the reference; the default is the equivalence that votes use.
        programs: runs answers that are programs; None for other tasks.
        accepts: judges an answer by its problem; in place of ``check``.
        so_far: whether an unfinished solution can still be right; None where that cannot be checked.
        stop: strings that end a sample, if the user gives none.
        max_tokens: of a sample, if the user gives no limit.
        details: what a result says of the task: data, prompt, judge.
    """

    name: str
    problems: tuple[Problem, ...]
    answers: TextAnswers
    check: Callable[[str | None, str | None], bool] = equivalent
    programs: Checks | None = None
    accepts: Callable[[str, Problem], bool] | None = None
    so_far: Callable[[str, Problem], bool] | None = None
    stop: tuple[str, ...] = ()
    max_tokens: int | None = None
    details: Mapping[str, Any] = field(default_factory=dict)

    async def right(self, answer: str | None, problem: Problem) -> bool:
        """Whether an answer to a problem is right. The event loop does not wait for programs or formulas."""
        if self.programs is not None:
            return await self.programs.passes(answer, problem.reference, problem.metadata.get("preamble", ""))
        if self.accepts is not None:
            return answer is not None and self.accepts(answer, problem)
        if all(each is None or is_quick(each) for each in (answer, problem.reference)):
            return self.check(answer, problem.reference)
        return await asyncio.to_thread(self.check, answer, problem.reference)

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
    template: str | None = None,
    system: str | None = None,
    data: Path | None = None,
) -> Task:
    """Load a task: ``pocket`` (n problems of the split, levels in turn), a benchmark by its name (see
    `thinktime.bench.benchmarks`), ``reasoning-gym:NAME``, or a JSONL file; of these the first n problems.

    If there is no such file, an installed package may have a task of this name (see `thinktime.plugins`).

    A file's answers may be in the format of GSM8K (``…#### 18``), boxed, or bare. After the prefix ``programs:``,
    answers are Python programs, and the file has ``tests`` in place of answers; an answer is right if it passes them.
    Programs run in a sandbox. With ``unsafe`` they run without one.

    Args:
        name: of the task.
        n: how many problems; by default all, or 100 if they are made on request.
        levels: of the pocket task.
        split: of the pocket task, or of a benchmark.
        seed: of problems that are made on request.
        question: the field of a JSONL file that has the question.
        answer: likewise.
        unsafe: whether programs may run without a sandbox.
        template: of the prompts, with ``{question}``; in place of a benchmark's own.
        system: a message that comes before each prompt.
        data: a folder that has the files of a benchmark; by default the folder of downloaded data.

    Raises:
        InputError: the task or file does not exist, a line is malformed, a field is missing, n is not positive, the
            data are not on this machine, or there is no sandbox for programs.
    """
    if n is not None and n < 1:
        raise InputError("problems", n, "give 1 or more")
    known = BENCHMARKS.get(name)
    if known is not None:
        return _benchmark(known, n, split, unsafe, template, system, data)
    asking = Asking(template or QUESTION, system=system)
    given = {name: value for name, value in (("template", template), ("system", system)) if value is not None}
    if name == "pocket":
        task = _pocket(n, levels, split, seed, asking)
    elif name.startswith(GYM):
        return _gym(name, n, seed, template, system)
    else:
        task = _file_or_installed(name, n, question, answer, unsafe, asking)
    return replace(task, details={**task.details, **given})


def _pocket(n: int | None, levels: Sequence[int], split: str, seed: int, asking: Asking) -> Task:
    if split not in ("train", "dev", "test"):
        raise InputError("split", split, "give train, dev or test")
    if unknown := [level for level in levels if level not in LEVELS]:
        raise InputError("levels", unknown[0], f"the pocket task has levels {', '.join(map(str, LEVELS))}")
    drawn = {p.id: p for p in problems(split, n or 100, seed=seed, levels=levels)}  # type: ignore[arg-type]  # checked above
    asked = (
        Problem(p.id, asking(p.question), str(p.answer), {"level": p.level, "family": p.family}) for p in drawn.values()
    )
    answers = TextAnswers(read_answer, "pocket")
    return Task("pocket", tuple(asked), answers, so_far=lambda text, problem: right_so_far(drawn[problem.id], text))


def _benchmark(
    known: Benchmark,
    n: int | None,
    split: str,
    unsafe: bool,
    template: str | None,
    system: str | None,
    data: Path | None,
) -> Task:
    """A benchmark. A user's template replaces its own and the turns before it."""
    asking = Asking(known.template, known.shots, system) if template is None else Asking(template, system=system)
    file, found = known.problems(split, asking, data)
    task = Task(known.name, found[:n], TextAnswers(), stop=known.stop, max_tokens=known.max_tokens)
    if known.judging == "values":
        task = replace(task, answers=ProgramValues(find_sandbox(unsafe), FUNCTION))
    elif known.judging == "tests":
        checks = Checks(find_sandbox(unsafe))
        task = replace(task, answers=Programs(), check=_checked(checks), programs=checks)
    details = {"split": split, "data": asdict(file), **asking.details(), "judge": JUDGES[known.judging]}
    return replace(task, details=details)


def _gym(name: str, n: int | None, seed: int, template: str | None, system: str | None) -> Task:
    asking = Asking(template or BOXED, system=system)
    made, accepts = gym(name.removeprefix(GYM), n or 100, seed, asking)
    details = {
        "package": f"reasoning-gym {version('reasoning-gym')}",
        **asking.details(),
        "judge": "the package that made the problem scores the answer 1",
    }
    return Task(name, made, TextAnswers(read_gym, "statement or long box"), accepts=accepts, details=details)


def _file_or_installed(name: str, n: int | None, question: str, answer: str, unsafe: bool, asking: Asking) -> Task:
    path, programs = user_path("task", name.removeprefix(PROGRAMS)), name.startswith(PROGRAMS)
    if programs and answer == "answer":
        answer = "tests"
    if not path.exists():
        made_task: Task | None = made("tasks", name)
        if made_task is None:
            raise InputError(
                "task",
                name,
                "give 'pocket', a benchmark of `thinktime data ls`, the path of a JSONL file or the task of an "
                "installed package",
            )
        chosen = made_task.problems[:n]
        if asking != Asking():
            chosen = tuple(replace(problem, prompt=asking(question_text(problem))) for problem in chosen)
        return replace(made_task, problems=chosen)
    loaded = []
    for number, row in read_jsonl(path):
        for needed in (question, answer):
            if needed not in row:
                raise InputError(
                    "field", needed, f"{path}, line {number} lacks it; its fields are: {', '.join(sorted(row))}"
                )
        if not isinstance(row[question], str) or not row[question].strip():
            raise InputError("question", row[question], f"{path}, line {number}: give a text")
        if row[answer] is None or isinstance(row[answer], list | dict):
            raise InputError(answer, row[answer], f"{path}, line {number}: give a text or a number")
        reference = str(row[answer])
        if not programs:
            reference = extract(reference) or reference.strip()
        level = {"level": row["level"]} if "level" in row else {}
        loaded.append(Problem(f"{path.stem}-{number}", asking(row[question]), reference, level))
        if n is not None and len(loaded) == n:
            break
    if not programs:
        return Task(path.stem, tuple(loaded), TextAnswers())
    checks = Checks(find_sandbox(unsafe))
    return Task(path.stem, tuple(loaded), Programs(), _checked(checks), checks)


def _checked(checks: Checks) -> Callable[[str | None, str | None], bool]:
    """The check of a program for callers outside of an event loop."""
    return lambda program, tests: asyncio.run(checks.passes(program, tests))
