"""Keys and values in blocks, and attention that reads a shared prefix once for all rows that share it.

Attention of an iteration is planned once and used by every layer. Tokens that attend to the same run of blocks form
one *segment*: the queries of all rows that share a prefix with its keys, the rest of every row with its own keys,
a chunk of a prompt with all tokens before it. A segment gives outputs and log-sum-exps. The output of a token in
several segments is their average, weighted by the exponentials.
"""

from __future__ import annotations

import math
import warnings
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

Ints = npt.NDArray[np.int64]
PADDING_LIMIT = 128
"""Blocks of padding that cost less than one more segment; measured on a CPU."""


def _has_sparse_products() -> bool:
    """Whether this build of torch has sparse products on a CPU. Suppresses torch's warning that they are beta."""
    one = torch.ones(1, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            torch.sparse.sampled_addmm(one.to_sparse_csr(), one, one)
        except RuntimeError:
            return False
    return True


SPARSE = _has_sparse_products()


@dataclass(frozen=True)
class View:
    """Tokens of one row in an iteration: ``count`` positions of the flat batch, beginning at ``start``.

    They are the last of the row's ``length`` tokens, which are stored in ``blocks``.
    """

    start: int
    count: int
    length: int
    blocks: Sequence[int]


@dataclass(frozen=True)
class KeyValueSegment:
    """``n`` groups of ``q`` queries that attend to ``n`` runs of blocks, at most ``length`` tokens each.

    ``queries`` ``[n, q]`` are positions in the flat batch; padding is the last position. ``in_order`` is true if they
    are the whole batch in its order. ``rows`` ``[n * kv_heads * b]`` are the rows of the store to gather. ``hidden``
    ``[n, 1, q or 1, 1, length]`` is true where a query does not attend; None masks nothing. Groups of one query may
    have a ``pattern`` in place of the rows: a sparse matrix of heads by positions of the store, which holds the scores.
    """

    queries: Tensor
    in_order: bool
    length: int
    rows: Tensor | None
    hidden: Tensor | None
    pattern: Tensor | None


@dataclass(frozen=True)
class Plan:
    """An iteration's segments.

    ``places`` ``[tokens * kv_heads]`` are the positions in the store for the new keys and values. ``parts``
    ``[tokens * heads, m]`` are the positions of a head's outputs among the outputs of all segments; padding is one past
    their end. ``parts`` is None if there is only one segment. ``read`` counts the tokens whose keys and values are
    read; a shared run counts once.
    """

    places: Tensor
    segments: tuple[KeyValueSegment, ...]
    parts: Tensor | None
    read: int


class KVStore:
    """Keys and values of all layers, ``[n_blocks * kv_heads * block_size, head_dim]`` each.

    Memory is reserved but not touched, so unused blocks cost nothing. Unwritten positions read as zeros: a masked
    position has weight 0, and 0 times NaN would be NaN.
    """

    def __init__(
        self,
        layers: int,
        heads: int,
        kv_heads: int,
        head_dim: int,
        n_blocks: int,
        block_size: int,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        self.kv_heads, self.head_dim, self.n_blocks, self.block_size = kv_heads, head_dim, n_blocks, block_size
        self._device, self._dtype, self._group = device, dtype, heads // kv_heads
        self._sparse = SPARSE and device.type == "cpu" and dtype in (torch.float32, torch.float64)
        self._has_kernel = device.type == "cpu" and dtype in (torch.bfloat16, torch.float16)
        shape = (n_blocks * kv_heads * block_size, head_dim)
        self._layers = [(_zeros(shape, dtype, device), _zeros(shape, dtype, device)) for _ in range(layers)]
        self._gathered = [torch.empty(0, block_size * head_dim, dtype=dtype, device=device)] * 2
        self._heads = np.arange(kv_heads, dtype=np.int64)[:, None]
        self._nothing = (
            torch.zeros(1, head_dim, dtype=dtype, device=device),
            torch.full((1,), -math.inf, dtype=dtype, device=device),
        )

    def copy(self, pairs: Sequence[tuple[int, int]]) -> None:
        """Copy whole blocks, (from, to)."""
        source, target = (torch.tensor(side, device=self._device) for side in zip(*pairs, strict=True))
        for side in (side.view(self.n_blocks, -1) for layer in self._layers for side in layer):
            side.index_copy_(0, target, side.index_select(0, source))

    def clear(self, slots: Sequence[int]) -> None:
        """Overwrite slots with zeros, because they may hold NaN."""
        places = self._places(slots)
        for side in (side for layer in self._layers for side in layer):
            side.index_fill_(0, places, 0.0)

    def attend(
        self,
        plan: Plan,
        layer: int,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        softcap: float | None = None,
        sinks: Tensor | None = None,
    ) -> Tensor:
        """Write the new keys and values, then attend.

        Shapes: q ``[tokens, heads, head_dim]``, k and v ``[tokens, kv_heads, head_dim]``; the result is like q.
        ``softcap`` bounds the scores smoothly (Gemma 2). ``sinks`` ``[heads]`` are scores of a position without a value
        (gpt-oss).
        """
        keys, values = self._layers[layer]
        keys.index_copy_(0, plan.places, k.reshape(-1, self.head_dim))
        values.index_copy_(0, plan.places, v.reshape(-1, self.head_dim))
        first = plan.segments[0]
        if plan.parts is None and first.pattern is None and softcap is None and sinks is None:
            k, v = self._gather(0, first, keys), self._gather(1, first, values)
            grouped = q.view(len(k), self.kv_heads, -1, self.head_dim)
            seen = None if first.hidden is None else ~first.hidden[:, :, 0]
            return F.scaled_dot_product_attention(grouped, k, v, seen).reshape(q.shape)
        attended = [self._attend_segment(segment, keys, values, q, softcap) for segment in plan.segments]
        parts, several = plan.parts, plan.parts is not None and plan.parts.shape[1] > 1
        outs = attended[0][0] if parts is None else torch.cat([*(out for out, _, _ in attended), self._nothing[0]])
        if parts is not None and not several:
            outs = outs.index_select(0, parts[:, 0])
        if not several and sinks is None:
            return outs.view(q.shape)
        totals = torch.cat([(scores.amax(-1) - weights.amax(-1).log()).flatten() for _, scores, weights in attended])
        if parts is not None:
            totals = torch.cat([totals, self._nothing[1]])[parts]
            if several:
                shares = totals.softmax(-1).to(outs.dtype)
                outs = F.embedding_bag(parts, outs, mode="sum", per_sample_weights=shares)
            totals = totals.logsumexp(-1)
        if sinks is not None:
            outs = outs * (totals.view(len(q), -1) - sinks).sigmoid().view(-1, 1).to(outs.dtype)
        return outs.view(q.shape)

    def plan(self, views: Sequence[View], slots: Sequence[int]) -> Plan:
        """Group the tokens of an iteration into segments: rows with one token, which may share prefixes, and chunks."""
        if len(slots) == 1:
            alone = self._segment(np.zeros((1, 1), dtype=np.int64), np.array([views[0].blocks]), None, 1)
            return Plan(self._places(slots), (replace(alone, length=views[0].length),), None, views[0].length)
        decoding = [view for view in views if view.count == 1]
        chunks = [view for view in views if view.count > 1]
        segments: list[tuple[Ints, Ints, Ints | None]] = []
        read, past_end = 0, len(slots)
        if decoding:
            table = _rectangle([view.blocks for view in decoding], -1)
            own, runs = shared_runs(table)
            by_size = defaultdict(list)
            for rows, blocks in runs:
                by_size[(len(rows) - 1).bit_length()].append((rows, blocks))
                read += len(blocks) * self.block_size
            starts = np.array([view.start for view in decoding], dtype=np.int64)
            for group in by_size.values():
                queries = _rectangle([starts[rows] for rows, _ in group], past_end)
                lengths = np.array([len(blocks) for _, blocks in group]) * self.block_size
                sees = lengths[:, None] if lengths.min() < lengths.max() else None
                segments.append((queries, _rectangle([blocks for _, blocks in group], 0), sees))
            lengths = np.array([view.length for view in decoding], dtype=np.int64) - own * self.block_size
            blocks = -(-lengths // self.block_size)
            some = np.flatnonzero(blocks)  # a row has none if another row continues after its last token
            for rows in (some[places] for places in _by_magnitude(blocks[some])) if len(some) else ():
                columns = own[rows, None] + np.arange(blocks[rows].max())
                private = table[rows[:, None], np.minimum(columns, table.shape[1] - 1)]
                segments.append((starts[rows, None], np.maximum(private, 0), lengths[rows, None]))
            read += int(lengths.sum())
        by_length = defaultdict(list)
        for view in chunks:
            by_length[view.count.bit_length()].append(view)
            read += view.length
        for views in by_length.values():
            segments.append(_chunks(views, past_end))
        return self._assemble([self._segment(*segment, past_end) for segment in segments], segments, slots, read)

    def windowed(self, whole: Plan, views: Sequence[View], slots: Sequence[int], window: int | None) -> Plan:
        """The plan of layers with a window: a token attends to so many tokens, of which it is the last.

        Every row reads the blocks of its own window; no prefix is shared. If no row is longer than the window, it is
        the ``whole`` plan.
        """
        if window is None or all(view.length <= window for view in views):
            return whole
        groups, past_end, read = defaultdict(list), len(slots), 0
        for view in views:
            first = max(0, view.length - view.count + 1 - window) // self.block_size
            own = replace(view, length=view.length - first * self.block_size, blocks=view.blocks[first:])
            groups[own.count.bit_length(), own.length.bit_length()].append(own)
            read += own.length
        segments, done = [], []
        for same in groups.values():
            queries, blocks, sees = _chunks(same, past_end)
            segments.append((queries, blocks, sees))
            done.append(self._segment(queries, blocks, sees, past_end, np.maximum(sees - window, 0)))
        return self._assemble(done, segments, slots, read)

    def _assemble(
        self,
        done: Sequence[KeyValueSegment],
        segments: Sequence[tuple[Ints, Ints, Ints | None]],
        slots: Sequence[int],
        read: int,
    ) -> Plan:
        whole = len(done) == 1 and done[0].in_order and done[0].queries.shape[1] == 1
        parts = None if whole else self._there(self._parts([q for q, _, _ in segments], len(slots)))
        return Plan(self._places(slots), tuple(done), parts, read)

    def _segment(
        self, queries: Ints, blocks: Ints, sees: Ints | None, tokens: int, skips: Ints | None = None
    ) -> KeyValueSegment:
        """``blocks`` ``[n, b]``; ``sees`` ``[n, q or 1]`` counts the tokens a query attends to; None means all.

        ``skips`` ``[n, q]`` counts the first of these that it does not attend to.
        """
        length, hidden = blocks.shape[1] * self.block_size, None
        sparse = self._sparse and queries.shape[1] == 1 < len(queries)
        if sees is not None:
            length = int(sees.max())
            if not sparse:  # products in bfloat16 take several times as long with a part of a block
                length += -length % self.block_size
            places = np.arange(length)
            hidden = places >= sees[:, None, :, None, None] if sees.min() < length else None
            if skips is not None and skips.max() > 0:
                early = places < skips[:, None, :, None, None]
                hidden = early if hidden is None else hidden | early
        in_order = queries.size == tokens and bool((queries.ravel() == np.arange(tokens)).all())
        at, rows = self._there(np.minimum(queries, tokens - 1)), self._rows(blocks)
        hides = None if hidden is None else self._there(hidden)
        if sparse:
            return KeyValueSegment(at, in_order, length, None, hides, self._pattern(rows, length))
        return KeyValueSegment(at, in_order, length, self._there(rows.ravel()), hides, None)

    def _pattern(self, rows: Ints, length: int) -> Tensor:
        """A sparse matrix of query heads by positions of the store, with an entry for every attended position."""
        n, kv_heads, _ = rows.shape
        places = (rows[..., None] * self.block_size + np.arange(self.block_size)).reshape(n, kv_heads, 1, -1)
        shape = (n, kv_heads, self._group, length)
        columns = torch.from_numpy(places)[..., :length].expand(shape).flatten()
        values = torch.zeros(len(columns), dtype=self._dtype)
        starts = torch.arange(0, len(columns) + 1, length)
        size = (len(starts) - 1, kv_heads * self.n_blocks * self.block_size)
        return torch.sparse_csr_tensor(starts, columns, values, size, check_invariants=False)

    def _parts(self, queries: Sequence[Ints], tokens: int) -> Ints:
        """The positions of each head's outputs of each token among the outputs of all segments; see `Plan`."""
        heads, end = (self.kv_heads, self._group), 0
        places = []
        for n, width in (q.shape for q in queries):
            of_segment = np.arange(end, end + n * width * heads[0] * heads[1]).reshape(n, heads[0], width, heads[1])
            places.append(of_segment.swapaxes(1, 2).reshape(n * width, -1))
            end += of_segment.size
        token = np.concatenate([q.ravel() for q in queries])
        order = np.argsort(token, kind="stable")[: (token < tokens).sum()]
        token = token[order]
        nth = np.arange(len(token)) - np.searchsorted(token, token)
        parts = np.full((tokens, nth.max() + 1, heads[0] * heads[1]), end)
        parts[token, nth] = np.concatenate(places)[order]
        return parts.swapaxes(1, 2).reshape(tokens * heads[0] * heads[1], -1)

    def _there(self, array: npt.NDArray[Any]) -> Tensor:
        return torch.from_numpy(array).to(self._device, non_blocking=True)

    def _rows(self, blocks: Ints) -> Ints:
        """Rows of the store ``[…, kv_heads, b]`` that hold ``blocks`` ``[…, b]``."""
        rows: Ints = blocks[..., None, :] * self.kv_heads + self._heads
        return rows

    def _places(self, slots: Sequence[int]) -> Tensor:
        """The positions ``[tokens * kv_heads]`` of the heads of the tokens in these slots."""
        blocks, places = np.divmod(np.array(slots), self.block_size)
        return self._there(((blocks * self.kv_heads + self._heads) * self.block_size + places).T.ravel())

    def _attend_segment(
        self, segment: KeyValueSegment, keys: Tensor, values: Tensor, q: Tensor, softcap: float | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Outputs ``[n * kv_heads * q * group, head_dim]``, and scores and their softmax with one row per output.

        Scores are never in 16 bits: those of Qwen2 are so large that a step of bfloat16 is one and more. A fused kernel
        gives only their log-sum-exp, as one score with the whole weight.
        """
        n, width = segment.queries.shape
        _, heads, size = q.shape
        if not segment.in_order:
            q = q.index_select(0, segment.queries.flatten())
        if segment.pattern is not None:
            pattern, grouped = segment.pattern, q.reshape(-1, size)
            torch.sparse.sampled_addmm(pattern, grouped, keys.t(), beta=0.0, alpha=size**-0.5, out=pattern)
            scores = _capped(pattern.values().view(n, heads, -1), softcap)
            if segment.hidden is not None:  # not in place: the next layer multiplies the stored scores by beta
                scores = scores.masked_fill(segment.hidden[:, 0, 0], -math.inf)
            scores = scores.view(n * heads, -1)
            weights = scores.softmax(-1)
            return _weighted_sums(values, pattern.col_indices(), pattern.crow_indices(), weights), scores, weights
        grouped = q.view(n, width, self.kv_heads, -1, size).transpose(1, 2).reshape(n, self.kv_heads, -1, size)
        k, v = self._gather(0, segment, keys), self._gather(1, segment, values)
        if self._has_kernel and softcap is None:
            out, total = _fused(grouped, k, v, segment.hidden, width)
            total = total.reshape(-1, 1)
            return out.reshape(-1, size), total, torch.ones_like(total)
        exact = torch.promote_types(q.dtype, torch.float32)
        scores = _capped((grouped.to(exact) * size**-0.5) @ k.to(exact).transpose(2, 3), softcap)
        if segment.hidden is not None:
            scores.view(n, self.kv_heads, width, -1, segment.length).masked_fill_(segment.hidden, -math.inf)
        weights = scores.softmax(-1)
        return (weights.to(v.dtype) @ v).view(-1, size), scores, weights

    def _gather(self, side: int, segment: KeyValueSegment, stored: Tensor) -> Tensor:
        """``[n, kv_heads, length, head_dim]`` in a reused buffer, because new pages cost more than the copy."""
        rows = segment.rows
        assert rows is not None
        blocks = stored.view(-1, self.block_size * self.head_dim)
        if len(rows) > len(self._gathered[side]):
            self._gathered[side] = blocks.new_empty(len(rows) * 5 // 4, blocks.shape[1])
        out = torch.index_select(blocks, 0, rows, out=self._gathered[side][: len(rows)])
        return out.view(len(segment.queries), self.kv_heads, -1, self.head_dim).narrow(2, 0, segment.length)


def _chunks(views: Sequence[View], past_end: int) -> tuple[Ints, Ints, Ints]:
    """Queries, blocks, and the number of tokens each query attends to, for rows that need no sharing."""
    queries = _rectangle([np.arange(view.start, view.start + view.count) for view in views], past_end)
    sees = _rectangle([np.arange(view.length - view.count, view.length) for view in views], 0) + 1
    return queries, _rectangle([view.blocks for view in views], 0), sees


def _fused(q: Tensor, k: Tensor, v: Tensor, hidden: Tensor | None, width: int) -> tuple[Tensor, Tensor]:
    """Attention whose scores are float32, and their log-sum-exps: the kernel of `F.scaled_dot_product_attention`.

    Shapes: q ``[n, kv_heads, width * group, head_dim]``, k and v ``[n, kv_heads, length, head_dim]``; hidden as in
    `KeyValueSegment`.
    """
    mask = None
    if hidden is not None:
        seen = torch.zeros(hidden.shape, dtype=q.dtype).masked_fill_(hidden, -math.inf)
        n, length = len(q), k.shape[2]
        mask = seen.expand(n, 1, width, q.shape[2] // width, length).reshape(n, 1, -1, length)
    kernel = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    out, total = kernel(q, k, v, 0.0, False, attn_mask=mask)
    return out, total


def _capped(scores: Tensor, softcap: float | None) -> Tensor:
    return scores if softcap is None else (scores / softcap).tanh() * softcap


def _weighted_sums(values: Tensor, places: Tensor, starts: Tensor, weights: Tensor) -> Tensor:
    """Sums of ``values`` at ``places[starts[i]:starts[i + 1]]``: `F.embedding_bag` without its checks."""
    out: Tensor = torch.embedding_bag(values, places, starts, False, 0, False, weights.flatten(), True)[0]
    return out


def shared_runs(table: Ints) -> tuple[Ints, list[tuple[Ints, Ints]]]:
    """Which rows share which blocks.

    ``table`` ``[rows, blocks]`` holds the blocks of each row, padded with -1. Returns, for each row, the number of
    leading blocks that it shares with another row, and the maximal runs of blocks that the same two or more rows
    share, as (rows, blocks).
    """
    own = np.zeros(len(table), dtype=np.int64)
    group = np.zeros(len(table), dtype=np.int64)  # rows with the same blocks so far
    rows = np.arange(len(table))
    runs: list[tuple[Ints, list[int]]] = []
    run_of: dict[int, tuple[Ints, list[int]]] = {}  # by its first row
    stride = int(table.max()) + 2
    for column in range(table.shape[1] if len(table) > 1 else 0):
        blocks = table[rows, column]
        _, group, sizes = np.unique(group * stride + blocks, return_inverse=True, return_counts=True)
        shared = (sizes[group] > 1) & (blocks >= 0)
        rows, group, blocks = rows[shared], group[shared], blocks[shared]
        if not len(rows):
            break
        own[rows] = column + 1
        still: dict[int, tuple[Ints, list[int]]] = {}
        order = np.argsort(group, kind="stable")
        for same in np.split(order, np.flatnonzero(np.diff(group[order])) + 1):
            run = run_of.get(int(rows[same[0]]))
            if run is None or len(run[0]) != len(same):  # fewer rows share this block than the previous block
                run = (rows[same], [])
                runs.append(run)
            run[1].append(int(blocks[same[0]]))
            still[int(run[0][0])] = run
        run_of = still
    return own, [(members, np.array(ids)) for members, ids in runs]


def _by_magnitude(sizes: Ints) -> list[Ints]:
    """Indices grouped by the magnitude of their sizes; one group if padding all to the largest costs less."""
    if sizes.max() * len(sizes) - sizes.sum() < PADDING_LIMIT:
        return [np.arange(len(sizes))]
    magnitude = np.frexp(sizes)[1]
    return [np.flatnonzero(magnitude == m) for m in np.unique(magnitude)]


def _zeros(shape: tuple[int, int], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Zeros. On a CPU the system allocates their pages on first use, while `torch.zeros` would write all of them."""
    if device.type != "cpu":
        return torch.zeros(shape, dtype=dtype, device=device)
    return torch.from_numpy(np.zeros(shape[0] * shape[1] * dtype.itemsize, dtype=np.uint8)).view(dtype).view(shape)


def _rectangle(lists: Sequence[Sequence[int] | Ints], padding: int) -> Ints:
    lengths = np.array([len(values) for values in lists])
    out = np.full((len(lists), lengths.max()), padding, dtype=np.int64)
    out[np.arange(out.shape[1]) < lengths[:, None]] = np.fromiter(chain.from_iterable(lists), np.int64, lengths.sum())
    return out
