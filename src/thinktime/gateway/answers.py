"""Reads the answer that a sample votes for: its tool calls, its JSON value, or the answer at the end of its text."""

from __future__ import annotations

import json
from collections.abc import Hashable
from contextlib import suppress
from dataclasses import replace
from typing import Any

from thinktime.answers import TextAnswers
from thinktime.core.search import Search
from thinktime.core.selection import Candidate, best, majority
from thinktime.core.types import Node
from thinktime.generators.text import RemoteText


class Exact(str):
    """An answer compared by its exact spelling, such as canonical JSON."""

    @classmethod
    def of(cls, value: Any) -> Exact:
        """A JSON value with sorted members."""
        return cls(json.dumps(value, sort_keys=True))


IN_WORDS = Exact("")
"""The answer of a sample that replies in words although it could call a tool."""


class SampleAnswers:
    """Reads the answers of an endpoint's samples.

    Tool calls are equal if their names and arguments are equal, in the same order; ids and JSON spelling do not matter.
    If the request asks for JSON, answers are equal if their values are. Otherwise texts are compared by the answer at
    their end (`thinktime.answers`). If the request offers tools, all texts without a readable answer are one answer:
    to call no tool.
    """

    def __init__(self, *, as_json: bool, tools: bool) -> None:
        self._as_json, self._tools = as_json, tools
        self._texts = TextAnswers()

    def read(self, state: RemoteText) -> str | None:
        """The answer, or None if none can be read."""
        calls = _calls(state)
        if calls:
            return Exact.of(calls)
        if not self._as_json:
            words = IN_WORDS if self._tools and state.text.strip() else None
            return self._texts.read(state) or words
        try:
            return Exact.of(json.loads(state.text))
        except (ValueError, RecursionError):
            return None

    def key(self, answer: str) -> Hashable:
        """Equal keys mean equivalent answers."""
        return answer if isinstance(answer, Exact) else self._texts.key(answer)


def fallback_sample(search: Search) -> Candidate | None:
    """A complete sample to return when no sample has a readable answer; None if no sample is complete.

    It is the best-scored sample if there are scores, else a sample of the most frequent text, else the first.
    """
    records = [record for record in search.trace.values() if record.node.done and search.is_answer(record.node)]
    texts = [record.node.state.text for record in records]
    found = [
        Candidate(record.node, text, " ".join(text.split()), record.score)
        for record, text in zip(records, texts, strict=True)
    ]
    chosen = best(found) if any(candidate.score is not None for candidate in found) else majority(found)
    return None if chosen is None else replace(chosen, answer="")


def truncated_sample(search: Search) -> Node | None:
    """The first sample cut by its limit or by the budget, preferably one with text; None if there is none."""
    nodes = [record.node for record in search.trace.values() if record.node.finish in ("length", "budget")]
    nodes = [node for node in nodes if node.state.tokens > 0 and search.is_answer(node)]
    return next((node for node in nodes if node.state.text), next(iter(nodes), None))


def _calls(state: RemoteText) -> list[Any]:
    """The tool calls of a sample without their ids. Arguments that are not JSON stay strings."""
    if "_call" not in state.choice:  # it has neither tool_calls nor function_call, so skip the parsing
        return []
    message = json.loads(state.choice).get("message")
    if not isinstance(message, dict):
        return []
    calls = [call for call in message.get("tool_calls") or () if isinstance(call, dict)]
    if isinstance(message.get("function_call"), dict):  # the older spelling
        calls.append({"function": message["function_call"]})
    return [
        {name: _parsed(part) for name, part in call.items() if name not in ("id", "index", "type")} for call in calls
    ]


def _parsed(part: Any) -> Any:
    if isinstance(part, dict) and isinstance(part.get("arguments"), str):
        with suppress(ValueError, RecursionError):
            return {**part, "arguments": json.loads(part["arguments"])}
    return part
