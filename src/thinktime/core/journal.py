"""Storage of finished work: a search writes each result before it uses it, and finds it again when it resumes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Protocol

from thinktime.core.errors import BankError
from thinktime.core.protocols import Generator
from thinktime.core.types import Child, Extension, Finish, Problem, Score
from thinktime.core.usage import Usage


class Journal(Protocol):
    """A store of finished work, such as the bank. Values of a sample's ``state`` are JSON values and bytes."""

    def find_sample(self, key: str) -> Mapping[str, Any] | None:
        """The banked sample of this key: ``state``, ``finish``, ``usage``, ``passes`` and ``log_weight``."""
        ...

    def add_samples(self, problem: Problem, model: str, samples: Sequence[tuple[str, Mapping[str, Any]]]) -> None:
        """Bank finished samples under their keys."""
        ...

    def find_score(self, key: str, scorer: str) -> Score | None:
        """The banked score of this scorer under this `score_key`."""
        ...

    def add_scores(self, scorer: str, scores: Sequence[tuple[str, Score]]) -> None:
        """Bank scores, each under its `score_key`."""
        ...


@contextmanager
def readable(key: str) -> Iterator[None]:
    """Turn errors of the block into a `BankError`: the row of this key has another form than this version writes."""
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:80]}"
        raise BankError(
            f"sample={key!r}: the bank has it in a form that this version cannot read ({reason}); use another bank"
        ) from error


class Samples:
    """The banked samples of one problem by one model; without a journal there are none.

    A child that a race or a budget cut short is not a whole sample: it is banked under a key of its own. So is a child
    with confidences if the bank has it without.
    """

    def __init__(self, journal: Journal | None, problem: Problem, generator: Generator) -> None:
        self.journal, self._problem, self._generator = journal, problem, generator

    def find(self, extension: Extension) -> Child | None:
        """The banked child, or, if it is longer than the length left now, an earlier cut to that length."""
        if self.journal is None:
            return None
        child = self._banked(extension, extension.key)
        if child is None or child.length > extension.max_length:
            child = self.cut_short(extension, extension.max_length, extension.max_length, "budget")
        return child

    def cut_short(self, extension: Extension, least: int, most: int, finish: Finish) -> Child | None:
        """The shortest child of this extension that a race or a budget cut to a length from ``least`` to ``most``."""
        found, key = [], f"{extension.key}/cut"
        while (child := self._banked(extension, key)) is not None:
            found.append(child)
            key += "/cut"
        long_enough = [child for child in found if least <= child.length <= most]
        shortest = min(long_enough, key=lambda child: child.length, default=None)
        return shortest and replace(shortest, finish=finish)

    def add(self, made: Sequence[tuple[Extension, Child]]) -> None:
        """Bank sampled children."""
        if self.journal is None:
            return
        samples = []
        for extension, child in made:
            in_full = child.length == extension.max_length
            if child.finish == "error" or (child.finish == "budget" and not in_full):  # a deadline cuts at any length
                continue
            key = extension.key
            while child.finish in ("pruned", "budget") and (
                key == extension.key or self.journal.find_sample(key) is not None
            ):
                key += "/cut"
            if extension.confidences and self.journal.find_sample(key) is not None:
                key += "/confidences"
            packed = self._generator.pack(extension.node.state, child.state)
            row = {"state": packed, "finish": child.finish, "usage": child.usage.as_dict(), "passes": child.passes}
            samples.append((key, row | {"log_weight": child.log_weight}))
        self.journal.add_samples(self._problem, self._generator.name, samples)

    def _banked(self, extension: Extension, key: str) -> Child | None:
        child = self._read(extension, key)
        if child is not None and extension.confidences and child.length and not child.state.confidences:
            return self._read(extension, f"{key}/confidences")
        return child

    def _read(self, extension: Extension, key: str) -> Child | None:
        banked = self.journal.find_sample(key) if self.journal is not None else None
        if banked is None:
            return None
        before, generator = extension.node.state, self._generator
        with readable(key):
            state = generator.unpack(before, banked["state"])
            length = generator.length(state) - generator.length(before)
            usage, log_weight = Usage.from_dict(banked["usage"]), banked.get("log_weight", 0.0)
            return Child(state, banked["finish"], usage, banked["passes"], length=length, log_weight=log_weight)
