"""Races between children, and transitions of noise: what `Search.extend` can do besides continuing a node."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from thinktime.core.errors import InputError, check_number

if TYPE_CHECKING:
    from thinktime.core.types import Child


@dataclass(eq=False)
class Race:
    """The first ``k`` children to end win; the others are cancelled at the length of the k-th.

    First means shortest, not earliest. With ``at_once`` it means earliest, and the others are cancelled at that
    moment. ``counts`` says whether the end of a complete state counts.
    """

    k: int
    counts: Callable[[Any], bool]
    lengths: list[int] = field(default_factory=list)
    """Length of every child that has ended and counts, from its parent."""
    at_once: bool = False
    watchers: set[Callable[[], None]] = field(default_factory=set)
    """Called after each such child, so that a child that waits for its next token can be cancelled too."""

    def __post_init__(self) -> None:
        if self.k < 1:
            raise InputError("k", self.k, "give 1 or more; the race ends when k children have ended")

    def arrive(self, child: Child) -> None:
        """Note a child that is complete. The generator calls this for the children that it samples."""
        if child.finish == "eos" and self.counts(child.state):
            self.lengths.append(child.length)
            for watcher in tuple(self.watchers):
                watcher()

    @property
    def limit(self) -> int | None:
        """The length at which the race is over, once it is known."""
        return sorted(self.lengths)[self.k - 1] if len(self.lengths) >= self.k else None


@dataclass(frozen=True)
class Neighbour:
    """Noise of the same norm, at this cosine to the noise of the node."""

    cosine: float

    def __post_init__(self) -> None:
        check_number("cosine", self.cosine)
        if not 0 < self.cosine < 1:
            fix = "give a number strictly between 0 and 1; 1 would return the pivot itself"
            raise InputError("cosine", self.cosine, fix)


@dataclass(frozen=True)
class Renoise:
    """Add fresh noise, back to an earlier noise level: then the share ``left`` (0 to 1) of the generation is left."""

    left: float

    def __post_init__(self) -> None:
        check_number("left", self.left)
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
"""An operation on a node in place of continuing it; the child's state can be continued."""
