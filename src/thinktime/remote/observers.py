"""What whoever watches requests for samples is told of them; by default nobody does."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol


@dataclass
class ObservedRequest:
    """One request: what else it is sent with, and what came back."""

    headers: Mapping[str, str] = field(default_factory=dict)
    reply: Mapping[str, Any] = field(default_factory=dict)
    """The answer as far as it was read; empty where there was none."""


class Observer(Protocol):
    """Goes around one request; what that raises passes through."""

    def __call__(self, path: str, body: Mapping[str, Any]) -> AbstractContextManager[ObservedRequest]:
        """Around the request of this body for this path."""
        ...


@contextmanager
def unobserved(path: str, body: Mapping[str, Any]) -> Iterator[ObservedRequest]:
    """Observer nothing."""
    yield ObservedRequest()
