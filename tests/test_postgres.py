"""A bank in Postgres: several processes write it at once, connections are lost, and URLs are wrong."""

from __future__ import annotations

import re
import sys
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
from commands import ran
from postgres_server import PostgresServer
from toy import PROBLEM

from thinktime.bank.database import shown
from thinktime.bank.store import Bank
from thinktime.core.errors import BankError, UnreachableBankError
from thinktime.core.types import Problem, Score
from thinktime.core.usage import Usage


def write(place: str, name: int) -> None:
    """Write 40 samples and scores that all writers have, in one of two orders, and ten samples of this writer."""
    with Bank(place) as bank:
        bank.bind("toy", "files")
        order = [f"k{number:02}" for number in range(40)][:: -1 if name % 2 else 1]
        row = {"state": {"by": name, "bytes": b"equal"}, "finish": "eos", "usage": {}, "passes": 1}
        for start in range(0, 40, 4):
            keys = order[start : start + 4]
            bank.add_samples(Problem("p", ""), "toy", [(key, row) for key in (*keys, f"{name}-{start}")])
            bank.add_scores("judge", [(key, Score(float(name), Usage())) for key in keys])


def sample(text: str) -> dict[str, Any]:
    return {"state": {"text": text}, "finish": "eos", "usage": {}, "passes": 1}


def test_several_processes_create_and_write_one_bank_at_once(postgres: PostgresServer) -> None:
    place = postgres.bank()
    begin = get_context("fork").Process  # a new interpreter takes a second to import this
    writers = [begin(target=write, args=(place, name)) for name in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0, 0, 0]
    with Bank(place, read_only=True) as bank:
        assert len(bank) == 40 + 3 * 10 and bank.models() == ["toy"]
        found = bank.samples_of("p")
        assert all(row["state"]["bytes"] == b"equal" for row in found)
        first = {row["key"]: row["state"]["by"] for row in found}
        assert {first[f"{name}-{start}"] for name in range(3) for start in range(0, 40, 4)} == {0, 1, 2}
        assert len(bank.scores("judge")) == 40


def test_a_lost_connection_is_opened_again(postgres: PostgresServer) -> None:
    with Bank(postgres.bank()) as bank, Bank(postgres.bank()) as other:
        bank.add_samples(PROBLEM, "toy", [("a", sample("so 7"))])
        end_all = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
        other._db.read(f"{end_all} AND datname IS NOT NULL", ())
        bank.add_samples(PROBLEM, "toy", [("b", sample("so 8"))])
        assert len(bank) == 2


def test_a_server_that_stops_is_one_line_and_the_bank_works_when_it_is_back(
    postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("thinktime.bank.postgres.WAITS", (0.0,))
    with Bank(postgres.bank()) as bank:
        bank.add_samples(PROBLEM, "toy", [("a", sample("so 7"))])
        postgres.stop(kill=True)
        try:
            with pytest.raises(UnreachableBankError) as refused:
                bank.add_samples(PROBLEM, "toy", [("b", sample("so 8"))])
        finally:
            postgres.start()
        wanted = r"bank='postgresql://owner@127\.0\.0\.1:\d+/postgres': cannot open it \(.*Connection refused.*\); "
        assert re.fullmatch(wanted + "start the server, or give another one, and run the same .*", str(refused.value))
        bank.add_samples(PROBLEM, "toy", [("c", sample("so 9"))])
        assert [row["key"] for row in bank.samples_of(PROBLEM.id)] == ["a", "c"]


def test_a_bank_that_is_open_for_reading_is_not_written(postgres: PostgresServer) -> None:
    place = postgres.bank()
    with pytest.raises(BankError, match=r'cannot open it \(relation "samples" does not exist.*give another one'):
        Bank(place, read_only=True)
    with Bank(place), Bank(place, read_only=True) as bank, pytest.raises(BankError, match="for reading only"):
        bank.add_samples(PROBLEM, "toy", [("a", sample("so 7"))])


def test_tables_of_another_program_are_refused_and_not_changed(postgres: PostgresServer) -> None:
    import psycopg

    place = postgres.bank()
    with psycopg.connect(place, autocommit=True) as connection:
        connection.execute("CREATE TABLE samples (id INTEGER, blood_pressure REAL)")
        with pytest.raises(BankError, match=r'cannot open it \(column "key" does not exist.*; give another one'):
            Bank(place)
        assert connection.execute("SELECT to_regclass('readings')").fetchone() == (None,)


SECRET = "s3cret-w0rd"


def test_a_wrong_password_is_one_line_without_it(postgres: PostgresServer) -> None:
    import psycopg

    with psycopg.connect(postgres.url("postgres"), autocommit=True) as connection:
        connection.execute("CREATE ROLE guarded LOGIN PASSWORD 'another word'")
    place = postgres.url("postgres", user=f"guarded:{SECRET}")
    code, _, error = ran("bank", "export", place, "out.gz", "--task", "pocket", "--problems", "1")
    wanted = (
        r"error: bank='postgresql://guarded@127\.0\.0\.1:\d+/postgres': cannot open it \(.*password authentication "
    )
    assert re.fullmatch(wanted + r"failed .*\); put the right password into PGPASSWORD and run .*\n", error)
    assert code == 1 and SECRET not in error


@pytest.mark.parametrize(
    "place",
    [
        f"postgresql://ann:{SECRET}@host:port/bank",
        f"postgresql://ann:{SECRET}@host/bank?pass={SECRET}",
        f"postgresql://ann:{SECRET}",
        f"postgres://ann:{SECRET}?@[/bank",
    ],
)
def test_a_wrong_url_is_one_line_without_its_password(postgres: PostgresServer, place: str) -> None:
    with pytest.raises(
        BankError, match=r"^bank='postgres(ql)?://.*': cannot read the URL; write postgresql://"
    ) as error:
        Bank(place)
    assert SECRET not in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("place", "name"),
    [
        ("runs/bank.db", "runs/bank.db"),
        ("postgresql:///bank", "postgresql:///bank"),
        ("postgresql://h1:1,h2:2/bank", "postgresql://h1:1,h2:2/bank"),
        (f"postgresql://ann:{SECRET}@h:5/bank?sslmode=require", "postgresql://ann@h:5/bank"),
        (f"postgresql://ann:{SECRET[:5]}/@{SECRET}@h/bank?a=b@c", "postgresql://ann@c"),
        (f"postgresql:/ann:{SECRET}@h/bank", "postgresql://ann@h/bank"),
        (f"postgresql://h/bank?password={SECRET}", "postgresql://h/bank"),
    ],
)
def test_a_bank_is_named_without_its_password(place: str, name: str) -> None:
    assert shown(place) == name


def test_a_url_that_became_a_path_is_refused() -> None:
    with pytest.raises(BankError, match=r"^bank='postgresql://ann@host/bank': a URL is no path; give it as text$"):
        Bank(Path(f"postgresql://ann:{SECRET}@host/bank"))


def test_without_the_package_the_error_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "thinktime.bank.postgres", raising=False)
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(BankError, match=r"^bank='postgresql://host/bank': .*; pip install 'thinktime\[postgres\]'$"):
        Bank("postgresql://host/bank")
