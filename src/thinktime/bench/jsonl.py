"""Reads JSONL files, with errors that name the line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from thinktime.core.errors import InputError


def read_jsonl(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The objects of a JSONL file with their line numbers.

    Raises:
        InputError: the file cannot be read or is empty, or a line is not a JSON object.
    """
    seen = False
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                if not line.strip():
                    continue
                try:
                    value = json.loads(line)
                except ValueError as error:
                    raise InputError("file", f"{path}, line {number}", f"not JSON ({error})") from None
                if not isinstance(value, dict):
                    raise InputError("file", f"{path}, line {number}", "give one JSON object per line")
                seen = True
                yield number, value
    except (OSError, UnicodeDecodeError) as error:
        raise InputError("file", str(path), f"cannot read it ({error})") from None
    if not seen:
        raise InputError("file", str(path), "it is empty; give one JSON object per line")
