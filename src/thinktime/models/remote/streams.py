"""Assembles the events of a streamed answer into the answer that a plain request would return."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from thinktime.models.remote.client import MalformedError
from thinktime.models.remote.protocol import THOUGHTS, documented

ONCE = ("role", "id", "type", "name", "finish_reason", "stop_reason", "matched_stop")
"""Text fields that come once, or repeat; all other texts are concatenated."""
WITH_USAGE = {"stream_options": {"include_usage": True}}
"""Field of a request that asks for the usage at the end of a stream."""


class Assembly:
    """Collects the events of a stream; ``body`` is the whole answer."""

    def __init__(self) -> None:
        self._choices: dict[int, dict[str, Any]] = {}
        self._calls: dict[int, _Calls] = {}
        self._usage: Any = None

    @property
    def body(self) -> dict[str, Any]:
        """The answer in the shape of a request without a stream."""
        choices = [self._choices[index] for index in sorted(self._choices)]
        return {"choices": choices} | ({} if self._usage is None else {"usage": self._usage})

    async def take(self, event: Mapping[str, Any]) -> None:
        """`add` as a callback of a client."""
        self.add(event)

    def add(self, event: Mapping[str, Any]) -> dict[str, Any]:
        """Add one event, and return it in the documented form, with an index for every tool call.

        Malformed parts are skipped, and `read_choices` reports the missing fields.

        Raises:
            MalformedError: the event has a content that is not text.
        """
        self._usage = event.get("usage") or self._usage
        choices = event.get("choices")
        kept = []
        for place, choice in enumerate(choices if isinstance(choices, list) else ()):
            if not isinstance(choice, Mapping):
                continue
            index = place if choice.get("index") is None else choice["index"]
            if not isinstance(index, int):
                continue
            whole = self._choices.setdefault(index, {"index": index})
            if not isinstance(choice.get("text"), str | None):
                raise MalformedError(f"text={str(choice['text'])[:80]!r}: the sample has no text")
            part = {name: value for name, value in choice.items() if name not in ("delta", "message")}
            _grow(whole, part)
            delta = next((choice[name] for name in ("delta", "message") if isinstance(choice.get(name), Mapping)), None)
            if delta is not None:
                delta = documented(delta)
                message = whole.setdefault("message", {"role": "assistant", "content": None})
                _grow(message, {name: value for name, value in delta.items() if name != "tool_calls"})
                if delta.get("tool_calls"):
                    calls = self._calls.setdefault(index, _Calls())
                    delta["tool_calls"] = calls.add(delta["tool_calls"])
                    message["tool_calls"] = calls.whole
                part["delta"] = delta
            kept.append({**part, "index": index})
        return {**event, "choices": kept}


def without_echo(event: Mapping[str, Any], echoed: int) -> tuple[Mapping[str, Any], int]:
    """Remove the echo of the prefix from an event.

    Args:
        event: one event of a stream, in the documented form.
        echoed: characters of the prefix that the stream still repeats.

    Returns:
        The event without its part of the echo, and the characters that later events still repeat.
    """
    if not echoed:
        return event, 0
    choices = []
    for choice in event["choices"]:
        part = choice.get("delta", choice)
        name = "content" if "delta" in choice else "text"
        text = part.get(name) or ""
        rest, echoed = text[echoed:], max(0, echoed - len(text))
        choices.append({**choice, "delta": {**part, name: rest}} if "delta" in choice else {**choice, name: rest})
    return {**event, "choices": choices}, echoed


def tokens_of(event: Mapping[str, Any]) -> int:
    """A lower bound of the tokens of a documented event: those with a log-probability, or one if it has any text."""
    count = 0
    for choice in event["choices"]:
        part, listed = choice.get("delta", choice), choice.get("logprobs")
        tokens = (listed.get("content") or listed.get("tokens")) if isinstance(listed, Mapping) else None
        says = any(part.get(name) for name in ("content", "text", *THOUGHTS, "tool_calls"))
        count += len(tokens) if tokens and isinstance(tokens, list) else says
    return count


class _Calls:
    """The tool calls of one streamed message. It finds the call that a part belongs to.

    A part belongs to the call with its id, or else with its index. A part with neither belongs to the last call, or to
    the call at its own place if the event has several parts. Some endpoints give every call the index 0, so a part with
    another id and a name begins a new call. So does a part with a name after complete arguments.
    """

    def __init__(self) -> None:
        self._calls: list[dict[str, Any]] = []
        self._given: list[Any] = []
        """The index that the endpoint gives each call."""

    def add(self, parts: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Add the parts of one event, and return them with the place of their call as the index."""
        placed = []
        for number, part in enumerate(parts):
            place = self._place(part, number if len(parts) > 1 else len(self._calls) - 1)
            if place is None:
                place = len(self._calls)
                self._calls.append({})
                self._given.append(part.get("index"))
            placed.append({**part, "index": place})
            _grow(self._calls[place], placed[-1])
        return placed

    @property
    def whole(self) -> list[dict[str, Any]]:
        """The calls so far."""
        return self._calls

    def _place(self, part: Mapping[str, Any], by_order: int) -> int | None:
        """The place of the part's call; None if it begins a new one."""
        index, name = part.get("index"), part.get("id")
        places = [at for at, given in enumerate(self._given) if index is None or given == index]
        if name and (same := [at for at in places if self._calls[at].get("id") == name]):
            return same[-1]
        if index is None:
            places = [at for at in places if at == by_order]
        if not places:
            return None
        call = self._calls[places[-1]]
        named = bool(_function(part).get("name"))
        another = name and call.get("id") and (named or index is None)
        return None if another or (named and _is_complete(_function(call).get("arguments"))) else places[-1]


def _function(call: Mapping[str, Any]) -> Mapping[str, Any]:
    found = call.get("function")
    return found if isinstance(found, Mapping) else {}


def _is_complete(arguments: object) -> bool:
    """Whether the arguments of a call are a whole JSON value."""
    try:
        json.loads(str(arguments or ""))
    except (ValueError, RecursionError):
        return False
    return True


def _grow(whole: dict[str, Any], part: Mapping[str, Any]) -> None:
    for name, value in part.items():
        before: Any = whole.get(name)
        if isinstance(value, Mapping):
            inner = before if isinstance(before, dict) else {}
            _grow(inner, value)
            whole[name] = inner
        elif name not in ONCE and (
            (isinstance(before, str) and isinstance(value, str))
            or (isinstance(before, list) and isinstance(value, list))
        ):
            whole[name] = before + value  # type: ignore[operator]  # of one type
        elif value is not None and not (name in ONCE and before and not value):
            whole[name] = value
