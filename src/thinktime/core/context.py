"""The material that a question is about, as typed parts with ids; and fingerprints of values."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any


@dataclass(frozen=True)
class Document:
    """A text to read."""

    id: str
    text: str
    title: str = ""


@dataclass(frozen=True)
class Table:
    """Rows of values under named columns."""

    id: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]


@dataclass(frozen=True)
class FileTree:
    """Files by path: a repository, a folder of data."""

    id: str
    files: Mapping[str, str | bytes]


@dataclass(frozen=True)
class Image:
    """An encoded picture; ``media_type`` is for example ``image/png``."""

    id: str
    data: bytes
    media_type: str


@dataclass(frozen=True)
class Start:
    """The state in which an environment starts; the environment says what ``state`` holds."""

    id: str
    state: Any


Part = Document | Table | FileTree | Image | Start


def part(context: Sequence[Part], kind: type[Any], id: str) -> Any:
    """The part of this kind and id, or None if there is none."""
    return next((each for each in context if isinstance(each, kind) and each.id == id), None)


def digest(text: str) -> str:
    """The hash that keys are made of: 32 hexadecimal digits."""
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def canonical_json(value: Any) -> str:
    """JSON as ``json.dumps`` writes it; a value that JSON lacks is described by its kind and a hash of its content.

    Raises:
        TypeError: a value has no description.
    """
    return json.dumps(value, default=_described)


def _described(value: Any) -> Any:
    """A JSON value that stands for one that JSON does not have."""
    if is_dataclass(value) and not isinstance(value, type):
        return {"kind": type(value).__name__, **{f.name: getattr(value, f.name) for f in fields(value)}}
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, frozenset | set):
        return sorted(value)
    try:
        view = memoryview(value)
    except TypeError:
        fix = "give JSON values, bytes, dataclasses or arrays"
        raise TypeError(f"a {type(value).__name__} has no fingerprint; {fix}") from None
    content = hashlib.blake2b(view.tobytes(), digest_size=16).hexdigest()
    return {"kind": type(value).__name__, "format": view.format, "shape": view.shape, "content": content}
