"""Splits a stream of server-sent events into events, by the rules of the HTML standard (section 9.2)."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import NamedTuple

from thinktime.models.remote.limits import EVENT, MIB, OversizeError

BOM = b"\xef\xbb\xbf"
DONE = b"[DONE]"
"""Data of the last event of a stream."""
_LINE_END = re.compile(rb"\r\n|\n|\r(?!\Z)")
_BEGINNING = re.compile(rb"\s*(?:(?:data|event|id|retry|error) ?:|:)")


class SentEvent(NamedTuple):
    """One event: its name, empty if it has none, and its data."""

    name: str
    data: bytes


def looks_like_events(raw: bytes) -> bool:
    """Whether a body begins like a stream of events, whatever its content type says."""
    return _BEGINNING.match(raw.removeprefix(BOM)) is not None


class EventReader:
    """Reads the events of a stream as its bytes arrive.

    Lines may end in any way, data may have several lines, and comments are skipped. Two deviations from the standard
    follow what servers do: a line of data that is a whole JSON value needs no blank line after it, and the last event
    needs none either. A line ``error: …`` is an event of that name.
    """

    def __init__(self) -> None:
        self._rest = bytearray()
        self._begun = False
        self._name, self._data = "", list[bytes]()
        self._size = 0
        """Bytes of the event so far."""

    def feed(self, piece: bytes) -> Iterator[SentEvent]:
        """The events that these bytes complete.

        Raises:
            OversizeError: an event has more than `EVENT` bytes.
        """
        ends = not self._begun or self._rest.endswith(b"\r") or b"\n" in piece or b"\r" in piece
        self._rest += piece
        if not self._begun:
            self._rest = self._rest.removeprefix(BOM)
            self._begun = len(self._rest) >= len(BOM)
        if ends:  # a long line is not split at each of its pieces
            *lines, rest = _LINE_END.split(bytes(self._rest))
            self._rest = bytearray(rest)
            for line in lines:
                yield from self._line(line)
        self._refuse_long(len(self._rest))

    def close(self) -> Iterator[SentEvent]:
        """The event that the end of the stream completes."""
        yield from self._line(bytes(self._rest.removesuffix(b"\r")))
        if self._data and _is_whole(b"\n".join(self._data)):
            yield from self._event()

    def _line(self, line: bytes) -> Iterator[SentEvent]:
        if line.startswith(b":"):  # a comment
            return
        if not line.strip():
            if self._size:
                yield from self._event()
            return
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data" and len(self._data) == 1 and _is_whole(self._data[0]):
            yield from self._event()
        self._refuse_long(len(line))
        self._size += len(line)
        if field == b"data":
            self._data.append(value)
        elif field == b"event":
            self._name = value.decode(errors="replace").strip()
        elif field == b"error":
            self._name = "error"
            self._data.append(value)

    def _refuse_long(self, more: int) -> None:
        if self._size + more > EVENT:
            raise OversizeError(f"an event of more than {EVENT // MIB} MiB")

    def _event(self) -> Iterator[SentEvent]:
        name, data = self._name, b"\n".join(self._data).strip()
        self._name, self._data, self._size = "", [], 0
        if data:
            yield SentEvent(name, data)


def _is_whole(data: bytes) -> bool:
    """Whether this is a whole JSON value or the end of the stream."""
    if data.strip() == DONE:
        return True
    try:
        json.loads(data)
    except (ValueError, RecursionError):
        return False
    return True
