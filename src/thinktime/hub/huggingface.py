"""The Hugging Face hub: names of its models, its cache on this machine, and its lists of files."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote

from thinktime.core.errors import InputError
from thinktime.files import user_path
from thinktime.hub.transfer import PullError, read_json

NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
"""``org/repo``."""
_SHA256 = re.compile(r"[0-9a-f]{64}")
WANTED = re.compile(
    r"(?!consolidated)[\w.-]+\.(safetensors|json|jinja|txt|model)|1_Pooling/config\.json|README\.md|LICEN[CS]E[\w.]*"
)
"""Files of a repository that a model directory needs. Formats that may hold code are not among them."""


@dataclass(frozen=True)
class Repository:
    """A repository of the hub, or one file of it.

    Args:
        name: ``org/repo``.
        file: a GGUF file in it; None is a model directory, or the only GGUF file.
    """

    name: str
    file: str | None = None

    def __str__(self) -> str:
        return self.name if self.file is None else f"{self.name}:{self.file}"


@dataclass(frozen=True)
class Listed:
    """A file in the list of a repository. Large files have a SHA-256, small ones the hash of git."""

    name: str
    size: int
    sha256: str | None
    git: str | None

    def fits(self, path: Path) -> bool:
        """Whether a small file has the hash of git: SHA-1 over its length and content."""
        content = path.read_bytes()
        start = f"blob {len(content)}\0".encode()
        return self.git is None or hashlib.sha1(start + content, usedforsecurity=False).hexdigest() == self.git


@dataclass(frozen=True)
class Listing:
    """The files that make a model of a repository."""

    revision: str
    licence: str | None
    files: tuple[Listed, ...]


def parse(text: str) -> Repository | None:
    """The repository that a text names: ``org/repo`` or ``hf:org/repo[:file]``; None if it names none.

    Raises:
        InputError: it begins with ``hf:`` and goes on otherwise.
    """
    name, _, file = text.removeprefix("hf:").partition(":")
    if NAME.fullmatch(name) and (not file or _is_inside(file)):
        return Repository(name, file or None)
    if text.startswith("hf:"):
        raise InputError("model", text, "write it as hf:org/repo or hf:org/repo:file.gguf")
    return None


def is_offline() -> bool:
    """Whether the user forbids requests to the hub."""
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")


def file_url(repository: str, revision: str, file: str) -> str:
    """Where the hub has a file."""
    return f"{_endpoint()}/{repository}/resolve/{quote(revision, safe='')}/{quote(file)}"


def credentials() -> dict[str, str]:
    """The header with the user's token, if there is one."""
    token = os.environ.get("HF_TOKEN", "").strip()
    if not token:
        try:
            token = (_home() / "token").read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError):
            return {}
    return {"Authorization": f"Bearer {token}"} if token.isascii() and token.isprintable() and token else {}


def listing(repository: Repository) -> Listing:
    """Ask the hub for the files of a model.

    Raises:
        PullError: the hub cannot be reached, or the repository has no model that can be loaded.
    """
    url = f"{_endpoint()}/api/models/{repository.name}/revision/main?blobs=true"
    found = read_json(url, credentials())
    try:
        files = {each.name: each for each in map(_listed, found["siblings"])}
        revision = str(found["sha"])
        licence = _licence(found)
    except (KeyError, TypeError, ValueError, AttributeError):
        raise PullError(f"{repository.name}: the hub's list of files has another form than expected") from None
    return Listing(revision, licence, _chosen(repository, files))


def cached_file(repository: str, file: str, sha256: str) -> Path | None:
    """A file in the cache of the hub that has this SHA-256; None if there is none."""
    for path in sorted((_cached(repository) / "snapshots").glob(f"*/{file}")):
        if path.exists() and path.resolve().name == sha256:
            return path
    return None


def cached(repository: Repository) -> tuple[Path, str] | None:
    """A model in the cache of the hub, and its revision; None if it is not there, or not all of it."""
    folder = _cached(repository.name)
    revision = _text(folder / "refs" / "main").strip()
    snapshots = [path for path in (folder / "snapshots").glob("*") if revision in ("", path.name)]
    if len(snapshots) != 1:
        return None
    (snapshot,) = snapshots
    if repository.file is not None:
        path = snapshot / repository.file
        return (path, snapshot.name) if path.is_file() else None
    if _is_whole(snapshot):
        return snapshot, snapshot.name
    ggufs = [path for path in snapshot.glob("*.gguf") if path.is_file()]
    return (ggufs[0], snapshot.name) if len(ggufs) == 1 else None


def blob_sha256(path: Path) -> str | None:
    """The SHA-256 of a large file in the cache of the hub, which is the name of the file that it links to."""
    name = path.resolve().name
    return name if _SHA256.fullmatch(name) else None


def cache_folder() -> Path:
    """The cache of the hub, as its own library finds it."""
    given = os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE")
    return user_path("HF_HUB_CACHE", given) if given else _home() / "hub"


def card_licence(folder: Path) -> str | None:
    """The licence in the head of a model card, ``README.md``; None if there is none."""
    head = _text(folder / "README.md")[:20_000]
    if not head.startswith("---"):
        return None
    found = re.search(r"^license:\s*['\"]?([\w.+-]+)['\"]?\s*$", head.split("\n---", 1)[0], re.MULTILINE)
    return found[1] if found else None


def _chosen(repository: Repository, files: Mapping[str, Listed]) -> tuple[Listed, ...]:
    """The files of a repository that make a model."""
    if repository.file is not None:
        if repository.file not in files:
            raise PullError(f"{repository.name}: it has no file {repository.file}")
        return (files[repository.file],)
    wanted = tuple(each for name, each in files.items() if WANTED.fullmatch(name))
    if any(each.name.endswith(".safetensors") for each in wanted):
        return wanted
    ggufs = sorted(name for name in files if name.endswith(".gguf"))
    if len(ggufs) == 1:
        return (files[ggufs[0]],)
    if ggufs:
        raise PullError(f"name a file, as hf:{repository.name}:{ggufs[0]}; it has {', '.join(ggufs)}")
    raise PullError(f"{repository.name}: it has neither safetensors nor GGUF files")


def _listed(sibling: dict[str, Any]) -> Listed:
    large = sibling.get("lfs") or {}
    name, sha256, git = str(sibling["rfilename"]), large.get("sha256"), sibling.get("blobId")
    if not _is_inside(name):
        raise ValueError(name)
    size = large["size"] if large else sibling["size"]
    return Listed(name, int(size), sha256, None if sha256 else git)


def _is_inside(name: str) -> bool:
    """Whether a name stays in its folder on every platform."""
    parts = PurePosixPath(name).parts
    return bool(parts) and not {"..", "/"} & set(parts) and not re.search(r"[\\:\0]", name)


def _licence(found: Mapping[str, Any]) -> str | None:
    card = (found.get("cardData") or {}).get("license")
    tags = [tag.removeprefix("license:") for tag in found.get("tags") or () if str(tag).startswith("license:")]
    return card if isinstance(card, str) else tags[0] if tags else None


def _is_whole(snapshot: Path) -> bool:
    """Whether a folder has a configuration and all its weights."""
    if not (snapshot / "config.json").is_file():
        return False
    index = _text(snapshot / "model.safetensors.index.json")
    try:
        names = set(json.loads(index)["weight_map"].values()) if index else {"model.safetensors"}
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return False
    return all((snapshot / str(name)).is_file() for name in names)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""


def _cached(repository: str) -> Path:
    return cache_folder() / f"models--{repository.replace('/', '--')}"


def _home() -> Path:
    if given := os.environ.get("HF_HOME"):
        return user_path("HF_HOME", given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "huggingface"


def _endpoint() -> str:
    return (os.environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")
