"""The state of a text generation: token ids throughout, never decoded and encoded again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


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
