"""Observers of sampling requests, for tracing. By default there is none."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol


@dataclass
class ObservedRequest:
    """One request, as its observer sees it: headers to add, and the reply."""

    headers: Mapping[str, str] = field(default_factory=dict)
    reply: Mapping[str, Any] = field(default_factory=dict)
    """The reply as far as it was read; empty if there was none."""


class Observer(Protocol):
    """Makes a context around each request; exceptions of the request pass through it."""

    def __call__(self, path: str, body: Mapping[str, Any]) -> AbstractContextManager[ObservedRequest]:
        """The context around a request with this body to this path."""
        ...


@contextmanager
def unobserved(path: str, body: Mapping[str, Any]) -> Iterator[ObservedRequest]:
    """Observe nothing."""
    yield ObservedRequest()
