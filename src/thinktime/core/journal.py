"""What a search writes down before anything else happens with it, and finds again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

from thinktime.core.types import Child, Extension, Finish, Generator, Problem, Reading
from thinktime.core.usage import Usage


class Journal(Protocol):
    """Where finished work is written; the bank is one."""

    def find_sample(self, key: str) -> Mapping[str, Any] | None:
        """The banked sample of this key: ``state``, ``finish``, ``usage`` and ``passes``."""
        ...

    def add_samples(self, problem: Problem, model: str, samples: Sequence[tuple[str, Mapping[str, Any]]]) -> None:
        """Bank finished samples under their keys."""
        ...

    def find_reading(self, key: str, scorer: str) -> Reading | None:
        """The reading by a scorer that was banked under this `reading_key`."""
        ...

    def add_readings(self, scorer: str, readings: Sequence[tuple[str, Reading]]) -> None:
        """Bank readings, each under its `reading_key`."""
        ...


class Samples:
    """The samples of one problem in a journal; without a journal there are none.

    What a race or the tokens left of a child is no sample and has a key of its own.
    """

    def __init__(self, journal: Journal | None, problem: Problem, generator: Generator) -> None:
        self.journal, self._problem, self._generator = journal, problem, generator

    def find(self, extension: Extension) -> Child | None:
        """The child as it was sampled, or cut to as many tokens as are left for it now."""
        if self.journal is None:
            return None
        child = self._banked(extension, extension.key)
        if child is None or child.usage.generated_tokens > extension.max_tokens:
            child = self.left(extension, extension.max_tokens, extension.max_tokens, "budget")
        return child

    def left(self, extension: Extension, least: int, most: int, finish: Finish) -> Child | None:
        """The shortest of so many tokens that a race or a budget has left of this child before."""
        found, key = [], f"{extension.key}/cut"
        while (child := self._banked(extension, key)) is not None:
            found.append(child)
            key += "/cut"
        long_enough = [child for child in found if least <= child.usage.generated_tokens <= most]
        shortest = min(long_enough, key=lambda child: child.usage.generated_tokens, default=None)
        return shortest and replace(shortest, finish=finish)

    def add(self, made: Sequence[tuple[Extension, Child]]) -> None:
        """Write down what was sampled."""
        if self.journal is None:
            return
        samples = []
        for extension, child in made:
            in_full = child.usage.generated_tokens == extension.max_tokens
            if child.finish == "error" or (child.finish == "budget" and not in_full):  # the clock cuts where it likes
                continue
            key = extension.key
            while child.finish in ("pruned", "budget") and (
                key == extension.key or self.journal.find_sample(key) is not None
            ):
                key += "/cut"
            packed = self._generator.pack(extension.node.state, child.state)
            facts = {"state": packed, "finish": child.finish, "usage": child.usage.as_dict()}
            samples.append((key, {**facts, "passes": child.passes}))
        self.journal.add_samples(self._problem, self._generator.name, samples)

    def _banked(self, extension: Extension, key: str) -> Child | None:
        banked = self.journal.find_sample(key) if self.journal is not None else None
        if banked is None:
            return None
        state = self._generator.unpack(extension.node.state, banked["state"])
        return Child(state, banked["finish"], Usage(**banked["usage"]), banked["passes"])
