"""Ensembles of verifiers: candidates are compared by ranks, because different scores have no common scale."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from thinktime.core.errors import CapabilityError
from thinktime.core.search import Search
from thinktime.core.types import Capability, Node

BY = ("score", "ranks")
"""How to compare candidates: by score, or by the mean of their ranks under the parts of the score."""


def ratings(search: Search, nodes: Sequence[Node], by: str) -> list[float | None]:
    """A rating of each scored node within this pool; higher is better, None without a score."""
    records = [search.trace[node.key] for node in nodes]
    if by == "score":
        return [record.score for record in records]
    scored = [record.steps for record in records if record.score is not None]
    means = iter(mean_ranks(list(zip(*scored, strict=True))))
    return [None if record.score is None else -next(means) for record in records]


def mean_ranks(parts: Sequence[Sequence[float]]) -> list[float]:
    """The mean rank of each candidate over the parts; rank 1 is the best, ties get the mean of their ranks."""
    return [fmean(ranks) for ranks in zip(*map(_ranks, parts), strict=True)]


def _ranks(scores: Sequence[float]) -> list[float]:
    return [sum(s > mine for s in scores) + (sum(s == mine for s in scores) + 1) / 2 for mine in scores]


def need_parts(search: Search, by: str) -> None:
    """Raise a `CapabilityError` if ``by`` is ``ranks`` and the score has only one part."""
    if by == "ranks" and Capability.PARTS not in search.capabilities:
        raise CapabilityError("by='ranks': an ensemble needs at least two verifiers; compose the scorer of several")
