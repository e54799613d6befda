"""The account that charges usage against a budget: reserve before a call, settle after it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from thinktime.core.clock import Clock, Deadline
from thinktime.core.errors import BusyError, InputError
from thinktime.core.usage import Budget, Usage, total, uncounted

if TYPE_CHECKING:
    import asyncio


@dataclass(frozen=True, eq=False)
class Reservation:
    """A worst case that is set aside in a ledger, and in the ledger around it."""

    worst: Usage
    outer: Reservation | None = None


class Ledger:
    """A hard budget. What is spent plus what is reserved never exceeds it.

    Args:
        budget: the limits.
        within: an outer ledger that several others share; every reservation and charge here counts there too.
        clock: for the limit of seconds; by default that of the outer ledger, or `time.monotonic`.
    """

    def __init__(
        self, budget: Budget | None = None, *, within: Ledger | None = None, clock: Clock | None = None
    ) -> None:
        self.budget = budget or Budget()
        self.patience: float | None = None
        """Most seconds that a call waits for what others reserved here; None is no limit. Set it on a shared ledger."""
        self.poll: float | None = None
        """Seconds after which a waiting call tries again, because other processes settle unseen; None: it is woken."""
        self._blocked: float | None = None
        """The time at which calls under this ledger began to wait for others; None if none waits."""
        self.spent = Usage()
        self.clock: Clock = clock or (within.clock if within is not None else time.monotonic)
        self._limited = self.budget != Budget()
        self._within = within
        self._reserved = Usage()
        self._open: set[Reservation] = set()
        self._waiting: set[asyncio.Future[None]] = set()
        self._started = self.clock()

    def limit(self, budget: Budget) -> None:
        """Set another budget from now on. What is spent and reserved stays."""
        self.budget, self._limited = budget, budget != Budget()

    @property
    def deadline(self) -> Deadline | None:
        """The moment when the seconds are used up, here or in an outer ledger."""
        own = None if self.budget.seconds is None else Deadline(self._started + self.budget.seconds, self.clock)
        outer = None if self._within is None else self._within.deadline
        return outer if own is None or (outer is not None and outer.seconds < own.seconds) else own

    @property
    def late(self) -> bool:
        """Whether the seconds are used up."""
        deadline = self.deadline
        return deadline is not None and deadline.passed

    def room_for_tokens(self) -> int | None:
        """Tokens that are not spent or reserved yet, of models and judges; None if tokens are not limited."""
        outside = None if self._within is None else self._within.room_for_tokens()
        if self.budget.tokens is None:
            return outside
        room = self.budget.tokens - self.spent.written_tokens - self._reserved.written_tokens
        return room if outside is None else min(room, outside)

    def fits_later(self, worst_case: Usage) -> bool:
        """True if this would fit once the other calls under this ledger, and under the outer ones, settle.

        The caller holds no reservation itself.
        """
        if self.late:
            return False
        return any(map(_has_calls, self._chain())) and all(
            ledger.check(ledger.spent + worst_case) for ledger in self._chain()
        )

    async def freed(self) -> None:
        """Wait until a call settles under this ledger or an outer one, or until the seconds are used up.

        Only callers that hold no reservation wait, so another call always settles.

        Raises:
            BusyError: others have reserved the rest of an outer ledger for longer than its patience.
        """
        import asyncio

        seconds = [] if self.deadline is None else [self.deadline.seconds]
        seconds += [] if (left := self._patience_left()) is None else [left]
        waiting: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        ledgers = list(self._chain())
        seconds += [ledger.poll for ledger in ledgers if ledger.poll is not None]
        for ledger in ledgers:
            ledger._waiting.add(waiting)
        try:
            await asyncio.wait({waiting}, timeout=min(seconds, default=None))
        finally:
            for ledger in ledgers:
                ledger._waiting.discard(waiting)

    def _patience_left(self) -> float | None:
        """How many seconds a call may still wait; None without a limit, or while calls of its own search run."""
        ledgers = list(self._chain())
        shared = next((place for place, ledger in enumerate(ledgers) if ledger.patience is not None), None)
        if shared is None or any(map(_has_calls, ledgers[:shared])):
            self._blocked = None
            return None
        if self._blocked is None:
            self._blocked = self.clock()
        left = self._blocked + (ledgers[shared].patience or 0.0) - self.clock()
        if left <= 0:
            raise BusyError("budget: other requests have reserved the rest of it; try again, or lower max_tokens")
        return left

    def _chain(self) -> Iterator[Ledger]:
        ledger: Ledger | None = self
        while ledger is not None:
            yield ledger
            ledger = ledger._within

    async def reserve(self, worst_case: Usage) -> Reservation | None:
        """Set the worst case aside if it fits; otherwise change nothing and return None.

        Raises:
            InputError: a limited count is unknown for this model, so the limit could not be kept.
        """
        if not self._has_room(worst_case):
            return None
        outer = None
        if self._within is not None:
            outer = await self._within.reserve(worst_case)
            if outer is None:
                return None
            if not self._has_room(worst_case):  # another call was faster while the outer ledger was asked
                self._within.settle([outer], Usage())
                return None
        return self._hold(Reservation(worst_case, outer))

    def _has_room(self, worst_case: Usage) -> bool:
        if self.late:
            return False
        return not self._limited or self.check(self.spent + self._reserved + worst_case)

    def _hold(self, reservation: Reservation) -> Reservation:
        self._blocked = None
        self._reserved = self._reserved + reservation.worst
        self._open.add(reservation)
        return reservation

    def check(self, usage: Usage) -> bool:
        """Whether this usage is within the limits.

        Raises:
            InputError: a limited count is unknown for this model, so the limit could not be kept.
        """
        for limit, used, field in (
            (self.budget.tokens, usage.written_tokens, "tokens"),
            (self.budget.calls, usage.model_calls, "calls"),
            (self.budget.actions, usage.actions, "actions"),
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

    def settle(self, reservations: Sequence[Reservation], actual: Usage) -> None:
        """Give reservations back and charge what their calls cost. Settled reservations change nothing."""
        open_ones = self._open.intersection(reservations)
        if not open_ones:
            return
        self._open -= open_ones
        self._reserved = self._reserved - total(each.worst for each in open_ones)
        self.spent = self.spent + actual
        self._wake()
        if self._within is not None:
            self._within.settle([each.outer for each in open_ones if each.outer is not None], actual)

    def charge(self, usage: Usage) -> None:
        """Charge a cost that was not reserved."""
        self.spent = self.spent + usage
        if self._within is not None:
            self._within.charge(usage)

    def _wake(self) -> None:
        """Let the waiting calls try again."""
        for waiting in self._waiting:
            if not waiting.done():
                waiting.set_result(None)

    def forfeit(self) -> None:
        """Charge everything that is still reserved: the caller left, so the real cost stays unknown."""
        self.settle(list(self._open), uncounted(total(each.worst for each in self._open)))


def _has_calls(ledger: Ledger) -> bool:
    """Whether any call is running. Only whole numbers are compared: sums of dollars leave rounding errors."""
    held = ledger._reserved
    return bool(held.model_calls or held.scorer_calls or held.embeddings or held.actions)


def _both(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else a + b
