"""Answers: read from texts, and compared, the same for votes, checkers and agreement."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable, Iterable
from typing import Any

from thinktime.answers.equivalence import Undecided, canonical, equivalent, is_quick
from thinktime.answers.reading import READERS, extract

__all__ = ["READERS", "TextAnswers", "Undecided", "canonical", "equivalent", "extract"]


class TextAnswers:
    """Answers of text generations, compared by `canonical`.

    Args:
        read: takes the answer from a text; None if there is none.
        name: of the reader, for results.
    """

    def __init__(self, read: Callable[[str], str | None] = extract, name: str = "statement") -> None:
        self._read, self.name = read, name

    def read(self, state: Any) -> str | None:
        """The final answer in ``state.text``, or None."""
        answer = self._read(state.text)
        return answer if answer and answer.strip() else None

    def key(self, answer: str) -> Hashable:
        """Equal keys mean equivalent answers."""
        return canonical(answer)

    async def prepare(self, states: Iterable[Any]) -> None:
        """Compute slow keys outside of the event loop. Later calls of `key` find them in the cache."""
        found = [self.read(state) for state in states]
        slow = [answer for answer in found if answer is not None and not is_quick(answer)]
        if slow:
            await asyncio.to_thread(lambda: [self.key(answer) for answer in slow])
