"""Selection by likelihood (Adiwardana et al. 2020, arXiv 2001.09977; Wang et al. 2022, arXiv 2203.11171).

The first paper samples and ranks; the second sums the probabilities of samples with the same answer. There is no
trained verifier: these are baselines for reward models.
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
    """The most probable of ``n`` samples under the generator."""

    n: int = 16
    needs: ClassVar[frozenset[str]] = frozenset({Capability.LOGPROBS})

    def __post_init__(self) -> None:
        at_least("n", self.n, 1)

    async def __call__(self, search: Search) -> Answer:
        leaves = await search.extend([search.root], self.n)
        return search.finish(best(search.candidates(leaves, log_likelihoods(leaves))))


@dataclass(frozen=True)
class SummedProbability:
    """The answer with the highest total probability of its *distinct* samples, of ``n``."""

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
