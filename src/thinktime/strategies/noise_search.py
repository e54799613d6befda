"""Search over the noise a sample starts from (Ma et al. 2025, arXiv 2501.09732).

With a deterministic sampler the first noise decides the picture, so choosing a noise is choosing a picture. The
paper's random search is `best_of_n`; here are the climb among neighbours of a noise, and the search over paths.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import ClassVar

from thinktime.core.errors import InputError
from thinktime.core.search import Answer, Search
from thinktime.core.selection import best, ranked
from thinktime.core.types import Capability, Neighbour, Node, Renoise
from thinktime.strategies.options import above, at_least, one_of

ZERO_ORDER: frozenset[Capability] = frozenset(
    {Capability.STEPS, Capability.PREFIX, Capability.SCORES, Capability.MOVES, Capability.NO_NOISE}
)


@dataclass(frozen=True)
class ZeroOrder:
    """A climb: try ``n`` neighbours of a noise, go on from the best picture's; the answer is the best ever seen.

    Args:
        n: neighbours a round.
        rounds: of them; a budget may end it earlier.
        cosine: of the angle between a noise and its neighbours, between 0 and 1.
        on_stall: where no neighbour is better, ``keep`` the noise or ``restart`` from a fresh one.
    """

    n: int = 4
    rounds: int = 8
    cosine: float = 0.95
    on_stall: str = "keep"
    needs: ClassVar[frozenset[Capability]] = ZERO_ORDER

    def __post_init__(self) -> None:
        at_least("n", self.n, 1)
        at_least("rounds", self.rounds, 1)
        Neighbour(self.cosine)
        one_of("on_stall", self.on_stall, ("keep", "restart"))

    async def __call__(self, search: Search) -> Answer:
        seen: dict[Node, float | None] = {}
        noises = await search.extend([search.root], until="step")
        pivot, height = search.root, -inf
        for _ in range(self.rounds + 1):
            pictures = await search.extend(noises)
            scores = await search.score(pictures)
            seen |= dict(zip(pictures, scores, strict=True))
            top = max((score for score in scores if score is not None), default=-inf)
            better = top > height
            if better:
                winner = pictures[scores.index(top)]
                pivot, height = winner.parent or search.root, top
            if search.exhausted:
                break
            if better or self.on_stall == "keep":
                noises = await search.extend([pivot], self.n, move=Neighbour(self.cosine))
            else:
                noises, height = await search.extend([search.root], until="step"), -inf
        return search.finish(best(search.candidates(seen, seen.values())))


@dataclass(frozen=True)
class SearchOverPaths:
    """``n`` pictures nearly done are made noisy again ``width`` ways each and denoised further; the best ``n`` stay.

    Noise is counted as the share of the way that is left: 1 is pure noise. Each round goes ``forward`` back into noise
    and ``backward`` out of it, so all come nearer to the end by the difference. Scored are clean estimates.

    Args:
        n: paths.
        width: ways of each.
        level: where the first round begins.
        forward: noise that a round adds.
        backward: noise that it takes away; more than ``forward``.
    """

    n: int = 4
    width: int = 2
    level: float = 0.11
    forward: float = 0.78
    backward: float = 0.81
    needs: ClassVar[frozenset[Capability]] = frozenset({Capability.PREFIX, Capability.PROCESS_REWARD, Capability.MOVES})

    def __post_init__(self) -> None:
        at_least("n", self.n, 1)
        at_least("width", self.width, 1)
        if not 0 < self.level < 1:
            raise InputError("level", self.level, "give a share of the way between 0 and 1")
        above("forward", self.forward, 0)
        if self.level + self.forward > 1:
            raise InputError("forward", self.forward, f"give less; from level={self.level} that is past pure noise")
        if not self.forward < self.backward <= 1:
            fix = f"give more than forward={self.forward}, at most 1; else the search would never end"
            raise InputError("backward", self.backward, fix)

    async def __call__(self, search: Search) -> Answer:
        steps = search.sampling.max_tokens
        level, early = self.level, max(1, round((1 - self.level) * steps))
        paths = await search.extend([search.root], at_most=early)
        whole = await search.extend(paths)  # so there is an answer, whenever the budget ends
        seen = dict(zip(whole, await search.score(whole), strict=True))
        paths += await search.extend([search.root], self.n - 1, at_most=early) if self.n > 1 else []
        while paths and level > 0:
            noisy = await search.extend(paths, self.width, move=Renoise(level + self.forward))
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
