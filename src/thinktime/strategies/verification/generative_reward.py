"""A generative reward model, sampled and added up (Liu et al. 2025, DeepSeek-GRM, arXiv 2504.02495).

One judgement writes criteria of its own choice, then a score for each of the answers that it is shown. Judgements
differ in their criteria, so the sum of several is finer and more reliable than one. A small meta reward model picks
the judgements that vote.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from thinktime.core.errors import CapabilityError, InputError, ModelError
from thinktime.core.search import Search
from thinktime.core.selection import Candidate, majority, ranked
from thinktime.core.trace import Answer
from thinktime.core.types import Capability, Node, Prompt
from thinktime.prompts.common import JUDGE
from thinktime.prompts.turns import quoted
from thinktime.strategies.options import UNREADABLE, at_least, one_of

SHOWN = 4
"""Most answers in one judgement."""


@dataclass(frozen=True)
class GenerativeReward:
    """Judge the most frequent answers of ``n`` samples side by side, ``k`` times; the highest sum of scores answers.

    Each judgement sees the answers in its own order. A judgement that does not give every answer a score is dropped.
    The sums weighted with the meta reward break ties, if judgements have one; then a random draw does.

    Args:
        n: samples; the judge sees the first sample of each of the four most frequent answers.
        k: judgements.
        keep: judgements that vote; 0 is all.
        by: which ones vote: the best by the ``meta`` reward, or ``random`` ones, which is the control.
        stop: ask for ``all`` judgements at once, or one by one until the winner is ``decided``: the judgements that
            are left cannot change it.
        unreadable: if judgements ended and none can be read, ``raise`` a `ModelError` that quotes two, or answer by
            ``plurality``.
    """

    n: int = 4
    k: int = 8
    keep: int = 0
    by: str = "meta"
    stop: str = "all"
    unreadable: str = "raise"
    prompts: ClassVar[tuple[Prompt, ...]] = (JUDGE,)
    needs: ClassVar[frozenset[str]] = frozenset({JUDGE.capability, Capability.ANSWERS})

    def __post_init__(self) -> None:
        at_least("n", self.n, 1)
        at_least("k", self.k, 1)
        at_least("keep", self.keep, 0)
        one_of("by", self.by, ("meta", "random"))
        one_of("stop", self.stop, ("all", "decided"))
        one_of("unreadable", self.unreadable, UNREADABLE)
        if self.keep > self.k:
            raise InputError("keep", self.keep, f"give k={self.k} or fewer")
        if self.keep and self.stop == "decided":
            raise InputError("stop", self.stop, f"keep={self.keep} needs all judgements; give keep=0 or stop=all")

    def validate(self, search: Search) -> None:
        if self.keep and self.by == "meta" and Capability.META_REWARD not in search.capabilities:
            raise CapabilityError(f"generative_reward: keep={self.keep} needs {Capability.META_REWARD}; give keep=0")

    async def __call__(self, search: Search) -> Answer:
        leaves = await search.extend([search.root], self.n)
        shown = most_frequent(search.candidates(leaves))
        if len(shown) < 2:
            return search.finish(shown[0] if shown else None)
        nodes = [candidate.node for candidate in shown]
        judgements, unreadable = await judge(search, nodes, self.k, one_by_one=self.stop == "decided")
        if unreadable and not judgements and self.unreadable == "raise":
            raise ModelError(
                f"generative_reward: none of {len(unreadable)} judgements gives each of {len(shown)} answers a "
                f"score; they end {quoted([reply.state for reply in unreadable[:2]])}; take a model that judges, or "
                f"unreadable=plurality"
            )
        weights = dict.fromkeys(judgements, 0.0)
        if self.keep:
            weights = await self._kept(search, judgements)
            judgements = {node: judgements[node] for node in weights}
        search.log(scores=list(judgements.values()), shown=[candidate.answer for candidate in shown])
        if not judgements:
            return search.finish(majority(search.candidates(leaves)))
        sums, weighted = [0.0] * len(shown), [0.0] * len(shown)
        for node, scores in judgements.items():
            for place, score in enumerate(scores):
                sums[place] += score
                weighted[place] += weights[node] * score
        rng = search.random("ties")
        best = max(range(len(shown)), key=lambda i: (round(sums[i], 9), round(weighted[i], 9), rng.random()))
        return search.finish(shown[best])

    async def _kept(self, search: Search, judgements: dict[Node, list[float]]) -> dict[Node, float]:
        """The judgements that vote, with their meta rewards."""
        nodes, rng = list(judgements), search.random("keep")
        weights = await search.score(nodes) if self.by == "meta" else [rng.random() for _ in nodes]
        return {node: weight or 0.0 for node, weight in ranked(nodes, weights)[: self.keep]}


def most_frequent(candidates: Sequence[Candidate]) -> list[Candidate]:
    """The first candidate of each of the most frequent answers, at most four."""
    votes = Counter(c.key for c in candidates if c.answer is not None)
    first = {c.key: c for c in reversed(candidates)}
    return [first[key] for key, _ in votes.most_common(SHOWN)]


async def judge(
    search: Search, shown: Sequence[Node], k: int, *, one_by_one: bool = False, order: str = "order"
) -> tuple[dict[Node, list[float]], list[Node]]:
    """Sample up to ``k`` judgements: the readable ones with their scores in the order of ``shown``, and the others.

    Args:
        search: the search that samples them.
        shown: the candidates.
        k: judgements.
        one_by_one: ask for the same judgements one after the other, and stop when those left cannot change the winner.
        order: the name of the random numbers that shuffle the candidates.
    """
    rng = search.random(order)
    orders = [tuple(rng.sample(range(len(shown)), len(shown))) for _ in range(k)]
    replies: list[Node] = []
    found: dict[Node, list[float]] = {}
    for start in range(0, k, 1 if one_by_one else k):
        turn = Counter(orders[start : start + 1] if one_by_one else orders)
        roots = {search.ask(JUDGE, [shown[i] for i in places]): places for places in turn}
        asked = [root for root in roots if root is not None]
        new = await search.extend(asked, [turn[roots[root]] for root in asked])
        for reply in new:
            scores = search.read(JUDGE, reply)
            if scores is not None:
                found[reply] = [score for _, score in sorted(zip(roots[reply.parent], scores, strict=True))]
        replies += new
        if not new or decided(list(found.values()), k - start - 1):
            break
    search.log(judgements=len(replies), invalid=len(replies) - len(found))
    return found, [reply for reply in replies if reply.done and reply not in found]


def decided(scores: Sequence[Sequence[float]], left: int) -> bool:
    """Whether ``left`` more judgements, with scores from 0.1 to 1, cannot change which sum is highest."""
    sums = sorted((float(sum(column)) for column in zip(*scores, strict=True)), reverse=True)
    return len(sums) > 1 and sums[0] - sums[1] > 0.9 * left + 1e-9
