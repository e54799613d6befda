"""Search over the initial noise of a sample (Ma et al. 2025, arXiv 2501.09732).

With a deterministic sampler the initial noise determines the picture, so choosing a noise is choosing a picture. The
paper's random search is `best_of_n`; this module has its zero-order search and its search over paths.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from thinktime.core.errors import InputError, check_number
from thinktime.core.search import Search
from thinktime.core.selection import best, ranked
from thinktime.core.trace import Answer
from thinktime.core.transitions import Neighbour, Redo, Renoise
from thinktime.core.types import Capability, Node
from thinktime.strategies.options import above, at_least, one_of
from thinktime.strategies.sampling.ensemble import BY, need_parts, ratings

ZERO_ORDER: frozenset[str] = frozenset(
    {Capability.STEPS, Capability.PREFIX, Capability.SCORES, Capability.TRANSITIONS, Capability.NO_NOISE}
)


@dataclass(frozen=True)
class ZeroOrder:
    """Hill climbing: try ``n`` neighbours of a noise, continue from the best one; the answer is the best picture.

    Args:
        n: neighbours per round.
        rounds: the most rounds; 0 is a random search over ``start`` noises.
        start: initial noises.
        cosine: cosine of the angle between a noise and its neighbours, between 0 and 1.
        on_stall: if no neighbour is better, ``keep`` the noise or ``restart`` from fresh ones.
        by: compare pictures by ``score``, or by the mean of their ``ranks`` under the parts of the score.
        final_steps: paint the winner again from its noise with this many steps and score it again; 0 skips this.
    """

    n: int = 4
    rounds: int = 8
    start: int = 1
    cosine: float = 0.95
    on_stall: str = "keep"
    by: str = "score"
    final_steps: int = 0
    needs: ClassVar[frozenset[str]] = ZERO_ORDER

    def __post_init__(self) -> None:
        at_least("n", self.n, 1)
        at_least("rounds", self.rounds, 0)
        at_least("start", self.start, 1)
        Neighbour(self.cosine)
        one_of("on_stall", self.on_stall, ("keep", "restart"))
        one_of("by", self.by, BY)
        at_least("final_steps", self.final_steps, 0)

    async def __call__(self, search: Search) -> Answer:
        need_parts(search, self.by)
        seen: list[Node] = []
        pivot: list[Node] = []
        noises = await search.extend([search.root], self.start, until="step")
        for turn in range(self.rounds + 1):
            pictures = await search.extend(noises)
            await search.score(pictures)
            seen += pictures
            stalled, pivot = pivot, self._best(search, [*pivot, *pictures])
            if search.exhausted or turn == self.rounds:
                break
            if pivot != stalled or (pivot and self.on_stall == "keep"):
                noises = await search.extend(
                    [noise_of(picture) for picture in pivot], self.n, transition=Neighbour(self.cosine)
                )
            else:
                noises, pivot = await search.extend([search.root], self.start, until="step"), []
        winner = self._best(search, seen)
        searched = search.ledger.spent.denoiser_calls
        if self.final_steps:
            again = await search.extend([noise_of(picture) for picture in winner], transition=Redo(self.final_steps))
            await search.score(again)
            winner = again or winner
        search.log(nfe_search=searched, nfe_final=search.ledger.spent.denoiser_calls - searched)
        return search.finish(best(search.candidates(winner)))

    def _best(self, search: Search, pictures: Sequence[Node]) -> list[Node]:
        """The best scored picture, or none; the first one wins a tie."""
        rated = [pair for pair in ranked(pictures, ratings(search, pictures, self.by)) if pair[1] is not None]
        return [node for node, _ in rated[:1]]


def noise_of(picture: Node) -> Node:
    """The noise that a picture was painted from. It is the parent, because a picture is painted in one extension."""
    assert picture.parent is not None
    return picture.parent


@dataclass(frozen=True)
class SearchOverPaths:
    """Add noise to ``n`` nearly finished pictures, ``width`` times each, denoise them further, and keep the best ``n``.

    A noise level is the share of the denoising that is left; 1 is pure noise. Each round adds ``forward`` noise and
    removes ``backward``, so all pictures approach the end by the difference. Their clean estimates are scored.

    Args:
        n: paths.
        width: noisy copies of each path.
        level: noise level of the first round.
        forward: noise that a round adds.
        backward: noise that a round removes; more than ``forward``.
    """

    n: int = 4
    width: int = 2
    level: float = 0.11
    forward: float = 0.78
    backward: float = 0.81
    needs: ClassVar[frozenset[str]] = frozenset({Capability.PREFIX, Capability.PROCESS_REWARD, Capability.TRANSITIONS})

    def __post_init__(self) -> None:
        at_least("n", self.n, 1)
        at_least("width", self.width, 1)
        check_number("level", self.level)
        if not 0 < self.level < 1:
            raise InputError("level", self.level, "give a share of the way between 0 and 1")
        above("forward", self.forward, 0)
        if self.level + self.forward > 1:
            raise InputError("forward", self.forward, f"give less; from level={self.level} that is past pure noise")
        check_number("backward", self.backward)
        if not self.forward < self.backward <= 1:
            fix = f"give more than forward={self.forward}, at most 1; else the search would never end"
            raise InputError("backward", self.backward, fix)

    async def __call__(self, search: Search) -> Answer:
        steps = search.sampling.max_length
        level, early = self.level, max(1, round((1 - self.level) * steps))
        paths = await search.extend([search.root], at_most=early)
        whole = await search.extend(paths)  # an answer for the case that the budget ends early
        seen = dict(zip(whole, await search.score(whole), strict=True))
        paths += await search.extend([search.root], self.n - 1, at_most=early) if self.n > 1 else []
        while paths and level > 0:
            noisy = await search.extend(paths, self.width, transition=Renoise(level + self.forward))
            far = round((level + self.forward) * steps) - round(max(0.0, level + self.forward - self.backward) * steps)
            level = max(0.0, level + self.forward - self.backward)
            ends = await search.extend(noisy, at_most=max(1, far))
            order = ranked(ends, await search.score(ends))
            seen |= {node: score for node, score in order if node.done}
            search.prune([node for node, _ in order[self.n :] if not node.done])
            paths = [node for node, _ in order[: self.n] if node.finish == "cut"]
        last = await search.extend(paths)
        seen |= dict(zip(last, await search.score(last), strict=True))
        return search.finish(best(search.candidates(seen, seen.values())))
