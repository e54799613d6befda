"""Probes an endpoint with a few short requests, to learn which fields it honours and what it reports."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal

from thinktime.models.remote.client import Client, RefusedError, RemoteError
from thinktime.models.remote.protocol import (
    Api,
    Choice,
    ReportedUsage,
    at_most,
    prompt_of,
    read_choices,
    read_usage,
    unlisted,
)
from thinktime.models.remote.streams import WITH_USAGE, Assembly

TOKENS = 3
"""Length of each sample that is compared."""
STEP_TOKENS = 12
"""Length limit within which a model that writes one sum per line ends a line."""

END_TOKENS = 32
"""Length limit within which a model that is asked for one word ends."""

Stops = Literal["named", "echoed", "echoed if asked", "unlisted"]
Thinks = Literal["marked", "apart", "hidden"]
THINK = "<think>"
WORD_PROMPT, STEPS_PROMPT = "Say any word that comes to mind.", "Add 1 to each number up to 9, one sum a line."
ONE_TOKEN = "4"
ECHO = {"include_stop_str_in_output": True}
"""Field that asks an engine to leave the stop string in the text."""


@dataclass(frozen=True)
class Traits:
    """The observed behaviour of an endpoint. What the probe does not observe counts as missing."""

    n: bool
    """Whether one request returns several different samples, and their tokens are known: all are counted or listed."""
    logprobs: bool
    seeds: bool
    """Whether equal seeds return equal samples, and different seeds different ones."""
    continues: bool
    """Whether the endpoint continues a given beginning of the answer."""
    echoes: bool
    """Whether such a continuation repeats the beginning, as llama.cpp does."""
    stops: Stops | None
    """How the endpoint distinguishes a stop string from the end of the answer. It names the string, leaves it in the
    text, leaves it there if asked, or counts it without a log-probability (llama.cpp). None: it does not."""
    streams: bool
    """Whether the endpoint streams a sample as events."""
    usage: bool
    counts_all: bool
    """Whether the usage counts all samples of a request; llama.cpp counts one."""
    limit_field: str
    """The name of the length limit."""
    overhead: int | None
    """Upper bound of the tokens that the chat template adds to a message; None without usage."""
    thinks: Thinks | None
    """Where the endpoint returns thoughts: in the text after ``<think>``, in a field apart, or hidden but counted.
    None: the probe saw no thoughts, for example because the template itself begins them."""
    spent: ReportedUsage
    """The cost of the probe, see `Prober.spent`."""


async def probe(prober: Prober, step: str) -> Traits:
    """Probe an endpoint with at most nine requests of a few tokens each.

    Args:
        prober: sends the requests.
        step: the string that ends a step.

    Raises:
        RemoteError: the endpoint cannot be reached, or refuses the simplest request.
    """
    optional: dict[str, Any] = {"n": 2, "seed": 1, "logprobs": True if prober.api == "chat/completions" else 1}
    limit_field, choices = await prober.sample_plainly(optional)
    generated = prober.last.generated if prober.last else 0
    counts_all = len(choices) > 1 and generated > TOKENS  # one sample has at most these
    listed = "logprobs" in optional and all(choice.tokens for choice in choices)
    texts = [[choice.thoughts + choice.text for choice in choices]]
    if "seed" in optional:
        for seed in (1, 2):
            again = await prober.sample({limit_field: TOKENS, **optional, "seed": seed})
            texts.append([choice.thoughts + choice.text for choice in again])
    seeds = len(texts) == 3 and texts[0] == texts[1] != texts[2]
    overhead = prober.last.prompt if prober.last else None
    streams = await prober.stream({limit_field: TOKENS} | (WITH_USAGE if overhead is not None else {}))
    continues, echoes, stops = await _steps(prober, limit_field, step, overhead, optional)
    return Traits(
        n=len(choices) > 1 and (counts_all or listed or not prober.last) and not (seeds and len(set(texts[0])) == 1),
        logprobs=listed,
        seeds=seeds,
        continues=continues,
        echoes=echoes,
        stops=stops,
        streams=streams,
        usage=overhead is not None,
        counts_all=counts_all,
        limit_field=limit_field,
        overhead=overhead,
        thinks=_thinks(choices[0]),
        spent=prober.spent,
    )


async def obeys_limit(prober: Prober, name: str, traits: Traits) -> bool:
    """Whether the endpoint obeys or refuses the length limit ``name``; some endpoints ignore unknown limits.

    Args:
        prober: sends one request.
        name: a field that limits the length of a sample.
        traits: the result of the first probe.

    Raises:
        RemoteError: the endpoint does not answer.
    """
    if name == traits.limit_field:
        return True
    try:
        (choice, *_) = await prober.sample({traits.limit_field: TOKENS, name: 1}, question=STEPS_PROMPT)
    except RefusedError as error:
        if error.status in (400, 422):
            return True  # it refuses the field, or two limits at once
        raise
    return choice.reason == "length" and prober.last is not None and prober.last.generated == 1


def _thinks(choice: Choice) -> Thinks | None:
    if choice.thoughts:
        return "apart"
    if choice.text.lstrip().startswith(THINK):
        return "marked"
    return "hidden" if choice.reason == "length" and not choice.text else None


async def _steps(
    prober: Prober, limit_field: str, step: str, overhead: int | None, optional: Mapping[str, Any]
) -> tuple[bool, bool, Stops | None]:
    """The traits ``continues``, ``echoes`` and ``stops``."""
    prefix = step.join(["1 + 1 = 2.", "1 + 2 = 3.", "1 + 3 ="])
    plain = {limit_field: STEP_TOKENS, "temperature": 0} | {n: optional[n] for n in ("logprobs",) if n in optional}
    options: dict[str, Any] = {**plain, "stop": [step]}
    try:
        choice = (await prober.sample(options, prefix))[0]
    except RemoteError:
        return False, False, None
    read, stops, echoes = prober.last, _stop_kind(choice, step), choice.text.startswith(prefix)
    if choice.reason == "stop" and stops is None:
        with suppress(RemoteError):
            with_echo = (await prober.sample(options | ECHO, prefix))[0]
            stops = "echoed if asked" if _stop_kind(with_echo, step) else None
    if stops is None and unlisted(choice, read):
        with suppress(RemoteError):
            end = (await prober.sample({**plain, limit_field: END_TOKENS}))[0]
            stops = "unlisted" if end.reason == "stop" and prober.last and end.tokens == prober.last.generated else None
    if prober.api == "completions":
        return True, echoes, stops
    answer = {"continue_final_message": False, "add_generation_prompt": True}
    try:  # the prompt of a new message is longer than that of a continuation
        await prober.sample({limit_field: 1, "temperature": 0, **answer}, prefix)
        if read is not None and prober.last is not None and read.prompt < prober.last.prompt:
            return True, echoes, stops
        # an endpoint that always continues reads a message of one token as one token more than none
        await prober.sample({limit_field: 1, "temperature": 0}, ONE_TOKEN, question=WORD_PROMPT)
    except RemoteError:
        return False, echoes, None
    return overhead is not None and prober.last is not None and prober.last.prompt == overhead + 1, echoes, stops


def _stop_kind(choice: Choice, step: str) -> Stops | None:
    if choice.reason == "stop" and choice.stop is not None and choice.stop in step:
        return "named"
    return "echoed" if choice.reason == "stop" and choice.text.endswith(step) else None


class Prober:
    """Sends the requests of a probe and adds up their cost."""

    def __init__(self, client: Client, api: Api, model: str) -> None:
        self.api = api
        self.spent = ReportedUsage(0, 0)
        """The cost so far: the reported tokens, or the listed ones if these are more; else the upper bound."""
        self.calls = 0
        """Number of samples requested so far, without refused requests."""
        self.last: ReportedUsage | None = None
        """The usage that the last reply reports."""
        self._client, self._model = client, model

    async def sample_plainly(self, optional: dict[str, Any]) -> tuple[str, list[Choice]]:
        """The first samples, with those of the ``optional`` fields that the endpoint accepts; others are removed."""
        limit_field = "max_tokens"
        while True:
            try:
                return limit_field, await self.sample({limit_field: TOKENS, **optional}, tries=2)
            except RefusedError as error:
                if error.status not in (400, 422):
                    raise
                if "max_completion_tokens" in error.message and limit_field == "max_tokens":
                    limit_field = "max_completion_tokens"
                elif optional:
                    named = [name for name in optional if len(name) > 1 and name in error.message]
                    del optional[(named or list(optional))[0]]
                else:
                    raise

    async def sample(
        self, options: Mapping[str, Any], prefix: str = "", *, question: str | None = None, tries: int = 5
    ) -> list[Choice]:
        """Samples for a fixed prompt, continued from ``prefix``."""
        received, _ = await self._post(options, question or (STEPS_PROMPT if prefix else WORD_PROMPT), prefix, tries)
        self.last = read_usage(received)
        return read_choices(received, self._client.url)

    async def stream(self, options: Mapping[str, Any]) -> bool:
        """Whether the endpoint returns a stream of events when asked to."""
        try:
            received, streamed = await self._post({**options, "stream": True}, WORD_PROMPT, "", tries=2)
        except RemoteError:
            return False
        return streamed and bool(received["choices"])

    async def _post(
        self, options: Mapping[str, Any], question: str, prefix: str, tries: int
    ) -> tuple[Mapping[str, Any], bool]:
        """The reply to a request, and whether it was a stream."""
        messages = json.dumps([{"role": "user", "content": question}])
        prompt = messages if self.api == "chat/completions" else f"{question}\n"
        body = {"model": self._model, **prompt_of(prompt, self.api, prefix), **options}
        whole = Assembly()
        try:
            reply = await self._client.post(self.api, body, tries=tries, on_event=whole.take)
        except RemoteError as error:
            if error.billed:
                self._charge(body, {})
            raise
        received = reply.body or whole.body
        self._charge(body, received)
        return received, not reply.body

    def _charge(self, sent: Mapping[str, Any], received: Mapping[str, Any]) -> None:
        samples, limit = sent.get("n", 1), max(sent.get(name, 0) for name in ("max_tokens", "max_completion_tokens"))
        reported = read_usage(received)
        try:
            choices = read_choices(received, self._client.url)
        except RemoteError:
            choices = []
        if reported is None:
            prompt, generated = len(json.dumps(sent)), samples * limit
        else:
            prompt, generated = reported.prompt, reported.generated
            listed = [choice.tokens or 0 for choice in choices]
            if len(choices) > 1 and generated <= limit:  # the usage may count one of them
                listed = [at_most(choice, limit) for choice in choices]
            generated = max(generated, sum(listed))
        self.spent = ReportedUsage(self.spent.prompt + prompt, self.spent.generated + generated)
        self.calls += samples
