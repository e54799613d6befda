"""A tournament of answers judged in pairs (Singh et al. 2026, arXiv 2603.04304; Kwok et al. 2026, arXiv 2607.05391).

A judge is better at saying which of two solutions is right than at grading one alone. Judging all pairs of n answers
takes n (n - 1) / 2 comparisons, so both papers choose which pairs to judge:

- ``swiss`` (V1-Infer, the first paper): every answer first meets two others. Then neighbours in the ranking meet,
  because comparisons of equals tell most. A win counts as much as the gap between the two grades.
- ``pivot`` (LLM-as-a-Verifier, the second paper): the answers meet around a ring in random order. The leaders become
  pivots, and every answer meets every pivot. A comparison gives each side its probability of winning under the
  Bradley-Terry model.

Ours: equivalent answers enter once, with their first sample, so they never meet. A pair is judged in both orders and
counts with the mean grades; the papers ask one order. A pair with an unreadable judgement counts for neither side. No
pair meets twice, because the same question has the same judgement here. Ties go to the more frequent answer.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import combinations, product
from statistics import fmean
from typing import ClassVar

from thinktime.core.errors import InputError
from thinktime.core.search import Search
from thinktime.core.selection import Candidate
from thinktime.core.trace import Answer
from thinktime.core.types import Capability
from thinktime.strategies.options import at_least, one_of

DEGREE = 2
"""Answers that every answer meets before the Swiss rounds, as in all experiments of the paper."""
WINDOW = 8
"""How far apart neighbours in the ranking may be, as in all experiments of the paper."""
FLOOR = 0.1
"""The least weight of a comparison, as in all experiments of the paper."""
SPREAD = 0.9
"""From the worst to the best grade of a judge: 0.1 to 1. The paper's grades are 1 to 10."""

Pair = tuple[int, int]


@dataclass(frozen=True)
class PairwiseTournament:
    """The distinct answers of ``n`` samples meet in pairs before a judge; the one with the best win rate answers.

    If the budget ends, the best so far answers; before the first comparison that is the most frequent answer.

    Args:
        n: samples.
        schedule: which pairs meet, ``swiss`` or ``pivot``.
        pairs: for ``swiss``, the most pairs for each distinct answer; the paper has 1 to 3.
        pivots: for ``pivot``, how many leaders of the ring become pivots.
        orders: judge a pair in ``both`` orders, which cancels a judge's preference for a place, or in ``one``.
    """

    n: int = 16
    schedule: str = "swiss"
    pairs: int = 2
    pivots: int = 2
    orders: str = "both"
    needs: ClassVar[frozenset[str]] = frozenset({Capability.COMPARE, Capability.ANSWERS})

    def __post_init__(self) -> None:
        at_least("n", self.n, 1)
        one_of("schedule", self.schedule, ("swiss", "pivot"))
        at_least("pairs", self.pairs, 1)
        at_least("pivots", self.pivots, 1)
        one_of("orders", self.orders, ("both", "one"))

    def validate(self, search: Search) -> None:
        if (most := getattr(search.scorer, "candidates", 2)) < 2:
            raise InputError("candidates", most, "a tournament compares pairs; take a judge that compares 2 or more")

    async def __call__(self, search: Search) -> Answer:
        candidates = search.candidates(await search.extend([search.root], self.n))
        votes = Counter(c.key for c in candidates if c.answer is not None)
        first = {c.key: c for c in reversed(candidates)}
        rng = search.random("tournament")
        players = [first[key] for key in rng.sample(list(votes), len(votes))]
        standings = Standings(len(players), by_margin if self.schedule == "swiss" else by_probability)
        if self.schedule == "pivot":
            await self._meet(search, players, ring(len(players)), standings)
            await self._meet(search, players, against_pivots(standings, self.pivots), standings)
        while self.schedule == "swiss" and (left := self.pairs * len(players) - len(standings.met)) > 0:
            pairs = coverage(standings) or neighbours(standings)
            if not pairs:
                break
            turned = [(b, a) if rng.random() < 0.5 else (a, b) for a, b in pairs[:left]]
            await self._meet(search, players, turned, standings)
        rates = [standings.rate(place) for place in range(len(players))]
        search.log(answers=[player.answer for player in players], rates=rates, met=len(standings.met))
        order = sorted(range(len(players)), key=lambda i: (-round(rates[i], 9), -votes[players[i].key]))
        return search.finish(players[order[0]] if order else None)

    async def _meet(
        self, search: Search, players: Sequence[Candidate], pairs: Sequence[Pair], standings: Standings
    ) -> None:
        """Judge these pairs and note the results."""
        asked = {pair: [pair, pair[::-1]] if self.orders == "both" else [pair] for pair in pairs}
        turns = [turn for both in asked.values() for turn in both]
        found = await search.compare_all([[players[place].node for place in turn] for turn in turns])
        graded = dict(zip(turns, found, strict=True))
        for (a, b), both in asked.items():
            grades = [dict(zip(turn, graded[turn], strict=True)) for turn in both]
            standings.add(a, b, _mean(grade[a] for grade in grades), _mean(grade[b] for grade in grades))


@dataclass
class Standings:
    """The results so far of ``players`` answers, which are numbered from 0.

    ``result`` gives the weight of a comparison and the first side's share of the win, from the grades of both.
    """

    players: int
    result: Callable[[float, float], tuple[float, float]]
    met: set[frozenset[int]] = field(default_factory=set)
    """The pairs that were asked, also those without a readable judgement."""
    opponents: Counter[int] = field(default_factory=Counter)
    """For each answer, the number of pairs with a result."""
    _wins: dict[int, float] = field(default_factory=lambda: defaultdict(float))
    _weights: dict[int, float] = field(default_factory=lambda: defaultdict(float))

    def add(self, a: int, b: int, grade_a: float | None, grade_b: float | None) -> None:
        """Note that two answers met; without both grades neither side gains anything."""
        self.met.add(frozenset((a, b)))
        if grade_a is None or grade_b is None:
            return
        weight, share = self.result(grade_a, grade_b)
        for player, won in ((a, share), (b, 1 - share)):
            self.opponents[player] += 1
            self._wins[player] += weight * won
            self._weights[player] += weight

    def rate(self, player: int) -> float:
        """The weighted win rate; 0.5 without a result."""
        return self._wins[player] / self._weights[player] if self._weights[player] else 0.5

    def gap(self, a: int, b: int) -> float:
        """How far apart the win rates of two answers are."""
        return abs(self.rate(a) - self.rate(b))


def by_margin(a: float, b: float) -> tuple[float, float]:
    """A win, a tie or a loss, with the gap between the grades as its weight."""
    return max(abs(a - b) / SPREAD, FLOOR), 0.5 if a == b else float(a > b)


def by_probability(a: float, b: float) -> tuple[float, float]:
    """The probability that the first side wins under the Bradley-Terry model; all comparisons weigh the same."""
    return 1.0, 1 / (1 + math.exp(b - a))


def coverage(standings: Standings) -> list[Pair]:
    """Disjoint new pairs for the answers with fewer than two results, each with the nearest free opponent."""
    everyone = range(standings.players)
    few = [player for player in everyone if standings.opponents[player] < DEGREE]
    return _paired(standings, sorted(few, key=lambda i: standings.opponents[i]), lambda player: everyone)


def neighbours(standings: Standings) -> list[Pair]:
    """Disjoint new pairs from the best answer down, each with the nearest free one of the next eight in the ranking."""
    order = sorted(range(standings.players), key=lambda i: -standings.rate(i))
    place = {player: at for at, player in enumerate(order)}
    return _paired(standings, order, lambda player: order[place[player] + 1 : place[player] + 1 + WINDOW])


def ring(players: int) -> list[Pair]:
    """Each answer with the next one, the last with the first. So each is shown first once, and second once."""
    return [(i, (i + 1) % players) for i in range(players if players > 2 else players - 1)]


def against_pivots(standings: Standings, pivots: int) -> list[Pair]:
    """Each answer with each of the ``pivots`` leaders, and the leaders with each other, if they have not met."""
    order = sorted(range(standings.players), key=lambda i: -standings.rate(i))
    leaders, others = order[:pivots], sorted(order[pivots:])
    pairs = [*product(others, leaders), *combinations(sorted(leaders), 2)]
    return [pair for pair in pairs if frozenset(pair) not in standings.met]


def _paired(standings: Standings, order: Sequence[int], opponents: Callable[[int], Sequence[int]]) -> list[Pair]:
    """Each answer of ``order`` with the nearest of its opponents that is free and new to it."""
    pairs: list[Pair] = []
    busy: set[int] = set()
    for player in order:
        free = [
            other
            for other in opponents(player)
            if other != player and other not in busy and frozenset((player, other)) not in standings.met
        ]
        if player not in busy and free:
            pairs.append((player, min(free, key=lambda other: standings.gap(player, other))))
            busy.update(pairs[-1])
    return pairs


def _mean(grades: Iterable[float | None]) -> float | None:
    """The mean of grades; None if one of them is missing or no finite number."""
    found = list(grades)
    finite = [grade for grade in found if grade is not None and math.isfinite(grade)]
    return fmean(finite) if len(finite) == len(found) else None
