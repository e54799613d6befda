"""Reward models behind HTTP: vLLM's ``/pooling``, ``/classify`` and ``/score``, and compatible servers."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Lock
from typing import Any, Literal

from thinktime.core.errors import InputError, UnknownNameError
from thinktime.core.types import Capability, Node, Problem, Score
from thinktime.core.usage import Usage
from thinktime.generators.text import messages_of, question_of, steps_of, with_context
from thinktime.models.remote.client import Client, RefusedError, RemoteError, UnreadableError
from thinktime.models.remote.prices import Price, listed
from thinktime.models.remote.refusals import about_length
from thinktime.models.remote.sizes import active_parameters
from thinktime.scorers.prm import AGGREGATES

STEP_TAG = "<extra_0>"
"""The token at which Qwen2.5-Math-PRM gives a step's reward."""

Style = Literal["lines", "tags", "whole"]
"""Where an endpoint returns rewards: at the end of lines, at tags between steps, or one for the whole text."""

_QUESTION = [{"role": "user", "content": "1 + 1 + 1 = ?"}]
_STEPS = ["1 + 1 = 2\n", "2 + 1 = 3\n"]


class RemoteReward:
    """Scores a node by a reward model behind HTTP.

    The conversation is sent as messages; an incomplete solution is sent as an open message. Two short requests probe
    once whether the endpoint returns a reward for every step: first with plain lines, then with steps joined by the
    tag. If neither gives step rewards, the model is an outcome reward, and its last or only vector counts.

    Args:
        url: ``http://host:port/pooling``; for outcome rewards also ``…/classify``, or ``…/score``, which reads question
            and solution as a pair.
        model: its name there.
        api_key: sent as a bearer token; it never appears in messages, names or banks.
        aggregate: how step rewards become one score: ``last``, ``min``, ``mean`` or ``product``.
        step_tag: the text after every step in the model's training data.
        label: index of the reward in a vector; by default the only number, or the second of two (wrong, right).
        price: dollars per million tokens; replaces the listed price.
        parameters: parameters a token is multiplied with; replaces the listed number.
        connections: most requests at once; further ones wait.
        timeout: seconds for one score.

    Raises:
        InputError: the URL has none of these calls, or the aggregate is unknown.
    """

    def __init__(
        self,
        url: str,
        model: str,
        api_key: str | None = None,
        *,
        aggregate: str = "last",
        step_tag: str = STEP_TAG,
        label: int | None = None,
        price: Price | None = None,
        parameters: float | None = None,
        connections: int = 256,
        timeout: float = 600.0,
    ) -> None:
        if not re.fullmatch(r"https?://[^/\s@?#]+(/[^\s@?#]*)?/(pooling|classify|score)", url.rstrip("/")):
            fix = "write http://host:port/pooling, or /classify, or /score; keys go into api_key"
            raise InputError("scorer", url.rpartition("@")[2], fix)
        if aggregate not in AGGREGATES:
            raise UnknownNameError("aggregate", aggregate, AGGREGATES)
        self._root, _, self._call = url.rstrip("/").rpartition("/")
        self._model, self._api_key, self._tag, self._label = model, api_key, step_tag, label
        self._aggregate = AGGREGATES[aggregate]
        self.name = f"{model}@{self._root}/{self._call}/{aggregate}"
        self._client = Client(self._root, api_key, connections=connections, timeout=timeout)
        self._price = price or listed(self._root, model)
        self._parameters = parameters or active_parameters(model)
        self._style: Style | None = None if self._call == "pooling" else "whole"
        self._probing = Lock()

    @property
    def style(self) -> Style:
        """Where the endpoint returns rewards; the first access probes it and blocks the caller.

        Raises:
            InputError: the endpoint refuses the key, the model or the call.
            ModelError: the endpoint cannot be reached, or its answer cannot be read.
        """
        with self._probing:
            if self._style is None:
                with ThreadPoolExecutor(1) as pool:  # the caller may be in an event loop already
                    self._style = pool.submit(asyncio.run, self._probe()).result()
            return self._style

    @property
    def capabilities(self) -> frozenset[str]:
        """The capabilities that the probe found."""
        steps = {Capability.PROCESS_REWARD, Capability.PARTIAL_REWARD} if self.style != "whole" else set()
        return frozenset({Capability.SCORES, *steps})

    def worst_case(self, problem: Problem, node: Node, known: Node | None = None) -> Usage:
        """The whole text with one token per byte, the maximum of any byte-level tokenizer."""
        body = self._body(messages_of(with_context(problem)), steps_of(node.state), "tags", closed=True)
        return self._usage(len(json.dumps(body, ensure_ascii=False).encode()))

    async def score(self, problem: Problem, nodes: Sequence[Node], known: Sequence[Node | None] = ()) -> list[Score]:
        """One score per node; the score is missing for a node without generated text.

        Raises:
            InputError: the endpoint refuses the request.
        """
        style = await asyncio.to_thread(lambda: self.style) if self._style is None else self._style
        return list(await asyncio.gather(*(self._read(problem, node, style) for node in nodes)))

    async def close(self) -> None:
        """Close all connections; the next score opens new ones."""
        await self._client.close()

    async def _probe(self) -> Style:
        """Probe the endpoint on separate connections, because scores may run in another event loop."""
        client = Client(self._root, self._api_key, timeout=60.0)
        styles: tuple[Style, ...] = ("lines", "tags")
        try:
            for style in styles:
                body = self._body(_QUESTION, _STEPS, style, closed=True)
                vectors = _vectors((await client.post(self._call, body, tries=2)).body, self._root)
                if len(vectors) == len(_STEPS):
                    return style
            return "whole"
        except RefusedError as error:
            raise self._refused(error) from None
        finally:
            await client.close()

    async def _read(self, problem: Problem, node: Node, style: Style) -> Score:
        steps, worst = steps_of(node.state), self.worst_case(problem, node)
        if not steps:
            return Score(None, Usage())
        body = self._body(messages_of(with_context(problem)), steps, style, closed=node.done)
        if self._call == "score":
            body = {"model": self._model, "text_1": question_of(problem), "text_2": node.state.text}
        try:
            reply = await self._client.post(self._call, body)
            vectors = _vectors(reply.body, self._root)
        except RefusedError as error:
            passes = error.status == 429 or error.status >= 500 or about_length(error)
            if not passes:
                raise self._refused(error) from None
            return Score(None, worst if error.billed else Usage(scorer_calls=1), reason=str(error))
        except RemoteError as error:
            return Score(None, _uncounted(worst) if error.billed else Usage(scorer_calls=1), reason=str(error))
        tokens = _tokens(reply.body)
        usage = _uncounted(worst) if tokens is None else self._usage(tokens, reply.seconds)
        if style == "whole" and vectors:
            return Score(self._reward(vectors[-1]), usage)
        if len(vectors) != len(steps):
            reason = f"endpoint={self._root!r}: it gives {len(vectors)} rewards for {len(steps)} steps; see step_tag"
            return Score(None, usage, reason=reason)
        rewards = tuple(self._reward(vector) for vector in vectors)
        return Score(self._aggregate(rewards), usage, rewards)

    def _body(self, question: Sequence[Mapping[str, Any]], steps: Sequence[str], style: Style, *, closed: bool) -> Any:
        tagged = "".join(step.rstrip("\n") + self._tag for step in steps)
        answer = {"role": "assistant", "content": tagged if style == "tags" else "".join(steps)}
        body = {"model": self._model, "messages": [*question, answer], "add_generation_prompt": False}
        body["continue_final_message"] = not closed
        if self._call == "pooling":
            body["task"] = "token_classify"
        return body

    def _reward(self, vector: Sequence[float]) -> float:
        index = self._label if self._label is not None else len(vector) - 1
        if index >= len(vector) or (self._label is None and len(vector) > 2):
            raise InputError(
                "label", self._label, f"{self._model} gives {len(vector)} numbers; say which is the reward"
            )
        return vector[index]

    def _refused(self, error: RefusedError) -> InputError | RefusedError:
        if error.status == 429 or error.status >= 500:
            return error
        says = f"{self._root}/{self._call} answers {error.status} ({error.message})"
        if error.status in (401, 403):
            return InputError("api_key", "given" if self._api_key else None, f"{says}; set THINKTIME_SCORER_API_KEY")
        return InputError(
            "scorer", self._model, f"{says}; give a reward model and its call, /pooling, /classify or /score"
        )

    def _usage(self, tokens: int, seconds: float = 0.0) -> Usage:
        flops = None if self._parameters is None else 2 * self._parameters * tokens
        dollars = None if self._price is None else self._price.dollars(tokens, 0, 0)
        return Usage(scorer_tokens=tokens, scorer_calls=1, scorer_flops=flops, seconds=seconds, dollars=dollars)


def _uncounted(worst: Usage) -> Usage:
    return worst + Usage(uncounted_calls=1)


def _vectors(body: Mapping[str, Any], url: str) -> list[list[float]]:
    """The vectors of one text: one per position (there may be none), or one for the whole text.

    Raises:
        UnreadableError: the answer has another form.
    """
    data = body.get("data")
    item = data[0] if isinstance(data, list) and data and isinstance(data[0], Mapping) else {}
    found = item.get("data", item.get("probs", [item["score"]] if "score" in item else None))
    rows = found if found == [] or (isinstance(found, list) and isinstance(found[0], list)) else [found]
    if not all(isinstance(row, list) and row and all(_is_number(value) for value in row) for row in rows):
        raise UnreadableError(f"endpoint={url!r}: its answer has data={str(data)[:60]}; expected lists of numbers")
    return [[float(value) for value in row] for row in rows]


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _tokens(body: Mapping[str, Any]) -> int | None:
    usage = body.get("usage")
    tokens = usage.get("prompt_tokens") if isinstance(usage, Mapping) else None
    return tokens if isinstance(tokens, int) and not isinstance(tokens, bool) and tokens >= 0 else None
