"""The turns of a conversation, and the text of generations in a prompt."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from thinktime.core.types import Problem

Message = dict[str, Any]

_THOUGHT = re.compile(r"<think>.*?</think>", re.DOTALL)
_QUOTED = 200


def user(content: Any) -> Message:
    """A turn of the user."""
    return {"role": "user", "content": content}


def assistant(content: str) -> Message:
    """A turn of the model."""
    return {"role": "assistant", "content": content}


def conversation(problem: Problem) -> list[Message]:
    """The problem's own messages; a text is one user turn."""
    return [user(problem.prompt)] if isinstance(problem.prompt, str) else list(problem.prompt)


def question_text(problem: Problem) -> str:
    """The problem's turns as one text; pictures and sounds are left out."""
    return "\n\n".join(map(words, conversation(problem)))


def words(message: Mapping[str, Any]) -> str:
    """The text of a message, without the parts that are no text."""
    content = message.get("content")
    parts = content if isinstance(content, list) else [content]
    texts = [part.get("text") if isinstance(part, Mapping) else part for part in parts]
    return "\n".join(text for text in texts if isinstance(text, str))


def shown(state: Any) -> str:
    """The text of a generation without its thoughts."""
    return _THOUGHT.sub("", state.text).strip()


def listed(states: Sequence[Any]) -> str:
    """The texts of generations, each under a heading with its number."""
    return "\n\n".join(f"### Answer {index}\n{shown(state)}" for index, state in enumerate(states, 1))


def places(states: Sequence[Any]) -> str:
    """Where the score of each generation stands in a list: ``S1, S2, S3``. Models copy an example with numbers."""
    return ", ".join(f"S{index}" for index in range(1, len(states) + 1))


def quoted(states: Sequence[Any]) -> str:
    """The ends of replies, for an error message: a reply is read at its end."""
    texts = (str(state.text) for state in states)
    return "; ".join(repr(text if len(text) <= _QUOTED else f"…{text[-_QUOTED:]}") for text in texts)
