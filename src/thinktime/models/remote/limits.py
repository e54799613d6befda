"""Limits on what an endpoint sends, and `Room`, a limit that many requests share."""

from __future__ import annotations

from typing import Self

MIB = 1024 * 1024
REPLY = 64 * MIB
"""Most bytes of one reply, plain or streamed."""
EVENT = 4 * MIB
"""Most bytes of one event of a stream, and of one line of it."""
EVENTS = 262_144
"""Most events of one stream. Each token is an event in most streams."""
REPLIES = 256 * MIB
"""Most bytes of all replies that are being read. Replies up to ``SMALL`` bytes do not count."""
SMALL = 64 * 1024
"""A reply or a request counts in a room only beyond this many bytes, so a full room stops no small one."""
SAMPLE = 2_000_000
"""Most characters of a sample's text and thoughts."""
VALUES = 2_000_000
"""Most values in one reply, by its commas: an empty list of two bytes takes seventy bytes of memory."""

LISTING_SECONDS = 10.0
"""Longest wait for the list of models."""


class OversizeError(Exception):
    """An endpoint sends more than a limit allows. The message says which limit."""


class Room:
    """A number of bytes, or of samples, that many requests share.

    Args:
        most: the number.
        within: an outer room, in which everything that is taken here counts too.
    """

    def __init__(self, most: int, within: Room | None = None) -> None:
        self.free = most
        self._within = within

    def take(self, count: int) -> bool:
        """Take this number if it is free here and outside; otherwise change nothing and return False."""
        if count > self.free or (self._within is not None and not self._within.take(count)):
            return False
        self.free -= count
        return True

    def give_back(self, count: int) -> None:
        """Return what was taken."""
        self.free += count
        if self._within is not None:
            self._within.give_back(count)


class Share:
    """What one request takes of a room. It is given back at the end of the ``with`` block."""

    def __init__(self, room: Room) -> None:
        self._room, self._held = room, 0

    def take(self, count: int) -> bool:
        """As `Room.take`."""
        taken = self._room.take(count)
        self._held += count * taken
        return taken

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._room.give_back(self._held)
        self._held = 0


_replies = Room(REPLIES)
"""The bytes of all replies that this process is reading."""


class Reading(Share):
    """Counts the bytes of one reply while it is read."""

    def __init__(self) -> None:
        super().__init__(_replies)
        self._size = 0

    def add(self, piece: bytes) -> None:
        """Count a piece.

        Raises:
            OversizeError: the reply has more than `REPLY` bytes, or all replies together have more than `REPLIES`.
        """
        self._size += len(piece)
        if self._size > REPLY:
            raise OversizeError(f"more than {REPLY // MIB} MiB")
        if self._size > SMALL and not self.take(len(piece)):
            raise OversizeError(f"all answers together have more than {REPLIES // MIB} MiB")
