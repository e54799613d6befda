"""The bank: safe after every call, one process at a time, and enough to replay a run without models."""

from __future__ import annotations

import json
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from commands import ran
from postgres_server import PostgresServer
from toy import PROBLEM, ToyGenerator, ToyScorer, configured, done, drawn, extend, solve, toy_search

from thinktime.bank.sqlite import SqliteFile
from thinktime.bank.store import Bank
from thinktime.core.errors import BankError, InputError, ModelError
from thinktime.core.trace import Answer
from thinktime.core.types import Capability, Score
from thinktime.core.usage import Budget, Usage
from thinktime.generators.recorded import BankedGenerator
from thinktime.scorers.recorded import BankedScorer
from thinktime.strategies import BUILT_IN, make
from thinktime.testing import rambling

USAGE = Usage(prompt_tokens=5, generated_tokens=2, model_calls=1, flops=1e17 + 2, seconds=0.1, dollars=None)


def sample(text: str, size: int = 0) -> dict[str, Any]:
    state = {"text": text + "." * size, "ids": [1, 2], "logprob": -0.1}
    return {"state": state, "finish": "eos", "usage": USAGE.as_dict(), "passes": 2, "log_weight": 0.0}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "bank.db"


@pytest.fixture(params=["sqlite", "postgres"])
def place(request: pytest.FixtureRequest, path: Path) -> Path | str:
    """Where a new bank can be made, in each of the stores."""
    return path if request.param == "sqlite" else str(request.getfixturevalue("postgres").bank())


@pytest.fixture
def bank(place: Path | str) -> Iterator[Bank]:
    """A new bank in each of the stores."""
    with Bank(place) as opened:
        yield opened


@pytest.fixture
def file(path: Path) -> Iterator[Bank]:
    """A new bank in a file."""
    with Bank(path) as opened:
        yield opened


# Round trips


def test_a_sample_is_returned_as_it_was_stored(bank: Bank) -> None:
    bank.add_samples(PROBLEM, "toy", [("k", sample("\u221a2 \u2260 \U0001f642\n"))])
    found = bank.find_sample("k")
    assert found == sample("\u221a2 \u2260 \U0001f642\n")
    assert found is not None and Usage(**found["usage"]) == USAGE


# Compacting


def aged(bank: Bank, days: Mapping[str, float]) -> None:
    """Samples of these ages, each with a score, a verdict and bytes of its own."""
    states = {key: {"text": key * 50, "picture": key.encode() * 9} for key in days}
    rows = {key: {"finish": "eos", "usage": USAGE.as_dict(), "passes": 1, "log_weight": 0.0} for key in days}
    bank.add_samples(PROBLEM, "toy", [(key, {"state": states[key], **rows[key]}) for key in days])
    bank.add_scores("judge", [(key, Score(0.5, USAGE)) for key in days])
    for key in days:
        bank.add_verdict(key, "checker", True)
    bank.write("UPDATE samples SET at = at - ? WHERE key = ?", [(age, key) for key, age in days.items()])
    bank.write("UPDATE blobs SET at = at - ?", [(1,)])
    bank.keep_spending("client", USAGE, Usage())


def left(bank: Bank) -> str:
    """The keys of all samples; scores, verdicts and blobs have to be theirs."""
    keys = [row[0] for row in bank._read("SELECT key FROM samples ORDER BY key")]
    assert [key for key, _ in bank.scores("judge")] == sorted(bank.verdicts("checker")) == keys
    assert {row[0] for row in bank._read("SELECT data FROM blobs")} == {key.encode() * 9 for key in keys}
    assert bank.spending().keys() == {"client"}
    return "".join(keys)


@pytest.mark.parametrize(
    ("limits", "kept"),
    [
        ({"days": 4.5}, "abcd"),
        ({"days": 2.5}, "ab"),
        ({"days": 0.5}, ""),
        ({"size": 10**6}, "abcd"),
        ({"size": 320}, "ab"),  # a state has about 120 bytes
        ({"size": 0}, ""),
        ({"days": 3.5, "size": 200}, "a"),
    ],
)
def test_compacting_removes_the_oldest_samples_with_all_that_is_theirs(
    bank: Bank, limits: dict[str, Any], kept: str
) -> None:
    aged(bank, {"c": 3, "a": 1, "d": 4, "b": 2})
    assert bank.compact(**limits) == 4 - len(kept)
    assert left(bank) == kept
    assert bank.compact(**limits) == 0, "nothing is left to remove"


def test_compacting_keeps_bytes_whose_sample_another_process_has_yet_to_write(bank: Bank) -> None:
    aged(bank, {"a": 1, "b": 2})
    bank.write("INSERT INTO blobs (hash, data) VALUES (?, ?)", [("early", b"a picture")])
    assert bank.compact(days=1.5) == 1
    assert {row[0] for row in bank._read("SELECT data FROM blobs")} == {b"a" * 9, b"a picture"}


def test_compacting_keeps_bytes_that_another_sample_is_about_to_have(bank: Bank, place: Path | str) -> None:
    aged(bank, {"a": 1, "b": 2})
    with Bank(place, beside=True) as other:
        removing = other.remove_old(days=1.5)
        assert next(removing) == 1
        bank._add_blobs(bank._read("SELECT hash, data FROM blobs"))  # the same bytes again; the sample is to come
        assert list(removing) == []
    assert {row[0] for row in bank._read("SELECT data FROM blobs")} == {b"a" * 9, b"b" * 9}
    bank.write("UPDATE blobs SET at = at - ?", [(1,)])
    assert bank.compact(days=1.5) == 0
    assert left(bank) == "a", "bytes that no sample came for go later"


def test_a_sample_that_is_removed_while_it_is_read_is_not_found(bank: Bank, monkeypatch: pytest.MonkeyPatch) -> None:
    aged(bank, {"a": 1, "b": 2})
    whole = Bank._with_blobs

    def removed_first(self: Bank, state: Any) -> Any:
        self.compact(days=1.5)
        return whole(self, state)

    monkeypatch.setattr(Bank, "_with_blobs", removed_first)
    assert bank.find_sample("b") is None
    found = bank.find_sample("a")
    assert found is not None and found["state"]["picture"] == b"a" * 9


def test_bytes_of_an_older_bank_are_kept_and_removed_as_others(bank: Bank, place: Path | str) -> None:
    aged(bank, {"a": 1, "b": 2})
    bank.write("ALTER TABLE blobs DROP COLUMN at", [()])
    bank.close()
    with Bank(place) as opened:
        assert opened.compact(days=1.5) == 1
        assert left(opened) == "a"


def test_one_connection_at_a_time_removes_old_samples(postgres: PostgresServer) -> None:
    place = postgres.bank()
    with Bank(place) as bank:
        assert bank.claim()
        with Bank(place) as other:
            assert not other.claim()
    with Bank(place) as bank:
        assert bank.claim()


def test_a_bank_is_compacted_by_a_command_and_its_file_gets_smaller(path: Path) -> None:
    with Bank(path) as bank:
        bank.add_samples(PROBLEM, "toy", [(f"{number}", sample("x", 4000)) for number in range(300)])
    before = path.stat().st_size
    code, out, _ = ran("bank", "compact", str(path), "--larger-than", "100KB", "--json")
    found = json.loads(out)
    assert code == 0 and found["removed"] + found["samples"] == 300 and 20 <= found["samples"] <= 25
    assert path.stat().st_size < before / 4


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ([], "older_than=None: give --older-than, --larger-than or both"),
        (["--older-than", "soon"], "older_than='soon': give a number and a unit of h, d, w, as 30d"),
        (["--older-than", "-3d"], "older_than='-3d': give a number and a unit"),
        (["--larger-than", "2"], "larger_than='2': give a number and a unit of KB, MB, GB, as 2GB"),
    ],
)
def test_a_limit_that_cannot_be_read_is_refused_before_anything_is_removed(
    path: Path, words: list[str], reason: str
) -> None:
    with Bank(path) as bank:
        bank.add_samples(PROBLEM, "toy", [("k", sample("x"))])
    code, _, errors = ran("bank", "compact", str(path), *words)
    assert (code, errors.count("\n")) == (2, 1) and reason in errors
    with Bank(path) as bank:
        assert len(bank) == 1


# States with bytes


def test_bytes_of_a_state_are_blobs_by_their_content_and_equal_ones_are_stored_once(path: Path) -> None:
    states = {"a": {"numbers": b"\x00\xff" * 99, "position": 1}, "b": {"deep": {"numbers": b"\x00\xff" * 99}}}
    row = {"finish": "step", "usage": Usage().as_dict(), "passes": 1, "log_weight": -0.25}
    with Bank(path) as bank:
        bank.add_samples(PROBLEM, "toy", [(key, row | {"state": state}) for key, state in states.items()])
    with Bank(path) as bank:
        for key, state in states.items():
            found = bank.find_sample(key)
            assert found is not None and (found["state"], found["log_weight"]) == (state, -0.25)
    with sqlite3.connect(path) as raw:
        assert raw.execute("SELECT count(*), length(max(data)) FROM blobs").fetchone() == (1, 198)
        raw.execute("DELETE FROM blobs")
    raw.close()
    with Bank(path) as bank, pytest.raises(BankError, match=r"the blob [0-9a-f]{32} is missing"):
        bank.find_sample("a")


def test_a_bank_from_before_log_weights_opens_and_gives_0(path: Path) -> None:
    with Bank(path) as bank:
        bank.add_samples(PROBLEM, "toy", [("a", {"state": {}, "finish": "eos", "usage": {}, "passes": 1})])
    with sqlite3.connect(path) as raw:
        raw.execute("ALTER TABLE samples DROP COLUMN log_weight")
    raw.close()
    with Bank(path) as bank:
        assert (bank.find_sample("a") or {})["log_weight"] == 0


def test_a_score_is_returned_as_it_was_stored_and_a_missing_score_stays_missing(bank: Bank) -> None:
    scored, missing = Score(0.1, USAGE, (0.3, 0.1)), Score(None, USAGE)
    bank.add_scores("prm", [("a", scored), ("b", missing)])
    assert bank.find_score("a", "prm") == scored
    assert bank.find_score("b", "prm") == missing


def test_verdicts_are_returned_by_checker(bank: Bank) -> None:
    bank.add_verdict("a", "exact", True)
    bank.add_verdict("b", "exact", False)
    bank.add_verdict("a", "lenient", False)
    assert bank.verdicts("exact") == {"a": True, "b": False}
    assert bank.verdicts("unknown") == {}


def test_names_files_and_origins_are_returned_as_they_were_noted(bank: Bank) -> None:
    bank.add_roles("model", {"main": "b", "draft": "a"})
    bank.add_roles("model", {"main": "a"})
    assert (bank.roles("model"), bank.roles("scorer")) == ({"draft": ["a"], "main": ["a", "b"]}, {})
    bank.bind("a", "files")
    bank.bind("a", "files")
    with pytest.raises(BankError, match="it has work of 'a' with other files"):
        bank.bind("a", "other files")
    assert (bank.fingerprint("a"), bank.fingerprint("b")) == ("files", None)
    bank.add_provenance("a", {"licence": "mit"})
    bank.add_provenance("a", {"licence": "apache"})
    assert bank.provenance() == {"a": {"licence": "apache"}}
    for header in ({"n": 2}, {"n": 1, "shots": "x" * 10_000}, {"n": 2}):
        bank.add_import(header)
    assert [header["n"] for header in bank.imports()] == [2, 1]
    bank.keep_spending("ann", USAGE, Usage())
    bank.keep_spending("ann", USAGE, Usage(generated_tokens=3, model_calls=2))
    assert bank.spending() == {"ann": USAGE + Usage(generated_tokens=3, model_calls=2, uncounted_calls=2)}


def test_keys_are_sorted_by_their_characters_and_may_be_long(bank: Bank) -> None:
    keys = ["B", "a", "_", "é", "b" * 9_000]
    bank.add_scores("judge", [(key, Score(0.5, USAGE)) for key in keys])
    bank.add_scores("judge", [(key, Score(0.9, USAGE)) for key in keys])
    assert bank.scores("judge") == [(key, Score(0.5, USAGE)) for key in sorted(keys)]


def test_the_last_day_is_that_of_the_newest_sample(bank: Bank) -> None:
    before = datetime.now(UTC).date()
    bank.add_samples(PROBLEM, "toy", [("k", sample("so 7"))])
    assert bank.last_day("toy") in {str(before), str(datetime.now(UTC).date())}


def test_a_missing_row_is_none(bank: Bank) -> None:
    bank.add_samples(PROBLEM, "toy", [("k", sample("so 7"))])
    bank.add_scores("prm", [("k", Score(0.5, USAGE))])
    assert bank.find_sample("other") is None
    assert bank.find_score("other", "prm") is None
    assert bank.find_score("k", "other") is None


def test_the_bank_counts_its_samples_and_lists_their_models(bank: Bank) -> None:
    assert (len(bank), bank.models(), bank.scorers()) == (0, [], [])
    bank.add_samples(PROBLEM, "b", [("1", sample("x")), ("2", sample("y"))])
    bank.add_samples(PROBLEM, "a", [("3", sample("z"))])
    bank.add_scores("prm", [("1", Score(0.5, USAGE)), ("2", Score(0.5, USAGE))])
    assert (len(bank), bank.models(), bank.scorers()) == (3, ["a", "b"], ["prm"])


def test_the_samples_of_a_problem_are_found_by_its_id(bank: Bank) -> None:
    bank.add_samples(PROBLEM, "toy", [("2", sample("y")), ("1", sample("x"))])
    bank.add_samples(replace(PROBLEM, id="other"), "toy", [("3", sample("z"))])
    found = bank.samples_of(PROBLEM.id)
    assert [(row["key"], row["state"]["text"], row["finish"]) for row in found] == [
        ("1", "x", "eos"),
        ("2", "y", "eos"),
    ]


# Append-only


def test_the_first_sample_score_and_verdict_of_a_key_win(bank: Bank) -> None:
    bank.add_samples(PROBLEM, "toy", [("k", sample("first"))])
    bank.add_samples(PROBLEM, "toy", [("k", sample("second")), ("l", sample("new"))])
    bank.add_scores("prm", [("k", Score(0.1, USAGE))])
    bank.add_scores("prm", [("k", Score(0.9, USAGE))])
    bank.add_verdict("k", "exact", True)
    bank.add_verdict("k", "exact", False)
    assert bank.find_sample("k") == sample("first")
    assert bank.find_sample("l") == sample("new"), "an existing key does not prevent new ones"
    assert bank.find_score("k", "prm") == Score(0.1, USAGE)
    assert bank.verdicts("exact") == {"k": True}


# Resuming


def test_a_closed_bank_opens_again_with_everything_in_it(place: Path | str) -> None:
    with Bank(place) as bank:
        bank.add_samples(PROBLEM, "toy", [("k", sample("so 7"))])
        bank.add_scores("prm", [("k", Score(0.5, USAGE, (0.5,)))])
    with Bank(place) as bank:
        assert bank.find_sample("k") == sample("so 7")
        assert bank.find_score("k", "prm") == Score(0.5, USAGE, (0.5,))


def test_a_search_fills_an_empty_bank(bank: Bank) -> None:
    solve(make("best_of_n", {"n": 3}), toy_search(drawn, lambda node: 0.5, journal=bank))
    assert (len(bank), bank.models(), bank.scorers()) == (3, ["toy"], ["toy-scorer"])


def test_a_resumed_run_repeats_no_finished_sample_and_ends_like_an_uninterrupted_one(place: Path | str) -> None:
    strategy = make("weighted_majority", {"n": 6})
    whole = solve(strategy, toy_search(drawn))
    with Bank(place) as bank:
        interrupted = toy_search(drawn, journal=bank)
        extend(interrupted, [interrupted.root], 4)
    generator = ToyGenerator(drawn)
    with Bank(place) as bank:
        resumed = solve(strategy, toy_search(generator, journal=bank))
    assert [extension.index for batch in generator.asked for extension in batch] == [4, 5]
    assert fields_of(resumed) == fields_of(whole)


def test_samples_survive_a_kill_of_the_process(place: Path | str) -> None:
    script = (
        "import os, signal, sys\n"
        "from thinktime.bank.store import Bank\n"
        "from thinktime.core.types import Problem\n"
        "bank = Bank(sys.argv[1])\n"
        "sample = {'state': {'text': 'so 7'}, 'finish': 'eos', 'usage': {}, 'passes': 2}\n"
        "bank.add_samples(Problem('p', ''), 'toy', [('k', sample)])\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    killed = subprocess.run([sys.executable, "-c", script, str(place)], capture_output=True, text=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    with Bank(place) as bank:
        found = bank.find_sample("k")
    assert found is not None and found["state"] == {"text": "so 7"}


# One process at a time


def test_a_second_process_is_refused_in_one_line_that_names_the_first(path: Path) -> None:
    script = (
        "import sys; from thinktime.bank.store import Bank; b = Bank(sys.argv[1]); print('open', flush=True); input()"
    )
    command = [sys.executable, "-c", script, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "open\n"
        with pytest.raises(BankError) as refused:
            Bank(path)
        holder.communicate("\n")
    assert str(refused.value) == (
        f"bank={str(path)!r}: process {holder.pid} is using it; wait for it, or give another --bank"
    )
    with Bank(path) as bank:
        assert len(bank) == 0, "the bank is free when the first process has ended"


def test_a_refused_process_does_not_release_the_bank_of_the_first(path: Path, file: Bank) -> None:
    for _ in range(2):
        with pytest.raises(BankError, match="is using it"):
            Bank(path)
    file.add_samples(PROBLEM, "toy", [("k", sample("so 7"))])
    assert file.find_sample("k") == sample("so 7")


# Faults of files


def connection(bank: Bank) -> sqlite3.Connection:
    assert isinstance(bank._db, SqliteFile)
    return bank._db.connection


def page_limit(bank: Bank, pages: int) -> None:
    connection(bank).execute(f"PRAGMA max_page_count={pages}")


def test_a_full_disk_is_a_one_line_error_and_earlier_rows_are_safe(path: Path) -> None:
    with Bank(path) as bank:
        bank.add_samples(PROBLEM, "toy", [("before", sample("so 7"))])
        page_limit(bank, 1)  # the file cannot grow
        with pytest.raises(BankError, match=r"cannot write it \(.*full\); free some space") as refused:
            bank.add_samples(PROBLEM, "toy", [("small", sample("x")), ("large", sample("x", 100_000))])
        assert "\n" not in str(refused.value) and str(path) in str(refused.value)
        assert bank.find_sample("before") == sample("so 7")
        assert (bank.find_sample("small"), bank.find_sample("large")) == (None, None), (
            "a call writes all of its rows or none"
        )
        page_limit(bank, 1_000_000)
        bank.add_samples(PROBLEM, "toy", [("large", sample("x", 100_000))])
    with Bank(path) as bank:
        assert bank.find_sample("large") == sample("x", 100_000)


def test_a_call_that_fails_halfway_writes_nothing_and_the_bank_stays_usable(bank: Bank) -> None:
    unwritable = sample("so 8") | {"passes": object()}
    with pytest.raises(BankError):
        bank.add_samples(PROBLEM, "toy", [("good", sample("so 7")), ("bad", unwritable)])
    assert len(bank) == 0
    bank.add_samples(PROBLEM, "toy", [("good", sample("so 7"))])
    assert bank.find_sample("good") == sample("so 7")


@pytest.mark.parametrize("bad", [{"passes": 10**30}, {"finish": "\ud800"}])
def test_a_value_that_the_store_cannot_hold_fails_its_own_call_only(bank: Bank, bad: dict[str, object]) -> None:
    with pytest.raises(BankError, match=r"cannot store a value \(.*\); nothing is written") as refused:
        bank.add_samples(PROBLEM, "toy", [("bad", sample("so 8") | bad)])
    assert "\n" not in str(refused.value)
    with pytest.raises(BankError, match="cannot store a value"):
        bank.add_samples(PROBLEM, "half \ud800", [("bad", sample("so 8"))])
    bank.add_samples(PROBLEM, "toy", [("good", sample("so 7"))])
    assert bank.find_sample("good") == sample("so 7") and len(bank) == 1


def test_a_refused_second_opening_in_the_same_process_keeps_the_locks_of_sqlite(path: Path, file: Bank) -> None:
    """Closing any file descriptor of a file drops all POSIX locks that the process has on it."""
    held = (
        "import fcntl, sys; file = open(sys.argv[1], 'r+b')\n"
        "try: fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 510, 0x40000002)\n"  # SQLite's bytes for readers
        "except OSError: print('held')"
    )
    for _ in range(2):
        done = subprocess.run([sys.executable, "-c", held, str(path)], capture_output=True, text=True, check=True)
        assert done.stdout == "held\n"
        with pytest.raises(BankError, match="is using it"):
            Bank(path)


def test_a_link_to_a_bank_is_the_same_bank(path: Path, file: Bank, tmp_path: Path) -> None:
    soft, hard = tmp_path / "soft.db", tmp_path / "hard.db"
    soft.symlink_to(path)
    hard.hardlink_to(path)
    for link in (soft, hard):
        with pytest.raises(BankError, match="is using it"):
            Bank(link)
    file.close()
    hard.unlink()
    with Bank(soft) as again:
        assert len(again) == 0


def test_a_bank_with_several_hard_links_is_refused_because_each_name_has_its_own_journal(path: Path) -> None:
    with Bank(path) as bank:
        bank.add_samples(PROBLEM, "toy", [("k", sample("so 7"))])
        path.with_name("link.db").hardlink_to(path)
    for name in (path, path.with_name("link.db")):
        with pytest.raises(BankError, match=r"several names \(hard links\).*; give a copy, or remove the other names$"):
            Bank(name)
    path.with_name("link.db").unlink()
    with Bank(path) as bank:
        assert len(bank) == 1


def test_a_read_only_bank_is_an_error(file: Bank) -> None:
    connection(file).execute("PRAGMA query_only=ON")
    with pytest.raises(BankError, match=r"cannot write it \(.*readonly.*\); give a writable path with --bank"):
        file.add_samples(PROBLEM, "toy", [("k", sample("so 7"))])


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a folder in which even root may not write")
def test_a_folder_without_write_permission_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BankError, match=r"cannot open it .* give a writable path with --bank"):
        Bank(Path("/proc/self/bank.db"))


def test_a_directory_is_not_a_bank_and_can_be_refused_twice(tmp_path: Path) -> None:
    held = []  # a failed opening whose error is kept does not hold the lock
    for _ in range(2):
        with pytest.raises(BankError, match="cannot open it") as refused:
            Bank(tmp_path)
        held.append(refused)


def test_a_file_where_a_folder_is_needed_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(BankError, match="cannot open it"):
        Bank(tmp_path / "file" / "bank.db")


def test_a_file_that_is_no_bank_is_refused_and_not_changed(path: Path) -> None:
    path.write_text("my notes " * 200)
    with pytest.raises(BankError, match="cannot open it"):
        Bank(path)
    assert path.read_text() == "my notes " * 200


def test_another_program_s_database_is_refused(path: Path) -> None:
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE samples (id INTEGER, blood_pressure REAL)")
    other.close()
    with pytest.raises(BankError, match="cannot open it"):
        Bank(path)


def overwritten(path: Path, statement: str, *values: object) -> Bank:
    """A bank with one sample and one score, of which another program changed something."""
    with Bank(path) as bank:
        bank.add_samples(PROBLEM, "toy", [("k", sample("a"))])
        bank.add_scores("s", [("k", Score(0.5, USAGE, (0.5,)))])
    with sqlite3.connect(path) as other:
        other.execute(statement, values)
    other.close()
    return Bank(path)


DEEP = '{"a":' * 100_000 + "1" + "}" * 100_000
LEVELS = 900 if sys.version_info < (3, 12) else 1100  # since Python 3.12 a comprehension is no call of its own
RATHER_DEEP = '{"a":' * LEVELS + "1" + "}" * LEVELS


@pytest.mark.parametrize(
    ("column", "value", "reason"),
    [
        ("state", "{", ""),
        ("state", DEEP, ""),
        ("state", RATHER_DEEP, "recursion"),
        ("usage", '{"joules": 3}', "joules=3"),
        ("usage", "[1, 2]", "usage="),
        ("usage", '{"seconds": "long"}', "seconds=long"),
        ("usage", '{"dollars": 1e999}', "dollars=inf"),
        ("usage", '{"dollars": NaN}', "dollars=nan"),
        ("usage", '{"generated_tokens": -4}', "generated_tokens=-4"),
    ],
)
def test_a_row_that_cannot_be_read_is_one_line_with_its_key(path: Path, column: str, value: str, reason: str) -> None:
    with (
        overwritten(path, f"UPDATE samples SET {column} = ?", value) as bank,
        pytest.raises(BankError, match=rf"^bank=.*cannot read the row of 'k' \(.*{reason}.*\); take a whole copy"),
    ):
        bank.find_sample("k")


@pytest.mark.parametrize(("column", "value"), [("usage", '{"joules": 3}'), ("steps", "[0.5")])
def test_a_score_that_cannot_be_read_is_one_line_with_its_key(path: Path, column: str, value: str) -> None:
    with (
        overwritten(path, f"UPDATE readings SET {column} = ?", value) as bank,
        pytest.raises(BankError, match=r"^bank=.*cannot read the row of 'k'"),
    ):
        bank.find_score("k", "s")


def test_spending_that_cannot_be_read_is_one_line_with_its_account(path: Path) -> None:
    with Bank(path) as bank:
        bank.keep_spending("alice", USAGE, Usage())
    with sqlite3.connect(path) as other:
        other.execute("UPDATE spending SET spent = ?", ('{"joules": 3}',))
    other.close()
    with Bank(path) as bank, pytest.raises(BankError, match=r"^bank=.*cannot read the row of 'alice'"):
        bank.spending()


def test_a_state_of_another_kind_of_model_is_one_line(path: Path) -> None:
    with Bank(path) as bank:
        solve(make("single"), toy_search(journal=bank))
    with sqlite3.connect(path) as other:
        other.execute("UPDATE samples SET state = ?", ('{"picture": [1]}',))
    other.close()
    with Bank(path) as bank, pytest.raises(BankError, match=r"^sample='[0-9a-f]+': the bank has it in a form"):
        solve(make("single"), toy_search(journal=bank))


def test_bad_pages_are_one_line(path: Path) -> None:
    with Bank(path) as bank:
        bank.add_samples(PROBLEM, "toy", [(f"k{place}", sample(f"{place}", 500)) for place in range(200)])
    content = bytearray(path.read_bytes())
    content[8192:] = b"\xff" * (len(content) - 8192)
    path.write_bytes(content)
    with pytest.raises(BankError, match=r"^bank=.*cannot (open|read) it .*malformed"), Bank(path) as bank:
        bank.samples_of(PROBLEM.id)


def test_missing_folders_are_made(tmp_path: Path) -> None:
    with Bank(tmp_path / "runs" / "today" / "bank.db") as bank:
        assert len(bank) == 0


# Replay


def fields_of(answer: Answer) -> tuple[Any, ...]:
    """The fields of an answer, with its node by key."""
    return (*(vars(answer) | {"node": answer.node and answer.node.key}).values(),)


def replayed(bank: Bank, **options: Any) -> Any:
    return toy_search(
        BankedGenerator("toy"), BankedScorer("toy-scorer", ToyScorer.capabilities), journal=bank, **options
    )


def stands_still() -> float:
    """A constant clock, for strategies that measure their own time, such as ETS."""
    return 0.0


TEXT = [name for name, kind in BUILT_IN.items() if Capability.TRANSITIONS not in kind.needs]
"""Strategies that can be replayed from a bank of texts."""


@pytest.mark.parametrize("name", TEXT)
def test_a_replay_gives_the_answer_of_the_live_run(path: Path, name: str) -> None:
    for seed in range(5):
        with Bank(path) as bank:
            live = fields_of(
                solve(configured(name), toy_search(drawn, journal=bank, seed=seed, cap=20, clock=stands_still))
            )
        with Bank(path) as bank:
            assert fields_of(solve(configured(name), replayed(bank, seed=seed, cap=20, clock=stands_still))) == live


def test_a_replay_of_fewer_samples_is_the_run_with_fewer_samples(bank: Bank) -> None:
    solve(make("majority", {"n": 16}), toy_search(drawn, journal=bank))
    for n in (1, 2, 4, 8):
        fewer = solve(make("majority", {"n": n}), toy_search(drawn))
        assert fields_of(solve(make("majority", {"n": n}), replayed(bank))) == fields_of(fewer)


@pytest.mark.parametrize(
    ("strategy", "what"), [("majority", "2 samples of toy"), ("best_of_n", "4 scores of toy-scorer")]
)
def test_a_replay_names_the_missing_samples_or_scores(bank: Bank, strategy: str, what: str) -> None:
    solve(make("majority", {"n": 4}), toy_search(drawn, journal=bank))
    with pytest.raises(ModelError, match=f"replay: the bank lacks {what}; run without --replay"):
        solve(make(strategy, {"n": 6 if strategy == "majority" else 4}), replayed(bank))


@pytest.mark.parametrize("budget", [Budget(calls=3), Budget(tokens=6)])
def test_a_replay_under_the_same_budget_ends_at_the_same_point(bank: Bank, budget: Budget) -> None:
    """Six tokens pay for three samples; the fourth was never drawn, and the replay must not ask for it."""
    script = {str(i): done("so 7") for i in range(6)}
    live = toy_search(ToyGenerator(script), ToyScorer(lambda node: 0.5), journal=bank, budget=budget, cap=2)
    answer = solve(make("majority", {"n": 6}), live)
    assert (answer.value, answer.finish, answer.usage.model_calls) == ("7", "budget", 3)
    assert fields_of(solve(make("majority", {"n": 6}), replayed(bank, budget=budget, cap=2))) == fields_of(answer)


@pytest.mark.parametrize("name", TEXT)
def test_a_replay_cuts_the_same_sample_as_the_live_run_when_the_tokens_end(name: str, path: Path) -> None:
    for seed, tokens in product(range(4), (9, 21, 50)):
        limited: dict[str, Any] = {"seed": seed, "budget": Budget(tokens=tokens), "cap": 12, "clock": stands_still}
        with Bank(path) as bank:
            live = fields_of(solve(configured(name), toy_search(rambling, journal=bank, **limited)))
            assert fields_of(solve(configured(name), replayed(bank, **limited))) == live


def test_a_replay_refuses_a_limit_on_a_count_that_needs_the_model(bank: Bank) -> None:
    with pytest.raises(InputError, match=r"budget\.flops=12: this model's flops are unknown; limit tokens or calls"):
        replayed(bank, budget=Budget(flops=12))
