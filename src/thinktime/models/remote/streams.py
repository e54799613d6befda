"""Assembles the events of a streamed answer into the answer that a plain request would return."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from thinktime.models.remote.protocol import THOUGHTS

ONCE = ("role", "id", "type", "name", "finish_reason", "stop_reason", "matched_stop")
"""Text fields that come once, or repeat; all other texts are concatenated."""
WITH_USAGE = {"stream_options": {"include_usage": True}}
"""Field of a request that asks for the usage at the end of a stream."""


class Assembly:
    """Collects the events of a stream; ``body`` is the whole answer."""

    def __init__(self) -> None:
        self._choices: dict[int, dict[str, Any]] = {}
        self._usage: Any = None

    @property
    def body(self) -> dict[str, Any]:
        """The answer in the shape of a request without a stream."""
        choices = [self._choices[index] for index in sorted(self._choices)]
        return {"choices": choices} | ({} if self._usage is None else {"usage": self._usage})

    def add(self, event: Mapping[str, Any]) -> None:
        """Add one event. Malformed parts are skipped, and `read_choices` reports the missing fields."""
        self._usage = event.get("usage") or self._usage
        choices = event.get("choices")
        for choice in choices if isinstance(choices, Sequence) else ():
            if not isinstance(choice, Mapping) or not isinstance(index := choice.get("index", 0), int):
                continue
            whole = self._choices.setdefault(index, {"index": index})
            _grow(whole, {name: value for name, value in choice.items() if name != "delta"})
            if isinstance(delta := choice.get("delta"), Mapping):
                _grow(whole.setdefault("message", {"role": "assistant", "content": None}), delta)


def without_echo(event: Mapping[str, Any], echoed: int) -> tuple[Mapping[str, Any], int]:
    """Remove the echo of the prefix from an event.

    Args:
        event: one event of a stream.
        echoed: characters of the prefix that the stream still repeats.

    Returns:
        The event without its part of the echo, and the characters that later events still repeat.
    """
    if not echoed:
        return event, 0
    choices = []
    for choice in event.get("choices") or ():
        part = choice.get("delta", choice)
        name = "content" if "delta" in choice else "text"
        text = part.get(name) or ""
        rest, echoed = text[echoed:], max(0, echoed - len(text))
        choices.append({**choice, "delta": {**part, name: rest}} if "delta" in choice else {**choice, name: rest})
    return {**event, "choices": choices}, echoed


def tokens_of(event: Mapping[str, Any]) -> int:
    """A lower bound of an event's tokens: those with a log-probability, or one if the event has any text."""
    count = 0
    for choice in event.get("choices") or ():
        part, listed = choice.get("delta", choice), choice.get("logprobs") or {}
        tokens = listed.get("content") or listed.get("tokens") or ()
        count += len(tokens) or any(part.get(name) for name in ("content", "text", *THOUGHTS, "tool_calls"))
    return count


def _grow(whole: dict[str, Any], part: Mapping[str, Any]) -> None:
    for name, value in part.items():
        before: Any = whole.get(name)
        if name == "tool_calls" and isinstance(value, list):
            calls = whole.setdefault(name, [])
            for call in value:
                if isinstance(call, Mapping):
                    _grow_call(calls, call)
        elif isinstance(value, Mapping):
            inner = before if isinstance(before, dict) else {}
            _grow(inner, value)
            whole[name] = inner
        elif name not in ONCE and (
            (isinstance(before, str) and isinstance(value, str))
            or (isinstance(before, list) and isinstance(value, list))
        ):
            whole[name] = before + value  # type: ignore[operator]  # of one type
        elif value is not None:
            whole[name] = value


def _grow_call(calls: list[dict[str, Any]], part: Mapping[str, Any]) -> None:
    """Add a part of a tool call to the call of the same index; a part without an index is a new call."""
    index = part.get("index")
    same = next((call for call in calls if index is not None and call["index"] == index), None)
    if same is None:
        same = {"index": len(calls) if index is None else index}
        calls.append(same)
    _grow(same, part)
