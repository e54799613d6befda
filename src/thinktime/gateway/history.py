"""The last requests, for the page. The memory is bounded, and nothing else depends on it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from thinktime import strategies
from thinktime.core.ledger import Ledger
from thinktime.core.search import Search
from thinktime.core.trace import Answer
from thinktime.core.usage import Budget, Usage
from thinktime.gateway.auth import ApiClient
from thinktime.gateway.methods import Method
from thinktime.gateway.trees import SearchView, clipped, turns

REQUESTS = 256
"""Number of requests that are kept."""
MEMORY = 32 * 1024 * 1024
"""Most bytes of their trees; the oldest trees are dropped first."""
MODELS = 100
"""Number of models whose cost is summed by name."""
LINE = 300
"""Most characters of a question, an answer, or a name in the list."""
OTHERS = "(others)"
"""The name under which further models are summed."""
_UNSPENT = Ledger()
"""The ledger of a request that has no ledger of its own yet."""


@dataclass(eq=False)
class HistoryEntry:
    """One request."""

    number: int
    name: int | str
    """On the page: the number, or with several processes ``PROCESS-NUMBER``."""
    client: ApiClient
    path: str
    called: str
    """The model as the client wrote it."""
    question: str
    """The beginning of the question."""
    version: int
    """Version of the history at the last change of this entry."""
    at: float = field(default_factory=time.time)
    """Unix time of arrival."""
    model: str = ""
    """The upstream's name of the model."""
    upstreams: Mapping[str, None] = field(default_factory=dict)
    """The names of the upstreams that answered, as a set in order."""
    method: Method | None = None
    seed: int | None = None
    ledger: Ledger = _UNSPENT
    answer: Answer | None = None
    error: str = ""
    left: bool = False
    """Whether the client disconnected before its answer."""
    status: int = 0
    seconds: float | None = None
    """Duration of the request; None while it runs."""
    view: SearchView | None = None
    """The search while it runs."""
    tree: bytes = b""
    """The ended search as JSON. One bytes object costs the garbage collector less than many small ones."""
    _began: float = field(default_factory=time.monotonic)

    def row(self) -> dict[str, Any]:
        """The entry as a row of the page's list."""
        method, answer = self.method, self.answer
        return {
            "number": self.name,
            "at": self.at,
            "path": self.path,
            "key": self.client.name,
            "called": self.called,
            "model": self.model,
            "upstreams": list(self.upstreams),
            "asked": self.question,
            "strategy": method.name if method else None,
            "options": method.options if method else {},
            "chosen": _chosen(method) if method else {},
            "budget": limits(method.budget) if method else {},
            "seed": self.seed,
            "running": self.seconds is None,
            "status": self.status,
            "left": self.left,
            "seconds": time.monotonic() - self._began if self.seconds is None else self.seconds,
            "usage": self.ledger.spent.as_dict(),
            "finish": answer.finish if answer else None,
            # an ended request has no node, and its answer is cut already
            "answer": None if answer is None else _shown(answer) if answer.node else answer.value,
            "share": answer.share if answer else None,
            "error": self.error,
        }

    def whole(self, known: int) -> bytes:
        """The row and the tree as JSON; a running search is without its first ``known`` nodes."""
        return b'{"request": %s, "tree": %s}' % (_packed(self.row()), self.tree or self._packed_tree(known))

    def _packed_tree(self, known: int = 0) -> bytes:
        return _packed(self.view.shown(known, self.answer) if self.view else None)

    def show(self, search: Search, addresses: tuple[str, ...]) -> None:
        """Show this search on the page from now on, its errors without these addresses of upstreams."""
        self.ledger, self.view = search.ledger, SearchView(search, addresses)

    def end(self, status: int) -> None:
        """Keep the tree as JSON, and release the search."""
        self.status, self.seconds = status, time.monotonic() - self._began
        if self.view is not None:
            self.tree, self.view = self._packed_tree(), None
        if self.answer is not None:
            self.answer = replace(self.answer, node=None, value=_shown(self.answer))


class History:
    """The last requests of all keys, oldest first, and the cost of each model since the server started.

    Args:
        process: named on the page with each request, if there are several.
    """

    def __init__(self, process: int | None = None) -> None:
        self._process, self.version = process, 0
        self.models: dict[tuple[ApiClient, str], tuple[int, Usage]] = {}
        """Number of requests and cost, by client and the upstream's name of the model."""
        self._kept: dict[int, HistoryEntry] = {}
        self._held = self._count = 0

    def begin(self, client: ApiClient, path: str, body: Mapping[str, Any]) -> HistoryEntry:
        """Add a request; the oldest one is dropped if there are too many."""
        self.version += 1
        self._count += 1
        called = clipped(str(body.get("model")), LINE)
        name = self._count if self._process is None else f"{self._process}-{self._count}"
        entry = HistoryEntry(self._count, name, client, path, called, _question(body), self.version)
        self._kept[entry.number] = entry
        if len(self._kept) > REQUESTS:
            self._held -= len(self._kept.pop(next(iter(self._kept))).tree)
        return entry

    def end(self, entry: HistoryEntry, status: int) -> None:
        """Note that a request was answered or cancelled, and add up its cost."""
        self.version += 1
        entry.version = self.version
        entry.end(status)
        spent = entry.ledger.spent
        if spent.model_calls:
            name = (entry.client, clipped(entry.model, LINE))
            if name not in self.models and len(self.models) >= MODELS:
                name = (entry.client, OTHERS)
            count, before = self.models.get(name, (0, Usage()))
            self.models[name] = count + 1, before + spent
        if entry.number in self._kept:
            self._held += len(entry.tree)
        for old in self._kept.values():
            if self._held <= MEMORY:
                break
            self._held -= len(old.tree)
            old.tree = b""

    def seen_by(self, client: ApiClient) -> Iterator[HistoryEntry]:
        """The requests that a client may see, newest first."""
        return (entry for entry in reversed(self._kept.values()) if client.sees(entry.client))

    def find(self, client: ApiClient, number: int) -> HistoryEntry | None:
        """A request by number; None if it is not kept or the client may not see it."""
        entry = self._kept.get(number)
        return entry if entry is not None and client.sees(entry.client) else None


def limits(budget: Budget) -> dict[str, float]:
    """The limits that a budget sets."""
    return {name: limit for name, limit in vars(budget).items() if limit is not None}


def _shown(answer: Answer) -> str | None:
    """The beginning of an answer."""
    return None if answer.value is None else clipped(answer.value, LINE)


def _chosen(method: Method) -> dict[str, Any]:
    """The number of samples, and the options that differ from their defaults."""
    defaults = strategies.options(type(method.strategy))
    return {name: value for name, value in method.options.items() if name == "n" or value != defaults.get(name)}


def _packed(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode(errors="replace")


def _question(body: Mapping[str, Any]) -> str:
    """The beginning of the last message, or of the prompt."""
    messages = body.get("messages") or body.get("input")
    last = messages[-1:] if isinstance(messages, list) else str(messages or body.get("prompt") or "")
    if isinstance(last, list) and not all(isinstance(message, Mapping) for message in last):
        return ""
    return "".join(turn["text"][:LINE] for turn in turns(last))
