"""Writes files that are whole or not there, expands paths that users write, and knows the user's cache folder."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from thinktime.core.errors import InputError

SETTLED = 2.0
"""Seconds after which a further change of a file has another time; some file systems count in steps of two seconds."""


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a file beside the path first, and then replace the path by it. An error leaves the old file.

    A text is written in UTF-8.

    Raises:
        OSError: the file cannot be written.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with beside.open("wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def user_path(field: str, text: str) -> Path:
    """A path that a user wrote, with its ``~`` expanded. There may be no such file.

    Raises:
        InputError: no file can have this path, or it cannot be seen.
    """
    try:
        path = Path(text).expanduser()
        path.exists()
    except (OSError, RuntimeError, ValueError) as error:
        raise InputError(field, text, f"this cannot be a path ({error})") from None
    return path


def cache_folder() -> Path:
    """The folder of models and other files that thinktime can get again: ``THINKTIME_HOME``, or the platform's."""
    if home := os.environ.get("THINKTIME_HOME"):
        return user_path("THINKTIME_HOME", home)
    if sys.platform == "win32":
        above = os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local"
    elif sys.platform == "darwin":
        above = os.environ.get("XDG_CACHE_HOME") or Path.home() / "Library" / "Caches"
    else:
        above = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(above) / "thinktime"


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def known_sha256(path: Path) -> str:
    """`sha256_of` a large file, which is read again only if it has changed, see `remembered`."""
    return remembered("sha256", [path], lambda: sha256_of(path))


def remembered(kind: str, paths: Sequence[Path], digest: Callable[[], str]) -> str:
    """A digest of large files that rarely change. The cache folder remembers it.

    It is computed again if the size, the inode or a time of the last change of a file is another one, or if one changed
    in the last seconds: two changes may have the same time.

    Args:
        kind: which digest of these files it is.
        paths: the files, in order.
        digest: computes it.
    """
    memory, found = cache_folder() / "hashes.json", [path.stat() for path in paths]
    states = [[each.st_size, each.st_ino, each.st_mtime_ns, each.st_ctime_ns] for each in found]
    known: dict[str, Any] = {}
    with suppress(OSError, ValueError):
        known = dict(json.loads(memory.read_text(encoding="utf-8")) or {})
    name = " ".join([kind, *(str(path.resolve()) for path in paths)])
    match known.get(name):
        case [before, str(value)] if before == states:
            return value
    value = digest()
    if time.time() - max(max(each.st_mtime, each.st_ctime) for each in found) > SETTLED:
        with suppress(OSError):
            memory.parent.mkdir(parents=True, exist_ok=True)
            write_whole(memory, json.dumps(known | {name: [states, value]}))
    return value
