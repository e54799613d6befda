"""The state of a text generation: token ids throughout, never decoded and encoded again, where they are known."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from thinktime.core.types import Node


@dataclass(frozen=True)
class Text:
    """A partial solution: the prompt's ids, the generated ids, where its steps end, and its log-probability.

    ``step_ends`` are offsets into ``ids``, each just past a step; the last is ``len(ids)`` once generation has
    stopped anywhere. ``text`` is the decoded generation without special tokens. Two with the same ids are equal.
    """

    prompt: tuple[int, ...]
    ids: tuple[int, ...] = ()
    text: str = ""
    step_ends: tuple[int, ...] = ()
    logprob: float = field(default=0.0, compare=False)


def added_text(node: Node) -> str:
    """What a text node says beyond its parent; nothing where states are no texts."""
    before = getattr(node.parent.state, "text", "") if node.parent else ""
    return str(getattr(node.state, "text", ""))[len(before) :]


def pack(before: Text, state: Text) -> dict[str, Any]:
    """What the bank stores of a child: its new ids, and the whole generation's text, steps and probability."""
    return {
        "ids": state.ids[len(before.ids) :],
        "text": state.text,
        "step_ends": state.step_ends,
        "logprob": state.logprob,
    }


def unpack(before: Text, packed: Mapping[str, Any]) -> Text:
    """The state that `pack` described."""
    ids = before.ids + tuple(packed["ids"])
    return Text(before.prompt, ids, packed["text"], tuple(packed["step_ends"]), packed["logprob"])


@dataclass(frozen=True)
class RemoteText:
    """A partial solution whose token ids nobody tells: its text, and how many tokens that was when it was sampled.

    ``prompt`` is a text, or the messages of a chat as JSON. ``step_ends`` are offsets into ``text``,
    each just past a step.
    """

    prompt: str
    text: str = ""
    tokens: int = 0
    step_ends: tuple[int, ...] = ()
    logprob: float = field(default=0.0, compare=False)
    """NaN where the endpoint tells none."""
    chat: bool = False
    """Whether ``prompt`` is messages."""
    choice: str = ""
    """The last sample as the endpoint told it, as JSON, where that is asked for: tool calls, thoughts, its finish."""


def pack_remote(before: RemoteText, state: RemoteText) -> dict[str, Any]:
    """What the bank stores of a child: the text it adds, and the whole generation's tokens, steps and probability."""
    logprob = None if math.isnan(state.logprob) else state.logprob
    facts = {"tokens": state.tokens, "step_ends": state.step_ends, "logprob": logprob}
    whole = {"choice": state.choice} if state.choice else {}
    return {"text": state.text[len(before.text) :], **facts, **whole}


def unpack_remote(before: RemoteText, packed: Mapping[str, Any]) -> RemoteText:
    """The state that `pack_remote` described."""
    logprob = math.nan if packed["logprob"] is None else packed["logprob"]
    text, ends = before.text + packed["text"], tuple(packed["step_ends"])
    return RemoteText(before.prompt, text, packed["tokens"], ends, logprob, before.chat, packed.get("choice", ""))
