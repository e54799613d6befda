"""One sample, a chain of thought (Wei et al. 2022, arXiv 2201.11903): the baseline of every other strategy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from thinktime.core.search import Search
from thinktime.core.selection import best
from thinktime.core.trace import Answer


@dataclass(frozen=True)
class Single:
    """Sample once and answer."""

    needs: ClassVar[frozenset[str]] = frozenset()

    async def __call__(self, search: Search) -> Answer:
        return search.finish(best(search.candidates(await search.extend([search.root]))))
