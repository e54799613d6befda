"""A bank in a Postgres database, which several processes write at once."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from thinktime.bank.database import COLUMNS, TABLES, DatabaseError, Row, failed, one_line, unstorable

try:
    import psycopg
    from psycopg.conninfo import conninfo_to_dict, make_conninfo
except ImportError as missing:
    fix = "a Postgres bank needs a package; pip install 'thinktime[postgres]'"
    raise DatabaseError(fix) from missing

Result = TypeVar("Result")

SCHEMA = (
    TABLES.format(
        text='TEXT COLLATE "C"',  # sorts by code points, as SQLite does
        whole="BIGINT",
        real="DOUBLE PRECISION",
        bytes="BYTEA",
        julian_day="(extract(epoch FROM now()) / 86400 + 2440587.5)",
        compact="",
        key_and_scorer="",
        once=", rowid BIGINT GENERATED ALWAYS AS IDENTITY",
    )
    # an entry of the usual index holds 2,704 bytes; comparisons of many samples have longer keys
    + """
CREATE INDEX readings_key ON readings USING hash (key);
CREATE UNIQUE INDEX readings_once ON readings (md5(key), scorer);
CREATE UNIQUE INDEX imports_once ON imports (md5(header));
CREATE TABLE reservations (
    id UUID PRIMARY KEY, account TEXT COLLATE "C" NOT NULL, owner TEXT NOT NULL, worst TEXT NOT NULL,
    expires TIMESTAMPTZ NOT NULL
);
"""
)

DEFAULTS = {
    "application_name": "thinktime",
    "client_encoding": "utf8",
    "connect_timeout": "5",
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "10000",
}
"""Options of connections, unless the URL has others. A server that vanishes is noticed within seconds."""

WAITS = (0.0, 0.5, 2.0)
SETTINGS = "SET idle_in_transaction_session_timeout = '30s'"
"""A stalled process must not hold locks that others wait for."""


def connect(url: str) -> psycopg.Connection[Row]:
    """Open a connection that commits each statement.

    Raises:
        DatabaseError: the URL is wrong, or the server refuses it or does not answer.
    """
    try:
        options = conninfo_to_dict(url)
        list(map(int, filter(None, str(options.get("port") or "").split(","))))
    except (psycopg.ProgrammingError, ValueError):  # the message may have the password, also in place of a port
        raise DatabaseError("cannot read the URL; write postgresql://USER@HOST:PORT/DATABASE") from None
    defaults = {name: value for name, value in DEFAULTS.items() if name not in options}
    try:
        connection = psycopg.connect(make_conninfo(url, **defaults), autocommit=True)
        connection.execute(SETTINGS)
    except psycopg.Error as error:
        reason = one_line(error)
        if password := str(options.get("password") or ""):
            reason = reason.replace(password, "…")
        raise failed("open", reason, _fix(reason), unreachable=True) from None
    return connection


def _fix(reason: str) -> str:
    """What to do about a connection that is refused."""
    if "password" in reason:
        return "put the right password into PGPASSWORD"
    if "does not exist" in reason:
        return "create it, or name another one,"
    return "start the server, or give another one,"


class PostgresDatabase:
    """A Postgres database.

    A call that loses its connection is tried again on a new one. All calls are safe to repeat: a query changes nothing,
    and a statement does not add up. Threads may share the database.

    Args:
        url: ``postgresql://USER@HOST:PORT/DATABASE``; libpq's options and environment variables apply.
        read_only: only read it.
        waits: seconds before each new try of a call that lost its connection; by default three tries in 2.5 s.

    Raises:
        DatabaseError: it cannot be opened, or its tables belong to another program.
    """

    def __init__(self, url: str, *, read_only: bool = False, waits: Sequence[float] | None = None) -> None:
        self._url, self._read_only = url, read_only
        self._waits = WAITS if waits is None else waits
        self._turn = threading.Lock()
        self._connection = connect(url)
        try:
            if not read_only:
                _create(self._connection)
            for query in COLUMNS:
                self._connection.execute(query)
            if not read_only:
                _update(self._connection)
        except psycopg.Error as error:
            self._connection.close()
            raise failed("open", one_line(error), "give another one") from None

    def read(self, query: str, values: Sequence[object]) -> list[Row]:
        """As `Database.read`."""
        text = query.replace("?", "%s")
        return self.run("read", lambda connection: connection.execute(text, values).fetchall())

    def write(self, statement: str, rows: Sequence[Row]) -> None:
        """As `Database.write`."""
        text = statement.replace("?", "%s")
        ordered = sorted(rows, key=lambda row: [str(value) for value in row[:3]])  # so writers never wait in a circle

        def work(connection: psycopg.Connection[Row]) -> None:
            with connection.transaction(), connection.cursor() as cursor:
                cursor.executemany(text, ordered)

        if self._read_only:
            raise failed("write", "it is open for reading only", "open it for writing")
        self.run("write", work)

    def shrink(self) -> None:
        """As `Database.shrink`."""
        self.run("write", lambda connection: connection.execute("VACUUM"))

    def claim(self) -> bool:
        """As `Database.claim`."""
        name = "'thinktime retention ' || current_schema()"  # a database may have several banks
        return self.read(f"SELECT pg_try_advisory_lock(hashtext({name}))", ()) == [(True,)]

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def run(self, doing: str, work: Callable[[psycopg.Connection[Row]], Result]) -> Result:
        """The result of a call, which is tried again if its connection is lost, so it must be safe to repeat.

        Args:
            doing: ``read`` or ``write``, for the message of an error.
            work: what to do with the connection.

        Raises:
            DatabaseError: it fails.
        """
        with self._turn:
            for wait in (*self._waits, None):
                try:
                    if self._connection.broken:
                        self._connection = connect(self._url)
                    return work(self._connection)
                except (psycopg.DataError, UnicodeError, OverflowError) as error:
                    raise unstorable(error) from None
                except (psycopg.Error, DatabaseError) as error:
                    lost = self._connection.broken
                    if wait is None or not (lost or isinstance(error, psycopg.errors.DeadlockDetected)):
                        raise _refusal(doing, error, lost) from None
                time.sleep(wait)
        raise AssertionError


def _refusal(doing: str, error: psycopg.Error | DatabaseError, lost: bool) -> DatabaseError:
    if isinstance(error, DatabaseError):
        return error
    fix = "start the server" if lost else "give another one"
    return failed(doing, one_line(error), fix, unreachable=lost)


def _create(connection: psycopg.Connection[Row]) -> None:
    """Create the tables if there are none. Processes that open a new bank at once take turns."""
    with connection.transaction():
        connection.execute("SELECT pg_advisory_xact_lock(hashtext('thinktime'))")
        if connection.execute("SELECT to_regclass('samples') IS NULL").fetchone() == (True,):
            connection.execute(SCHEMA)


def _update(connection: psycopg.Connection[Row]) -> None:
    """Add the column that older banks lack. To ask first is cheap; the change waits for all who read the table."""
    column = "SELECT count(*) FROM pg_attribute WHERE attrelid = to_regclass('blobs') AND attname = 'at'"
    if connection.execute(column).fetchone() == (0,):
        connection.execute(
            "ALTER TABLE IF EXISTS blobs ADD COLUMN IF NOT EXISTS at DOUBLE PRECISION NOT NULL DEFAULT 0"
        )
