"""Early rejection on partial rewards (Cheshmi et al. 2025, arXiv 2508.01969).

Every step is scored after its first ``tau`` tokens. Only the best partial steps are finished, and the search continues
from these. The reward model scores an unfinished step, so it has to be trained for that.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median_low
from typing import ClassVar, Literal

from thinktime.core.errors import CapabilityError, InputError
from thinktime.core.search import Search
from thinktime.core.selection import best, ranked, weighted_majority
from thinktime.core.trace import Answer
from thinktime.core.types import Capability, Node
from thinktime.strategies.options import TREE_SEARCH, at_least, one_of

SELECT = {"vote": weighted_majority, "best": best}


@dataclass(frozen=True)
class EarlyRejection:
    """Beam search that rejects ``n - n / width`` of ``n`` steps after their first ``tau`` tokens.

    A step that ends within ``tau`` tokens is scored whole. A finished solution keeps occupying a slot of the beam. The
    answer is the weighted vote of all finished solutions.

    Args:
        n: steps begun in a round.
        width: children of a kept step.
        tau: tokens of a step when it is scored. ``auto`` is the value that a bench finds on held-out problems; without
            one, it is half of the median step length of the first round, which is not cut.
        keep: the steps to finish: the ``best``, or ``random`` ones as a control for the reward.
        rank: orders finished steps by the reward of the ``whole`` step or of the ``partial`` one.
        select: a weighted ``vote`` of all finished solutions, or the ``best`` alone.
        cuts: reward models allowed to score unfinished steps: those ``trained`` for it, or ``any``.
        max_rounds: the most rounds; the search then ends with the finished solutions.
    """

    n: int = 16
    width: int = 4
    tau: int | Literal["auto"] = 8
    keep: str = "best"
    rank: str = "whole"
    select: str = "vote"
    cuts: str = "trained"
    max_rounds: int = 40
    needs: ClassVar[frozenset[str]] = TREE_SEARCH

    def __post_init__(self) -> None:
        at_least("n", self.n, 1)
        at_least("width", self.width, 1)
        at_least("max_rounds", self.max_rounds, 1)
        if isinstance(self.tau, int):
            at_least("tau", self.tau, 1)
        else:
            one_of("tau", self.tau, ("auto",))
        one_of("keep", self.keep, ("best", "random"))
        one_of("rank", self.rank, ("whole", "partial"))
        one_of("select", self.select, SELECT)
        one_of("cuts", self.cuts, ("trained", "any"))
        if self.n % self.width:
            raise InputError("n", self.n, f"give a multiple of width={self.width}: n / width steps are kept")

    def validate(self, search: Search) -> None:
        if isinstance(self.tau, int) and self.tau >= search.sampling.max_length:
            raise InputError(
                "tau", self.tau, f"nothing is rejected before {search.sampling.max_length} tokens are over"
            )
        if self.cuts == "trained" and Capability.PARTIAL_REWARD not in search.capabilities:
            raise CapabilityError(
                "early_rejection: this reward model was trained at step ends alone; compare its scores after tau "
                "tokens with those of whole steps, and give cuts=any to use it"
            )

    async def __call__(self, search: Search) -> Answer:
        tau = self.tau if isinstance(self.tau, int) else None
        rng = search.random("rejection")
        places = self.n // self.width
        finished: dict[Node, float | None] = {}
        frontier, children_each = [search.root], self.n
        for _ in range(self.max_rounds):
            begun = await search.extend(frontier, children_each, until="step", at_most=tau)
            partial = await search.score(begun)
            order = ranked(begun, partial)
            if self.keep == "random":
                rng.shuffle(order)
            kept, rejected = order[:places], order[places:]
            finished |= {node: score for node, score in order if node.done}
            search.prune([node for node, _ in rejected if not node.done])
            cut = [node for node, _ in kept if node.finish == "cut"]
            ended = await search.extend(cut, until="step")
            whole = dict(zip(ended, await search.score(ended), strict=True)) if self.rank == "whole" else {}
            early = dict(kept)
            scores = early | {node: whole.get(node, early.get(node.parent)) for node in ended if node.parent}
            search.log(
                tau=tau,
                partial=partial,
                kept=[node.key for node, _ in kept],
                cut_short=sum(n.finish == "cut" for n in begun),
            )
            finished |= {node: scores[node] for node in ended if node.done}
            frontier = [node for node, _ in ranked(list(scores), list(scores.values())) if node.finish == "step"]
            places, children_each = len(frontier), self.width
            if not frontier:
                break
            tau = tau or max(1, median_low(node.usage.generated_tokens for node in begun) // 2)
        return search.finish(SELECT[self.select](search.candidates(finished, finished.values())))
