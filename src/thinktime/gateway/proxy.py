"""Forwards requests without a method to the upstream and back, byte for byte, on the client's account."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

import aiohttp

from thinktime.core.ledger import Ledger
from thinktime.core.usage import Budget, Usage, uncounted
from thinktime.gateway.asgi import ResponseWriter
from thinktime.gateway.auth import ApiClient, reserve
from thinktime.gateway.errors import HttpError
from thinktime.gateway.lengths import MOST, Extent, is_text
from thinktime.models.remote.client import (
    Client,
    RefusedError,
    RemoteError,
    UnreadableError,
    parse_object,
    retry_seconds,
)
from thinktime.models.remote.limits import EVENT, MIB, SMALL, OversizeError, Reading
from thinktime.models.remote.observers import Observer
from thinktime.models.remote.prices import Price
from thinktime.models.remote.protocol import ReportedUsage, read_usage

NOT_SENT = frozenset(
    {"authorization", "connection", "content-length", "cookie", "expect", "host", "keep-alive", "proxy-authorization"}
    | {"accept-encoding", "te", "trailer", "transfer-encoding", "upgrade", "x-api-key", "x-thinktime"}
)
"""Request headers that concern only client and gateway."""
FORWARDED = ("content-type", "retry-after", "x-request-id", "x-ratelimit-", "openai-")
"""Prefixes of response headers that reach the client."""
_CONTROLS = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]|^\s|\s$")
"""What the value of a header cannot have."""
ELSEWHERE = (401, 403, 404, 429)
"""Statuses below 500 after which another upstream is asked: this one does not know the key or the model, or is busy."""
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
    extent: Extent | None,
    counts_all: bool,
    slot: asyncio.Semaphore,
    last: bool,
) -> None:
    """Forward a request unchanged, and stream its answer back.

    The cost is charged to ``ledger``, which lies within the client's.

    Args:
        extent: the most that the request can generate; None without a budget.
        counts_all: whether the upstream's usage counts all samples of this request.
        slot: limits the requests for the same model.
        last: whether a refusal is forwarded, because no other upstream can be asked.

    Raises:
        RefusedError: the upstream refuses, and it is not the last.
        InputError: the client has a budget in dollars, and the cost of the request has no bound.
        HttpError: the budget is spent, or the upstream takes too long.
        RemoteError: the upstream does not answer, or its answer breaks off.
    """
    worst = _worst_case(raw, body, price, extent)
    sent = {name: value for name, value in headers.items() if name not in NOT_SENT}
    sent |= {"accept-encoding": "identity", "content-type": "application/json"}  # the text was read as plain JSON
    try:
        async with asyncio.timeout(client.timed(Budget()).seconds):
            spent = Usage()
            reservation = await reserve(ledger, worst)
            try:
                with observer(path, body) as observed:
                    async with slot, upstream.raw(path, raw, {**sent, **observed.headers}) as response:
                        spent = uncounted(worst)  # until the answer reports its usage
                        reply = ReplyReader(response.content_type == "text/event-stream", body, not counts_all)
                        refused = not last and (response.status in ELSEWHERE or response.status >= 500)
                        await _forward(response, reply, None if refused else writer)
                    if (counted := await reply.reported()) is not None:
                        usage = {"prompt_tokens": counted.prompt, "completion_tokens": counted.generated}
                        observed.reply = {"usage": usage}
                        spent = _cost(reply, counted, worst, price, extent, counts_all)
                    elif response.status >= 300:
                        spent = Usage(model_calls=1)
                    if refused:
                        wait = retry_seconds(response.headers.get("Retry-After"))
                        raise RefusedError(
                            upstream.url, response.status, "passed on", tries=1, billed=False, retry_after=wait
                        )
            except asyncio.CancelledError:
                if not spent.model_calls:  # the request may have reached the upstream
                    spent = uncounted(worst)
                raise
            except RemoteError as error:
                if error.billed and not spent.model_calls:
                    spent = uncounted(worst)
                raise
            finally:
                ledger.settle([reservation], spent)
        await writer.end()
    except TimeoutError:
        raise HttpError(504, "budget.seconds: the upstream took longer", code="upstream_too_late") from None
    except OversizeError as error:
        raise UnreadableError(f"endpoint={upstream.url!r}: its answer is too long ({error})") from None
    except aiohttp.ClientError as error:
        raise UnreadableError(f"endpoint={upstream.url!r}: its answer was cut off ({type(error).__name__})") from None


async def _forward(response: aiohttp.ClientResponse, reply: ReplyReader, writer: ResponseWriter | None) -> None:
    """Forward an answer except for its end. Without a writer, only read it."""
    if not 200 <= response.status < 600:
        raise UnreadableError(f"the upstream answers with the status {response.status}, which HTTP does not have")
    if writer is not None:
        await writer.start(response.status, _forwarded(response.headers))
    with Reading() as reading:
        async for piece in response.content.iter_any():
            reading.add(piece)
            reply.feed(piece)
            if writer is not None:
                await writer.write(piece)


def _forwarded(headers: Mapping[str, str]) -> dict[str, str]:
    """The headers of an answer that reach the client, without those that HTTP does not allow."""
    found = {name: value for name, value in headers.items() if name.lower().startswith(FORWARDED)}
    wrong = [name for name, value in found.items() if _CONTROLS.search(value)]
    wrong += [name for name, value in found.items() if name.lower() == "retry-after" and not _is_time(value)]
    return {name: value for name, value in found.items() if name not in wrong}


def _is_time(retry_after: str) -> bool:
    return not retry_after.startswith("-") and retry_seconds(retry_after) is not None


def _cost(
    reply: ReplyReader,
    counted: ReportedUsage,
    worst: Usage,
    price: Price | None,
    extent: Extent | None,
    counts_all: bool,
) -> Usage:
    """The reported usage, or more if the reply lists more tokens or the upstream does not count all samples.

    Without a budget there is no worst case. Then a sample without log-probabilities has at most a token for each byte.
    """
    limit, unknown = extent.tokens if extent else MOST, 0
    generated = max(counted.generated, sum(min(count, limit) for count in reply.listed.values()))
    if not counts_all:
        if extent is not None and (extent.prompts > 1 or len(reply.listed) < extent.samples):
            return uncounted(worst)
        most = {**reply.written, **reply.listed}
        unknown = len(most) - len(reply.listed)
        ends = sum(min(count + 1, limit) for count in most.values())  # the end of a sample is not listed
        generated = max(counted.generated, ends)
    prompt = counted.prompt - (counted.cached or 0)
    money = price.dollars(prompt, counted.cached or 0, generated) if price else None
    calls = worst.model_calls
    return Usage(
        prompt, counted.cached, generated, model_calls=calls, dollars=money, uncounted_calls=min(unknown, calls)
    )


class ReplyReader:
    """Reads the usage and the number of listed tokens in an answer while it is forwarded.

    Args:
        stream: whether the answer is a stream of events.
        body: the request.
        weighs: whether to count the bytes of its samples.
    """

    def __init__(self, stream: bool, body: Mapping[str, Any], weighs: bool = False) -> None:
        self._stream, self._weighs = stream, weighs
        self._listing = body.get("logprobs") is not None and not body.get("echo")  # an echo lists the prompt
        self._rest = bytearray()
        self._reported: ReportedUsage | None = None
        self._listed: Counter[int] = Counter()
        self._written: Counter[int] = Counter()

    def feed(self, piece: bytes) -> None:
        """Read the next bytes."""
        begun = len(self._rest)
        self._rest += piece
        if self._stream:
            lines: list[bytearray] = []
            if self._rest.find(b"\n", begun) >= 0:  # not for each piece of a long line
                *lines, self._rest = self._rest.split(b"\n")
            if len(self._rest) > EVENT:
                raise OversizeError(f"an event of more than {EVENT // MIB} MiB")
            for line in lines:
                if self._weighs or b'"usage"' in line or (self._listing and b'"logprobs"' in line):
                    self._take(bytes(line).removeprefix(b"data:"))

    async def reported(self) -> ReportedUsage | None:
        """The usage, or None if the answer does not report it. Feed the whole answer first."""
        if not self._stream:
            whole, self._rest = bytes(self._rest), bytearray()
            if len(whole) > SMALL:
                await asyncio.to_thread(self._take, whole)
            else:
                self._take(whole)
        return self._reported

    @property
    def listed(self) -> Mapping[int, int]:
        """Number of tokens with a log-probability by the index of their sample."""
        return self._listed

    @property
    def written(self) -> Mapping[int, int]:
        """Number of bytes by the index of their sample, if the reader weighs them."""
        return self._written

    def _take(self, text: bytes) -> None:
        value = parse_object(text) or {}
        inner = value.get("response")  # in the last event of a stream of the Responses API
        reported = read_usage(inner if isinstance(inner, dict) else value)
        if reported is not None and (self._reported is None or reported.generated >= self._reported.generated):
            self._reported = reported
        choices = value.get("choices")
        for place, choice in enumerate(choices if isinstance(choices, list) else ()):
            if not isinstance(choice, dict) or not isinstance(index := choice.get("index", place), int):
                continue
            if self._weighs:
                self._written[index] += sum(_bytes_in(choice.get(name)) for name in ("message", "delta", "text"))
            listed = choice.get("logprobs") if self._listing else None
            if isinstance(listed, dict):
                tokens = listed.get("content") or listed.get("tokens")
                if isinstance(tokens, list):
                    self._listed[index] += len(tokens)


def _bytes_in(part: object) -> int:
    """Bytes of all texts in a message or in a part of one, without its role."""
    if isinstance(part, str):
        return len(part.encode(errors="replace"))
    if isinstance(part, dict):
        return sum(_bytes_in(value) for name, value in part.items() if name != "role")
    return sum(map(_bytes_in, part)) if isinstance(part, list) else 0


def _worst_case(raw: bytes, body: Mapping[str, Any], price: Price | None, extent: Extent | None) -> Usage:
    """The most that a request can cost. It is computed only for a client with a budget."""
    if extent is None:
        return Usage(model_calls=1, dollars=None)
    new = extent.samples * extent.tokens
    money = price.most(len(raw) + TEMPLATE, new) if price and is_text(body) else None
    return Usage(None, None, new, model_calls=extent.samples, dollars=money)
