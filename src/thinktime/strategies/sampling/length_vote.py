"""A vote of the shortest or longest samples (Wang et al. 2025, arXiv 2504.14047, section on reasoning length)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import ceil
from typing import ClassVar, TypeVar

from thinktime.core.search import Search
from thinktime.core.selection import majority
from thinktime.core.trace import Answer
from thinktime.core.types import Capability
from thinktime.strategies.options import above, at_least, one_of

T = TypeVar("T")


def by_length(ended: Iterable[T], length: Callable[[T], int], side: str, keep: float, least: int) -> list[T]:
    """The shortest (``side="short"``) or longest items: a share ``keep`` of all, but at least ``least``."""
    ordered = sorted(ended, key=length, reverse=side == "long")
    return ordered[: max(least, ceil(keep * len(ordered)))]


@dataclass(frozen=True)
class LengthVote:
    """Sample ``n``, keep the shortest (or longest) complete samples, and vote over them.

    Samples cut at the length limit have no vote.

    Args:
        n: samples drawn.
        keep: share of the complete samples that has a vote.
        least: the least number of votes, even if the share is smaller.
        side: keep the ``short`` or the ``long`` samples.
    """

    n: int = 16
    keep: float = 0.5
    least: int = 3
    side: str = "short"
    needs: ClassVar[frozenset[str]] = frozenset({Capability.ANSWERS})

    def __post_init__(self) -> None:
        at_least("n", self.n, 1)
        above("keep", self.keep, 0)
        at_least("least", self.least, 1)
        one_of("side", self.side, ("short", "long"))

    async def __call__(self, search: Search) -> Answer:
        leaves = [leaf for leaf in await search.extend([search.root], self.n) if leaf.done]
        length = search.generator.length
        kept = by_length(leaves, lambda leaf: length(leaf.state), self.side, self.keep, self.least)
        return search.finish(majority(search.candidates(kept)))
