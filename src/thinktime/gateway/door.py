"""Who may come in: keys, how often each may ask, and the accounts of what each has spent."""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

from thinktime.bank.store import Bank
from thinktime.core.errors import BankError
from thinktime.core.ledger import Ledger
from thinktime.core.usage import Budget, Usage, total
from thinktime.gateway.config import Config, Key, digest, is_loopback
from thinktime.gateway.errors import HttpError


@dataclass(eq=False)
class Guest:
    """Who asks, how often, and on whose account."""

    name: str
    ledger: Ledger
    limits: tuple[Budget, ...]
    """The key's and the gateway's."""
    per_minute: int | None = None
    sees_all: bool = False
    """Whether it may look at the requests of others."""
    _left: float = 0.0
    _seen: float = -60.0

    @property
    def limited(self) -> bool:
        """Whether what it spends may come to an end, in tokens or dollars."""
        return any(limit.tokens is not None or limit.dollars is not None for limit in self.limits)

    def sees(self, other: Guest) -> bool:
        """Whether it may look at what this one asked."""
        return self.sees_all or other is self

    def timed(self, budget: Budget) -> Budget:
        """The budget of a request, with no more seconds than its key and the gateway allow."""
        seconds = [limit.seconds for limit in (budget, *self.limits) if limit.seconds is not None]
        return replace(budget, seconds=min(seconds, default=None))

    def knock(self, now: float) -> None:
        """Count one request.

        Raises:
            HttpError: there were too many of late.
        """
        if self.per_minute is None:
            return
        rate = self.per_minute / 60
        self._left = min(self.per_minute, self._left + rate * (now - self._seen))
        self._seen = now
        if self._left < 1:
            wait = (1 - self._left) / rate
            limit = f"this key may ask {self.per_minute} times a minute"
            raise HttpError(429, f"{limit}; wait {wait:.1f} s", code="rate_limit_exceeded", retry_after=wait)
        self._left -= 1


class KeptLedger(Ledger):
    """An account that goes on after a restart.

    What may be spent is in the bank before it is, and what was spent as soon as that is known. So whenever the process
    is killed, the bank has no less than what was spent, and no more than that and the worst case of what was under way.
    """

    def __init__(self, budget: Budget, account: str, bank: Bank, within: Ledger) -> None:
        super().__init__(budget, within=within)
        self._account, self._bank = account, bank
        self.spent = bank.spending().get(account, Usage())

    def reserve(self, worst_case: Usage) -> bool:
        """As any ledger, and in the bank before it is said.

        Raises:
            BankError: it cannot be written; nothing is reserved then.
        """
        if not super().reserve(worst_case):
            return False
        try:
            self._keep()
        except BankError:
            super().settle(worst_case, Usage())
            raise
        return True

    def settle(self, reserved: Usage, actual: Usage) -> None:
        """As any ledger, and in the bank.

        Raises:
            BankError: it cannot be written; the bank then has what was reserved.
        """
        super().settle(reserved, actual)
        self._keep()

    def _keep(self) -> None:
        under_way = self._reserved.model_calls or self._reserved.scorer_calls  # else an unknown count is left over
        self._bank.keep_spending(self._account, self.spent, self._reserved if under_way else Usage())


class Door:
    """Lets in whom the configuration names, or everybody on this machine if it names nobody.

    With a bank, what each has spent before counts as well; what all have spent is the sum of its accounts, those that
    nobody uses any more included.
    """

    def __init__(self, config: Config, bank: Bank | None = None) -> None:
        self._bank = bank
        self.ledger = Ledger(replace(config.budget, seconds=None))
        """What all spend together."""
        self.ledger.spent = Usage() if bank is None else total(bank.spending().values())
        self._locked = bool(config.keys)
        self._guests = [(key.sha256, self._guest(key.name, key.budget, config, key)) for key in config.keys]
        self._anybody = self._guest("anybody", Budget(), config)
        self._anybody.sees_all = True

    @property
    def guests(self) -> list[Guest]:
        """Whoever may come in."""
        return [guest for _, guest in self._guests] if self._locked else [self._anybody]

    def _guest(self, name: str, budget: Budget, config: Config, key: Key | None = None) -> Guest:
        ledger = self.account(name, replace(budget, seconds=None))
        limits = (budget, config.budget)
        return (
            Guest(name, ledger, limits, key.requests_per_minute, key.sees_all) if key else Guest(name, ledger, limits)
        )

    def greet(self, headers: Mapping[str, str]) -> None:
        """Let anybody see what is no secret; headers by lower-case name.

        Raises:
            HttpError: without keys, the server is called by a name that is not this machine's, by which a page in a
                browser could reach it.
        """
        if not self._locked and not is_loopback(urlsplit(f"//{headers.get('host', '')}").hostname or ""):
            raise HttpError(403, "without keys it answers to localhost only; give the gateway a key", code="host")

    def account(self, name: str, budget: Budget | None = None) -> Ledger:
        """An account within that of all."""
        if self._bank is None:
            return Ledger(budget, within=self.ledger)
        return KeptLedger(budget or Budget(), name, self._bank, self.ledger)

    def enter(self, headers: Mapping[str, str]) -> Guest:
        """Who it is that asks; headers by lower-case name.

        Raises:
            HttpError: no key, a wrong one, or see `greet`.
        """
        self.greet(headers)
        if not self._locked:
            return self._anybody
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not given.strip():
            raise HttpError(401, "no key; send Authorization: Bearer KEY", code="invalid_api_key")
        told, found = digest(given.strip()), None
        for sha256, guest in self._guests:  # all of them, so that time tells nothing
            if hmac.compare_digest(sha256, told):
                found = guest
        if found is None:
            raise HttpError(401, "the key is not known here", code="invalid_api_key")
        return found


async def obtain(ledger: Ledger, worst_case: Usage) -> None:
    """Reserve, and wait for others to settle if it is they who hold the rest.

    Raises:
        HttpError: there is too little left.
    """
    while not ledger.reserve(worst_case):
        if not ledger.held_by_others(worst_case):
            raise over_budget()
        await ledger.freed()


def over_budget() -> HttpError:
    """The answer to whoever has nothing left to spend."""
    said = "what is left of the budget of this key, or of the gateway, does not cover it; lower max_tokens"
    return HttpError(429, said, code="insufficient_quota")
