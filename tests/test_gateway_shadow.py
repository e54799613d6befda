"""Requests that the gateway measures in the background: what is measured, what it costs, and that no client notices."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest
from commands import ran
from fake_endpoint import Running
from gateway_server import BEARER, KEY, MESSAGES, PLAIN, Serving
from waiting import eventually

from thinktime.core.errors import InputError
from thinktime.core.usage import Budget
from thinktime.gateway import shadow as module
from thinktime.gateway.config import GatewayConfig, Key, digest, read_config
from thinktime.gateway.shadow import SHADOW
from thinktime.planning.agreement import SAMPLES
from thinktime.planning.calibration_files import read

ONE = {**PLAIN, "model": "single/words"}


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "QUIET_SECONDS", 0.01)


def settings(folder: Path, budget: str = "1e6tok", **more: Any) -> dict[str, Any]:
    return {"shadow": 1.0, "shadow_budget": Budget.parse(budget), "shadow_out": folder / "made"} | more


def outcomes(gateway: Serving) -> dict[str, int]:
    shadow = gateway.gateway.shadow
    assert shadow is not None
    return dict(shadow.outcomes)


def measured(gateway: Serving, body: dict[str, Any] = ONE, **headers: str) -> dict[str, int]:
    """What became of all chosen requests, after one more."""
    before = sum(outcomes(gateway).values())
    asked(gateway, body, **headers)
    eventually(lambda: sum(outcomes(gateway).values()) > before)
    return outcomes(gateway)


def asked(gateway: Serving, body: dict[str, Any], status: int = 200, /, **headers: str) -> dict[str, Any]:
    """The answer, once the gateway has noted that the request has ended."""
    shadow = gateway.gateway.shadow
    assert shadow is not None
    before = shadow.clients
    found, answer, _ = gateway.ask(body, **headers)
    assert found == status, answer
    eventually(lambda: shadow.clients == before)
    return answer


def test_a_request_is_sampled_again_after_its_client_has_the_answer(tmp_path: Path) -> None:
    with Running() as endpoint, Serving(endpoint.url, **settings(tmp_path)) as gateway:
        assert measured(gateway) == {"measured": 1}
        calls = [request for request in endpoint.requests if request.get("messages") == MESSAGES]
        assert len(calls) == 1 + SAMPLES
        shown = gateway.page("/metrics")
        assert 'thinktime_shadow_total{outcome="measured"} 1.0' in shown
        assert f'thinktime_spent_total{{key="{SHADOW}",what="model_calls"}} {SAMPLES}.0' in shown
        assert json.loads(gateway.page("/ui/requests"))["shadow"]["usage"]["model_calls"] == SAMPLES
        spent = gateway.gateway.auth.clients[0].ledger.spent
        assert spent.model_calls == 1, "the client does not pay for it"


def test_requests_without_a_method_and_of_other_calls_are_measured(tmp_path: Path) -> None:
    with Running() as endpoint, Serving(endpoint.url, **settings(tmp_path)) as gateway:
        assert measured(gateway, PLAIN) == {"measured": 1}
        asked(gateway, {**PLAIN, "n": 2})
        asked(gateway, {**ONE, "temperature": 0})
        asked(gateway, {**PLAIN, "model": "single/nobody"}, 404)
        assert measured(gateway, {**PLAIN, "model": "majority:n=2/words"}) == {"measured": 2}


def test_it_is_off_by_default() -> None:
    with Running() as endpoint, Serving(endpoint.url) as gateway:
        gateway.ask(ONE)
        assert gateway.gateway.shadow is None and "thinktime_shadow_total{" not in gateway.page("/metrics")
        assert "shadow" not in json.loads(gateway.page("/ui/requests"))


def test_only_keys_that_allow_it_are_measured(tmp_path: Path) -> None:
    keys = Key("ann", digest(KEY)), Key("bob", digest(KEY[::-1]), shadow=True)
    with Running() as endpoint, Serving(endpoint.url, **settings(tmp_path, keys=keys)) as gateway:
        asked(gateway, ONE, **BEARER)
        assert measured(gateway, ONE, Authorization=f"Bearer {KEY[::-1]}") == {"measured": 1}


def test_a_clients_request_cuts_what_is_measured(tmp_path: Path) -> None:
    with Running() as endpoint, Serving(endpoint.url, **settings(tmp_path)) as gateway:
        measured(gateway)
        endpoint.requests.clear()
        endpoint.faults.extend(["", "never"])  # the client's sample, and the first one of the measurement
        assert gateway.ask(ONE)[0] == 200
        eventually(lambda: len(endpoint.requests) == 2)
        left = endpoint.left
        assert gateway.ask(ONE)[0] == 200, "it is answered although a sample never ends"
        eventually(lambda: endpoint.left == left + 1)
        eventually(lambda: outcomes(gateway) == {"measured": 2, "skipped": 1})
        shadow = gateway.gateway.shadow
        assert shadow is not None and shadow.ledger.spent.uncounted_calls == 1


def test_no_measurement_begins_while_a_client_waits(tmp_path: Path) -> None:
    with Running() as endpoint, Serving(endpoint.url, **settings(tmp_path)) as gateway:
        measured(gateway)
        endpoint.silent = "other"
        waiting = threading.Thread(target=gateway.ask, args=({**PLAIN, "model": "other-words"},))
        waiting.start()
        eventually(lambda: any(request["model"] == "other-words" for request in endpoint.requests))
        assert measured(gateway)["skipped"] == 1
        endpoint.silent = ""
        waiting.join()


def test_the_budget_is_hard(tmp_path: Path) -> None:
    most = SAMPLES * 64 + 100  # the probe takes some
    with Running() as endpoint, Serving(endpoint.url, **settings(tmp_path, f"{most}tok")) as gateway:
        found = measured(gateway)
        while "unpaid" not in found:
            found = measured(gateway)
        shadow = gateway.gateway.shadow
        assert found["measured"] >= 1 and shadow is not None
        assert shadow.ledger.spent.generated_tokens <= most
        calls = len(endpoint.requests)
        assert measured(gateway)["unpaid"] == 2 and len(endpoint.requests) == calls + 1


def test_a_failing_upstream_ends_a_measurement(tmp_path: Path) -> None:
    with Running() as endpoint, Serving(endpoint.url, **settings(tmp_path)) as gateway:
        measured(gateway)
        endpoint.faults.extend(["", "garbage", "garbage", "garbage", "garbage", "garbage"])
        assert measured(gateway)["failed"] == 1


def test_a_fault_of_the_gateway_is_a_failure_and_is_in_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def wrong(*_: object) -> None:
        raise ValueError("a mistake")

    monkeypatch.setattr("thinktime.planning.agreement.measured", wrong)
    with Running() as endpoint, Serving(endpoint.url, **settings(tmp_path)) as gateway:
        assert measured(gateway) == {"failed": 1}
    assert "a mistake" in caplog.text


def test_auto_follows_what_was_measured_and_says_that_it_is_agreement(tmp_path: Path) -> None:
    folder = tmp_path / "made"
    with Running() as endpoint:
        with Serving(endpoint.url, **settings(tmp_path, calibration=folder)) as gateway:
            auto = {**PLAIN, "model": "auto/words"}
            assert asked(gateway, auto)["thinktime"]["chosen"]["strategy"] == "majority:n=16"
            eventually(lambda: outcomes(gateway).get("measured") == 1)
            for _ in range(19):
                found = measured(gateway)
            assert found == {"measured": 20}
            eventually(lambda: list(folder.glob("*.json")))
            chosen = asked(gateway, auto)["thinktime"]["chosen"]
            assert "measured without right answers" in chosen["reason"], chosen
            assert chosen["strategy"] in {"single", *(f"majority:n={n}" for n in (2, 3, 5, 8))}
            eventually(lambda: sum(outcomes(gateway).values()) == 21)
        (path,) = folder.glob("*.json")
        made = read(path)
        assert made.measure == "agreement" and made.task == {"name": "traffic"} and len(made.problems) == 21
        assert made.sources[0]["compared_with"] == "a vote of 8 other samples"
        assert "3 + 4" not in path.read_text() and '"accuracy"' not in path.read_text()
        with Serving(endpoint.url, **settings(tmp_path)) as gateway:
            measured(gateway)
        assert len(read(path).problems) == 22, "a restart goes on"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"shadow": 2.0}, "shadow=2.0: give a share"),
        ({"shadow_budget": Budget(seconds=3)}, "shadow_budget=None: say how much"),
        ({"shadow_budget": Budget(flops=3)}, "endpoints report no FLOPs"),
        ({"shadow_out": None}, "shadow_out=None: name the folder"),
        ({"workers": 2}, "take one worker"),
        ({"keys": (Key("ann", digest(KEY)),)}, "no key allows it; write shadow = true under"),
    ],
)
def test_settings_that_cannot_work_are_refused(tmp_path: Path, change: dict[str, Any], reason: str) -> None:
    with pytest.raises(InputError) as refused:
        GatewayConfig("http://127.0.0.1:9/v1", **settings(tmp_path) | change)
    assert reason in str(refused.value)


def test_settings_come_from_the_command_line_or_a_file(tmp_path: Path) -> None:
    given = ("--shadow", "0.01", "--shadow-budget", "1e6tok", "--shadow-out", "made")
    code, shown, errors = ran("serve", "--upstream", "http://127.0.0.1:9/v1", *given, "--print-config")
    assert code == 0 and json.loads(shown)["shadow"] == 0.01, errors
    assert json.loads(shown)["shadow_budget"] == {"tokens": 1_000_000}
    written = tmp_path / "gateway.toml"
    written.write_text('shadow = 0.01\nshadow_budget = "5usd"\nshadow_out = "made"\n')
    assert read_config(written) == {"shadow": 0.01, "shadow_budget": Budget(dollars=5.0), "shadow_out": Path("made")}
    written.write_text("[keys.ann]\nsha256 = " + json.dumps(digest(KEY)) + "\nshadow = true\n")
    assert read_config(written)["keys"][0].shadow
