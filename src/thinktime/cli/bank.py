"""``thinktime bank``: exports of banks."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from thinktime.cli.common import Json, MaxTokens, Seed, Stop, Temperature, numbers_in, stops_in, template_of
from thinktime.core.errors import InputError
from thinktime.core.types import Sampling

bank = typer.Typer(no_args_is_help=True, help="Banks of samples: export them.")


@bank.callback()
def banks() -> None:
    """Without it, a group of one command would be that command."""


@bank.command("export")
def export_bank(
    source: Annotated[Path, typer.Argument(metavar="BANK", help="The bank. A bench may be writing it.")],
    out: Annotated[Path, typer.Argument(help="The new file, as samples.jsonl.gz.")],
    task: Annotated[str, typer.Option(help="The task of the samples, as for `thinktime bench`.")],
    problems: Annotated[int | None, typer.Option("--problems", "--limit", help="How many problems.")] = None,
    levels: Annotated[str, typer.Option(help="Pocket levels.")] = "1,2,3,4,5",
    split: Annotated[str, typer.Option(help="Split of the task.")] = "test",
    prompt_template: Annotated[str | None, typer.Option(help="As it was given to the bench.")] = None,
    system: Annotated[str | None, typer.Option(help="As it was given to the bench.")] = None,
    data: Annotated[Path | None, typer.Option(help="A folder with a benchmark's files.")] = None,
    question_field: Annotated[str, typer.Option(help="Where a JSONL file keeps the question.")] = "question",
    answer_field: Annotated[str, typer.Option(help="Where a JSONL file keeps the answer.")] = "answer",
    model: Annotated[str | None, typer.Option(help="The model's name in the bank; not needed if it has one.")] = None,
    temperature: Temperature = 1.0,
    top_p: Annotated[float, typer.Option("--top-p", help="As it was given to the bench.")] = 1.0,
    max_tokens: MaxTokens = None,
    stop: Stop = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Write the independent samples of a task to one small file, which `thinktime bench --replay --bank` reads."""
    from thinktime.bank.store import Bank
    from thinktime.bench.bank_export import export
    from thinktime.bench.tasks import load
    from thinktime.pocket import MAX_TOKENS

    if not source.is_file():
        raise InputError("bank", str(source), "there is no such file")
    loaded = load(
        task,
        problems,
        levels=numbers_in("levels", levels),
        split=split,
        question=question_field,
        answer=answer_field,
        unsafe=True,  # an export runs no program, so it needs no sandbox
        template=None if prompt_template is None else template_of(prompt_template),
        system=system,
        data=data,
    )
    limit = max_tokens or loaded.max_tokens or (MAX_TOKENS if task == "pocket" else 1024)
    sampling = Sampling(temperature, top_p, limit, stop=loaded.stop if stop is None else stops_in(stop))
    command = "thinktime " + shlex.join(sys.argv[1:])
    with Bank(source, read_only=True) as opened:
        header = export(opened, out, loaded, sampling, seed=seed, model=model, command=command)
    size = out.stat().st_size
    if as_json:
        print(json.dumps({"out": str(out), "bytes": size, "header": header}))
        return
    counts = ", ".join(f"{number:,} {what}" for what, number in header["n"].items())
    print(f"{out}: {counts}, {size:,} bytes")
