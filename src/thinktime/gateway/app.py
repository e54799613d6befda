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
from starlette.responses import JSONResponse, Response
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
from thinktime.gateway.methods import HEADER, Method, method_of
from thinktime.gateway.metrics import KIND, Metrics
from thinktime.gateway.passing import pass_on
from thinktime.gateway.replies import Chunks, Outcome, completion, error_event
from thinktime.gateway.searching import Progress, search_for
from thinktime.gateway.upstream import Upstream
from thinktime.gateway.voting import SampleAnswers
from thinktime.gateway.wire import ClientLeftError, Reply, parsed, read_body, while_waited_for
from thinktime.remote.client import Heard
from thinktime.remote.protocol import Api

SILENCE = 15.0
"""Seconds after which a stream says that it is alive."""
WAITING = b": waiting\n\n"
AHEAD = 64
"""Events that a stream may be ahead of its client; then the upstream waits."""


@dataclass
class Call:
    """One request on its way."""

    headers: Mapping[str, str]
    reply: Reply
    guest: Guest = field(init=False)
    raw: bytes = b""
    strategy: str = ""


Answering = Callable[[Call], Coroutine[Any, Any, None]]


class Gateway:
    """Answers requests by searches on an upstream; ``scorer`` is for the methods that score."""

    def __init__(self, config: Config, scorer: Scorer | None = None) -> None:
        self.config, self.scorer = config, scorer
        self.door = Door(config)
        self.looks = Ledger(within=self.door.ledger)
        self.upstream = Upstream(config, self.looks)
        self.metrics = Metrics()
        self.bank = None if config.bank is None else Bank(config.bank)

    def app(self) -> Starlette:
        """The ASGI application."""
        return Starlette(
            routes=[
                Route("/v1/chat/completions", Endpoint(self, self._ask("chat/completions")), methods=["POST"]),
                Route("/v1/completions", Endpoint(self, self._ask("completions")), methods=["POST"]),
                Route("/v1/models", Endpoint(self, self._models), methods=["GET"]),
                Route("/metrics", Endpoint(self, self._metrics), methods=["GET"]),
                Route("/health", _health, methods=["GET"]),
            ],
            exception_handlers={HTTPException: _no_such},
            lifespan=self._living,
        )

    @asynccontextmanager
    async def _living(self, _: Starlette) -> AsyncIterator[None]:
        yield
        await self.upstream.close()
        if self.bank is not None:
            self.bank.close()

    def _ask(self, api: Api) -> Answering:
        async def answer(call: Call) -> None:
            body = parsed(call.raw, call.headers)
            call.guest.knock(time.monotonic())
            method, model = await method_of(body, call.headers.get(HEADER), self.upstream.names)
            if method is None:
                price = self.upstream.price(model)
                client = self.upstream.client
                await pass_on(client, api, call.raw, body, call.headers, call.guest, price, call.reply)
                return
            call.strategy = method.name
            if method.options.get("n", 1) > self.config.max_samples:
                raise InputError("n", method.options["n"], f"one request may draw {self.config.max_samples} samples")
            ask = asks.read(body, api, model, asks.usual_limit(method, self.config.max_tokens))
            if ask.stream:
                await self._stream(call, ask, method)
            else:
                await call.reply.json(200, completion(await self._search(call, ask, method)))

        return answer

    async def _search(
        self,
        call: Call,
        ask: asks.Ask,
        method: Method,
        heard: Heard | None = None,
        tell: Callable[[str], None] | None = None,
    ) -> Outcome:
        budget = call.guest.timed(method.budget)
        try:
            async with asyncio.timeout(budget.seconds):
                generator = await self.upstream.generator(ask.model, ask.api)
        except TimeoutError:
            raise HttpError(504, "budget.seconds: the upstream did not answer in time", param="budget") from None
        wanted = self.bank is not None or Capability.LOGPROBS in method.strategy.needs
        return await search_for(
            ask,
            method,
            generator.sending(ask.fields, heard, logprobs=wanted),
            budget=budget,
            within=call.guest.ledger,
            upstream=self.upstream.url,
            scorer=self.scorer,
            journal=Progress(tell, SampleAnswers(as_json=ask.json, tools=ask.tools), self.bank) if tell else self.bank,
        )

    async def _stream(self, call: Call, ask: asks.Ask, method: Method) -> None:
        chunks, reply = Chunks(ask), call.reply
        ready: asyncio.Queue[bytes] = asyncio.Queue(AHEAD)

        async def heard(event: Mapping[str, Any]) -> None:
            if lines := chunks.forwarded(event):
                await ready.put(lines)

        def tell(text: str) -> None:
            with suppress(asyncio.QueueFull):  # a client so slow can do without
                ready.put_nowait(chunks.progress(text))

        told = (heard, None) if method.one_sample else (None, tell)
        work = asyncio.create_task(self._search(call, ask, method, *told))
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
        spent = [(guest.name, guest.ledger.spent) for guest in self.door.guests]
        text = self.metrics.text([*spent, ("(looks at models)", self.looks.spent)])
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
            call.guest = gateway.door.enter(call.headers)
            call.raw = await read_body(receive, call.headers, gateway.config.max_body)
            await while_waited_for(self._answer(call), receive, call.reply)
        except ClientLeftError:
            metrics.left += 1
        except Exception as error:
            await _fail(call.reply, http_error(error, gateway.upstream.url))
        finally:
            metrics.in_flight -= 1
            metrics.answered[scope["path"], call.strategy, call.reply.status] += 1
            metrics.seconds[scope["path"], call.strategy] += time.monotonic() - began


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


async def _health(_: Request) -> Response:
    return JSONResponse({"status": "ok"})


async def _no_such(request: Request, error: Exception) -> Response:
    """Paths and verbs that are not there, in the shape of all other errors."""
    assert isinstance(error, HTTPException)
    found = HttpError(error.status_code, f"{request.method} {request.url.path}: {error.detail}", code="not_found")
    return JSONResponse(found.body, error.status_code, headers=error.headers)
