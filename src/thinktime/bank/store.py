"""The sample bank: an append-only SQLite file of generations, scores and verdicts, and of the spending of accounts.

The key of a sample is a hash of model, problem, sampling, seed and path. So a killed run resumes without repeating a
finished sample, strategies share samples, and a bank can be replayed without a model.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import IO, Any
from weakref import WeakValueDictionary

from thinktime.bank.lock import lock
from thinktime.core.errors import BankError
from thinktime.core.types import Problem, Score
from thinktime.core.usage import Usage, uncounted

_SCHEMA = """
CREATE TABLE IF NOT EXISTS samples (
    key TEXT PRIMARY KEY, problem TEXT NOT NULL, model TEXT NOT NULL, finish TEXT NOT NULL,
    state TEXT NOT NULL, usage TEXT NOT NULL, passes INTEGER NOT NULL, at REAL DEFAULT (julianday('now')),
    log_weight REAL NOT NULL DEFAULT 0
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS blobs (
    hash TEXT PRIMARY KEY, data BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS readings (
    key TEXT NOT NULL, scorer TEXT NOT NULL, value REAL, steps TEXT NOT NULL, usage TEXT NOT NULL,
    PRIMARY KEY (key, scorer)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS verdicts (
    key TEXT NOT NULL, checker TEXT NOT NULL, correct INTEGER NOT NULL, PRIMARY KEY (key, checker)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS roles (
    kind TEXT NOT NULL, role TEXT NOT NULL, name TEXT NOT NULL, PRIMARY KEY (kind, role, name)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS fingerprints (
    name TEXT PRIMARY KEY, fingerprint TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS provenance (
    name TEXT PRIMARY KEY, record TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS imports (
    header TEXT PRIMARY KEY
);
CREATE TABLE IF NOT EXISTS spending (
    account TEXT PRIMARY KEY, spent TEXT NOT NULL, reserved TEXT NOT NULL
) WITHOUT ROWID;
"""


_OPEN: WeakValueDictionary[tuple[int, int], Bank] = WeakValueDictionary()
"""The open banks of this process by device and inode. To open such a file again and close it would drop SQLite's locks
on it, because POSIX locks belong to a process."""


class Bank:
    """A bank file. One process writes at a time; the file is safe after every call.

    Args:
        path: of the file.
        read_only: only read it, also while another process writes it.

    Raises:
        BankError: the file cannot be opened or is not a bank, it is open already, or a write failed.
    """

    def __init__(self, path: Path | str, *, read_only: bool = False) -> None:
        self.path = Path(path)
        self._lock: IO[bytes] | None = None
        with self._named_errors("open" if not read_only else "read"):
            if read_only:
                self._open_to_read()
                return
            self.path.parent.mkdir(parents=True, exist_ok=True)
            holder = Path(f"{self.path.resolve()}.lock")
            if self.path.exists() and _inode(self.path) in _OPEN:
                raise _in_use(self.path, "this process")
            self._lock = open(self.path, "ab")  # noqa: SIM115  # the lock is on the file itself, whatever leads to it
            try:
                lock(self._lock)
            except BlockingIOError:
                self._lock.close()
                process = (holder.read_text(encoding="utf-8").strip() if holder.exists() else "") or "unknown"
                raise _in_use(self.path, f"process {process}") from None
            try:
                if os.fstat(self._lock.fileno()).st_nlink > 1:  # SQLite keeps unfinished writes in a file by the name
                    raise BankError(
                        f"bank={str(self.path)!r}: the file has several names (hard links), and writes under one name "
                        "may be lost under another; give a copy, or remove the other names"
                    )
                holder.write_text(str(os.getpid()))
                self._db = sqlite3.connect(self.path, isolation_level=None)
                self._db.execute("PRAGMA journal_mode=WAL")
                self._db.execute("PRAGMA synchronous=NORMAL")
                self._db.executescript(_SCHEMA)
                self._db.execute("SELECT key, problem, model, finish, state, usage, passes FROM samples LIMIT 0")
                if "log_weight" not in [row[1] for row in self._db.execute("PRAGMA table_info(samples)")]:
                    self._db.execute("ALTER TABLE samples ADD COLUMN log_weight REAL NOT NULL DEFAULT 0")
                self._db.execute("SELECT key, scorer, value, steps, usage FROM readings LIMIT 0")
                self._db.execute("SELECT key, checker, correct FROM verdicts LIMIT 0")
                self._db.execute("SELECT account, spent, reserved FROM spending LIMIT 0")
            except BaseException:
                self._lock.close()
                raise
            _OPEN[_inode(self.path)] = self

    def _open_to_read(self) -> None:
        if _inode(self.path) in _OPEN:
            raise _in_use(self.path, "this process")
        self._db = sqlite3.connect(f"{self.path.resolve().as_uri()}?mode=ro", uri=True, isolation_level=None)
        try:
            self._db.execute("SELECT key, problem, model, finish, state, usage, passes FROM samples LIMIT 0")
        except BaseException:
            self._db.close()
            raise
        _OPEN[_inode(self.path)] = self

    def __enter__(self) -> Bank:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; then other processes can open it."""
        self._db.close()
        if self._lock is not None:
            self._lock.close()
        for inode in [inode for inode, bank in _OPEN.items() if bank is self]:
            del _OPEN[inode]

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
        noted = self._read("SELECT fingerprint FROM fingerprints WHERE name = ?", name)
        if not noted and name not in (*self.models(), *self.scorers()):
            self._write("INSERT INTO fingerprints (name, fingerprint) VALUES (?, ?)", [(name, fingerprint)])
        elif noted != [(fingerprint,)]:
            of = "other files: a configuration, the tokenizer, the chat template or the engine has changed"
            of = of if noted else "unknown files: the bank is of a version that did not note them"
            raise BankError(
                f"bank={str(self.path)!r}: it has work of {name!r} with {of}; replay it, or give another bank"
            )

    def add_provenance(self, name: str, record: Mapping[str, Any]) -> None:
        """Note the origin, licence, revision and SHA-256 of a model's files, as a JSON object."""
        self._write("INSERT OR REPLACE INTO provenance (name, record) VALUES (?, ?)", [(name, json.dumps(record))])

    def provenance(self) -> dict[str, dict[str, Any]]:
        """What `add_provenance` noted, by the name of the model."""
        return {name: json.loads(record) for name, record in self._read("SELECT name, record FROM provenance")}

    def add_import(self, header: Mapping[str, Any]) -> None:
        """Note the header of an export whose samples were added, as a JSON object."""
        self._write("INSERT OR IGNORE INTO imports (header) VALUES (?)", [(json.dumps(header),)])

    def imports(self) -> list[dict[str, Any]]:
        """What `add_import` noted, in this order."""
        return [json.loads(header) for (header,) in self._read("SELECT header FROM imports ORDER BY rowid")]

    def add_roles(self, kind: str, names: Mapping[str, str]) -> None:
        """Store the role of each model (or scorer, by ``kind``) for the next searches."""
        rows = [(kind, role, name) for role, name in names.items()]
        self._write("INSERT OR IGNORE INTO roles (kind, role, name) VALUES (?, ?, ?)", rows)

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
            sample = {"state": self._with_blobs(json.loads(state)), "finish": str(finish), "usage": counts}
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
            self._write("INSERT OR IGNORE INTO blobs (hash, data) VALUES (?, ?)", list(blobs.items()))
        self._write(
            "INSERT OR IGNORE INTO samples (key, problem, model, finish, state, usage, passes, log_weight) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            rows,
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
            raise BankError(f"bank={str(self.path)!r}: the blob {state[_BLOB]} is missing; take a copy that has it")
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
        return str(self._read("SELECT date(max(at)) FROM samples WHERE model = ?", model)[0][0])

    def fingerprint(self, name: str) -> str | None:
        """What `bind` noted under a name."""
        rows = self._read("SELECT fingerprint FROM fingerprints WHERE name = ?", name)
        return str(rows[0][0]) if rows else None

    def add_scores(self, scorer: str, scores: Sequence[tuple[str, Score]]) -> None:
        """Bank scores in one transaction; an existing key keeps its first score."""
        rows = [(key, scorer, r.value, json.dumps(r.steps), json.dumps(r.usage.as_dict())) for key, r in scores]
        self._write("INSERT OR IGNORE INTO readings (key, scorer, value, steps, usage) VALUES (?, ?, ?, ?, ?)", rows)

    def add_verdict(self, key: str, checker: str, correct: bool) -> None:
        """Bank whether a sample's answer is right according to the named checker."""
        self._write(
            "INSERT OR IGNORE INTO verdicts (key, checker, correct) VALUES (?, ?, ?)", [(key, checker, correct)]
        )

    def verdicts(self, checker: str) -> dict[str, bool]:
        """All verdicts of a checker, by sample key."""
        rows = self._read("SELECT key, correct FROM verdicts WHERE checker = ?", checker)
        return {key: bool(correct) for key, correct in rows}

    def keep_spending(self, account: str, spent: Usage, reserved: Usage) -> None:
        """Store an account's spent usage, and its reserved usage for running calls."""
        rows = [(account, *(json.dumps(usage.as_dict()) for usage in (spent, reserved)))]
        self._write("INSERT OR REPLACE INTO spending (account, spent, reserved) VALUES (?, ?, ?)", rows)

    def spending(self) -> dict[str, Usage]:
        """The spent usage of each account. Usage reserved when a process ended counts as spent, and as uncounted."""
        found = {}
        for account, *usages in self._read("SELECT account, spent, reserved FROM spending ORDER BY account"):
            with self._readable(account):
                spent, reserved = (Usage.from_dict(json.loads(usage)) for usage in usages)
                found[account] = spent + uncounted(reserved)
        return found

    def _read(self, query: str, *values: str) -> list[tuple[Any, ...]]:
        with self._named_errors("read"):
            return self._db.execute(query, values).fetchall()

    def _write(self, statement: str, rows: Sequence[tuple[Any, ...]]) -> None:
        with self._named_errors("write"):
            self._db.execute("BEGIN IMMEDIATE")
            try:
                self._db.executemany(statement, rows)
                self._db.execute("COMMIT")
            except BaseException:  # a transaction that stays open would fail every later write
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise

    @contextmanager
    def _named_errors(self, doing: str) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            reason = " ".join(str(error).split())[:200]
            fix = "free some space" if "full" in reason else "give a writable path with --bank"
            fix = "take a copy that is whole, or give another --bank" if doing == "read" else fix
            raise BankError(
                f"bank={str(self.path)!r}: cannot {doing} it ({reason}); {fix} and run the same command again; "
                "finished samples are kept"
            ) from error
        except (UnicodeError, OverflowError) as error:
            reason = str(error).replace("\n", " ")
            raise BankError(f"bank={str(self.path)!r}: cannot store a value ({reason}); nothing is written") from error

    @contextmanager
    def _readable(self, key: str) -> Iterator[None]:
        """Name the row if its values have another form."""
        try:
            yield
        except (KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
            reason = " ".join(str(error).split())[:200]
            raise BankError(
                f"bank={str(self.path)!r}: cannot read the row of {key!r} ({reason}); take a whole copy of the bank, "
                "or the version that wrote it"
            ) from error


_BLOB = "$blob"


def _without_blobs(state: Any, blobs: dict[str, bytes]) -> Any:
    """A state as JSON values: its bytes are moved to ``blobs`` and replaced by their hashes."""
    if isinstance(state, bytes):
        name = hashlib.blake2b(state, digest_size=16).hexdigest()
        blobs[name] = state
        return {_BLOB: name}
    return {name: _without_blobs(value, blobs) for name, value in state.items()} if isinstance(state, dict) else state


def _inode(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_dev, found.st_ino


def _in_use(path: Path, by: str) -> BankError:
    return BankError(f"bank={str(path)!r}: {by} is using it; wait for it, or give another --bank")
