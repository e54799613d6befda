"""Selectors: pick an answer from finished nodes. An answer that cannot be read never wins a vote."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from math import inf

from thinktime.core.types import Node


@dataclass(frozen=True)
class Candidate:
    """A node with its answer (None: unreadable), the answer's equivalence key and its score (None: missing)."""

    node: Node
    answer: str | None
    key: Hashable = None
    score: float | None = None
    share: float | None = None
    """After a vote: the winning answer's share of the votes."""


def ranked(nodes: Sequence[Node], scores: Sequence[float | None]) -> list[tuple[Node, float | None]]:
    """Nodes with their scores, the best first; ties stay in order, missing scores come last."""
    pairs = zip(nodes, scores, strict=True)
    return sorted(pairs, key=lambda pair: -inf if pair[1] is None else pair[1], reverse=True)


def best(candidates: Sequence[Candidate]) -> Candidate | None:
    """Best-of-n: the highest score among readable answers; ties and missing scores go to the earliest."""
    readable = [c for c in candidates if c.answer is not None]
    scored = [c for c in readable if c.score is not None]
    return max(scored, key=lambda c: c.score or 0.0) if scored else next(iter(readable), None)


def vote(candidates: Sequence[Candidate], weight: Callable[[Candidate], float]) -> Candidate | None:
    """The answer with the largest summed weight, ties to the one seen first; its best-scored node stands for it."""
    readable = [c for c in candidates if c.answer is not None]
    weights: dict[Hashable, float] = {}
    for candidate in readable:
        weights[candidate.key] = weights.get(candidate.key, 0.0) + weight(candidate)
    if not weights:
        return None
    winner = max(weights, key=lambda key: weights[key])
    total = sum(weights.values())
    chosen = best([c for c in readable if c.key == winner])
    return replace(chosen, share=weights[winner] / total if total else None) if chosen else None


def majority(candidates: Sequence[Candidate]) -> Candidate | None:
    """Self-consistency (Wang et al. 2022, arXiv 2203.11171): plurality over equivalent answers."""
    return vote(candidates, lambda _: 1.0)


def tied(candidates: Sequence[Candidate]) -> int:
    """How many answers share the most votes; 0 if no answer can be read."""
    votes = Counter(c.key for c in candidates if c.answer is not None)
    most = max(votes.values(), default=0)
    return sum(count == most for count in votes.values())


def weighted_majority(candidates: Sequence[Candidate]) -> Candidate | None:
    """Plurality with scores as weights (Li et al. 2023, arXiv 2206.02336); a missing score has no vote."""
    scored = [c for c in candidates if c.answer is not None and c.score is not None]
    return vote(scored, lambda c: c.score or 0.0) if scored else majority(candidates)
