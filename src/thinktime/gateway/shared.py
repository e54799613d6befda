"""Ledgers whose accounts several gateways share. The database keeps the counts; a ledger here shows the last it saw.

A reservation waits for the database in a thread. Settlements wait in a queue, which one thread stores; it also renews
the leases of open reservations. If the database cannot be reached, accounts with a budget are refused, and the others
go on: their costs wait in the queue.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any
from uuid import UUID, uuid4

from thinktime.bank.accounts import Accounts, Balance, Balances
from thinktime.bank.store import ALL
from thinktime.core.errors import BankError, UnreachableBankError
from thinktime.core.ledger import Ledger, Reservation
from thinktime.core.usage import Budget, Usage, total

_log = logging.getLogger("thinktime")

THREADS = 4
"""Reservations of this process that the database works on at once."""
REPLY_SECONDS = 5.0
"""Longest wait for the database to answer a reservation."""
DOWN_SECONDS = 1.0
"""Time after a failure in which the database is not asked again."""
LOOK_SECONDS = 0.25
"""Time after which a waiting call looks whether other processes have settled."""
CLOSE_SECONDS = 5.0
"""Longest wait at the end for settlements to be stored. What is not stored then counts as spent, by its lease."""


@dataclass(frozen=True, eq=False)
class StoredReservation(Reservation):
    """A reservation with a row in the database, or one that gets its row when it is settled."""

    name: UUID = field(default_factory=uuid4)
    stored: bool = True


@dataclass
class _Settlement:
    """Reservations to settle in the database."""

    ledger: SharedLedger
    reservations: Sequence[StoredReservation]
    actual: Usage
    unstored: list[StoredReservation] = field(init=False)
    """Those that have no row yet."""

    def __post_init__(self) -> None:
        self.unstored = [each for each in self.reservations if not each.stored]


class SeenLedger(Ledger):
    """Shows the last that is known of an account in the database, and what this process asks for now."""

    def __init__(self, budget: Budget, within: Ledger | None = None) -> None:
        super().__init__(budget, within=within)
        self._balance = Balance(Usage(), Usage())
        self._asked: list[Usage] = []

    @property
    def limited(self) -> bool:
        """Whether the account has a budget."""
        return self._limited

    def see(self, balance: Balance | None) -> None:
        """Show this balance, unless it is older than the one before."""
        if balance is not None and balance.spent.model_calls >= self.spent.model_calls:
            self.spent, self._balance = balance.spent, balance
            self._reserved = balance.reserved + total(self._asked)

    def ask(self, worst_case: Usage) -> None:
        """Count a worst case as reserved until the database has answered."""
        self._asked.append(worst_case)
        self._reserved = self._balance.reserved + total(self._asked)

    def answered(self, worst_case: Usage) -> None:
        """End an `ask`."""
        self._asked.remove(worst_case)
        self._reserved = self._balance.reserved + total(self._asked)

    def may_fit(self, worst_case: Usage) -> bool:
        """Whether a worst case fits, as far as is known."""
        return self.check(self.spent + self._reserved + worst_case)


class SharedLedger(SeenLedger):
    """An account of a key in the database.

    Args:
        budget: the limits of the account, without seconds.
        account: its name.
        keeper: stores reservations and settlements.
        of_all: shows the sum of all accounts; its budget limits the sum.
    """

    def __init__(self, budget: Budget, account: str, keeper: Keeper, of_all: SeenLedger) -> None:
        super().__init__(budget, within=of_all)
        self.account, self.of_all = account, of_all
        self.poll = LOOK_SECONDS
        self._keeper = keeper
        self._looked = self.clock()

    async def reserve(self, worst_case: Usage) -> Reservation | None:
        """As `Ledger.reserve`, in the database.

        Raises:
            InputError: as `Ledger.reserve`.
            UnreachableBankError: the database does not answer, and a budget limits this account or the sum of all.
            BankError: the database refuses the statement.
        """
        pair = (self, self.of_all)
        if not all(ledger.check(ledger.spent + worst_case) for ledger in pair):
            return None
        if not all(ledger.may_fit(worst_case) for ledger in pair) and self.clock() < self._looked + LOOK_SECONDS:
            return None
        self._looked = self.clock()  # one call at a time looks whether other processes have settled
        reservation = StoredReservation(worst_case)
        for ledger in pair:
            ledger.ask(worst_case)
        try:
            if not await self._keeper.reserve(self, reservation):
                return None
        except UnreachableBankError:
            if any(ledger.limited for ledger in pair):
                raise
            reservation = replace(reservation, stored=False)
        finally:
            for ledger in pair:
                ledger.answered(worst_case)
        self._open.add(reservation)
        return reservation

    def settle(self, reservations: Sequence[Reservation], actual: Usage) -> None:
        """As `Ledger.settle`; a thread stores it in the database."""
        open_ones = self._open.intersection(reservations)
        if open_ones:
            self._open -= open_ones
            stored = [each for each in open_ones if isinstance(each, StoredReservation)]
            self._keeper.settle(_Settlement(self, stored, actual))

    def charge(self, usage: Usage) -> None:
        """As `Ledger.charge`; a thread stores it in the database."""
        self._keeper.settle(_Settlement(self, [StoredReservation(usage, stored=False)], usage))

    def see_all(self, balances: Balances, *, settled: bool = False) -> None:
        """Show these balances of the account and of the sum of all; after a settlement let waiting calls try again."""
        for name, ledger in ((self.account, self), (ALL, self.of_all)):
            ledger.see(balances.get(name))
            if settled:
                ledger._wake()


class Keeper:
    """Stores the reservations and settlements of this process, and renews its leases.

    Args:
        accounts: where they are stored.
    """

    def __init__(self, accounts: Accounts) -> None:
        self._of_all = SeenLedger(Budget())
        self.reachable = True
        """Whether the database has answered the last time."""
        self._accounts = accounts
        self._ledgers: list[SharedLedger] = []
        self._open: set[UUID] = set()
        self._down_until = 0.0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._threads = ThreadPoolExecutor(THREADS, "reservations")
        self._queue: queue.SimpleQueue[_Settlement | None] = queue.SimpleQueue()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._work, name="settlements", daemon=True)
        self._thread.start()

    def of_all(self, budget: Budget) -> SeenLedger:
        """Set the budget of all accounts together, before there are any, and return their ledger."""
        self._of_all = SeenLedger(budget)
        return self._of_all

    def ledger(self, budget: Budget, account: str) -> SharedLedger:
        """The ledger of an account, with what the database has of it.

        Raises:
            BankError: the database cannot be read.
        """
        ledger = SharedLedger(budget, account, self, self._of_all)
        ledger.see_all(self._accounts.open([account]))
        self._ledgers.append(ledger)
        return ledger

    async def reserve(self, ledger: SharedLedger, reservation: StoredReservation) -> bool:
        """Set a worst case aside in the database if it fits; show the ledger what is there.

        Raises:
            BankError: as `Accounts.reserve`, or no answer in time. What the database stores after that is given back.
        """
        self._loop = asyncio.get_running_loop()
        place = f"bank={self._accounts.place!r}"
        if time.monotonic() < self._down_until:
            raise UnreachableBankError(f"{place}: it could not be reached {DOWN_SECONDS:g} s ago; try again")
        worst, limits = reservation.worst, (ledger.budget, ledger.of_all.budget)
        asked = self._threads.submit(self._accounts.reserve, reservation.name, ledger.account, *limits, worst)
        try:
            async with asyncio.timeout(REPLY_SECONDS):
                fits, balances = await asyncio.wrap_future(asked)
        except BaseException as error:
            asked.add_done_callback(lambda done: self._give_back(done, ledger, reservation))
            if isinstance(error, TimeoutError):
                error = UnreachableBankError(f"{place}: it does not answer in {REPLY_SECONDS:g} s; try again")
            if isinstance(error, UnreachableBankError):
                self._note(error)
            raise error from None
        self._note(None)
        if fits:
            self._open.add(reservation.name)
        ledger.see_all(balances)
        return fits

    def settle(self, settlement: _Settlement) -> None:
        """Store a settlement in the background."""
        self._queue.put(settlement)

    def close(self) -> None:
        """Store what is left, as far as the database answers, and close the connections."""
        self._closing.set()
        self._queue.put(None)
        self._thread.join(CLOSE_SECONDS)
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._accounts.close()

    def _give_back(self, asked: Future[Any], ledger: SharedLedger, reservation: StoredReservation) -> None:
        if not asked.cancelled():
            self.settle(_Settlement(ledger, [reservation], Usage()))

    def _note(self, error: BankError | None) -> None:
        """Remember whether the database answers, and log it if that has changed."""
        if error is not None:
            self._down_until = time.monotonic() + DOWN_SECONDS
        if self.reachable is not (error is None):
            self.reachable = error is None
            if error is None:
                _log.warning("the bank is reached again")
            else:
                _log.error("%s; requests with a budget are refused, the others go on", error)

    def _work(self) -> None:
        beat = self._accounts.lease / 3
        due = time.monotonic() + beat
        while True:
            with suppress(queue.Empty):
                settlement = self._queue.get(timeout=max(0.0, due - time.monotonic()))
                if settlement is None:
                    return
                self._store(settlement)
            if time.monotonic() >= due:
                due = time.monotonic() + beat
                try:
                    self._renew()
                except BankError as error:
                    _log.error(str(error))

    def _store(self, settlement: _Settlement) -> None:
        """Settle in the database, however often that takes."""
        ledger, names = settlement.ledger, [each.name for each in settlement.reservations]
        while True:
            try:
                while settlement.unstored:  # the cost is real, so no budget refuses it
                    each = settlement.unstored[-1]
                    self._accounts.reserve(each.name, ledger.account, Budget(), Budget(), each.worst)
                    settlement.unstored.pop()
                balances = self._accounts.settle(names, ledger.account, settlement.actual)
            except UnreachableBankError as error:
                if self._closing.is_set():
                    _log.error("%s; a cost is not stored: %s", error, settlement.actual)
                    return
                self._closing.wait(DOWN_SECONDS)
            except BankError as error:
                _log.error("%s; a cost is not stored: %s", error, settlement.actual)
                return
            else:
                self._open.difference_update(names)
                self._soon(ledger, balances, settled=True)
                return

    def _renew(self) -> None:
        """Renew the leases of this process, end those of processes that are gone, and look at all accounts."""
        self._accounts.renew(list(self._open))
        self._accounts.expire()
        balances = self._accounts.open([ledger.account for ledger in self._ledgers])
        for ledger in self._ledgers:
            self._soon(ledger, balances)

    def _soon(self, ledger: SharedLedger, balances: Balances, *, settled: bool = False) -> None:
        """Show a ledger what the database has, in the thread of the event loop."""
        if self._loop is not None:
            with suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(partial(ledger.see_all, balances, settled=settled))
