"""The server: routes, the account of each request, and cancellation when a client disconnects."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.responses import Response as HttpResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from thinktime import strategies
from thinktime.bank.database import is_url
from thinktime.bank.store import Bank
from thinktime.core.errors import InputError, UnknownNameError
from thinktime.core.journal import Journal
from thinktime.core.ledger import Ledger
from thinktime.core.protocols import Scorer
from thinktime.core.types import MAIN, Capability
from thinktime.gateway import messages, responses
from thinktime.gateway.answers import SampleAnswers
from thinktime.gateway.asgi import (
    ClientLeftError,
    HeadCheck,
    ResponseWriter,
    parse_json,
    read_body,
    run_while_connected,
)
from thinktime.gateway.auth import ApiClient, Auth, address_of, limits_spending
from thinktime.gateway.config import GatewayConfig
from thinktime.gateway.errors import ErrorShape, HttpError, busy, http_error
from thinktime.gateway.history import History, HistoryEntry
from thinktime.gateway.lengths import Extent, check, check_text, extent, has_several
from thinktime.gateway.limits import GRACE_SECONDS, SENT
from thinktime.gateway.logs import log_request
from thinktime.gateway.messages import Message
from thinktime.gateway.methods import HEADER, Method, method_of, parse
from thinktime.gateway.metrics import KIND, Metrics
from thinktime.gateway.page import Page
from thinktime.gateway.proxy import proxy_request
from thinktime.gateway.replies import Chunks, SearchOutcome, error_event
from thinktime.gateway.request import CompletionRequest, default_max_tokens, read_request
from thinktime.gateway.responses import Response
from thinktime.gateway.roles import Roles
from thinktime.gateway.searching import Progress, refuse_large, search_for
from thinktime.gateway.tracing import Attributes, Tracing, outcome_attributes, request_attributes
from thinktime.gateway.upstream import Upstream, models_in
from thinktime.generators.openai import COMPLETION_LIMIT, ProbeKind, RemoteGenerator
from thinktime.models.remote.client import OnEvent
from thinktime.models.remote.limits import Share
from thinktime.models.remote.protocol import Api
from thinktime.planning.auto import Auto
from thinktime.prompts.templates import overridden

if TYPE_CHECKING:
    from thinktime.gateway.shared import Keeper

SILENCE = 15.0
"""Seconds without an event after which a stream sends a comment to keep the connection open."""
WAITING = b": waiting\n\n"
PROBES = "(model probes)"
"""The account of probes for configured roles, and for clients without a budget."""
OPENAI = ErrorShape(lambda error: error.body, error_event)
ANTHROPIC = ErrorShape(messages.error_body, messages.error_event)
AHEAD = 64
"""Events that a stream buffers for a slow client; beyond them the upstream waits."""


@dataclass
class RequestContext:
    """One request while it is answered."""

    headers: Mapping[str, str]
    writer: ResponseWriter
    address: str
    """The address of the client."""
    name: str
    """The name in the path; empty if the route has none."""
    client: ApiClient = field(init=False)
    samples: Share = field(init=False)
    """What it takes of its client's samples in progress."""
    raw: bytes = b""
    entry: HistoryEntry | None = None
    """Its entry in the history, once the body is read."""
    attributes: Attributes = field(default_factory=dict)
    """The attributes of its span."""

    @property
    def strategy(self) -> str:
        """The name of the method that the request names; empty if it names none."""
        return self.entry.method.name if self.entry is not None and self.entry.method is not None else ""


Proxied = Api | Literal["responses", "embeddings"]
"""Calls that are passed on where a request names no method."""
Answering = Callable[[RequestContext], Coroutine[Any, Any, None]]


class Gateway:
    """Answers requests by searches on an upstream. Methods that score use ``scorer``, or else a configured one."""

    def __init__(self, config: GatewayConfig, scorer: Scorer | None = None) -> None:
        self.config, self.scorer = config, scorer
        self.history = History()
        self.bank: Bank | None = None
        self.keeper: Keeper | None = None
        self.journal: Journal | None = None
        self._closing: tuple[Callable[[], None], ...] = ()
        if config.bank is not None:
            self._open_bank(config.bank)
        self.auth = Auth(config, self.bank, self.keeper)
        self.probes = self.auth.account(PROBES)
        self.tracing = Tracing(config.upstream)
        self.upstream = Upstream(config, self.tracing.sampling)
        self.roles = Roles(config, self.upstream, self.probes, self.tracing.sampling)
        self.prompts = overridden(strategies.prompts(), config.prompts)
        self.metrics = Metrics()
        self.running: set[asyncio.Future[None]] = set()
        """The requests that are being answered."""
        if config.calibration is not None:
            refuse_large(config.calibration)

    def stop(self) -> None:
        """End all requests: the reply is a 503 in the shape of its API."""
        for working in self.running:
            working.cancel()

    def _open_bank(self, place: Path | str) -> None:
        """Open the bank; if several gateways share it, also what keeps their accounts."""
        self.journal = self.bank = Bank(place, waits=())
        if is_url(place):
            from thinktime.bank.accounts import Accounts
            from thinktime.gateway.journal import SharedJournal
            from thinktime.gateway.shared import Keeper

            self.keeper = Keeper(Accounts(str(place)))
            self.journal = journal = SharedJournal(self.bank)
            self._closing = (self.keeper.close, journal.close)

    def app(self) -> Starlette:
        """The ASGI application."""
        return Starlette(
            routes=[
                Route("/v1/chat/completions", RouteHandler(self, self._ask("chat/completions")), methods=["POST"]),
                Route("/v1/completions", RouteHandler(self, self._ask("completions")), methods=["POST"]),
                Route("/v1/responses", RouteHandler(self, self._respond), methods=["POST"]),
                Route("/v1/messages", RouteHandler(self, self._message, ANTHROPIC), methods=["POST"]),
                Route("/v1/embeddings", RouteHandler(self, self._embed), methods=["POST"]),
                Route("/v1/models", RouteHandler(self, self._models), methods=["GET"]),
                Route("/v1/models/{name:path}", RouteHandler(self, self._model), methods=["GET"]),
                Route("/metrics", RouteHandler(self, self._metrics), methods=["GET"]),
                Route("/health", _health, methods=["GET"]),
                Route("/ready", self._ready, methods=["GET"]),
                *Page(self.auth, self.history, self.probes).routes,
            ],
            middleware=[Middleware(HeadCheck)],
            exception_handlers={HTTPException: _no_such},
            lifespan=self._living,
        )

    @asynccontextmanager
    async def _living(self, _: Starlette) -> AsyncIterator[None]:
        yield
        await self.roles.close()
        await self.upstream.close()
        await asyncio.to_thread(self.tracing.close)
        for close in self._closing:
            await asyncio.to_thread(close)
        if self.bank is not None:
            self.bank.close()

    def _ask(self, api: Api) -> Answering:
        async def answer(context: RequestContext) -> None:
            entry, body = await self._begin(context, api)
            method = entry.method
            if method is None:
                await self._proxy(context, entry, api, body)
                return
            request = self._read(context, entry, method, body, api)
            await self._reply(context, entry, request, method, Chunks(request))

        return answer

    async def _respond(self, context: RequestContext) -> None:
        """Answer a request of the Responses API.

        Without a method it goes to the upstream, if the upstream has this API. Otherwise it becomes a chat request.
        """
        entry, body = await self._begin(context, "responses")
        if entry.method is None and await self.upstream.responds():
            await self._proxy(context, entry, "responses", body)
            return
        method = entry.method = entry.method or parse("single")
        request = self._read(context, entry, method, responses.as_chat(body), "chat/completions")
        await self._reply(context, entry, request, method, Response(request, body))

    async def _message(self, context: RequestContext) -> None:
        """Answer a request of Anthropic's Messages API. It becomes a chat request, without a method for one sample."""
        entry, body = await self._begin(context, "messages")
        method = entry.method or parse("single")
        if method.thinking_tokens is None:
            method = replace(method, thinking_tokens=messages.thinking_tokens(body))
        entry.method = method
        request = self._read(context, entry, method, messages.as_chat(body), "chat/completions")
        await self._reply(context, entry, request, method, Message(request, body))

    async def _embed(self, context: RequestContext) -> None:
        """Pass a request for embeddings on."""
        entry, body = await self._begin(context, "embeddings")
        if entry.method is not None:
            raise InputError("model", entry.called, f"embeddings have no methods; ask for {entry.model}")
        await self._proxy(context, entry, "embeddings", body)

    async def _reply(
        self,
        context: RequestContext,
        entry: HistoryEntry,
        request: CompletionRequest,
        method: Method,
        reply: Chunks | Response | Message,
    ) -> None:
        """Search, and send the answer as a stream of events or as one object."""
        if request.stream:
            await self._stream(context, entry, request, method, reply)
        else:
            await context.writer.send_json(200, reply.whole(await self._search(context, entry, request, method)))

    async def _begin(self, context: RequestContext, path: str) -> tuple[HistoryEntry, Mapping[str, Any]]:
        """Parse a request, check its rate limit, and add it to the history."""
        body = parse_json(context.raw, context.headers)
        context.client.check_rate_limit(time.monotonic())
        entry = context.entry = self.history.begin(context.client, f"/v1/{path}", body)
        entry.method, entry.model = await method_of(body, context.headers.get(HEADER), self.upstream.names)
        if context.client.limited or (entry.method is not None and limits_spending(entry.method.budget)):
            check(body, path)
        return entry, body

    async def _proxy(
        self, context: RequestContext, entry: HistoryEntry, path: Proxied, body: Mapping[str, Any]
    ) -> None:
        entry.ledger = Ledger(within=context.client.ledger)
        price, client = self.upstream.price(entry.model), self.upstream.client
        context.attributes["gen_ai.request.model"] = entry.model
        most, counts_all = await self._extent(context, entry.model, path, body)
        given = (context.raw, body, context.headers, context.client, entry.ledger, price, context.writer)
        slot = self.upstream.proxied(entry.model)
        await proxy_request(client, path, *given, self.upstream.observer, most, counts_all, slot)

    async def _extent(
        self, context: RequestContext, model: str, path: Proxied, body: Mapping[str, Any]
    ) -> tuple[Extent | None, bool]:
        """The most that a request without a method can generate, and whether the upstream's usage counts all of it.

        Without a budget there is no such limit, and nothing is probed: a probe that another request needed decides.
        """
        if limited := context.client.limited:
            await asyncio.to_thread(check_text, context.raw)  # 32 MB take seconds
        if path == "embeddings":
            return Extent(1, 0, 1) if limited else None, True
        found = extent(body, path, self.config.max_samples) if limited else None
        if path == "responses":
            return found, True
        if found is None:
            known = self.upstream.probed(model, path) if has_several(body, path) else None
            return None, known is None or known.traits.counts_all
        probed = partial(self.upstream.generator, model, path, self._payer(context.client))
        alone = path == "chat/completions" and body.get("max_tokens") is None
        if alone and not (await probed("obeys")).obeys:
            limit = body[COMPLETION_LIMIT]
            raise InputError(COMPLETION_LIMIT, limit, "a budget holds, and the upstream ignores it; send max_tokens")
        return found, found.samples == 1 or (await probed()).traits.counts_all

    def _payer(self, client: ApiClient) -> Ledger:
        """The account of the probes that a client's request needs."""
        return client.ledger if client.limited else self.probes

    def _read(
        self, context: RequestContext, entry: HistoryEntry, method: Method, body: Mapping[str, Any], api: Api
    ) -> CompletionRequest:
        if method.samples > self.config.max_samples:
            fix = f"one request may draw {self.config.max_samples} samples"
            raise InputError("n", min(method.samples, 10**12), fix)
        if method.samples > (most := max(1, SENT // len(context.raw))):
            raise InputError("n", method.samples, f"a request of {len(context.raw)} bytes may draw {most} samples")
        if not context.samples.take(method.samples):
            raise busy("other requests draw too many samples at once")
        request = read_request(body, api, entry.model, default_max_tokens(method, self.config.max_tokens))
        entry.seed = request.seed
        context.attributes |= request_attributes(request, method)
        return request

    async def _search(
        self,
        context: RequestContext,
        entry: HistoryEntry,
        request: CompletionRequest,
        method: Method,
        on_event: OnEvent | None = None,
        on_progress: Callable[[str], None] | None = None,
    ) -> SearchOutcome:
        budget = context.client.timed(method.budget)
        try:
            async with asyncio.timeout(budget.seconds):
                capped = method.thinking_tokens is not None
                payer = self._payer(context.client)
                kind: ProbeKind = "cap" if capped else "traits"
                generator = await self.upstream.generator(request.model, request.api, payer, kind)
                others = await self.roles.models(method.models, request.api, payer, kind)
                scorers = await self.roles.scorers(method.scorers, payer)
                if self.scorer is not None and MAIN not in method.scorers:
                    scorers[MAIN] = self.scorer
        except TimeoutError:
            raise HttpError(504, "budget.seconds: the upstream did not answer in time", param="budget") from None
        measured = isinstance(method.strategy, Auto) and bool(method.strategy.policy or self.config.calibration)
        wanted = self.bank is not None or capped or measured or Capability.LOGPROBS in method.strategy.needs
        sending = partial(
            RemoteGenerator.sending, fields=request.fields, thinking_tokens=method.thinking_tokens, logprobs=wanted
        )
        models = {role: sending(other) for role, other in others.items()}
        chat = request.api == "chat/completions"
        answers = SampleAnswers(as_json=request.json, tools=request.tools)
        progress = Progress(on_progress, answers, self.journal) if on_progress else None
        outcome = await search_for(
            request,
            method,
            {MAIN: sending(generator, on_event=on_event), **models},
            budget=budget,
            within=context.client.ledger,
            addresses=self.roles.addresses,
            scorers=scorers,
            calibration=self.config.calibration,
            prompts={**self.prompts, **method.prompts} if chat else {},
            journal=progress or self.journal,
            on_start=lambda search: entry.show(search, self.roles.addresses),
        )
        if progress is not None:
            await progress.finish()
        context.attributes |= outcome_attributes(outcome)
        entry.answer = outcome.answer
        return outcome

    async def _stream(
        self,
        context: RequestContext,
        entry: HistoryEntry,
        request: CompletionRequest,
        method: Method,
        reply: Chunks | Response | Message,
    ) -> None:
        writer = context.writer
        ready: asyncio.Queue[bytes] = asyncio.Queue(AHEAD)

        async def on_event(event: Mapping[str, Any]) -> None:
            if lines := reply.forwarded(event):
                await ready.put(lines)

        def on_progress(text: str) -> None:
            with suppress(asyncio.QueueFull):  # a slow client may miss progress
                ready.put_nowait(reply.progress(text))

        callbacks = (on_event, None) if method.one_sample else (None, on_progress)
        work = asyncio.create_task(self._search(context, entry, request, method, *callbacks))
        try:
            async for line in _until_done(ready, work):
                if not writer.streaming:
                    await writer.start_stream(reply.opening())
                await writer.write(line)
            outcome = await work
            if not writer.streaming:
                await writer.start_stream(reply.opening())
            for line in reply.closing(outcome):
                await writer.write(line)
            await writer.end()
        finally:
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)

    async def _models(self, context: RequestContext) -> None:
        """List the models of the upstream, each also after the names of simple methods."""
        listing = dict(await self.upstream.listing())
        scored = self.scorer is not None or MAIN in self.config.scorers
        offered = {Capability.ANSWERS, *([Capability.SCORES] if scored else [])}
        simple = [name for name, kind in strategies.known().items() if kind.needs <= offered]
        models = models_in(listing)
        listing["data"] = [
            *models,
            *({**model, "id": f"{name}/{model['id']}", "owned_by": "thinktime"} for name in simple for model in models),
        ]
        await context.writer.send_json(200, listing)

    async def _model(self, context: RequestContext) -> None:
        """One model of the upstream; its name may begin with a method."""
        method, name = await method_of({"model": context.name}, None, self.upstream.names)
        models = models_in(await self.upstream.listing())
        for model in models:
            if model["id"] == name:
                owner = {} if method is None else {"owned_by": "thinktime"}
                await context.writer.send_json(200, {**model, "id": context.name, **owner})
                return
        raise UnknownNameError("model_name", name, [model["id"] for model in models])

    async def _metrics(self, context: RequestContext) -> None:
        seen = [client for client in self.auth.clients if context.client.sees(client)]
        spent = [(client.name, client.ledger.spent) for client in seen]
        spent += [(PROBES, self.probes.spent)] if context.client.sees_all else []
        text = self.metrics.text(spent, None if self.keeper is None else self.keeper.reachable)
        await context.writer.send(200, text, KIND)

    async def _ready(self, _: Request) -> HttpResponse:
        """Whether the upstream answers. Unlike ``/health``, which says that this process does."""
        if await self.upstream.reachable():
            return JSONResponse({"status": "ok"})
        return JSONResponse({"status": "the upstream does not answer"}, 503)


class RouteHandler:
    """One route: it authenticates, reads the body, answers while the client is connected, and reports errors."""

    def __init__(self, gateway: Gateway, answer: Answering, shape: ErrorShape = OPENAI) -> None:
        self._gateway, self._answer, self._shape = gateway, answer, shape

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        gateway, metrics, began = self._gateway, self._gateway.metrics, time.monotonic()
        request = Request(scope)
        name = scope["path_params"].get("name", "")
        context = RequestContext(dict(request.headers), ResponseWriter(send), address_of(request), name)
        path = scope["path"].removesuffix(name)  # the metrics count a route once, whatever the name
        counted = path != "/metrics"  # a scrape does not count itself
        metrics.in_flight.inc(counted)
        try:
            with gateway.tracing.request(scope["method"], scope["path"], context.headers) as context.attributes:
                await self._answered(context, receive)
                context.attributes["http.response.status_code"] = context.writer.status
        finally:
            metrics.in_flight.dec(counted)
            if context.entry is not None:
                gateway.history.end(context.entry, context.writer.status)
                metrics.charge(context.entry.client.name, context.entry.ledger.spent)
            log_request(scope["method"], path, context.writer.status, began, context.entry)
            metrics.answered.labels(path, context.strategy, context.writer.status).inc()
            metrics.seconds.labels(path, context.strategy).observe(time.monotonic() - began)

    async def _answered(self, context: RequestContext, receive: Receive) -> None:
        gateway = self._gateway
        try:
            context.client = await gateway.auth.admitted(context.headers, context.address)
            most, seconds = gateway.config.max_body, gateway.config.request_seconds + GRACE_SECONDS
            with Share(context.client.bodies) as body, Share(context.client.samples) as context.samples:
                context.raw = await read_body(receive, context.headers, most, body)
                await run_while_connected(self._answer(context), receive, context.writer, seconds, gateway.running)
        except ClientLeftError:
            gateway.metrics.left.inc()
            if context.entry is not None:
                context.entry.left = True
        except Exception as error:
            failed = http_error(error, gateway.roles.addresses)
            _release(error)
            if context.entry is not None:
                context.entry.error = failed.message
            await _fail(context.writer, failed, self._shape)


def _release(error: BaseException) -> None:
    """Forget the functions that an error came through, and the errors behind it.

    Their variables refer to the error. Such a cycle would keep the request's body until the next garbage collection.
    """
    behind: BaseException | None = error
    while behind is not None:
        error, behind = behind, behind.__context__
        error.__traceback__ = error.__context__ = error.__cause__ = None


async def _fail(writer: ResponseWriter, error: HttpError, shape: ErrorShape) -> None:
    """Reply with an error. A proxied answer that has already begun is left incomplete, as the upstream left it."""
    if not writer.status:
        more = {"Connection": "close"} if error.status == 413 else {}
        await writer.send_json(error.status, shape.body(error), error.headers | more)
    elif writer.streaming:
        await writer.end(shape.event(shape.body(error)))


async def _until_done(ready: asyncio.Queue[bytes], work: asyncio.Task[SearchOutcome]) -> AsyncIterator[bytes]:
    """Yield the ready parts until the work is done, and a comment after each long silence."""
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
    """Reply to unknown paths and methods in the shape of all other errors."""
    assert isinstance(error, HTTPException)
    called = f"{request.method} {request.scope['path'][:200]}"
    found = HttpError(error.status_code, f"{called}: {error.detail}", code="not_found")
    return JSONResponse(found.body, error.status_code, headers=error.headers)
