"""Counts what became of the samples of a search, so that no result hides those that a vote never saw."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from thinktime.core.search import Search
from thinktime.core.types import Node

TOLERATED = 0.02
"""Share of lost samples above which a result carries a warning."""


@dataclass(frozen=True)
class Tally:
    """The samples of a search: the ends of its tree that answer the problem. Pruned ones are left out."""

    total: int = 0
    unreadable: int = 0
    """Complete, but without an answer that can be read."""
    missing: int = 0
    """The model or the endpoint failed."""
    cut: int = 0
    """Ended by the length limit or by the budget."""
    timed_out: int = 0
    """Abandoned after the time limit of a request. The endpoint may bill it."""

    def __add__(self, other: Tally) -> Tally:
        return Tally(*(getattr(self, each.name) + getattr(other, each.name) for each in fields(self)))


def tally(search: Search) -> Tally:
    """The tally of a search so far."""
    inner = {record.node.parent.key for record in search.records() if record.node.parent}
    found = Tally()
    for record in search.records():
        node = record.node
        if node.parent is None or node.key in inner or not search.is_answer(node):
            continue
        if node.finish == "error":
            late = record.error is not None and record.error.late
            found += Tally(1, missing=not late, timed_out=late)
        elif record.pruned:
            continue
        elif node.finish in ("length", "budget"):
            found += Tally(1, cut=1)
        elif node.done:
            found += Tally(1, unreadable=_is_unreadable(search, node))
    return found


def warnings(result: Mapping[str, Any]) -> Iterator[str]:
    """A line for each run of a result that lost more than `TOLERATED` of its samples."""
    for run in result["runs"]:
        counts = run.get("samples") or asdict(Tally())
        lost = {name.replace("_", " "): n for name, n in counts.items() if name != "total" and n}
        if sum(lost.values()) > TOLERATED * counts["total"]:
            parts = ", ".join(f"{n} {name}" for name, n in lost.items())
            name = f"{run['strategy']}, n = {run['n']}"
            yield f"{name}: of {counts['total']} samples {parts}; the answers are those of the others"


def is_incomplete(run: Mapping[str, Any]) -> bool:
    """Whether samples of a run never came."""
    counts = run.get("samples") or asdict(Tally())
    return bool(counts["missing"] + counts["timed_out"])


def _is_unreadable(search: Search, node: Node) -> bool:
    return search.answers is not None and search.answers.read(node.state) is None
