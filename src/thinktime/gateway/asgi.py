"""Reads request bodies and writes responses under ASGI, and cancels work when the client disconnects."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Coroutine, Mapping
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send

from thinktime.gateway.errors import HttpError, busy
from thinktime.gateway.limits import HEAD, HEADERS, RETRY_SECONDS, VALUES
from thinktime.models.remote.limits import SMALL, Share

EVENTS = {"Content-Type": "text/event-stream; charset=utf-8", "Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
"""Headers of a stream. They ask proxies not to buffer it."""
_HOST = re.compile(rb"(?:\[[0-9A-Fa-f:.]+\]|[\w.~%!$&'()*+,;=-]*)(?::[0-9]{0,5})?")


class HeadCheck:
    """Refuses requests with too many or too long headers, or without a valid Host."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request to the app, or refuse it."""
        error = _head_error(scope) if scope["type"] == "http" else None
        if error is None:
            await self._app(scope, receive, send)
        else:
            await ResponseWriter(send).send_json(error.status, error.body, {"Connection": "close"})


def _head_error(scope: Scope) -> HttpError | None:
    headers: list[tuple[bytes, bytes]] = scope["headers"]
    size = len(scope["raw_path"]) + len(scope["query_string"]) + sum(len(name) + len(value) for name, value in headers)
    if size > HEAD or len(headers) > HEADERS:
        limit = f"a request may have at most {HEADERS} headers, and {HEAD} bytes of headers and address"
        return HttpError(431, limit, code="headers_too_large")
    if not all(_HOST.fullmatch(value) for name, value in headers if name == b"host"):
        return HttpError(400, "Host: send the name of a host, with or without a port", code="host")
    return None


class ClientLeftError(Exception):
    """The client disconnected before its answer was complete."""


class ResponseWriter:
    """Writes one HTTP response."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.headers: Mapping[str, str] = {}
        """Further headers of the response, in place of those with the same name."""
        self.status = 0
        """HTTP status of the response; 0 before it begins."""
        self.ended = False
        """Whether the last byte was sent."""
        self.streaming = False
        """Whether the response is a stream of the gateway's own events, which can end in an error event."""

    async def start(self, status: int, headers: Mapping[str, str]) -> None:
        """Send the status and headers."""
        self.status = status
        lower = {name.lower(): value for each in (headers, self.headers) for name, value in each.items()}
        encoded = [(name.encode("latin-1"), value.encode(errors="surrogateescape")) for name, value in lower.items()]
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


async def read_body(receive: Receive, headers: Mapping[str, str], most: int, room: Share) -> bytes:
    """Read the body of a request of at most ``most`` bytes. What goes beyond `SMALL` bytes is taken from the room.

    Raises:
        HttpError: the body is too long or compressed, or the room is full.
        ClientLeftError: the client disconnected before the end of the body, or took too long.
    """
    if (encoding := headers.get("content-encoding", "identity").strip().lower()) != "identity":
        raise HttpError(
            415, f"Content-Encoding={encoding[:40]!r}: send the body as it is", code="unsupported_media_type"
        )
    length = headers.get("content-length", "0")
    if len(length) > 15 or (length.isdecimal() and int(length) > most):
        raise _too_long(most)
    parts, size = [], 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientLeftError
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > most:
            raise _too_long(most)
        if size > SMALL and not room.take(len(parts[-1])):
            raise busy("other long requests take all the memory for bodies")
        if not message.get("more_body", False):
            return b"".join(parts)


def _too_long(most: int) -> HttpError:
    return HttpError(413, f"a request may have at most {most} bytes", code="request_too_large")


async def run_while_connected(
    work: Coroutine[Any, Any, None],
    receive: Receive,
    writer: ResponseWriter,
    seconds: float,
    running: set[asyncio.Future[None]],
) -> None:
    """Run the work, and cancel it at once if the client disconnects before the response has ended.

    Args:
        work: answers the request.
        receive: the messages of the client.
        writer: of the response.
        seconds: most time for it.
        running: has the work while it runs. Whoever cancels it there stops the server.

    Raises:
        ClientLeftError: the client disconnected.
        HttpError: the work took longer than ``seconds``, or the server stops.
    """
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_left(receive))
    running.add(working)
    try:
        ended, _ = await asyncio.wait({working, leaving}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        if not ended:
            raise HttpError(504, f"the request took longer than {seconds:g} s", code="request_too_late")
        if not working.done() and not writer.ended:
            raise ClientLeftError
        if working.cancelled():
            raise HttpError(503, "the gateway stops; try again", code="stopping", retry_after=RETRY_SECONDS)
        await working
    finally:
        running.discard(working)
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
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()[:80]
    if kind != "application/json":
        raise HttpError(415, f"Content-Type={kind!r}: send application/json", code="unsupported_media_type")
    if raw.count(b",") > VALUES:
        raise HttpError(413, f"a request may have at most {VALUES} values", code="request_too_large")
    try:
        value = _DECODER.decode(raw.decode(json.detect_encoding(raw)))
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


_DECODER = json.JSONDecoder(parse_constant=_no_constant)
