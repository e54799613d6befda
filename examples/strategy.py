"""A strategy of one's own, its test, and an answer.

    python examples/strategy.py

Ask a few times; if the samples disagree, let a beam search answer. docs/tutorials/strategy.md explains the parts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import thinktime
from thinktime import Answer, Capability, Search, majority
from thinktime.testing import check_strategy


@dataclass(frozen=True)
class VoteThenSearch:
    """A vote; if less than ``enough`` of it agrees, a beam search.

    Args:
        n: samples of the vote, and solutions of the beam search.
        enough: the share of the vote that needs no search.
    """

    n: int = 4
    enough: float = 0.75
    needs: ClassVar[frozenset[str]] = thinktime.BeamSearch.needs | {Capability.ANSWERS}

    async def __call__(self, search: Search) -> Answer:
        """Vote, and search if the vote is not clear."""
        winner = majority(search.candidates(await search.extend([search.root], self.n)))
        search.log(share=winner.share if winner else None)
        if winner is None or (winner.share or 0) < self.enough:
            inner = await search.run(thinktime.BeamSearch(n=self.n, width=2))
            winner = search.candidates([inner.node])[0] if inner.node else winner
        return search.finish(winner)


def main() -> None:
    """Check the laws, then answer."""
    check_strategy(VoteThenSearch(n=4))
    question = "Mia has 31 stamps. Mia sells 18 stamps. How many stamps does Mia have now?"
    answer = thinktime.solve(question, strategy=VoteThenSearch(n=4), budget="4000tok")
    print(f"{answer.value}  ({answer.usage.generated_tokens} tokens)")


if __name__ == "__main__":
    main()
