"""Forwards requests without a method to the upstream and back, byte for byte, on the client's account."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import aiohttp

from thinktime.core.errors import InputError
from thinktime.core.ledger import Ledger
from thinktime.core.usage import Budget, Usage
from thinktime.gateway.asgi import ResponseWriter
from thinktime.gateway.auth import ApiClient, reserve
from thinktime.gateway.errors import HttpError
from thinktime.models.remote.client import Client, RemoteError, UnreadableError, retry_seconds
from thinktime.models.remote.limits import EVENT, MIB, OversizeError, Reading
from thinktime.models.remote.observers import Observer
from thinktime.models.remote.prices import Price
from thinktime.models.remote.protocol import ReportedUsage, read_usage

NOT_SENT = frozenset(
    {"authorization", "connection", "content-length", "cookie", "expect", "host", "keep-alive", "proxy-authorization"}
    | {"accept-encoding", "te", "trailer", "transfer-encoding", "upgrade", "x-thinktime"}
)
"""Request headers that concern only client and gateway."""
FORWARDED = ("content-type", "retry-after", "x-request-id", "x-ratelimit-", "openai-")
"""Prefixes of response headers that reach the client."""
_CONTROLS = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]|^\s|\s$")
"""Characters that a header cannot have."""
TEMPLATE = 1000
"""Upper bound of the prompt tokens that a chat template adds to the bytes of a request."""


async def proxy_request(
    upstream: Client,
    path: str,
    raw: bytes,
    body: Mapping[str, Any],
    headers: Mapping[str, str],
    client: ApiClient,
    ledger: Ledger,
    price: Price | None,
    writer: ResponseWriter,
    observer: Observer,
) -> None:
    """Forward a request unchanged, and stream its answer back.

    The cost is charged to ``ledger``, which lies within the client's.

    Raises:
        InputError: the client has a budget, and the cost of the request has no bound.
        HttpError: the budget is spent, or the upstream takes too long.
        RemoteError: the upstream does not answer, or its answer breaks off.
    """
    worst = _worst_case(raw, body, client, price)
    sent = {name: value for name, value in headers.items() if name not in NOT_SENT} | {"accept-encoding": "identity"}
    try:
        async with asyncio.timeout(client.timed(Budget()).seconds):
            spent = Usage()
            await reserve(ledger, worst)
            try:
                with observer(path, body) as observed:
                    async with upstream.raw(path, raw, {**sent, **observed.headers}) as response:
                        spent = replace(worst, uncounted_calls=1)  # until the answer reports its usage
                        counted = await _forward(response, writer)
                    if counted is not None:
                        usage = {"prompt_tokens": counted.prompt, "completion_tokens": counted.generated}
                        observed.reply, spent = {"usage": usage}, _cost(counted, price)
                    elif response.status >= 300:
                        spent = Usage(model_calls=1)
            except asyncio.CancelledError:
                if not spent.model_calls:  # the request may have reached the upstream
                    spent = replace(worst, uncounted_calls=1)
                raise
            except RemoteError as error:
                if error.billed and not spent.model_calls:
                    spent = replace(worst, uncounted_calls=1)
                raise
            finally:
                ledger.settle(worst, spent)
        await writer.end()
    except TimeoutError:
        raise HttpError(504, "budget.seconds: the upstream took longer", code="upstream_too_late") from None
    except OversizeError as error:
        raise UnreadableError(f"endpoint={upstream.url!r}: its answer is too long ({error})") from None
    except aiohttp.ClientError as error:
        raise UnreadableError(f"endpoint={upstream.url!r}: its answer was cut off ({type(error).__name__})") from None


async def _forward(response: aiohttp.ClientResponse, writer: ResponseWriter) -> ReportedUsage | None:
    """Forward an answer except for its end, and return the usage that it reports."""
    if not 200 <= response.status < 600:
        raise UnreadableError(f"the upstream answers with the status {response.status}, which HTTP does not have")
    await writer.start(response.status, _forwarded(response.headers))
    usage = UsageReader(response.content_type == "text/event-stream")
    with Reading() as reading:
        async for piece in response.content.iter_any():
            reading.add(piece)
            usage.feed(piece)
            await writer.write(piece)
    return usage.reported


def _forwarded(headers: Mapping[str, str]) -> dict[str, str]:
    """The headers of an answer that reach the client, without those that HTTP does not allow."""
    found = {name: value for name, value in headers.items() if name.lower().startswith(FORWARDED)}
    wrong = [name for name, value in found.items() if _CONTROLS.search(value)]
    wrong += [name for name, value in found.items() if name.lower() == "retry-after" and not _is_time(value)]
    return {name: value for name, value in found.items() if name not in wrong}


def _is_time(retry_after: str) -> bool:
    return not retry_after.startswith("-") and retry_seconds(retry_after) is not None


def _cost(counted: ReportedUsage, price: Price | None) -> Usage:
    prompt = counted.prompt - (counted.cached or 0)
    money = price.dollars(prompt, counted.cached or 0, counted.generated) if price else None
    return Usage(prompt, counted.cached, counted.generated, model_calls=1, dollars=money)


class UsageReader:
    """Finds the reported usage in an answer while it is forwarded."""

    def __init__(self, stream: bool) -> None:
        self._stream = stream
        self._rest = bytearray()
        self._reported: ReportedUsage | None = None

    def feed(self, piece: bytes) -> None:
        """Read the next bytes."""
        self._rest += piece
        if self._stream:
            *lines, self._rest = self._rest.split(b"\n")
            if len(self._rest) > EVENT:
                raise OversizeError(f"an event of more than {EVENT // MIB} MiB")
            for line in lines:
                if b'"usage"' in line:
                    self._reported = _usage(bytes(line).removeprefix(b"data:")) or self._reported

    @property
    def reported(self) -> ReportedUsage | None:
        """The usage, or None if the answer does not report it."""
        return self._reported if self._stream else _usage(bytes(self._rest))


def _usage(text: bytes) -> ReportedUsage | None:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict):
        return None
    inner = value.get("response")  # in the last event of a stream of the Responses API
    return read_usage(inner if isinstance(inner, dict) else value)


def _worst_case(raw: bytes, body: Mapping[str, Any], client: ApiClient, price: Price | None) -> Usage:
    """The most that a request can cost. It is computed only for a client with a budget."""
    if not client.limited:
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
    """Whether the body contains the whole prompt as text. The tokens of pictures and stored prompts have no bound."""
    if any(body.get(name) for name in ("previous_response_id", "conversation", "prompt")) and "input" in body:
        return False
    messages = body.get("messages") or body.get("input") or []
    if isinstance(messages, str):
        return True
    return all(isinstance(m, Mapping) and isinstance(m.get("content") or "", str) for m in messages)
