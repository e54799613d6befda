"""Text from an OpenAI-compatible endpoint: vLLM, SGLang, llama.cpp, Ollama, transformers serve, OpenAI."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from dataclasses import replace
from functools import partial
from threading import Event, Lock
from typing import Any, TypeVar

from thinktime.core.errors import InputError, ModelError
from thinktime.core.types import Capability, Child, Extension, Finish, Node, Problem
from thinktime.core.usage import Usage
from thinktime.generators.text import RemoteText, messages_of, pack_remote, unpack_remote
from thinktime.remote.client import (
    PATIENCE,
    Client,
    Heard,
    RefusedError,
    RemoteError,
    Reply,
    TooLateError,
    UnreadableError,
)
from thinktime.remote.looks import Looks
from thinktime.remote.prices import Price, listed
from thinktime.remote.probe import ECHO, THINK, Traits, probe
from thinktime.remote.protocol import (
    Choice,
    Told,
    prompt_of,
    read_choices,
    read_usage,
    root_and_api,
    shares,
    unechoed,
    unlisted,
)
from thinktime.remote.refusals import about_length, explained
from thinktime.remote.sizes import multiplied
from thinktime.remote.streams import Assembly, without_echo
from thinktime.remote.thoughts import CLOSING, Cap, thinking, thinks_again, thought_tokens
from thinktime.remote.thoughts import look as look_at_thoughts
from thinktime.remote.watching import Watch, unwatched

MOST_AT_ONCE = 64
"""Samples of one request."""
SUSPICIOUS = 3
"""So many samples of one node that are all the same are reported."""

Seen = TypeVar("Seen")
_log = logging.getLogger("thinktime")


class RemoteGenerator:
    """Samples from a model behind HTTP.

    What the endpoint can do is looked at once, when it is first needed (`traits`), for a few tokens.

    Args:
        base_url: the root of the API, as ``http://127.0.0.1:8000/v1``. It is asked to chat; with ``/completions`` at
            its end, to complete a text, without a chat template.
        model: its name there.
        api_key: sent as a bearer token; it is in no message, name or bank.
        step: what ends a step.
        price: dollars per million tokens, in place of the listed ones.
        parameters: that a token is multiplied with, in place of the listed ones; FLOPs are twice that a token.
        connections: requests at once; what is beyond waits.
        timeout: seconds for one sample.
        looks: where what was seen of endpoints is kept; a look that is there is not taken again.
        patience: seconds that a refused request waits for another try.
        thinking_tokens: the most that a sample may think; None is no cap. How it is kept is looked at once (`cap`).
        watch: goes around every request for samples.

    Raises:
        InputError: the URL or the name cannot be one, or the cap is below 0.
    """

    def __init__(
        self,
        base_url: str,
        model: str,
        api_key: str | None = None,
        *,
        step: str = "\n",
        price: Price | None = None,
        parameters: float | None = None,
        connections: int = 256,
        timeout: float = 600.0,
        looks: Looks | None = None,
        patience: float = PATIENCE,
        thinking_tokens: int | None = None,
        watch: Watch = unwatched,
    ) -> None:
        if not model:
            raise InputError("model", model, "name a model of the endpoint")
        root, self._api = root_and_api(base_url)
        self.name = f"{model}@{root}/{self._api}"
        self._root, self._model, self._api_key, self._step = root, model, api_key, step
        self._client = Client(root, api_key, connections=connections, timeout=timeout, patience=patience)
        self._price = price or listed(root, model)
        self._parameters = parameters or multiplied(model)
        self.look_name = f"{self.name} {step!r}"
        """What its look is kept under."""
        self._looks = looks
        self._traits: Traits | None = None
        self._looking = Lock()
        self._reported = Event()
        self._fields: Mapping[str, Any] | None = None
        self._heard: Heard | None = None
        self._watch = watch
        self._cap: Cap | None = None
        self._thinking: int | None = None
        self._limit_thoughts(thinking_tokens)
        self._logprobs = True

    @property
    def traits(self) -> Traits:
        """What the endpoint does; the first look blocks the caller.

        Raises:
            InputError: it does not take the key, or has no such model.
            ModelError: it cannot be reached, or makes no sense.
        """
        with self._looking:
            if self._traits is None and self._looks is not None:
                self._traits = self._looks.find(self.look_name, Traits)
            traits = self._traits
            if traits is None:
                with ThreadPoolExecutor(1) as pool:  # the caller may be in an event loop already
                    traits = self._traits = pool.submit(asyncio.run, self._look()).result()
                if self._looks is not None:
                    self._looks.keep(self.look_name, traits)
            return traits

    @property
    def cap(self) -> Cap:
        """How the thoughts of the model can be capped; the first look, of up to nine short requests, blocks the caller.

        Raises:
            InputError, ModelError: as `traits`.
        """
        traits = self.traits
        with self._looking:
            if self._cap is None and self._looks is not None:
                self._cap = self._looks.find(self.look_name, Cap)
            cap = self._cap
            if cap is None:
                with ThreadPoolExecutor(1) as pool:
                    look = partial(look_at_thoughts, api=self._api, model=self._model, traits=traits)
                    cap = self._cap = pool.submit(asyncio.run, self._look_with(look)).result()
                if self._looks is not None:
                    self._looks.keep(self.look_name, cap)
            return cap

    @property
    def capabilities(self) -> frozenset[Capability]:
        """What the endpoint was seen to do."""
        traits = self.traits
        offered = {Capability.PREFIX: traits.continues, Capability.LOGPROBS: traits.logprobs, Capability.NOISE: True}
        offered[Capability.STEPS] = traits.continues and traits.stops is not None
        return frozenset(capability for capability, seen in offered.items() if seen)

    async def look(self) -> Traits:
        """`traits` for whoever may not block; asked for once, they are there for everybody."""
        traits = self._traits
        return await asyncio.to_thread(lambda: self.traits) if traits is None else traits

    async def look_at_thoughts(self) -> Cap:
        """`cap` for whoever may not block."""
        cap = self._cap
        return await asyncio.to_thread(lambda: self.cap) if cap is None else cap

    def sending(
        self,
        fields: Mapping[str, Any],
        heard: Heard | None = None,
        thinking_tokens: int | None = None,
        *,
        logprobs: bool = True,
    ) -> RemoteGenerator:
        """This generator, on the same connections, for one request with fields of its own.

        Its samples keep all that the endpoint told of them (`RemoteText.choice`).

        Args:
            fields: sent with every sample as they are: tools, penalties, a response format.
            heard: samples asked for one by one are streamed, and this is told every event.
            thinking_tokens: the most that a sample may think.
            logprobs: whether log-probabilities are asked for where only a strategy may want them. Those that count
                tokens nobody else counts are asked for all the same.
        """
        one = copy(self)
        one._fields, one._heard, one._logprobs = fields, heard, logprobs
        one._limit_thoughts(thinking_tokens)
        return one

    def _limit_thoughts(self, tokens: int | None) -> None:
        if tokens is None:
            return
        if tokens < 0:
            raise InputError("thinking_tokens", tokens, "give 0 or more")
        self._thinking = tokens
        self.name += f" thinking_tokens={tokens}"

    async def close(self) -> None:
        """Close all connections; the next sample opens new ones."""
        await self._client.close()

    def root(self, problem: Problem, asked: Any = None, known: Sequence[Any] = ()) -> RemoteText:
        """The prompt: a text (for a chat, one user turn), or the messages of a chat.

        Raises:
            InputError: it is empty, or not what this call of the endpoint takes.
        """
        prompt = problem.prompt
        if not prompt:
            raise InputError("prompt", prompt, "ask something")
        if self._thinking is not None and self.cap.by is None:
            fix = "leave it out, or serve the model so that its thoughts are in the text, where they can be closed"
            raise InputError("thinking_tokens", self._thinking, f"no way to cap the thoughts of {self._model}; {fix}")
        if self._api == "chat/completions":
            return RemoteText(json.dumps(messages_of(prompt)), chat=True, question=asked.prompt if asked else "")
        if not isinstance(prompt, str):
            raise InputError(
                "prompt", "messages", f"{self._api} takes a text; leave {self._api} out of the URL to chat"
            )
        return RemoteText(prompt)

    def length(self, state: RemoteText) -> int:
        """Tokens generated so far."""
        return state.tokens

    def worst_case(self, node: Node, max_tokens: int) -> Usage:
        """All tokens used, and what `most_read` says; where a thought is closed, prompt and thought are read again."""
        worst = self._worst(node.state, max_tokens)
        if self._first_limit(node.state, max_tokens) == max_tokens:
            return worst
        return worst + replace(self._worst(node.state, 0, max_tokens + len(CLOSING)), model_calls=0)

    def _worst(self, state: RemoteText, max_tokens: int, more: int = 0) -> Usage:
        """The most that one request can cost; ``more`` tokens are read behind the state."""
        dollars = flops = None
        priced = self._price is not None or self._parameters is not None
        if priced and _is_text(state) and self.traits.overhead is not None:
            prompt = self.most_read(state) + more
            flops = self._flops(prompt + max_tokens)
            if self._price is not None:
                dollars = max(self._price.dollars(p, prompt - p, max_tokens) for p in (0, prompt))
        return Usage(None, None, max_tokens, model_calls=1, flops=flops, kv_bytes=None, dollars=dollars)

    def most_read(self, state: RemoteText) -> int:
        """The most tokens a prefix can be: one a byte, as of any byte-level tokenizer, and its template."""
        return len(state.prompt.encode()) + len(state.text.encode()) + (self.traits.overhead or 0)

    def _flops(self, tokens: int) -> float | None:
        return None if self._parameters is None else 2 * self._parameters * tokens

    async def extend(self, extensions: Sequence[Extension]) -> list[Child]:
        """Sample one child per extension. One that fails is an ``error`` that says why; the others are not lost.

        Raises:
            InputError: none came, for a reason that lies with what was asked.
        """
        traits = await self.look()
        groups: dict[object, list[Extension]] = defaultdict(list)
        for place, e in enumerate(extensions):
            same = (e.node.key, e.until, e.sampling, e.max_tokens, e.at_most, e.deadline)
            alone = e.until == "step" and traits.stops == "unlisted"  # of several, nobody tells whose tokens are whose
            groups[same if traits.n and not alone else place].append(e)
        requests = [
            group[at : at + MOST_AT_ONCE] for group in groups.values() for at in range(0, len(group), MOST_AT_ONCE)
        ]
        made: dict[str, Child | InputError] = {}
        for some in await asyncio.gather(*(self._within_cap(request, traits) for request in requests)):
            made |= some
        children = [made[extension.key] for extension in extensions]
        mistakes = [child for child in children if isinstance(child, InputError)]
        if mistakes and len(mistakes) == len(children):
            raise mistakes[0]
        failed = [_failed(e, c) if isinstance(c, InputError) else c for e, c in zip(extensions, children, strict=True)]
        self._report_identical(extensions, failed)
        return failed

    def cut(self, extension: Extension, child: Child, tokens: int) -> Child:
        """Refuse: nobody tells where the tokens of a text end.

        Raises:
            ModelError: always; `Capability.CANCEL` is not offered.
        """
        raise ModelError(
            f"model={self._model!r}: samples of an endpoint cannot be cut; choose a strategy without a race"
        )

    def pack(self, node_state: RemoteText, state: RemoteText) -> dict[str, Any]:
        """See `thinktime.generators.text.pack_remote`."""
        return pack_remote(node_state, state)

    def unpack(self, node_state: RemoteText, packed: Mapping[str, Any]) -> RemoteText:
        """The state that `pack` described."""
        return unpack_remote(node_state, packed)

    async def _look_with(self, look: Callable[[Client], Awaitable[Seen]]) -> Seen:
        """Look at the endpoint, through connections of its own: the samples may be another event loop's."""
        client = Client(self._root, self._api_key, timeout=60.0)
        try:
            return await look(client)
        except RefusedError as error:
            raise await explained(error, client, self._model) from None
        finally:
            await client.close()

    async def _look(self) -> Traits:
        traits = await self._look_with(partial(probe, api=self._api, model=self._model, step=self._step))
        if not traits.usage:
            _log.warning(
                f"endpoint={self._root!r}: it reports no usage; every sample is charged the most it can have cost"
            )
        return traits

    def _begun(self, state: RemoteText) -> bool:
        """Whether the prompt begins the thought."""
        if self._api == "completions":
            return state.prompt.rstrip().endswith(THINK)
        return self._cap is not None and self._cap.begun

    def _first_limit(self, state: RemoteText, max_tokens: int) -> int:
        """Tokens after which a sample has to be looked at, to see whether it still thinks."""
        if self._thinking is None or self.cap.by != "continuation":
            return max_tokens
        if state.text and not thinking(state.text, begun=self._begun(state)):
            return max_tokens
        return max(0, min(max_tokens, self._thinking - state.tokens))

    async def _within_cap(self, wanted: Sequence[Extension], traits: Traits) -> dict[str, Child | InputError]:
        """Children of one node. Those that still think at the cap have their thought closed, and go on behind it."""
        first = wanted[0]
        limit = self._first_limit(first.node.state, first.max_tokens)
        if limit == first.max_tokens:
            return await self._sample(wanted, traits)
        made: dict[str, Child | InputError] = {e.key: Child(e.node.state, "cut", Usage(), 0) for e in wanted}
        if limit:
            made = await self._sample([replace(e, max_tokens=limit, arrived=None) for e in wanted], traits)
        closed = await asyncio.gather(*(self._rest(e, made[e.key], traits) for e in wanted))
        return dict(zip((e.key for e in wanted), closed, strict=True))

    async def _rest(self, extension: Extension, child: Child | InputError, traits: Traits) -> Child | InputError:
        """What follows the tokens that a sample may think in; a sample that ended in them is whole."""
        if not isinstance(child, InputError) and child.error is None and child.finish in ("length", "cut", "budget"):
            state = await self._closed(child.state)
            left = extension.max_tokens - child.usage.generated_tokens
            node = replace(extension.node, state=state)
            after = await self._sample([replace(extension, node=node, max_tokens=left, arrived=None)], traits)
            made = after[extension.key]
            made = _failed(extension, made) if isinstance(made, InputError) else made
            cost = made.usage
            if cost.uncounted_calls:
                reread = child.usage.generated_tokens + len(CLOSING)
                worst = self._worst(extension.node.state, cost.generated_tokens, reread)
                cost = replace(cost, dollars=worst.dollars, flops=worst.flops)
            usage = replace(child.usage + cost, model_calls=1)
            whole = replace(made.state, choice=_joined(child.state.choice, made.state.choice))
            whole = extension.node.state if made.finish == "error" else whole
            child = replace(made, state=whole, usage=usage, passes=child.passes + made.passes)
        if extension.arrived is not None and not isinstance(child, InputError):
            extension.arrived(child)
        return child

    async def _closed(self, state: RemoteText) -> RemoteText:
        """A sample at the end of what it may think: its thought ends here, if it has not ended before."""
        begun = self._begun(state)
        if state.text and not thinking(state.text, begun=begun):
            return state
        ending = CLOSING if state.text or begun else f"{THINK}\n{CLOSING}"
        if self._heard is not None:
            part = {"delta": {"content": ending}} if state.chat else {"text": ending}
            await self._heard({"choices": [{"index": 0, **part}]})
        return replace(state, text=state.text + ending, thinking=state.tokens)

    async def _sample(self, wanted: Sequence[Extension], traits: Traits) -> dict[str, Child | InputError]:
        """One request for several children of one node, and more where fewer came; by key."""
        first = wanted[0]
        try:
            echoed = len(self._said(first.node.state)) if traits.echoes else 0
            reply = await self._ask(self._body(first, len(wanted), traits), first.deadline, traits, echoed)
            choices = read_choices(reply.body, self._root)[: len(wanted)]
            if traits.echoes and (said := self._said(first.node.state)):
                choices = [unechoed(choice, said) for choice in choices]
            others = (self._fields or {}).get("stop")  # nobody tells them from ours
            if (
                traits.stops == "unlisted"
                and not others
                and len(choices) == 1
                and unlisted(choices[0], read_usage(reply.body))
            ):
                choices = [replace(choices[0], stop=self._step)]
        except RefusedError as error:
            if error.status in (400, 422) and len(wanted) > 1 and not about_length(error):
                return await self._one_by_one(wanted, traits)
            return await self._refused(wanted, error)
        except TooLateError as error:
            over = first.deadline is not None and time.monotonic() >= first.deadline
            return {e.key: self._unknown(e, "budget" if over else "error", error, charged=error.billed) for e in wanted}
        except RemoteError as error:
            return {e.key: self._unknown(e, "error", error, charged=error.billed) for e in wanted}
        answered, rest = wanted[: len(choices)], wanted[len(choices) :]
        made = dict(zip((e.key for e in answered), self._children(answered, choices, reply, traits), strict=True))
        for extension in answered:
            if extension.arrived is not None:
                extension.arrived(made[extension.key])
        return made | await self._one_by_one(rest, traits)

    def _said(self, state: RemoteText) -> str:
        return state.text if self._thinking is None else self.cap.sent(state.text)

    async def _ask(self, body: Mapping[str, Any], deadline: float | None, traits: Traits, echoed: int) -> Reply:
        """The answer in one piece, however it comes; its first ``echoed`` characters are not told to who listens."""
        if self._heard is None or "n" in body:
            with self._watch(self._api, body) as watched:
                reply = await self._client.post(self._api, body, deadline=deadline, headers=watched.headers)
                watched.reply = reply.body
            return reply
        whole, tell = Assembly(), self._heard

        async def heard(event: Mapping[str, Any]) -> None:
            nonlocal echoed
            whole.add(event)
            event, echoed = without_echo(event, echoed)
            await tell(event)

        streamed = {**body, "stream": True} | ({"stream_options": {"include_usage": True}} if traits.usage else {})
        with self._watch(self._api, body) as watched:
            reply = await self._client.post(
                self._api, streamed, deadline=deadline, heard=heard, headers=watched.headers
            )
            reply = reply if reply.body else replace(reply, body=whole.body)
            watched.reply = reply.body
        return reply

    async def _one_by_one(self, wanted: Sequence[Extension], traits: Traits) -> dict[str, Child | InputError]:
        made: dict[str, Child | InputError] = {}
        for some in await asyncio.gather(*(self._sample([extension], traits) for extension in wanted)):
            made |= some
        return made

    def _body(self, extension: Extension, n: int, traits: Traits) -> dict[str, Any]:
        state: RemoteText = extension.node.state
        body = {"model": self._model, **prompt_of(state.prompt, self._api, self._said(state))}
        body |= {"temperature": extension.sampling.temperature, traits.limit_field: extension.max_tokens}
        if extension.sampling.top_p != 1:
            body["top_p"] = extension.sampling.top_p
        if n > 1:
            body["n"] = n
        if traits.seeds:
            body["seed"] = int(extension.key[:7], 16)
        counting = n > 1 or extension.until == "step" or not traits.usage
        if traits.logprobs and (self._logprobs or counting):
            body["logprobs"] = True if self._api == "chat/completions" else 1
        body |= self._fields or {}
        if self._thinking is not None:
            body |= self.cap.fields(self._thinking)
        if extension.until == "step":
            others = body.get("stop") or []
            body["stop"] = [self._step, *([others] if isinstance(others, str) else others)]
            if traits.stops == "echoed if asked":
                body |= ECHO
        return body

    def _children(
        self, extensions: Sequence[Extension], choices: Sequence[Choice], reply: Reply, traits: Traits
    ) -> list[Child]:
        """The children of one reply; what it cost is shared among them, the prompt is the first one's."""
        most, told, seconds = extensions[0].max_tokens, read_usage(reply.body), reply.seconds / len(choices)
        tokens = shares(told.generated, choices, most) if told else [_at_most(choice, most) for choice in choices]
        children = []
        for place, (extension, choice, count) in enumerate(zip(extensions, choices, tokens, strict=True)):
            cached = 0 if place or told is None else told.cached
            prompt = 0 if place or told is None else told.prompt - (told.cached or 0)
            if told is None:
                worst = self._worst(extension.node.state, most)
                usage = replace(worst, generated_tokens=count, seconds=seconds, uncounted_calls=1)
            else:
                flops = self._flops(prompt + count)
                money = self._price.dollars(prompt, cached or 0, count) if self._price else None
                usage = Usage(
                    prompt, cached, count, model_calls=1, flops=flops, kv_bytes=None, seconds=seconds, dollars=money
                )
            child = self._child(extension, choice, count, usage, traits)
            if self._thinking is not None and child.error is None:
                thought = self._thought(extension.node.state, child.state, choice, told if len(choices) == 1 else None)
                child = replace(child, state=replace(child.state, thinking=thought))
            children.append(child)
        return children

    def _child(self, extension: Extension, choice: Choice, count: int, usage: Usage, traits: Traits) -> Child:
        before: RemoteText = extension.node.state
        if choice.error is not None:
            return Child(before, "error", usage, count, UnreadableError(f"endpoint={self._root!r}: {choice.error}"))
        text, finish, tokens = choice.text, self._finish(extension, choice, count, traits), before.tokens + count
        if finish == "step" and not text.endswith(self._step):
            text += self._step  # it was generated, and taken off
        said = before.text + text
        ends = tuple(match.end() for match in re.finditer(re.escape(self._step), said))
        ends = ends if ends and ends[-1] == len(said) else (*ends, len(said))
        logprob, kept = before.logprob + choice.logprob, self._kept(choice)
        state = replace(before, text=said, tokens=tokens, step_ends=ends, logprob=logprob, choice=kept)
        return Child(state, finish, usage, count)

    def _thought(self, before: RemoteText, state: RemoteText, choice: Choice, told: Told | None) -> int | None:
        """At most how many tokens of a sample are thoughts; None where nobody counted more than may be."""
        if thinks_again(state.text):
            return state.tokens  # it thought again, behind the end of its thought
        if before.text and not thinking(before.text, begun=self._begun(before)):
            return before.thinking
        begun, hidden = bool(before.text) or self._begun(before), self.traits.thinks == "hidden"
        new = state.tokens - before.tokens
        found = thought_tokens(choice, new, told, begun=begun, hidden=hidden)
        new = new if found is None else found
        exact = found is not None or before.tokens + new <= (self._thinking or 0)
        return before.tokens + new if exact else None

    def _kept(self, choice: Choice) -> str:
        """All that was told of a sample of `sending`, but for log-probabilities that its request did not ask for."""
        if self._fields is None:
            return ""
        unasked = () if self._fields.get("logprobs") else ("logprobs",)
        return json.dumps({name: value for name, value in choice.whole.items() if name not in unasked})

    def _finish(self, extension: Extension, choice: Choice, count: int, traits: Traits) -> Finish:
        """Why it ended: an endpoint says ``stop`` for two things and ``length`` for four."""
        if choice.reason == "stop":
            named = choice.stop is not None and choice.stop in self._step
            stopped = named if traits.stops in ("named", "unlisted") else choice.text.endswith(self._step)
            return "step" if extension.until == "step" and stopped else "eos"
        room = extension.sampling.max_tokens - extension.node.state.tokens
        if count < extension.max_tokens or extension.max_tokens >= room:
            return "length"  # the endpoint's own limit, or that of the generation
        return "cut" if extension.max_tokens == extension.at_most else "budget"

    def _unknown(self, extension: Extension, finish: Finish, error: RemoteError, *, charged: bool) -> Child:
        """A child that did not come. If it may have been paid for, it is charged the most it can have cost."""
        cost = Usage(model_calls=1)
        if charged:
            cost = replace(self._worst(extension.node.state, extension.max_tokens), uncounted_calls=1)
        return Child(extension.node.state, finish, cost, 0, error)

    async def _refused(self, wanted: Sequence[Extension], error: RefusedError) -> dict[str, Child | InputError]:
        before: RemoteText = wanted[0].node.state
        if error.status == 429 or error.status >= 500:
            return {e.key: self._unknown(e, "error", error, charged=error.billed) for e in wanted}
        if before.text and about_length(error):  # it began, and has grown as long as can be
            return {e.key: self._unknown(e, "length", error, charged=False) for e in wanted}
        mistake = await explained(error, self._client, self._model)
        if isinstance(mistake, InputError):
            return dict.fromkeys((e.key for e in wanted), mistake)
        return {e.key: self._unknown(e, "error", error, charged=error.billed) for e in wanted}

    def _report_identical(self, extensions: Sequence[Extension], children: Sequence[Child]) -> None:
        """Say once that samples that should differ do not."""
        texts: dict[str, list[str]] = defaultdict(list)
        for extension, child in zip(extensions, children, strict=True):
            if extension.sampling.temperature > 0 and child.finish != "error":
                texts[extension.node.key].append(child.state.text)
        same = max((len(found) for found in texts.values() if len(set(found)) == 1), default=0)
        if same >= SUSPICIOUS and not self._reported.is_set():
            self._reported.set()
            warmth = extensions[0].sampling.temperature
            _log.warning(
                f"endpoint={self._root!r}: {same} samples at temperature {warmth:g} are all the same text; "
                "if answers should differ, see whether it caches them or fixes the seed"
            )


def _is_text(state: RemoteText) -> bool:
    """Whether no part of the prompt is a picture or a sound, of which nobody can say how many tokens it is."""
    return not state.chat or all(isinstance(m.get("content") or "", str) for m in json.loads(state.prompt))


def _joined(first: str, second: str) -> str:
    """A sample of two parts as the endpoint would tell it: the log-probabilities of both, all else of the second."""
    parts = [json.loads(part) if part else {} for part in (first, second)]
    listed, more = ((part.get("logprobs") or {}).get("content") for part in parts)
    if listed and more:
        parts[1]["logprobs"]["content"] = listed + more
    return json.dumps(parts[1]) if second else second


def _failed(extension: Extension, mistake: InputError) -> Child:
    return Child(extension.node.state, "error", Usage(model_calls=1), 0, mistake)


def _at_most(choice: Choice, most: int) -> int:
    """Tokens of a sample nobody counted: those with a log-probability and an end token, or as many as can be."""
    return most if choice.tokens is None else min(most, choice.tokens + 1)
