"""Old samples that a running gateway removes from its bank."""

from __future__ import annotations

from pathlib import Path

import pytest
from fake_endpoint import Running
from gateway_server import PLAIN, Serving
from postgres_server import PostgresServer
from waiting import eventually

from thinktime.bank.store import Bank
from thinktime.core.errors import InputError
from thinktime.core.types import Problem
from thinktime.core.usage import Usage
from thinktime.gateway.config import GatewayConfig
from thinktime.gateway.retention import Retention

VOTE = {**PLAIN, "model": "majority:n=3/words", "seed": 1}


def fill(place: Path | str, count: int, days: float) -> None:
    """Put samples of this age into a bank."""
    sample = {"state": {"text": "x"}, "finish": "eos", "usage": Usage().as_dict(), "passes": 1, "log_weight": 0.0}
    with Bank(place) as bank:
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
        retention = gateway.gateway.retention
        assert retention is not None
        eventually(lambda: retention.passes == 1)
    left = keys(place)
    assert len(left) == 3 + 3 and {key for key in left if key.startswith("2.0-")} == {f"2.0-{n}" for n in range(3)}


def test_of_several_processes_on_one_database_one_removes(postgres: PostgresServer) -> None:
    pytest.importorskip("psycopg", reason="needs psycopg: pip install 'thinktime[postgres]'", exc_type=ImportError)
    place = postgres.bank()
    fill(place, 5, days=40.0)
    with Bank(place) as other:
        assert other.claim()
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
def test_limits_that_cannot_work_are_refused(limits: dict[str, str], reason: str) -> None:
    with pytest.raises(InputError) as refused:
        GatewayConfig("http://127.0.0.1:9/v1", **limits)  # type: ignore[arg-type]
    assert reason in str(refused.value)
