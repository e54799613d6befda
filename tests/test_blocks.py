"""The pool of blocks: references, matching of prefixes, and the order of eviction."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from thinktime.models.engine.blocks import BlockPool, OutOfBlocksError, Prefix

Tokens = tuple[int, ...]


def written(pool: BlockPool, tokens: Sequence[int], prefix: Prefix | None = None) -> Prefix:
    """A row whose tokens, after those of ``prefix``, are written to the store."""
    prefix = prefix or Prefix()
    for token in tokens:
        pool.append(prefix, token)
    pool.settle()
    return prefix


def test_a_token_gets_the_next_slot_of_the_block_or_the_first_slot_of_a_new_one() -> None:
    pool, row = BlockPool(4, 2), Prefix()
    assert [pool.append(row, token) for token in (7, 8, 9)] == [0, 1, 2]
    assert (row.blocks, row.length) == ([0, 1], 3)
    assert (pool.held, pool.free) == (2, 2)


def test_a_prefix_is_found_to_the_token() -> None:
    pool = BlockPool(4, 4)
    written(pool, [1, 2, 3, 4, 5, 6])
    found = [pool.match(ids) for ids in ([1, 2, 3, 4, 5, 6, 7], [1, 2, 3, 4, 5], [1, 2, 9], [1], [2, 3], [])]
    assert [prefix.length for prefix in found] == [6, 5, 2, 1, 0, 0]
    assert [prefix.blocks for prefix in found] == [[0, 1], [0, 1], [0], [0], [], []]


def test_a_row_appends_in_place_after_a_matched_prefix() -> None:
    pool = BlockPool(4, 4)
    pool.release(written(pool, [1, 2, 3]))
    row = pool.match([1, 2, 3])
    assert pool.append(row, 4) == 3
    assert (pool.copies, pool.held) == ([], 1)


def test_a_row_copies_its_last_block_if_another_row_has_written_after_its_last_token() -> None:
    pool = BlockPool(4, 4)
    first = written(pool, [1, 2])
    second = pool.fork(first)
    assert second.blocks == [0]
    assert pool.append(first, 3) == 2  # block 0, slot 2
    assert pool.append(second, 4) == 4 + 2  # block 1, slot 2
    assert pool.copies == [(0, 1)]
    pool.settle()
    assert pool.append(second, 5) == 4 + 3
    assert pool.copies == []
    assert pool.match([1, 2, 3]).blocks == [0]
    assert pool.match([1, 2, 4, 5]).blocks == [1]  # the copy also holds the beginning


def test_forks_share_full_blocks_and_never_copy_them() -> None:
    pool = BlockPool(5, 2)
    shared = written(pool, [1, 2, 3, 4])
    forks = [pool.fork(shared) for _ in range(3)]
    for token, row in enumerate(forks):
        written(pool, [10 + token], row)
    assert [row.blocks for row in forks] == [[0, 1, 2], [0, 1, 3], [0, 1, 4]]
    assert pool.held == 5


def test_released_blocks_are_evicted_only_when_needed_and_the_first_released_first() -> None:
    pool = BlockPool(3, 2)
    rows = [written(pool, [10 * i, 10 * i + 1]) for i in (1, 2, 3)]
    for row in (rows[1], rows[0], rows[2]):
        pool.release(row)
    assert (pool.held, pool.free) == (0, 3)
    written(pool, [40])
    assert [pool.match(ids).length for ids in ([10, 11], [20, 21], [30, 31])] == [2, 0, 2]


def test_the_end_of_a_released_row_is_evicted_before_its_beginning() -> None:
    pool = BlockPool(3, 2)
    pool.release(written(pool, [1, 2, 3, 4, 5]))
    written(pool, [9])
    assert pool.match([1, 2, 3, 4, 5]).length == 4


def test_a_matched_block_is_not_evicted() -> None:
    pool = BlockPool(2, 2)
    pool.release(written(pool, [1, 2]))
    pool.release(written(pool, [3, 4]))
    held = pool.match([1, 2])
    written(pool, [5, 6])
    assert (held.blocks, pool.match([1, 2]).length, pool.match([3, 4]).length) == ([0], 2, 0)


def test_a_block_that_no_prefix_can_match_is_evicted_first() -> None:
    pool = BlockPool(3, 2)
    pool.release(written(pool, [1, 2]))
    twin = written(pool, [1, 2])  # the same tokens again, so no prefix matches this block
    pool.release(twin)
    written(pool, [5, 6, 7, 8])
    assert pool.match([1, 2]).length == 2


def test_a_forgotten_prefix_is_never_matched() -> None:
    pool = BlockPool(4, 2)
    row = Prefix()
    for token in (1, 2, 3):
        pool.append(row, token)
    pool.forget(row)
    pool.settle()
    assert (pool.match([1, 2, 3]).length, pool.held, row) == (0, 0, Prefix())


def test_a_block_is_fresh_from_its_first_unwritten_slot_on_and_a_copy_as_a_whole() -> None:
    pool = BlockPool(4, 4)
    first = written(pool, [1, 2])
    second = pool.fork(first)
    pool.append(first, 3)
    pool.append(first, 4)
    pool.append(second, 5)
    assert pool.fresh == {0: 2, 1: 0}


def test_a_match_is_written_up_to_the_first_token_of_this_iteration() -> None:
    pool = BlockPool(4, 4)
    row = written(pool, [1, 2, 3])
    for token in (4, 5):
        pool.append(row, token)
    found = [pool.match(ids) for ids in ([], [1], [1, 2, 3], [1, 2, 3, 4], [1, 2, 3, 4, 5])]
    assert [pool.is_written(prefix) for prefix in found] == [True, True, True, False, False]
    pool.settle()
    assert all(pool.is_written(prefix) for prefix in found)


def test_blocks_are_fresh_until_their_tokens_are_written() -> None:
    pool, row = BlockPool(4, 2), Prefix()
    for token in (1, 2, 3):
        pool.append(row, token)
    assert pool.fresh == {0: 0, 1: 0}
    pool.settle()
    assert pool.fresh == {}
    pool.append(row, 4)
    assert pool.fresh == {1: 1}


def test_without_a_free_block_the_row_is_unchanged() -> None:
    pool = BlockPool(2, 2)
    first = written(pool, [1, 2, 3])
    second = pool.fork(first)
    pool.append(first, 4)
    for row, token in ((second, 5), (Prefix(), 6)):
        before = deepcopy(row)
        with pytest.raises(OutOfBlocksError):
            pool.append(row, token)
        assert row == before
    pool.release(first)
    assert pool.held == 2  # the second row still holds both


def test_the_only_row_of_a_full_pool_overwrites_tokens_of_released_rows() -> None:
    pool = BlockPool(2, 4)
    pool.release(written(pool, [1, 2, 3, 4, 5, 6, 7]))
    row = pool.match([1, 2, 3, 4, 5])
    assert pool.append(row, 9) == 4 + 1
    pool.settle()
    assert pool.copies == []
    assert pool.match([1, 2, 3, 4, 5, 6, 7]).length == 4


class PoolMachine(RuleBasedStateMachine):
    """Rows as the scheduler makes them: an iteration lies between two calls of ``settle``, and writes its tokens last.

    ``store`` has the prefix that each slot was computed from, because keys and values depend on the whole prefix.
    """

    def __init__(self) -> None:
        super().__init__()
        self.size = 3
        self.pool = BlockPool(7, self.size)
        self.store: list[Tokens] = [()] * (7 * self.size)
        self.rows: list[tuple[Prefix, list[int]]] = []
        self.busy: set[int] = set()  # rows of this iteration, by identity
        self.pending: list[tuple[int, Tokens]] = []
        self.ever: set[Tokens] = {()}
        self.lossless = True

    def row(self, index: int) -> tuple[Prefix, list[int]]:
        return self.rows[index % len(self.rows)]

    @rule(ids=st.lists(st.integers(0, 2), max_size=9))
    def match(self, ids: list[int]) -> None:
        prefix = self.pool.match(ids)
        if not self.pool.is_written(prefix):  # the scheduler would let this row wait
            return self.pool.release(prefix)
        if self.lossless:
            assert prefix.length == max(n for n in range(len(ids) + 1) if tuple(ids[:n]) in self.ever)
        self.rows.append((prefix, ids[: prefix.length]))

    @precondition(lambda self: self.rows)
    @rule(index=st.integers(0, 9), tokens=st.lists(st.integers(0, 2), min_size=1, max_size=5))
    def append(self, index: int, tokens: list[int]) -> None:
        prefix, ids = self.row(index)
        for token in tokens:
            before = deepcopy(prefix)
            self.lossless &= bool(self.pool._empty)
            try:
                slot = self.pool.append(prefix, token)
            except OutOfBlocksError:
                assert prefix == before
                assert self.pool.free == 0
                return
            ids.append(token)
            self.busy.add(id(prefix))
            self.pending.append((slot, tuple(ids)))
            self.ever.add(tuple(ids))

    @rule()
    def write(self) -> None:
        held = [self.store[i * self.size : (i + 1) * self.size] for i, _ in self.pool.copies]
        for (_, to), block in zip(self.pool.copies, held, strict=True):
            self.store[to * self.size : (to + 1) * self.size] = block
        for slot, ids in self.pending:
            self.store[slot] = ids
        self.settled()

    @precondition(lambda self: self.busy)
    @rule()
    def fail(self) -> None:
        """The iteration fails: appended tokens are lost, and all other rows keep their tokens."""
        self.lossless = False
        for slot, _ in self.pending:
            self.store[slot] = (-1,)
        for prefix, _ in self.rows:
            if id(prefix) in self.busy:
                self.pool.forget(prefix)
        self.rows = [(prefix, ids) for prefix, ids in self.rows if id(prefix) not in self.busy]
        self.settled()

    def settled(self) -> None:
        self.pool.settle()
        self.pending, self.busy = [], set()

    @precondition(lambda self: self.rows and not self.busy)
    @rule(index=st.integers(0, 9))
    def fork(self, index: int) -> None:
        prefix, ids = self.row(index)
        self.rows.append((self.pool.fork(prefix), list(ids)))

    @precondition(lambda self: self.rows)
    @rule(index=st.integers(0, 9))
    def release(self, index: int) -> None:
        prefix, _ = self.row(index)
        if id(prefix) not in self.busy:
            self.pool.release(prefix)
            self.rows.pop(index % len(self.rows))

    @invariant()
    def every_row_has_its_own_tokens_and_shares_only_those_of_the_same_prefix(self) -> None:
        """Two rows with a common slot have the same prefix up to it."""
        if self.busy:
            return
        for prefix, ids in self.rows:
            assert prefix.length == len(ids) and len(prefix.blocks) == -(-len(ids) // self.size)
            for index in range(len(ids)):
                slot = prefix.blocks[index // self.size] * self.size + index % self.size
                assert self.store[slot] == tuple(ids[: index + 1])

    @invariant()
    def a_block_is_held_if_and_only_if_a_row_holds_it(self) -> None:
        assert self.pool.held == len({block for prefix, _ in self.rows for block in prefix.blocks})
        assert self.pool.held + self.pool.free == self.pool.n_blocks

    def teardown(self) -> None:
        self.write()
        for prefix, _ in self.rows:
            self.pool.release(prefix)
        assert (self.pool.held, self.pool.free) == (0, 7)


TestPool = PoolMachine.TestCase
TestPool.settings = settings(max_examples=120, stateful_step_count=40, deadline=None, derandomize=True)
