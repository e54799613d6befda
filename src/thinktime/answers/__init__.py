"""Answers: read from texts, and compared, the same for votes, checkers and agreement."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable, Iterable
from threading import Lock
from typing import Any

from thinktime.answers.equivalence import Undecided, canonical, equivalent, is_quick
from thinktime.answers.reading import READERS, extract

__all__ = ["LONG", "READERS", "Readings", "TextAnswers", "Undecided", "canonical", "equivalent", "extract", "is_quick"]


LONG = 2000
"""Characters of a text whose reading takes a millisecond or more."""
REMEMBERED = 4096
"""Readings that are remembered."""


class Readings:
    """Remembers the answers of texts. A thread reads long texts, and the event loop finds their answers here."""

    def __init__(self) -> None:
        self._found: dict[Hashable, str | None] = {}
        self._lock = Lock()

    def __reduce__(self) -> tuple[type[Readings], tuple[()]]:
        return Readings, ()  # a hash of a text is another one in another process

    def once(self, read: Callable[[], str | None], *texts: str) -> str | None:
        """The result of ``read``, which runs once for the same texts."""
        key = (*map(len, texts), *map(hash, texts))
        with self._lock:
            if key in self._found:
                return self._found[key]
        found = read()
        with self._lock:
            self._found[key] = found
            if len(self._found) > REMEMBERED:
                self._found.pop(next(iter(self._found)))
        return found


class TextAnswers:
    """Answers of text generations, compared by `canonical`.

    Args:
        read: takes the answer from a text; None if there is none.
        name: of the reader, for results.
    """

    def __init__(self, read: Callable[[str], str | None] = extract, name: str = "statement") -> None:
        self._read, self.name = read, name
        self._readings = Readings()

    def read(self, state: Any) -> str | None:
        """The final answer in ``state.text``, or None."""
        answer = self._readings.once(lambda: self._read(state.text), state.text)
        return answer if answer and answer.strip() else None

    def key(self, answer: str) -> Hashable:
        """Equal keys mean equivalent answers."""
        return canonical(answer)

    async def prepare(self, states: Iterable[Any]) -> None:
        """Read what is long, and compute the keys that take long, outside of the event loop."""
        listed = list(states)
        if any(len(state.text) > LONG for state in listed):
            await asyncio.to_thread(lambda: [self.read(state) for state in listed])
        found = [self.read(state) for state in listed]
        slow = [answer for answer in found if answer is not None and not is_quick(answer)]
        if slow:
            await asyncio.to_thread(lambda: [self.key(answer) for answer in slow])
