"""Builds answers in OpenAI's shapes: an object, or the events of a stream."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from thinktime.core.meter import as_rows
from thinktime.core.search import Search
from thinktime.core.trace import Answer
from thinktime.gateway.methods import Method
from thinktime.gateway.request import CompletionRequest
from thinktime.generators.text import RemoteText, thinking_counts, thinking_report
from thinktime.models.remote.protocol import THOUGHTS
from thinktime.planning.auto import Auto

DONE = b"data: [DONE]\n\n"


@dataclass(frozen=True)
class SearchOutcome:
    """A finished search with its answer."""

    answer: Answer
    search: Search
    method: Method
    request: CompletionRequest

    @property
    def state(self) -> RemoteText:
        """The state of the chosen sample."""
        assert self.answer.node is not None
        state: RemoteText = self.answer.node.state
        return state


def account(search: Search, method: Method, seed: int, answer: Answer | None = None) -> dict[str, Any]:
    """The object ``thinktime`` of an answer or of an error."""
    return {
        "strategy": method.name,
        "options": method.options,
        "finish": answer.finish if answer else "error",
        "answer": answer.value if answer else None,
        "share": answer.share if answer else None,
        "samples": sum(record.node.done and search.is_answer(record.node) for record in search.trace.values()),
        "failed": len(search.errors),
        "seed": seed,
        "trace": search.problem.id,
        "account": search.ledger.spent.as_dict(),
        "accounts": as_rows(search.meter.accounts),
        **_chosen(search, method),
        **({} if method.thinking_tokens is None else {"thinking": _thinking(search, method.thinking_tokens)}),
    }


def _chosen(search: Search, method: Method) -> dict[str, Any]:
    """What ``auto`` chose and why, without the file of its calibration."""
    if not isinstance(method.strategy, Auto):
        return {}
    logged: dict[str, Any] = {}
    for event in search.events:
        logged |= event
        if "planner" in event:
            break
    return {"chosen": {name: value for name, value in logged.items() if name != "planner"}}


def _thinking(search: Search, limit: int) -> dict[str, Any]:
    return thinking_report(thinking_counts(record.node for record in search.trace.values()), limit)


def usage(search: Search) -> dict[str, Any] | None:
    """All tokens of all samples in OpenAI's shape; None if the upstream counted none.

    Uncounted samples are in ``completion_tokens`` at their upper bound; the account's ``uncounted_calls`` counts them.
    """
    spent = [record.node.usage for record in search.trace.values()]
    counted = [part for part in spent if part.model_calls and part.prompt_tokens is not None]
    if not counted and any(part.model_calls for part in spent):
        return None
    cached = sum(part.cached_tokens or 0 for part in counted)
    prompt = sum(part.prompt_tokens or 0 for part in counted) + cached
    generated = search.ledger.spent.generated_tokens
    return {
        "prompt_tokens": prompt,
        "completion_tokens": generated,
        "total_tokens": prompt + generated,
        "prompt_tokens_details": {"cached_tokens": cached},
    }


def completion(outcome: SearchOutcome) -> dict[str, Any]:
    """The answer as one object: the whole chosen sample as the upstream sent it."""
    chat = outcome.request.api == "chat/completions"
    return {
        **_head(outcome.request, "chat.completion" if chat else "text_completion"),
        "choices": [_choice(outcome.state, chat)],
        "usage": usage(outcome.search),
        "thinktime": account(outcome.search, outcome.method, outcome.request.seed, outcome.answer),
    }


def _choice(state: RemoteText, chat: bool) -> dict[str, Any]:
    received: dict[str, Any] = json.loads(state.choice) if state.choice else {}
    choice = {"logprobs": None, "finish_reason": "stop", **received, "index": 0}
    if not chat:
        return {**choice, "text": state.text}
    message = {"role": "assistant", "content": None, **(received.get("message") or {})}
    return {**choice, "message": {**message, "content": state.text or message["content"]}}


@dataclass
class Chunks:
    """Builds the events of one stream."""

    request: CompletionRequest
    answer_sent: bool = False
    """Whether a part of the answer was sent."""
    _text_sent: bool = False
    """Whether a part other than thoughts was sent."""
    _head: dict[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        chat = self.request.api == "chat/completions"
        self._chat, self._head = chat, _head(self.request, "chat.completion.chunk" if chat else "text_completion")

    def whole(self, outcome: SearchOutcome) -> dict[str, Any]:
        """The answer as one object."""
        return completion(outcome)

    def opening(self) -> bytes:
        """The first event of a chat, which has the role."""
        return self._event({"delta": {"role": "assistant", "content": ""}}) if self._chat else b""

    def progress(self, text: str) -> bytes:
        """Progress of the search, as thoughts that a client may show."""
        return self._event({"delta": {"reasoning_content": text}}) if self._chat else b": " + text.encode() + b"\n"

    def forwarded(self, event: Mapping[str, Any]) -> bytes:
        """An event of the upstream, reduced to its part of the answer."""
        parts = [choice for choice in event.get("choices") or () if isinstance(choice, Mapping)]
        lines = [self._event({**part, "finish_reason": None, "index": 0}) for part in parts if _says(part)]
        self.answer_sent |= bool(lines)
        self._text_sent |= any(_says(part, THOUGHTS) for part in parts)
        return b"".join(lines)

    def closing(self, outcome: SearchOutcome) -> Iterator[bytes]:
        """The answer unless it was streamed, then the reason it ended, and the account."""
        choice = _choice(outcome.state, self._chat)
        if not self.answer_sent:
            yield self._event({**_as_delta(choice), "logprobs": choice["logprobs"]})
        elif self._chat and not self._text_sent and outcome.state.text:  # the upstream takes it all for a thought
            yield self._event({"delta": {"content": outcome.state.text}})
        end: dict[str, Any] = {"delta": {}} if self._chat else {"text": ""}
        spending = account(outcome.search, outcome.method, outcome.request.seed, outcome.answer)
        yield self._event({**end, "finish_reason": choice["finish_reason"]}, thinktime=spending)
        if self.request.with_usage:
            yield _line({**self._head, "choices": [], "usage": usage(outcome.search), "thinktime": spending})
        yield DONE

    def _event(self, part: Mapping[str, Any], **more: Any) -> bytes:
        return _line({**self._head, "choices": [{"index": 0, "finish_reason": None, **part}], **more})


def deltas(event: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The parts of messages in a chat event of the upstream."""
    for choice in event.get("choices") or ():
        if isinstance(choice, Mapping) and isinstance(delta := choice.get("delta"), Mapping):
            yield delta


def error_event(body: Mapping[str, Any]) -> bytes:
    """An error in a stream; OpenAI's client raises it."""
    return _line(body)


def _says(part: Mapping[str, Any], besides: tuple[str, ...] = ()) -> bool:
    """Whether a part of a stream has any field of a message, without the role and the fields ``besides``."""
    delta = part.get("delta")
    if isinstance(delta, Mapping):
        return any(value not in (None, "") for name, value in delta.items() if name not in ("role", *besides))
    return bool(part.get("text"))


def _as_delta(choice: Mapping[str, Any]) -> dict[str, Any]:
    """A whole choice as one part of a stream, in which tool calls have an index."""
    if "message" not in choice:
        return {"text": choice["text"]}
    delta = {name: value for name, value in choice["message"].items() if name != "role" and value is not None}
    if isinstance(calls := delta.get("tool_calls"), list):
        delta["tool_calls"] = [{**call, "index": index} for index, call in enumerate(calls)]
    return {"delta": delta}


def _head(request: CompletionRequest, kind: str) -> dict[str, Any]:
    name = "chatcmpl" if request.api == "chat/completions" else "cmpl"
    return {"id": f"{name}-{request.problem.id}", "object": kind, "created": int(time.time()), "model": request.called}


def _line(value: object) -> bytes:
    return b"data: " + json.dumps(value).encode() + b"\n\n"
