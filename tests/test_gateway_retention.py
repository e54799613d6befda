"""Old samples that a running gateway removes from its bank."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from commands import ran
from fake_endpoint import FakeEndpoint, Running
from gateway_server import PLAIN, Serving
from postgres_server import PostgresServer
from waiting import PATIENCE, MovableClock, eventually

from thinktime.bank.store import Bank
from thinktime.core.errors import InputError
from thinktime.core.types import Problem
from thinktime.core.usage import Usage
from thinktime.gateway import retention
from thinktime.gateway.config import GatewayConfig, read_config
from thinktime.gateway.retention import Retention

UPSTREAM = "http://127.0.0.1:9/v1"
VOTE = {**PLAIN, "model": "majority:n=3/words", "seed": 1}


def fill(place: Path | str, count: int, days: float) -> None:
    """Put samples of this age into a bank."""
    with Bank(place) as bank:
        add(bank, count, days)


def add(bank: Bank, count: int, days: float) -> None:
    """Add samples of this age to an open bank."""
    sample = {"state": {"text": "x"}, "finish": "eos", "usage": Usage().as_dict(), "passes": 1, "log_weight": 0.0}
    bank.add_samples(Problem("p", "?"), "toy", [(f"{days}-{number}", sample) for number in range(count)])
    bank.write("UPDATE samples SET at = at - ? WHERE key LIKE ?", [(days, f"{days}-%")])


def keys(place: Path | str) -> set[str]:
    with Bank(place, read_only=True) as bank:
        return {row[0] for row in bank._read("SELECT key FROM samples")}


def test_a_running_gateway_removes_old_samples_and_serves_meanwhile(tmp_path: Path) -> None:
    place = tmp_path / "gateway.db"
    fill(place, 250, days=40.0)
    fill(place, 3, days=2.0)
    with Running() as endpoint, Serving(endpoint.url, bank=place, retention_time="30d") as gateway:
        status, answer, _ = gateway.ask(VOTE)
        assert status == 200 and answer["thinktime"]["samples"] == 3
        running = gateway.gateway.retention
        assert running is not None
        eventually(lambda: running.passes == 1)
    left = keys(place)
    assert len(left) == 3 + 3 and {key for key in left if key.startswith("2.0-")} == {f"2.0-{n}" for n in range(3)}


def test_of_several_processes_on_one_database_one_removes(postgres: PostgresServer) -> None:
    pytest.importorskip("psycopg", reason="needs psycopg: pip install 'thinktime[postgres]'", exc_type=ImportError)
    place = postgres.bank()
    fill(place, 5, days=40.0)
    with Bank(place) as other, Bank(postgres.bank()) as beside:
        assert other.claim() and beside.claim(), "each bank of a database has its own lock"
        skipped = Retention(place, "30d", None)
        skipped.remove()
        assert len(keys(place)) == 5
    skipped.remove()
    assert not keys(place)
    skipped.close()


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        ({"retention_time": "30d"}, "retention_time='30d': without a bank no sample is kept"),
        ({"bank": "b.db", "retention_time": "soon"}, "retention_time='soon': give a number and a unit of h, d, w"),
        ({"bank": "b.db", "retention_size": "0GB"}, "retention_size='0GB': give more than 0"),
    ],
)
def test_limits_that_cannot_work_are_refused(limits: dict[str, Any], reason: str) -> None:
    with pytest.raises(InputError) as refused:
        GatewayConfig("http://127.0.0.1:9/v1", **limits)
    assert reason in str(refused.value)


@pytest.fixture
def endpoint() -> Iterator[FakeEndpoint]:
    with Running() as running:
        yield running


@pytest.fixture(params=["file", "postgres"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Path | str:
    """A bank with 250 samples of 40 days."""
    found = tmp_path / "bank.db" if request.param == "file" else str(request.getfixturevalue("postgres").bank())
    fill(found, 250, days=40)
    return found


def of_before(place: Path | str) -> set[str]:
    """The keys of the samples that are not the gateway's, read while it runs."""
    with Bank(place, beside=True) as bank:
        return {row["key"] for row in bank.samples_of("p")}


def test_a_gateway_removes_old_samples_at_the_start_and_every_hour_and_answers_meanwhile(
    place: Path | str,
    endpoint: FakeEndpoint,
    clock: MovableClock,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    begun, goes_on = threading.Event(), threading.Event()
    remove_old = Bank.remove_old

    def slow(self: Bank, *limits: Any) -> Iterator[int]:
        for removed in remove_old(self, *limits):
            begun.set()
            goes_on.wait(PATIENCE)
            yield removed

    monkeypatch.setattr(Bank, "remove_old", slow)
    caplog.set_level(logging.INFO, "thinktime")
    with Serving(endpoint.url, bank=place, retention_time="30d") as gateway:
        assert begun.wait(PATIENCE)
        assert gateway.ask(VOTE)[0] == 200 and not goes_on.is_set(), "a request is answered while samples are removed"
        goes_on.set()
        eventually(lambda: "old samples are removed" in caplog.text)
        assert "250 old samples are removed" in caplog.text and not of_before(place)
        with Bank(place, beside=True) as bank:
            assert len(bank) >= 3, "the samples of the answer"
            add(bank, 3, days=31)
            add(bank, 2, days=29)
        until = time.time() + PATIENCE
        while ": 3 old samples" not in caplog.text and time.time() < until:
            clock.ahead += retention.EVERY_SECONDS  # again and again: the gateway may not sleep yet
            gateway.page("/health")
        assert of_before(place) == {"29-0", "29-1"}


def test_a_size_keeps_the_newest_samples(place: Path | str) -> None:
    fill(place, 40, days=1)
    with Bank(place):
        Retention(place, None, "1KB").remove()
    left = keys(place)
    assert 40 <= len(left) < 100 and {f"1-{number}" for number in range(40)} <= left


def test_a_gateway_that_stops_ends_a_pass_after_its_transaction(place: Path | str) -> None:
    with Bank(place) as bank:
        removing = Retention(place, "30d", None)
        removing.close()
        removing.remove()
        assert len(bank) == 150


def test_a_bank_that_refuses_is_a_line_and_the_next_pass_tries_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "bank.db"
    monkeypatch.setattr(retention, "EVERY_SECONDS", 0.0)
    with Bank(place) as bank:
        add(bank, 5, days=40)
        bank.write("CREATE TRIGGER refuses BEFORE DELETE ON samples BEGIN SELECT raise(ABORT, 'not now'); END", [()])

        async def run() -> None:
            removing = Retention(place, "30d", None)
            task = asyncio.create_task(removing.run())
            while "not now" not in caplog.text:
                await asyncio.sleep(0)
            with sqlite3.connect(place) as other:
                other.execute("DROP TRIGGER refuses")
            other.close()
            while len(bank):
                await asyncio.sleep(0)
            task.cancel()
            removing.close()

        asyncio.run(run())


def test_limits_come_from_the_file_the_environment_and_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "gateway.toml"
    file.write_text(f'upstream = "{UPSTREAM}"\nbank = "b.db"\nretention_time = "30d"\nretention_size = "5GB"\n')
    assert GatewayConfig(**read_config(file)).retention_size == "5GB"
    monkeypatch.setenv("THINKTIME_RETENTION_SIZE", "6GB")
    code, out, _ = ran("serve", "--config", str(file), "--print-config", "--retention-time", "8w")
    assert code == 0 and '"retention_time": "8w"' in out and '"retention_size": "6GB"' in out
