"""Counts what became of the samples of a search, so that no result hides those that a vote never saw."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from thinktime.core.search import Search
from thinktime.core.trace import Record

Kind = Literal["readable", "unreadable", "missing", "cut", "timed_out"]
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


def ends(search: Search) -> Iterator[tuple[Record, Kind]]:
    """The ends of a search's tree that answer the problem, and what became of each."""
    inner = {record.node.parent.key for record in search.records() if record.node.parent}
    for record in search.records():
        node = record.node
        if node.parent is None or node.key in inner or not search.is_answer(node) or node.model not in search.models:
            continue
        if node.finish == "error":
            yield record, "timed_out" if record.error is not None and record.error.late else "missing"
        elif record.pruned:
            continue
        elif node.finish in ("length", "budget"):
            yield record, "cut"
        elif node.done:
            readable = search.answers is None or search.answers.read(node.state) is not None
            yield record, "readable" if readable else "unreadable"


def tally(kinds: Iterable[str]) -> Tally:
    """Count samples by their kind."""
    counts = Counter(kinds)
    return Tally(counts.total(), *(counts[each.name] for each in fields(Tally)[1:]))


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
