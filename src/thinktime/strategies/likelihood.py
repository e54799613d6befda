"""Selection by likelihood (Adiwardana et al. 2020, arXiv 2001.09977; Wang et al. 2022, arXiv 2203.11171).

The first paper samples and ranks; the second adds up what leads to the same answer. The generator judges itself and no
trained verifier takes part: this is the baseline a reward model must beat.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from thinktime.core.search import Search
from thinktime.core.selection import best, weighted_majority
from thinktime.core.trace import Answer
from thinktime.core.types import Capability, Node
from thinktime.strategies.options import at_least


def log_likelihoods(nodes: Sequence[Node]) -> list[float | None]:
    """The generator's log-probability of each whole generation, at temperature 1."""
    return [node.state.logprob for node in nodes]


@dataclass(frozen=True)
class MostLikely:
    """The one of ``n`` samples that the generator itself finds most probable."""

    n: int = 16
    needs: ClassVar[frozenset[str]] = frozenset({Capability.LOGPROBS})

    def __post_init__(self) -> None:
        at_least("n", self.n, 1)

    async def __call__(self, search: Search) -> Answer:
        leaves = await search.extend([search.root], self.n)
        return search.finish(best(search.candidates(leaves, log_likelihoods(leaves))))


@dataclass(frozen=True)
class SummedProbability:
    """The answer with the most probability in the *distinct* ones of ``n`` samples that reach it."""

    n: int = 16
    needs: ClassVar[frozenset[str]] = frozenset({Capability.LOGPROBS, Capability.ANSWERS})

    def __post_init__(self) -> None:
        at_least("n", self.n, 1)

    async def __call__(self, search: Search) -> Answer:
        leaves = await search.extend([search.root], self.n)
        distinct = list({leaf.state: leaf for leaf in leaves}.values())
        top = max((leaf.state.logprob for leaf in distinct if leaf.done), default=0.0)
        probabilities: list[float | None] = [math.exp(min(0.0, leaf.state.logprob - top)) for leaf in distinct]
        return search.finish(weighted_majority(search.candidates(distinct, probabilities)))
