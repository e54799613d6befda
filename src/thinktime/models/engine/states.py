"""Hidden states averaged over segments of a row's tokens, while the row is sampled.

Only a running sum per layer and the means of finished segments are kept, never the states of all tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Segments:
    """The hidden states to average: those after each of ``layers``, counted from 0, before the model's last norm.

    A segment ends after ``tokens`` tokens (0 is no limit) and after each of ``end_ids``; the last one may be shorter.
    """

    layers: tuple[int, ...]
    tokens: int = 0
    end_ids: frozenset[int] = frozenset()


class SegmentMeans:
    """The means so far of a row's tokens from ``start`` on. A token that is processed twice counts once."""

    def __init__(self, segments: Segments, start: int) -> None:
        self._segments, self._next = segments, start
        self._means: list[Tensor] = []
        self._sum, self._count = torch.zeros(0), 0

    def add(self, states: Mapping[int, Tensor], ids: Sequence[int], first: int) -> None:
        """Add ``states`` ``[tokens, hidden]`` by layer. They belong to ``ids``, which begin at position ``first``."""
        for offset in range(max(0, self._next - first), len(ids)):
            state = torch.stack([states[layer][offset] for layer in self._segments.layers]).float()
            self._sum = self._sum + state if self._count else state
            self._count += 1
            if self._count == self._segments.tokens or ids[offset] in self._segments.end_ids:
                self._means.append(self._sum / self._count)
                self._count = 0
        self._next = max(self._next, first + len(ids))

    def tensor(self) -> Tensor:
        """The means ``[segments, layers, hidden]``, or ``[0]`` if there are no tokens."""
        means = [*self._means, self._sum / self._count] if self._count else self._means
        return torch.stack(means).cpu() if means else torch.zeros(0)
