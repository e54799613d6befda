"""The account that charges usage against a budget: reserve before a call, settle after it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from thinktime.core.errors import InputError
from thinktime.core.usage import Budget, Usage

if TYPE_CHECKING:
    import asyncio


class Ledger:
    """A hard budget. What is spent plus what is reserved never exceeds it.

    Args:
        budget: the limits.
        within: a ledger that several others share; what is reserved and spent here is so there too.
    """

    def __init__(self, budget: Budget | None = None, *, within: Ledger | None = None) -> None:
        self.budget = budget or Budget()
        self.spent = Usage()
        self._limited = self.budget != Budget()
        self._within = within
        self._reserved = Usage()
        self._waiting: set[asyncio.Future[None]] = set()
        self._started = time.monotonic()

    @property
    def deadline(self) -> float | None:
        """When the seconds are over, on the clock of `time.monotonic`."""
        return None if self.budget.seconds is None else self._started + self.budget.seconds

    def room_for_tokens(self) -> int | None:
        """Generated tokens neither spent nor reserved; None if tokens are not limited."""
        outside = None if self._within is None else self._within.room_for_tokens()
        if self.budget.tokens is None:
            return outside
        room = self.budget.tokens - self.spent.generated_tokens - self._reserved.generated_tokens
        return room if outside is None else min(room, outside)

    def held_by_others(self, worst_case: Usage) -> bool:
        """Whether it does not fit only as long as others have reserved of a ledger outside and not settled."""
        late = self.deadline is not None and time.monotonic() >= self.deadline
        return self._crowded and not late and self.check(self.spent + self._reserved + worst_case)

    async def freed(self) -> None:
        """Wait until something outside is settled, or the seconds are over.

        Whoever waits has settled all of its own, so somebody else always will.
        """
        import asyncio

        waiting: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        outside = list(self._outside())
        for ledger in outside:
            ledger._waiting.add(waiting)
        try:
            await asyncio.wait({waiting}, timeout=None if self.deadline is None else self.deadline - time.monotonic())
        finally:
            for ledger in outside:
                ledger._waiting.discard(waiting)

    def _outside(self) -> Iterator[Ledger]:
        ledger = self._within
        while ledger is not None:
            yield ledger
            ledger = ledger._within

    @property
    def _crowded(self) -> bool:
        return any(ledger._reserved.model_calls > self._reserved.model_calls for ledger in self._outside())

    def reserve(self, worst_case: Usage) -> bool:
        """Set the worst case aside if it fits; otherwise change nothing and say False.

        Raises:
            InputError: a limited count is unknown for this model, so the limit could not be kept.
        """
        if self.deadline is not None and time.monotonic() >= self.deadline:
            return False
        if self._limited and not self.check(self.spent + self._reserved + worst_case):
            return False
        if self._within is not None and not self._within.reserve(worst_case):
            return False
        self._reserved = self._reserved + worst_case
        return True

    def check(self, usage: Usage) -> bool:
        """Whether this usage is within the limits.

        Raises:
            InputError: a limited count is unknown for this model, so the limit could not be kept.
        """
        for limit, used, field in (
            (self.budget.tokens, usage.generated_tokens, "tokens"),
            (self.budget.calls, usage.model_calls, "calls"),
            (self.budget.nfe, usage.denoiser_calls, "nfe"),
            (self.budget.flops, _both(usage.flops, usage.scorer_flops), "flops"),
            (self.budget.dollars, usage.dollars, "dollars"),
        ):
            if limit is None:
                continue
            if used is None:
                raise InputError(f"budget.{field}", limit, f"this model's {field} are unknown; limit tokens or calls")
            if used > limit:
                return False
        return True

    def settle(self, reserved: Usage, actual: Usage) -> None:
        """Give a reservation back and charge what it really cost."""
        self._reserved = self._reserved - reserved
        self.spent = self.spent + actual
        for waiting in self._waiting:
            if not waiting.done():
                waiting.set_result(None)
        if self._within is not None:
            self._within.settle(reserved, actual)

    def forfeit(self) -> None:
        """Charge what is still reserved: whoever asked is gone, and nobody will know what it cost."""
        left = self._reserved
        if left.model_calls:
            self.settle(left, replace(left, uncounted_calls=left.model_calls))


def _both(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else a + b
