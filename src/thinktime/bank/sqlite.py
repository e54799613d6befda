"""A bank in one SQLite file. One process writes it at a time."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any
from weakref import WeakValueDictionary

from thinktime.bank.database import COLUMNS, TABLES, DatabaseError, Row, failed, one_line, unstorable
from thinktime.bank.lock import lock

SCHEMA = TABLES.format(
    text="TEXT",
    whole="INTEGER",
    real="REAL",
    bytes="BLOB",
    julian_day="(julianday('now'))",
    compact="WITHOUT ROWID",
    key_and_scorer=", PRIMARY KEY (key, scorer)",
    once="PRIMARY KEY",
)

_OPEN: WeakValueDictionary[tuple[int, int], SqliteFile] = WeakValueDictionary()
"""The open files of this process by device and inode. To open such a file again and close it would drop SQLite's locks
on it, because POSIX locks belong to a process."""


class SqliteFile:
    """An SQLite file, safe after every call.

    Args:
        path: of the file.
        read_only: only read it, also while another process writes it.
        beside: another connection to a file that this process has open; it has to be closed first.

    Raises:
        DatabaseError: the file cannot be opened or is not a bank, or it is open already.
    """

    def __init__(self, path: Path, *, read_only: bool = False, beside: bool = False) -> None:
        self.path = path
        self._lock: IO[bytes] | None = None
        with _named_errors("open" if not read_only else "read"):
            if beside:
                self._connect()
                return
            if read_only:
                self._open_to_read()
                return
            self.path.parent.mkdir(parents=True, exist_ok=True)
            holder = Path(f"{self.path.resolve()}.lock")
            if self.path.exists() and _inode(self.path) in _OPEN:
                raise _in_use("this process")
            self._lock = open(self.path, "ab")  # noqa: SIM115  # the lock is on the file itself, whatever leads to it
            try:
                lock(self._lock)
            except BlockingIOError:
                self._lock.close()
                process = (holder.read_text(encoding="utf-8").strip() if holder.exists() else "") or "unknown"
                raise _in_use(f"process {process}") from None
            try:
                if os.fstat(self._lock.fileno()).st_nlink > 1:  # SQLite keeps unfinished writes in a file by the name
                    raise DatabaseError(
                        "the file has several names (hard links), and writes under one name may be lost under another; "
                        "give a copy, or remove the other names"
                    )
                holder.write_text(str(os.getpid()))
                self._connect()
                self.connection.executescript(SCHEMA)
                for query in COLUMNS:
                    self.connection.execute(query)
                for table, column in (("samples", "log_weight"), ("blobs", "at")):  # older banks lack them
                    if column not in [row[1] for row in self.connection.execute(f"PRAGMA table_info({table})")]:
                        self.connection.execute(f"ALTER TABLE {table} ADD COLUMN {column} REAL NOT NULL DEFAULT 0")
            except BaseException:
                self._lock.close()
                raise
            _OPEN[_inode(self.path)] = self

    def _connect(self) -> None:
        self.connection = sqlite3.connect(self.path, isolation_level=None)
        self.connection.execute("PRAGMA journal_mode=WAL")
        self.connection.execute("PRAGMA synchronous=NORMAL")

    def _open_to_read(self) -> None:
        if _inode(self.path) in _OPEN:
            raise _in_use("this process")
        self.connection = sqlite3.connect(f"{self.path.resolve().as_uri()}?mode=ro", uri=True, isolation_level=None)
        try:
            self.connection.execute(COLUMNS[0])
        except BaseException:
            self.connection.close()
            raise
        _OPEN[_inode(self.path)] = self

    def claim(self) -> bool:
        """As `Database.claim`: one process has the file."""
        return True

    def close(self) -> None:
        """Close the file; then other processes can open it."""
        self.connection.close()
        if self._lock is not None:
            self._lock.close()
        for inode in [inode for inode, file in _OPEN.items() if file is self]:
            del _OPEN[inode]

    def read(self, query: str, values: Sequence[Any]) -> list[Row]:
        """As `Database.read`."""
        with _named_errors("read"):
            return self.connection.execute(query, values).fetchall()

    def write(self, statement: str, rows: Sequence[Row]) -> None:
        """As `Database.write`."""
        with _named_errors("write"):
            self.connection.execute("BEGIN IMMEDIATE")
            try:
                self.connection.executemany(statement, rows)
                self.connection.execute("COMMIT")
            except BaseException:  # a transaction that stays open would fail every later write
                if self.connection.in_transaction:
                    self.connection.execute("ROLLBACK")
                raise

    def shrink(self) -> None:
        """As `Database.shrink`."""
        with _named_errors("write"):
            self.connection.execute("VACUUM")
            self.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


@contextmanager
def _named_errors(doing: str) -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        reason = one_line(error)
        fix = "free some space" if "full" in reason else "give a writable path with --bank"
        fix = "take a copy that is whole, or give another --bank" if doing == "read" else fix
        raise failed(doing, reason, fix) from error
    except (UnicodeError, OverflowError) as error:
        raise unstorable(error) from error


def _inode(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_dev, found.st_ino


def _in_use(by: str) -> DatabaseError:
    return DatabaseError(f"{by} is using it; wait for it, or give another --bank")
