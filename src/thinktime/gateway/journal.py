"""The samples of a bank that several gateways share, without a wait for a database that does not answer."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from thinktime.bank.store import Bank
from thinktime.core.errors import UnreachableBankError
from thinktime.core.types import Problem, Score

_log = logging.getLogger("thinktime")

FIND_SECONDS = 0.5
"""Longest wait for a banked sample; meanwhile the event loop stands still."""
MISS_SECONDS = 10.0
"""Time after a failure in which samples are neither kept nor found."""
MOST_WAITING = 1000
"""Most calls that wait for the bank."""

Found = TypeVar("Found")


class SharedJournal:
    """The samples of a bank that may be out of reach: then nothing is found and nothing is kept.

    A thread works on the calls in order. A search waits for a sample that it looks for, and not for one that it keeps.
    """

    def __init__(self, bank: Bank) -> None:
        self._bank = bank
        self._thread = ThreadPoolExecutor(1, "journal")
        self._places = threading.BoundedSemaphore(MOST_WAITING)
        self._down_until = 0.0

    def find_sample(self, key: str) -> Mapping[str, Any] | None:
        """As `Journal.find_sample`."""
        return self._found(self._bank.find_sample, key)

    def add_samples(self, problem: Problem, model: str, samples: Sequence[tuple[str, Mapping[str, Any]]]) -> None:
        """As `Journal.add_samples`, soon."""
        self._begin(self._bank.add_samples, problem, model, samples)

    def find_score(self, key: str, scorer: str) -> Score | None:
        """As `Journal.find_score`."""
        return self._found(self._bank.find_score, key, scorer)

    def add_scores(self, scorer: str, scores: Sequence[tuple[str, Score]]) -> None:
        """As `Journal.add_scores`, soon."""
        self._begin(self._bank.add_scores, scorer, scores)

    def close(self) -> None:
        """Keep what is left."""
        self._thread.shutdown()

    def _found(self, work: Callable[..., Found | None], *arguments: Any) -> Found | None:
        begun = self._begin(work, *arguments)
        try:
            return None if begun is None else begun.result(FIND_SECONDS)
        except TimeoutError:
            self._miss(f"it does not answer in {FIND_SECONDS:g} s")
        except UnreachableBankError:
            pass  # `_end` has noted it
        return None

    def _begin(self, work: Callable[..., Found], *arguments: Any) -> Future[Found] | None:
        if time.monotonic() < self._down_until:
            return None
        if not self._places.acquire(blocking=False):
            self._miss(f"{MOST_WAITING} calls wait for it")
            return None
        begun = self._thread.submit(work, *arguments)
        begun.add_done_callback(self._end)
        return begun

    def _end(self, done: Future[Any]) -> None:
        self._places.release()
        error = done.exception()
        if isinstance(error, UnreachableBankError):
            self._miss(str(error))
        elif error is not None:
            _log.error(str(error))

    def _miss(self, reason: str) -> None:
        self._down_until = time.monotonic() + MISS_SECONDS
        _log.error("bank=%r: %s; samples are neither kept nor found for %g s", self._bank.place, reason, MISS_SECONDS)
