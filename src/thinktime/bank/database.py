"""What a bank asks of a database, and the tables in it. SQLite and Postgres differ in types, locks and errors."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from thinktime.core.errors import BankError, InputError, UnreachableBankError

Row = tuple[Any, ...]

SCHEMES = ("postgresql:", "postgres:")

TABLES = """
CREATE TABLE IF NOT EXISTS samples (
    key {text} PRIMARY KEY, problem {text} NOT NULL, model {text} NOT NULL, finish {text} NOT NULL,
    state {text} NOT NULL, usage {text} NOT NULL, passes {whole} NOT NULL, at {real} DEFAULT {julian_day},
    log_weight {real} NOT NULL DEFAULT 0
) {compact};
CREATE TABLE IF NOT EXISTS blobs (
    hash {text} PRIMARY KEY, data {bytes} NOT NULL, at {real} NOT NULL DEFAULT {julian_day}
);
CREATE TABLE IF NOT EXISTS readings (
    key {text} NOT NULL, scorer {text} NOT NULL, value {real}, steps {text} NOT NULL, usage {text} NOT NULL
    {key_and_scorer}
) {compact};
CREATE TABLE IF NOT EXISTS verdicts (
    key {text} NOT NULL, checker {text} NOT NULL, correct {whole} NOT NULL, PRIMARY KEY (key, checker)
) {compact};
CREATE TABLE IF NOT EXISTS roles (
    kind {text} NOT NULL, role {text} NOT NULL, name {text} NOT NULL, PRIMARY KEY (kind, role, name)
) {compact};
CREATE TABLE IF NOT EXISTS fingerprints (
    name {text} PRIMARY KEY, fingerprint {text} NOT NULL
) {compact};
CREATE TABLE IF NOT EXISTS provenance (
    name {text} PRIMARY KEY, record {text} NOT NULL
) {compact};
CREATE TABLE IF NOT EXISTS imports (
    header {text} {once}
);
CREATE TABLE IF NOT EXISTS spending (
    account {text} PRIMARY KEY, spent {text} NOT NULL, reserved {text} NOT NULL
) {compact};
"""
"""The tables of every bank. Each database fills in its types; ``at`` is a Julian day."""

COLUMNS = (
    "SELECT key, problem, model, finish, state, usage, passes FROM samples LIMIT 0",
    "SELECT key, scorer, value, steps, usage FROM readings LIMIT 0",
    "SELECT key, checker, correct FROM verdicts LIMIT 0",
    "SELECT account, spent, reserved FROM spending LIMIT 0",
)
"""Queries that fail if the tables of these names belong to another program."""


class DatabaseError(Exception):
    """A database refuses something. The message is one line without the bank's name, which the bank adds.

    Args:
        message: the reason and the fix.
        unreachable: whether the database cannot be reached, so that the same call may succeed later.
    """

    def __init__(self, message: str, *, unreachable: bool = False) -> None:
        super().__init__(message)
        self.unreachable = unreachable


class Database(Protocol):
    """An open database. In statements, ``?`` stands for a value."""

    def read(self, query: str, values: Sequence[Any]) -> list[Row]:
        """All rows of a query.

        Raises:
            DatabaseError: they cannot be read.
        """
        ...

    def write(self, statement: str, rows: Sequence[Row]) -> None:
        """Run a statement for each row, in one transaction. The statement may run twice, so it must not add up.

        Raises:
            DatabaseError: nothing is written.
        """
        ...

    def shrink(self) -> None:
        """Give the space of removed rows back.

        Raises:
            DatabaseError: it cannot be done.
        """
        ...

    def claim(self) -> bool:
        """Whether no other connection claims to remove old samples; until this one is closed, none will.

        Raises:
            DatabaseError: the database does not answer.
        """
        ...

    def close(self) -> None:
        """Release the database."""
        ...


def is_url(place: Path | str, field: str = "bank") -> bool:
    """Whether this names a Postgres database and not a file.

    Args:
        place: the text of a user.
        field: how the error names it.

    Raises:
        DatabaseError: it is a URL as a path, which has lost a slash.
        InputError: it is a URL of another kind.
    """
    if not str(place).startswith(SCHEMES):
        if isinstance(place, str) and (scheme := re.match(r"[a-z][a-z0-9+.-]+://", place)):
            raise InputError(field, scheme[0], "give the path of a file, or postgresql://USER@HOST/DATABASE")
        return False
    if isinstance(place, Path):
        raise DatabaseError("a URL is no path; give it as text")
    return True


def shown(place: Path | str) -> str:
    """The name of a bank in messages: a URL is shown without its password and its options."""
    if not str(place).startswith(SCHEMES):
        return str(place)
    scheme, _, rest = str(place).partition(":")
    user, at, address = re.sub("^//?", "", rest).rpartition("@")
    hosts, slash, database = address.partition("?")[0].partition("/")
    hosts = re.sub(r":(?!\d+(,|$))[^,]*", "", hosts)  # what is no port may be a password
    return f"{scheme}://{user.partition(':')[0]}{at}{hosts}{slash}{database}"


@contextmanager
def naming(place: str, field: str = "bank") -> Iterator[None]:
    """Name the bank, or what else is there, in the errors of its database.

    Raises:
        BankError: a `DatabaseError` was raised; an `UnreachableBankError` if the database cannot be reached.
    """
    try:
        yield
    except DatabaseError as error:
        kind = UnreachableBankError if error.unreachable else BankError
        raise kind(f"{field}={place!r}: {error}") from error.__cause__


def one_line(error: BaseException) -> str:
    """The message of an error on one line, without its end if it is long."""
    return " ".join(str(error).split())[:200]


def failed(doing: str, reason: str, fix: str, *, unreachable: bool = False) -> DatabaseError:
    """The error of a bank that cannot be opened, read or written."""
    message = f"cannot {doing} it ({reason}); {fix} and run the same command again; finished samples are kept"
    return DatabaseError(message, unreachable=unreachable)


def unstorable(error: BaseException) -> DatabaseError:
    """The error of a value that the database cannot hold."""
    return DatabaseError(f"cannot store a value ({one_line(error)}); nothing is written")
