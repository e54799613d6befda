"""What whoever watches requests for samples is told of them; by default nobody does."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol


@dataclass
class Watched:
    """One request: what else it is sent with, and what came back."""

    headers: Mapping[str, str] = field(default_factory=dict)
    reply: Mapping[str, Any] = field(default_factory=dict)
    """The answer as far as it was read; empty where there was none."""


class Watch(Protocol):
    """Goes around one request; what that raises passes through."""

    def __call__(self, path: str, body: Mapping[str, Any]) -> AbstractContextManager[Watched]:
        """Around the request of this body for this path."""
        ...


@contextmanager
def unwatched(path: str, body: Mapping[str, Any]) -> Iterator[Watched]:
    """Watch nothing."""
    yield Watched()
