"""A calibration of the gateway's owner, which ``auto`` of clients follows."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from commands import ran
from fake_endpoint import Running
from gateway_server import PLAIN, Serving

from thinktime.bench.statistics import Estimate
from thinktime.core.errors import InputError
from thinktime.gateway.config import GatewayConfig, read_config
from thinktime.gateway.state import Gateway
from thinktime.planning.arms import Arm
from thinktime.planning.bins import Bins, Policy
from thinktime.planning.calibration import Calibration
from thinktime.planning.calibration_files import text

COUNT = 20
AUTO = {**PLAIN, "model": "auto/words"}


def arm(strategy: str, right: int, tokens: float) -> Arm:
    solved = tuple(float(number < right) for number in range(COUNT))
    signals = {"agreement": solved} if strategy == "single" else {}
    return Arm(strategy, solved, (tokens,) * COUNT, {"judge_tokens": 0.0}, None, {"total": COUNT}, signals)


def calibration(model: str, *policies: Policy, largest: str = "majority:n=3") -> Calibration:
    arms = arm("single", 4, 10), arm(largest, 16, 30)
    named = {"generator": model, "scorer": None}
    problems, sources = tuple(map(str, range(COUNT))), ({"command": "made"},)
    return Calibration({"name": "made"}, named, {"temperature": 1.0}, 0, problems, arms, sources, policies)


@contextmanager
def serving(folder: Path, *policies: Policy, model: str = "words@{}/chat/completions", **more: Any) -> Iterator[Any]:
    """A fake endpoint and a gateway with a calibration of it."""
    with Running() as endpoint:
        path = folder / "secret-name.json"
        path.write_text(text(calibration(model.format(endpoint.url), *policies)))
        with Serving(endpoint.url, calibration=path, **more) as gateway:
            yield endpoint, gateway


def asked(gateway: Serving, body: dict[str, Any] = AUTO) -> dict[str, Any]:
    status, answer, _ = gateway.ask(body)
    assert status == 200 and "secret-name" not in str(answer), answer
    found: dict[str, Any] = answer["thinktime"]
    return found


def test_auto_follows_the_calibration_and_says_what_it_chose(tmp_path: Path) -> None:
    with serving(tmp_path) as (_, gateway):
        answer = asked(gateway)
        assert answer["account"]["model_calls"] == 3 and answer["strategy"] == "auto"
        assert answer["chosen"]["strategy"] == "majority:n=3" and "points over single" in answer["chosen"]["reason"]
        small = asked(gateway, {**PLAIN, "model": "auto@29tok/words", "max_tokens": 20})
        assert small["chosen"]["strategy"] == "single"
        assert "chosen" not in asked(gateway, {**PLAIN, "model": "majority:n=2/words"})


def test_auto_follows_a_policy_by_difficulty(tmp_path: Path) -> None:
    sure = Estimate(0.0, 0.0, 0.0), 20.0, 30.0, Estimate(5.0, 4.0, 6.0)
    hard = Policy(20, Bins("agreement", 1, (2.0,)), ("majority:n=3", "single"), *sure)
    with serving(tmp_path, hard) as (_, gateway):
        answer = asked(gateway)
    assert answer["account"]["model_calls"] == 3  # the first sample is one of the three
    assert answer["chosen"]["bin"] == "agreement below 2" and answer["chosen"]["first_samples"] == 1


@pytest.mark.parametrize("changes", [{"temperature": 0.3}, {"made": {"model": "other"}}])
def test_a_request_that_the_calibration_does_not_fit_gets_the_usual_choice(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    with serving(tmp_path, **changes.pop("made", {})) as (_, gateway):
        answer = asked(gateway, AUTO | changes)
    assert answer["chosen"]["strategy"] == "majority:n=16"
    assert answer["chosen"]["reason"] == "the server's calibration is of another model, scorer or temperature"


def test_a_client_still_names_no_file(tmp_path: Path) -> None:
    with serving(tmp_path) as (_, gateway):
        status, answer, _ = gateway.ask(
            {**PLAIN, "thinktime": {"strategy": "auto", "policy": f"{tmp_path}/secret-name.json"}}
        )
        assert status == 400 and "files are not read" in str(answer)
        status, answer, _ = gateway.ask({**PLAIN, "model": f"auto:policy={tmp_path}/secret-name.json/words"})
    assert status == 400 and "files are not read" in str(answer) and "secret-name.json/words" in str(answer)


def test_the_calibration_is_read_before_the_server_starts(tmp_path: Path) -> None:
    path = tmp_path / "made.json"
    code, _, errors = ran("serve", "--upstream", "http://127.0.0.1:9/v1", "--calibration", str(path))
    assert code == 2 and "calibration=" in errors and errors.count("\n") == 1
    path.write_text(text(calibration("words", largest="majority:n=17")))
    with pytest.raises(InputError, match="auto draws 16 samples at most"):
        Gateway(GatewayConfig("http://127.0.0.1:9/v1", calibration=path))
    written = tmp_path / "gateway.toml"
    written.write_text(f'upstream = "http://127.0.0.1:9/v1"\ncalibration = "{path}"\n')
    assert read_config(written)["calibration"] == path
