"""Sends sampling requests to an OpenAI-compatible endpoint, and turns its answers into children."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

from thinktime.core.errors import InputError
from thinktime.core.transitions import Race
from thinktime.core.types import Child, Extension, Finish
from thinktime.core.usage import Usage
from thinktime.generators.text import RemoteText, until_stop
from thinktime.generators.thoughts import Thoughts
from thinktime.models.remote.client import (
    Client,
    OnEvent,
    RefusedError,
    RemoteError,
    Reply,
    TooLateError,
    UnreadableError,
)
from thinktime.models.remote.observers import Observer
from thinktime.models.remote.prices import Price
from thinktime.models.remote.probe import ECHO, Traits
from thinktime.models.remote.protocol import (
    Api,
    Choice,
    at_most,
    prompt_of,
    read_choices,
    read_usage,
    shares,
    unechoed,
    unlisted,
)
from thinktime.models.remote.refusals import about_length, explained
from thinktime.models.remote.streams import WITH_USAGE, Assembly, tokens_of, without_echo

TOP_LISTED: dict[Api, dict[str, Any]] = {
    "chat/completions": {"logprobs": True, "top_logprobs": 20},
    "completions": {"logprobs": 20},
}
"""Fields that request the 20 most likely tokens for each place."""
IN_FLIGHT = 2
"""Most tokens that llama.cpp on the same machine generated before it noticed that a stream was closed. An endpoint
elsewhere has no such bound."""


class OvertakenError(Exception):
    """The race ended while a stream was running. It has the partial answer, its tokens and its seconds."""

    def __init__(self, body: Mapping[str, Any], tokens: int, seconds: float) -> None:
        self.body, self.tokens, self.seconds = body, tokens, seconds


@asynccontextmanager
async def _cancelled_if(lost: Callable[[], bool], race: Race | None) -> AsyncIterator[None]:
    """Cancels the block when a child of the race arrives and ``lost`` is true.

    Raises:
        TimeoutError: the block was cancelled.
    """
    async with asyncio.timeout(None) as until:

        def check() -> None:
            if lost() and not until.expired():
                until.reschedule(0)

        watchers = race.watchers if race is not None else set()
        watchers.add(check)
        try:
            yield
        finally:
            watchers.discard(check)


@dataclass(frozen=True)
class Requests:
    """Samples from one model of an endpoint, by requests that fit its probed behaviour.

    Args:
        client: connected to the endpoint.
        api: the endpoint's call.
        model: the endpoint's name of the model.
        step: the string that ends a step.
        price: dollars per million tokens; None if unknown.
        parameters: active parameters of the model, for FLOPs; None if unknown.
        traits: the result of the probe.
        thoughts: the cap on thoughts; None without one.
        fields: further fields of every request.
        on_event: called with each event of a sample that is requested alone.
        logprobs: whether to request log-probabilities even if token counts do not need them.
        observer: called around every request.
        tries: most attempts at a request, including the first.
        upstream: the name of the endpoint in the states of samples; empty if a gateway has only one.
    """

    client: Client
    api: Api
    model: str
    step: str
    price: Price | None
    parameters: float | None
    traits: Traits
    thoughts: Thoughts | None
    fields: Mapping[str, Any] | None
    on_event: OnEvent | None
    logprobs: bool
    observer: Observer
    tries: int
    upstream: str

    def worst(self, state: RemoteText, max_tokens: int, more: int = 0) -> Usage:
        """The most that one request can cost, with ``more`` prompt tokens after the state."""
        dollars = flops = None
        priced = self.price is not None or self.parameters is not None
        if priced and _is_text(state) and self.traits.overhead is not None:
            prompt = self.most_read(state) + more
            flops = self._flops(prompt + max_tokens)
            if self.price is not None:
                dollars = self.price.most(prompt, max_tokens)
        return Usage(None, None, max_tokens, model_calls=1, flops=flops, kv_bytes=None, dollars=dollars)

    def most_read(self, state: RemoteText) -> int:
        """Upper bound of a prefix's tokens: one per byte, for a byte-level tokenizer, plus the template.

        The tools and the response format count too, because templates write them into the prompt.
        """
        fields = len(json.dumps(self.fields)) if self.fields else 0
        return len(state.prompt.encode()) + len(state.text.encode()) + fields + (self.traits.overhead or 0)

    def _flops(self, tokens: int) -> float | None:
        return None if self.parameters is None else 2 * self.parameters * tokens

    async def sample(self, wanted: Sequence[Extension]) -> dict[str, Child | InputError]:
        """Sample children of one node, by key: in one request, and further ones if it returns fewer samples.

        A child in a race has to be the only one requested, so that its stream can be closed.
        """
        first = wanted[0]
        if first.race is not None and first.race.at_once and first.race.limit is not None:
            return {first.key: Child(first.node.state, "pruned", Usage(), 0)}
        try:
            echoed = len(self._sent_prefix(first.node.state)) if self.traits.echoes else 0
            reply = await self._ask(self._body(first, len(wanted)), first, echoed)
            choices = read_choices(reply.body, self.client.url)[: len(wanted)]
            if self.traits.echoes and (prefix := self._sent_prefix(first.node.state)):
                choices = [unechoed(choice, prefix) for choice in choices]
            others = (self.fields or {}).get("stop")  # the client's stop strings, which look the same as ours
            if (
                self.traits.stops == "unlisted"
                and not others
                and len(choices) == 1
                and unlisted(choices[0], read_usage(reply.body))
            ):
                choices = [replace(choices[0], stop=self.step)]
        except OvertakenError as left:
            return {first.key: self._left(first, left)}
        except RefusedError as error:
            if error.status in (400, 422) and len(wanted) > 1 and not about_length(error) and not error.billed:
                return await self._one_by_one(wanted)
            return await self._refused(wanted, error)
        except TooLateError as error:
            over = first.deadline is not None and first.deadline.passed
            return {e.key: self._unknown(e, "budget" if over else "error", error, charged=error.billed) for e in wanted}
        except RemoteError as error:
            return {e.key: self._unknown(e, "error", error, charged=error.billed) for e in wanted}
        answered, rest = wanted[: len(choices)], wanted[len(choices) :]
        made: dict[str, Child | InputError] = {}
        for extension, child in zip(answered, self._children(answered, choices, reply), strict=True):
            made[extension.key] = child
            if extension.race is not None:
                extension.race.arrive(child)
            if extension.arrived is not None:
                extension.arrived(child)
        return made | await self._one_by_one(rest) if rest else made

    def _sent_prefix(self, state: RemoteText) -> str:
        return state.text if self.thoughts is None else self.thoughts.cap.sent(state.text)

    async def _ask(self, body: Mapping[str, Any], first: Extension, echoed: int) -> Reply:
        """Send a request, as a stream if needed, and return the whole answer.

        ``on_event`` does not get the first ``echoed`` characters, which repeat the prefix.

        Raises:
            OvertakenError: the race ended first.
        """
        whole, tokens, began, race = Assembly(), 0, time.monotonic(), first.race
        if (self.on_event is None and race is None) or "n" in body:
            with self.observer(self.api, body) as observed:
                reply = await self.client.post(  # some endpoints stream without a request for it
                    self.api,
                    body,
                    deadline=first.deadline,
                    tries=self.tries,
                    headers=observed.headers,
                    on_event=whole.take,
                )
                reply = reply if reply.body else replace(reply, body=whole.body)
                observed.reply = reply.body
            return reply

        def lost() -> bool:
            return race is not None and race.limit is not None and (race.at_once or tokens > race.limit)

        async def on_event(event: Mapping[str, Any]) -> None:
            nonlocal echoed, tokens
            event, echoed = without_echo(whole.add(event), echoed)
            if self.on_event is not None:
                await self.on_event(event)
            tokens += tokens_of(event)
            if lost():
                raise OvertakenError(whole.body, tokens, time.monotonic() - began)

        streamed = {**body, "stream": True} | (WITH_USAGE if self.traits.usage else {})
        with self.observer(self.api, body) as observed:
            try:
                async with _cancelled_if(lost, race):
                    reply = await self.client.post(
                        self.api,
                        streamed,
                        deadline=first.deadline,
                        tries=self.tries,
                        on_event=on_event,
                        headers=observed.headers,
                    )
            except TimeoutError:
                raise OvertakenError(whole.body, tokens, time.monotonic() - began) from None
            except RemoteError as error:
                if self.on_event is not None and tokens:  # a part that was passed on cannot be taken back
                    error.repeatable = False
                raise
            reply = reply if reply.body else replace(reply, body=whole.body)
            observed.reply = reply.body
        return reply

    async def _one_by_one(self, wanted: Sequence[Extension]) -> dict[str, Child | InputError]:
        made: dict[str, Child | InputError] = {}
        for some in await asyncio.gather(*(self.sample([extension]) for extension in wanted)):
            made |= some
        return made

    def _body(self, extension: Extension, n: int) -> dict[str, Any]:
        state: RemoteText = extension.node.state
        body = {"model": self.model, **prompt_of(state.prompt, self.api, self._sent_prefix(state))}
        body |= {"temperature": extension.sampling.temperature, self.traits.limit_field: extension.max_length}
        if extension.sampling.top_p != 1:
            body["top_p"] = extension.sampling.top_p
        if n > 1:
            body["n"] = n
        if self.traits.seeds:
            body["seed"] = int(extension.key[:7], 16)
        counting = n > 1 or extension.until == "step" or extension.race is not None or not self.traits.usage
        if self.traits.logprobs and (self.logprobs or counting):
            body["logprobs"] = True if self.api == "chat/completions" else 1
        body |= self.fields or {}
        if extension.confidences:
            body |= TOP_LISTED[self.api]
        if self.thoughts is not None:
            body |= self.thoughts.cap.fields(self.thoughts.most)
        # where the endpoint does not say which string stopped a step, a stop string is found when its step ends
        stops = [] if extension.until == "step" and self.traits.stops == "unlisted" else [*extension.sampling.stop]
        if extension.until == "step":
            stops.insert(0, self.step)
            if self.traits.stops == "echoed if asked":
                body |= ECHO
        if stops:
            others = body.get("stop") or []
            body["stop"] = [*stops, *([others] if isinstance(others, str) else others)]
        return body

    def _children(self, extensions: Sequence[Extension], choices: Sequence[Choice], reply: Reply) -> list[Child]:
        """The children of one reply. Generated tokens are shared among them; the first one is charged the prompt."""
        most, reported, seconds = extensions[0].max_length, read_usage(reply.body), reply.seconds / len(choices)
        if reported and (len(choices) == 1 or self.traits.counts_all):
            tokens = shares(reported.generated, choices, most)
        else:
            tokens = [at_most(choice, most) for choice in choices]
        children = []
        for index, (extension, choice, count) in enumerate(zip(extensions, choices, tokens, strict=True)):
            cached = 0 if index or reported is None else reported.cached
            prompt = 0 if index or reported is None else reported.prompt - (reported.cached or 0)
            if reported is None:
                worst = self.worst(extension.node.state, most)
                usage = replace(worst, generated_tokens=count, seconds=seconds, uncounted_calls=1)
            else:
                usage = self._counted(prompt, cached, count, seconds)
                if len(choices) > 1 and not self.traits.counts_all and choice.tokens is None:
                    usage = replace(usage, uncounted_calls=1)
            child = self._child(extension, choice, count, usage)
            if self.thoughts is not None and child.error is None:
                alone = reported if len(choices) == 1 else None
                thought = self.thoughts.count(extension.node.state, child.state, choice, alone)
                child = replace(child, state=replace(child.state, thinking=thought))
            children.append(child)
        return children

    def _counted(self, prompt: int, cached: int | None, count: int, seconds: float) -> Usage:
        flops = self._flops(prompt + count)
        money = self.price.dollars(prompt, cached or 0, count) if self.price else None
        return Usage(prompt, cached, count, model_calls=1, flops=flops, kv_bytes=None, seconds=seconds, dollars=money)

    def _left(self, extension: Extension, left: OvertakenError) -> Child:
        """Partial output of a cancelled request, charged as received and in flight.

        An endpoint on another machine may go on up to the limit, so it is charged the limit.
        """
        reported, begun = read_usage(left.body), left.body.get("choices") or [{"text": ""}]
        count = left.tokens if reported is None else reported.generated
        if reported is None:
            most = min(count + IN_FLIGHT, extension.max_length) if self.client.is_local else extension.max_length
            usage = self.worst(extension.node.state, most)
            usage = replace(usage, seconds=left.seconds, uncounted_calls=1)
        else:
            usage = self._counted(
                reported.prompt - (reported.cached or 0), reported.cached, reported.generated, left.seconds
            )
        (choice,) = read_choices({"choices": [{**begun[0], "finish_reason": "length"}]}, self.client.url)
        if self.traits.echoes and (prefix := self._sent_prefix(extension.node.state)):
            choice = unechoed(choice, prefix)
        return replace(self._child(extension, choice, count, usage), finish="pruned")

    def _child(self, extension: Extension, choice: Choice, count: int, usage: Usage) -> Child:
        before: RemoteText = extension.node.state
        try:
            kept = self._kept(choice)
        except RecursionError:
            choice = replace(choice, error="logprobs: the sample is nested too deeply")
        if choice.error is not None:
            error = UnreadableError(f"endpoint={self.client.url!r}: {choice.error}")
            error.repeatable = self.on_event is None
            return Child(before, "error", usage, count, error)
        text, finish, tokens = choice.text, self._finish(extension, choice, count), before.tokens + count
        if finish == "step" and not text.endswith(self.step):
            text += self.step  # the model generated it, and the endpoint removed it
        joined, stopped = until_stop(before.text, before.text + text, extension.sampling.stop)
        finish = "eos" if stopped else finish
        ends = tuple(match.end() for match in re.finditer(re.escape(self.step), joined))
        ends = ends if ends and ends[-1] == len(joined) else (*ends, len(joined))
        logprob = before.logprob + choice.logprob
        state = replace(before, text=joined, tokens=tokens, step_ends=ends, logprob=logprob, choice=kept)
        state = replace(state, upstream=self.upstream) if self.upstream else state
        if extension.confidences:
            state = replace(state, confidences=before.confidences + choice.confidences)
        return Child(state, finish, usage, count, length=count)

    def _kept(self, choice: Choice) -> str:
        """The raw choice as JSON, for `RemoteGenerator.sending`; log-probabilities only if the client requested them.

        It is empty for other samples.
        """
        if self.fields is None:
            return ""
        unasked = () if self.fields.get("logprobs") else ("logprobs",)
        return json.dumps({name: value for name, value in choice.whole.items() if name not in unasked})

    def _finish(self, extension: Extension, choice: Choice, count: int) -> Finish:
        """Why a sample ended. Endpoints report ``stop`` for two different reasons, and ``length`` for four."""
        if choice.reason == "stop":
            named = choice.stop is not None and choice.stop in self.step
            stopped = named if self.traits.stops in ("named", "unlisted") else choice.text.endswith(self.step)
            return "step" if extension.until == "step" and stopped else "eos"
        room = extension.sampling.max_length - extension.node.state.tokens
        if count < extension.max_length or extension.max_length >= room:
            return "length"  # the limit of the endpoint, or of the whole generation
        return "cut" if extension.max_length == extension.at_most else "budget"

    def _unknown(self, extension: Extension, finish: Finish, error: RemoteError, *, charged: bool) -> Child:
        """A failed child. If the endpoint may bill it, it is charged its worst case."""
        cost = Usage(model_calls=1)
        if charged:
            cost = replace(self.worst(extension.node.state, extension.max_length), uncounted_calls=1)
        return Child(extension.node.state, finish, cost, 0, error)

    async def _refused(self, wanted: Sequence[Extension], error: RefusedError) -> dict[str, Child | InputError]:
        before: RemoteText = wanted[0].node.state
        if error.status == 429 or error.status >= 500 or error.billed:
            return {e.key: self._unknown(e, "error", error, charged=error.billed) for e in wanted}
        if before.text and about_length(error):  # the generation has filled the context
            return {e.key: self._unknown(e, "length", error, charged=False) for e in wanted}
        mistake = await explained(error, self.client, self.model)
        if isinstance(mistake, InputError):
            return dict.fromkeys((e.key for e in wanted), mistake)
        return {e.key: self._unknown(e, "error", error, charged=error.billed) for e in wanted}


def _is_text(state: RemoteText) -> bool:
    """Whether the prompt is only text. The tokens of pictures and sounds have no known bound."""
    return not state.chat or all(isinstance(m.get("content") or "", str) for m in json.loads(state.prompt))


def failed(extension: Extension, mistake: InputError) -> Child:
    """A child that failed because its request is invalid."""
    return Child(extension.node.state, "error", Usage(model_calls=1), 0, mistake)
