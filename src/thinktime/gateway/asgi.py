"""Reads request bodies and writes responses under ASGI, and cancels work when the client disconnects."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Coroutine, Mapping
from typing import Any

from starlette.types import Receive, Send

from thinktime.gateway.errors import HttpError

EVENTS = {"Content-Type": "text/event-stream; charset=utf-8", "Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
"""Headers of a stream. They ask proxies not to buffer it."""


class ClientLeftError(Exception):
    """The client disconnected before its answer was complete."""


class ResponseWriter:
    """Writes one HTTP response."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.status = 0
        """HTTP status of the response; 0 before it begins."""
        self.ended = False
        """Whether the last byte was sent."""
        self.streaming = False
        """Whether the response is a stream of the gateway's own events, which can end in an error event."""

    async def start(self, status: int, headers: Mapping[str, str]) -> None:
        """Send the status and headers."""
        self.status = status
        encoded = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
        await self._send({"type": "http.response.start", "status": status, "headers": encoded})

    async def start_stream(self, opening: bytes) -> None:
        """Begin a stream of events with the bytes ``opening``."""
        self.streaming = True
        await self.start(200, EVENTS)
        await self.write(opening)

    async def write(self, data: bytes) -> None:
        """Send a part of the body."""
        await self._send({"type": "http.response.body", "body": data, "more_body": True})

    async def end(self, data: bytes = b"") -> None:
        """Send the last part of the body."""
        self.ended = True
        await self._send({"type": "http.response.body", "body": data})

    async def send(self, status: int, data: bytes, kind: str, headers: Mapping[str, str] | None = None) -> None:
        """Send a whole response; ``kind`` is its content type."""
        await self.start(status, {"Content-Type": kind, "Content-Length": str(len(data)), **(headers or {})})
        await self.end(data)

    async def send_json(self, status: int, value: object, headers: Mapping[str, str] | None = None) -> None:
        """Send a value as JSON."""
        await self.send(status, json.dumps(value).encode(), "application/json", headers)


async def read_body(receive: Receive, headers: Mapping[str, str], most: int) -> bytes:
    """Read the body of a request of at most ``most`` bytes.

    Raises:
        HttpError: the body is too long.
        ClientLeftError: the client disconnected before the end of the body.
    """
    too_long = HttpError(413, f"a request may have at most {most} bytes", code="request_too_large")
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


async def run_while_connected(work: Coroutine[Any, Any, None], receive: Receive, writer: ResponseWriter) -> None:
    """Run the work, and cancel it at once if the client disconnects before the response has ended.

    Raises:
        ClientLeftError: the client disconnected.
    """
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_left(receive))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done() and not writer.ended:
            raise ClientLeftError
        await working
    finally:
        working.cancel()
        leaving.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def parse_json(raw: bytes, headers: Mapping[str, str]) -> dict[str, Any]:
    """Parse a body as a JSON object.

    The content type has to be ``application/json``, which a page of another site cannot send without permission.

    Raises:
        HttpError: the content type is another one, or the body is not a JSON object.
    """
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise HttpError(415, f"Content-Type={kind!r}: send application/json", code="unsupported_media_type")
    try:
        value = json.loads(raw, parse_constant=_no_constant)
        if b"\\ud" in raw.lower():
            json.dumps(value, ensure_ascii=False).encode()  # half of a surrogate pair cannot be sent on or stored
    except UnicodeEncodeError:
        raise HttpError(
            400, "the body has half of a surrogate pair; send whole characters", code="invalid_json"
        ) from None
    except ValueError as error:
        raise HttpError(400, f"the body is not JSON: {error}", code="invalid_json") from None
    if not isinstance(value, dict):
        raise HttpError(400, f"the body is a JSON {type(value).__name__}; send an object", code="invalid_json")
    return value


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON number")
