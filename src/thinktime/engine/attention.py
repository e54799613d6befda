"""Keys and values in blocks, and attention that reads a shared prefix once for all rows that share it.

What an iteration attends to is planned once and used by every layer. Tokens that look at the same run of blocks
are one *piece*: the queries of all rows that share a prefix against its keys, the rest of every row against its own,
a chunk of a prompt against all before it. A piece gives outputs and log-sum-exps; a token that
took part in several pieces is their average, weighted by the exponentials.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Ints = npt.NDArray[np.int64]
PADDING_WORTH_A_PIECE = 128
"""Blocks; measured on a CPU."""


@dataclass(frozen=True)
class View:
    """Tokens of one row in an iteration: ``count`` places of the flat batch from ``start`` on.

    They are the last of the row's ``length`` tokens, which lie in ``blocks``.
    """

    start: int
    count: int
    length: int
    blocks: Sequence[int]


@dataclass(frozen=True)
class Piece:
    """``n`` groups of queries against ``n`` runs of blocks, padded to a rectangle.

    ``queries`` ``[n, q]`` are places in the flat batch (padding: one past its end), ``rows`` ``[kv_heads * n * b]``
    the rows of the store to gather, and ``hidden`` ``[n, q or 1, b * block_size]`` is true where a query must not
    look (None: nowhere). ``in_order`` says that the queries are the whole batch as it is.
    """

    queries: Tensor
    rows: Tensor
    hidden: Tensor | None
    in_order: bool


@dataclass(frozen=True)
class Plan:
    """An iteration's pieces.

    ``slots`` ``[tokens]`` is where its keys and values go; ``read`` counts the tokens whose keys and values are read,
    those of a shared run once.
    """

    slots: Tensor
    pieces: tuple[Piece, ...]
    read: int

    @property
    def whole(self) -> bool:
        """Whether one piece is all there is, so that nothing has to be merged."""
        return len(self.pieces) == 1 and self.pieces[0].in_order


class KVStore:
    """Keys and values of all layers, ``[kv_heads * n_blocks, block_size * head_dim]`` each.

    Memory is reserved, not touched: what is never written costs nothing. It reads as zeros, for a place that a row must
    not look at has weight 0, and 0 times what is not a number is not a number.
    """

    def __init__(
        self,
        layers: int,
        kv_heads: int,
        head_dim: int,
        n_blocks: int,
        block_size: int,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        self.kv_heads, self.head_dim, self.n_blocks, self.block_size = kv_heads, head_dim, n_blocks, block_size
        self._device = device
        shape = (kv_heads * n_blocks, block_size * head_dim)
        self._layers = [(_zeros(shape, dtype, device), _zeros(shape, dtype, device)) for _ in range(layers)]
        self._gathered = [torch.empty(0, shape[1], dtype=dtype, device=device)] * 2
        self._heads = np.arange(kv_heads, dtype=np.int64)

    def copy(self, pairs: Sequence[tuple[int, int]]) -> None:
        """Copy whole blocks, (from, to)."""
        source, target = (self._there(self._rows(np.array(side))) for side in zip(*pairs, strict=True))
        for keys, values in self._layers:
            keys[target], values[target] = keys[source], values[source]

    def clear(self, slots: Sequence[int]) -> None:
        """Write zeros, over what may not be numbers."""
        places = torch.tensor(slots, device=self._device)
        for side in (side for layer in self._layers for side in layer):
            side.view(self.kv_heads, self.n_blocks * self.block_size, self.head_dim).index_fill_(1, places, 0.0)

    def attend(self, plan: Plan, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Write the new keys and values, then attend.

        Shapes: q ``[tokens, heads, head_dim]``, k and v ``[tokens, kv_heads, head_dim]``; the result is like q.
        """
        keys, values = self._layers[layer]
        by_slot = (self.kv_heads, self.n_blocks * self.block_size, self.head_dim)
        keys.view(by_slot).index_copy_(1, plan.slots, k.transpose(0, 1))
        values.view(by_slot).index_copy_(1, plan.slots, v.transpose(0, 1))
        tokens, heads, _ = q.shape
        grouped = q.view(tokens, self.kv_heads, heads // self.kv_heads, self.head_dim).transpose(0, 1)
        if plan.whole:
            scores, v = self._scores(plan.pieces[0], keys, values, grouped)
            out = (scores.softmax(-1) @ v).view(grouped.shape)
        else:
            out = _merge(
                plan.pieces, [self._attend_piece(piece, keys, values, grouped) for piece in plan.pieces], tokens
            )
        return out.transpose(0, 1).reshape(q.shape)

    def plan(self, views: Sequence[View], slots: Sequence[int]) -> Plan:
        """Group what an iteration attends to: rows with one token, whose prefixes may be shared, and longer chunks."""
        decoding = [view for view in views if view.count == 1]
        chunks = [view for view in views if view.count > 1]
        pieces: list[Piece] = []
        read, past_end = 0, len(slots)
        if decoding:
            table = _table(decoding)
            own, runs = shared_runs(table)
            by_size = defaultdict(list)
            for rows, blocks in runs:
                by_size[(len(rows) - 1).bit_length()].append((rows, blocks))
                read += len(blocks) * self.block_size
            starts = np.array([view.start for view in decoding], dtype=np.int64)
            for group in by_size.values():
                queries = _rectangle([starts[rows] for rows, _ in group], past_end)
                pieces.append(self._piece(queries, [blocks for _, blocks in group], None, past_end))
            lengths = np.array([view.length for view in decoding], dtype=np.int64) - own * self.block_size
            blocks = -(-lengths // self.block_size)
            some = np.flatnonzero(blocks)  # a row has none when another one started behind its last token
            for rows in (some[places] for places in _alike(blocks[some])) if len(some) else ():
                private = [table[row, own[row] : own[row] + blocks[row]] for row in rows]
                pieces.append(self._piece(starts[rows, None], private, lengths[rows, None], past_end))
            read += int(lengths.sum())
        alike = defaultdict(list)
        for view in chunks:
            alike[view.count.bit_length()].append(view)
            read += view.length
        for views in alike.values():
            queries = _rectangle([np.arange(v.start, v.start + v.count) for v in views], past_end)
            sees = _rectangle([np.arange(v.length - v.count, v.length) for v in views], 0) + 1
            pieces.append(self._piece(queries, [np.array(v.blocks) for v in views], sees, past_end))
        return Plan(torch.tensor(slots, device=self._device), tuple(pieces), read)

    def _piece(self, queries: Ints, runs: Sequence[Ints], sees: Ints | None, past_end: int) -> Piece:
        """``sees`` ``[n, q]`` counts the tokens of its run that a query looks at; None: all of it."""
        lengths = np.array([len(run) for run in runs])
        blocks = _rectangle(runs, 0)
        if sees is None and (lengths < blocks.shape[1]).any():
            sees = (lengths * self.block_size)[:, None]
        hidden = None
        if sees is not None:
            hidden = self._there(np.arange(blocks.shape[1] * self.block_size) >= sees[..., None])
        in_order = queries.size == past_end and bool((queries.ravel() == np.arange(past_end)).all())
        return Piece(self._there(queries), self._there(self._rows(blocks.ravel())), hidden, in_order)

    def _there(self, array: npt.NDArray[Any]) -> Tensor:
        return torch.from_numpy(array).to(self._device, non_blocking=True)

    def _rows(self, blocks: Ints) -> Ints:
        rows: Ints = (self._heads[:, None] * self.n_blocks + blocks).ravel()
        return rows

    def _scores(self, piece: Piece, keys: Tensor, values: Tensor, q: Tensor) -> tuple[Tensor, Tensor]:
        """Scaled scores ``[kv_heads, n, q * group, tokens]`` and the values they weigh."""
        n, width = piece.queries.shape
        heads, tokens, group, size = q.shape
        if not piece.in_order:
            q = q.index_select(1, piece.queries.flatten().clamp(max=tokens - 1))
        mine = (q * size**-0.5).reshape(heads, n, width * group, size)
        k = self._gather(0, keys, piece.rows).view(heads, n, -1, size)
        scores = mine @ k.transpose(2, 3)
        if piece.hidden is not None:
            hidden = piece.hidden if piece.hidden.shape[1] == 1 else piece.hidden.repeat_interleave(group, 1)
            scores.masked_fill_(hidden, -math.inf)
        return scores, self._gather(1, values, piece.rows).view(heads, n, -1, size)

    def _attend_piece(self, piece: Piece, keys: Tensor, values: Tensor, q: Tensor) -> tuple[Tensor, Tensor]:
        """Outputs ``[kv_heads, n * q, group, head_dim]`` and log-sum-exps ``[kv_heads, n * q, group]``."""
        scores, v = self._scores(piece, keys, values, q)
        total = scores.logsumexp(-1)
        out = (scores - total[..., None]).exp_() @ v
        heads, n, rows, size = out.shape
        group = q.shape[2]
        return out.view(heads, n * rows // group, group, size), total.view(heads, n * rows // group, group)

    def _gather(self, side: int, stored: Tensor, rows: Tensor) -> Tensor:
        """Rows of a layer, in memory that is used again: getting new pages would cost more than the copy."""
        if len(rows) > len(self._gathered[side]):
            self._gathered[side] = stored.new_empty(len(rows) * 5 // 4, stored.shape[1])
        return torch.index_select(stored, 0, rows, out=self._gathered[side][: len(rows)])


def shared_runs(table: Ints) -> tuple[Ints, list[tuple[Ints, Ints]]]:
    """Which rows share which blocks.

    ``table`` ``[rows, blocks]`` holds the blocks of each row, -1 where it has no more. Returns, for each row, the
    number of leading blocks that it shares with anyone, and the maximal runs of blocks read by the same two or more
    rows, as (rows, blocks).
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
            if run is None or len(run[0]) != len(same):  # fewer rows share this block than the one before
                run = (rows[same], [])
                runs.append(run)
            run[1].append(int(blocks[same[0]]))
            still[int(run[0][0])] = run
        run_of = still
    return own, [(members, np.array(ids)) for members, ids in runs]


def _alike(sizes: Ints) -> list[Ints]:
    """Places with sizes of the same magnitude, where padding all to the largest would cost more than more pieces."""
    if sizes.max() * len(sizes) - sizes.sum() < PADDING_WORTH_A_PIECE:
        return [np.arange(len(sizes))]
    magnitude = np.frexp(sizes)[1]
    return [np.flatnonzero(magnitude == m) for m in np.unique(magnitude)]


def _table(views: Sequence[View]) -> Ints:
    return _rectangle([np.array(view.blocks) for view in views], -1)


def _zeros(shape: tuple[int, int], dtype: torch.dtype, device: torch.device) -> Tensor:
    """On a CPU zeros that the system hands out page by page as they are used; those of torch are written at once."""
    if device.type != "cpu":
        return torch.zeros(shape, dtype=dtype, device=device)
    return torch.from_numpy(np.zeros(shape[0] * shape[1] * dtype.itemsize, dtype=np.uint8)).view(dtype).view(shape)


def _rectangle(lists: Sequence[Ints], padding: int) -> Ints:
    out = np.full((len(lists), max(map(len, lists))), padding, dtype=np.int64)
    for row, values in enumerate(lists):
        out[row, : len(values)] = values
    return out


def _merge(pieces: Sequence[Piece], parts: Sequence[tuple[Tensor, Tensor]], tokens: int) -> Tensor:
    """Average the outputs of a token's pieces, weighted by the exponentials of their log-sum-exps."""
    places = torch.cat([piece.queries.flatten() for piece in pieces])
    outs, totals = (torch.cat(side, 1) for side in zip(*parts, strict=True))
    heads, _, group, size = outs.shape
    at = places[None, :, None].expand(heads, -1, group)
    highest = totals.new_full((heads, tokens + 1, group), -math.inf)
    highest.scatter_reduce_(1, at, totals, "amax")
    weights = (totals - highest[:, places]).exp_()
    weight = torch.zeros_like(highest).index_add_(1, places, weights)
    summed = outs.new_zeros((heads, tokens + 1, group, size))
    summed.index_add_(1, places, outs.mul_(weights[..., None]))
    return (summed / weight[..., None])[:, :tokens]
