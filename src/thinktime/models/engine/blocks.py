"""The blocks of the key-value store and their tokens: reference counts, a trie of prefixes, eviction.

Pure bookkeeping, no tensors. A *block* holds ``block_size`` consecutive tokens of one prefix in all layers. Rows
that share a prefix share its blocks. A row appends in place if no other row has written after its last token, and
otherwise to a copy of its last block (copy on write). Every written token is an edge of a trie, so a later request
finds the longest stored prefix, exact to the token. Blocks that no row holds keep their tokens until the space is
needed; the block released first is evicted first.
"""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

ROOT = 0


class OutOfBlocksError(Exception):
    """Every block is held by a row."""


@dataclass
class Prefix:
    """The blocks of one row, in order, and the number of their tokens; ``node`` is the row's node in the trie."""

    blocks: list[int] = field(default_factory=list)
    length: int = 0
    node: int = ROOT


class BlockPool:
    """``n_blocks`` blocks of ``block_size`` tokens.

    Bookkeeping runs one iteration ahead of the tensors. ``copies`` collects the (from, to) pairs of blocks that the
    caller must copy before it writes the appended tokens. ``fresh`` maps each block with unwritten tokens to the
    position of the first one. `settle` declares that all tokens are written.
    """

    def __init__(self, n_blocks: int, block_size: int) -> None:
        self.n_blocks, self.block_size = n_blocks, block_size
        self.copies: list[tuple[int, int]] = []
        self.fresh: dict[int, int] = {}
        self._references = [0] * n_blocks
        self._filled = [0] * n_blocks
        self._edges_into: defaultdict[int, list[tuple[int, int]]] = defaultdict(list)
        self._empty = list(range(n_blocks - 1, -1, -1))
        self._kept: OrderedDict[int, None] = OrderedDict()  # blocks without a row, oldest first
        self._trie: dict[tuple[int, int], tuple[int, int]] = {}  # (node, token) -> (node, block)
        self._last_node = ROOT

    @property
    def held(self) -> int:
        """Blocks that rows hold."""
        return self.n_blocks - len(self._empty) - len(self._kept)

    @property
    def free(self) -> int:
        """Blocks available to rows, including those that have to be evicted first."""
        return len(self._empty) + len(self._kept)

    def match(self, ids: Sequence[int]) -> Prefix:
        """The longest stored prefix of ``ids``. The caller holds its blocks from now on."""
        prefix = Prefix()
        for token in ids:
            found = self._trie.get((prefix.node, token))
            if found is None:
                break
            prefix.node, block = found
            if prefix.length % self.block_size == 0:
                prefix.blocks.append(block)
            else:
                prefix.blocks[-1] = block  # the copy with the later token also holds the earlier ones
            prefix.length += 1
        self._hold(prefix.blocks)
        return prefix

    def append(self, prefix: Prefix, token: int) -> int:
        """Reserve a slot for one more token of the row. Return it as ``block * block_size + offset``.

        Raises:
            OutOfBlocksError: there is no room. The row is unchanged.
        """
        place = prefix.length % self.block_size
        if place == 0:
            prefix.blocks.append(self._take())
        elif self._filled[prefix.blocks[-1]] != place:  # another row has written after this row's last token
            old = prefix.blocks[-1]
            if not self.free and self._references[old] == 1:  # no room for a copy: drop the tokens of the other row
                self._drop_edges(old)
                self._filled[old] = place
                return self.append(prefix, token)
            new = self._take()
            self.copies.append((old, new))
            prefix.blocks[-1] = new
            self._filled[new] = place
            self.fresh[new] = 0
            self._release([old])
        block = prefix.blocks[-1]
        self._filled[block] = place + 1
        self.fresh.setdefault(block, place)
        edge = (prefix.node, token)
        known = self._trie.get(edge)
        if known is None:
            self._last_node += 1
            known = self._trie[edge] = (self._last_node, block)
            self._edges_into[block].append(edge)
        prefix.node = known[0]
        prefix.length += 1
        return block * self.block_size + place

    def is_written(self, prefix: Prefix) -> bool:
        """Whether all tokens of the prefix are written, so that they survive a failure of this iteration."""
        filled = (prefix.length - 1) % self.block_size + 1  # of the last block
        return not prefix.length or filled <= self.fresh.get(prefix.blocks[-1], self.block_size)

    def settle(self) -> None:
        """Declare that all appended tokens are written."""
        self.copies.clear()
        self.fresh.clear()

    def fork(self, prefix: Prefix) -> Prefix:
        """A second row with the same tokens; the blocks are shared."""
        self._hold(prefix.blocks)
        return Prefix(list(prefix.blocks), prefix.length, prefix.node)

    def release(self, prefix: Prefix) -> None:
        """Release the blocks of a row. Their tokens can be found until they are evicted."""
        self._release(prefix.blocks[::-1])  # the end of a prefix is evicted before its beginning
        prefix.blocks, prefix.length, prefix.node = [], 0, ROOT

    def forget(self, prefix: Prefix) -> None:
        """Release a row whose tokens were never written, and remove its blocks from the trie."""
        for block in prefix.blocks:
            self._drop_edges(block)
        self.release(prefix)

    def _hold(self, blocks: Sequence[int]) -> None:
        for block in blocks:
            if self._references[block] == 0:
                del self._kept[block]
            self._references[block] += 1

    def _release(self, blocks: Sequence[int]) -> None:
        for block in blocks:
            self._references[block] -= 1
            if self._references[block]:
                continue
            if block in self._edges_into:
                self._kept[block] = None
            else:
                self._empty.append(block)

    def _take(self) -> int:
        if self._empty:
            block = self._empty.pop()
        elif self._kept:
            block, _ = self._kept.popitem(last=False)
            self._drop_edges(block)
        else:
            raise OutOfBlocksError
        self._references[block] = 1
        return block

    def _drop_edges(self, block: int) -> None:
        for edge in self._edges_into.pop(block, ()):
            del self._trie[edge]
