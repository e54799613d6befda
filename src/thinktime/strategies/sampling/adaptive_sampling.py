"""Adaptive sampling by self-evaluation (Manvi et al. 2024, arXiv 2410.02725).

After every sample the model predicts whether another sample would be better; if not, sampling ends. The first sample
is greedy; the temperature of later samples rises towards the search's own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from thinktime.core.search import Search, refuse_copies
from thinktime.core.selection import Candidate, best, majority, weighted_majority
from thinktime.core.trace import Answer
from thinktime.core.types import Capability
from thinktime.strategies.options import above, at_least, below, one_of

ANNEAL: dict[str, Callable[[int, int], float]] = {
    "power2": lambda k, n: 1 - 2.0 ** -(k - 1),
    "linear": lambda k, n: (k - 1) / max(1, n - 1),
}
SELECT = {"self_eval": best, "majority": majority, "weighted_majority": weighted_majority}


@dataclass(frozen=True)
class AdaptiveSampling:
    """Sample at most ``n`` times, until the self-evaluation of the best sample reaches ``gamma``.

    Args:
        n: the most samples.
        gamma: sampling ends when the probability that no other sample would be better reaches this.
        anneal: temperature of sample k as a share of the search's: ``power2`` (1 - 2^-(k-1)), ``linear``, ``constant``.
        batching: samples drawn before each evaluation: always ``one``, or 1, 1, 2, 4, 8, ... with ``doubling``.
        select: how to answer: the best by ``self_eval``, a ``majority`` or a ``weighted_majority`` of all samples.
    """

    n: int = 16
    gamma: float = 0.9
    anneal: str = "power2"
    batching: str = "one"
    select: str = "self_eval"
    needs: ClassVar[frozenset[str]] = frozenset({Capability.SELF_EVALUATION})

    def __post_init__(self) -> None:
        at_least("n", self.n, 1)
        above("gamma", self.gamma, 0)
        below("gamma", self.gamma, 1)
        one_of("anneal", self.anneal, (*ANNEAL, "constant"))
        one_of("batching", self.batching, ("one", "doubling"))
        one_of("select", self.select, SELECT)

    async def __call__(self, search: Search) -> Answer:
        if search.sampling.temperature == 0:
            refuse_copies(self.n)
        candidates: list[Candidate] = []
        scores: list[float] = []
        drawn, reason = 0, "n"
        while drawn < self.n:
            size = max(1, drawn) if self.batching == "doubling" else 1
            leaves = []
            for k in range(drawn + 1, min(drawn + size, self.n) + 1):
                leaves += await search.extend([search.root], temperature=self._temperature(search, k))
            if not leaves:
                reason = "budget"
                break
            drawn += len(leaves)
            found = await search.score(leaves)
            scores += [score for score in found if score is not None]
            candidates += search.candidates(leaves, found)
            if max(scores, default=0.0) >= self.gamma:
                reason = "gamma"
                break
        search.log(samples=drawn, scores=scores, stop=reason)
        return search.finish(SELECT[self.select](candidates))

    def _temperature(self, search: Search, k: int) -> float | None:
        if self.anneal == "constant":
            return None
        return search.sampling.temperature * ANNEAL[self.anneal](k, self.n)
