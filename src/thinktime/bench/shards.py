"""Parts of the problems of a task, for several processes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from thinktime.core.errors import InputError

Item = TypeVar("Item")


@dataclass(frozen=True)
class Shard:
    """Part ``index`` of ``count`` parts. The first part is 1; by default there is one part, which has everything."""

    index: int = 1
    count: int = 1

    @classmethod
    def parse(cls, text: str) -> Shard:
        """The shard that a text such as ``2/4`` names.

        Raises:
            InputError: it names none.
        """
        found = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", text)
        if found is None:
            raise InputError("shard", text, "write it as i/n: 1/4 is the first of four parts")
        index, count = int(found[1]), int(found[2])
        if not 1 <= index <= count:
            parts = f"the first part is 1/{count}, the last one is {count}/{count}"
            raise InputError("shard", text, parts if count else "there is at least one part, as in 1/4")
        return cls(index, count)

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    def of(self, items: Sequence[Item]) -> Sequence[Item]:
        """Every ``count``-th item, so that easy and hard problems come into all parts alike."""
        return items[self.index - 1 :: self.count]
