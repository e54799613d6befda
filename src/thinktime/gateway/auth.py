"""Authentication by key, rate limits, the host check, and the ledger of each client."""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from starlette.requests import HTTPConnection

from thinktime.bank.store import Bank
from thinktime.core.errors import BankError
from thinktime.core.ledger import Ledger, Reservation
from thinktime.core.usage import Budget, Usage, total
from thinktime.gateway.config import GatewayConfig, Key, digest, limits_spending
from thinktime.gateway.errors import HttpError, UnknownKeyError, http_error
from thinktime.gateway.limits import (
    ADDRESSES,
    BODIES,
    FAILURE_SECONDS,
    FAILURES,
    FAILURES_EACH,
    FREE_FAILURES,
    LONGEST_FAILURE,
    SAMPLES,
    WAIT_SECONDS,
)
from thinktime.gateway.rates import LocalRates, RateLimit
from thinktime.models.remote.client import is_loopback
from thinktime.models.remote.limits import Room

if TYPE_CHECKING:
    from thinktime.gateway.keys import SharedKeys
    from thinktime.gateway.shared import Keeper


@dataclass(eq=False)
class ApiClient:
    """The holder of a key, or anybody if the gateway has no keys."""

    name: str
    ledger: Ledger
    limits: tuple[Budget, ...]
    """The budgets of the key and of the gateway, and the longest time of a request."""
    rate: RateLimit = field(default_factory=RateLimit)
    sees_all: bool = False
    """Whether this client may see the requests of all clients."""
    shadow: bool = False
    """Whether its requests may be measured in the background."""
    bodies: Room = field(default_factory=lambda: Room(BODIES))
    """Bytes for the bodies of its unfinished requests."""
    samples: Room = field(default_factory=lambda: Room(SAMPLES))
    """Number of samples that its requests may have in progress."""

    @cached_property
    def limited(self) -> bool:
        """Whether a budget limits what it spends."""
        return any(map(limits_spending, self.limits))

    def sees(self, other: ApiClient) -> bool:
        """Whether this client may see the requests of the other."""
        return self.sees_all or other is self

    def timed(self, budget: Budget) -> Budget:
        """The budget of a request, its seconds capped by those of the limits."""
        seconds = [limit.seconds for limit in (budget, *self.limits) if limit.seconds is not None]
        return replace(budget, seconds=min(seconds, default=None))


@dataclass
class _Failures:
    """The failed keys of one address."""

    count: float = 0.0
    """Their number, less one for each second since then."""
    seen: float = 0.0
    waiting: int = 0
    """Replies that wait now."""


class FailedKeys:
    """Slows down the replies to unknown keys by the address of the client, so that keys cannot be guessed fast.

    An address that guesses does not slow down another one. A network of IPv6 (64 bits) is one address.
    """

    def __init__(self) -> None:
        self._by_address: dict[str, _Failures] = {}
        self._waiting = 0

    def delay(self, now: float, address: str) -> float:
        """Count a failed key of an address at the time ``now``; return the seconds until its reply."""
        failures = self._of(address)
        failures.count = max(0.0, failures.count - (now - failures.seen)) + 1
        failures.seen = now
        return min(LONGEST_FAILURE, max(0.0, failures.count - FREE_FAILURES) * FAILURE_SECONDS)

    async def wait(self, address: str) -> None:
        """Wait before the reply to a failed key.

        Raises:
            HttpError: too many replies wait already, of this address or of all.
        """
        failures = self._of(address)
        if failures.waiting >= FAILURES_EACH or self._waiting >= FAILURES:
            raise HttpError(429, "too many requests with unknown keys", retry_after=LONGEST_FAILURE)
        failures.waiting += 1
        self._waiting += 1
        try:
            await asyncio.sleep(self.delay(time.monotonic(), address))
        finally:
            failures.waiting -= 1
            self._waiting -= 1

    def _of(self, address: str) -> _Failures:
        """The failures of an address. Only those of the last addresses are remembered."""
        network = _network(address)
        failures = self._by_address[network] = self._by_address.pop(network, _Failures())
        if len(self._by_address) > ADDRESSES:
            del self._by_address[next(iter(self._by_address))]
        return failures


def _network(address: str) -> str:
    """The address, or its network of 64 bits if it is one of IPv6."""
    try:
        number = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(number, ipaddress.IPv4Address):
        return address
    return str(number.ipv4_mapped or ipaddress.ip_network((int(number) >> 64 << 64, 64)))


class KeptLedger(Ledger):
    """A ledger that survives a restart.

    It writes a reservation to the bank before it is used, and the actual cost as soon as it is known. So whenever the
    process is killed, the bank has at least what was spent, and at most that plus the reservations of running samples.
    """

    def __init__(self, budget: Budget, account: str, bank: Bank, within: Ledger) -> None:
        super().__init__(budget, within=within)
        self._account, self._bank = account, bank
        self.spent = bank.spending().get(account, Usage())

    async def reserve(self, worst_case: Usage) -> Reservation | None:
        """As `Ledger.reserve`, and write the reservation to the bank.

        Raises:
            BankError: the bank cannot be written; nothing is reserved then.
        """
        reservation = await super().reserve(worst_case)
        if reservation is not None:
            try:
                self._keep()
            except BankError:
                super().settle([reservation], Usage())
                raise
        return reservation

    def settle(self, reservations: Sequence[Reservation], actual: Usage) -> None:
        """As `Ledger.settle`, and write the actual cost to the bank.

        Raises:
            BankError: the bank cannot be written; it then still has the reservations.
        """
        super().settle(reservations, actual)
        self._keep()

    def charge(self, usage: Usage) -> None:
        """As `Ledger.charge`, and write the cost to the bank.

        Raises:
            BankError: the bank cannot be written.
        """
        super().charge(usage)
        self._keep()

    def _keep(self) -> None:
        running = self._reserved.model_calls or self._reserved.scorer_calls  # without calls, unknown counts remain
        self._bank.keep_spending(self._account, self.spent, self._reserved if running else Usage())


class Auth:
    """Authenticates clients by the configured keys; without keys, everybody on this machine is one client.

    With a bank, earlier spending counts as well. The gateway's total is the sum of all accounts in the bank, including
    those of keys that are no longer configured.

    Args:
        config: keys and budgets.
        bank: keeps the spending of one gateway.
        keeper: keeps the spending of several gateways, instead of the bank.
        keys: clients' keys in a store; None without one.
        rates: counts the requests of keys.
    """

    def __init__(
        self,
        config: GatewayConfig,
        bank: Bank | None = None,
        keeper: Keeper | None = None,
        keys: SharedKeys | None = None,
        rates: LocalRates | None = None,
    ) -> None:
        self._bank = bank
        self._keeper = keeper
        self._config, self._keys = config, keys
        self._rates = rates or LocalRates()
        budget = replace(config.budget, seconds=None)
        self.ledger = Ledger(budget) if keeper is None else keeper.of_all(budget)
        """The spending of all clients together."""
        self.ledger.patience = WAIT_SECONDS
        self._request_seconds = Budget(seconds=config.request_seconds)
        most_body, most_samples = max(BODIES, config.max_body), max(SAMPLES, config.max_samples)
        self._most = (most_body, most_samples)
        self._rooms = (Room(2 * most_body), Room(2 * most_samples))
        self._failed = FailedKeys()
        if bank is not None and keeper is None:
            self.ledger.spent = total(bank.spending().values())
        self._requires_key = bool(config.keys) or keys is not None
        self._clients = [(key.sha256, self._client(key)) for key in config.keys]
        self._stored: dict[str, tuple[Key, ApiClient]] = {}
        """The clients of keys in the store that have sent requests, by name."""
        self._anonymous = self._client(Key("anybody", digest(""), sees_all=True, shadow=True))

    @property
    def clients(self) -> list[ApiClient]:
        """All clients that may send requests."""
        if not self._requires_key:
            return [self._anonymous]
        return [client for _, client in self._clients] + [client for _, client in self._stored.values()]

    def _client(self, key: Key, ledger: Ledger | None = None) -> ApiClient:
        budget = replace(key.budget, seconds=None)
        if ledger is None:
            ledger = self.account(key.name, budget)
        else:
            ledger.limit(budget)
        limits = (key.budget, self._config.budget, self._request_seconds)
        bodies, samples = (Room(most, room) for most, room in zip(self._most, self._rooms, strict=True))
        rate = RateLimit(key.requests_per_minute, key.tokens_per_minute)
        return ApiClient(key.name, ledger, limits, rate, key.sees_all, key.shadow, bodies, samples)

    def check_host(self, headers: Mapping[str, str]) -> None:
        """Check the Host header of a gateway without keys; ``headers`` are by lower-case name.

        Only names of this machine are accepted, so a page in a browser cannot reach the gateway by DNS rebinding.

        Raises:
            HttpError: the gateway has no keys, and Host is not a name of this machine.
        """
        if not self._requires_key and not is_loopback(_name_in(headers.get("host", ""))):
            raise HttpError(403, "without keys the gateway answers to localhost only; give it a key", code="host")

    def account(self, name: str, budget: Budget | None = None) -> Ledger:
        """A ledger within that of all clients."""
        ledger: Ledger
        if self._keeper is not None:
            ledger = self._keeper.ledger(budget or Budget(), name)
        elif self._bank is None:
            ledger = Ledger(budget, within=self.ledger)
        else:
            ledger = KeptLedger(budget or Budget(), name, self._bank, self.ledger)
        ledger.patience = WAIT_SECONDS
        return ledger

    async def admit(self, client: ApiClient) -> Mapping[str, str]:
        """Count a request of a client; return headers that say what is left of its rate.

        Raises:
            HttpError: the rate limit is exceeded; the request does not count.
        """
        if not client.rate.exists:
            return {}
        state = await self._rates.admit(client.name, client.rate)
        state.check()
        return state.headers

    def ended(self, client: ApiClient, spent: Usage) -> None:
        """Count the tokens of an ended request for the rate of its key."""
        if client.rate.tokens is not None and spent.written_tokens:
            self._rates.add_tokens(client.name, spent.written_tokens)

    def authenticate(self, headers: Mapping[str, str]) -> ApiClient:
        """The client that sends these headers, which are by lower-case name, if its key is in the configuration.

        Raises:
            HttpError: the key is missing or unknown, or as `check_host`.
        """
        self.check_host(headers)
        if not self._requires_key:
            return self._anonymous
        hashed, found = _hash_in(headers), None
        for sha256, client in self._clients:  # compare all, so the time does not depend on the key
            if hmac.compare_digest(sha256, hashed):
                found = client
        if found is None:
            raise UnknownKeyError(401, "the key is unknown", code="invalid_api_key")
        return found

    async def admitted(self, headers: Mapping[str, str], address: str) -> ApiClient:
        """As `authenticate`, but each refusal of an unknown key of an address waits longer than the last.

        Known keys never wait.
        """
        try:
            try:
                return self.authenticate(headers)
            except UnknownKeyError:
                if self._keys is None:
                    raise
                return await self._of_store(self._keys, _hash_in(headers))
        except UnknownKeyError:
            await self._failed.wait(address)
            raise

    async def _of_store(self, keys: SharedKeys, hashed: str) -> ApiClient:
        """The client of a key in the store, as the store has it now.

        If the store does not answer, a key that was valid before and has no budget is still accepted.

        Raises:
            UnknownKeyError: the key is unknown, or revoked.
            HttpError: the store does not answer.
        """
        try:
            key = await keys.find(hashed)
        except BankError as error:
            for known, client in self._stored.values():
                if known.sha256 == hashed and not client.limited:
                    return client
            raise http_error(error, ()) from None
        if key is None or key.name in {client.name for _, client in self._clients}:
            raise UnknownKeyError(401, "the key is unknown", code="invalid_api_key")
        before = self._stored.get(key.name)
        if before is None or before[0] != key:  # an account has one ledger in a process
            client = self._client(key, None if before is None else before[1].ledger)
            before = self._stored[key.name] = (key, client)
        return before[1]


def _hash_in(headers: Mapping[str, str]) -> str:
    """The hash of the key in a request.

    Raises:
        HttpError: the key is missing.
    """
    scheme, _, given = headers.get("authorization", "").partition(" ")
    given = given if scheme.lower() == "bearer" else headers.get("x-api-key", "")  # as Anthropic's clients send it
    if not given.strip():
        raise HttpError(401, "the key is missing; send Authorization: Bearer KEY", code="invalid_api_key")
    return digest(given.strip())


def address_of(request: HTTPConnection) -> str:
    """The address of the client; empty if it has none, as on a socket of Unix."""
    return request.client.host if request.client is not None else ""


def _name_in(host: str) -> str:
    """The name or address in a Host header, without its port; empty if the header has none."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


async def reserve(ledger: Ledger, worst_case: Usage, wanted: str = "the request; lower max_tokens") -> Reservation:
    """Reserve on a ledger; if only the reservations of other requests prevent it, wait until they settle.

    Args:
        ledger: the account.
        worst_case: the most that the call can cost.
        wanted: what is reserved for, and how to pay less, for the message of the error.

    Raises:
        HttpError: too little of the budget is left.
        BusyError: other requests have reserved it for too long.
    """
    while (reservation := await ledger.reserve(worst_case)) is None:
        if not ledger.fits_later(worst_case):
            raise over_budget(wanted)
        await ledger.freed()
    return reservation


def over_budget(wanted: str = "the request; lower max_tokens") -> HttpError:
    """The reply when the budget of the key or of the gateway is too small for what is wanted."""
    reason = f"the rest of the budget of this key, or of the gateway, does not cover {wanted}"
    return HttpError(429, reason, code="insufficient_quota")
