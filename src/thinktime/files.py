"""Writes files that are whole or not there, expands paths that users write, and knows the user's cache folder."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
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
    """The SHA-256 of a large file that rarely changes. The cache folder remembers it.

    The file is read again if its size, its inode or a time of its last change is another one, or if it changed in the
    last seconds: two changes may have the same time.
    """
    status, memory = path.stat(), cache_folder() / "hashes.json"
    state = [status.st_size, status.st_ino, status.st_mtime_ns, status.st_ctime_ns]
    known: dict[str, Any] = {}
    with suppress(OSError, ValueError):
        known = dict(json.loads(memory.read_text(encoding="utf-8")) or {})
    name = str(path.resolve())
    match known.get(name):
        case [*before, str(sha256)] if before == state:
            return sha256
    sha256 = sha256_of(path)
    if time.time() - max(status.st_mtime, status.st_ctime) > SETTLED:
        with suppress(OSError):
            memory.parent.mkdir(parents=True, exist_ok=True)
            write_whole(memory, json.dumps(known | {name: [*state, sha256]}))
    return sha256
