"""The files of Hugging Face directories: their JSON objects, and the digests that name a model."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from thinktime.core.errors import InputError, ModelError
from thinktime.files import remembered

READ = ("*.safetensors", "*.bin", "*.json", "*.jinja")
"""The files that decide a sample: weights and adapters, configurations, the tokenizer and the chat template."""
LARGE = 64 << 20
"""Bytes from which on reading files again takes longer than it takes to notice that they are the same."""


def fingerprint(directory: Path, backend: str) -> str:
    """Sixteen hexadecimal digits that change with everything that decides a sample: the files and the backend."""
    paths = sorted(path for pattern in READ for path in directory.glob(pattern))
    names = [f"{path.name}: {path.stat().st_size}" for path in paths]
    return digest_of(paths, 8, "\n".join([backend, *names]))


def weights_digest(directory: Path) -> str:
    """Twelve hexadecimal digits that change with the weights."""
    return digest_of(sorted(directory.glob("*.safetensors")) or sorted(directory.glob("*.bin")))


def digest_of(paths: Sequence[Path], size: int = 6, start: str = "") -> str:
    """A digest of a text and of the content of files, as hexadecimal digits. Of large files the cache folder knows it.

    Args:
        paths: the files, in order.
        size: bytes of the digest; each is two digits.
        start: the text.
    """

    def computed() -> str:
        digest = hashlib.blake2b(start.encode(), digest_size=size)
        for path in paths:
            with path.open("rb") as file:
                while block := file.read(1 << 20):
                    digest.update(block)
        return digest.hexdigest()

    if sum(path.stat().st_size for path in paths) < LARGE:
        return computed()
    return remembered(f"blake2b {size} {start!r}", paths, computed)


def read_model_config(directory: Path, field: str = "model") -> dict[str, Any]:
    """The content of ``config.json``; ``field`` names the directory in messages.

    Raises:
        InputError: there is no such directory, or no such file in it.
        ModelError: the file is broken.
    """
    if not directory.is_dir():
        raise InputError(field, str(directory), "there is no such directory; give a Hugging Face model directory")
    if not (directory / "config.json").exists():
        raise InputError(field, str(directory), "there is no config.json in it; give a Hugging Face model directory")
    return read_json(directory / "config.json")


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file; empty if there is no such file.

    Raises:
        ModelError: it is not JSON.
    """
    if not path.exists():
        return {}
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{path}: not JSON ({error}); the file is broken") from error
    return value if isinstance(value, dict) else {}


def one_line(error: BaseException) -> str:
    """An error's text on one line, or the name of its type."""
    return " ".join(str(error).split())[:300] or type(error).__name__


def listed(names: list[str]) -> str:
    """The first three names, and the number of the others."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
