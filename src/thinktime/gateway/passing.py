"""Requests without a method: to the upstream and back, byte for byte, on the same accounts as all others."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import aiohttp

from thinktime.core.errors import InputError
from thinktime.core.ledger import Ledger
from thinktime.core.usage import Budget, Usage
from thinktime.gateway.door import Guest, obtain
from thinktime.gateway.errors import HttpError
from thinktime.gateway.wire import Reply
from thinktime.remote.client import Client, UnreadableError
from thinktime.remote.observers import Observer
from thinktime.remote.prices import Price
from thinktime.remote.protocol import ReportedUsage, read_usage

NOT_SENT = frozenset(
    {"authorization", "connection", "content-length", "cookie", "expect", "host", "keep-alive", "proxy-authorization"}
    | {"accept-encoding", "te", "trailer", "transfer-encoding", "upgrade", "x-thinktime"}
)
"""Headers of a request that are between client and gateway."""
TOLD = ("content-type", "retry-after", "x-request-id", "x-ratelimit-", "openai-")
"""Beginnings of headers of an answer that the client is told."""
TEMPLATE = 1000
"""Prompt tokens that a chat template may add to the bytes of a request."""


async def pass_on(
    client: Client,
    path: str,
    raw: bytes,
    body: Mapping[str, Any],
    headers: Mapping[str, str],
    guest: Guest,
    ledger: Ledger,
    price: Price | None,
    reply: Reply,
    observer: Observer,
) -> None:
    """Send a request on as it is, and its answer back as it comes.

    What it costs is charged to a ledger within the guest's.

    Raises:
        InputError: the guest has a budget, and the request may cost anything.
        HttpError: the budget is spent, or the upstream took too long.
        RemoteError: there is no answer, or it broke off before it began.
    """
    worst = _worst_case(raw, body, guest, price)
    sent = {name: value for name, value in headers.items() if name not in NOT_SENT} | {"accept-encoding": "identity"}
    try:
        async with asyncio.timeout(guest.timed(Budget()).seconds):
            spent = Usage()
            await obtain(ledger, worst)
            try:
                with observer(path, body) as observed:
                    async with client.raw(path, raw, {**sent, **observed.headers}) as response:
                        spent = replace(worst, uncounted_calls=1)  # unless it says
                        counted = await _tell(response, reply)
                    if counted is not None:
                        usage = {"prompt_tokens": counted.prompt, "completion_tokens": counted.generated}
                        observed.reply, spent = {"usage": usage}, _cost(counted, price)
                    elif response.status >= 300:
                        spent = Usage(model_calls=1)
            except asyncio.CancelledError:
                if not spent.model_calls:  # it was on its way
                    spent = replace(worst, uncounted_calls=1)
                raise
            finally:
                ledger.settle(worst, spent)
        await reply.end()
    except TimeoutError:
        raise HttpError(504, "budget.seconds: the upstream took longer", code="upstream_too_late") from None
    except aiohttp.ClientError as error:
        raise UnreadableError(f"endpoint={client.url!r}: its answer was cut off ({type(error).__name__})") from None


async def _tell(response: aiohttp.ClientResponse, reply: Reply) -> ReportedUsage | None:
    """Send an answer on but for its end, and return what it says that it cost."""
    told = {name: value for name, value in response.headers.items() if name.lower().startswith(TOLD)}
    await reply.start(response.status, told)
    usage = UsageReader(response.content_type == "text/event-stream")
    async for piece in response.content.iter_any():
        usage.feed(piece)
        await reply.more(piece)
    return usage.told


def _cost(counted: ReportedUsage, price: Price | None) -> Usage:
    prompt = counted.prompt - (counted.cached or 0)
    money = price.dollars(prompt, counted.cached or 0, counted.generated) if price else None
    return Usage(prompt, counted.cached, counted.generated, model_calls=1, dollars=money)


class UsageReader:
    """Finds what an answer says that it cost, as it passes by."""

    def __init__(self, stream: bool) -> None:
        self._stream = stream
        self._rest = bytearray()
        self._told: ReportedUsage | None = None

    def feed(self, piece: bytes) -> None:
        """Look at the next bytes."""
        self._rest += piece
        if self._stream:
            *lines, self._rest = self._rest.split(b"\n")
            for line in lines:
                if b'"usage"' in line:
                    self._told = _usage(bytes(line).removeprefix(b"data:")) or self._told

    @property
    def told(self) -> ReportedUsage | None:
        """The cost, or None if it was not told."""
        return self._told if self._stream else _usage(bytes(self._rest))


def _usage(text: bytes) -> ReportedUsage | None:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict):
        return None
    inner = value.get("response")  # of the last event of a stream of the Responses API
    return read_usage(inner if isinstance(inner, dict) else value)


def _worst_case(raw: bytes, body: Mapping[str, Any], guest: Guest, price: Price | None) -> Usage:
    """The most a request can cost, where that matters."""
    if not guest.limited:
        return Usage(model_calls=1, dollars=None)
    limit = body.get("max_completion_tokens") or body.get("max_tokens") or body.get("max_output_tokens")
    samples = [body.get("n") or 1, body.get("best_of") or 1]
    if not all(isinstance(count, int) and count > 0 for count in (limit, *samples)):
        name = "max_output_tokens" if "input" in body else "max_tokens"
        raise InputError(name, limit, "this key has a budget: say how long an answer may be, 1 or more")
    new, prompt = int(limit or 0) * max(samples), len(raw) + TEMPLATE
    money = price.dollars(prompt, 0, new) if price and _is_text(body) else None
    return Usage(None, None, new, model_calls=1, dollars=money)


def _is_text(body: Mapping[str, Any]) -> bool:
    """Whether all of the prompt is text in the body; how long a picture is, or what is stored, nobody can say."""
    if any(body.get(name) for name in ("previous_response_id", "conversation", "prompt")) and "input" in body:
        return False
    messages = body.get("messages") or body.get("input") or []
    if isinstance(messages, str):
        return True
    return all(isinstance(m, Mapping) and isinstance(m.get("content") or "", str) for m in messages)
