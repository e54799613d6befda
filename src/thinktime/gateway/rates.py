"""Rate limits: the requests and the tokens of a key in any 60 seconds, in this process or in all that share a store."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from thinktime.bank.keys import Slots
from thinktime.core.errors import BankError
from thinktime.gateway.errors import HttpError
from thinktime.gateway.keys import StoreThread

_log = logging.getLogger("thinktime")

WINDOW = 60.0
"""Seconds in which requests and tokens are counted."""
GRAIN = 0.5
"""Seconds of a slot, which has all that was sent in this time. It counts until its last request is `WINDOW` old."""


@dataclass(frozen=True)
class RateLimit:
    """Most requests and tokens in any 60 seconds; None is no limit."""

    requests: int | None = None
    tokens: int | None = None

    @property
    def exists(self) -> bool:
        """Whether there is any limit."""
        return self.requests is not None or self.tokens is not None


@dataclass(frozen=True)
class RateState:
    """What a key has sent of late, with the request that asks."""

    limit: RateLimit
    requests: int
    tokens: int
    wait: float
    """Seconds until the request may be sent; 0 if it is counted."""
    reset: float
    """Seconds until nothing counts any more."""

    @property
    def headers(self) -> dict[str, str]:
        """Limits and what is left of them, named as OpenAI does."""
        found: dict[str, object] = {}
        for what, most, used in (
            ("requests", self.limit.requests, self.requests),
            ("tokens", self.limit.tokens, self.tokens),
        ):
            if most is not None:
                found |= {f"X-RateLimit-Limit-{what}": most, f"X-RateLimit-Remaining-{what}": max(0, most - used)}
                found |= {f"X-RateLimit-Reset-{what}": f"{math.ceil(self.reset)}s"}
        return {name: str(value) for name, value in found.items()}

    def check(self) -> None:
        """Raise an `HttpError` if the request has to wait."""
        if self.wait:
            most = {"requests": self.limit.requests, "tokens": self.limit.tokens}
            named = " and ".join(f"{number} {what}" for what, number in most.items() if number is not None)
            reason = f"this key may send {named} in any minute; wait {self.wait:.1f} s"
            raise HttpError(429, reason, code="rate_limit_exceeded", retry_after=self.wait, more_headers=self.headers)


def admit(slots: Slots, now: float, limit: RateLimit) -> tuple[Slots, RateState]:
    """Count a request if the limits allow it.

    Args:
        slots: one for each `GRAIN` with requests, the oldest first: its start, last time, requests and tokens.
        now: the time in seconds.
        limit: the limits. A request is refused once the tokens of ended requests reach theirs.

    Returns:
        The new slots, and the state.
    """
    slots = _recent(slots, now)
    requests, tokens = (int(sum(slot[part] for slot in slots)) for part in (2, 3))
    most = (math.inf if limit.requests is None else limit.requests, math.inf if limit.tokens is None else limit.tokens)
    wait = 0.0
    left: list[float] = [requests, tokens]
    for slot in slots:
        if left[0] < most[0] and left[1] < most[1]:
            break
        left = [left[0] - slot[2], left[1] - slot[3]]
        wait = slot[1] + WINDOW - now
    if not wait:
        slots, requests = add(slots, now, 1, 0), requests + 1
    return slots, RateState(limit, requests, tokens, wait, slots[-1][1] + WINDOW - now)


def add(slots: Slots, now: float, requests: int, tokens: int) -> Slots:
    """The slots with these requests and tokens."""
    slots = _recent(slots, now)
    if slots and now - slots[-1][0] < GRAIN:
        start, last, *counts = slots[-1]
        return [*slots[:-1], [start, max(now, last), counts[0] + requests, counts[1] + tokens]]
    return [*slots, [now, now, requests, tokens]]


def _recent(slots: Sequence[Sequence[float]], now: float) -> Slots:
    return [list(slot) for slot in slots if slot[1] > now - WINDOW]


class LocalRates:
    """The rates of keys in this process."""

    def __init__(self) -> None:
        self._slots: dict[str, Slots] = {}

    async def admit(self, name: str, limit: RateLimit) -> RateState:
        """Count a request of a key, or say how long it has to wait."""
        self._slots[name], state = admit(self._slots.get(name, []), time.monotonic(), limit)
        return state

    def add_tokens(self, name: str, tokens: int) -> None:
        """Count the tokens of an ended request."""
        self._slots[name] = add(self._slots.get(name, []), time.monotonic(), 0, tokens)


class SharedRates(LocalRates):
    """The rates of keys in all processes that share a store. While it does not answer, each process counts alone.

    Args:
        thread: calls the store.
    """

    def __init__(self, thread: StoreThread) -> None:
        super().__init__()
        self._thread = thread
        self._adding: set[asyncio.Task[None]] = set()

    async def admit(self, name: str, limit: RateLimit) -> RateState:
        """As `LocalRates.admit`, of all processes."""
        try:
            return await self._thread.call(self._thread.store.change_rate, name, partial(admit, limit=limit))
        except BankError as error:
            _log.error("%s; rates are counted by each gateway alone", error)
            return await super().admit(name, limit)

    def add_tokens(self, name: str, tokens: int) -> None:
        """As `LocalRates.add_tokens`, of all processes. They are stored in the background."""
        super().add_tokens(name, tokens)
        task = asyncio.create_task(self._store_tokens(name, tokens))
        self._adding.add(task)
        task.add_done_callback(self._adding.discard)

    async def _store_tokens(self, name: str, tokens: int) -> None:
        def change(slots: Slots, now: float) -> tuple[Slots, None]:
            return add(slots, now, 0, tokens), None

        try:
            await self._thread.call(self._thread.store.change_rate, name, change)
        except BankError as error:
            _log.error("%s; the tokens of a request are missing in a rate", error)
