"""The gateway as a process: its start, its readiness, and its end."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import threading
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from fake_endpoint import Running
from gateway_server import KEY, PLAIN, VOTE, Serving, Start, serve
from waiting import PATIENCE, eventually

from thinktime.gateway import upstream
from thinktime.gateway.config import digest
from thinktime.gateway.server import upstream_problem

UPSTREAM = "http://127.0.0.1:9/v1"


@pytest.mark.parametrize(
    ("path", "says"), [("", "most servers want "), (":9/v1", "cannot be reached"), ("/v1", "rejects the key")]
)
def test_the_start_warns_of_an_upstream_that_does_not_answer_as_one(path: str, says: str) -> None:
    with Running(key="right" if path == "/v1" else None) as endpoint:
        root = endpoint.url.removesuffix("/v1")
        url = f"http://127.0.0.1{path}" if path == ":9/v1" else root + path
        problem = asyncio.run(upstream_problem(url, "wrong"))
        assert problem is not None and says in problem and "\n" not in problem
        assert asyncio.run(upstream_problem(endpoint.url, "right")) is None


def listens(url: str) -> bool:
    """Whether a server accepts connections."""
    address = urlsplit(url)
    with socket.socket() as connection:
        return connection.connect_ex((str(address.hostname), address.port)) == 0


@pytest.mark.parametrize("drain", ["0.2s", "30s"])
def test_running_requests_end_by_themselves_or_get_a_reply_when_the_server_stops(drain: str) -> None:
    with Running(silent="words") as endpoint:
        program = serve("--upstream", endpoint.url, "--port", "0", "--drain", drain)
        assert program.stdout is not None
        url = program.stdout.readline().split()[0]
        replies: list[tuple[int, str]] = []

        def ask(path: str) -> None:
            request = urllib.request.Request(f"{url}/{path}", json.dumps(PLAIN).encode())
            request.add_header("Content-Type", "application/json")
            try:
                with urllib.request.urlopen(request, timeout=PATIENCE) as reply:
                    replies.append((reply.status, path))
            except urllib.error.HTTPError as error:
                body = json.loads(error.read())
                replies.append((error.code, path))
                assert "the gateway stops" in body["error"]["message"] and ("type" in body) == (path == "messages")

        asking = [threading.Thread(target=ask, args=(path,)) for path in ("chat/completions", "messages")]
        for thread in asking:
            thread.start()
        assert eventually(lambda: len(endpoint.requests) == 2)
        program.send_signal(signal.SIGTERM)
        assert eventually(lambda: not listens(url))
        if drain == "30s":
            endpoint.silent = ""
        for thread in asking:
            thread.join(PATIENCE)
        out, err = program.communicate(timeout=PATIENCE)
    status = 503 if drain == "0.2s" else 200
    assert sorted(replies) == [(status, "chat/completions"), (status, "messages")]
    assert (out, err) == ("", "")


@pytest.mark.parametrize("model", ["majority", "majority:n=3", "majority@500tok"])
def test_a_method_without_a_model_is_refused(start_gateway: Start, model: str) -> None:
    endpoint, gateway = start_gateway()
    status, answer, _ = gateway.ask({**PLAIN, "model": model})
    assert (status, answer["error"]["param"]) == (400, "model") and f"{model}/NAME" in answer["error"]["message"]
    assert endpoint.requests == []


def test_it_is_ready_as_long_as_its_upstream_answers(start_gateway: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upstream, "READY_SECONDS", 0.0)
    _, gateway = start_gateway()
    assert json.loads(gateway.page("/ready")) == {"status": "ok"}
    with Serving(UPSTREAM) as lonely, pytest.raises(urllib.error.HTTPError) as refused:
        lonely.page("/ready")
    assert refused.value.code == 503


@pytest.mark.parametrize("form", ["text", "json"])
def test_the_log_has_a_line_for_each_request_if_asked_for(form: str) -> None:
    with Running() as endpoint:
        program = serve("--upstream", endpoint.url, "--port", "0", "--access-log", "--log-format", form)
        assert program.stdout is not None
        url = program.stdout.readline().split()[0]
        request = urllib.request.Request(f"{url}/chat/completions", json.dumps(VOTE).encode())
        request.add_header("Content-Type", "application/json")
        with urllib.request.urlopen(request, timeout=PATIENCE) as reply:
            tokens = json.loads(reply.read())["usage"]["completion_tokens"]
        program.send_signal(signal.SIGTERM)
        _, err = program.communicate(timeout=PATIENCE)
    (line,) = err.splitlines()
    found = {"path": "/v1/chat/completions", "status": 200, "strategy": "majority", "key": "anybody", "tokens": tokens}
    if form == "json":
        assert found.items() <= json.loads(line).items()
    else:
        assert all(f"{name}={value}" in line for name, value in found.items())


def test_settings_come_from_the_environment_and_are_printed_without_secrets(tmp_path: Path) -> None:
    file = tmp_path / "gateway.toml"
    file.write_text(f'max_tokens = 50\n[keys.ann]\nsha256 = "{digest(KEY)}"\nbudget = "90tok"')
    environment = {"UPSTREAM": UPSTREAM, "PORT": "9000", "CONFIG": str(file), "BUDGET": "5usd", "API_KEY": KEY}
    environment |= {"ACCESS_LOG": "1", "DRAIN": "2s", "LOG_FORMAT": "json", "MAX_TOKENS": "70"}
    program = serve(
        "--print-config", "--port", "0", **{f"THINKTIME_{name}": value for name, value in environment.items()}
    )
    out, err = program.communicate(timeout=PATIENCE)
    shown = json.loads(out)
    assert (program.returncode, err) == (0, "") and KEY not in out and digest(KEY) not in out
    assert (shown["upstream"], shown["port"], shown["max_tokens"]) == (UPSTREAM, 0, 70)  # options win, then these
    assert (shown["budget"], shown["drain_seconds"], shown["access_log"]) == ({"dollars": 5.0}, 2.0, True)
    (key,) = shown["keys"]
    assert (key["name"], key["budget"], shown["upstream_key"]) == ("ann", {"tokens": 90}, "…")
