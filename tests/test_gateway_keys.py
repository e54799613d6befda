"""Keys, rate limits and addresses of the gateway, and that no secret is shown."""

from __future__ import annotations

import http.client
import json
import logging
import re
import signal
import urllib.error
import urllib.request
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from commands import ran
from fake_endpoint import Running
from gateway_server import NO_KEYS, PLAIN, VOTE, Serving, Start, serve
from waiting import PATIENCE

from thinktime.bank.keys import Slots
from thinktime.bank.store import Bank
from thinktime.core.errors import InputError, UnknownNameError
from thinktime.core.usage import Budget
from thinktime.gateway.config import GatewayConfig, Key, digest, given_key, new_key, read_config
from thinktime.gateway.errors import HttpError
from thinktime.gateway.rates import RateLimit, admit
from thinktime.models.remote.client import is_loopback
from thinktime.models.remote.prices import Price

KEY, OTHER = "a key of more than sixteen letters", "another key of more letters"
UPSTREAM = "http://127.0.0.1:9/v1"
KEYS: dict[str, Any] = {"keys": (Key("ann", digest(KEY)), Key("bob", digest(OTHER), requests_per_minute=2))}


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def test_a_client_without_a_key_is_refused_and_costs_nothing(start_gateway: Start) -> None:
    endpoint, gateway = start_gateway(KEYS, probed=False)
    wrong = [{}, bearer("wrong"), bearer(""), {"Authorization": KEY}, {"Authorization": f"Basic {KEY}"}]
    for path in ("chat/completions", "completions"):
        for headers in [*wrong, bearer(digest(KEY))]:
            status, answer, _ = gateway.ask(PLAIN, path, **headers)
            assert (status, answer["error"]["type"]) == (401, "authentication_error")
            assert answer["error"]["code"] == "invalid_api_key"
    assert gateway.ask(b"", "models")[0] == 401 and endpoint.requests == []
    assert gateway.ask(PLAIN, **bearer(KEY))[0] == 200 and gateway.ask(b"", "models", **bearer(OTHER))[0] == 200


def test_a_key_cannot_exceed_its_rate_limit(start_gateway: Start) -> None:
    endpoint, gateway = start_gateway(KEYS, probed=False)
    statuses = [gateway.ask(PLAIN, **bearer(OTHER))[0] for _ in range(3)]
    status, answer, headers = gateway.ask(PLAIN, **bearer(OTHER))
    assert statuses == [200, 200, 429] and len(endpoint.requests) == 2
    assert (status, answer["error"]["code"]) == (429, "rate_limit_exceeded") and 0 < int(headers["retry-after"]) <= 60
    assert gateway.ask(PLAIN, **bearer(KEY))[0] == 200


def test_no_minute_has_more_requests_than_the_rate_limit() -> None:
    slots: Slots = []
    limit = RateLimit(requests=6)
    passed: list[float] = []
    for now in [1000.0, 1001.0, *(1000.0 + 0.5 * step for step in range(10, 400))]:
        with suppress(HttpError):
            slots, state = admit(slots, now, limit)
            state.check()
            passed.append(now)
    with pytest.raises(HttpError) as refused:
        admit(slots, 1200.0, limit)[1].check()
    assert refused.value.retry_after == pytest.approx(passed[-6] + 60 - 1200.0)
    assert len(passed) == 24 and all(after - before >= 60 for before, after in zip(passed, passed[6:], strict=False))


def test_the_keys_of_clients_and_of_the_upstream_are_kept_apart(start_gateway: Start) -> None:
    with Running(key="sk-of-the-upstream") as endpoint:
        settings: dict[str, Any] = {**KEYS, "upstream_key": "sk-of-the-upstream"}
        with Serving(endpoint.url, **settings) as gateway:
            for model in ("words", "single/words"):
                assert gateway.ask({**PLAIN, "model": model}, **bearer(KEY))[0] == 200
                assert gateway.ask({**PLAIN, "model": model}, **bearer("sk-of-the-upstream"))[0] == 401


def test_no_secret_is_logged_or_shown(
    start_gateway: Start, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    endpoint, gateway = start_gateway({**KEYS, "upstream_key": "sk-of-the-upstream"}, probed=False)
    for fault in ("", "500", "garbage", "html", "cut"):
        for model in ("words", "single/words", "majority:n=2/words"):
            endpoint.faults.extend([fault] * 8)
            gateway_answers = _text(gateway, {**PLAIN, "model": model}, KEY)
            assert KEY not in gateway_answers and "sk-of-the-upstream" not in gateway_answers
    metrics = _text(gateway, None, KEY)
    shown = caplog.text + "".join(capfd.readouterr()) + metrics + repr(gateway.gateway.config)
    assert not any(secret in shown for secret in (KEY, OTHER, digest(KEY), "sk-of-the-upstream"))


def _text(gateway: Serving, body: dict[str, Any] | None, key: str) -> str:
    """Everything that a client receives; without a body, the counters."""
    url = gateway.url.removesuffix("/v1") + "/metrics" if body is None else f"{gateway.url}/chat/completions"
    headers = {"Content-Type": "application/json", **bearer(key)}
    data = None if body is None else json.dumps(body).encode()
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data, headers), timeout=PATIENCE) as reply:
            return f"{reply.read().decode()}{reply.headers}"
    except urllib.error.HTTPError as error:
        return f"{error}{error.read().decode()}{error.headers}"
    except http.client.IncompleteRead as error:
        return error.partial.decode()


def test_without_keys_only_requests_to_a_local_host_name_are_answered(start_gateway: Start) -> None:
    endpoint, gateway = start_gateway(probed=False)
    for host in ("localhost", "127.0.0.1:8080", "[::1]:80", "LOCALHOST:1"):
        assert gateway.ask(PLAIN, Host=host)[0] == 200
    for host in ("evil.example:8080", "evil.example", "10.0.0.1:80"):
        status, answer, _ = gateway.ask(PLAIN, Host=host)
        assert (status, "localhost" in answer["error"]["message"]) == (403, True)
    assert len(endpoint.requests) == 4


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.2", "example.org", ""])
def test_it_does_not_listen_beyond_this_machine_without_a_key(host: str) -> None:
    with pytest.raises(InputError, match=r"host=.*add one"):
        GatewayConfig(UPSTREAM, host=host)
    assert GatewayConfig(UPSTREAM, host=host, keys=KEYS["keys"]).host == host
    assert not is_loopback(host)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.3.2.1", "::1", "localhost"])
def test_it_listens_on_this_machine(host: str) -> None:
    assert GatewayConfig(UPSTREAM, host=host).host == host


def test_keys_are_random_and_kept_as_hashes() -> None:
    made = {new_key() for _ in range(10)}
    assert len(made) == 10 and all(len(key) > 40 for key in made)
    key = given_key(KEY)
    assert KEY not in repr(key) and key.sha256 not in repr(key) and key.sha256 == digest(KEY)
    with pytest.raises(InputError, match="16 characters"):
        given_key("short")


# the file of settings


def written(folder: Path, text: str) -> Path:
    file = folder / "gateway.toml"
    file.write_text(text)
    return file


def test_settings_are_read_from_a_file(tmp_path: Path) -> None:
    text = f"""
        upstream = "{UPSTREAM}"
        port = 9501
        budget = "1e6tok,60s"
        price = "0.15/0.60"
        bank = "bank.db"
        [keys.ann]
        sha256 = "{digest(KEY)}"
        budget = "5usd"
        requests_per_minute = 60
        sees_all = true
    """
    ann = Key("ann", digest(KEY), Budget(dollars=5), 60, sees_all=True)
    assert GatewayConfig(**read_config(written(tmp_path, text))) == GatewayConfig(
        UPSTREAM,
        port=9501,
        budget=Budget(tokens=1_000_000, seconds=60),
        price=Price(0.15, 0.60),
        bank="bank.db",
        keys=(ann,),
    )


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("upstream = 7", "write upstream = "),
        ("port = true", "type int"),
        ("prot = 1", "did you mean 'port'"),
        ("upstream_key = 'sk-1'", "THINKTIME_API_KEY"),
        ("budget = '1000'", "4000tok"),
        ("keys = ['a']", r"\[keys.alice\]"),
        ("[keys.ann]\nkey = 'x'", "sha256"),
        ("[keys.ann]\nsha256 = 'short'", "64 hexadecimal"),
        (f"[keys.ann]\nsha256 = '{'0' * 64}'\nrate = 1", "requests_per_minute"),
        (f"[keys.ann]\nsha256 = '{'0' * 64}'\nrequests_per_minute = 0", "1 or more"),
        (f"[keys.ann]\nsha256 = '{'0' * 64}'\nrequests_per_minute = true", "type int"),
        (f"[keys.ann]\nsha256 = '{'0' * 64}'\nsees_all = 1", "type bool"),
        (f"[keys.ann]\nsha256 = '{'0' * 64}'\nbudget = '1e9flops'", "report no FLOPs"),
        (f"[keys.'(all)']\nsha256 = '{'0' * 64}'", "rename it"),
        ("upstream = ", "cannot read it as TOML"),
    ],
)
def test_an_invalid_setting_is_reported(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises((InputError, UnknownNameError), match=says) as received:
        read_config(written(tmp_path, text))
    assert "sk-1" not in str(received.value) and "\n" not in str(received.value)


@pytest.mark.parametrize("settings", [{"upstream": "localhost:80"}, {"upstream": "http://u:sk@host/v1"}, {"port": -1}])
def test_an_invalid_gateway_is_reported_before_it_listens(settings: dict[str, Any]) -> None:
    with pytest.raises(InputError) as received:
        GatewayConfig(**({"upstream": UPSTREAM} | settings))
    assert "u:sk" not in str(received.value)


# the bank, the counters, the program


def test_samples_go_to_the_bank_under_the_trace_of_their_answer(start_gateway: Start, tmp_path: Path) -> None:
    _, gateway = start_gateway({"bank": tmp_path / "bank.db"}, n="ignored")
    traces = [gateway.ask({**VOTE, "seed": 4})[1]["thinktime"]["trace"] for _ in range(2)]
    assert traces[0] == traces[1]
    gateway.__exit__()
    with Bank(tmp_path / "bank.db") as kept:
        samples = kept.samples_of(traces[0])
        assert len(samples) == 8 and all("answer is" in sample["state"]["text"] for sample in samples)


def test_banked_samples_are_not_requested_again(start_gateway: Start, tmp_path: Path) -> None:
    endpoint, gateway = start_gateway({"bank": tmp_path / "bank.db"}, n="ignored")
    first, second = (gateway.ask({**VOTE, "seed": 4, "stream": False})[1] for _ in range(2))
    assert len(endpoint.requests) == 8 and first["choices"] == second["choices"]
    assert first["usage"] == second["usage"]


def test_counters_have_requests_by_method_and_spending_by_key(start_gateway: Start) -> None:
    ann, *others = KEYS["keys"]
    endpoint, gateway = start_gateway({"keys": (replace(ann, sees_all=True), *others)}, probed=False)
    gateway.ask(VOTE, **bearer(KEY))
    gateway.ask({**VOTE, "model": "majority:k=1/words"}, **bearer(KEY))
    gateway.ask(PLAIN, **bearer(OTHER))
    for model in ("words", "single/words", "majority:n=2/words"):
        _text(gateway, {**PLAIN, "model": model, "stream": True, "stream_options": {"include_usage": True}}, KEY)
    lines = _text(gateway, None, KEY).splitlines()
    pairs = [line.rpartition(" ") for line in lines if line.startswith("thinktime")]
    counters = {name: float(value) for name, _, value in pairs}
    path = 'path="/v1/chat/completions"'
    assert counters[f'thinktime_requests_total{{{path},status="200",strategy="majority"}}'] == 2
    assert counters[f'thinktime_requests_total{{{path},status="200",strategy=""}}'] == 2
    assert counters["thinktime_clients_left_total"] == 0 and counters["thinktime_requests_in_flight"] == 0
    assert counters[f'thinktime_requests_total{{{path},status="400",strategy=""}}'] == 1
    spent = sum(counters[f'thinktime_spent_total{{key="{key}",what="generated_tokens"}}'] for key in ("ann", "bob"))
    probes = counters['thinktime_spent_total{key="(model probes)",what="generated_tokens"}']
    assert spent + probes == endpoint.generated_tokens and probes > 0
    assert _text(gateway, None, "wrong").startswith("HTTP Error 401")


def test_health_needs_no_key_and_no_upstream() -> None:
    with Serving(UPSTREAM, **KEYS) as gateway, urllib.request.urlopen(gateway.url.replace("/v1", "/health")) as reply:
        assert json.loads(reply.read()) == {"status": "ok"}


def test_the_program_serves_until_a_signal_stops_it(tmp_path: Path) -> None:
    with Running() as endpoint:
        file = written(tmp_path, f'upstream = "{endpoint.url}"\nmax_tokens = 50')
        program = serve("--config", str(file), "--port", "0", THINKTIME_GATEWAY_KEY=KEY)
        assert program.stdout is not None
        line = program.stdout.readline()
        url = re.match(r"(http://127.0.0.1:\d+/v1) in front of http", line)
        assert url is not None, line
        request = urllib.request.Request(
            f"{url[1]}/chat/completions", json.dumps({**VOTE, "max_tokens": None}).encode()
        )
        for name, value in {"Content-Type": "application/json", **bearer(KEY)}.items():
            request.add_header(name, value)
        with urllib.request.urlopen(request, timeout=PATIENCE) as reply:
            assert json.loads(reply.read())["thinktime"]["samples"] == 8
        assert endpoint.requests[-1]["max_tokens"] == 50
        program.send_signal(signal.SIGTERM)
        out, err = program.communicate(timeout=PATIENCE)
    assert (out, err) == ("", "")


def test_the_program_selects_by_a_judge_and_counts_its_tokens() -> None:
    with Running(n="ignored") as endpoint, Running(says=["Fine. 3", "Good. 9"]) as judge:
        judging = ("--scorer", judge.url, "--scorer-name", "other-words")
        program = serve("--upstream", endpoint.url, "--port", "0", *judging)
        assert program.stdout is not None
        url = program.stdout.readline().split()[0]
        body = json.dumps({**VOTE, "model": "best_of_n:n=4/words"}).encode()
        for _ in range(2):  # both endpoints are probed before the first answer
            endpoint.prompt_tokens = endpoint.generated_tokens = judge.prompt_tokens = judge.generated_tokens = 0
            judge.requests.clear()
            request = urllib.request.Request(f"{url}/chat/completions", body, {"Content-Type": "application/json"})
            with urllib.request.urlopen(request, timeout=PATIENCE) as reply:
                answer = json.loads(reply.read())
        program.send_signal(signal.SIGTERM)
        out, err = program.communicate(timeout=PATIENCE)
    assert (out, err) == ("", "")
    account, usage = answer["thinktime"]["account"], answer["usage"]
    assert (account["scorer_calls"], len(judge.requests)) == (4, 4)
    assert account["scorer_tokens"] == judge.prompt_tokens + judge.generated_tokens > 0
    assert usage["total_tokens"] == endpoint.prompt_tokens + endpoint.generated_tokens
    assert all(body["model"] == "other-words" and "what is 3 + 4" in str(body["messages"]) for body in judge.requests)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--upstream", UPSTREAM, "--drain", "3tok"), "drain='3tok'"),
        ((), "give --upstream"),
        (("--upstream", "nonsense"), "upstream='nonsense': write http://host:port/v1\n"),
        (("--upstream", UPSTREAM, "--host", "0.0.0.0"), "host='0.0.0.0'"),
        (("--upstream", UPSTREAM, "--key", "short"), "16 characters"),
        (("--upstream", UPSTREAM, "--budget", "much"), "budget='much'"),
        (("--upstream", UPSTREAM, "--scorer", "pocket", "--scorer-name", "words"), "scorer_name='words'"),
        (("--upstream", UPSTREAM, "--scorer", "http://127.0.0.1:9/v1"), "cannot be reached"),
    ],
)
def test_the_program_refuses_bad_options_in_one_line(
    options: tuple[str, ...], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in NO_KEYS.items():
        monkeypatch.setenv(name, value)
    code, out, err = ran("serve", *options)
    assert code in (1, 2)
    assert out == "" and says in err and err.count("\n") == 1


def test_a_port_that_is_taken_is_reported_in_one_line() -> None:
    with Serving(UPSTREAM) as gateway:
        port = gateway.url.split(":")[2].removesuffix("/v1")
        out, err = serve("--upstream", UPSTREAM, "--port", port).communicate(timeout=PATIENCE)
    assert out == "" and "cannot listen at '127.0.0.1'" in err and err.count("\n") == 1


def test_the_program_makes_keys_for_its_configuration_file(tmp_path: Path) -> None:
    code, out, _ = ran("serve", "--new-key")
    assert code == 0
    key, _, table = out.partition("\n\n")
    (made,) = read_config(written(tmp_path, table))["keys"]
    assert made.sha256 == digest(key) and made.requests_per_minute == 60
