"""The two ends of an HTTP request under ASGI: its body, its answer, and whether anybody still waits for that."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Coroutine, Mapping
from typing import Any

from starlette.types import Receive, Send

from thinktime.gateway.errors import HttpError

EVENTS = {"Content-Type": "text/event-stream; charset=utf-8", "Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
"""Headers of a stream; proxies are not to keep it back."""


class ClientLeftError(Exception):
    """Nobody waits for the answer."""


class Reply:
    """Writes one answer."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.status = 0
        """Of the answer, once it has begun."""
        self.ended = False
        """Whether all of it was sent."""
        self.telling = False
        """Whether it is a stream of events, which can end in an error."""

    async def start(self, status: int, headers: Mapping[str, str]) -> None:
        """Begin an answer."""
        self.status = status
        told = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
        await self._send({"type": "http.response.start", "status": status, "headers": told})

    async def tell(self, opening: bytes) -> None:
        """Begin a stream of events."""
        self.telling = True
        await self.start(200, EVENTS)
        await self.more(opening)

    async def more(self, data: bytes) -> None:
        """Send a part of it."""
        await self._send({"type": "http.response.body", "body": data, "more_body": True})

    async def end(self, data: bytes = b"") -> None:
        """Send the last part."""
        self.ended = True
        await self._send({"type": "http.response.body", "body": data})

    async def whole(self, status: int, data: bytes, kind: str, headers: Mapping[str, str] | None = None) -> None:
        """Send an answer in one piece."""
        await self.start(status, {"Content-Type": kind, "Content-Length": str(len(data)), **(headers or {})})
        await self.end(data)

    async def json(self, status: int, value: object, headers: Mapping[str, str] | None = None) -> None:
        """Send an object."""
        await self.whole(status, json.dumps(value).encode(), "application/json", headers)


async def read_body(receive: Receive, headers: Mapping[str, str], most: int) -> bytes:
    """The body of a request.

    Raises:
        HttpError: it is longer than it may be.
        ClientLeftError: it did not come to its end.
    """
    too_long = HttpError(413, f"a request may have {most} bytes", code="request_too_large")
    length = headers.get("content-length", "0")
    if length.isdecimal() and int(length) > most:
        raise too_long
    parts, size = [], 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientLeftError
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > most:
            raise too_long
        if not message.get("more_body", False):
            return b"".join(parts)


async def while_waited_for(work: Coroutine[Any, Any, None], receive: Receive, reply: Reply) -> None:
    """Do the work; if the client leaves before its reply has ended, cancel it at once.

    Raises:
        ClientLeftError: it left.
    """
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_left(receive))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done() and not reply.ended:
            raise ClientLeftError
        await working
    finally:
        working.cancel()
        leaving.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def parsed(raw: bytes, headers: Mapping[str, str]) -> dict[str, Any]:
    """The JSON object that a body is.

    Raises:
        HttpError: it is none, or does not say that it is. A page in a browser cannot say so of its own accord.
    """
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise HttpError(415, f"Content-Type={kind!r}: send application/json", code="unsupported_media_type")
    try:
        value = json.loads(raw, parse_constant=_no_constant)
    except ValueError as error:
        raise HttpError(400, f"the body is no JSON: {error}", code="invalid_json") from None
    if not isinstance(value, dict):
        raise HttpError(400, f"the body is a JSON {type(value).__name__}; send an object", code="invalid_json")
    return value


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")
