"""Text from an OpenAI-compatible endpoint: vLLM, SGLang, llama.cpp, Ollama, transformers serve, OpenAI."""

from __future__ import annotations

import asyncio
import json
import logging
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from dataclasses import replace
from functools import partial
from itertools import accumulate
from threading import Event, Lock
from typing import Any, Literal, TypeVar

from thinktime.core.errors import CapabilityError, InputError
from thinktime.core.types import Capability, Child, Extension, Node, Problem
from thinktime.core.usage import Usage
from thinktime.generators.capped import sampled, worst_behind
from thinktime.generators.requests import Requests, failed
from thinktime.generators.text import (
    RemoteText,
    Text,
    messages_of,
    pack_remote,
    steps_of,
    unpack_remote,
    with_context,
)
from thinktime.generators.thoughts import Thoughts
from thinktime.models.remote.client import PATIENCE, TRIES, Client, OnEvent, RefusedError
from thinktime.models.remote.observers import Observer, unobserved
from thinktime.models.remote.prices import Price, listed
from thinktime.models.remote.probe import Prober, Traits, obeys_limit, probe
from thinktime.models.remote.probe_cache import ProbeCache
from thinktime.models.remote.protocol import root_and_api
from thinktime.models.remote.refusals import explained
from thinktime.models.remote.sizes import active_parameters
from thinktime.models.remote.thoughts import Cap, probe_cap

MOST_AT_ONCE = 64
"""Most samples of one request."""
SUSPICIOUS = 3
"""Number of identical samples of one node that triggers a warning."""

COMPLETION_LIMIT = "max_completion_tokens"
"""The length limit of chats that some endpoints ignore."""
ProbeKind = Literal["traits", "cap", "obeys"]
"""The traits, how thoughts can be capped, and whether the endpoint obeys `COMPLETION_LIMIT`."""
Result = TypeVar("Result")
_log = logging.getLogger("thinktime")


class RemoteGenerator:
    """Samples from a model behind HTTP.

    The endpoint is probed once, when its traits are first needed, for a few tokens.

    Args:
        base_url: the root of the API, such as ``http://127.0.0.1:8000/v1``. The default call is chat; with
            ``/completions`` at its end, the endpoint completes a text without a chat template.
        model: the endpoint's name of the model.
        api_key: sent as a bearer token; it appears in no message, name or bank.
        step: the string that ends a step.
        price: dollars per million tokens, in place of the listed price.
        parameters: active parameters of the model, in place of the listed number; a token costs two FLOPs for each.
        connections: most requests at once; further ones wait.
        timeout: seconds for one sample.
        probe_cache: keeps probe results between runs.
        patience: most seconds that a refused request waits for another try.
        thinking_tokens: most tokens that a sample may think; None is no cap. A probe finds the way to enforce it.
        observer: called around every request for samples.
        within: limits the requests of several generators together.

    Raises:
        InputError: the URL or the model's name is invalid, or the cap is below 0.
    """

    unit = "tokens"

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
        probe_cache: ProbeCache | None = None,
        patience: float = PATIENCE,
        thinking_tokens: int | None = None,
        observer: Observer = unobserved,
        within: asyncio.Semaphore | None = None,
    ) -> None:
        if not model:
            raise InputError("model", model, "name a model of the endpoint")
        root, self._api = root_and_api(base_url)
        self.name = f"{model}@{root}/{self._api}"
        self._root, self._model, self._api_key, self._step = root, model, api_key, step
        self._client = Client(root, api_key, connections=connections, timeout=timeout, patience=patience, within=within)
        self._price = price or listed(root, model)
        self._parameters = parameters or active_parameters(model)
        self.probe_key = f"{self.name} {step!r}"
        """The name of this endpoint in the probe cache."""
        self._probe_cache = probe_cache
        self._traits: Traits | None = None
        self.obeys: bool | None = None
        """Whether the endpoint obeys or refuses ``max_completion_tokens``; None before that probe."""
        self.probed = Usage()
        """The cost of the probes that this generator made, with those that failed."""
        self._probing = Lock()
        self._reported = Event()
        self._fields: Mapping[str, Any] | None = None
        self._on_event: OnEvent | None = None
        self._observer = observer
        self._cap: Cap | None = None
        self._thinking: int | None = None
        self._limit_thoughts(thinking_tokens)
        self._logprobs = True
        self._upstream, self._tries = "", TRIES

    @property
    def traits(self) -> Traits:
        """The probed behaviour of the endpoint. The first probe blocks the caller.

        Raises:
            InputError: the endpoint rejects the key, or does not have the model.
            ModelError: the endpoint cannot be reached, or its answer is malformed.
        """
        with self._probing:
            if self._traits is None and self._probe_cache is not None:
                self._traits = self._probe_cache.find(self.probe_key, Traits)
            traits = self._traits
            if traits is None:
                with ThreadPoolExecutor(1) as pool:  # the caller may be in an event loop already
                    traits = self._traits = pool.submit(asyncio.run, self._probe()).result()
                if self._probe_cache is not None:
                    self._probe_cache.keep(self.probe_key, traits)
            return traits

    @property
    def cap(self) -> Cap:
        """How to cap the model's thoughts. The first probe, of at most nine requests, blocks the caller.

        Raises:
            InputError, ModelError: as `traits`.
        """
        traits = self.traits
        with self._probing:
            if self._cap is None and self._probe_cache is not None:
                self._cap = self._probe_cache.find(self.probe_key, Cap)
            cap = self._cap
            if cap is None:
                with ThreadPoolExecutor(1) as pool:
                    probing = partial(probe_cap, traits=traits)
                    cap = self._cap = pool.submit(asyncio.run, self._probe_with(probing)).result()
                if self._probe_cache is not None:
                    self._probe_cache.keep(self.probe_key, cap)
            return cap

    @property
    def capabilities(self) -> frozenset[str]:
        """The capabilities that the probe observed."""
        traits = self.traits
        offered = {Capability.PREFIX: traits.continues, Capability.LOGPROBS: traits.logprobs, Capability.NOISE: True}
        offered[Capability.CONFIDENCES] = traits.logprobs
        offered[Capability.CHAT] = self._api == "chat/completions"
        offered[Capability.STEPS] = traits.continues and traits.stops is not None
        offered[Capability.CANCEL] = traits.streams
        return frozenset(capability for capability, seen in offered.items() if seen)

    async def probe(self, kind: ProbeKind = "traits") -> None:
        """Probe on the running event loop, so that any number of generators can probe at once; one caller at a time.

        Args:
            kind: ``cap`` and ``obeys`` include the probe of the traits.

        Raises:
            InputError, ModelError: as `traits`.
        """
        if self._traits is None:
            self._traits = await self._probe()
        if kind == "cap" and self._cap is None:
            self._cap = await self._probe_with(partial(probe_cap, traits=self._traits))
        if kind == "obeys" and self.obeys is None:
            self.obeys = await self._probe_with(partial(obeys_limit, name=COMPLETION_LIMIT, traits=self._traits))

    def sending(
        self,
        fields: Mapping[str, Any],
        on_event: OnEvent | None = None,
        thinking_tokens: int | None = None,
        *,
        logprobs: bool = True,
    ) -> RemoteGenerator:
        """A copy of this generator for one client request, on the same connections.

        Its samples keep the raw choice of the endpoint (`RemoteText.choice`).

        Args:
            fields: sent unchanged with every sample: tools, penalties, a response format.
            on_event: called with each event; samples that are requested alone are then streamed.
            thinking_tokens: most tokens that a sample may think.
            logprobs: whether to request log-probabilities for a strategy. Those needed to count tokens are always
                requested.
        """
        one = copy(self)
        one._fields, one._on_event, one._logprobs = fields, on_event, logprobs
        one._limit_thoughts(thinking_tokens)
        return one

    def named(self, upstream: str, tries: int) -> RemoteGenerator:
        """A copy of this generator for one upstream among several.

        Args:
            upstream: its name, which the states of samples have.
            tries: most attempts at a request, including the first.
        """
        one = copy(self)
        one._upstream, one._tries = upstream, tries
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

    def root(self, problem: Problem, known: Sequence[Any] = (), *, quotes: bool = False) -> RemoteText:
        """The root state for a prompt: a text (for a chat, one user turn), or the messages of a chat.

        Raises:
            InputError: the prompt is empty or has the wrong form for this call, or thoughts cannot be capped.
        """
        if not problem.prompt:
            raise InputError("prompt", problem.prompt, "give a prompt that is not empty")
        prompt = with_context(problem)
        if self._thinking is not None and self.cap.by is None:
            fix = "leave it out, or serve the model so that its thoughts are part of the text"
            raise InputError("thinking_tokens", self._thinking, f"no way to cap the thoughts of {self._model}; {fix}")
        if self._api == "chat/completions":
            return RemoteText(json.dumps(messages_of(prompt)), chat=True)
        if not isinstance(prompt, str):
            raise InputError(
                "prompt", "messages", f"{self._api} takes a text; leave {self._api} out of the URL to chat"
            )
        return RemoteText(prompt)

    def adopt(self, root: RemoteText, state: Any, known: Sequence[Any] = ()) -> RemoteText:
        """What another model wrote, as text; its tokens are counted as the other model counted them.

        Raises:
            CapabilityError: the state is no text.
        """
        if not isinstance(state, Text | RemoteText):
            raise CapabilityError(f"model={self.name!r}: it reads text, and cannot continue a {type(state).__name__}")
        ends = tuple(accumulate(map(len, steps_of(state))))
        tokens = state.tokens if isinstance(state, RemoteText) else len(state.ids)
        return replace(root, text=state.text, tokens=tokens, step_ends=ends)

    def length(self, state: RemoteText) -> int:
        """Tokens generated so far."""
        return state.tokens

    def worst_case(self, node: Node, max_length: int) -> Usage:
        """The most that a child can cost; if its thought is closed, prompt and thought are read twice."""
        requests = self._requests()
        worst, thoughts = requests.worst(node.state, max_length), requests.thoughts
        if thoughts is None or thoughts.first_limit(node.state, max_length) == max_length:
            return worst
        return worst + worst_behind(requests, node.state, max_length)

    def most_read(self, state: RemoteText) -> int:
        """Upper bound of a prefix's tokens: one per byte, for a byte-level tokenizer, plus the template."""
        return self._requests().most_read(state)

    def _requests(self) -> Requests:
        """The request sender for the current settings. The first probe blocks the caller."""
        traits, most = self.traits, self._thinking
        return Requests(
            client=self._client,
            api=self._api,
            model=self._model,
            step=self._step,
            price=self._price,
            parameters=self._parameters,
            traits=traits,
            thoughts=None if most is None else Thoughts(most, self.cap, self._api, traits),
            fields=self._fields,
            on_event=self._on_event,
            logprobs=self._logprobs,
            observer=self._observer,
            tries=self._tries,
            upstream=self._upstream,
        )

    async def extend(self, extensions: Sequence[Extension]) -> list[Child]:
        """Sample one child per extension. A failed one becomes a child with an ``error``; the others are returned.

        Raises:
            InputError: all failed because the request is invalid.
        """
        known = self._traits
        traits = await asyncio.to_thread(lambda: self.traits) if known is None else known
        requests = self._requests()
        groups: dict[object, list[Extension]] = defaultdict(list)
        for index, e in enumerate(extensions):
            same = (e.node.key, e.until, e.sampling, e.max_length, e.at_most, e.deadline)
            alone = e.until == "step" and traits.stops == "unlisted"  # a shared usage would not show who stopped
            groups[same if traits.n and not alone and e.race is None else index].append(e)
        parts = [
            group[at : at + MOST_AT_ONCE] for group in groups.values() for at in range(0, len(group), MOST_AT_ONCE)
        ]
        made: dict[str, Child | InputError] = {}
        for some in await asyncio.gather(*(sampled(requests, part) for part in parts)):
            made |= some
        children = [made[extension.key] for extension in extensions]
        mistakes = [child for child in children if isinstance(child, InputError)]
        if mistakes and len(mistakes) == len(children):
            raise mistakes[0]
        came = [failed(e, c) if isinstance(c, InputError) else c for e, c in zip(extensions, children, strict=True)]
        self._report_identical(extensions, came)
        return came

    def cut(self, extension: Extension, child: Child, tokens: int) -> Child:
        """The whole child as pruned. Token boundaries in its text are unknown, so it cannot be cut, and it was paid."""
        return replace(child, finish="pruned")

    def pack(self, node_state: RemoteText, state: RemoteText) -> dict[str, Any]:
        """See `thinktime.generators.text.pack_remote`."""
        return pack_remote(node_state, state)

    def unpack(self, node_state: RemoteText, packed: Mapping[str, Any]) -> RemoteText:
        """The state that `pack` described."""
        return unpack_remote(node_state, packed)

    async def _probe_with(self, probing: Callable[[Prober], Awaitable[Result]]) -> Result:
        """Run a probe with its own connections, because those for samples may belong to another event loop."""
        client = Client(self._root, self._api_key, timeout=60.0)
        prober = Prober(client, self._api, self._model)
        try:
            return await probing(prober)
        except RefusedError as error:
            raise await explained(error, client, self._model) from None
        finally:
            spent = prober.spent
            money = self._price.most(spent.prompt, spent.generated) if self._price else None
            self.probed += Usage(spent.prompt, 0, spent.generated, model_calls=prober.calls, dollars=money)
            await client.close()

    async def _probe(self) -> Traits:
        traits = await self._probe_with(partial(probe, step=self._step))
        if not traits.usage:
            _log.warning(f"endpoint={self._root!r}: it reports no usage; every sample is charged its upper bound")
        return traits

    def _report_identical(self, extensions: Sequence[Extension], children: Sequence[Child]) -> None:
        """Warn once if samples that should differ are identical."""
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
                "check whether the endpoint caches answers or fixes the seed"
            )
