"""Where states are kept: in memory up to a limit, the longest unused of the rest in a temporary file.

A tree over denoising steps has a state at every node. What counts against the limit is what is alive: a state that
nobody holds any more leaves memory, and its place in the file is used again.
"""

from __future__ import annotations

import tempfile
import weakref
from collections import OrderedDict

import numpy as np

from thinktime.diffusion.levels import Array


class Slot:
    """One array on a shelf: in memory, or at an offset of the file."""

    def __init__(self, array: Array) -> None:
        self.array: Array | None = array
        self.shape, self.size = array.shape, array.nbytes
        self.offset: int | None = None


class Kept:
    """An array that a `Shelf` keeps for as long as somebody holds this."""

    def __init__(self, shelf: Shelf, array: Array) -> None:
        self._shelf, self._slot = shelf, Slot(array)
        weakref.finalize(self, shelf.forget, self._slot).atexit = False
        shelf.touch(self._slot)

    def take(self) -> Array:
        """The array, from wherever it is."""
        return self._shelf.touch(self._slot)


class Shelf:
    """Keeps arrays of float32 for one thread.

    Args:
        most_bytes: in memory; the one that was used last stays there, whatever its size.
    """

    def __init__(self, most_bytes: int) -> None:
        self._most = most_bytes
        self._in_memory: OrderedDict[Slot, None] = OrderedDict()
        self._file = tempfile.TemporaryFile()  # noqa: SIM115  # it lives as long as the shelf
        self._end = 0
        self._free: dict[int, list[int]] = {}
        self.held = 0
        """Bytes in memory now."""

    def keep(self, array: Array) -> Kept:
        """Put an array on the shelf."""
        return Kept(self, array)

    def touch(self, slot: Slot) -> Array:
        """The array of a slot, which becomes the last that may leave memory."""
        if slot.array is None:
            assert slot.offset is not None
            self._file.seek(slot.offset)
            slot.array = np.frombuffer(self._file.read(slot.size), np.float32).reshape(slot.shape)
        if slot not in self._in_memory:
            self._in_memory[slot] = None
            self.held += slot.size
        self._in_memory.move_to_end(slot)
        while self.held > self._most and len(self._in_memory) > 1:
            self._put_away(next(iter(self._in_memory)))
        return slot.array

    def forget(self, slot: Slot) -> None:
        """Nobody holds this any more."""
        if slot in self._in_memory:
            del self._in_memory[slot]
            self.held -= slot.size
        if slot.offset is not None:
            self._free.setdefault(slot.size, []).append(slot.offset)

    def _put_away(self, slot: Slot) -> None:
        if slot.offset is None and slot.array is not None:
            places = self._free.get(slot.size)
            slot.offset = places.pop() if places else self._end
            self._end = max(self._end, slot.offset + slot.size)
            self._file.seek(slot.offset)
            self._file.write(slot.array.tobytes())
        slot.array = None
        del self._in_memory[slot]
        self.held -= slot.size
