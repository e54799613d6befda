"""The server: which path is answered by what, under which account, and for as long as somebody waits."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.responses import Response as HttpResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from thinktime import strategies
from thinktime.bank.store import Bank
from thinktime.core.errors import InputError
from thinktime.core.ledger import Ledger
from thinktime.core.types import Capability, Scorer
from thinktime.gateway import asks
from thinktime.gateway.config import Config
from thinktime.gateway.door import Door, Guest
from thinktime.gateway.errors import HttpError, http_error
from thinktime.gateway.history import Entry, History
from thinktime.gateway.methods import HEADER, Method, method_of, parse
from thinktime.gateway.metrics import KIND, Metrics
from thinktime.gateway.page import Page
from thinktime.gateway.passing import pass_on
from thinktime.gateway.replies import Chunks, Outcome, completion, error_event
from thinktime.gateway.responses import Response, as_chat
from thinktime.gateway.searching import Progress, search_for
from thinktime.gateway.tracing import Facts, Tracing, answered, asked
from thinktime.gateway.upstream import Upstream
from thinktime.gateway.voting import SampleAnswers
from thinktime.gateway.wire import ClientLeftError, Reply, parsed, read_body, while_waited_for
from thinktime.remote.client import OnEvent
from thinktime.remote.protocol import Api

SILENCE = 15.0
"""Seconds after which a stream says that it is alive."""
WAITING = b": waiting\n\n"
PROBES = "(model probes)"
"""The account of what no key asked for."""
AHEAD = 64
"""Events that a stream may be ahead of its client; then the upstream waits."""


@dataclass
class Call:
    """One request on its way."""

    headers: Mapping[str, str]
    reply: Reply
    guest: Guest = field(init=False)
    raw: bytes = b""
    entry: Entry | None = None
    """What is remembered of it."""
    facts: Facts = field(default_factory=dict)
    """What its span tells."""

    @property
    def strategy(self) -> str:
        """The name of the method it asks for; empty if it asks for none."""
        return self.entry.method.name if self.entry is not None and self.entry.method is not None else ""


Answering = Callable[[Call], Coroutine[Any, Any, None]]


class Gateway:
    """Answers requests by searches on an upstream; ``scorer`` is for the methods that score."""

    def __init__(self, config: Config, scorer: Scorer | None = None) -> None:
        self.config, self.scorer = config, scorer
        self.history = History()
        self.bank = None if config.bank is None else Bank(config.bank)
        self.door = Door(config, self.bank)
        self.probes = self.door.account(PROBES)
        self.tracing = Tracing(config.upstream)
        self.upstream = Upstream(config, self.probes, self.tracing.sampling)
        self.metrics = Metrics()

    def app(self) -> Starlette:
        """The ASGI application."""
        return Starlette(
            routes=[
                Route("/v1/chat/completions", Endpoint(self, self._ask("chat/completions")), methods=["POST"]),
                Route("/v1/completions", Endpoint(self, self._ask("completions")), methods=["POST"]),
                Route("/v1/responses", Endpoint(self, self._respond), methods=["POST"]),
                Route("/v1/models", Endpoint(self, self._models), methods=["GET"]),
                Route("/metrics", Endpoint(self, self._metrics), methods=["GET"]),
                Route("/health", _health, methods=["GET"]),
                *Page(self.door, self.history, self.probes).routes,
            ],
            exception_handlers={HTTPException: _no_such},
            lifespan=self._living,
        )

    @asynccontextmanager
    async def _living(self, _: Starlette) -> AsyncIterator[None]:
        yield
        await self.upstream.close()
        await asyncio.to_thread(self.tracing.close)
        if self.bank is not None:
            self.bank.close()

    def _ask(self, api: Api) -> Answering:
        async def answer(call: Call) -> None:
            entry, body = await self._begin(call, api)
            method = entry.method
            if method is None:
                await self._pass_on(call, entry, api, body)
                return
            ask = self._read(call, entry, method, body, api)
            if ask.stream:
                await self._stream(call, entry, ask, method, Chunks(ask))
            else:
                await call.reply.json(200, completion(await self._search(call, entry, ask, method)))

        return answer

    async def _respond(self, call: Call) -> None:
        """The Responses API: the upstream's own, or where a method is named, or it has none, in words of a chat."""
        entry, body = await self._begin(call, "responses")
        if entry.method is None and await self.upstream.responds():
            await self._pass_on(call, entry, "responses", body)
            return
        method = entry.method = entry.method or parse("single")
        ask = self._read(call, entry, method, as_chat(body), "chat/completions")
        response = Response(ask, body)
        if ask.stream:
            await self._stream(call, entry, ask, method, response)
        else:
            await call.reply.json(200, response.whole(await self._search(call, entry, ask, method)))

    async def _begin(self, call: Call, path: str) -> tuple[Entry, Mapping[str, Any]]:
        """A request that is let in, and its body: what it asks for is known from now on."""
        body = parsed(call.raw, call.headers)
        call.guest.knock(time.monotonic())
        entry = call.entry = self.history.begin(call.guest, f"/v1/{path}", body)
        entry.method, entry.model = await method_of(body, call.headers.get(HEADER), self.upstream.names)
        return entry, body

    async def _pass_on(self, call: Call, entry: Entry, path: str, body: Mapping[str, Any]) -> None:
        entry.ledger = Ledger(within=call.guest.ledger)
        price, client = self.upstream.price(entry.model), self.upstream.client
        call.facts["gen_ai.request.model"] = entry.model
        given = (call.raw, body, call.headers, call.guest, entry.ledger, price, call.reply)
        await pass_on(client, path, *given, self.upstream.observer)

    def _read(self, call: Call, entry: Entry, method: Method, body: Mapping[str, Any], api: Api) -> asks.Ask:
        if method.options.get("n", 1) > self.config.max_samples:
            raise InputError("n", method.options["n"], f"one request may draw {self.config.max_samples} samples")
        ask = asks.read(body, api, entry.model, asks.usual_limit(method, self.config.max_tokens))
        entry.seed = ask.seed
        call.facts |= asked(ask, method)
        return ask

    async def _search(
        self,
        call: Call,
        entry: Entry,
        ask: asks.Ask,
        method: Method,
        on_event: OnEvent | None = None,
        tell: Callable[[str], None] | None = None,
    ) -> Outcome:
        budget = call.guest.timed(method.budget)
        try:
            async with asyncio.timeout(budget.seconds):
                capped = method.thinking_tokens is not None
                generator = await self.upstream.generator(ask.model, ask.api, capped=capped)
        except TimeoutError:
            raise HttpError(504, "budget.seconds: the upstream did not answer in time", param="budget") from None
        wanted = self.bank is not None or capped or Capability.LOGPROBS in method.strategy.needs
        outcome = await search_for(
            ask,
            method,
            generator.sending(ask.fields, on_event, method.thinking_tokens, logprobs=wanted),
            budget=budget,
            within=call.guest.ledger,
            upstream=self.upstream.url,
            scorer=self.scorer,
            journal=Progress(tell, SampleAnswers(as_json=ask.json, tools=ask.tools), self.bank) if tell else self.bank,
            begun=lambda search: entry.show(search, self.upstream.url),
        )
        call.facts |= answered(outcome)
        entry.answer = outcome.answer
        return outcome

    async def _stream(self, call: Call, entry: Entry, ask: asks.Ask, method: Method, chunks: Chunks | Response) -> None:
        reply = call.reply
        ready: asyncio.Queue[bytes] = asyncio.Queue(AHEAD)

        async def on_event(event: Mapping[str, Any]) -> None:
            if lines := chunks.forwarded(event):
                await ready.put(lines)

        def tell(text: str) -> None:
            with suppress(asyncio.QueueFull):  # a client so slow can do without
                ready.put_nowait(chunks.progress(text))

        told = (on_event, None) if method.one_sample else (None, tell)
        work = asyncio.create_task(self._search(call, entry, ask, method, *told))
        try:
            async for line in _until_done(ready, work):
                if not reply.telling:
                    await reply.tell(chunks.opening())
                await reply.more(line)
            outcome = await work
            if not reply.telling:
                await reply.tell(chunks.opening())
            for line in chunks.closing(outcome):
                await reply.more(line)
            await reply.end()
        finally:
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)

    async def _models(self, call: Call) -> None:
        listing = dict((await self.upstream.client.get("models")).body)
        offered = {Capability.ANSWERS, *([Capability.SCORES] if self.scorer else [])}
        simple = [name for name, kind in strategies.known().items() if kind.needs <= offered]
        models = [model for model in listing.get("data") or () if isinstance(model, dict) and "id" in model]
        listing["data"] = [
            *models,
            *({**model, "id": f"{name}/{model['id']}", "owned_by": "thinktime"} for name in simple for model in models),
        ]
        await call.reply.json(200, listing)

    async def _metrics(self, call: Call) -> None:
        seen = [guest for guest in self.door.guests if call.guest.sees(guest)]
        spent = [(guest.name, guest.ledger.spent) for guest in seen]
        text = self.metrics.text([*spent, *([(PROBES, self.probes.spent)] if call.guest.sees_all else [])])
        await call.reply.whole(200, text.encode(), KIND)


class Endpoint:
    """One path: lets a guest in, reads, answers while somebody waits, and turns errors into answers."""

    def __init__(self, gateway: Gateway, answer: Answering) -> None:
        self._gateway, self._answer = gateway, answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        gateway, metrics, began = self._gateway, self._gateway.metrics, time.monotonic()
        call = Call(dict(Request(scope).headers), Reply(send))
        metrics.in_flight += 1
        try:
            with gateway.tracing.request(scope["method"], scope["path"], call.headers) as call.facts:
                await self._answered(call, receive)
                call.facts["http.response.status_code"] = call.reply.status
        finally:
            if call.entry is not None:
                gateway.history.end(call.entry, call.reply.status)
            metrics.in_flight -= 1
            metrics.answered[scope["path"], call.strategy, call.reply.status] += 1
            metrics.seconds[scope["path"], call.strategy] += time.monotonic() - began

    async def _answered(self, call: Call, receive: Receive) -> None:
        gateway = self._gateway
        try:
            call.guest = gateway.door.enter(call.headers)
            call.raw = await read_body(receive, call.headers, gateway.config.max_body)
            await while_waited_for(self._answer(call), receive, call.reply)
        except ClientLeftError:
            gateway.metrics.left += 1
            if call.entry is not None:
                call.entry.left = True
        except Exception as error:
            failed = http_error(error, gateway.upstream.url)
            if call.entry is not None:
                call.entry.error = failed.message
            await _fail(call.reply, failed)


async def _fail(reply: Reply, error: HttpError) -> None:
    """Answer with an error. An answer that has begun and is no stream of ours is left off, as the upstream left it."""
    if not reply.status:
        more = {"Connection": "close"} if error.status == 413 else {}
        await reply.json(error.status, error.body, error.headers | more)
    elif reply.telling:
        await reply.end(error_event(error.body))


async def _until_done(ready: asyncio.Queue[bytes], work: asyncio.Task[Outcome]) -> AsyncIterator[bytes]:
    """What is ready to be sent until the work is done, and a sign of life where nothing is for long."""
    while not (work.done() and ready.empty()):
        getting = asyncio.ensure_future(ready.get())
        try:
            await asyncio.wait({getting, work}, timeout=SILENCE, return_when=asyncio.FIRST_COMPLETED)
        finally:
            found = getting.done()
            getting.cancel()
        if found:
            yield getting.result()
        elif not work.done():
            yield WAITING


async def _health(_: Request) -> HttpResponse:
    return JSONResponse({"status": "ok"})


async def _no_such(request: Request, error: Exception) -> HttpResponse:
    """Paths and verbs that are not there, in the shape of all other errors."""
    assert isinstance(error, HTTPException)
    found = HttpError(error.status_code, f"{request.method} {request.url.path}: {error.detail}", code="not_found")
    return JSONResponse(found.body, error.status_code, headers=error.headers)
