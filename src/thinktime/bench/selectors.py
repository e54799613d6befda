"""Accuracy of selectors on k samples, over random subsets."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from random import Random
from statistics import fmean, pstdev

from thinktime.bench.samples import Sample, Sampled
from thinktime.bench.statistics import Estimate, mean_interval
from thinktime.core.errors import InputError
from thinktime.core.selection import Candidate, majority
from thinktime.core.types import Node
from thinktime.strategies.sampling.length_vote import by_length

DRAWS = 100
PLATEAU = 0.005

Select = Callable[[Sequence[Candidate]], Candidate | None]
Score = Callable[[Sample], float | None]


@dataclass(frozen=True)
class SelectorPoint:
    """A selector at one k: its accuracy with an interval over problems, and the spread over subsets.

    ``sd`` is the standard deviation of the mean accuracy over subsets. It is not an interval, because subsets overlap
    and it shrinks as k approaches n. ``each`` is the mean of every problem over the subsets, for paired differences.
    """

    accuracy: Estimate
    sd: float
    each: tuple[float, ...]


def candidates(samples: Sequence[Sample], score: Score) -> list[Candidate]:
    """Samples as the candidates of a search; those cut at the limit have no answer."""
    return [
        Candidate(
            Node(str(place), (place,), sample, finish="eos" if sample.ended else "length"),
            None if sample.key is None or not sample.ended else str(sample.key),
            sample.key,
            score(sample),
        )
        for place, sample in enumerate(samples)
    ]


def curve(
    problems: Sequence[Sampled],
    ks: Sequence[int],
    select: Select,
    *,
    score: Score = lambda sample: sample.reward,
    draws: int = DRAWS,
    seed: int = 0,
) -> dict[int, SelectorPoint]:
    """The accuracy of a selector at every k over random subsets without replacement, which all selectors share.

    Raises:
        InputError: a k exceeds the samples of a problem.
    """
    for problem in problems:
        if bad := [k for k in ks if not 1 <= k <= len(problem.samples)]:
            raise InputError(
                "k", bad[0], f"problem {problem.id} has {len(problem.samples)} samples; give 1 to that many"
            )
    hits: dict[int, list[list[bool]]] = {k: [] for k in ks}
    for problem in problems:
        rng = Random(f"{seed}/{problem.id}")
        everything = candidates(problem.samples, score)
        orders = [rng.sample(everything, len(everything)) for _ in range(draws)]
        for k in ks:
            chosen = (select(order[:k]) for order in orders)
            hits[k].append([winner is not None and winner.key in problem.right for winner in chosen])
    points = {}
    for k, rows in hits.items():
        each = tuple(fmean(row) for row in rows)
        by_subset = [fmean(row[draw] for row in rows) for draw in range(draws)]
        points[k] = SelectorPoint(mean_interval(each, seed), pstdev(by_subset), each)
    return points


def length_vote(side: str, keep: float = 0.5, least: int = 3) -> Select:
    """The strategy `length_vote` as a selector: a vote of the shortest or longest samples that ended."""

    def select(drawn: Sequence[Candidate]) -> Candidate | None:
        ended = [candidate for candidate in drawn if candidate.node.done]
        return majority(by_length(ended, lambda candidate: candidate.node.state.length, side, keep, least))

    return select


def first_finish(k: int, *, last: bool = False) -> Select:
    """The strategy `first_finish` as a selector: a vote of the first ``k`` to end, or as a control the last."""

    def select(drawn: Sequence[Candidate]) -> Candidate | None:
        arrived = [candidate for candidate in drawn if candidate.answer is not None]
        arrived.sort(key=lambda candidate: candidate.node.state.length, reverse=last)
        ends = {candidate.node.state.length for candidate in arrived[:k]}
        return majority([candidate for candidate in arrived if candidate.node.state.length in ends])

    return select


def plateau(accuracy: Mapping[int, float], least: float = PLATEAU) -> int | None:
    """The smallest k after which no doubling gains ``least`` or more; None if the last doubling still does.

    All later doublings count, because the first one never helps a vote: two votes are no better than one.
    """
    ks = sorted(accuracy)
    found = None
    for k, double in reversed(list(pairwise(ks))):
        if accuracy[double] - accuracy[k] >= least:
            break
        found = k
    return found
