"""Keeps states in memory up to a limit; beyond it the least recently used ones move to a temporary file.

A tree over denoising steps has a state at every node. A state without references leaves memory, and its space in the
file is reused.
"""

from __future__ import annotations

import tempfile
import weakref
from collections import OrderedDict

import numpy as np

from thinktime.models.diffusion.levels import Array


class Slot:
    """The location of one array: in memory, or at an offset of the file."""

    def __init__(self, array: Array) -> None:
        self.array: Array | None = array
        self.shape, self.size = array.shape, array.nbytes
        self.offset: int | None = None


class StoredArray:
    """A handle of an array in a `SpillStore`, which keeps the array as long as the handle lives."""

    def __init__(self, store: SpillStore, array: Array) -> None:
        self._store, self._slot = store, Slot(array)
        weakref.finalize(self, store.forget, self._slot).atexit = False
        store.load(self._slot)

    def get(self) -> Array:
        """The array, loaded from the file if needed."""
        return self._store.load(self._slot)


class SpillStore:
    """Stores float32 arrays, for use by one thread.

    Args:
        most_bytes: most bytes in memory; the array used last stays there even if it is larger.
    """

    def __init__(self, most_bytes: int) -> None:
        self._most = most_bytes
        self._in_memory: OrderedDict[Slot, None] = OrderedDict()
        self._file = tempfile.TemporaryFile()  # noqa: SIM115  # it lives as long as the store
        self._end = 0
        self._free: dict[int, list[int]] = {}
        self.held = 0
        """Bytes in memory now."""

    def put(self, array: Array) -> StoredArray:
        """Store an array."""
        return StoredArray(self, array)

    def load(self, slot: Slot) -> Array:
        """The array of a slot, which becomes the most recently used."""
        if slot.array is None:
            assert slot.offset is not None
            self._file.seek(slot.offset)
            slot.array = np.frombuffer(self._file.read(slot.size), np.float32).reshape(slot.shape)
        if slot not in self._in_memory:
            self._in_memory[slot] = None
            self.held += slot.size
        self._in_memory.move_to_end(slot)
        while self.held > self._most and len(self._in_memory) > 1:
            self._spill(next(iter(self._in_memory)))
        return slot.array

    def forget(self, slot: Slot) -> None:
        """Release a slot whose handle is gone."""
        if slot in self._in_memory:
            del self._in_memory[slot]
            self.held -= slot.size
        if slot.offset is not None:
            self._free.setdefault(slot.size, []).append(slot.offset)

    def _spill(self, slot: Slot) -> None:
        if slot.offset is None and slot.array is not None:
            offsets = self._free.get(slot.size)
            slot.offset = offsets.pop() if offsets else self._end
            self._end = max(self._end, slot.offset + slot.size)
            self._file.seek(slot.offset)
            self._file.write(slot.array.tobytes())
        slot.array = None
        del self._in_memory[slot]
        self.held -= slot.size
