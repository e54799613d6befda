"""Embeddings of steps that need no model: hashed character n-grams."""

from __future__ import annotations

from collections.abc import Sequence
from zlib import crc32

from thinktime.core.types import Node
from thinktime.generators.text import added_text


class HashedNgrams:
    """What a node says beyond its parent, as counts of its character n-grams, hashed into ``size`` places."""

    def __init__(self, n: int = 3, size: int = 512) -> None:
        self.n, self.size = n, size

    async def embed(self, nodes: Sequence[Node]) -> list[list[float]]:
        """One vector a node; that of an empty step is all ones."""
        return [self._vector(added_text(node)) for node in nodes]

    def _vector(self, text: str) -> list[float]:
        padded = f" {text.lower().strip()} "
        vector = [0.0] * self.size
        for start in range(len(padded) - self.n + 1):
            vector[crc32(padded[start : start + self.n].encode()) % self.size] += 1.0
        return vector if any(vector) else [1.0] * self.size
