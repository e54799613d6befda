"""Restarts: run a randomised search several times from scratch (Luby, Sinclair and Zuckerman 1993).

The winners are put to a vote or to the scorer, as whole samples are in self-consistency and best-of-n.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from thinktime.core.errors import ThinktimeError
from thinktime.core.search import Search, Strategy, refuse_copies
from thinktime.core.selection import best, majority, weighted_majority
from thinktime.core.trace import Answer
from thinktime.core.types import Capability, Node
from thinktime.strategies.options import at_least, one_of
from thinktime.strategies.sampling.single import Single

ONE_SAMPLE = Single()
SELECT = {"majority": majority, "weighted_majority": weighted_majority, "best": best}
"""How one of the winners is chosen. All but ``majority`` use a scorer."""


@dataclass(frozen=True)
class Restarts:
    """Run another strategy ``n`` times and choose among the answers.

    The runs follow each other, so a budget that is too small for all of them pays for the first ones. A run that fails
    is left out, unless all fail.

    Args:
        inner: the strategy that runs; in brackets after the name, as in ``restarts(beam_search:n=4):n=2``.
        n: runs.
        select: how the answer is chosen: by ``majority``, by ``weighted_majority`` with the scores as weights, or the
            ``best`` by its score.
    """

    inner: Strategy = ONE_SAMPLE
    n: int = 4
    select: str = "majority"
    needs: ClassVar[frozenset[str]] = frozenset({Capability.ANSWERS})

    def __post_init__(self) -> None:
        at_least("n", self.n, 1)
        one_of("select", self.select, SELECT)
        needs = self.needs | getattr(self.inner, "needs", frozenset())
        needs |= {Capability.SCORES} if self._scores else set()
        object.__setattr__(self, "needs", needs)  # this instance needs what its inner strategy needs

    def validate(self, search: Search) -> None:
        validate = getattr(self.inner, "validate", None)
        if validate is not None:
            validate(search)

    async def __call__(self, search: Search) -> Answer:
        if search.sampling.temperature == 0:
            refuse_copies(self.n)
        winners: list[Node] = []
        failures: list[ThinktimeError] = []
        for _ in range(self.n):
            try:
                answer = await search.run(self.inner)
            except ThinktimeError as error:
                failures.append(error)
                continue
            winners += [answer.node] if answer.node is not None else []
            if search.exhausted:
                break
        if failures and not winners:
            raise failures[0]
        scores = await search.score(winners) if self._scores else None
        return search.finish(SELECT[self.select](search.candidates(winners, scores)))

    @property
    def _scores(self) -> bool:
        return self.select != "majority"
