"""What of a sample has a vote: the tools that it calls, the JSON that it is, or the answer that its text ends in."""

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
    """An answer that is the same as another if it is spelt the same, as JSON in one spelling is."""

    @classmethod
    def of(cls, value: Any) -> Exact:
        """A JSON value, its members sorted."""
        return cls(json.dumps(value, sort_keys=True))


IN_WORDS = Exact("")
"""The answer of a sample that could have called a tool and says something instead."""


class SampleAnswers:
    """Reads answers off the samples of an endpoint.

    Tool calls are the same if names and arguments are, however the JSON is spelt and whatever their ids are; order
    matters. Where JSON is asked for, answers are the same if their values are. Else texts are compared by the answer
    that they end in (`thinktime.answers`); where there are tools, all that end in none are one answer: not to call any.
    """

    def __init__(self, *, as_json: bool, tools: bool) -> None:
        self._as_json, self._tools = as_json, tools
        self._texts = TextAnswers()

    def read(self, state: RemoteText) -> str | None:
        """The answer, or None where none can be read."""
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


def stand_in(search: Search) -> Candidate | None:
    """A complete sample where no answer can be read of any.

    That is the best-scored one if there are scores, else the text that most agree on, else the first.
    """
    records = [record for record in search.trace.values() if record.node.done and search.is_answer(record.node)]
    texts = [record.node.state.text for record in records]
    found = [
        Candidate(record.node, text, " ".join(text.split()), record.score)
        for record, text in zip(records, texts, strict=True)
    ]
    chosen = best(found) if any(candidate.score is not None for candidate in found) else majority(found)
    return None if chosen is None else replace(chosen, answer="")


def cut_short(search: Search) -> Node | None:
    """The first sample that was cut by its limit or by the budget, if there is one; rather one that says something."""
    nodes = [record.node for record in search.trace.values() if record.node.finish in ("length", "budget")]
    nodes = [node for node in nodes if node.state.tokens > 0 and search.is_answer(node)]
    return next((node for node in nodes if node.state.text), next(iter(nodes), None))


def _calls(state: RemoteText) -> list[Any]:
    """The calls of a sample without their ids; arguments that are no JSON are compared as they are."""
    if "_call" not in state.choice:  # neither tool_calls nor function_call; most are not worth parsing
        return []
    message = json.loads(state.choice).get("message")
    if not isinstance(message, dict):
        return []
    calls = [call for call in message.get("tool_calls") or () if isinstance(call, dict)]
    if isinstance(message.get("function_call"), dict):  # as it was spelt before there were tools
        calls.append({"function": message["function_call"]})
    return [
        {name: _parsed(part) for name, part in call.items() if name not in ("id", "index", "type")} for call in calls
    ]


def _parsed(part: Any) -> Any:
    if isinstance(part, dict) and isinstance(part.get("arguments"), str):
        with suppress(ValueError, RecursionError):
            return {**part, "arguments": json.loads(part["arguments"])}
    return part
