"""Hidden states averaged over the segments of what a row says, as it says it.

Never the whole of tokens by layers by size: a running sum per layer, and the means of the segments that have ended.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Segments:
    """Which hidden states to average: those behind each of ``layers``, counted from 0, before the model's last norm.

    A segment ends after ``tokens`` of them (0: never) and after each of ``end_ids``; the last one may be short.
    """

    layers: tuple[int, ...]
    tokens: int = 0
    end_ids: frozenset[int] = frozenset()


class SegmentMeans:
    """The means so far, of the tokens from place ``start`` of a row on. What is read again is counted once."""

    def __init__(self, segments: Segments, start: int) -> None:
        self._segments, self._next = segments, start
        self._means: list[Tensor] = []
        self._sum, self._count = torch.zeros(0), 0

    def add(self, states: Mapping[int, Tensor], ids: Sequence[int], first: int) -> None:
        """``states`` ``[tokens, hidden]`` by layer, behind ``ids``, of which the first is at place ``first``."""
        for offset in range(max(0, self._next - first), len(ids)):
            state = torch.stack([states[layer][offset] for layer in self._segments.layers]).float()
            self._sum = self._sum + state if self._count else state
            self._count += 1
            if self._count == self._segments.tokens or ids[offset] in self._segments.end_ids:
                self._means.append(self._sum / self._count)
                self._count = 0
        self._next = max(self._next, first + len(ids))

    def tensor(self) -> Tensor:
        """``[segments, layers, hidden]``; of no tokens ``[0]``."""
        means = [*self._means, self._sum / self._count] if self._count else self._means
        return torch.stack(means).cpu() if means else torch.zeros(0)
