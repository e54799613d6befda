"""Writes the samples of a bench as CSV or Parquet, one row a sample."""

from __future__ import annotations

import csv
import importlib
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from thinktime.bench.jsonl import read_jsonl
from thinktime.core.errors import InputError
from thinktime.files import write_whole

SAMPLES = "samples.jsonl"
"""The file of the samples beside a result."""
COLUMNS = ("strategy", "n", "problem", "key", "kind", "answer", "correct", "tokens", "score", "text", "error")


def read_samples(result: Path) -> list[dict[str, Any]]:
    """The samples beside a result.

    Raises:
        InputError: they are not there, or cannot be read.
    """
    path = result.with_name(SAMPLES)
    if not path.exists():
        fix = f"there is no {SAMPLES} beside it; run the bench's command again, which finds its samples in the bank"
        raise InputError("result", str(result), fix)
    return [{name: row.get(name) for name in COLUMNS} for _, row in read_jsonl(path)]


def write_csv(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Write the rows with a head line; unknown values are empty."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, COLUMNS)
    writer.writeheader()
    writer.writerows(rows)
    write_whole(path, text.getvalue())


def write_parquet(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Write the rows with the types of their values.

    Raises:
        InputError: pyarrow is not installed.
    """
    try:
        arrow, parquet = importlib.import_module("pyarrow"), importlib.import_module("pyarrow.parquet")
    except ModuleNotFoundError:
        raise InputError("parquet", str(path), "it needs a package: pip install pyarrow") from None
    buffer = io.BytesIO()
    parquet.write_table(arrow.Table.from_pylist(list(rows)), buffer)
    write_whole(path, buffer.getvalue())
