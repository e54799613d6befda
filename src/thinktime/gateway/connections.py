"""Connections of clients: time limits for slow and silent ones, and limits on their number and on log lines."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from contextlib import suppress
from http import HTTPStatus
from typing import Any

import h11
import uvicorn
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from thinktime.gateway.asgi import ResponseWriter
from thinktime.gateway.errors import HttpError, busy
from thinktime.gateway.limits import (
    BODY_SECONDS,
    CONNECTIONS,
    HEAD,
    HEAD_SECONDS,
    LEAST_READ,
    LOG_LINES,
    LOG_SECONDS,
    SEND_SECONDS,
    SPARE,
)

try:
    import resource
except ImportError:  # Windows, which has no such limit
    resource = None  # type: ignore[assignment]

FILES = 64
"""Descriptors for files, the bank, logs and probes."""
DESCRIPTORS = 10_240
"""Open files to ask for on systems that name no maximum."""


def allow_descriptors() -> None:
    """Raise the limit of open files to the system's maximum; each client needs one, and each of its samples another."""
    if resource is None:
        return
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    for number in (most, DESCRIPTORS):
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (number, most))
            return


def shares() -> tuple[int, int]:
    """The most connections of clients, and the most connections to the upstream, by the limit of open files.

    Up to a third of the descriptors is for clients, and as much for those that are accepted but not counted yet.
    """
    limit = DESCRIPTORS
    if resource is not None and (found := resource.getrlimit(resource.RLIMIT_NOFILE)[0]) != resource.RLIM_INFINITY:
        limit = found
    free = max(limit - FILES - SPARE, 3)
    clients = min(CONNECTIONS, free // 3)
    return clients, free - 2 * clients


class ServerConfig(uvicorn.Config):
    """Settings of the HTTP server, and what its connections share."""

    def __init__(self, app: Any, most: int, **settings: Any) -> None:
        super().__init__(app, http=Connection, ws="none", h11_max_incomplete_event_size=HEAD, **settings)
        self.most = most
        """Most connections."""
        self.waiting: dict[Connection, None] = {}
        """Connections without a whole request, those that wait longest first."""
        self.spare: dict[Connection, None] = {}
        """The same for the connections above the limit."""


class Connection(H11Protocol):
    """A connection that is dropped if its client is slow, silent, or does not read.

    At the limit of connections, the one that waits longest for a request makes room for a new one. If all are busy,
    a few further connections get a 503, except for ``/health``.
    """

    config: ServerConfig
    _expected: Any = None
    """The state of the client for which the timer runs."""
    _receiving: asyncio.TimerHandle | None = None
    _sending: asyncio.TimerHandle | None = None
    _unsent = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Count the connection, and start the timer for the head of its first request."""
        super().connection_made(transport)
        transport.set_write_buffer_limits(high=0)  # so that unsent bytes start their timer
        self._queue = self.config.waiting
        if len(self.connections) - len(self.config.spare) > self.config.most:
            if not self._queue:
                self.app, self._queue = _crowded, self.config.spare
            if self._queue is self.config.waiting or len(self._queue) >= SPARE:
                next(iter(self._queue)).drop()
        self._expect()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the timers."""
        super().connection_lost(exc)
        self._forget()
        if self._sending is not None:
            self._sending.cancel()

    def data_received(self, data: bytes) -> None:
        """Read data, and start the timer for what has to follow."""
        super().data_received(data)
        self._expect()

    def on_response_complete(self) -> None:
        """Start the timer for the next request."""
        super().on_response_complete()
        self._expect()

    def pause_writing(self) -> None:
        """Start the timer for the client to read the unsent bytes."""
        super().pause_writing()
        self._unsent = self.transport.get_write_buffer_size()
        self._sending = self.loop.call_later(SEND_SECONDS, self._check_reading)

    def resume_writing(self) -> None:
        """Stop that timer, because all bytes are sent."""
        super().resume_writing()
        if self._sending is not None:
            self._sending.cancel()

    def send_400_response(self, msg: str) -> None:
        """Reply to bytes that are no HTTP, with an error like all others, unless another reply has begun."""
        long = len(self.conn.trailing_data[0]) > HEAD
        self._refuse(
            HttpError(431, f"a request may have at most {HEAD} bytes of headers") if long else HttpError(400, msg)
        )

    def drop(self) -> None:
        """Close the connection at once; its request is cancelled."""
        self._forget()
        self.transport.abort()

    def _expect(self) -> None:
        """Start the timer for the head or the body that has to follow; stop it if nothing has to follow."""
        state = self.conn.their_state
        if state is self._expected or self.transport.is_closing():
            return
        self._forget()
        self._expected = state
        if state in (h11.IDLE, h11.SEND_BODY):
            self._queue[self] = None
            seconds = HEAD_SECONDS if state is h11.IDLE else BODY_SECONDS
            self._receiving = self.loop.call_later(seconds, self._late)

    def _forget(self) -> None:
        self._queue.pop(self, None)
        if self._receiving is not None:
            self._receiving.cancel()

    def _late(self) -> None:
        if self.conn.their_state is h11.IDLE and not self.conn.trailing_data[0]:
            self.drop()  # no request has begun
        else:
            self._refuse(HttpError(408, "the request did not come in time", code="request_too_slow"))

    def _refuse(self, error: HttpError) -> None:
        """Reply with an error unless a reply has begun, and close the connection."""
        self._forget()
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            body = json.dumps(error.body).encode()
            lines = [f"HTTP/1.1 {error.status} {HTTPStatus(error.status).phrase}", "Content-Type: application/json"]
            lines += [f"Content-Length: {len(body)}", "Connection: close", "", ""]
            self.transport.write("\r\n".join(lines).encode() + body)
        if self.cycle is not None:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self.transport.close()

    def _check_reading(self) -> None:
        left = self.transport.get_write_buffer_size()
        if left > self._unsent - LEAST_READ:
            self.drop()
        else:
            self._unsent = left
            self._sending = self.loop.call_later(SEND_SECONDS, self._check_reading)


async def _crowded(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer ``/health``, and refuse everything else."""
    writer = ResponseWriter(send)
    if scope["path"] == "/health":
        await writer.send_json(200, {"status": "ok"}, {"Connection": "close"})
        return
    error = busy("there are too many connections")
    await writer.send_json(error.status, error.body, error.headers | {"Connection": "close"})


class LogLimit(logging.Filter):
    """Lets each line of code log at most `LOG_LINES` lines in `LOG_SECONDS`; the next line counts the others."""

    def __init__(self) -> None:
        super().__init__()
        self._places: dict[tuple[str, int], tuple[float, int]] = {}
        """The start of the current time span, and the number of lines since then, by file and line of code."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether to log this record."""
        place, now = (record.pathname, record.lineno), time.monotonic()
        began, lines = self._places.get(place, (now, 0))
        if now - began >= LOG_SECONDS:
            if lines > LOG_LINES:
                record.msg, record.args = f"{record.getMessage()} ({lines - LOG_LINES} more lines like this)", None
            began, lines = now, 0
        self._places[place] = (began, lines + 1)
        return lines < LOG_LINES
