"""Races between children, and transitions of noise: what `Search.extend` can do besides going on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from thinktime.core.errors import InputError


@dataclass(eq=False)
class Race:
    """The first ``k`` children to end win; the others are cancelled at the length of the k-th.

    First means shortest, in whatever order the children ran. With ``at_once`` it means first in time, and the others
    are cancelled at that moment. ``counts`` decides whether a complete state is an arrival.
    """

    k: int
    counts: Callable[[Any], bool]
    lengths: list[int] = field(default_factory=list)
    """Length of every arrival so far, counted from the parent; the generator adds those that it samples."""
    at_once: bool = False

    def __post_init__(self) -> None:
        if self.k < 1:
            raise InputError("k", self.k, "a race ends when 1 or more have ended")

    @property
    def limit(self) -> int | None:
        """The length at which the race is over, once it is known."""
        return sorted(self.lengths)[self.k - 1] if len(self.lengths) >= self.k else None


@dataclass(frozen=True)
class Neighbour:
    """Noise of the same norm, at this cosine to the noise of the node."""

    cosine: float

    def __post_init__(self) -> None:
        if not 0 < self.cosine < 1:
            fix = "give a number strictly between 0 and 1; 1 would return the pivot itself"
            raise InputError("cosine", self.cosine, fix)


@dataclass(frozen=True)
class Renoise:
    """Back to an earlier noise level by fresh noise: the share ``left`` of the generation, 0 to 1, is to do again."""

    left: float

    def __post_init__(self) -> None:
        if not 0 < self.left <= 1:
            raise InputError("left", self.left, "give a share above 0; more than 1 is past pure noise")


@dataclass(frozen=True)
class Redo:
    """The whole generation again, from its first noise to the end, in this many steps."""

    steps: int

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise InputError("steps", self.steps, "give 1 or more")


Transition = Neighbour | Renoise | Redo
"""What may happen to a node in place of going on; the child is a state to go on from."""
