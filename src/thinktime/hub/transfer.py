"""Downloads files over HTTP, continues interrupted ones, and checks them."""

from __future__ import annotations

import http.client
import json
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any

from thinktime.core.errors import ModelError
from thinktime.core.printable import printable
from thinktime.files import sha256_of
from thinktime.hub.catalogue import ModelFile

Advance = Callable[[int], None]
"""Called with the number of bytes of a file that are here by now."""

TRIES = 6
"""Attempts without a new byte. Each attempt that gets some starts the count anew."""
FIRST_WAIT, LONGEST_WAIT = 0.5, 8.0
"""Seconds before the second attempt, and the most; each wait is twice as long as the one before."""
TIMEOUT = 30.0
"""Seconds without a byte after which an attempt has failed."""
BLOCK = 1 << 20
MOST_JSON = 64 << 20
"""Bytes of a list of files that are read."""


class PullError(ModelError):
    """A source does not have a model, or not all of it, or cannot be reached. The message is the reason."""


class WrongFileError(PullError):
    """A file is not the one that the catalogue or the hub names."""


def download(
    url: str, path: Path, size: int | None, advance: Advance, headers: Mapping[str, str] | None = None
) -> None:
    """Download a file, or the rest of it if the path has its start.

    Args:
        url: of the file, ``http`` or ``https``.
        path: of the file.
        size: in bytes; None if it is unknown.
        advance: called while bytes come.
        headers: sent to the host of the URL, and not to a host that it redirects to.

    Raises:
        PullError: it cannot be had. What has come stays, so that a later call continues.
        WrongFileError: it is longer than ``size``; what has come is deleted.
    """
    failures, came = 0, False
    while True:
        here = _size(path)
        if size is not None and here == size:
            advance(here)
            return
        if size is not None and here > size:
            path.unlink()
            here = 0
        try:
            _attempt(url, path, here, size, headers or {}, advance)
            return
        except _FailedError as error:
            came = came or _size(path) > here
            failures = 1 if _size(path) > here else failures + 1
            if error.again is False or (error.again is None and not came) or failures >= TRIES:
                raise PullError(f"{plain_url(url)}: {error}") from None
        _wait(failures)


def _attempt(url: str, path: Path, here: int, size: int | None, headers: Mapping[str, str], advance: Advance) -> None:
    """One request for the rest of a file.

    Raises:
        _FailedError: the file is not whole.
        WrongFileError: it is longer than ``size``.
    """
    request = _request(url, headers)
    if here:
        request.add_header("Range", f"bytes={here}-")
    try:
        response = _open(request)
    except _FailedError as error:
        if error.status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            path.unlink()  # the file is shorter than what is here
        raise
    with response:
        if response.status == HTTPStatus.PARTIAL_CONTENT:
            if not (response.headers.get("Content-Range") or "").startswith(f"bytes {here}-"):
                path.unlink(missing_ok=True)
                raise _FailedError("it sends another part than the one asked for", again=True)
        else:
            here = 0
        length = response.headers.get("Content-Length") or ""
        end = here + int(length) if length.isdigit() else size
        with path.open("r+b" if here else "wb") as file:
            file.seek(here)
            while (block := _read(response)) and (size is None or here + len(block) <= size):
                file.write(block)
                here += len(block)
                advance(here)
    if block:
        path.unlink()
        raise WrongFileError(f"{plain_url(url)}: wrong file: it has more than {size:,} bytes")
    if end is not None and here < end:
        raise _FailedError("the connection was cut", again=True)


def read_json(url: str, headers: Mapping[str, str] | None = None) -> Any:
    """The JSON value at a URL.

    Raises:
        PullError: there is none.
    """
    for turn in range(1, TRIES + 1):
        try:
            with _open(_request(url, headers or {})) as response:
                return json.loads(_read(response, MOST_JSON))
        except (ValueError, RecursionError):
            raise PullError(f"{plain_url(url)}: no JSON comes from there") from None
        except _FailedError as error:
            if not error.again or turn == TRIES:
                raise PullError(f"{plain_url(url)}: {error}") from None
            _wait(turn)
    raise AssertionError("the last attempt returns or raises")


def after(before: int, advance: Advance) -> Advance:
    """What a download calls that begins after some bytes of a whole."""
    return lambda n: advance(before + n)


def check(path: Path, file: ModelFile) -> None:
    """Check a whole file, and delete it if it is another one.

    Raises:
        WrongFileError: its size or its SHA-256 is not the file's.
    """
    size = _size(path)
    if size != file.size:
        path.unlink(missing_ok=True)
        raise WrongFileError(f"{file.name}: wrong file: it has {size:,} bytes, not {file.size:,}")
    found = sha256_of(path)
    if found != file.sha256:
        path.unlink()
        raise WrongFileError(f"{file.name}: wrong file: its SHA-256 is {found}, not {file.sha256}")


def _request(url: str, headers: Mapping[str, str]) -> urllib.request.Request:
    request = urllib.request.Request(url, headers={"User-Agent": "thinktime", "Accept-Encoding": "identity"})
    for name, value in headers.items():
        request.add_unredirected_header(name, value)
    return request


class _FailedError(Exception):
    """A request that failed.

    Args:
        reason: the message.
        again: whether another attempt may succeed; None if only after one that got something.
        status: of the reply.
    """

    def __init__(self, reason: str, *, again: bool | None, status: int | None = None) -> None:
        super().__init__(reason)
        self.again, self.status = again, status


def _open(request: urllib.request.Request) -> Any:
    """The response to a request."""
    try:
        return urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        error.close()
        raise _FailedError(_refusal(error.code), again=_may_pass(error.code), status=error.code) from None
    except (http.client.HTTPException, OSError, ValueError) as error:
        cause = error.reason if isinstance(error, urllib.error.URLError) else error
        raise _FailedError(f"it cannot be reached ({_words(cause)})", again=None) from None


def _read(response: Any, most: int = BLOCK) -> bytes:
    """The next bytes of a response; none at its end."""
    try:
        block: bytes = response.read(most)
    except (http.client.HTTPException, OSError) as error:
        raise _FailedError(f"the connection was cut ({_words(error)})", again=True) from None
    return block


def _refusal(status: int) -> str:
    if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        return f"access is refused ({status}); accept the licence on its page, and set HF_TOKEN"
    return "there is no such file (404)" if status == HTTPStatus.NOT_FOUND else f"it answers {status}"


def _may_pass(status: int) -> bool:
    """Whether another attempt after a refusal may succeed."""
    return status in (408, 416, 429) or status >= 500


def _words(error: object) -> str:
    if isinstance(error, TimeoutError):
        return f"no byte came for {TIMEOUT:g} s"
    return printable(str(getattr(error, "strerror", None) or error) or type(error).__name__)


def _wait(failures: int) -> None:
    time.sleep(min(LONGEST_WAIT, FIRST_WAIT * 2 ** (failures - 1)))


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def plain_url(url: str) -> str:
    """A URL without credentials, query and fragment, for messages and records: any of them may hold a secret."""
    parts = urllib.parse.urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
