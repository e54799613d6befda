"""Attention over shared blocks equals the attention of each row alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from thinktime.models.engine.attention import KVStore, View, shared_runs
from thinktime.models.engine.blocks import BlockPool, Prefix

Runs = set[tuple[tuple[int, ...], tuple[int, ...]]]


def runs_of(table: list[list[int]]) -> tuple[list[int], Runs]:
    width = max(map(len, table))
    padded = np.array([row + [-1] * (width - len(row)) for row in table], dtype=np.int64)
    own, runs = shared_runs(padded)
    return own.tolist(), {(tuple(rows.tolist()), tuple(blocks.tolist())) for rows, blocks in runs}


def runs_by_hand(table: list[list[int]]) -> tuple[list[int], Runs]:
    """The same result, computed prefix by prefix: which other rows have this prefix?"""
    own = [0] * len(table)
    runs: list[tuple[tuple[int, ...], list[int]]] = []
    for depth in range(1, max(map(len, table)) + 1):
        for prefix in dict.fromkeys(tuple(row[:depth]) for row in table if len(row) >= depth):
            rows = tuple(i for i, row in enumerate(table) if tuple(row[:depth]) == prefix)
            if len(rows) < 2:
                continue
            for row in rows:
                own[row] = depth
            longer = next((run for run in runs if run[0] == rows), None)
            if longer is None:
                runs.append((rows, [prefix[-1]]))
            else:
                longer[1].append(prefix[-1])
    return own, {(rows, tuple(blocks)) for rows, blocks in runs}


def test_a_run_ends_where_its_rows_diverge() -> None:
    table = [[4, 7, 1], [4, 7, 2], [4, 8, 3, 5], [4, 8, 3, 6], [9]]
    assert runs_of(table) == (
        [2, 2, 3, 3, 0],
        {((0, 1, 2, 3), (4,)), ((0, 1), (7,)), ((2, 3), (8, 3))},
    )


def test_a_run_continues_past_the_end_of_a_shorter_row() -> None:
    assert runs_of([[1], [1, 2, 3], [1, 2, 3]]) == ([1, 3, 3], {((0, 1, 2), (1,)), ((1, 2), (2, 3))})


def test_the_same_block_after_different_blocks_is_no_run() -> None:
    assert runs_of([[1, 3], [2, 3]]) == ([0, 0], set())


@given(st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=6), min_size=1, max_size=8))
def test_runs_equal_those_computed_prefix_by_prefix(table: list[list[int]]) -> None:
    assert runs_of(table) == runs_by_hand(table)


class Rows:
    """Rows over one store, and a copy of all keys and values that each row should attend to.

    ``offset`` is added to one number of every key. So all scores of a query are larger, and its weights stay nearly the
    same.
    """

    def __init__(
        self,
        heads: int,
        kv_heads: int,
        dtype: torch.dtype = torch.float64,
        head_dim: int = 4,
        n_blocks: int = 80,
        block_size: int = 4,
        offset: float = 0.0,
    ) -> None:
        self.heads, self.kv_heads, self.head_dim, self.dtype = heads, kv_heads, head_dim, dtype
        self.pool = BlockPool(n_blocks, block_size)
        self.store = KVStore(1, heads, kv_heads, head_dim, n_blocks, block_size, dtype, torch.device("cpu"))
        self.prefixes: list[Prefix] = []
        self.history: list[tuple[Tensor, Tensor]] = []
        self.names, self.offset = 0, torch.tensor([offset] + [0.0] * (head_dim - 1), dtype=torch.float64)
        self.random = torch.Generator().manual_seed(0)

    def start(self, prefix: Prefix | None = None, keys: Tensor | None = None, values: Tensor | None = None) -> int:
        none = torch.empty(0, self.kv_heads, self.head_dim, dtype=torch.float64)
        self.prefixes.append(prefix or Prefix())
        self.history.append((none if keys is None else keys, none if values is None else values))
        return len(self.prefixes) - 1

    def fork(self, row: int) -> int:
        return self.start(self.pool.fork(self.prefixes[row]), *self.history[row])

    def numbers(self, heads: int, offset: Tensor | float = 0.0) -> Tensor:
        drawn = torch.randn(heads, self.head_dim, generator=self.random, dtype=torch.float64) + offset
        return drawn.to(self.dtype).double()

    def iterate(self, counts: list[tuple[int, int]]) -> int:
        """Read ``count`` tokens of each row, check every output, and return how many tokens were read."""
        slots: list[int] = []
        views, q, k, v, expected = [], [], [], [], []
        for row, count in counts:
            prefix = self.prefixes[row]
            start = len(slots)
            for _ in range(count):
                self.names += 1
                slots.append(self.pool.append(prefix, self.names))
                q.append(self.numbers(self.heads))
                k.append(self.numbers(self.kv_heads, self.offset))
                v.append(self.numbers(self.kv_heads))
                keys, values = self.history[row]
                self.history[row] = torch.cat((keys, k[-1][None])), torch.cat((values, v[-1][None]))
                expected.append(self.alone(row, q[-1]))
            views.append(View(start, count, prefix.length, prefix.blocks))
        return self.check(views, slots, torch.stack(q), torch.stack(k), torch.stack(v), torch.stack(expected))

    def check(self, views: list[View], slots: list[int], q: Tensor, k: Tensor, v: Tensor, expected: Tensor) -> int:
        if self.pool.copies:
            self.store.copy(self.pool.copies)
        plan = self.store.plan(views, slots)
        out = self.store.attend(plan, 0, q.to(self.dtype), k.to(self.dtype), v.to(self.dtype))
        torch.testing.assert_close(out.double(), expected, atol=8 * torch.finfo(self.dtype).eps, rtol=0)
        self.pool.settle()
        return plan.read

    def alone(self, row: int, q: Tensor) -> Tensor:
        """Plain attention of one query to all tokens of its row."""
        keys, values = (x.repeat_interleave(self.heads // self.kv_heads, 1) for x in self.history[row])
        weights = (torch.einsum("hd,nhd->hn", q, keys) / self.head_dim**0.5).softmax(-1)
        return torch.einsum("hn,nhd->hd", weights, values)


@pytest.mark.parametrize(
    ("dtype", "offset"),
    [
        (torch.float64, 0.0),
        (torch.float32, 0.0),
        (torch.bfloat16, 0.0),
        (torch.bfloat16, 300.0),  # keys of Qwen2 give such scores, of which a step of bfloat16 is one and more
    ],
)
@pytest.mark.parametrize(("heads", "kv_heads"), [(2, 2), (6, 2), (3, 1)])
def test_rows_of_a_tree_attend_as_they_do_alone(heads: int, kv_heads: int, dtype: torch.dtype, offset: float) -> None:
    rows = Rows(heads, kv_heads, dtype, offset=offset)
    root = rows.start()
    rows.iterate([(root, 9)])
    left, right = rows.fork(root), rows.fork(root)
    rows.iterate([(root, 1), (left, 1), (right, 5)])
    leaves = [rows.fork(left) for _ in range(3)]
    rows.iterate([(root, 1), (left, 1), (right, 1), *((leaf, 1) for leaf in leaves)])
    stranger = rows.start()
    for _ in range(5):
        rows.iterate([(stranger, 7), (root, 1), (right, 2), *((leaf, 1) for leaf in leaves)])
        rows.iterate([(stranger, 1), (root, 1)])
        rows.iterate([(stranger, 1)])


def test_a_shared_run_is_read_once() -> None:
    rows = Rows(2, 2)
    shared = rows.start()
    assert rows.iterate([(shared, 8)]) == 8  # two full blocks of four
    forks = [rows.fork(shared) for _ in range(3)]
    assert rows.iterate([(fork, 1) for fork in forks]) == 8 + 3 * 1
    assert rows.iterate([(fork, 1) for fork in forks]) == 8 + 3 * 2


def test_a_row_attends_to_tokens_that_another_row_processes_in_the_same_iteration() -> None:
    """The first row fills its last block; the second row begins after this block, in the same iteration."""
    rows = Rows(2, 1)
    first = rows.start()
    rows.iterate([(first, 7)])
    q, k, v = (torch.randn(2, heads, 4, dtype=torch.float64) for heads in (2, 1, 1))
    slots = [rows.pool.append(rows.prefixes[first], 100)]
    second = rows.fork(first)
    slots.append(rows.pool.append(rows.prefixes[second], 101))
    keys, values = rows.history[first]
    for row, n in ((first, 1), (second, 2)):
        rows.history[row] = torch.cat((keys, k[:n])), torch.cat((values, v[:n]))
    views = [View(i, 1, 8 + i, rows.prefixes[row].blocks) for i, row in enumerate((first, second))]
    expected = torch.stack([rows.alone(first, q[0]), rows.alone(second, q[1])])
    assert rows.check(views, slots, q, k, v, expected) == 8 + 1


def test_a_store_that_was_never_written_holds_numbers() -> None:
    """A masked position has weight 0, and 0 times NaN is NaN."""
    dirt = [torch.full((64, 64), float("nan"), dtype=torch.float64) for _ in range(50)]
    del dirt
    store = KVStore(2, 2, 2, 8, 32, 8, torch.float64, torch.device("cpu"))
    assert all(bool((x == 0).all()) for layer in store._layers for x in layer)


@settings(max_examples=80)
@given(
    st.sampled_from([(1, 1), (4, 2), (6, 1)]),
    st.lists(
        st.lists(st.tuples(st.integers(0, 30), st.sampled_from([1, 1, 1, 1, 2, 5, 17])), min_size=1, max_size=5),
        min_size=1,
        max_size=6,
    ),
)
def test_random_trees_attend_as_if_every_row_were_alone(
    heads: tuple[int, int], program: list[list[tuple[int, int]]]
) -> None:
    """In every iteration some rows continue; a row that is named twice is forked first, and 30 starts a new row."""
    rows = Rows(*heads, n_blocks=200)
    rows.start()
    for iteration in program:
        counts: dict[int, int] = {}
        for name, count in iteration:
            row = rows.start() if name == 30 else name % len(rows.prefixes)
            counts[rows.fork(row) if row in counts else row] = count
        rows.iterate(list(counts.items()))
