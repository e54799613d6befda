"""A made-up Hugging Face hub and a made-up package index, on loopback, and wheels that carry files."""

from __future__ import annotations

import hashlib
import io
import json
import os
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.parse import urlsplit

import pytest

from thinktime.hub.catalogue import CatalogueEntry, Kind, ModelFile, WheelMember

COMMIT = "c0ffee" + "0" * 34


@dataclass
class Request:
    """A request that the server got."""

    path: str
    headers: Mapping[str, str]

    @property
    def start(self) -> int:
        """The first byte that it asks for."""
        return int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").rstrip("-"))


@dataclass
class Server:
    """Serves bodies by path. Use it as a context manager."""

    bodies: dict[str, bytes] = field(default_factory=dict)
    redirects: dict[str, str] = field(default_factory=dict)
    statuses: dict[str, int] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)
    cut_after: int | None = None
    """Bytes of a body after which the connection is closed."""
    knows_ranges: bool = True

    def __enter__(self) -> Server:
        this = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                this._answer(self)

            def log_message(self, *arguments: Any) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}"
        self._thread = Thread(target=self._http.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._http.shutdown()
        self._http.server_close()

    def got(self, path: str) -> list[Request]:
        """The requests for a path that ends like this."""
        return [request for request in self.requests if request.path.endswith(path)]

    def _answer(self, handler: BaseHTTPRequestHandler) -> None:
        path = urlsplit(handler.path).path
        request = Request(path, dict(handler.headers))
        self.requests.append(request)
        body, status = self.bodies.get(path), self.statuses.get(path, 200)
        if path in self.redirects:
            status, body = 302, b""
        elif body is None:
            status, body = 404, b"no such file"
        start = request.start if self.knows_ranges and "Range" in request.headers else 0
        if status == 200 and start and start >= len(body):
            status, body = 416, b""
        handler.send_response(206 if start and status == 200 else status)
        if status == 302:
            handler.send_header("Location", self.redirects[path])
        if start and status == 200:
            handler.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
            body = body[start:]
        handler.send_header("Content-Type", "text/html" if path.endswith("/") else "application/octet-stream")
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body if self.cut_after is None else body[: self.cut_after])
        if self.cut_after is not None and len(body) > self.cut_after:
            handler.close_connection = True

    def add_repository(self, name: str, files: Mapping[str, bytes], licence: str = "mit", **fields: Any) -> None:
        """Add a repository of the hub: its list and its files. The weights have a SHA-256, others git's hash."""
        siblings = []
        for file, content in files.items():
            self.bodies[f"/{name}/resolve/{COMMIT}/{file}"] = content
            each: dict[str, Any] = {"rfilename": file, "size": len(content)}
            if file.endswith((".gguf", ".safetensors", ".bin")):
                each["lfs"] = {"sha256": sha256(content), "size": len(content)}
            else:
                each["blobId"] = hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()
            siblings.append(each)
        listing = {"sha": COMMIT, "siblings": siblings, "cardData": {"license": licence}, **fields}
        self.bodies[f"/api/models/{name}/revision/main"] = json.dumps(listing).encode()

    def add_wheel(self, package: str, version: str, content: bytes) -> None:
        """Add the wheel of a package to the index."""
        name = f"{package.replace('-', '_')}-{version}-py3-none-any.whl"
        self.bodies[f"/wheels/{name}"] = content
        link = f'<a href="/wheels/{name}#sha256={sha256(content)}">{name}</a>'
        self.bodies[f"/simple/{package}/"] = f"<!DOCTYPE html><html><body>{link}</body></html>".encode()


def use_index(index: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let pip ask this index alone, without the configuration of this machine."""
    for name in [*os.environ]:
        if name.upper().startswith(("PIP_", "UV_", "HF_")) or name.upper().endswith("_PROXY"):
            monkeypatch.delenv(name)
    settings = {"PIP_INDEX_URL": f"{index.url}/simple", "PIP_CONFIG_FILE": os.devnull, "PIP_RETRIES": "1"}
    for name, value in settings.items():
        monkeypatch.setenv(name, value)


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def wheel(package: str, version: str, members: Mapping[Any, bytes]) -> bytes:
    """A wheel with these members, by name or `zipfile.ZipInfo`."""
    out, name = io.BytesIO(), package.replace("-", "_")
    info = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for member, content in members.items():
            archive.writestr(member, content)
        archive.writestr(f"{name}/__init__.py", "raise SystemExit('a carrier is never imported')\n")
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return out.getvalue()


def entry_of(content: bytes, *, name: str = "made-up", parts: int = 0, kind: Kind = "chat") -> CatalogueEntry:
    """A catalogue entry of one file, which this many packages carry."""
    step = -(-len(content) // max(parts, 1))
    pieces = tuple(
        WheelMember(f"{name}-part{n + 1}", "1.0", f"data/part{n + 1}.bin", len(content[n * step : (n + 1) * step]))
        for n in range(parts)
    )
    file = ModelFile(f"{name}.gguf", len(content), sha256(content), pieces)
    return CatalogueEntry(name, "Made up for a test.", kind, "MIT", f"made/{name}", COMMIT, (file,))


def add_packages(index: Server, entry: CatalogueEntry, content: bytes) -> None:
    """Add the packages of an entry of one file to the index."""
    start = 0
    for piece in entry.files[0].pieces:
        part = content[start : start + piece.size]
        index.add_wheel(piece.package, piece.version, wheel(piece.package, piece.version, {piece.member: part}))
        start += piece.size
