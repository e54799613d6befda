"""An HTTP client for one endpoint: a connection pool, deadlines, and retries that honour Retry-After."""

from __future__ import annotations

import asyncio
import ipaddress
import json
import math
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import lru_cache
from random import Random
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from thinktime.core.clock import Deadline
from thinktime.core.errors import InputError, ModelError
from thinktime.core.printable import printable
from thinktime.models.remote.events import BOM, DONE, EventReader, SentEvent, looks_like_events
from thinktime.models.remote.limits import EVENTS, LISTING_SECONDS, SMALL, VALUES, OversizeError, Reading
from thinktime.models.remote.reported_errors import reported_error, status_of

if TYPE_CHECKING:
    import aiohttp
    from aiohttp import ClientResponse as Response

TRIES = 5
FIRST_WAIT, LONGEST_WAIT = 0.5, 8.0
"""Upper bounds in seconds of the random wait before the second try, and of later waits, which double up to here."""
PATIENCE = 120.0
"""Longest wait in seconds before another try; if a longer one is needed, the error is raised."""
BLANK = BOM + b" \t\r\n"
"""Bytes that may come before a JSON value."""
MOST_DIGITS = 4000
"""Digits of a whole number; Python converts no more than 4,300."""
LONGEST_RETRY = 86_400.0
"""Longest Retry-After in seconds that is believed."""
TURN = 100
"""Events that are read in one turn of the event loop."""
OnEvent = Callable[[Mapping[str, Any]], Awaitable[None]]
"""Called with each event of a streamed answer, in order. The next event is read when it returns."""


class RemoteError(ModelError):
    """A failed request. ``billed`` says whether the endpoint may charge for it."""

    billed = False


class UnreachableError(RemoteError):
    """The connection failed, or closed before an answer began."""


class RefusedError(RemoteError):
    """The endpoint answered with an error: by its status, or by an error object in a reply of status 200.

    ``billed``: the error came with a usage, or after a part of a sample.
    """

    def __init__(
        self, url: str, status: int, message: str, *, tries: int, billed: bool, retry_after: float | None
    ) -> None:
        after = f" after {tries} tries" if tries > 1 else ""
        if status == 429:
            fix = "; send fewer requests at once, or wait"
        elif status >= 500:
            fix = "; see the server's log"
        else:
            fix = "; give the address it moved to" if status < 400 else ""
        super().__init__(f"endpoint={url!r}: it answers {status}{after} ({message}){fix}")
        self.status, self.message, self.retry_after = status, message, retry_after
        self.billed = billed
        self.repeatable = billed and (status == 429 or status >= 500)


class UnreadableError(RemoteError):
    """The answer is cut off, is not JSON, or lacks a required field."""

    billed = True
    repeatable = True


class MalformedError(Exception):
    """A part of a sample has a form that cannot be read. The message is its reason."""


class TooLateError(RemoteError):
    """The deadline passed before the answer was complete."""

    late = True

    def __init__(self, url: str, seconds: float, *, billed: bool) -> None:
        super().__init__(f"endpoint={url!r}: no answer in {seconds:.1f} s; raise the limit, or request fewer tokens")
        self.billed = billed


@dataclass(frozen=True)
class Reply:
    """A JSON object, and the duration of the successful attempt."""

    body: Mapping[str, Any]
    seconds: float


class Client:
    """Sends JSON to one endpoint and returns JSON.

    The client retries 429, 5xx, and connections that fail before an answer. It waits for a random time whose bound
    doubles, plus the time in Retry-After. It never repeats an attempt that may be billed. When the caller is cancelled
    or its deadline passes, the connection closes.

    Args:
        base_url: the root of the API, such as ``http://127.0.0.1:8000/v1``.
        api_key: sent as a bearer token; it appears in no message.
        connections: most requests at once; further ones wait.
        timeout: seconds for one attempt, without the wait for a connection.
        patience: longest wait in seconds before another try; if a longer one is needed, the error is raised.
        within: limits the requests of several clients together, in one event loop.
    """

    def __init__(
        self,
        base_url: str,
        api_key: str | None = None,
        *,
        connections: int = 256,
        timeout: float = 600.0,
        patience: float = PATIENCE,
        within: asyncio.Semaphore | None = None,
    ) -> None:
        self.url = base_url.rstrip("/")
        self._api_key = api_key
        self._connections, self._timeout, self._patience = connections, timeout, patience
        self._session: aiohttp.ClientSession | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._free = asyncio.Semaphore(connections)
        self._within = within or nullcontext()
        self._rng = Random()

    @property
    def is_local(self) -> bool:
        """Whether the endpoint is on this machine."""
        return is_loopback(urlsplit(self.url).hostname or "")

    @property
    def has_key(self) -> bool:
        """Whether requests carry a key."""
        return self._api_key is not None

    async def get(self, path: str) -> Reply:
        """GET a path below the base URL, without retries. The answer has to come within `LISTING_SECONDS`.

        Raises:
            RemoteError: see the subclasses.
        """
        return await self._send("GET", path, None, Deadline(time.monotonic() + LISTING_SECONDS), tries=1)

    async def post(
        self,
        path: str,
        body: Mapping[str, Any],
        *,
        deadline: Deadline | None = None,
        tries: int = TRIES,
        on_event: OnEvent | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        """POST a body as JSON, and return the answer.

        Args:
            path: below the base URL.
            body: the request.
            deadline: when the answer has to be complete.
            tries: most attempts, including the first.
            on_event: called with each event if the answer is a stream; the reply is then an empty object. Without it a
                stream is unreadable.
            headers: further headers.

        Raises:
            RemoteError: see the subclasses.
        """
        return await self._send("POST", path, json.dumps(body).encode(), deadline, tries, on_event, headers)

    @asynccontextmanager
    async def raw(self, path: str, body: bytes, headers: Mapping[str, str]) -> AsyncIterator[Response]:
        """POST bytes, and yield the response of any status, without retries.

        Errors while the body is read are those of aiohttp.

        Raises:
            UnreachableError: there is no response.
            InputError: a header has a control character.
            UnreadableError: the response is compressed.
        """
        import aiohttp

        session, free = self._opened()
        async with free, self._within:
            pending = session.post(f"{self.url}/{path}", data=body, headers=headers, allow_redirects=False)
            try:
                response = await pending
            except aiohttp.ClientError as error:
                raise self._unanswered(error) from None
            except ValueError as error:
                raise InputError("headers", "…", f"they cannot be sent on ({error})") from None
            async with response:
                self._refuse_encoded(response)
                yield response

    async def close(self) -> None:
        """Close all connections; the next request opens new ones."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def _send(
        self,
        method: str,
        path: str,
        body: bytes | None,
        deadline: Deadline | None,
        tries: int,
        on_event: OnEvent | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        began, waiting = time.monotonic(), True  # waiting for a connection or a retry, so nothing is billed
        try:
            async with asyncio.timeout(None if deadline is None else deadline.seconds):
                session, free = self._opened()
                for turn in range(1, tries + 1):
                    try:
                        async with free, self._within, asyncio.timeout(self._limit(deadline)):
                            waiting = False
                            pending = session.request(
                                method, f"{self.url}/{path}", data=body, headers=headers, allow_redirects=False
                            )
                            return await self._attempt(pending, turn, on_event)
                    except (UnreachableError, RefusedError) as error:
                        again = isinstance(error, UnreachableError) or error.status == 429 or error.status >= 500
                        wait = self._wait(error, turn)
                        if error.billed or not again or turn == tries or wait > self._patience:
                            raise
                        waiting = True
                        await asyncio.sleep(wait)
        except TimeoutError:
            raise TooLateError(self.url, time.monotonic() - began, billed=not waiting) from None
        raise AssertionError("the last try returns or raises")

    def _limit(self, deadline: Deadline | None) -> float | None:
        """Seconds for one attempt; None if the deadline comes first, which has a timer already."""
        return self._timeout if deadline is None or self._timeout < deadline.seconds else None

    def _wait(self, error: UnreachableError | RefusedError, turn: int) -> float:
        requested = error.retry_after if isinstance(error, RefusedError) else None
        jitter = self._rng.uniform(0, min(LONGEST_WAIT, FIRST_WAIT * 2 ** (turn - 1)))
        return jitter + (requested or 0.0)

    async def _attempt(
        self, request: AbstractAsyncContextManager[Response], turn: int, on_event: OnEvent | None
    ) -> Reply:
        import aiohttp

        started, answered = time.monotonic(), False
        try:
            async with request as response:
                answered = True
                self._refuse_encoded(response)
                retry_after = retry_seconds(response.headers.get("Retry-After"))
                if on_event is not None and response.status < 300 and response.content_type == "text/event-stream":
                    raw = await self._read_stream(response, on_event, turn, retry_after)
                    if not raw:
                        return Reply({}, time.monotonic() - started)
                else:
                    raw = await _whole(response)
        except aiohttp.ClientError as error:
            if answered:
                reason = _one_line(str(error)) or type(error).__name__
                raise UnreadableError(f"endpoint={self.url!r}: its answer was cut off ({reason}); try again") from None
            raise self._unanswered(error) from None
        except OversizeError as error:
            raise self._too_long(error) from None
        value = parse_object(raw) if len(raw) <= SMALL else await asyncio.to_thread(parse_object, raw)
        if response.status >= 300:
            billed = isinstance((value or {}).get("usage"), Mapping)
            raise self._refused(response.status, value, raw, turn, retry_after, billed=billed)
        if value is None and on_event is not None and looks_like_events(raw):
            await self._pass_on(raw, on_event, turn, retry_after)
            return Reply({}, time.monotonic() - started)
        if value is None:
            kind = response.headers.get("Content-Type", "no content type")
            start = self._without_key(_one_line(raw[:60].decode(errors="replace"))) or "nothing"
            raise UnreadableError(
                f"endpoint={self.url!r}: it answers {kind!r} that is not a JSON object ({start}); "
                "is this the root of an OpenAI-compatible API?"
            )
        self._check(value, raw, turn, retry_after, billed=False)
        return Reply(value, time.monotonic() - started)

    async def _read_stream(self, response: Response, on_event: OnEvent, turn: int, retry_after: float | None) -> bytes:
        """Pass the events of a stream to ``on_event`` until ``[DONE]`` or the end.

        The body is returned if it is a JSON object in place of events, else nothing.
        """
        reader, begun, whole, passed = EventReader(), bytearray(), False, 0
        with Reading() as reading:
            async for piece in response.content.iter_any():
                reading.add(piece)
                if not whole and len(begun) <= SMALL and not begun.strip(BLANK):
                    begun += piece
                    whole = begun.lstrip(BLANK).startswith(b"{")
                    if whole:
                        continue
                if whole:
                    begun += piece
                    continue
                async for event in _events(reader, piece):
                    if event.data == DONE:
                        return b""
                    await self._take(event, on_event, turn, retry_after, passed)
                    passed += 1
        if whole:
            return bytes(begun)
        for event in reader.close():
            if event.data != DONE:
                await self._take(event, on_event, turn, retry_after, passed)
        return b""

    async def _pass_on(self, raw: bytes, on_event: OnEvent, turn: int, retry_after: float | None) -> None:
        """Pass the events of a whole body to ``on_event``."""
        reader = EventReader()
        place = 0
        try:
            async for event in _events(reader, raw, ended=True):
                if event.data == DONE:
                    return
                await self._take(event, on_event, turn, retry_after, place)
                place += 1
        except OversizeError as error:
            raise self._too_long(error) from None

    async def _take(
        self, event: SentEvent, on_event: OnEvent, turn: int, retry_after: float | None, passed: int
    ) -> None:
        """Pass an event on. ``passed`` is the number of events before it.

        Raises:
            OversizeError: the stream has more than `EVENTS`.
        """
        if passed >= EVENTS:
            raise OversizeError(f"more than {EVENTS} events")
        value = parse_object(event.data)
        if event.name == "error":
            value = {"error": (value or {}).get("error") or value or event.data.decode(errors="replace")}
        if value is None:
            reason = self._without_key(_message(value, event.data))
            raise UnreadableError(f"endpoint={self.url!r}: its stream broke off ({reason}); try again")
        self._check(value, event.data, turn, retry_after, billed=passed > 0)
        try:
            await on_event(value)
        except MalformedError as error:
            raise UnreadableError(f"endpoint={self.url!r}: {error}") from None

    def _check(
        self, value: Mapping[str, Any], raw: bytes, turn: int, retry_after: float | None, *, billed: bool
    ) -> None:
        """Raise the error that a reply of status 200 reports.

        Raises:
            RefusedError: the error speaks of a status.
            UnreadableError: it does not.
        """
        error = reported_error(value)
        if error is None:
            return
        status = status_of(error)
        if status is not None:
            billed = billed or isinstance(value.get("usage"), Mapping)
            raise self._refused(status, error, raw, turn, retry_after, billed=billed)
        reason = self._without_key(_message(error, raw))
        raise UnreadableError(f"endpoint={self.url!r}: its answer is an error ({reason}); see the server's log")

    def _refused(
        self,
        status: int,
        value: Mapping[str, Any] | None,
        raw: bytes,
        turn: int,
        retry_after: float | None,
        *,
        billed: bool,
    ) -> RefusedError:
        message = self._without_key(_message(value, raw))
        return RefusedError(self.url, status, message, tries=turn, billed=billed, retry_after=retry_after)

    def _too_long(self, error: OversizeError) -> UnreadableError:
        return UnreadableError(f"endpoint={self.url!r}: its answer is too long ({error}); request less")

    def _refuse_encoded(self, response: Response) -> None:
        """Refuse a compressed answer: a few bytes of it may stand for gigabytes."""
        encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
        if encoding not in ("", "identity"):
            raise UnreadableError(
                f"endpoint={self.url!r}: its answer is compressed ({_one_line(encoding)}), "
                "though the request asks for identity; turn the compression off"
            )

    def _unanswered(self, error: aiohttp.ClientError) -> UnreachableError | UnreadableError:
        """The error of a request whose answer has no head that can be read."""
        import aiohttp

        if isinstance(error, aiohttp.ClientResponseError):
            return UnreadableError(f"endpoint={self.url!r}: its answer is not HTTP ({_one_line(error.message)[:100]})")
        reason = _reason(error)
        return UnreachableError(
            f"endpoint={self.url!r}: cannot be reached ({reason}); start the server, or correct the URL"
        )

    def _opened(self) -> tuple[aiohttp.ClientSession, asyncio.Semaphore]:
        """The session of the running event loop, and the semaphore that limits its connections."""
        import aiohttp

        loop = asyncio.get_running_loop()
        if self._session is None or self._loop is not loop:
            headers = {"Content-Type": "application/json", "Accept": "application/json", "User-Agent": "thinktime"}
            headers["Accept-Encoding"] = "identity"
            if self._api_key:
                headers["Authorization"] = f"Bearer {self._api_key}"
            self._loop = loop
            self._free = asyncio.Semaphore(self._connections)
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                headers=headers,
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=30),
            )
        return self._session, self._free

    def _without_key(self, text: str) -> str:
        return text.replace(self._api_key, "…") if self._api_key else text


@lru_cache(maxsize=8)
def is_loopback(host: str) -> bool:
    """Whether only this machine can reach the address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


class LongNumber(str):
    """A number of a reply that no float holds, such as 1e400 or NaN, in its spelling."""


def _integer(text: str) -> int | LongNumber:
    return int(text) if len(text) <= MOST_DIGITS else LongNumber(text)


def _float(text: str) -> float | LongNumber:
    value = float(text)
    return value if math.isfinite(value) else LongNumber(text)


_DECODER = json.JSONDecoder(parse_int=_integer, parse_float=_float, parse_constant=LongNumber)


def parse_object(raw: bytes) -> dict[str, Any] | None:
    """Parse a JSON object; None if it is none, or has more than ``VALUES`` values.

    Bytes that are no text are replaced, so they spoil one sample alone.
    """
    if raw.count(b",") > VALUES:
        return None
    try:
        value = _DECODER.decode(raw.decode(json.detect_encoding(raw), errors="replace"))
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


async def _events(reader: EventReader, data: bytes, *, ended: bool = False) -> AsyncIterator[SentEvent]:
    """The events that these bytes complete. Other requests get turns between them, however fast the bytes come.

    Raises:
        OversizeError: an event is too long.
    """
    count = 0
    for start in range(0, len(data), SMALL):
        if start:
            await asyncio.sleep(0)
        for event in reader.feed(data[start : start + SMALL]):
            count += 1
            if count % TURN == 0:
                await asyncio.sleep(0)
            yield event
    for event in reader.close() if ended else ():
        yield event


def _message(value: Mapping[str, Any] | None, raw: bytes) -> str:
    """The message of an error, from any of the fields that servers use."""
    found: Any = raw[:1000].decode(errors="replace")
    for source in (value or {}, (value or {}).get("error")):
        if isinstance(source, Mapping):
            found = next((source[name] for name in ("message", "detail", "error") if source.get(name)), found)
    return _one_line(found if isinstance(found, str) else json.dumps(found)) or "no reason given"


async def _whole(response: Response) -> bytes:
    """The body of an answer.

    Raises:
        OversizeError: it is too long.
    """
    length = response.content_length
    if length is not None and length <= SMALL:
        return await response.read()
    parts = []
    with Reading() as reading:
        async for piece in response.content.iter_any():
            reading.add(piece)
            parts.append(piece)
    return b"".join(parts)


def _reason(error: aiohttp.ClientError) -> str:
    """Why a connection failed, without the address that aiohttp adds."""
    cause = getattr(error, "os_error", None)
    if isinstance(cause, OSError) and cause.errno is not None and cause.errno > 0:
        return os.strerror(cause.errno)
    return _one_line(str(getattr(cause, "strerror", None) or error)) or type(error).__name__


def _one_line(text: str) -> str:
    whole = printable(text[:2000]).encode(errors="replace").decode()  # half of a surrogate pair cannot be printed
    line = " ".join(whole.split())
    return line if len(line) <= 300 else f"{line[:299]}…"


def retry_seconds(retry_after: str | None) -> float | None:
    """Retry-After, a number or a date, in seconds from now, at most a day; None if it is neither."""
    if retry_after is None:
        return None
    try:
        seconds = float(retry_after)
    except ValueError:
        try:
            seconds = (parsedate_to_datetime(retry_after) - datetime.now(UTC)).total_seconds()
        except (ValueError, TypeError, OverflowError):
            return None
    return min(max(seconds, 0.0), LONGEST_RETRY) if math.isfinite(seconds) else None
