"""A small model answers first, and a large one where its samples disagree (Yue et al. 2023, arXiv 2310.03094)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from thinktime.core.errors import InputError
from thinktime.core.search import Search
from thinktime.core.selection import best, majority
from thinktime.core.trace import Answer
from thinktime.core.types import MAIN, Capability, model_of
from thinktime.strategies.options import DRAFT, above, at_least


@dataclass(frozen=True)
class Cascade:
    """Vote over ``n`` samples of the model ``draft``; if too few agree, one sample of the main model answers instead.

    The agreement is the share of the ``n`` samples that give the leading answer. A sample without a readable answer
    agrees with none. If the main model gives no readable answer, that of the small one is returned.

    Args:
        n: samples of the small model.
        threshold: the least agreement at which the small model's answer is returned.
    """

    n: int = 4
    threshold: float = 0.75
    needs: ClassVar[frozenset[str]] = frozenset({Capability.ANSWERS, model_of(DRAFT)})

    def __post_init__(self) -> None:
        at_least("n", self.n, 2)
        above("threshold", self.threshold, 0)
        if self.threshold > 1:
            raise InputError("threshold", self.threshold, "give a share, at most 1")

    async def __call__(self, search: Search) -> Answer:
        small = search.candidates(await search.extend([search.root], self.n, model=DRAFT))
        leader = majority(small)
        votes = sum(each.key == leader.key for each in small if each.answer is not None) if leader else 0
        agreement = votes / self.n
        deferred = agreement < self.threshold
        search.log(agreement=agreement, deferred=deferred)
        large = search.candidates(await search.extend([search.root], model=MAIN)) if deferred else []
        return search.finish(best(large) or leader)
