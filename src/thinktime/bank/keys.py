"""Clients' keys and their rates, which several gateways share: in an SQLite file, or in a Postgres bank.

A file is open in several processes at once, unlike a bank in a file. Keys are stored as hashes.
"""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from thinktime.bank.database import DatabaseError, Row, is_url, naming, one_line, shown
from thinktime.core.errors import BankError, InputError

if TYPE_CHECKING:
    import psycopg

TABLES = """
CREATE TABLE IF NOT EXISTS keys (
    name TEXT PRIMARY KEY, sha256 TEXT NOT NULL UNIQUE, settings TEXT NOT NULL, created {real} NOT NULL, revoked {real}
);
CREATE TABLE IF NOT EXISTS rates (name TEXT PRIMARY KEY, slots TEXT NOT NULL);
"""
WAIT_SECONDS = 5.0
"""Longest wait for another process that writes the file."""

Slots = list[list[float]]
"""What a key has sent of late, see `thinktime.gateway.rates`."""
Result = TypeVar("Result")
Change = Callable[[Slots, float], tuple[Slots, Result]]
"""Makes new slots of the old ones and the time in seconds."""


@dataclass(frozen=True)
class StoredKey:
    """A client's key.

    Args:
        name: of its account.
        sha256: its hash.
        settings: its limits, as in the file of ``thinktime serve``.
        created: Unix time of its creation.
        revoked: Unix time of its revocation; None if it is valid.
    """

    name: str
    sha256: str
    settings: Mapping[str, Any]
    created: float
    revoked: float | None


class _Rows(Protocol):
    """The tables in one of the two databases."""

    def read(self, query: str, values: Sequence[Any]) -> list[Row]: ...

    def write(self, statement: str, rows: Sequence[Row]) -> None: ...

    def change(self, name: str, change: Change[Result]) -> Result: ...

    def close(self) -> None: ...


class KeyStore:
    """The keys at a place. Threads may share it.

    Args:
        place: the path of a file, or ``postgresql://USER@HOST/DATABASE``.
        field: how messages name the setting that gives the place.

    Raises:
        BankError: in all calls: the store cannot be opened, read or written; an `UnreachableBankError` if the database
            does not answer.
    """

    def __init__(self, place: Path | str, field: str = "key_store") -> None:
        self.field, self.place = field, shown(place)
        """How messages name it; without a password."""
        with self._naming():
            self._rows: _Rows = _PostgresRows(str(place)) if is_url(place, field) else _FileRows(Path(place))

    def add(self, name: str, sha256: str, settings: Mapping[str, Any]) -> None:
        """Add a key. The name of a revoked key may get a new one, which goes on with its account.

        Raises:
            InputError: there is a valid key of this name, or any key with this hash.
        """
        if (other := self.find(sha256)) is not None:
            raise InputError("sha256", f"{sha256[:8]}…", f"the key {other.name!r} has this hash; make a new key")
        row = (name, sha256, json.dumps(settings), time.time())
        statement = (
            "INSERT INTO keys (name, sha256, settings, created) VALUES (?, ?, ?, ?) ON CONFLICT (name) DO UPDATE SET "
            "sha256 = excluded.sha256, settings = excluded.settings, created = excluded.created, revoked = NULL "
            "WHERE keys.revoked IS NOT NULL"
        )
        with self._naming():
            self._rows.write(statement, [row])
        if self.find(sha256) is None:
            raise InputError("name", name, "there is a key of this name; revoke it first, or take another name")

    def revoke(self, name: str) -> None:
        """Make a key invalid from now on.

        Raises:
            InputError: there is no valid key of this name.
        """
        if name not in {key.name for key in self.all() if key.revoked is None}:
            raise InputError("name", name, "there is no valid key of this name; `thinktime keys ls` lists them")
        with self._naming():
            self._rows.write("UPDATE keys SET revoked = ? WHERE name = ? AND revoked IS NULL", [(time.time(), name)])

    def all(self) -> list[StoredKey]:
        """All keys by name, with those that are revoked."""
        return self._found("ORDER BY name")

    def find(self, sha256: str) -> StoredKey | None:
        """The key with this hash, valid or not."""
        return next(iter(self._found("WHERE sha256 = ?", sha256)), None)

    def change_rate(self, name: str, change: Change[Result]) -> Result:
        """Change what a key has sent of late, while no other process does. A call may count twice if it fails.

        Args:
            name: of the key's account.
            change: makes the new slots, and what is returned.
        """
        with self._naming():
            return self._rows.change(name, change)

    def close(self) -> None:
        """Release the store."""
        self._rows.close()

    def _naming(self) -> AbstractContextManager[None]:
        return naming(self.place, self.field)

    def _found(self, which: str, *values: str) -> list[StoredKey]:
        with self._naming():
            rows = self._rows.read(f"SELECT name, sha256, settings, created, revoked FROM keys {which}", values)
        return [StoredKey(name, sha256, self._settings(name, text), *times) for name, sha256, text, *times in rows]

    def _settings(self, name: str, text: str) -> dict[str, Any]:
        try:
            return dict(json.loads(text))
        except (TypeError, ValueError):
            fix = f"the settings of the key {name!r} are {text[:40]!r}; make them a JSON object, as {{}}"
            raise BankError(f"{self.field}={self.place!r}: {fix}") from None


class _FileRows:
    """The tables in an SQLite file, which several processes write."""

    def __init__(self, path: Path) -> None:
        self._turn = threading.Lock()
        with _named("open"):
            path.parent.mkdir(parents=True, exist_ok=True)
            if not path.exists():
                path.touch(mode=0o600)  # only its owner reads it
            self._connection = sqlite3.connect(
                path, timeout=WAIT_SECONDS, isolation_level=None, check_same_thread=False
            )
            self._connection.execute("PRAGMA journal_mode=WAL")
            self._connection.execute("PRAGMA synchronous=NORMAL")
            self._connection.executescript(TABLES.format(real="REAL"))

    def read(self, query: str, values: Sequence[Any]) -> list[Row]:
        with self._turn, _named("read"):
            return self._connection.execute(query, values).fetchall()

    def write(self, statement: str, rows: Sequence[Row]) -> None:
        with self._writing():
            self._connection.executemany(statement, rows)

    def change(self, name: str, change: Change[Result]) -> Result:
        with self._writing():
            found = self._connection.execute("SELECT slots FROM rates WHERE name = ?", [name]).fetchone()
            slots, result = change(json.loads(found[0]) if found else [], time.time())
            self._connection.execute("INSERT OR REPLACE INTO rates VALUES (?, ?)", [name, json.dumps(slots)])
            return result

    def close(self) -> None:
        self._connection.close()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        with self._turn, _named("write"):
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise


class _PostgresRows:
    """The tables in a Postgres bank."""

    def __init__(self, url: str) -> None:
        from thinktime.bank.postgres import PostgresDatabase

        self._database = PostgresDatabase(url, waits=(0.0,))
        self._database.run("write", _create)

    def read(self, query: str, values: Sequence[Any]) -> list[Row]:
        return self._database.read(query, values)

    def write(self, statement: str, rows: Sequence[Row]) -> None:
        self._database.write(statement, rows)

    def change(self, name: str, change: Change[Result]) -> Result:
        def work(connection: psycopg.Connection[Row]) -> Result:
            with connection.transaction():
                connection.execute("INSERT INTO rates VALUES (%s, '[]') ON CONFLICT DO NOTHING", [name])
                query = "SELECT slots, extract(epoch FROM clock_timestamp()) FROM rates WHERE name = %s FOR UPDATE"
                found = connection.execute(query, [name]).fetchone()
                assert found is not None
                slots, result = change(json.loads(found[0]), float(found[1]))
                connection.execute("UPDATE rates SET slots = %s WHERE name = %s", [json.dumps(slots), name])
                return result

        return self._database.run("write", work)

    def close(self) -> None:
        self._database.close()


def _create(connection: psycopg.Connection[Row]) -> None:
    """Create the tables if there are none. Processes that open a new store at once take turns."""
    with connection.transaction():
        connection.execute("SELECT pg_advisory_xact_lock(hashtext('thinktime'))")
        if connection.execute("SELECT to_regclass('rates') IS NULL").fetchone() == (True,):
            connection.execute(TABLES.format(real="DOUBLE PRECISION"))


@contextmanager
def _named(doing: str) -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        raise DatabaseError(f"cannot {doing} it ({one_line(error)}); give a writable file of keys") from error
