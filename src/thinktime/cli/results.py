"""``thinktime compare`` and ``thinktime export``: what can be done with the results of benches."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from thinktime.cli.common import Json, read_json
from thinktime.core.errors import InputError

Result = Annotated[Path, typer.Argument(help="A result.json of `thinktime bench`.")]


def compare(
    first: Result,
    second: Result,
    a: Annotated[str | None, typer.Option("--a", help="The run of the first result: majority@8.")] = None,
    b: Annotated[str | None, typer.Option("--b", help="The run of the second result.")] = None,
    as_json: Json = False,
) -> None:
    """Compare two results problem by problem.

    It prints the second minus the first, with 95% intervals.
    """
    from rich.console import Console
    from rich.table import Table

    from thinktime.bench.compare import compare as compared
    from thinktime.bench.table import difference, interval

    try:
        found = compared(_result(first), _result(second), a, b)
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise InputError("result", f"{first} and {second}", f"one is no whole result ({reason})") from None
    if as_json:
        print(json.dumps(found))
        return
    table = Table()
    for name in ("first", "second", "problems", "accuracy", "accuracy", "second minus first", "better", "worse"):
        table.add_column(name, justify="left" if name in ("first", "second") else "right", no_wrap=True)
    for row in found:
        accuracies = (interval(row["accuracy_a"]), interval(row["accuracy_b"]), difference(row["difference"]))
        table.add_row(row["a"], row["b"], str(row["n_problems"]), *accuracies, str(row["better"]), str(row["worse"]))
    needed = Console(width=1000).measure(table).maximum
    Console(width=max(Console().width, needed)).print(table)
    for row in found:
        if left := row["only_a"] + row["only_b"]:
            print(f"{row['a']}, {row['b']}: {left} problems are in one result only and are left out")


def export(
    result: Result,
    csv: Annotated[Path | None, typer.Option("--csv", help="Write the samples as CSV.")] = None,
    parquet: Annotated[Path | None, typer.Option("--parquet", help="Write them as Parquet; needs pyarrow.")] = None,
    figure: Annotated[
        list[Path] | None,
        typer.Option(
            help="Draw accuracy against tokens as NAME.svg, NAME.pdf or NAME.png; needs matplotlib. Repeatable."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Write the samples of a result to a table, or its plot.

    A sample is one row: problem, answer, whether it is right, tokens, text.
    """
    from thinktime.bench.export import read_samples, write_csv, write_parquet
    from thinktime.bench.figures import write_figure

    if csv is None and parquet is None and not figure:
        raise InputError("export", None, "give --csv FILE, --parquet FILE or --figure FILE")
    rows = [] if csv is None and parquet is None else read_samples(result)
    work: list[tuple[Path, Callable[[Path], None]]] = [
        (path, partial(write_figure, _result(result))) for path in figure or []
    ]
    work += [
        (path, partial(write, rows)) for path, write in ((csv, write_csv), (parquet, write_parquet)) if path is not None
    ]
    for path, write in work:
        try:
            write(path)
        except OSError as error:
            raise InputError("file", str(path), f"cannot write it ({error})") from None
        except (LookupError, TypeError) as error:
            reason = f"{type(error).__name__}: {error}"
            raise InputError("result", str(result), f"it is no whole result ({reason})") from None
    files = [str(path) for path, _ in work]
    print(json.dumps({"files": files, "samples": len(rows)}) if as_json else f"{len(rows)} samples: {', '.join(files)}")


def _result(path: Path) -> dict[str, Any]:
    found = read_json(path)
    if "runs" not in found or found.get("schema") != 1:
        raise InputError("result", str(path), "it is no result of `thinktime bench` (schema 1)")
    return found
