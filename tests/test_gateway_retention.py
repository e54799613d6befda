"""A running gateway removes old samples from its bank."""

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
from gateway_server import VOTE, Serving
from postgres_server import PostgresServer
from waiting import PATIENCE, MovableClock, eventually

from thinktime.bank.store import Bank
from thinktime.core.errors import InputError
from thinktime.core.types import Problem
from thinktime.gateway import retention
from thinktime.gateway.config import GatewayConfig, read_config
from thinktime.gateway.retention import Retention

UPSTREAM = "http://127.0.0.1:9/v1"


@pytest.fixture
def endpoint() -> Iterator[FakeEndpoint]:
    with Running() as running:
        yield running


@pytest.fixture(params=["file", "postgres"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Path | str:
    """A bank with 250 samples of 40 days."""
    found = tmp_path / "bank.db" if request.param == "file" else str(request.getfixturevalue("postgres").bank())
    with Bank(found) as bank:
        add(bank, 250, days=40)
    return found


def add(bank: Bank, number: int, days: float) -> None:
    """Add samples of this age."""
    row = {"state": {"text": "so 7"}, "finish": "eos", "usage": {}, "passes": 1}
    bank.add_samples(Problem("p", ""), "toy", [(f"{days}-{each}", row) for each in range(number)])
    bank.write("UPDATE samples SET at = at - ? WHERE key LIKE ?", [(days, f"{days}-%")])


def keys(place: Path | str) -> set[str]:
    """The keys of all samples, read beside the gateway."""
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
        assert "250 old samples are removed" in caplog.text and not keys(place)
        with Bank(place, beside=True) as bank:
            assert len(bank) >= 8, "the samples of the answer"
            add(bank, 3, days=31)
            add(bank, 2, days=29)
        until = time.time() + PATIENCE
        while ": 3 old samples" not in caplog.text and time.time() < until:
            clock.ahead += retention.EVERY_SECONDS  # again and again: the gateway may not sleep yet
            gateway.page("/health")
        assert keys(place) == {"29-0", "29-1"}


def test_a_size_keeps_the_newest_samples(place: Path | str) -> None:
    with Bank(place) as bank:
        add(bank, 40, days=1)
        Retention(place, None, "1KB").remove()
        left = keys(place)
    assert 40 <= len(left) < 100 and {f"1-{number}" for number in range(40)} <= left


def test_a_pass_that_another_process_has_begun_is_skipped(postgres: PostgresServer) -> None:
    place = postgres.bank()
    with Bank(place) as bank, Bank(place) as other:
        add(bank, 5, days=40)
        assert other.claim()
        Retention(place, "30d", None).remove()
        assert len(bank) == 5
        other.close()
        Retention(place, "30d", None).remove()
        assert len(bank) == 0


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


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"retention_time": "30d"}, "retention_time='30d': without a bank no sample is kept; give --bank"),
        ({"retention_size": "5GB"}, "retention_size='5GB': without a bank no sample is kept; give --bank"),
        ({"retention_time": "soon", "bank": "b.db"}, "retention_time='soon': give a number and a unit of h, d, w"),
        ({"retention_size": "5", "bank": "b.db"}, "retention_size='5': give a number and a unit of KB, MB, GB"),
        ({"retention_time": "0d", "bank": "b.db"}, "retention_time='0d': give more than 0, or leave it out"),
        ({"retention_size": "0.0000001KB", "bank": "b.db"}, "retention_size='0.0000001KB': give more than 0"),
    ],
)
def test_a_limit_that_cannot_work_is_refused(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError) as refused:
        GatewayConfig(UPSTREAM, **settings)
    assert says in str(refused.value) and "\n" not in str(refused.value)


def test_limits_come_from_the_file_the_environment_and_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "gateway.toml"
    file.write_text(f'upstream = "{UPSTREAM}"\nbank = "b.db"\nretention_time = "30d"\nretention_size = "5GB"\n')
    assert GatewayConfig(**read_config(file)).retention_size == "5GB"
    monkeypatch.setenv("THINKTIME_RETENTION_SIZE", "6GB")
    code, out, _ = ran("serve", "--config", str(file), "--print-config", "--retention-time", "8w")
    assert code == 0 and '"retention_time": "8w"' in out and '"retention_size": "6GB"' in out
