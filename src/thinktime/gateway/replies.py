"""Answers in OpenAI's shapes: an object, or the events of a stream."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from thinktime.core.search import Answer, Search
from thinktime.gateway.asks import Ask
from thinktime.gateway.methods import Method
from thinktime.generators.text import RemoteText, held, thoughts_of

DONE = b"data: [DONE]\n\n"


@dataclass(frozen=True)
class Outcome:
    """What a search came to: its answer, and the search itself for its account."""

    answer: Answer
    search: Search
    method: Method
    ask: Ask

    @property
    def state(self) -> RemoteText:
        """The sample that is the answer."""
        assert self.answer.node is not None
        state: RemoteText = self.answer.node.state
        return state


def account(search: Search, method: Method, seed: int, answer: Answer | None = None) -> dict[str, Any]:
    """The object ``thinktime`` of an answer, or of an error."""
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
        **({} if method.thinking_tokens is None else {"thinking": _thinking(search, method.thinking_tokens)}),
    }


def _thinking(search: Search, limit: int) -> dict[str, Any]:
    return held(thoughts_of(record.node for record in search.trace.values()), limit)


def usage(search: Search) -> dict[str, Any] | None:
    """All tokens of all samples, as far as they were counted; None where none were.

    Those nobody counted are in ``completion_tokens`` at the most they can be, and the account says how often.
    """
    spent = [record.node.usage for record in search.trace.values()]
    told = [part for part in spent if part.model_calls and part.prompt_tokens is not None]
    if not told and any(part.model_calls for part in spent):
        return None
    cached = sum(part.cached_tokens or 0 for part in told)
    prompt = sum(part.prompt_tokens or 0 for part in told) + cached
    generated = search.ledger.spent.generated_tokens
    return {
        "prompt_tokens": prompt,
        "completion_tokens": generated,
        "total_tokens": prompt + generated,
        "prompt_tokens_details": {"cached_tokens": cached},
    }


def completion(outcome: Outcome) -> dict[str, Any]:
    """The answer in one piece: the chosen sample whole, as the upstream told it."""
    chat = outcome.ask.api == "chat/completions"
    return {
        **_head(outcome.ask, "chat.completion" if chat else "text_completion"),
        "choices": [_choice(outcome.state, chat)],
        "usage": usage(outcome.search),
        "thinktime": account(outcome.search, outcome.method, outcome.ask.seed, outcome.answer),
    }


def _choice(state: RemoteText, chat: bool) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(state.choice) if state.choice else {}
    choice = {"logprobs": None, "finish_reason": "stop", **told, "index": 0}
    if not chat:
        return {**choice, "text": state.text}
    message = {"role": "assistant", "content": None, **(told.get("message") or {})}
    return {**choice, "message": {**message, "content": state.text or message["content"]}}


@dataclass
class Chunks:
    """The events of one stream, one after the other, all with the same head."""

    ask: Ask
    said: bool = False
    """Whether a part of the answer was told."""
    _head: dict[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        chat = self.ask.api == "chat/completions"
        self._chat, self._head = chat, _head(self.ask, "chat.completion.chunk" if chat else "text_completion")

    def opening(self) -> bytes:
        """The first event of a chat says who speaks."""
        return self._event({"delta": {"role": "assistant", "content": ""}}) if self._chat else b""

    def progress(self, text: str) -> bytes:
        """What the search has come to so far, as thoughts that a client may show or leave."""
        return self._event({"delta": {"reasoning_content": text}}) if self._chat else b": " + text.encode() + b"\n"

    def forwarded(self, event: Mapping[str, Any]) -> bytes:
        """An event of the upstream's: its part of the answer, without its head, its end and its usage."""
        parts = [choice for choice in event.get("choices") or () if isinstance(choice, Mapping)]
        lines = [self._event({**part, "finish_reason": None, "index": 0}) for part in parts if _says(part)]
        self.said |= bool(lines)
        return b"".join(lines)

    def closing(self, outcome: Outcome) -> Iterator[bytes]:
        """The answer, if it was not told before, why it ended, and the account."""
        choice = _choice(outcome.state, self._chat)
        if not self.said:
            yield self._event({**_as_delta(choice), "logprobs": choice["logprobs"]})
        end: dict[str, Any] = {"delta": {}} if self._chat else {"text": ""}
        told = account(outcome.search, outcome.method, outcome.ask.seed, outcome.answer)
        yield self._event({**end, "finish_reason": choice["finish_reason"]}, thinktime=told)
        if self.ask.with_usage:
            yield _line({**self._head, "choices": [], "usage": usage(outcome.search), "thinktime": told})
        yield DONE

    def _event(self, part: Mapping[str, Any], **more: Any) -> bytes:
        return _line({**self._head, "choices": [{"index": 0, "finish_reason": None, **part}], **more})


def error_event(body: Mapping[str, Any]) -> bytes:
    """An error after the stream began; OpenAI's client raises it."""
    return _line(body)


def _says(part: Mapping[str, Any]) -> bool:
    delta = part.get("delta")
    if isinstance(delta, Mapping):
        return any(value not in (None, "") for name, value in delta.items() if name != "role")
    return bool(part.get("text"))


def _as_delta(choice: Mapping[str, Any]) -> dict[str, Any]:
    """A whole choice as one part of a stream: tool calls have an index there."""
    if "message" not in choice:
        return {"text": choice["text"]}
    delta = {name: value for name, value in choice["message"].items() if name != "role" and value is not None}
    if isinstance(calls := delta.get("tool_calls"), list):
        delta["tool_calls"] = [{**call, "index": place} for place, call in enumerate(calls)]
    return {"delta": delta}


def _head(ask: Ask, kind: str) -> dict[str, Any]:
    name = "chatcmpl" if ask.api == "chat/completions" else "cmpl"
    return {"id": f"{name}-{ask.problem.id}", "object": kind, "created": int(time.time()), "model": ask.called}


def _line(value: object) -> bytes:
    return b"data: " + json.dumps(value).encode() + b"\n\n"
