"""Answers the calls of the APIs: by a search on the upstream, or by passing the request on."""

from __future__ import annotations

import asyncio
import hashlib
import json
import secrets
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any, Literal

from thinktime import strategies
from thinktime.core.errors import InputError, ThinktimeError, UnknownNameError
from thinktime.core.ledger import Ledger
from thinktime.core.types import MAIN, Capability
from thinktime.gateway import messages, responses
from thinktime.gateway.answers import SampleAnswers
from thinktime.gateway.asgi import parse_json
from thinktime.gateway.auth import ApiClient
from thinktime.gateway.config import limits_spending
from thinktime.gateway.errors import HttpError, busy
from thinktime.gateway.failover import moves_on
from thinktime.gateway.handler import Answering, RequestContext
from thinktime.gateway.history import HistoryEntry
from thinktime.gateway.lengths import Extent, check, check_text, extent, has_several
from thinktime.gateway.limits import SENT
from thinktime.gateway.messages import Message
from thinktime.gateway.methods import HEADER, Method, method_of, parse
from thinktime.gateway.metrics import KIND
from thinktime.gateway.proxy import proxy_request
from thinktime.gateway.replies import Chunks, SearchOutcome
from thinktime.gateway.request import CompletionRequest, default_max_tokens, read_request
from thinktime.gateway.responses import Response
from thinktime.gateway.searching import Progress, search_for, upstreams_of
from thinktime.gateway.state import Gateway
from thinktime.gateway.tracing import outcome_attributes, request_attributes
from thinktime.gateway.upstream import Target, models_in
from thinktime.gateway.upstreams import ServedGenerator
from thinktime.generators.openai import COMPLETION_LIMIT, ProbeKind
from thinktime.models.remote.client import OnEvent, RefusedError, RemoteError, UnreadableError
from thinktime.models.remote.protocol import Api
from thinktime.planning.auto import Auto

SILENCE = 15.0
"""Seconds without an event after which a stream sends a comment to keep the connection open."""
WAITING = b": waiting\n\n"
AHEAD = 64
"""Events that a stream buffers for a slow client; beyond them the upstream waits."""
Proxied = Api | Literal["responses", "embeddings"]
"""Calls that are passed on where a request names no method."""


class Calls:
    """Answers each call on the state of a gateway."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    def ask(self, api: Api) -> Answering:
        """What answers a request for chats or completions."""

        async def answer(context: RequestContext) -> None:
            entry, body = await self._begin(context, api)
            method = entry.method
            if method is None:
                await self._proxy(context, entry, api, body)
                return
            request = self._read(context, entry, method, body, api)
            await self._reply(context, entry, request, method, Chunks(request))

        return answer

    async def respond(self, context: RequestContext) -> None:
        """Answer a request of the Responses API.

        Without a method it goes to the upstream, if the upstream has this API. Otherwise it becomes a chat request.
        """
        entry, body = await self._begin(context, "responses")
        if entry.method is None and (targets := await self._responding(context, entry, body)):
            await self._proxy(context, entry, "responses", body, targets)
            return
        method = entry.method = entry.method or parse("single")
        request = self._read(context, entry, method, responses.as_chat(body), "chat/completions")
        await self._reply(context, entry, request, method, Response(request, body))

    async def message(self, context: RequestContext) -> None:
        """Answer a request of Anthropic's Messages API. It becomes a chat request, without a method for one sample."""
        entry, body = await self._begin(context, "messages")
        method = entry.method or parse("single")
        if method.thinking_tokens is None:
            method = replace(method, thinking_tokens=messages.thinking_tokens(body))
        entry.method = method
        request = self._read(context, entry, method, messages.as_chat(body), "chat/completions")
        await self._reply(context, entry, request, method, Message(request, body))

    async def embed(self, context: RequestContext) -> None:
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
        context.writer.headers = await self._gateway.auth.admit(context.client)
        entry = context.entry = self._gateway.history.begin(context.client, f"/v1/{path}", body)
        if self._gateway.shadow is not None:
            self._gateway.shadow.arrived()
        entry.method, entry.model = await method_of(body, context.headers.get(HEADER), self._gateway.upstreams.names)
        if context.client.limited or (entry.method is not None and limits_spending(entry.method.budget)):
            check(body, path)
        return entry, body

    async def _proxy(
        self,
        context: RequestContext,
        entry: HistoryEntry,
        path: Proxied,
        body: Mapping[str, Any],
        targets: Sequence[Target] = (),
    ) -> None:
        """Pass a request on to the first of these targets that answers."""
        entry.ledger = Ledger(within=context.client.ledger)
        context.attributes["gen_ai.request.model"] = entry.model
        if path in ("chat/completions", "completions"):
            context.read = partial(read_request, body, path, entry.model, self._gateway.config.max_tokens)
        *others, last = targets or self._targets(context, entry, body)
        for target in others:
            try:
                await self._proxy_to(target, context, entry, path, body, last=False)
            except ThinktimeError as error:
                if context.writer.status or not (moves_on(error) or isinstance(error, RefusedError | UnreadableError)):
                    raise
                target.pause(error)
            else:
                return
        await self._proxy_to(last, context, entry, path, body, last=True)

    async def _proxy_to(
        self,
        target: Target,
        context: RequestContext,
        entry: HistoryEntry,
        path: Proxied,
        body: Mapping[str, Any],
        *,
        last: bool,
    ) -> None:
        upstream, raw = target.upstream, context.raw
        entry.upstreams = {target.name: None}
        if target.model != body["model"]:
            body = {**body, "model": target.model}
            raw = json.dumps(body).encode()
        most, counts_all = await self._extent(context, target, path, body)
        price, slot = upstream.price(target.model), upstream.proxied(target.model)
        given = (raw, body, context.headers, context.client, entry.ledger, price, context.writer)
        await proxy_request(upstream.client, path, *given, upstream.observer, most, counts_all, slot, last)

    def _targets(self, context: RequestContext, entry: HistoryEntry, body: Mapping[str, Any]) -> list[Target]:
        """Where to pass a request on. With a seed, equal requests go to the same upstream."""
        raw = context.raw if body.get("seed") is not None else secrets.token_bytes(8)
        return self._gateway.upstreams.targets(entry.model, hashlib.blake2b(raw, digest_size=12).hexdigest())

    async def _responding(self, context: RequestContext, entry: HistoryEntry, body: Mapping[str, Any]) -> list[Target]:
        """The targets of a request that have the Responses API.

        Raises:
            RemoteError: none of the targets answers.
        """
        found, failed = [], []
        targets = self._targets(context, entry, body)
        for target in targets:
            try:
                if await target.upstream.responds():
                    found.append(target)
            except RemoteError as error:
                failed.append(error)
                if len(targets) > 1:
                    target.pause(error)
        if len(failed) == len(targets):
            raise failed[0]
        return found

    async def _extent(
        self, context: RequestContext, target: Target, path: Proxied, body: Mapping[str, Any]
    ) -> tuple[Extent | None, bool]:
        """The most that a request without a method can generate, and whether the upstream's usage counts all of it.

        Without a budget there is no such limit, and nothing is probed: a probe that another request needed decides.
        """
        if limited := context.client.limited:
            await asyncio.to_thread(check_text, context.raw)  # 32 MB take seconds
        if path == "embeddings":
            return Extent(1, 0, 1) if limited else None, True
        found = extent(body, path, self._gateway.config.max_samples) if limited else None
        if path == "responses":
            return found, True
        if found is None:
            known = target.upstream.probed(target.model, path) if has_several(body, path) else None
            return None, known is None or known.traits.counts_all
        probed = partial(target.upstream.generator, target.model, path, self._payer(context.client))
        alone = path == "chat/completions" and body.get("max_tokens") is None
        if alone and not (await probed("obeys")).obeys:
            limit = body[COMPLETION_LIMIT]
            raise InputError(COMPLETION_LIMIT, limit, "a budget holds, and the upstream ignores it; send max_tokens")
        return found, found.samples == 1 or (await probed()).traits.counts_all

    def _payer(self, client: ApiClient) -> Ledger:
        """The account of the probes that a client's request needs."""
        return client.ledger if client.limited else self._gateway.probes

    def _read(
        self, context: RequestContext, entry: HistoryEntry, method: Method, body: Mapping[str, Any], api: Api
    ) -> CompletionRequest:
        if method.samples > self._gateway.config.max_samples:
            fix = f"one request may draw {self._gateway.config.max_samples} samples"
            raise InputError("n", min(method.samples, 10**12), fix)
        if method.samples > (most := max(1, SENT // len(context.raw))):
            raise InputError("n", method.samples, f"a request of {len(context.raw)} bytes may draw {most} samples")
        if not context.samples.take(method.samples):
            raise busy("other requests draw too many samples at once")
        most_tokens = self._gateway.config.max_tokens
        request = read_request(body, api, entry.model, default_max_tokens(method, most_tokens))
        if method.thinking_tokens is None:
            context.read = partial(read_request, body, api, entry.model, most_tokens)
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
                key = request.problem.id
                upstreams, roles = self._gateway.upstreams, self._gateway.roles
                generator = await upstreams.generator(request.model, request.api, payer, kind, key)
                others = await roles.models(method.models, request.api, payer, kind, key)
                scorers = await roles.scorers(method.scorers, payer, key)
                if self._gateway.scorer is not None and MAIN not in method.scorers:
                    scorers[MAIN] = self._gateway.scorer
        except TimeoutError:
            raise HttpError(504, "budget.seconds: the upstream did not answer in time", param="budget") from None
        calibration = self._gateway.config.calibration
        measured = isinstance(method.strategy, Auto) and bool(method.strategy.policy or calibration)
        wanted = self._gateway.bank is not None or capped or measured or Capability.LOGPROBS in method.strategy.needs

        def sending(generator: ServedGenerator, on_event: OnEvent | None = None) -> ServedGenerator:
            return generator.sending(request.fields, on_event, method.thinking_tokens, logprobs=wanted)

        models = {role: sending(other) for role, other in others.items()}
        chat = request.api == "chat/completions"
        answers = SampleAnswers(as_json=request.json, tools=request.tools)
        progress = Progress(on_progress, answers, self._gateway.journal) if on_progress else None
        outcome = await search_for(
            request,
            method,
            {MAIN: sending(generator, on_event), **models},
            budget=budget,
            within=context.client.ledger,
            addresses=self._gateway.roles.addresses,
            scorers=scorers,
            calibration=calibration,
            prompts={**self._gateway.prompts, **method.prompts} if chat else {},
            journal=progress or self._gateway.journal,
            on_start=lambda search: entry.show(search, self._gateway.roles.addresses),
        )
        if progress is not None:
            await progress.finish()
        context.attributes |= outcome_attributes(outcome)
        entry.answer = outcome.answer
        entry.upstreams = dict.fromkeys(upstreams_of(outcome.search))
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

    async def models(self, context: RequestContext) -> None:
        """List the models of the upstream, each also after the names of simple methods."""
        listing = dict(await self._gateway.upstreams.listing())
        scored = self._gateway.scorer is not None or MAIN in self._gateway.config.scorers
        offered = {Capability.ANSWERS, *([Capability.SCORES] if scored else [])}
        simple = [name for name, kind in strategies.known().items() if kind.needs <= offered]
        models = models_in(listing)
        listing["data"] = [
            *models,
            *({**model, "id": f"{name}/{model['id']}", "owned_by": "thinktime"} for name in simple for model in models),
        ]
        await context.writer.send_json(200, listing)

    async def model(self, context: RequestContext) -> None:
        """One model of the upstream; its name may begin with a method."""
        method, name = await method_of({"model": context.name}, None, self._gateway.upstreams.names)
        models = models_in(await self._gateway.upstreams.listing())
        for model in models:
            if model["id"] == name:
                owner = {} if method is None else {"owned_by": "thinktime"}
                await context.writer.send_json(200, {**model, "id": context.name, **owner})
                return
        raise UnknownNameError("model_name", name, [model["id"] for model in models])

    async def metrics(self, context: RequestContext) -> None:
        """Show the metrics, with the spending that the client may see."""
        await context.writer.send(200, self._gateway.metrics_for(context.client), KIND)


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
