"""Embeddings of steps that need no model: hashed character n-grams."""

from __future__ import annotations

from collections.abc import Sequence
from zlib import crc32

from thinktime.core.types import Embedding, Node
from thinktime.core.usage import Usage
from thinktime.generators.text import added_text


class HashedNgrams:
    """Counts of the character n-grams in the text that a node adds to its parent, hashed into ``size`` buckets."""

    def __init__(self, n: int = 3, size: int = 512) -> None:
        self.n, self.size = n, size
        self.name = f"hashed {n}-grams/{size}"

    def worst_case(self, node: Node) -> Usage:
        """One embedding; hashing takes no floating-point operations."""
        return Usage(embeddings=1)

    async def embed(self, nodes: Sequence[Node]) -> list[Embedding]:
        """One embedding per node; the vector of an empty step is all ones.

        The seconds are not charged: vectors are not banked, and a replay has to cost the same as the live run.
        """
        return [Embedding(tuple(self._vector(added_text(node))), Usage(embeddings=1)) for node in nodes]

    def _vector(self, text: str) -> list[float]:
        padded = f" {text.lower().strip()} "
        vector = [0.0] * self.size
        for start in range(len(padded) - self.n + 1):
            vector[crc32(padded[start : start + self.n].encode()) % self.size] += 1.0
        return vector if any(vector) else [1.0] * self.size
