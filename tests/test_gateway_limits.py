"""Limits in bytes, seconds and counts: a client that is slow, silent or sends too much harms no other client."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import re
import resource
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from fake_endpoint import written, written_stream
from gateway_server import PLAIN, VOTE, Serving, Start, answered
from waiting import PATIENCE, eventually

from thinktime.core.errors import InputError
from thinktime.core.usage import Budget
from thinktime.gateway import auth, calls, connections, server, upstream
from thinktime.gateway.auth import FailedKeys
from thinktime.gateway.config import GatewayConfig, Key, digest, read_config
from thinktime.gateway.connections import FILES, Connection, LogLimit, shares
from thinktime.gateway.errors import HttpError
from thinktime.gateway.limits import (
    ADDRESSES,
    FAILURES_EACH,
    FREE_FAILURES,
    HEAD,
    HEADERS,
    LEAST_READ,
    LOG_LINES,
    LONGEST_FAILURE,
    SPARE,
)
from thinktime.models.remote.client import RemoteError
from thinktime.models.remote.limits import SMALL, Room, Share

KEY, OTHER = "a key of more than sixteen letters", "another key of more letters"
CHAT = "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


@contextmanager
def connected(gateway: Serving, sent: bytes = b"") -> Iterator[socket.socket]:
    """A bare connection to the gateway."""
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.settimeout(PATIENCE)
        client.connect(("127.0.0.1", int(gateway.url.split("/")[2].partition(":")[2])))
        client.sendall(sent)
        yield client


def whole(client: socket.socket) -> bytes:
    """All that comes until the connection is closed."""
    parts = []
    try:
        while part := client.recv(65536):
            parts.append(part)
    except ConnectionResetError:
        pass
    return b"".join(parts)


def request(body: object, headers: str = "", length: int | None = None) -> bytes:
    raw = json.dumps(body).encode()
    return f"{CHAT}{headers}Content-Length: {length or len(raw)}\r\n\r\n".encode() + raw


def http(gateway: Serving) -> Any:
    """The HTTP server."""
    return gateway._server


def health(gateway: Serving) -> int:
    with urllib.request.urlopen(gateway.url.replace("/v1", "/health"), timeout=PATIENCE) as reply:
        return int(reply.status)


def free(gateway: Serving) -> bool:
    """Whether no request holds a part of any budget, of memory, or of the samples."""
    clients = gateway.gateway.auth.clients
    ledgers = [gateway.gateway.auth.ledger, *(client.ledger for client in clients)]
    return all(ledger._reserved.model_calls == 0 for ledger in ledgers)


# slow and silent clients


HEALTH = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.mark.parametrize(
    ("sent", "statuses"),
    [
        (HEALTH, [b"200"]),
        (HEALTH + b"GET /health HTT", [b"200", b"408"]),
        (HEALTH + b"GET /health HTTP/1.1\r\nHost: localhost\r\nX-Slow: ", [b"200", b"408"]),
        (request(PLAIN, length=10_000), [b"408"]),
        (CHAT.encode() + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", [b"408"]),
        (b"POST /nowhere HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99\r\n\r\nhello", [b"404"]),
    ],
)
def test_slow_heads_and_bodies_are_dropped_after_their_time(
    start_gateway: Start, monkeypatch: pytest.MonkeyPatch, sent: bytes, statuses: list[bytes]
) -> None:
    endpoint, gateway = start_gateway(probed=False)
    with connected(gateway) as client:
        assert eventually(lambda: http(gateway).config.waiting)
        monkeypatch.setattr(connections, "HEAD_SECONDS", 0.05)
        monkeypatch.setattr(connections, "BODY_SECONDS", 0.05)
        client.sendall(sent)
        reply = whole(client)  # until the gateway closes the connection
    assert re.findall(rb"HTTP/1.1 (\d+)", reply) == statuses and not endpoint.requests
    assert eventually(lambda: gateway.gateway.metrics.value("requests_in_flight") == 0)


def test_a_silent_connection_is_closed(start_gateway: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "HEAD_SECONDS", 0.05)
    _, gateway = start_gateway(probed=False)
    with connected(gateway) as client:
        assert whole(client) == b""


def test_a_client_that_waits_for_its_answer_has_no_time_limit(start_gateway: Start) -> None:
    endpoint, gateway = start_gateway()
    endpoint.latency = 3600.0
    with connected(gateway, request(PLAIN)):
        assert eventually(lambda: endpoint.requests)
        (connection,) = (each for each in http(gateway).server_state.connections if each.cycle.response_started == 0)
        assert connection not in http(gateway).config.waiting and connection._receiving.cancelled()


PART = "\u00e9" * 100_000  # six bytes each in JSON


def big_reply(stream: bool) -> bytes:
    """An answer of seven megabytes, which fits into no socket's buffers."""
    if stream:
        part = {"index": 0, "delta": {"content": PART}, "finish_reason": None}
        end = {"index": 0, "delta": {}, "finish_reason": "stop"}
        return written_stream(*[{"choices": [part]}] * 12, {"choices": [end]})
    message = {"role": "assistant", "content": PART * 12}
    return written({"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]})


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("model", ["words", "single/words"])
def test_a_client_that_does_not_read_is_dropped_and_its_budget_is_free(
    start_gateway: Start, monkeypatch: pytest.MonkeyPatch, model: str, stream: bool
) -> None:
    monkeypatch.setattr(connections, "SEND_SECONDS", 0.1)
    endpoint, gateway = start_gateway({"budget": Budget(tokens=1_000_000)})
    endpoint.sent.append(big_reply(stream))
    with connected(gateway, request({**PLAIN, "model": model, "stream": stream})) as client:
        assert eventually(lambda: endpoint.requests)
        assert eventually(lambda: gateway.gateway.metrics.value("requests_in_flight") == 0 and free(gateway))
        assert eventually(lambda: not any(each.cycle for each in list(http(gateway).server_state.connections)))
        assert len(whole(client)) < len(PART) * 72  # it is closed in the middle of the answer
    assert gateway.ask({**PLAIN, "model": model})[0] == 200


def test_a_client_that_reads_slowly_has_more_time() -> None:
    sizes = [5 * LEAST_READ, 3 * LEAST_READ, 2 * LEAST_READ, LEAST_READ, LEAST_READ - 1]
    aborted: list[bool] = []
    connection = Connection.__new__(Connection)
    connection._queue, connection._unsent = {}, sizes.pop(0)
    connection.transport = cast(
        Any, SimpleNamespace(get_write_buffer_size=sizes[0].__int__, abort=lambda: aborted.append(True))
    )
    connection.loop = cast(Any, SimpleNamespace(call_later=lambda seconds, call: None))
    for size in sizes:
        assert not aborted
        connection.transport.get_write_buffer_size = size.__int__  # type: ignore[method-assign]
        connection._check_reading()
    assert aborted


# connections


def test_idle_connections_make_room_for_new_ones(start_gateway: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "shares", lambda: (16, 16))
    _, gateway = start_gateway()
    with ExitStack() as stack:
        idle = [stack.enter_context(connected(gateway, b"GET /health HTT")) for _ in range(30)]
        assert health(gateway) == 200
        assert gateway.ask(VOTE)[0] == 200
        assert whole(idle[0]) == b""  # the oldest one was dropped
        idle[-1].sendall(b"P/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        assert whole(idle[-1]).startswith(b"HTTP/1.1 200")


def test_if_all_connections_are_busy_only_health_is_answered(
    start_gateway: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "shares", lambda: (4, 8))
    monkeypatch.setattr(connections, "SPARE", 2)
    endpoint, gateway = start_gateway()
    endpoint.latency = 3600.0
    with ExitStack() as stack:
        for _ in range(4):
            stack.enter_context(connected(gateway, request(PLAIN)))
        assert eventually(lambda: len(endpoint.requests) == 4)
        for _ in range(5):
            stack.enter_context(connected(gateway))
        status, answer, headers = gateway.ask(PLAIN)
        assert (status, answer["error"]["code"], headers["retry-after"]) == (503, "busy", "5")
        assert health(gateway) == 200 and len(endpoint.requests) == 4
        assert len(http(gateway).server_state.connections) <= 6
    endpoint.latency = 0.0
    assert eventually(lambda: endpoint.left == 4)
    assert eventually(lambda: len(http(gateway).server_state.connections) < 4)
    assert gateway.ask(PLAIN)[0] == 200


def test_three_hundred_idle_sockets_under_a_limit_of_256_descriptors_stop_nobody() -> None:
    def few() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))

    command = [sys.executable, "-m", "thinktime", "serve", "--upstream", "http://127.0.0.1:9/v1", "--port", "0"]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, preexec_fn=few, **pipes) as process, ExitStack() as stack:
        assert process.stdout is not None and process.stderr is not None
        try:
            port = int(process.stdout.readline().split("/")[2].rpartition(":")[2])
            for _ in range(300):
                stack.enter_context(socket.create_connection(("127.0.0.1", port), PATIENCE)).send(b"GET")
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=PATIENCE) as reply:
                assert reply.status == 200
        finally:
            process.terminate()
        assert len(process.stderr.read()) < 20_000


def test_descriptors_are_shared_between_clients_upstream_and_files(monkeypatch: pytest.MonkeyPatch) -> None:
    for limit in (64, 256, 1024, 20_000, resource.RLIM_INFINITY):
        monkeypatch.setattr(resource, "getrlimit", lambda _, limit=limit: (limit, limit))
        clients, upstream = shares()
        assert clients >= 1 and upstream >= 1
        if limit > 100:
            assert 2 * clients + upstream + FILES + SPARE <= max(limit, 10_240)


def test_a_line_of_code_logs_few_lines_in_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("thinktime.gateway.connections.time.monotonic", lambda: now)
    limit = LogLimit()

    def logged(line: int) -> str | None:
        record = logging.LogRecord("x", logging.ERROR, "file", line, "fault %d", (7,), None)
        return record.getMessage() if limit.filter(record) else None

    assert [logged(1) for _ in range(500)].count("fault 7") == LOG_LINES and logged(2) == "fault 7"
    now += 11
    assert logged(1) == f"fault 7 ({500 - LOG_LINES} more lines like this)" and logged(1) == "fault 7"


# heads


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"GET /health HTTP/1.1\r\nHost: [\r\n\r\n", b"400"),
        (b"GET /ui HTTP/1.1\r\nHost: [::1\r\n\r\n", b"400"),
        (b"GET /v1/models/ HTTP/1.1\r\nHost: a]b\r\n\r\n", b"400"),
        (b"GET /nowhere HTTP/1.1\r\nHost: //\\\r\n\r\n", b"400"),
        (b"GET /metrics HTTP/1.1\r\nHost: localhost:99999999999\r\n\r\n", b"400"),
        (b"GET /health HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * HEAD + b"\r\n\r\n", b"431"),
        (b"GET /health HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 3 * HEAD + b"\r\n\r\n", b"431"),
        (b"GET /health?" + b"x" * HEAD + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", b"431"),
        (b"GET /health HTTP/1.1\r\nHost: localhost\r\n" + b"X: 1\r\n" * HEADERS + b"\r\n", b"431"),
        (b"nonsense\r\n\r\n", b"400"),
    ],
)
def test_a_bad_head_is_refused(start_gateway: Start, head: bytes, status: bytes) -> None:
    _, gateway = start_gateway(probed=False)
    with connected(gateway, head) as client:
        reply = whole(client)
    assert reply[9:12] == status and b'{"error": {"message": ' in reply and b"Internal" not in reply


@pytest.mark.parametrize(
    "target",
    [
        "/ui/requests?since=" + "9" * 5000,
        "/ui/requests?since=" + "9" * 19,
        "/ui/requests?since=%00",
        "/ui/requests?since=-1",
        "/ui/requests/1?known=" + "9" * 5000,
        "/ui/requests/" + "9" * 5000,
        "/ui/requests/" + "9" * 18,
        "/ui/requests/-1",
        "/ui/requests/x",
        "/ui/%2e%2e%2fui.html",
        "/ui/" + "x" * 5000,
        "/ui/%ff%00",
        "/%ed%a0%80",
        "//",
        "*",
        "http://[/v1/models",
        "/v1/chat/completions?a[&&=%zz",
        "/v1/models/",
        "/v1/" + "%2f" * 3000,
    ],
)
@pytest.mark.parametrize("verb", ["GET", "POST", "OPTIONS", "CONNECT"])
def test_odd_addresses_are_client_errors(odd_gateway: Serving, verb: str, target: str) -> None:
    head = f"{verb} {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    with connected(odd_gateway, head.encode()) as client:
        reply = whole(client)
    assert 300 < int(reply[9:12]) < 500 and len(reply) < 3000
    known = {("/v1/chat/completions", "", "415"), ("/v1/models", "", "502"), ("/v1/models/", "", "400")}
    assert answered(odd_gateway) <= known  # unknown addresses are no labels


@pytest.fixture(scope="module")
def odd_gateway() -> Iterator[Serving]:
    with Serving("http://127.0.0.1:9/v1") as gateway:
        yield gateway


# bodies


def test_the_bodies_of_unfinished_requests_share_a_limit(start_gateway: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auth, "BODIES", 0)
    _, gateway = start_gateway({"max_body": 3 * SMALL})
    long = {**PLAIN, "messages": [{"role": "user", "content": "x" * 2 * SMALL}]}
    with connected(gateway, request(long, length=3 * SMALL)):
        room = gateway.gateway.auth.clients[0].bodies
        assert eventually(lambda: room.free < 2 * SMALL)
        status, answer, headers = gateway.ask(long)
        assert (status, answer["error"]["code"], headers["retry-after"]) == (503, "busy", "5")
        assert gateway.ask(PLAIN)[0] == 200  # a short one needs no room
    assert eventually(lambda: room.free == 3 * SMALL)
    assert gateway.ask(long)[0] == 200 and eventually(lambda: room.free == 3 * SMALL)


def test_a_body_without_a_length_ends_at_the_limit(start_gateway: Start) -> None:
    _, gateway = start_gateway({"max_body": 2 * SMALL})
    piece = b"8000\r\n" + b" " * 0x8000 + b"\r\n"
    with connected(gateway, CHAT.encode() + b"Transfer-Encoding: chunked\r\n\r\n" + piece * 5) as client:
        assert whole(client).startswith(b"HTTP/1.1 413")


@pytest.mark.parametrize(
    ("headers", "body", "status"),
    [
        ("Content-Encoding: gzip\r\n", PLAIN, b"415"),
        ("Content-Encoding: br, gzip\r\n", PLAIN, b"415"),
        ("", {**PLAIN, "x": [0] * 1_000_010}, b"413"),
        ("", {**PLAIN, "model": "x" * 3_000_000}, b"400"),
        ("", {**PLAIN, "model": f"majority:{'x' * 3_000_000}/words"}, b"400"),
        ("", {**PLAIN, "model": f"{'x' * 3_000_000}/words"}, b"400"),
        ("", {**PLAIN, "optillm_approach": "x" * 3_000_000}, b"400"),
        ("", {**PLAIN, "thinktime": "x" * 3_000_000}, b"400"),
        ("", {**PLAIN, "thinktime": {"strategy": "x" * 3_000_000}}, b"400"),
        ("", {**PLAIN, "thinktime": {"strategy": "majority", "x" * 3_000_000: 1}}, b"400"),
        ("", {**PLAIN, "thinktime": {"strategy": "majority", "n": "8" * 3_000_000}}, b"400"),
        ("", {**PLAIN, "thinktime": {"strategy": "majority", "budget": "x" * 3_000_000}}, b"400"),
        ("", {**PLAIN, "thinktime": {"strategy": "majority", "budget": {"x" * 3_000_000: 1}}}, b"400"),
        ("", {**PLAIN, "thinktime": {"strategy": "majority", "models": {"draft": "x" * 3_000_000}}}, b"400"),
        ("", {**VOTE, "max_tokens": "x" * 3_000_000}, b"400"),
        ("Content-Length: 9\r\nX: ", PLAIN, b"400"),
    ],
)
def test_long_texts_in_a_request_are_refused_with_a_short_message(
    start_gateway: Start, headers: str, body: dict[str, Any], status: bytes
) -> None:
    endpoint, gateway = start_gateway()
    with connected(gateway, request(body, f"{headers}Connection: close\r\n")) as client:
        reply = whole(client)
    assert reply[9:12] == status and len(reply) < 6000 and not endpoint.requests
    for entry in gateway.gateway.history.seen_by(gateway.gateway.auth.clients[0]):
        assert len(json.dumps(entry.row())) < 12_000


def test_a_failed_request_leaves_nothing_in_memory(start_gateway: Start) -> None:
    endpoint, gateway = start_gateway({"max_body": 2 * SMALL})
    endpoint.faults.extend(["500"] * 20)
    bodies = [{**PLAIN, "x": "x" * 3 * SMALL}, {**PLAIN, "n": "x"}, {**PLAIN, "model": "single/words"}]
    gc.collect()
    gc.disable()
    try:
        for body in bodies:
            assert gateway.ask(body)[0] >= 400
            assert eventually(lambda: gateway.gateway.metrics.value("requests_in_flight") == 0)
        assert not [found for found in gc.get_objects() if isinstance(found, HttpError | RemoteError)]
    finally:
        gc.enable()


def test_a_long_request_draws_few_samples(start_gateway: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "SENT", 7 * len(json.dumps(VOTE)))
    _, gateway = start_gateway()
    status, answer, _ = gateway.ask(VOTE)
    assert (status, answer["error"]["param"]) == (400, "n") and "7 samples" in answer["error"]["message"]
    assert gateway.ask({**VOTE, "model": "majority:n=7/words"})[0] == 200


def test_the_samples_in_progress_are_limited(start_gateway: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auth, "SAMPLES", 0)
    endpoint, gateway = start_gateway({"max_samples": 10}, n="ignored")
    endpoint.latency = 3600.0
    with connected(gateway, request(VOTE)):
        assert eventually(lambda: len(endpoint.requests) == 8)
        endpoint.latency = 0.0
        status, answer, headers = gateway.ask(VOTE)
        assert (status, answer["error"]["code"], headers["retry-after"]) == (503, "busy", "5")
        assert gateway.ask({**VOTE, "model": "majority:n=2/words"})[0] == 200
    assert eventually(lambda: gateway.gateway.auth.clients[0].samples.free == 10)
    assert gateway.ask(VOTE)[0] == 200


def test_few_models_are_kept_probed(start_gateway: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upstream, "GENERATORS", 1)
    _, gateway = start_gateway()
    for model in ("words", "other-words", "words"):
        assert gateway.ask({**PLAIN, "model": f"single/{model}"})[0] == 200
        assert len(gateway.gateway.upstreams.all[0]._generators) == 1


def test_a_room_is_shared_and_given_back() -> None:
    outer = Room(10)
    inner = Room(8, outer)
    with Share(inner) as one, Share(Room(8, outer)) as two:
        assert one.take(5) and not one.take(4) and two.take(5) and not two.take(1)
        assert (inner.free, outer.free) == (3, 0)
    assert (inner.free, outer.free) == (8, 10)


# time and budgets


@pytest.mark.parametrize("model", ["words", "single/words"])
def test_a_request_ends_after_its_longest_time(start_gateway: Start, model: str) -> None:
    endpoint, gateway = start_gateway({"request_seconds": 300, "budget": Budget(tokens=10_000)})
    (client,) = gateway.gateway.auth.clients
    assert client.timed(Budget()).seconds == 300 and client.timed(Budget(seconds=7)).seconds == 7
    client.limits = (Budget(seconds=0.1),)
    endpoint.faults.append("never")
    status, answer, _ = gateway.ask({**PLAIN, "model": model})
    assert status == 504 and answer["error"]["type"] == "server_error"
    assert free(gateway) and eventually(lambda: endpoint.left == 1)


@pytest.mark.parametrize("model", ["words", "single/words", "majority:n=2/words"])
def test_the_wait_for_a_budget_that_others_reserved_ends(
    start_gateway: Start, monkeypatch: pytest.MonkeyPatch, model: str
) -> None:
    monkeypatch.setattr(auth, "WAIT_SECONDS", 0.1)
    keys = (Key("ann", digest(KEY)), Key("bob", digest(OTHER)))
    endpoint, gateway = start_gateway({"keys": keys, "budget": Budget(tokens=2000)}, probed=False)
    ann, bob = ({"Authorization": f"Bearer {key}"} for key in (KEY, OTHER))
    for name in ("words", "single/words"):
        assert gateway.ask({**PLAIN, "model": name}, **ann)[0] == 200
    endpoint.latency = 3600.0
    held = {**PLAIN, "max_tokens": 1800}
    requests = len(endpoint.requests)
    with connected(gateway, request(held, f"Authorization: Bearer {KEY}\r\n")):
        assert eventually(lambda: len(endpoint.requests) == requests + 1)
        endpoint.latency = 0.0
        status, answer, headers = gateway.ask({**PLAIN, "model": model, "max_tokens": 300}, **bob)
        assert (status, answer["error"]["code"], headers["retry-after"]) == (429, "budget_reserved", "5")
        assert gateway.ask({**PLAIN, "model": model, "max_tokens": 3000}, **bob)[1]["error"]["code"] in (
            "insufficient_quota",
            None,
        )


def test_own_samples_may_take_longer_than_the_wait_for_others(
    start_gateway: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auth, "WAIT_SECONDS", 0.05)
    endpoint, gateway = start_gateway({"budget": Budget(tokens=400)}, probed=False, n="ignored")
    assert gateway.ask({**PLAIN, "model": "single/words"})[0] == 200
    endpoint.latency = 0.15
    status, answer, _ = gateway.ask({**VOTE, "max_tokens": 50})  # its later samples wait for its first ones
    assert status == 200 and answer["thinktime"]["samples"] >= 4


@pytest.mark.parametrize("seconds", [0, -1, float("inf"), float("nan"), 10**400])
def test_the_longest_time_is_a_positive_number(seconds: float) -> None:
    with pytest.raises(InputError, match="request_seconds"):
        GatewayConfig("http://127.0.0.1:9/v1", request_seconds=seconds)


# keys


def test_replies_to_failed_keys_are_slower_and_slower_and_soon_forgotten() -> None:
    failed = FailedKeys()
    delays = [failed.delay(1000.0, "10.0.0.1") for _ in range(100)]
    assert delays[:FREE_FAILURES] == [0.0] * FREE_FAILURES and delays == sorted(delays)
    assert 0 < delays[FREE_FAILURES] < 0.2 and delays[-1] == LONGEST_FAILURE
    assert failed.delay(1000.0, "10.0.0.2") == 0.0  # another address
    assert failed.delay(1200.0, "10.0.0.1") == 0.0


def test_a_network_of_ipv6_is_one_address_and_few_addresses_are_remembered() -> None:
    failed = FailedKeys()
    delays = [failed.delay(1000.0, f"2001:db8::{place:x}") for place in range(100)]
    assert delays[-1] == LONGEST_FAILURE and failed.delay(1000.0, "2001:db8:0:1::1") == 0.0
    for place in range(10_000):
        failed.delay(1000.0, f"10.0.{place // 256}.{place % 256}")
    assert len(failed._by_address) == ADDRESSES


def test_one_address_cannot_take_all_the_places_of_failed_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auth, "FREE_FAILURES", 0)
    monkeypatch.setattr(auth, "FAILURE_SECONDS", 3600.0)

    async def guessing() -> None:
        failed = FailedKeys()
        waits = [asyncio.create_task(failed.wait("10.0.0.1")) for _ in range(FAILURES_EACH + 1)]
        await asyncio.sleep(0)
        assert [type(wait.exception()) for wait in waits if wait.done()] == [HttpError]
        other = asyncio.create_task(failed.wait("10.0.0.2"))
        await asyncio.sleep(0)
        assert not other.done() and failed._waiting == FAILURES_EACH + 1
        for task in (*waits, other):
            task.cancel()
        await asyncio.gather(*waits, other, return_exceptions=True)
        assert failed._waiting == 0

    asyncio.run(guessing())


def test_failed_keys_slow_down_no_known_key(start_gateway: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auth, "LONGEST_FAILURE", 3600.0)
    monkeypatch.setattr(auth, "FAILURE_SECONDS", 3600.0)
    monkeypatch.setattr(auth, "FAILURES_EACH", 3)
    _, gateway = start_gateway({"keys": (Key("ann", digest(KEY)),)}, probed=False)
    wrong = "Authorization: Bearer a wrong key\r\n"
    for _ in range(FREE_FAILURES):
        with connected(gateway, request(PLAIN, f"{wrong}Connection: close\r\n")) as client:
            assert whole(client).startswith(b"HTTP/1.1 401")
    with ExitStack() as stack:
        slow = [stack.enter_context(connected(gateway, request(PLAIN, wrong))) for _ in range(3)]
        assert eventually(lambda: gateway.gateway.auth._failed._waiting == 3)
        with connected(gateway, request(PLAIN, f"{wrong}Connection: close\r\n")) as client:
            assert whole(client).startswith(b"HTTP/1.1 429")
        assert gateway.ask(PLAIN, Authorization=f"Bearer {KEY}")[0] == 200
        for client in slow:
            client.settimeout(0.01)
            with pytest.raises(TimeoutError):
                client.recv(1)
        for task in list(http(gateway).server_state.tasks):
            gateway_loop(gateway).call_soon_threadsafe(task.cancel)


def gateway_loop(gateway: Serving) -> Any:
    return next(iter(http(gateway).server_state.tasks)).get_loop()


# numbers

NUMBERED: dict[str, dict[str, Any]] = {
    "chat/completions": {
        **VOTE,
        "max_completion_tokens": 8,
        "temperature": 1,
        "top_p": 1,
        "seed": 1,
        "n": 1,
        "best_of": 1,
        "presence_penalty": 0,
        "thinktime": None,
        "stream_options": {"include_usage": False},
    },
    "responses": {"model": "majority:n=2/words", "input": "x", "max_output_tokens": 8, "temperature": 1, "top_p": 1},
    "completions": {"model": "majority:n=2/words", "prompt": "x", "max_tokens": 8, "seed": 1, "n": 1, "best_of": 1},
    "messages": {**VOTE, "temperature": 1, "top_p": 1, "thinking": {"type": "enabled", "budget_tokens": 2}},
}
METHOD = {"strategy": "majority", "n": 2, "thinking_tokens": 5}
METHOD |= {"budget": {"tokens": 200, "calls": 9, "seconds": 60, "dollars": 1, "flops": 1, "nfe": 1, "actions": 1}}
HUGE = (str(10**400), str(-(10**400)), "1e400", "1" + "0" * 5000, str(2**63), "NaN")


def numbers_in(body: Any, at: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    if isinstance(body, dict):
        for name, value in body.items():
            yield from numbers_in(value, (*at, name))
    elif isinstance(body, int | float):
        yield at


def with_number(body: Any, at: tuple[str, ...], number: str) -> bytes:
    changed = json.loads(json.dumps(body))
    inner = changed
    for name in at[:-1]:
        inner = inner[name]
    inner[at[-1]] = "NUMBER"
    return json.dumps(changed).replace('"NUMBER"', number).encode()


@pytest.mark.parametrize("number", HUGE)
def test_a_huge_number_in_any_field_of_a_request_is_no_fault_of_the_gateway(start_gateway: Start, number: str) -> None:
    _, gateway = start_gateway()
    bodies = [*NUMBERED.items(), ("chat/completions", {**PLAIN, "thinktime": METHOD})]
    for path, body in bodies:
        for at in numbers_in(body):
            status, answer, _ = gateway.ask(with_number(body, at, number), path)
            assert status in (200, 400), (path, at, answer)
            assert status == 200 or ("\n" not in answer["error"]["message"] and len(answer["error"]["message"]) <= 2000)
    assert gateway.ask(VOTE)[0] == 200


@pytest.mark.parametrize("number", [str(10**400), "1e400", "-1", "1" + "0" * 5000])
@pytest.mark.parametrize(
    "line",
    [
        *(f"{name} = N" for name in ("port", "max_tokens", "max_samples", "max_body", "request_seconds")),
        *('budget = "Ntok"', 'budget = "Nusd"', 'price = "N/N"'),
        '[keys.ann]\nsha256 = "SHA"\nrequests_per_minute = N',
        '[keys.ann]\nsha256 = "SHA"\nbudget = "Ntok"',
    ],
)
def test_a_huge_number_in_the_file_is_one_line(tmp_path: Path, line: str, number: str) -> None:
    file = tmp_path / "gateway.toml"
    file.write_text(line.replace("SHA", digest(KEY)).replace("N", number))
    with pytest.raises(InputError) as refused:
        GatewayConfig("http://127.0.0.1:9/v1", **read_config(file))
    assert "\n" not in str(refused.value) and len(str(refused.value)) < 6000
