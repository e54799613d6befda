"""Finds the files of a model on this machine. Nothing is downloaded here."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from urllib.parse import urlsplit

from thinktime.core.errors import InputError
from thinktime.files import known_sha256, user_path
from thinktime.hub import huggingface
from thinktime.hub.catalogue import CATALOGUE, CatalogueEntry, Kind
from thinktime.hub.huggingface import Repository
from thinktime.hub.store import FileRecord, Provenance, Store, is_weights


class NotPulledError(InputError):
    """A model that can be pulled, but is not on this machine."""

    def __init__(self, text: str, why: str = "it is not on this machine") -> None:
        super().__init__("model", text, f"{why}; get it with `thinktime models pull {text}`, or add --yes")


@dataclass(frozen=True)
class Found:
    """A model on this machine.

    Args:
        path: its directory, or its ``.gguf`` file. There may be no such path: then nobody knows the text.
        record: its provenance, if it is known without reading the files.
    """

    path: Path
    record: Provenance | None = None

    @cached_property
    def provenance(self) -> Provenance:
        """Where the files come from. Files of the user are read for it, which takes about a second for 1.5 GB."""
        return self.record or _looked_at(self.path)

    @property
    def kind(self) -> Kind | None:
        """What the model can do; None is unknown."""
        return self.record.kind if self.record else None


@dataclass(frozen=True)
class FileURL:
    """A GGUF file at a URL. The part after ``#sha256=`` is its hash."""

    url: str
    sha256: str | None = None

    def __str__(self) -> str:
        return self.url

    @property
    def file(self) -> str:
        """The file's name."""
        return urlsplit(self.url).path.rpartition("/")[2]


Reference = CatalogueEntry | Repository | FileURL


def is_file_url(text: str) -> bool:
    """Whether a text is the URL of a GGUF file. Other URLs are endpoints."""
    try:
        return text.startswith(("http://", "https://")) and urlsplit(text).path.lower().endswith(".gguf")
    except ValueError:  # no URL
        return False


def reference(text: str) -> Reference | None:
    """What a text names that can be pulled: a model of the catalogue, a repository of the hub, or a file at a URL.

    Raises:
        InputError: it begins like one of them and cannot be one.
    """
    if text in CATALOGUE:
        return CATALOGUE[text]
    if is_file_url(text):
        url, _, fragment = text.partition("#")
        name, _, sha256 = fragment.partition("=")
        return FileURL(url, sha256.lower() if name == "sha256" else None)
    return huggingface.parse(text)


def name_of(known: Reference) -> str:
    """The name of a model in the store. Files of the same name at several URLs have several names."""
    if isinstance(known, CatalogueEntry):
        return known.name
    if isinstance(known, FileURL):
        return f"{known.file}-{hashlib.sha256(known.url.encode()).hexdigest()[:8]}"
    return str(known)


def find_known(text: str) -> Found | None:
    """A model of the catalogue, or a path of the user; None if the text is neither.

    Raises:
        NotPulledError: the catalogue has it, but this machine does not.
    """
    if (entry := CATALOGUE.get(text)) is not None:
        found = here(entry)
        if found is None:
            raise NotPulledError(text)
        return found
    if is_file_url(text):
        return None
    path = user_path("model", text)
    return Found(path) if path.exists() else None


def find_elsewhere(text: str) -> Found:
    """A repository of the hub or the file of a URL, in the store or in the cache of the hub.

    Raises:
        NotPulledError: it can be pulled.
        InputError: the text is close to a name of the catalogue.
    """
    known = reference(text)
    if known is None:
        if near := get_close_matches(text, CATALOGUE, n=1):
            raise InputError("model", text, f"there is no such directory; did you mean {near[0]!r}?")
        return Found(user_path("model", text))
    found = here(known)
    if found is not None:
        return found
    if isinstance(known, Repository) and not text.startswith("hf:"):
        raise NotPulledError(text, "there is no such path, and the hub's model of this name is not on this machine")
    raise NotPulledError(text)


def here(known: Reference) -> Found | None:
    """A model in the store or in the cache of the hub; None if it is in neither, or not all of it."""
    store, name = Store(), name_of(known)
    record = store.find(name)
    if record is not None and not (isinstance(known, FileURL) and _differs(record, known)):
        return Found(store.path(name), record)
    if isinstance(known, CatalogueEntry):
        return _catalogue_in_cache(known)
    if isinstance(known, Repository) and (cached := huggingface.cached(known)) is not None:
        path, revision = cached
        return Found(path, _of_cache(known, path, revision))
    return None


def _differs(record: Provenance, known: FileURL) -> bool:
    """Whether a pulled file has another SHA-256 than the one that the URL names now."""
    return known.sha256 not in (None, *(file.sha256 for file in record.files.values()))


def _catalogue_in_cache(entry: CatalogueEntry) -> Found | None:
    """A model of the catalogue in the cache of the hub: its weights by their SHA-256, the other files beside them."""
    (weights,) = (file for file in entry.files if is_weights(file.name))
    path = huggingface.cached_file(entry.repository, weights.name, weights.sha256)
    if path is None:
        return None
    if any(not (path.parent / file.name).exists() for file in entry.files):
        return None
    files = {file.name: FileRecord(file.size, file.sha256) for file in entry.files}
    record = Provenance(
        entry.name, f"cache of the hub: {entry.repository}", entry.licence, path.parent.name, entry.kind, files
    )
    return Found(path if len(entry.files) == 1 else path.parent, record)


def _of_cache(known: Repository, path: Path, revision: str) -> Provenance:
    folder = path if path.is_dir() else path.parent
    weights = [path] if path.is_file() else sorted(path.glob("*.safetensors"))
    files = {
        each.name: FileRecord(each.stat().st_size, huggingface.blob_sha256(each) or known_sha256(each))
        for each in weights
    }
    licence = huggingface.card_licence(folder)
    return Provenance(str(known), f"cache of the hub: {known.name}", licence, revision, files=files)


def _looked_at(path: Path) -> Provenance:
    """The provenance of files of the user: the catalogue knows some by their SHA-256."""
    weights = [path] if path.is_file() else sorted(path.glob("*.safetensors"))
    files = {each.name: FileRecord(each.stat().st_size, known_sha256(each)) for each in weights}
    hashes = {file.sha256 for file in files.values()}
    for entry in CATALOGUE.values():
        if hashes == {file.sha256 for file in entry.files if is_weights(file.name)}:
            return Provenance(entry.name, "files of the user", entry.licence, entry.revision, entry.kind, files)
    name = path.resolve().name
    return Provenance(name, "files of the user", huggingface.card_licence(path) if path.is_dir() else None, files=files)
