"""``thinktime bank``: exports of banks, and banks from exports."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from thinktime.cli.common import Json, MaxTokens, Seed, Stop, Temperature, TopP, command_line, stops_in
from thinktime.cli.tasks import (
    AnswerField,
    Data,
    Levels,
    Problems,
    PromptTemplate,
    QuestionField,
    Split,
    System,
    loader,
)
from thinktime.core.errors import InputError
from thinktime.core.printable import printable
from thinktime.core.types import Sampling

bank = typer.Typer(no_args_is_help=True, help="Export, import, merge and compact banks of samples.")


@bank.command("export")
def export_bank(
    source: Annotated[
        str,
        typer.Argument(metavar="BANK", help="A file, or postgresql://USER@HOST/DATABASE. A bench may be writing it."),
    ],
    out: Annotated[Path, typer.Argument(help="The new file, as samples.jsonl.gz.")],
    task: Annotated[str, typer.Option(help="The task of the samples, as for `thinktime bench`.")],
    problems: Problems = None,
    levels: Levels = "1,2,3,4,5",
    split: Split = "test",
    prompt_template: PromptTemplate = None,
    system: System = None,
    data: Data = None,
    question_field: QuestionField = "question",
    answer_field: AnswerField = "answer",
    model: Annotated[str | None, typer.Option(help="The model's name in the bank; not needed if it has one.")] = None,
    temperature: Temperature = 1.0,
    top_p: TopP = 1.0,
    max_tokens: MaxTokens = None,
    stop: Stop = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Write the samples of a task to one small file.

    The samples are independent. `thinktime bench --replay --bank` reads the file.
    """
    from thinktime.bank.database import is_url
    from thinktime.bank.store import Bank
    from thinktime.bench.bank_writer import export
    from thinktime.pocket import MAX_TOKENS

    if not is_url(source) and not Path(source).is_file():
        raise InputError("bank", source, "there is no such file")
    loaded = loader(
        task,
        levels=levels,
        split=split,
        prompt_template=prompt_template,
        system=system,
        data=data,
        question_field=question_field,
        answer_field=answer_field,
        unsafe=True,  # an export runs no program, so it needs no sandbox
    )(problems)
    limit = max_tokens or loaded.max_tokens or (MAX_TOKENS if task == "pocket" else 1024)
    sampling = Sampling(temperature, top_p, limit, stop=loaded.stop if stop is None else stops_in(stop))
    with Bank(source, read_only=True) as opened:
        header = export(opened, out, loaded, sampling, seed=seed, model=model, command=command_line())
    size = out.stat().st_size
    if as_json:
        print(json.dumps({"out": str(out), "bytes": size, "header": header}))
        return
    counts = ", ".join(f"{number:,} {what}" for what, number in header["n"].items())
    print(f"{out}: {counts}, {size:,} bytes")


@bank.command("import")
def import_bank(
    source: Annotated[Path, typer.Argument(metavar="EXPORT", help="A file of `thinktime bank export`.")],
    out: Annotated[
        str,
        typer.Argument(
            metavar="BANK", help="A file, which is made if it does not exist, or postgresql://USER@HOST/DATABASE."
        ),
    ],
    as_json: Json = False,
) -> None:
    """Put the samples of an export into a bank.

    `thinktime bench --bank` then draws only the samples that are missing.
    """
    from thinktime.bank.store import Bank
    from thinktime.bench.bank_export import header_of, import_samples

    header_of(source)  # another file leaves no empty bank
    with Bank(out) as opened:
        header = import_samples(source, opened)
    if as_json:
        print(json.dumps({"bank": opened.place, "header": header}))
        return
    print(f"{opened.place}: {header['n']['samples']:,} samples of {printable(header['model'])}")


@bank.command("merge")
def merge_banks(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="BANK...", help="Files, or postgresql://USER@HOST/DATABASE. Benches may be writing them."
        ),
    ],
    out: Annotated[
        str,
        typer.Argument(metavar="BANK", help="The bank that gets everything: a file, which may not exist, or a URL."),
    ],
    as_json: Json = False,
) -> None:
    """Put the samples of several banks into one.

    The same `thinktime bench` without `--shard` then finds all samples there. The first sample of a key counts. What
    accounts of a gateway have spent stays where it is.
    """
    from thinktime.bank.database import is_url
    from thinktime.bank.store import Bank

    for source in sources:
        if not is_url(source) and not Path(source).is_file():
            raise InputError("bank", source, "there is no such file")
        if Path(source).resolve() == Path(out).resolve():
            raise InputError(
                "bank", source, "this bank gets everything, so it has its own samples; leave it out before"
            )
        with Bank(source, read_only=True):
            pass  # what is no bank leaves no new file
    with Bank(out) as opened:
        before = len(opened)
        for source in sources:
            with Bank(source, read_only=True) as other:
                opened.add_contents(other.contents())
        samples = len(opened)
    if as_json:
        print(json.dumps({"bank": opened.place, "samples": samples, "new": samples - before}))
        return
    print(f"{opened.place}: {samples:,} samples, {samples - before:,} new")


@bank.command("compact")
def compact_bank(
    source: Annotated[str, typer.Argument(metavar="BANK", help="A file, or postgresql://USER@HOST/DATABASE.")],
    older_than: Annotated[str | None, typer.Option(help="Remove older samples: 12h, 30d, 8w.")] = None,
    larger_than: Annotated[str | None, typer.Option(help="Then remove the oldest ones beyond: 500MB, 2GB.")] = None,
    as_json: Json = False,
) -> None:
    """Remove the oldest samples of a bank.

    Their scores and verdicts go with them. What keys have spent stays. A file must not be in use; gateways may use a
    database meanwhile.
    """
    from thinktime.bank.database import is_url
    from thinktime.bank.retention import days, size
    from thinktime.bank.store import Bank

    if older_than is None and larger_than is None:
        raise InputError("older_than", None, "give --older-than, --larger-than or both")
    oldest = None if older_than is None else days("older_than", older_than)
    most = None if larger_than is None else size("larger_than", larger_than)
    if not is_url(source) and not Path(source).is_file():
        raise InputError("bank", source, "there is no such file")
    with Bank(source) as opened:
        removed = opened.compact(oldest, most)
        left = len(opened)
    if as_json:
        print(json.dumps({"bank": opened.place, "removed": removed, "samples": left}))
        return
    print(f"{opened.place}: {removed:,} samples removed, {left:,} left")
