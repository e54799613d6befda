"""The gateway as a process: its start, its readiness, and its end."""

from __future__ import annotations

import asyncio
import json
import signal
import threading
import urllib.error
import urllib.request

import pytest
from fake_endpoint import Running
from gateway_server import PLAIN, Serving, Start, serve
from waiting import PATIENCE, eventually

from thinktime.gateway import upstream
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


@pytest.mark.parametrize("drain", ["0.2s", "30s"])
def test_running_requests_end_by_themselves_or_get_a_reply_when_the_server_stops(drain: str) -> None:
    with Running(latency=2.0) as endpoint:
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
