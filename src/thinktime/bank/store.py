"""The sample bank: a store of generations, scores and verdicts, and of the spending of accounts.

The key of a sample is a hash of model, problem, sampling, seed and path. So a killed run resumes without repeating a
finished sample, strategies share samples, and a bank can be replayed without a model.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from math import inf
from pathlib import Path
from types import TracebackType
from typing import Any

from thinktime.bank.database import Database, Row, is_url, naming, shown
from thinktime.core.errors import BankError
from thinktime.core.types import Problem, Score
from thinktime.core.usage import Usage, uncounted

ALL = "(all)"
"""The account of the sum of all others, where several processes keep one."""
_SHARED_TABLES: Mapping[str, Sequence[str]] = {
    "fingerprints": ("name", "fingerprint"),
    "provenance": ("name", "record"),
    "roles": ("kind", "role", "name"),
    "imports": ("header",),
    "blobs": ("hash", "data"),
    "samples": ("key", "problem", "model", "finish", "state", "usage", "passes", "at", "log_weight"),
    "readings": ("key", "scorer", "value", "steps", "usage"),
    "verdicts": ("key", "checker", "correct"),
}
"""The tables that another bank can take over, with their columns. What accounts have spent is not among them."""
_UNIX_EPOCH = 2440587.5
"""The Julian day of 1970-01-01."""
_YOUNG_DAYS = 1 / 24
"""Bytes without a sample stay for so long: a sample follows its bytes within seconds."""
_AT_ONCE = 100
"""Samples that one transaction removes. Others wait for it."""


class Bank:
    """A bank: an SQLite file, which one process writes at a time, or a Postgres database, which many do.

    It is safe after every call.

    Args:
        place: the path of a file, or ``postgresql://USER@HOST/DATABASE``.
        read_only: only read it; a file may then be written by another process.
        beside: this process has the bank open already; this is another connection to it, for another thread. It has to
            be closed first.
        waits: seconds before each new try of a call that lost its connection to Postgres; by default three in 2.5 s.

    Raises:
        BankError: the bank cannot be opened or is none, the file is open already, or a write failed.
    """

    def __init__(
        self,
        place: Path | str,
        *,
        read_only: bool = False,
        beside: bool = False,
        waits: Sequence[float] | None = None,
    ) -> None:
        self.place = shown(place)
        """How messages name it; without a password."""
        with naming(self.place):
            self._db = _opened(place, read_only, beside, waits)

    def __enter__(self) -> Bank:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Release the bank; then other processes can open its file."""
        self._db.close()

    def __len__(self) -> int:
        return int(self._read("SELECT count(*) FROM samples")[0][0])

    def models(self) -> list[str]:
        """The names of the generators with samples in this bank."""
        return [row[0] for row in self._read("SELECT DISTINCT model FROM samples ORDER BY model")]

    def scorers(self) -> list[str]:
        """The names of the scorers with scores in this bank."""
        return [row[0] for row in self._read("SELECT DISTINCT scorer FROM readings ORDER BY scorer")]

    def problems(self) -> set[str]:
        """The ids of the problems that have samples."""
        return {problem for (problem,) in self._read("SELECT DISTINCT problem FROM samples")}

    def bind(self, name: str, fingerprint: str) -> None:
        """Note what decides the samples of a local model, or the scores of a scorer: its files and its engine.

        Raises:
            BankError: samples or scores under this name are of other files, or the bank is older than fingerprints.
        """
        query = "SELECT fingerprint FROM fingerprints WHERE name = ?"
        noted = self._read(query, name)
        if not noted:
            if name not in (*self.models(), *self.scorers()):
                row = (name, fingerprint)
                self.write("INSERT INTO fingerprints (name, fingerprint) VALUES (?, ?) ON CONFLICT DO NOTHING", [row])
            noted = self._read(query, name)  # another process may have been faster
        if noted != [(fingerprint,)]:
            of = "other files: a configuration, the tokenizer, the chat template or the engine has changed"
            of = of if noted else "unknown files: the bank is of a version that did not note them"
            raise BankError(f"bank={self.place!r}: it has work of {name!r} with {of}; replay it, or give another bank")

    def add_provenance(self, name: str, record: Mapping[str, Any]) -> None:
        """Note the origin, licence, revision and SHA-256 of a model's files, as a JSON object."""
        self.write(
            "INSERT INTO provenance (name, record) VALUES (?, ?) "
            "ON CONFLICT (name) DO UPDATE SET record = excluded.record",
            [(name, json.dumps(record))],
        )

    def provenance(self) -> dict[str, dict[str, Any]]:
        """What `add_provenance` noted, by the name of the model."""
        return {name: json.loads(record) for name, record in self._read("SELECT name, record FROM provenance")}

    def add_import(self, header: Mapping[str, Any]) -> None:
        """Note the header of an export whose samples were added, as a JSON object."""
        self.write("INSERT INTO imports (header) VALUES (?) ON CONFLICT DO NOTHING", [(json.dumps(header),)])

    def imports(self) -> list[dict[str, Any]]:
        """What `add_import` noted, in this order."""
        return [json.loads(header) for (header,) in self._read("SELECT header FROM imports ORDER BY rowid")]

    def add_roles(self, kind: str, names: Mapping[str, str]) -> None:
        """Store the role of each model (or scorer, by ``kind``) for the next searches."""
        rows = [(kind, role, name) for role, name in names.items()]
        self.write("INSERT INTO roles (kind, role, name) VALUES (?, ?, ?) ON CONFLICT DO NOTHING", rows)

    def roles(self, kind: str) -> dict[str, list[str]]:
        """The names of the models (or scorers) by role."""
        found: dict[str, list[str]] = {}
        for role, name in self._read("SELECT role, name FROM roles WHERE kind = ? ORDER BY role, name", kind):
            found.setdefault(role, []).append(name)
        return found

    def find_sample(self, key: str) -> Mapping[str, Any] | None:
        """The banked sample of this key: ``state``, ``finish``, ``usage``, ``passes`` and ``log_weight``.

        Raises:
            BankError: it cannot be read.
        """
        rows = self._read("SELECT state, finish, usage, passes, log_weight FROM samples WHERE key = ?", key)
        if not rows:
            return None
        state, finish, usage, passes, log_weight = rows[0]
        with self._readable(key):
            counts = Usage.from_dict(json.loads(usage)).as_dict()
            try:
                whole = self._with_blobs(json.loads(state))
            except BankError:
                if self._read("SELECT key FROM samples WHERE key = ?", key):
                    raise
                return None  # it was removed since the first query, and then its bytes
            sample = {"state": whole, "finish": str(finish), "usage": counts}
            return sample | {"passes": int(passes), "log_weight": float(log_weight)}

    def samples_of(self, problem: str) -> list[dict[str, Any]]:
        """Every banked sample of a problem, by key.

        Raises:
            BankError: one cannot be read.
        """
        rows = self._read("SELECT key, state, finish FROM samples WHERE problem = ? ORDER BY key", problem)
        found = []
        for key, state, finish in rows:
            with self._readable(key):
                found.append({"key": key, "state": self._with_blobs(json.loads(state)), "finish": str(finish)})
        return found

    def add_samples(self, problem: Problem, model: str, samples: Sequence[tuple[str, Mapping[str, Any]]]) -> None:
        """Bank finished samples in one transaction; an existing key keeps its first sample.

        Bytes in a state become blobs under the hash of their content, so equal bytes are stored once.
        """
        blobs: dict[str, bytes] = {}
        rows = [
            (
                *(key, problem.id, model, s["finish"], json.dumps(_without_blobs(s["state"], blobs))),
                *(json.dumps(s["usage"]), s["passes"], s.get("log_weight", 0.0)),
            )
            for key, s in samples
        ]
        if blobs:
            self._add_blobs(list(blobs.items()))
        self.write(
            "INSERT INTO samples (key, problem, model, finish, state, usage, passes, log_weight) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
            rows,
        )

    def _add_blobs(self, blobs: Sequence[Row]) -> None:
        """Store bytes by their hash. Bytes that are there get the time of now, so that nobody removes them."""
        self.write(
            "INSERT INTO blobs (hash, data, at) VALUES (?, ?, ?) ON CONFLICT (hash) DO UPDATE SET at = excluded.at",
            [(name, data, _today()) for name, data in blobs],
        )

    def _with_blobs(self, state: Any) -> Any:
        """A state with its bytes instead of their hashes.

        Raises:
            BankError: a blob is missing.
        """
        if not isinstance(state, dict):
            return state
        if set(state) != {_BLOB}:
            return {name: self._with_blobs(value) for name, value in state.items()}
        rows = self._read("SELECT data FROM blobs WHERE hash = ?", str(state[_BLOB]))
        if not rows:
            raise BankError(f"bank={self.place!r}: the blob {state[_BLOB]} is missing; take a copy that has it")
        return rows[0][0]

    def find_score(self, key: str, scorer: str) -> Score | None:
        """The banked score of this key by this scorer, or None.

        Raises:
            BankError: it cannot be read.
        """
        rows = self._read("SELECT value, steps, usage FROM readings WHERE key = ? AND scorer = ?", key, scorer)
        if not rows:
            return None
        value, steps, usage = rows[0]
        with self._readable(key):
            parts = tuple(map(float, json.loads(steps)))
            return Score(None if value is None else float(value), Usage.from_dict(json.loads(usage)), parts)

    def scores(self, scorer: str) -> list[tuple[str, Score]]:
        """All banked scores of a scorer with their keys.

        Raises:
            BankError: one cannot be read.
        """
        keys = self._read("SELECT key FROM readings WHERE scorer = ? ORDER BY key", scorer)
        found = ((key, self.find_score(key, scorer)) for (key,) in keys)
        return [(key, score) for key, score in found if score is not None]

    def last_day(self, model: str) -> str:
        """The day of the newest sample of a model, as ``2026-11-30``."""
        newest = self._read("SELECT max(at) FROM samples WHERE model = ?", model)[0][0]
        return str(newest and datetime.fromtimestamp((newest - _UNIX_EPOCH) * 86_400, UTC).date())

    def fingerprint(self, name: str) -> str | None:
        """What `bind` noted under a name."""
        rows = self._read("SELECT fingerprint FROM fingerprints WHERE name = ?", name)
        return str(rows[0][0]) if rows else None

    def add_scores(self, scorer: str, scores: Sequence[tuple[str, Score]]) -> None:
        """Bank scores in one transaction; an existing key keeps its first score."""
        rows = [(key, scorer, r.value, json.dumps(r.steps), json.dumps(r.usage.as_dict())) for key, r in scores]
        self.write(
            "INSERT INTO readings (key, scorer, value, steps, usage) VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
            rows,
        )

    def add_verdict(self, key: str, checker: str, correct: bool) -> None:
        """Bank whether a sample's answer is right according to the named checker."""
        self.write(
            "INSERT INTO verdicts (key, checker, correct) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
            [(key, checker, int(correct))],
        )

    def verdicts(self, checker: str) -> dict[str, bool]:
        """All verdicts of a checker, by sample key."""
        rows = self._read("SELECT key, correct FROM verdicts WHERE checker = ?", checker)
        return {key: bool(correct) for key, correct in rows}

    def keep_spending(self, account: str, spent: Usage, reserved: Usage) -> None:
        """Store an account's spent usage, and its reserved usage for running calls."""
        rows = [(account, *(json.dumps(usage.as_dict()) for usage in (spent, reserved)))]
        self.write(
            "INSERT INTO spending (account, spent, reserved) VALUES (?, ?, ?) "
            "ON CONFLICT (account) DO UPDATE SET spent = excluded.spent, reserved = excluded.reserved",
            rows,
        )

    def spending(self) -> dict[str, Usage]:
        """The spent usage of each account. Usage reserved when a process ended counts as spent, and as uncounted."""
        found = {}
        query = "SELECT account, spent, reserved FROM spending WHERE account <> ? ORDER BY account"
        for account, *usages in self._read(query, ALL):
            with self._readable(account):
                spent, reserved = (Usage.from_dict(json.loads(usage)) for usage in usages)
                found[account] = spent + uncounted(reserved)
        return found

    def contents(self) -> dict[str, list[Row]]:
        """Everything but the accounts, as rows by table for `add_contents`."""
        return {
            table: self._read(f"SELECT {', '.join(columns)} FROM {table}") for table, columns in _SHARED_TABLES.items()
        }

    def add_contents(self, contents: Mapping[str, Sequence[Row]]) -> None:
        """Add what another bank holds; an existing key keeps its first row.

        Raises:
            BankError: samples or scores under one name come from other files than those of this bank.
        """
        for name, fingerprint in contents["fingerprints"]:
            self.bind(name, fingerprint)
        self._add_blobs(contents["blobs"])
        for table, columns in _SHARED_TABLES.items():
            if table == "blobs":
                continue
            values = ", ".join("?" * len(columns))
            insert = f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({values}) ON CONFLICT DO NOTHING"
            self.write(insert, contents[table])

    def compact(self, days: float | None = None, size: int | None = None) -> int:
        """Remove the oldest samples with their scores and verdicts, and give the space back.

        Accounts, and the names and files of models, stay.

        Args:
            days: samples that are older are removed.
            size: then the oldest ones are removed until the states of the others have at most so many bytes.

        Returns:
            How many samples are removed.

        Raises:
            BankError: they cannot be removed.
        """
        removed = sum(self.remove_old(days, size))
        with naming(self.place):
            self._db.shrink()
        return removed

    def remove_old(self, days: float | None = None, size: int | None = None) -> Iterator[int]:
        """Remove samples as `compact` does, in short transactions; the space is free for later samples.

        Args:
            days, size: as of `compact`.

        Yields:
            How many samples each transaction has removed.

        Raises:
            BankError: they cannot be removed.
        """
        oldest = -inf if days is None else _today() - days
        # the database sums up, so that millions of samples to keep take no memory here
        sums = "SELECT key, at, sum(length(state)) OVER (ORDER BY at DESC, key) AS kept FROM samples"
        limits = oldest, inf if size is None else size
        removed = self._read(f"SELECT key FROM ({sums}) AS s WHERE at < ? OR kept > ? ORDER BY at, key", *limits)
        for start in range(0, len(removed), _AT_ONCE):
            keys = removed[start : start + _AT_ONCE]
            for table in ("readings", "verdicts", "samples"):
                self.write(f"DELETE FROM {table} WHERE key = ?", keys)
            yield len(keys)
        yield from self._remove_blobs()

    def _remove_blobs(self) -> Iterator[int]:
        """Remove bytes without a sample. Young ones stay: a process may be about to write their sample.

        Yields:
            0 after each transaction: no sample is removed.
        """
        written_before = _today() - _YOUNG_DAYS
        old = {name for (name,) in self._read("SELECT hash FROM blobs WHERE at < ?", written_before)}
        if not old:
            return
        for (state,) in self._read("SELECT state FROM samples WHERE state LIKE ?", f"%{_BLOB}%"):
            old.difference_update(_BLOBS.findall(state))
        unneeded = [(name, written_before) for name in sorted(old)]
        for start in range(0, len(unneeded), _AT_ONCE):
            # the time again: a process may have written the same bytes meanwhile
            self.write("DELETE FROM blobs WHERE hash = ? AND at < ?", unneeded[start : start + _AT_ONCE])
            yield 0

    def claim(self) -> bool:
        """Whether no other process removes old samples; until this bank is closed, none will.

        Raises:
            BankError: the database does not answer.
        """
        with naming(self.place):
            return self._db.claim()

    def write(self, statement: str, rows: Sequence[Row]) -> None:
        """Run a statement for each row, in one transaction. All changes of a bank go through this method.

        The statement may run twice, and another bank may repeat it, so it must not add up.

        Raises:
            BankError: nothing is written.
        """
        with naming(self.place):
            self._db.write(statement, rows)

    def _read(self, query: str, *values: str | float) -> list[Row]:
        with naming(self.place):
            return self._db.read(query, values)

    @contextmanager
    def _readable(self, key: str) -> Iterator[None]:
        """Name the row if its values have another form."""
        try:
            yield
        except (KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
            reason = " ".join(str(error).split())[:200]
            raise BankError(
                f"bank={self.place!r}: cannot read the row of {key!r} ({reason}); take a whole copy of the bank, "
                "or the version that wrote it"
            ) from error


def _today() -> float:
    """This moment as a Julian day."""
    return time.time() / 86_400 + _UNIX_EPOCH


_BLOB = "$blob"
_BLOBS = re.compile(r'"\$blob": "([0-9a-f]+)"')


def _without_blobs(state: Any, blobs: dict[str, bytes]) -> Any:
    """A state as JSON values: its bytes are moved to ``blobs`` and replaced by their hashes."""
    if isinstance(state, bytes):
        name = hashlib.blake2b(state, digest_size=16).hexdigest()
        blobs[name] = state
        return {_BLOB: name}
    return {name: _without_blobs(value, blobs) for name, value in state.items()} if isinstance(state, dict) else state


def _opened(place: Path | str, read_only: bool, beside: bool, waits: Sequence[float] | None) -> Database:
    if is_url(place):
        from thinktime.bank.postgres import PostgresDatabase

        return PostgresDatabase(str(place), read_only=read_only, waits=waits)
    from thinktime.bank.sqlite import SqliteFile

    return SqliteFile(Path(place), read_only=read_only, beside=beside)
