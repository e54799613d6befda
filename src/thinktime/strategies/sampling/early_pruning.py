"""Early pruning by self-evaluation (Manvi et al. 2024, arXiv 2410.02725): samples with low scores are not finished."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from thinktime.core.errors import InputError
from thinktime.core.search import Search
from thinktime.core.selection import best, ranked
from thinktime.core.trace import Answer
from thinktime.core.types import Capability, Node
from thinktime.strategies.options import above, at_least, one_of


@dataclass(frozen=True)
class EarlyPruning:
    """Start ``n`` samples, evaluate all after ``t_check`` tokens, finish the best share, and answer the best.

    A sample that has ended by then is evaluated in full.

    Args:
        n: samples begun.
        t_check: tokens of a sample at the evaluation.
        keep_frac: the share of samples to finish, rounded up.
        keep: the samples to finish: the ``best`` by self-evaluation, or as a control ``random`` ones, or the most
            ``likely`` by mean log-probability.
    """

    n: int = 16
    t_check: int = 16
    keep_frac: float = 0.5
    keep: str = "best"
    needs: ClassVar[frozenset[str]] = frozenset({Capability.SELF_EVALUATION, Capability.PREFIX, Capability.LOGPROBS})

    def __post_init__(self) -> None:
        at_least("n", self.n, 1)
        at_least("t_check", self.t_check, 1)
        above("keep_frac", self.keep_frac, 0)
        one_of("keep", self.keep, ("best", "random", "likely"))
        if self.keep_frac > 1:
            raise InputError("keep_frac", self.keep_frac, "give a share, at most 1")
        if self.keep_frac * self.n < 1:
            raise InputError("keep_frac", self.keep_frac, f"with n={self.n} it keeps no sample")

    async def __call__(self, search: Search) -> Answer:
        limit = search.sampling.max_length
        if self.t_check >= limit:
            raise InputError("t_check", self.t_check, f"the early check would never run: a sample has {limit} at most")
        begun = await search.extend([search.root], self.n, at_most=self.t_check)
        order = ranked(begun, await self._values(search, begun))
        places = math.ceil(self.keep_frac * self.n)
        kept = [node for node, _ in order[:places]]
        search.prune([node for node, _ in order[places:]])
        ended = await search.extend([node for node in kept if not node.done])
        whole = [node for node in kept if node.done] + ended
        search.log(begun=len(begun), finished=len(whole))
        return search.finish(best(search.candidates(whole, await search.score(whole))))

    async def _values(self, search: Search, begun: list[Node]) -> list[float | None]:
        if self.keep == "best":
            return await search.score(begun)
        if self.keep == "likely":
            return [node.state.logprob / search.generator.length(node.state) for node in begun]
        rng = search.random("pruning")
        return [rng.random() for _ in begun]
