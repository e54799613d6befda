"""``thinktime data``: the problems of benchmarks, their licences, and whether they are on this machine."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer

from thinktime.cli.common import Json
from thinktime.core.errors import UnknownNameError

data = typer.Typer(no_args_is_help=True, help="List and download the problems of benchmarks.")


@data.command("ls")
def list_data(as_json: Json = False) -> None:
    """List the benchmarks, and which are on this machine.

    It prints their sizes, their licences and what the problems are.
    """
    from rich.console import Console
    from rich.table import Table

    from thinktime.bench.benchmarks import BENCHMARKS
    from thinktime.bench.data import data_folder

    listed = [
        (known, split, files[0], files[0] not in known.missing(split))
        for known in BENCHMARKS.values()
        for split, files in known.files.items()
    ]
    if as_json:
        rows = [
            {"name": known.name, "about": known.about, "split": split, "here": here, "file": asdict(file)}
            for known, split, file, here in listed
        ]
        print(json.dumps({"folder": str(data_folder()), "data": rows}))
        return
    table = Table(title=f"data in {data_folder()}", title_justify="left")
    table.add_column("name", no_wrap=True)
    for name in ("split", "MB", "here", "licence", "about"):
        table.add_column(name)
    for known, split, file, here in listed:
        table.add_row(known.name, split, f"{file.size / 1e6:.2f}", "yes" if here else "no", file.licence, known.about)
    Console().print(table)


@data.command("pull")
def pull_data(
    names: Annotated[list[str], typer.Argument(help="Benchmarks, as gsm8k humaneval.")], as_json: Json = False
) -> None:
    """Download problems of benchmarks, and check their SHA-256."""
    from thinktime.bench.benchmarks import BENCHMARKS, pull_missing

    for name in names:
        if name not in BENCHMARKS:
            raise UnknownNameError("name", name, BENCHMARKS)
    paths = [str(path) for name in names for path in pull_missing(BENCHMARKS[name])]
    if as_json:
        print(json.dumps({"files": paths}))
    else:
        print("\n".join(paths) or "they are on this machine already")
