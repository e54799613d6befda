"""Writes files that are whole or not there, expands paths that users write, and knows the user's cache folder."""

from __future__ import annotations

import hashlib
import os
import sys
from pathlib import Path

from thinktime.core.errors import InputError


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
