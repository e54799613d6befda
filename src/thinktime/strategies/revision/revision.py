"""Sequential revisions beside parallel samples (Snell et al. 2024, arXiv 2408.03314).

In a chain, the model sees its last few answers when it writes the next one. Several chains run side by side. The paper
studies how to split a budget between more chains and longer ones. If the prompt of a first answer is the problem's
own, the first answers are the same samples as those of a vote.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from thinktime.core.search import Search
from thinktime.core.selection import majority, weighted_majority
from thinktime.core.trace import Answer
from thinktime.core.types import Capability, Node, Prompt
from thinktime.prompts.common import REVISE
from thinktime.strategies.options import at_least, divides, one_of

SHIFT = "revisions are outside of the training data of a reward model that was trained on first answers"


@dataclass(frozen=True)
class Revision:
    """``chains`` chains of ``n / chains`` answers each.

    Args:
        n: answers in all.
        chains: chains side by side; 1 is all sequential, ``n`` all parallel.
        context: previous answers that a revision sees.
        select: ``majority`` over all answers, ``last``: a vote of the chains' last answers, or ``verifier``: a weighted
            vote within each chain, then among the chains' winners. The first two need no scorer.
    """

    n: int = 16
    chains: int = 4
    context: int = 4
    select: str = "verifier"
    prompts: ClassVar[tuple[Prompt, ...]] = (REVISE,)
    needs: ClassVar[frozenset[str]] = frozenset({REVISE.capability, Capability.SCORES, Capability.ANSWERS})

    def __post_init__(self) -> None:
        at_least("n", self.n, 1)
        at_least("chains", self.chains, 1)
        at_least("context", self.context, 1)
        divides(self.chains, self.n, "chains")
        one_of("select", self.select, ("verifier", "majority", "last"))
        if self.select != "verifier":
            object.__setattr__(self, "needs", self.needs - {Capability.SCORES})

    async def __call__(self, search: Search) -> Answer:
        count = min(self.chains, self.n)
        first = search.ask(REVISE)
        chains = [[leaf] for leaf in await search.extend([first], count)] if first else []
        for _ in range(self.n // count - 1):
            roots = {chain: self._ask(search, chain) for chain in map(tuple, chains)}
            asked = [root for root in roots.values() if root is not None]
            revised = {leaf.parent: leaf for leaf in await search.extend(asked)}
            if not revised:
                break
            for chain in chains:
                leaf = revised.get(roots[tuple(chain)])
                chain += [leaf] if leaf is not None else []
        everything = [leaf for chain in chains for leaf in chain]
        search.log(chains=[[leaf.key for leaf in chain] for chain in chains])
        if self.select == "majority":
            return search.finish(majority(search.candidates(everything)))
        if self.select == "last":
            read = [[c for c in search.candidates(chain) if c.answer is not None] for chain in chains]
            return search.finish(majority([chain[-1] for chain in read if chain]))
        if self.n > count:
            search.log(warning=SHIFT)
        scores = dict(zip(everything, await search.score(everything), strict=True))
        winners = [weighted_majority(search.candidates(chain, [scores[n] for n in chain])) for chain in chains]
        return search.finish(weighted_majority([winner for winner in winners if winner is not None]))

    def _ask(self, search: Search, chain: tuple[Node, ...]) -> Node | None:
        """A question about the newest answers that fit the context; incomplete answers are not shown."""
        shown = [leaf for leaf in chain if leaf.done][-self.context :]
        while shown and (root := search.ask(REVISE, shown)) is None:
            shown = shown[1:]
        return root if shown else search.ask(REVISE)
