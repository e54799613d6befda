"""An HTTP client for one endpoint: a connection pool, deadlines, and retries that honour Retry-After."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from random import Random
from typing import TYPE_CHECKING, Any

from thinktime.core.clock import Deadline
from thinktime.core.errors import ModelError

if TYPE_CHECKING:
    import aiohttp
    from aiohttp import ClientResponse as Response

TRIES = 5
FIRST_WAIT, LONGEST_WAIT = 0.5, 8.0
"""Upper bounds in seconds of the random wait before the second try, and of later waits, which double up to here."""
PATIENCE = 120.0
"""Longest wait in seconds before another try; if a longer one is needed, the error is raised."""
OnEvent = Callable[[Mapping[str, Any]], Awaitable[None]]
"""Called with each event of a streamed answer, in order. The next event is read when it returns."""


class RemoteError(ModelError):
    """A failed request. ``billed`` says whether the endpoint may charge for it."""

    billed = False


class UnreachableError(RemoteError):
    """The connection failed, or closed before an answer began."""


class RefusedError(RemoteError):
    """The endpoint answered with an error."""

    def __init__(
        self, url: str, status: int, message: str, *, tries: int, usage: object, retry_after: float | None
    ) -> None:
        after = f" after {tries} tries" if tries > 1 else ""
        fix = {429: "; send fewer requests at once, or wait"}.get(
            status, "; see the server's log" if status >= 500 else ""
        )
        super().__init__(f"endpoint={url!r}: it answers {status}{after} ({message}){fix}")
        self.status, self.message, self.usage, self.retry_after = status, message, usage, retry_after
        self.billed = isinstance(usage, Mapping)


class UnreadableError(RemoteError):
    """The answer is cut off, is not JSON, or lacks a required field."""

    billed = True


class TooLateError(RemoteError):
    """The deadline passed before the answer was complete."""

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
    """

    def __init__(
        self,
        base_url: str,
        api_key: str | None = None,
        *,
        connections: int = 256,
        timeout: float = 600.0,
        patience: float = PATIENCE,
    ) -> None:
        self.url = base_url.rstrip("/")
        self._api_key = api_key
        self._connections, self._timeout, self._patience = connections, timeout, patience
        self._session: aiohttp.ClientSession | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._free = asyncio.Semaphore(connections)
        self._rng = Random()

    @property
    def has_key(self) -> bool:
        """Whether requests carry a key."""
        return self._api_key is not None

    async def get(self, path: str) -> Reply:
        """GET a path below the base URL, without retries.

        Raises:
            RemoteError: see the subclasses.
        """
        return await self._send("GET", path, None, None, tries=1)

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
            on_event: called with each event if the answer is a stream; the reply is then an empty object.
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
        """
        import aiohttp

        session, free = self._opened()
        async with free:
            pending = session.post(f"{self.url}/{path}", data=body, headers=headers, allow_redirects=False)
            try:
                response = await pending
            except aiohttp.ClientError as error:
                raise self._unreachable(error) from None
            async with response:
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
                        async with free, asyncio.timeout(self._timeout):
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
                if on_event is not None and response.status < 300 and response.content_type == "text/event-stream":
                    await self._read_events(response, on_event)
                    return Reply({}, time.monotonic() - started)
                raw = await response.read()
        except aiohttp.ClientError as error:
            reason = _one_line(str(error)) or type(error).__name__
            if answered:
                raise UnreadableError(f"endpoint={self.url!r}: its answer was cut off ({reason}); try again") from None
            raise self._unreachable(error) from None
        value = _json_object(raw)
        if response.status >= 300:
            message = self._without_key(_message(value, raw))
            raise RefusedError(
                self.url,
                response.status,
                message,
                tries=turn,
                usage=(value or {}).get("usage"),
                retry_after=_seconds(response.headers.get("Retry-After")),
            )
        if value is None:
            kind = response.headers.get("Content-Type", "no content type")
            start = self._without_key(_one_line(raw[:60].decode(errors="replace")))
            raise UnreadableError(
                f"endpoint={self.url!r}: it answers {kind!r} that is not a JSON object ({start}); "
                "is this the root of an OpenAI-compatible API?"
            )
        return Reply(value, time.monotonic() - started)

    async def _read_events(self, response: Response, on_event: OnEvent) -> None:
        """Pass the events of a stream to ``on_event`` until ``[DONE]`` or the end."""
        rest = b""
        async for piece in response.content.iter_any():
            *lines, rest = (rest + piece).split(b"\n")
            for line in lines:
                data = line.removeprefix(b"data:").strip()
                if not line.startswith(b"data:") or not data:
                    continue
                if data == b"[DONE]":
                    return
                event = _json_object(data)
                if event is None or event.get("error"):
                    reason = self._without_key(_message(event, data))
                    raise UnreadableError(f"endpoint={self.url!r}: its stream broke off ({reason}); try again")
                await on_event(event)

    def _unreachable(self, error: aiohttp.ClientError) -> UnreachableError:
        reason = _one_line(str(error)) or type(error).__name__
        return UnreachableError(
            f"endpoint={self.url!r}: cannot be reached ({reason}); start the server, or correct the URL"
        )

    def _opened(self) -> tuple[aiohttp.ClientSession, asyncio.Semaphore]:
        """The session of the running event loop, and the semaphore that limits its connections."""
        import aiohttp

        loop = asyncio.get_running_loop()
        if self._session is None or self._loop is not loop:
            headers = {"Content-Type": "application/json", "Accept": "application/json", "User-Agent": "thinktime"}
            if self._api_key:
                headers["Authorization"] = f"Bearer {self._api_key}"
            self._loop = loop
            self._free = asyncio.Semaphore(self._connections)
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0),
                cookie_jar=aiohttp.DummyCookieJar(),
                headers=headers,
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=30),
            )
        return self._session, self._free

    def _without_key(self, text: str) -> str:
        return text.replace(self._api_key, "…") if self._api_key else text


def _json_object(raw: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _message(value: Mapping[str, Any] | None, raw: bytes) -> str:
    """The message of an error, from any of the fields that servers use."""
    found: Any = raw.decode(errors="replace")
    for source in (value or {}, (value or {}).get("error")):
        if isinstance(source, Mapping):
            found = next((source[name] for name in ("message", "detail", "error") if source.get(name)), found)
    return _one_line(found if isinstance(found, str) else json.dumps(found)) or "no reason given"


def _one_line(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 300 else f"{line[:299]}…"


def _seconds(retry_after: str | None) -> float | None:
    """Retry-After, a number or a date, in seconds from now."""
    if retry_after is None:
        return None
    try:
        return max(0.0, float(retry_after))
    except ValueError:
        pass
    try:
        return max(0.0, (parsedate_to_datetime(retry_after) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):
        return None
