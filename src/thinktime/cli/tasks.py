"""The options that choose a task, and the task that they choose."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from thinktime.cli.common import numbers_in, template_of

if TYPE_CHECKING:
    from thinktime.bench.tasks import Task

Problems = Annotated[
    int | None, typer.Option("--problems", "--limit", help="How many problems; default 100, or the whole file.")
]
Levels = Annotated[str, typer.Option(help="Pocket levels.")]
Split = Annotated[str, typer.Option(help="Split: train, dev or test of pocket; train or test of gsm8k.")]
PromptTemplate = Annotated[
    str | None, typer.Option(help="A file or a text with {question}: the prompt, in place of the task's own turns.")
]
System = Annotated[str | None, typer.Option(help="A system message before each prompt.")]
Data = Annotated[Path | None, typer.Option(help="A folder with a benchmark's files; their SHA-256 decides.")]
QuestionField = Annotated[str, typer.Option(help="Where a JSONL file keeps the question.")]
AnswerField = Annotated[str, typer.Option(help="Where a JSONL file keeps the answer.")]


def loader(
    task: str,
    *,
    levels: str,
    split: str,
    prompt_template: str | None,
    system: str | None,
    data: Path | None,
    question_field: str,
    answer_field: str,
    unsafe: bool,
) -> Callable[[int | None], Task]:
    """A function that loads so many problems of the task; None is as many as usual.

    Args:
        task: its name, or a file.
        levels, split, prompt_template, system, data, question_field, answer_field: the values of these options.
        unsafe: whether programs may run without a sandbox.
    """
    from thinktime.bench.tasks import load

    return partial(
        load,
        task,
        levels=numbers_in("levels", levels),
        split=split,
        question=question_field,
        answer=answer_field,
        unsafe=unsafe,
        template=None if prompt_template is None else template_of(prompt_template),
        system=system,
        data=data,
    )
