"""Reads JSONL files, with errors that name the line."""

from __future__ import annotations

import codecs
import gzip
import io
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from thinktime.core.errors import InputError

GZIP = b"\x1f\x8b"
EXPORT = "thinktime samples"
"""The value of ``format`` in the first line of an exported bank; see `thinktime.bench.bank_export`."""
MARKS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
"""Byte order marks, and the encodings that they begin."""


def read_jsonl(path: Path, longest: int = -1) -> Iterator[tuple[int, dict[str, Any]]]:
    """The objects of a JSONL file with their line numbers.

    The file is in UTF-8, or in UTF-16 with a byte order mark. It may be compressed with gzip.

    Args:
        path: of the file.
        longest: the most characters of a line; -1 is no limit.

    Raises:
        InputError: the file cannot be read or is empty, or a line is too long or is not a JSON object.
    """
    seen = False
    try:
        with _opened(path) as file:
            for number, line in enumerate(iter(lambda: file.readline(longest), ""), 1):
                if len(line) == longest and not line.endswith("\n"):
                    raise InputError("file", f"{path}, line {number}", f"it has more than {longest:,} characters")
                if not line.strip():
                    continue
                value = _parsed(line, f"{path}, line {number}")
                seen = True
                yield number, value
    except UnicodeDecodeError as error:
        fix = f"it is not {error.encoding.upper()} ({error.reason} at byte {error.start}); convert it with iconv"
        raise InputError("file", str(path), fix) from None
    except (OSError, EOFError, zlib.error) as error:
        raise InputError("file", str(path), f"cannot read it ({error})") from None
    if not seen:
        raise InputError("file", str(path), "it is empty; give one JSON object per line")


def _opened(path: Path) -> io.TextIOWrapper:
    with path.open("rb") as file:
        packed = file.read(2) == GZIP
    raw = io.BufferedReader(gzip.open(path) if packed else path.open("rb"))  # noqa: SIM115  the wrapper closes it
    start = raw.peek(3)
    encoding = next((name for mark, name in MARKS.items() if start.startswith(mark)), "utf-8")
    return io.TextIOWrapper(raw, encoding)


def _parsed(line: str, where: str) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except ValueError as error:
        raise InputError("file", where, f"not JSON ({error})") from None
    except RecursionError:
        raise InputError("file", where, "its lists and objects are nested too deeply") from None
    if not isinstance(value, dict):
        raise InputError("file", where, "give one JSON object per line")
    return value
