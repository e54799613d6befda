"""An upstream that fails in many ways: a failure is reported as an error, and one bad sample costs one sample."""

from __future__ import annotations

import http.client
import json
from typing import Any

import pytest
from fake_endpoint import FakeEndpoint
from gateway_server import PLAIN, VOTE, Serving, Start, probe_first
from waiting import PATIENCE, eventually

from thinktime.gateway import calls


@pytest.mark.parametrize("fault", ["garbage", "cut", "html", "no choices", "no finish", "no text", "deep", "moved"])
def test_one_bad_sample_of_eight_costs_that_sample_only(start_gateway: Start, fault: str) -> None:
    endpoint, gateway = start_gateway(n="ignored")
    endpoint.faults.extend(["", "", fault])
    status, answer, _ = gateway.ask(VOTE)
    received = answer["thinktime"]
    assert (status, received["samples"], received["failed"], received["finish"]) == (200, 7, 1, "done")
    assert len(endpoint.requests) == 8 and received["answer"] in "789"


@pytest.mark.parametrize("fault", ["500", "503", "429"])
def test_one_refused_request_of_eight_is_retried_alone(start_gateway: Start, fault: str) -> None:
    endpoint, gateway = start_gateway(n="ignored")
    endpoint.faults.extend(["", "", fault, "", "", "", "", "", fault])
    status, answer, _ = gateway.ask(VOTE)
    assert (status, answer["thinktime"]["samples"], answer["thinktime"]["failed"]) == (200, 8, 0)
    assert len(endpoint.requests) == 10
    usage = answer["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"]) == (endpoint.prompt_tokens, endpoint.generated_tokens)


@pytest.mark.parametrize(("n", "requests"), [("ignored", 8), ("refused", 9)])
def test_if_the_upstream_refuses_n_later_samples_are_requested_one_by_one(
    start_gateway: Start, n: str, requests: int
) -> None:
    endpoint, gateway = start_gateway()
    endpoint.n = n
    answer = gateway.ask(VOTE)[1]
    assert answer["thinktime"]["samples"] == 8 and len(endpoint.requests) == requests
    assert answer["usage"]["completion_tokens"] == endpoint.generated_tokens


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("model", ["majority:n=8/words", "single/words"])
@pytest.mark.parametrize(
    ("fault", "status", "kind"),
    [("429:0", 429, "rate_limit_error"), ("500", 500, "server_error"), ("503:0", 503, "server_error")]
    + [(fault, 502, "server_error") for fault in ("garbage", "html", "no choices")],
)
def test_an_error_of_the_upstream_is_returned_with_its_status(
    start_gateway: Start, fault: str, status: int, kind: str, model: str, stream: bool
) -> None:
    endpoint, gateway = start_gateway(n="ignored")
    endpoint.faults.extend([fault] * 60)
    found, answer, headers = gateway.ask({**PLAIN, "model": model, "stream": stream})
    assert (found, answer["error"]["type"]) == (status, kind) and "choices" not in answer
    assert ("retry-after" in headers) == fault.endswith(":0")
    assert "127.0.0.1" not in answer["error"]["message"] and "\n" not in answer["error"]["message"]
    assert answer["thinktime"]["finish"] == "error" and answer["thinktime"]["account"]["model_calls"] > 0


def test_samples_without_text_give_no_answer(start_gateway: Start) -> None:
    endpoint, gateway = start_gateway(n="ignored")
    endpoint.faults.extend(["no text"] * 16)
    status, answer, _ = gateway.ask(VOTE)
    assert (status, answer["error"]["type"]) == (502, "server_error") and "no text" in answer["error"]["message"]


def test_a_long_retry_after_is_passed_to_the_client(start_gateway: Start) -> None:
    endpoint, gateway = start_gateway()
    endpoint.faults.append("429:77")
    status, answer, headers = gateway.ask(VOTE)
    assert (status, headers["retry-after"], len(endpoint.requests)) == (429, "77", 1)
    assert answer["thinktime"]["account"]["generated_tokens"] == 0


def test_the_gateway_waits_for_a_short_retry_after(start_gateway: Start) -> None:
    endpoint, gateway = start_gateway()
    endpoint.faults.extend(["429:0.01", "503"])
    assert gateway.ask(VOTE)[0] == 200 and len(endpoint.requests) == 3


@pytest.mark.parametrize(("fault", "status"), [("429:7", 429), ("500", 500), ("moved", 301), ("html", 200)])
def test_a_request_without_a_method_gets_the_upstreams_own_error(start_gateway: Start, fault: str, status: int) -> None:
    endpoint, gateway = start_gateway()
    endpoint.faults.append(fault)
    found, text, headers = raw(gateway, PLAIN)
    assert found == status and len(endpoint.requests) == 1
    assert (headers.get("retry-after") == "7") == (fault == "429:7")
    assert (b"<html>" in text) == (fault in ("moved", "html"))


def test_an_unreachable_upstream_is_a_502(start_gateway: Start) -> None:
    with Serving("http://127.0.0.1:9/v1") as gateway:
        for model in ("words", "single/words"):
            status, answer, _ = gateway.ask({**PLAIN, "model": model})
            assert (status, answer["error"]["type"]) == (502, "server_error")
            assert "cannot be reached" in answer["error"]["message"]
        assert gateway.ask(b"", "models")[0] == 502


def test_a_gateway_key_that_the_upstream_rejects_is_a_502(start_gateway: Start) -> None:
    _, gateway = start_gateway({"upstream_key": "sk-of-the-gateway"}, probed=False, key="another")
    status, answer, _ = gateway.ask(VOTE)
    assert status == 502 and "sk-of-the-gateway" not in json.dumps(answer)


def test_unknown_models_and_long_prompts_are_client_errors(start_gateway: Start) -> None:
    endpoint, gateway = start_gateway()
    status, answer, _ = gateway.ask({**VOTE, "model": "majority/nothing"})
    assert (status, answer["error"]["code"]) == (404, "model_not_found") and "words" in answer["error"]["message"]
    endpoint.context = 20
    status, answer, _ = gateway.ask(VOTE)
    assert (status, answer["error"]["code"]) == (400, "context_length_exceeded")
    endpoint.context, endpoint.refuses = 10_000, ("frobnicate",)
    status, answer, _ = gateway.ask({**VOTE, "frobnicate": 1})
    assert status == 400 and "unknown field frobnicate" in answer["error"]["message"]


def test_if_all_samples_are_cut_the_first_one_is_returned_as_incomplete(start_gateway: Start) -> None:
    endpoint, gateway = start_gateway(n="ignored")
    endpoint.faults.append("no text")  # the first sample is empty
    status, answer, _ = gateway.ask({**VOTE, "max_tokens": 3})
    choice = answer["choices"][0]
    assert (status, choice["finish_reason"], answer["thinktime"]["finish"]) == (200, "length", "incomplete")
    assert len(choice["message"]["content"].split()) == 3


def test_many_requests_to_a_host_name_run_at_once(start_gateway: Start) -> None:
    endpoint, _ = start_gateway(n="ignored")
    with Serving(f"http://localhost:{endpoint.port}/v1") as gateway:
        probe_first(endpoint, gateway)
        status, answer, _ = gateway.ask({**VOTE, "model": "majority:n=1000/words"})
        assert (status, answer["thinktime"]["samples"]) == (200, 1000)
        endpoint.latency, endpoint.connections = 3600.0, 0
        endpoint.requests.clear()
        crowd = [_sent(gateway, VOTE) for _ in range(32)]
        assert eventually(lambda: len(endpoint.requests) == 256)  # no request waits for another
        crowd.append(_sent(gateway, {**VOTE, "model": "majority:n=744/words"}))
        assert eventually(lambda: len(endpoint.requests) == 1000)
        for connection in crowd:
            connection.close()
        assert eventually(lambda: endpoint.left == 1000)
        endpoint.latency = 0.0
        assert gateway.ask(VOTE)[0] == 200


# clients that disconnect


def raw(gateway: Serving, body: dict[str, Any]) -> tuple[int, bytes, dict[str, str]]:
    connection = _sent(gateway, body)
    reply = connection.getresponse()
    try:
        return reply.status, reply.read(), {name.lower(): value for name, value in reply.headers.items()}
    finally:
        connection.close()


def _sent(gateway: Serving, body: dict[str, Any]) -> http.client.HTTPConnection:
    connection = http.client.HTTPConnection(gateway.url.split("/")[2], timeout=PATIENCE)
    connection.request("POST", "/v1/chat/completions", json.dumps(body), {"Content-Type": "application/json"})
    return connection


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("model", "requests"), [("majority:n=8/words", 8), ("single/words", 1), ("words", 1)])
def test_a_disconnected_client_ends_its_upstream_requests(
    start_gateway: Start, model: str, requests: int, stream: bool
) -> None:
    endpoint, gateway = start_gateway(n="ignored")
    endpoint.latency = 3600.0
    connection = _sent(gateway, {**PLAIN, "model": model, "stream": stream})
    assert eventually(lambda: len(endpoint.requests) == requests)
    connection.close()
    assert eventually(lambda: endpoint.left == requests)
    assert eventually(lambda: gateway.gateway.metrics.value("clients_left_total") == 1)
    spent = gateway.gateway.auth.ledger.spent
    assert spent.uncounted_calls == requests


@pytest.mark.parametrize("model", ["single/words", "words"])
def test_a_client_that_disconnects_in_a_stream_ends_it_upstream(start_gateway: Start, model: str) -> None:
    endpoint, gateway = start_gateway()
    endpoint.sprint = 3
    connection = _sent(gateway, {**PLAIN, "model": model, "stream": True})
    assert connection.getresponse().read(10)
    connection.close()
    assert eventually(lambda: endpoint.left == 1)


def test_a_stream_sends_comments_in_silence_and_ends_with_done(
    start_gateway: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calls, "SILENCE", 0.01)
    endpoint, gateway = start_gateway()
    endpoint.latency = 1.0
    text = raw(gateway, {**VOTE, "stream": True})[1]
    assert calls.WAITING in text and text.endswith(b"data: [DONE]\n\n")


def test_a_stream_that_breaks_off_ends_in_an_error(start_gateway: Start) -> None:
    endpoint, gateway = start_gateway()
    for fault in ("cut", "broken"):
        endpoint.faults.append(fault)
        status, text, _ = raw(gateway, {**PLAIN, "model": "single/words", "stream": True})
        events = [json.loads(line[6:]) for line in text.splitlines() if line.startswith(b"data: ")]
        assert status == 200 and b"[DONE]" not in text and events[-1]["error"]["type"] == "server_error"
        assert events[-1]["thinktime"]["account"]["uncounted_calls"] == 1
    endpoint.faults.append("cut")
    with pytest.raises(http.client.IncompleteRead):
        raw(gateway, {**PLAIN, "stream": True})


def untouched(endpoint: FakeEndpoint, body: dict[str, Any]) -> bytes:
    connection = http.client.HTTPConnection("127.0.0.1", endpoint.port, timeout=PATIENCE)
    connection.request("POST", "/v1/chat/completions", json.dumps(body), {"Content-Type": "application/json"})
    return connection.getresponse().read()


def test_a_stream_without_a_method_is_forwarded_byte_for_byte(start_gateway: Start) -> None:
    endpoint, gateway = start_gateway()
    body = {**PLAIN, "stream": True, "seed": 3, "n": 2}
    assert raw(gateway, body)[1] == untouched(endpoint, body)
    assert raw(gateway, {**body, "stream": False})[1] == untouched(endpoint, {**body, "stream": False})
