"""Sparse attention over the weights of our own models, and greedy decoding with it.

It stands beside the engine, not in it. The engine promises that the keys and values of a prefix are the same whoever
computed them, and shares them between rows. Here they depend on where the prompt ends, because prompts are read with
dense attention. It computes all scores and masks them, so it saves no time: it measures what a choice of positions
costs in accuracy.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from thinktime.generators.text import shared
from thinktime.models.engine.costs import Shape
from thinktime.models.engine.llama import Attend, Llama
from thinktime.planning.kinetics import Sparse

DENSE_LAYERS = frozenset({0})
"""Layers whose attention stays dense."""


def kept(sparse: Sparse, scores: Tensor, positions: Tensor, generator: torch.Generator) -> Tensor:
    """The positions that each query attends to, ``[rows, kv_heads, length]``.

    The scores of the queries that share keys are averaged, so they share their choice. The score of a block is the mean
    of the scores of its positions, which is the score of its mean key. Positions after the last whole block are kept.

    Args:
        sparse: the kind of attention.
        scores: of the positions before the softmax, ``[rows, kv_heads, group, length]``.
        positions: of the queries, ``[rows]``.
        generator: draws the positions of ``random``.
    """
    places = torch.arange(scores.shape[-1])
    seen = places <= positions[:, None]
    unit = sparse.block if sparse.kind == "block_topk" else 1
    blocks = (positions + 1 - sparse.sink - sparse.last).clamp(min=0) // unit  # to choose from, of each row
    first = sparse.sink
    middle = (places >= first) & (places < (first + blocks * unit)[:, None])
    chosen = torch.zeros(*scores.shape[:2], len(places), dtype=torch.bool)
    count = (len(places) - first) // unit
    if sparse.middle and count > 0:
        inner = slice(first, first + count * unit)
        grouped = scores.mean(2)[..., inner].reshape(*scores.shape[:2], count, unit).mean(-1)
        if sparse.kind == "random":
            grouped = torch.rand(grouped.shape, generator=generator)
        ranked = grouped.masked_fill((torch.arange(count) >= blocks[:, None])[:, None], -math.inf)
        best = ranked.topk(min(sparse.middle // unit, count), dim=-1).indices
        marked = torch.zeros_like(ranked, dtype=torch.bool).scatter_(-1, best, True)
        chosen[..., inner] = marked.repeat_interleave(unit, -1)
    within = (positions < sparse.budget)[:, None]  # the whole context is within the budget
    return seen[:, None] & (chosen | (~middle | within)[:, None])


@dataclass
class Share:
    """The mean share of the attention that is on kept positions, over layers, heads and queries."""

    total: float = 0.0
    count: int = 0

    def add(self, weights: Tensor, positions: Tensor) -> None:
        """Count the dense weights ``[rows, kv_heads, group, length]`` on these positions."""
        self.total += float((weights * positions[:, :, None]).sum())
        self.count += weights.shape[:3].numel()

    @property
    def mean(self) -> float:
        """From 0 to 1."""
        return self.total / self.count


@dataclass(frozen=True)
class Decoded:
    """Replies as token ids, and by kind of attention the share of the attention that its positions keep."""

    replies: list[list[int]]
    shares: dict[Sparse, Share] = field(default_factory=dict)


class Rows:
    """Prompts that are read with dense attention, and whose replies are decoded with any.

    Args:
        model: whose weights compute.
        shape: its shape.
        prompts: token ids.
        most: tokens of a reply.
        dtype: of keys and values.
    """

    @torch.inference_mode()
    def __init__(
        self,
        model: Llama,
        shape: Shape,
        prompts: Sequence[Sequence[int]],
        most: int,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self._model, self._shape, self._prompts, self._most = model, shape, prompts, most
        size = (len(prompts), max(map(len, prompts)) + most, shape.kv_heads, shape.head_dim)
        self._stored = [(torch.zeros(size, dtype=dtype), torch.zeros(size, dtype=dtype)) for _ in range(shape.layers)]
        common = min(shared(ids[:-1], prompts[0]) for ids in prompts)  # such as a worked example: it is read once
        hidden = []
        for row, ids in enumerate(prompts):
            start = common if row else 0
            for stored in (side for layer in self._stored for side in layer):
                stored[row, :start] = stored[0, :start]
            positions = torch.arange(start, len(ids))
            hidden.append(model.hidden(torch.tensor(ids)[start:], positions, self._of_prompt(row, positions))[-1])
        self._first = model.head(torch.stack(hidden))

    @torch.inference_mode()
    def greedy(
        self,
        ends: Callable[[Sequence[int]], bool],
        sparse: Sparse | None = None,
        watched: Sequence[Sparse] = (),
        seed: int = 0,
    ) -> Decoded:
        """The likeliest tokens after each prompt.

        Args:
            ends: whether a reply is complete.
            sparse: the attention of tokens after the prompt; None is dense.
            watched: kinds of attention whose share of the dense weights is measured too, without being used.
            seed: of random positions.
        """
        generator = torch.Generator().manual_seed(seed)
        found = Decoded([[] for _ in self._prompts])
        logits, running = self._first, list(range(len(self._prompts)))
        while running:
            for row, token in zip(running, logits.argmax(-1).tolist(), strict=True):
                found.replies[row].append(token)
            running = [row for row in running if len(found.replies[row]) < self._most and not ends(found.replies[row])]
            if running:
                last = torch.tensor([found.replies[row][-1] for row in running])
                at = torch.tensor([len(self._prompts[row]) + len(found.replies[row]) - 1 for row in running])
                attend = self._of_tokens(torch.tensor(running), at, sparse, watched, found.shares, generator)
                logits = self._model.head(self._model.hidden(last, at, attend))
        return found

    def _grouped(self, q: Tensor) -> Tensor:
        """Scaled queries ``[tokens, kv_heads, group, head_dim]``."""
        scaled: Tensor = q.reshape(len(q), self._shape.kv_heads, -1, self._shape.head_dim) * self._shape.head_dim**-0.5
        return scaled

    def _of_prompt(self, row: int, positions: Tensor) -> Attend:
        length = int(positions[-1]) + 1
        future = torch.arange(length) > positions[:, None]

        def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            keys, values = (stored[row, :length] for stored in self._stored[layer])
            keys[positions], values[positions] = k, v
            scores = torch.einsum("qkgd,lkd->kgql", self._grouped(q), keys).masked_fill(future, -math.inf)
            return torch.einsum("kgql,lkd->qkgd", scores.softmax(-1), values).reshape(q.shape)

        return attend

    def _of_tokens(
        self,
        rows: Tensor,
        positions: Tensor,
        sparse: Sparse | None,
        watched: Sequence[Sparse],
        shares: dict[Sparse, Share],
        generator: torch.Generator,
    ) -> Attend:
        longest = int(positions.max()) + 1
        future = (torch.arange(longest) > positions[:, None])[:, None, None]

        def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            keys, values = self._stored[layer]
            keys[rows, positions], values[rows, positions] = k, v
            scores = torch.einsum("rkgd,rlkd->rkgl", self._grouped(q), keys[rows, :longest])
            weights = scores.masked_fill(future, -math.inf).softmax(-1)
            if layer not in DENSE_LAYERS:
                for kind in watched:
                    shares.setdefault(kind, Share()).add(weights, kept(kind, scores, positions, generator))
                if sparse is not None:
                    seen = kept(sparse, scores, positions, generator)
                    shares.setdefault(sparse, Share()).add(weights, seen)
                    weights = scores.masked_fill(~seen[:, :, None], -math.inf).softmax(-1)
            return torch.einsum("rkgl,rlkd->rkgd", weights, values[rows, :longest]).reshape(q.shape)

        return attend
