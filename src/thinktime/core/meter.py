"""The one way to spend: reserve the worst case, look in the bank, run, write down, settle."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Generic, Protocol, TypeVar

from thinktime.core.errors import InputError
from thinktime.core.ledger import Ledger, Reservation
from thinktime.core.usage import Usage, total, uncounted

ONLINE = "online"
"""The phase of all work outside a named phase."""

_phase: ContextVar[str] = ContextVar("phase", default=ONLINE)

SUMMED_AT = 64

Account = tuple[str, str]
"""A phase, and a role with its kind: ``("online", "model main")``."""


def as_rows(accounts: Mapping[Account, Usage]) -> list[dict[str, Any]]:
    """The accounts as JSON, one object each, by phase and role in alphabetical order."""
    return [
        {"phase": phase, "role": role, "usage": usage.as_dict()} for (phase, role), usage in sorted(accounts.items())
    ]


class Costs(Protocol):
    """Any result that says what it cost."""

    @property
    def usage(self) -> Usage:
        """What it cost."""
        ...


Item = TypeVar("Item")
Result = TypeVar("Result", bound=Costs)


class Work(Generic[Item, Result]):
    """One kind of call, as the meter sees it: items in, results out. Each verb of a search has one.

    Args:
        role: which account pays, for example ``model main``.
    """

    in_order = True
    """Whether an item that does not fit the budget also stops the items after it."""

    def __init__(self, role: str) -> None:
        self.role = role

    def worst_case(self, item: Item) -> Usage:
        """The most that this item can cost."""
        raise NotImplementedError

    def shorter(self, item: Item) -> Item | None:
        """A smaller item that may fit the rest of a budget, or None."""
        return None

    def granted(self, item: Item) -> None:
        """The item's worst case is reserved."""

    def over(self) -> bool:
        """Whether results so far make further items pointless."""
        return False

    def repeatable(self, results: Sequence[Result]) -> bool:
        """Whether a call gave nothing and is worth a second try."""
        return False

    def joined(self, first: Result, second: Result) -> Result:
        """The result of a second try, with the cost of both."""
        raise NotImplementedError

    def find(self, items: Sequence[Item]) -> Mapping[int, Result]:
        """Banked results by the index of their item."""
        return {}

    async def run(self, items: Sequence[Item]) -> Sequence[Result]:
        """Results of the items that the bank lacks, in order; they are banked when this returns."""
        raise NotImplementedError

    def trim(self, items: Sequence[Item], results: Sequence[Result]) -> Sequence[Result]:
        """The final results of a batch, computed when all of them are known."""
        return results


class Meter:
    """The account of one search: every verb buys through it.

    Args:
        ledger: the budget.
        outer: the meter of the search that this one runs in; every charge here is charged there too.
    """

    def __init__(self, ledger: Ledger, outer: Meter | None = None) -> None:
        self.ledger = ledger
        self._accounts: dict[Account, list[Usage]] = {}
        self._outer = outer

    @property
    def accounts(self) -> dict[Account, Usage]:
        """What each role spent in each phase; all of them sum to ``ledger.spent``."""
        return {account: total(parts) for account, parts in self._accounts.items()}

    async def buy(self, work: Work[Item, Result], items: Sequence[Item]) -> tuple[list[tuple[Item, Result]], bool]:
        """Run as many items as the budget covers, and return them with their results.

        What does not fit waits until earlier items settle at their real cost, and until concurrent calls of this search
        and of others under the same ledger settle. The second value says whether all items fitted.
        """
        bought: list[tuple[Item, Result]] = []
        wanted, covered = list(items), True
        while wanted:
            if bought and work.over():
                return bought, False
            granted, reserved, wanted = await self._grant(work, wanted, whole=not bought)
            if granted:
                made = await self._run(work, granted, reserved)
                repeatable = work.repeatable([result for _, result in made])
                bought += await self._repeated(work, made) if repeatable else made
            elif self.ledger.fits_later(work.worst_case(wanted[0])):
                await self.ledger.freed()
            elif work.in_order:
                return bought, False
            else:
                covered = False
                del wanted[0]
        return bought, covered

    def settle(self, role: str, reserved: Sequence[Reservation], actual: Usage) -> None:
        """Give reservations back and charge the account of a role."""
        self.ledger.settle(reserved, actual)
        self._note((_phase.get(), role), actual)

    def charge(self, role: str, usage: Usage) -> None:
        """Charge a cost that was not reserved to the account of a role."""
        self.ledger.charge(usage)
        self._note((_phase.get(), role), usage)

    def _note(self, account: Account, usage: Usage) -> None:
        parts = self._accounts.setdefault(account, [])
        parts.append(usage)
        if len(parts) >= SUMMED_AT:  # sums of many at once are cheaper than a running sum
            parts[:] = [total(parts)]
        if self._outer is not None:
            self._outer._note(account, usage)

    async def _grant(
        self, work: Work[Item, Result], wanted: Sequence[Item], whole: bool
    ) -> tuple[list[Item], list[Reservation], list[Item]]:
        """Split the items into those that the budget covers now, their reservations, and the rest.

        With ``whole`` it first tries to reserve all items in one sum, which is cheaper if they fit. A banked item
        reserves its worst case too, so a resumed run decides as an undisturbed one.
        """
        if whole and work.in_order:
            reserved = await self.ledger.reserve(total([work.worst_case(item) for item in wanted]))
            if reserved is not None:
                for item in wanted:
                    work.granted(item)
                return list(wanted), [reserved], []
        granted: list[Item] = []
        parts: list[Reservation] = []
        try:
            for place, item in enumerate(wanted):
                worst = work.worst_case(item)
                part = await self.ledger.reserve(worst)
                if part is None:
                    if (
                        not granted
                        and not self.ledger.fits_later(worst)
                        and (shorter := work.shorter(item)) is not None
                    ):
                        part = await self.ledger.reserve(work.worst_case(shorter))
                        if part is not None:
                            return [shorter], [part], list(wanted[place + 1 :])
                    return granted, parts, list(wanted[place:])
                work.granted(item)
                granted.append(item)
                parts.append(part)
        except BaseException:  # nothing was sent
            self.ledger.settle(parts, Usage())
            raise
        return granted, parts, []

    async def _repeated(self, work: Work[Item, Result], first: list[tuple[Item, Result]]) -> list[tuple[Item, Result]]:
        """The results of a second try of a call, as far as the budget covers one; the first try is charged already."""
        granted, reserved, _ = await self._grant(work, [item for item, _ in first], whole=True)
        if not granted:
            return first
        try:
            second = await self._run(work, granted, reserved)
        except InputError:  # the first error says more
            return first
        pairs = zip(first, second, strict=False)
        joined = [(item, work.joined(before, after)) for (_, before), (item, after) in pairs]
        return [*joined, *first[len(second) :]]

    async def _run(
        self, work: Work[Item, Result], items: Sequence[Item], reserved: Sequence[Reservation]
    ) -> list[tuple[Item, Result]]:
        found = work.find(items)
        new = [item for place, item in enumerate(items) if place not in found]
        try:
            fresh = iter(await work.run(new) if new else ())
        except InputError:  # the call was refused, and nothing was paid
            self.settle(work.role, reserved, Usage())
            raise
        except BaseException:  # the real cost stays unknown; an open reservation would make other calls wait for ever
            self.settle(work.role, reserved, uncounted(total(each.worst for each in reserved)))
            raise
        every = [found[place] if place in found else next(fresh) for place in range(len(items))]
        results = work.trim(items, every)
        self.settle(work.role, reserved, total(result.usage for result in results))
        return list(zip(items, results, strict=True))


@contextmanager
def phase(name: str) -> Iterator[None]:
    """Charge everything inside to this phase."""
    token = _phase.set(name)
    try:
        yield
    finally:
        _phase.reset(token)
