"""Reads the answer that a sample votes for: its tool calls, its JSON value, or the answer at the end of its text."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Hashable, Iterable
from dataclasses import replace
from decimal import Decimal, InvalidOperation
from typing import Any

from thinktime.answers import LONG, TextAnswers, extract
from thinktime.answers.reading import without_thoughts
from thinktime.core.search import Search
from thinktime.core.selection import Candidate, best, majority
from thinktime.core.types import Node
from thinktime.generators.text import RemoteText

_FENCE = re.compile(r"```[ \t]*(?:json\w*|javascript|js)?\s*", re.IGNORECASE)
MOST_FENCES = 20
"""Code fences of a reply that are read, the last ones."""
_PLAIN_DIGITS = 20
"""Numbers with more digits before or after the point are spelled with an exponent."""


class Exact(str):
    """An answer compared by its exact spelling, such as canonical JSON."""

    @classmethod
    def of(cls, value: Any) -> Exact:
        """A JSON value with sorted members. Numbers of one value have one spelling: 2, 2.0 and 20e-1 are 2.

        Args:
            value: a JSON value; numbers that are not whole are of type Decimal.

        Raises:
            RecursionError: the value is nested too deeply.
        """
        return cls(_spelled(value))


def _spelled(value: Any) -> str:
    if isinstance(value, dict):
        members = (f"{json.dumps(name)}: {_spelled(each)}" for name, each in sorted(value.items()))
        return "{" + ", ".join(members) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_spelled, value)) + "]"
    return _number(value) if isinstance(value, Decimal) else json.dumps(value)


def _number(value: Decimal) -> str:
    """The one spelling of a number; no digit is lost."""
    sign, places, exponent = value.as_tuple()
    written = "".join(map(str, places)).lstrip("0")
    digits = written.rstrip("0")
    exponent = int(exponent) + len(written) - len(digits)
    if not digits:
        return "0"
    if exponent >= 0 and len(digits) + exponent <= _PLAIN_DIGITS:
        spelled = digits + "0" * exponent
    elif -_PLAIN_DIGITS <= exponent < 0:
        padded = digits.zfill(1 - exponent)
        spelled = f"{padded[:exponent]}.{padded[exponent:]}"
    else:
        spelled = f"{digits}e{exponent}"
    return "-" * sign + spelled


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON number")


_JSON = json.JSONDecoder(parse_int=Decimal, parse_float=Decimal, parse_constant=_no_constant)
"""Numbers keep all their digits. NaN and Infinity are no JSON."""
_UNREADABLE = (ValueError, RecursionError, InvalidOperation)


def _json_in(text: str) -> Exact | None:
    """The canonical JSON of a reply; None without any.

    The whole text counts. Else thoughts are cut, and the last value in a code fence counts, else the first object.
    """
    try:
        return Exact.of(_JSON.decode(text.strip().removeprefix("\ufeff")))
    except _UNREADABLE:
        text = without_thoughts(text)
    fences = [found.end() for found in _FENCE.finditer(text)][-MOST_FENCES:]
    for start in (0, *reversed(fences), len(text.partition("{")[0])):
        rest = text[start:].strip()
        try:
            value, end = _JSON.raw_decode(rest)
            behind = rest[end:].strip()
            if isinstance(value, dict) or not behind or behind.startswith("```"):
                return Exact.of(value)
        except _UNREADABLE:
            continue
    return None


IN_WORDS = Exact("")
"""The answer of a sample that replies in words although it could call a tool."""


class SampleAnswers(TextAnswers):
    """Reads the answers of an endpoint's samples.

    Tool calls are equal if their names and arguments are equal, in the same order; ids and JSON spelling do not matter.
    If the request asks for JSON, answers are equal if their values are. Otherwise texts are compared by the answer at
    their end (`thinktime.answers`). If the request offers tools, all texts without a readable answer are one answer:
    to call no tool.
    """

    def __init__(self, *, as_json: bool, tools: bool) -> None:
        super().__init__()
        self._as_json, self._tools = as_json, tools

    def read(self, state: RemoteText) -> str | None:
        """The answer, or None if none can be read."""
        texts = (state.text, state.choice) if _has_calls(state) else (state.text,)
        return self._readings.once(lambda: self._answer(state), *texts)

    def _answer(self, state: RemoteText) -> str | None:
        try:
            calls = _calls(state)
            if calls:
                return Exact.of(calls)
        except RecursionError:  # a field of a call is nested too deeply
            return None
        if not self._as_json:
            answer = extract(state.text)
            return answer if answer and answer.strip() else IN_WORDS if self._tools and state.text.strip() else None
        return _json_in(state.text)

    def key(self, answer: str) -> Hashable:
        """Equal keys mean equivalent answers."""
        return answer if isinstance(answer, Exact) else super().key(answer)

    async def prepare(self, states: Iterable[RemoteText]) -> None:
        """As `TextAnswers.prepare`. JSON and tool calls are compared as they are."""
        listed = list(states)
        if any(len(state.text) + len(state.choice) > LONG for state in listed):
            await asyncio.to_thread(lambda: [self.read(state) for state in listed])
        if not self._as_json:
            await super().prepare(listed)


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


def _has_calls(state: RemoteText) -> bool:
    """Whether the sample may have tool_calls or a function_call."""
    return "_call" in state.choice


def _calls(state: RemoteText) -> list[Any]:
    """The tool calls of a sample without their ids. Arguments that are not JSON stay strings."""
    if not _has_calls(state):  # skip the parsing
        return []
    message = json.loads(state.choice).get("message")
    if not isinstance(message, dict):
        return []
    listed = message.get("tool_calls")
    calls = [call for call in listed if isinstance(call, dict)] if isinstance(listed, list) else []
    if isinstance(message.get("function_call"), dict):  # the older spelling
        calls.append({"function": message["function_call"]})
    return [
        {name: _parsed(part) for name, part in call.items() if name not in ("id", "index", "type")} for call in calls
    ]


def _parsed(part: Any) -> Any:
    if not isinstance(part, dict) or not isinstance(part.get("arguments"), str):
        return part
    try:
        arguments = _JSON.decode(part["arguments"].strip() or "{}")
        Exact.of(arguments)  # arguments that are nested too deeply stay a text
    except _UNREADABLE:
        return part
    return {**part, "arguments": arguments}
