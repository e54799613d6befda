"""The spending of accounts that several processes share, in a Postgres bank.

What is spent plus what is reserved never exceeds a budget: one statement checks and reserves, under the locks of the
account and of the sum of all accounts. A reservation is a row with a lease. A settlement deletes the row, so it counts
once however often it is tried. A reservation whose lease ends counts as spent, and as uncounted.
"""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from typing import Any
from uuid import UUID

import psycopg

from thinktime.bank.database import Row, naming, shown
from thinktime.bank.postgres import PostgresDatabase
from thinktime.bank.store import ALL
from thinktime.core.usage import Budget, Usage, uncounted

LEASE = 60.0
"""Seconds of the database's clock after which a reservation that nobody renews counts as spent."""
WAITS = (0.0,)
"""A lost connection is opened again at once; the caller decides whether to try again later."""
MOST = 100
"""Most expired reservations that one call settles."""

COUNTS: Mapping[str, tuple[str, ...]] = {
    "tokens": ("generated_tokens", "judge_tokens"),
    "calls": ("model_calls",),
    "actions": ("actions",),
    "nfe": ("denoiser_calls",),
    "flops": ("flops", "scorer_flops"),
    "dollars": ("dollars",),
}
"""The counts of a usage that each limit of a budget bounds together, as in `Ledger.check`."""
NAMES = list(Usage().as_dict())
ZERO = json.dumps(Usage().as_dict())


@dataclass(frozen=True)
class Balance:
    """What an account has spent, and what its running calls have reserved."""

    spent: Usage
    reserved: Usage


Balances = Mapping[str, Balance]


def _count(counts: str, name: str) -> str:
    """SQL: one count of a usage in JSON. A count that a later version added is 0; an unknown one is NULL."""
    return f"CASE WHEN {counts} ? {name} THEN ({counts} ->> {name})::numeric ELSE 0 END"


def _sum(first: str, operator: str, second: str, unknown: str = "NULL") -> str:
    """SQL: a usage in JSON, count by count of two others."""
    one, other = (f"coalesce({_count(f'({each})::jsonb', 'name')}, {unknown})" for each in (first, second))
    return f"(SELECT jsonb_object_agg(name, {one} {operator} {other})::text FROM unnest(%(names)s::text[]) AS name)"


def _fits(budget: Budget, worst: Usage, name: str) -> tuple[str, dict[str, Any]]:
    """SQL and its values: whether the worst case fits an account. A count that is unknown does not fit a limit."""
    conditions, values = ["true"], {}
    counts = worst.as_dict()
    for limit, parts in COUNTS.items():
        most = getattr(budget, limit)
        if most is None:
            continue
        terms = [_count(f"{column}::jsonb", f"'{part}'") for column in ("spent", "reserved") for part in parts]
        values[f"{name}_{limit}"] = Decimal(repr(most)) - sum(Decimal(repr(counts[part])) for part in parts)
        conditions.append(f"coalesce({' + '.join(terms)} <= %({name}_{limit})s, false)")
    return " AND ".join(conditions), values


# FOR UPDATE reads the newest rows, also those that others have changed while this statement waited for its locks. All
# statements lock the rows of accounts in one order.
_RESERVE = """
WITH held AS MATERIALIZED (
    SELECT account, spent, reserved FROM spending WHERE account = ANY(%(accounts)s) ORDER BY account FOR UPDATE
), fits AS MATERIALIZED (
    SELECT count(*) = 2 AND bool_and(CASE WHEN account = %(all)s THEN {outer} ELSE {inner} END) AS yes FROM held
), paid AS (
    UPDATE spending SET reserved = {more} FROM fits WHERE yes AND account = ANY(%(accounts)s)
    RETURNING account, spent, reserved
), noted AS (
    INSERT INTO reservations (id, account, owner, worst, expires)
    SELECT %(id)s, %(account)s, %(owner)s, %(worst)s, clock_timestamp() + %(lease)s * interval '1 second'
    FROM fits WHERE yes
)
SELECT true, account, spent, reserved FROM paid
UNION ALL SELECT false, account, spent, reserved FROM held, fits WHERE NOT yes
"""

# A reservation is deleted before the accounts are locked, by its owner and by the process that ends its lease.
_SETTLE = f"""
WITH gone AS (
    DELETE FROM reservations WHERE id = ANY(%(ids)s) AND (NOT %(expired)s OR expires < clock_timestamp())
    RETURNING worst::jsonb AS worst
), counts AS (
    SELECT name, sum({_count("worst", "name")}) AS freed FROM gone, unnest(%(names)s::text[]) AS name GROUP BY name
), given AS MATERIALIZED (
    SELECT jsonb_object_agg(name, freed)::text AS back FROM counts
), held AS MATERIALIZED (
    SELECT account FROM spending, given WHERE account = ANY(%(accounts)s) AND back IS NOT NULL
    ORDER BY account FOR UPDATE OF spending
)
UPDATE spending SET spent = {_sum("spent", "+", "%(actual)s")}, reserved = {_sum("reserved", "-", "back", "0")}
FROM given WHERE account IN (SELECT account FROM held)
RETURNING true, account, spent, reserved
"""

_RENEW = """
UPDATE reservations SET expires = clock_timestamp() + %(lease)s * interval '1 second' WHERE id = ANY(%(ids)s)
"""


class Accounts:
    """Accounts in a Postgres bank. Each thread that calls has a connection of its own.

    Args:
        url: of the bank.
        lease: seconds after which a reservation counts as spent unless it is renewed.

    Raises:
        BankError: in all calls; an `UnreachableBankError` if the server does not answer. Then the call may or may not
            have been carried out, and it can be repeated.
    """

    def __init__(self, url: str, lease: float = LEASE) -> None:
        self.lease = lease
        self.place = shown(url)
        self._url = url
        self._owner = f"{socket.gethostname()}:{os.getpid()}"
        self._own = threading.local()
        self._databases: list[PostgresDatabase] = []

    def open(self, accounts: Sequence[str]) -> Balances:
        """Make accounts that do not exist yet, and the one of their sum; return all of these."""
        rows = [(account, ZERO, ZERO) for account in (*accounts, ALL)]
        with self._database() as database:
            database.write(
                "INSERT INTO spending (account, spent, reserved) VALUES (?, ?, ?) ON CONFLICT DO NOTHING", rows
            )
            query = "SELECT true, account, spent, reserved FROM spending WHERE account = ANY(?)"
            return _balances(database.read(query, ([*accounts, ALL],)))

    def reserve(self, name: UUID, account: str, budget: Budget, of_all: Budget, worst: Usage) -> tuple[bool, Balances]:
        """Set a worst case aside if it fits the account and the sum of all accounts.

        Args:
            name: of the reservation; a second call with this name changes nothing.
            account: who pays.
            budget: the limits of the account.
            of_all: the limits of all accounts together.
            worst: the most that the call can cost.

        Returns:
            Whether it is reserved, and the balances after that.
        """
        inner, limits = _fits(budget, worst, "inner")
        outer, more_limits = _fits(of_all, worst, "outer")
        text = _RESERVE.format(inner=inner, outer=outer, more=_sum("reserved", "+", "%(worst)s", "0"))
        values = {**self._values(account), "id": name, "worst": json.dumps(worst.as_dict()), **limits, **more_limits}
        tries = 0

        def work(connection: psycopg.Connection[Row]) -> list[Row] | None:
            """The rows of the statement; None if the first try was carried out and only its reply was lost."""
            nonlocal tries
            tries += 1
            if (
                tries > 1
                and connection.execute("SELECT FROM reservations WHERE id = %s", [name]).fetchone() is not None
            ):
                return None
            try:
                return connection.execute(text, values).fetchall()
            except psycopg.errors.UniqueViolation:
                return None

        with self._database() as database:
            rows = database.run("write", work)
        return rows is None or (bool(rows) and rows[0][0]), _balances(rows or ())

    def settle(self, names: Sequence[UUID], account: str, actual: Usage, *, expired: bool = False) -> Balances:
        """Give reservations of an account back and charge what their calls cost, once.

        Args:
            names: of the reservations; those that do not exist are left out. If none exists, nothing is charged.
            account: who pays.
            actual: the cost of all calls.
            expired: only settle those whose lease has ended.

        Returns:
            The balances after that; none if nothing has changed.
        """
        cost = json.dumps(actual.as_dict())
        values = {**self._values(account), "ids": list(names), "actual": cost, "expired": expired}
        with self._database() as database:
            return _balances(database.run("write", lambda connection: connection.execute(_SETTLE, values).fetchall()))

    def renew(self, names: Sequence[UUID]) -> None:
        """Begin the leases of these reservations again."""
        with self._database() as database:
            values = {"ids": list(names), "lease": self.lease}
            database.run("write", lambda connection: connection.execute(_RENEW, values).rowcount)

    def expire(self) -> int:
        """Charge reservations of any process whose lease has ended; return how many there were."""
        query = "SELECT id, account, worst FROM reservations WHERE expires < clock_timestamp() ORDER BY id LIMIT ?"
        with self._database() as database:
            rows = database.read(query, (MOST,))
        for name, account, worst in rows:
            cost = uncounted(Usage.from_dict(json.loads(worst)))
            self.settle([name], account, cost, expired=True)
        return len(rows)

    def close(self) -> None:
        """Close the connections of all threads. Open reservations end with their leases."""
        for database in self._databases:
            database.close()

    def _values(self, account: str) -> dict[str, Any]:
        return {
            "account": account,
            "all": ALL,
            "accounts": [account, ALL],
            "names": NAMES,
            "owner": self._owner,
            "lease": self.lease,
        }

    @contextmanager
    def _database(self) -> Iterator[PostgresDatabase]:
        with naming(self.place):
            if not hasattr(self._own, "database"):
                self._own.database = PostgresDatabase(self._url, waits=WAITS)
                self._databases.append(self._own.database)
            yield self._own.database


def _balances(rows: Sequence[Row]) -> dict[str, Balance]:
    return {
        account: Balance(*(Usage.from_dict(json.loads(text)) for text in (spent, reserved)))
        for _, account, spent, reserved in rows
    }
