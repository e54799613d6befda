"""Upstreams that are hostile, silent or dishonest: requests end in time, others are served, and accounts stay true."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPException
from typing import Any

import pytest
from fake_endpoint import written
from gateway_server import BEARER, MESSAGES, PLAIN, Serving, Start, keyed
from hostile_upstream import WAYS, HostileUpstream, hostile
from waiting import PATIENCE, eventually

from thinktime.core.usage import Budget
from thinktime.gateway import proxy
from thinktime.gateway import upstream as upstreams
from thinktime.gateway.proxy import ReplyReader
from thinktime.models.remote import client as clients
from thinktime.models.remote.client import Client, RemoteError, UnreadableError, parse_object
from thinktime.models.remote.limits import SMALL, VALUES

HONEST = {"model": "honest", "messages": MESSAGES, "max_tokens": 16}


@pytest.fixture
def bad() -> Iterator[HostileUpstream]:
    with hostile() as upstream:
        yield upstream


def test_whatever_an_upstream_sends_requests_end_and_others_are_served(bad: HostileUpstream) -> None:
    def asked(body: dict[str, Any]) -> int:
        """The status of a reply; 0 if it breaks off."""
        try:
            gateway.read(body, Authorization=BEARER["Authorization"])
        except HTTPException:
            return 0
        except OSError as error:
            return int(getattr(error, "code", 0))
        return 200

    ways = [way for way in WAYS if way != "honest"]
    bodies = [
        {**HONEST, "model": method + way, "stream": stream}
        for way in ways
        for method in ("", "single/")
        for stream in (False, True)
    ]
    limited = keyed(Budget(tokens=10**7))
    with Serving(bad.url, request_seconds=5.0, **limited) as gateway, ThreadPoolExecutor(32) as threads:
        began = time.monotonic()
        asking = [threads.submit(asked, body) for body in bodies]
        ledger = gateway.gateway.auth.clients[0].ledger
        served = 0
        while not all(each.done() for each in asking):
            served += gateway.ask(HONEST, **BEARER)[0] == 200
            time.sleep(0.1)
        assert served > 5
        assert time.monotonic() - began < PATIENCE
        others = [(body, each.result()) for body, each in zip(bodies, asking, strict=True)]
        assert [each for each in others if each[1] not in (0, 429, 502, 504)] == []
        assert eventually(lambda: not ledger._reserved.model_calls)
        before = ledger.spent
        assert gateway.ask(HONEST, **BEARER)[0] == 200
        assert (ledger.spent - before).generated_tokens == 4 and (ledger.spent - before).model_calls == 1


def test_a_reply_that_is_not_http_is_charged_and_not_repeated(bad: HostileUpstream) -> None:
    async def error_of(way: str) -> RemoteError:
        client = Client(bad.url)
        try:
            await client.post("chat/completions", {**HONEST, "model": way})
        except RemoteError as error:
            return error
        finally:
            await client.close()
        raise AssertionError(way)

    for way in ("endless trailers", "endless headers", "an endless header", "two lengths", "no HTTP"):
        error = asyncio.run(error_of(way))
        assert isinstance(error, UnreadableError) and error.billed and len(str(error)) < 300, error


def test_a_fast_stream_leaves_turns_to_other_requests_and_has_a_limit_of_events(
    bad: HostileUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clients, "EVENTS", 5000)
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    async def reading() -> str:
        client, counting = Client(bad.url), asyncio.create_task(count())

        async def ignore(event: Any) -> None:
            return None

        try:
            await client.post("chat/completions", {**HONEST, "model": "endless empty events"}, on_event=ignore)
        except RemoteError as error:
            return str(error)
        finally:
            counting.cancel()
            await client.close()
        return ""

    assert "its answer is too long (more than 5000 events)" in asyncio.run(reading())
    assert turns >= 50


def test_a_list_of_models_that_does_not_come_ends_soon(bad: HostileUpstream, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clients, "LISTING_SECONDS", 0.3)
    bad.listing = WAYS["silence"]
    with Serving(bad.url) as gateway, ThreadPoolExecutor(20) as threads:
        began = time.monotonic()
        replies = list(threads.map(lambda _: gateway.ask(b"", "models"), range(20)))
        assert {(status, reply["error"]["code"]) for status, reply, _ in replies} == {(504, "upstream_too_late")}
        assert time.monotonic() - began < PATIENCE and bad.listings <= 2  # concurrent callers share a request
        assert gateway.ask(HONEST)[0] == 200
        assert gateway.ask({**HONEST, "model": "none-honest"})[0] == 200  # an ambiguous name asks for the list


def test_a_probe_ends_with_the_longest_time_of_a_request(bad: HostileUpstream) -> None:
    with Serving(bad.url, **keyed(Budget(tokens=10**6)), request_seconds=0.5) as gateway:
        assert gateway.ask({**HONEST, "model": "single/silence"}, **BEARER)[0] == 504
        ledger = gateway.gateway.auth.clients[0].ledger
        assert eventually(lambda: not ledger._reserved.model_calls)
        assert ledger.spent.uncounted_calls > 0 and gateway.ask(HONEST, **BEARER)[0] == 200


@pytest.mark.parametrize("method", ["", "single/"])
def test_a_silent_model_leaves_connections_for_another_one(
    start_gateway: Start, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    monkeypatch.setattr(upstreams, "shares", lambda: (64, 4))
    endpoint, gateway = start_gateway()
    for model in ("words", "other-words"):
        assert gateway.ask({**PLAIN, "model": method + model})[0] == 200
    endpoint.silent = "other"
    with ThreadPoolExecutor(8) as threads:
        slow = [threads.submit(gateway.ask, {**PLAIN, "model": f"{method}other-words"}) for _ in range(8)]
        assert eventually(lambda: len(endpoint.requests) >= 4)
        assert gateway.ask({**PLAIN, "model": f"{method}words"})[0] == 200
        assert gateway.ask(b"", "models")[0] == 200
        endpoint.silent = ""
        assert [each.result()[0] for each in slow] == [200] * 8


# the account of clients without a budget

SEARCH = {"model": "single/words"}
"""A search probes the endpoint. A request that is passed through uses that probe, and makes none."""


@pytest.mark.parametrize("logprobs", [True, False])
@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("path", ["chat/completions", "completions"])
def test_an_unlimited_client_is_charged_all_samples_of_an_endpoint_that_counts_one(
    start_gateway: Start, path: str, stream: bool, logprobs: bool
) -> None:
    endpoint, gateway = start_gateway(counts_all=False)
    body = {**PLAIN, "n": 4, "stream": stream} if path == "chat/completions" else {"model": "words", "prompt": "3 + 4"}
    body |= {"n": 4, "max_tokens": 64, "stream": stream, "stream_options": {"include_usage": True}}
    body |= {"logprobs": True if path == "chat/completions" else 1} if logprobs else {}
    ledger = gateway.gateway.auth.clients[0].ledger
    gateway.read({name: body[name] for name in body.keys() & {"messages", "prompt", "max_tokens"}} | SEARCH, path)
    before, calls = ledger.spent, ledger.spent.model_calls
    endpoint.generated_tokens = 0
    gateway.read(body, path)
    assert eventually(lambda: ledger.spent.model_calls > calls)
    spent, really = ledger.spent - before, endpoint.generated_tokens
    listed = logprobs and (path, stream) != ("completions", True)  # the streams of this endpoint have none there
    assert really <= spent.generated_tokens <= (really + 4 if listed else 12 * really)
    assert spent.uncounted_calls == (0 if listed else 1)


def test_an_endpoint_that_counts_all_is_charged_by_its_usage(start_gateway: Start) -> None:
    endpoint, gateway = start_gateway()
    assert gateway.ask({**PLAIN, "model": "single/words"})[0] == 200
    ledger, before = gateway.gateway.auth.clients[0].ledger, endpoint.generated_tokens
    spent = ledger.spent
    assert gateway.ask({**PLAIN, "n": 4})[0] == 200
    assert (ledger.spent - spent).generated_tokens == endpoint.generated_tokens - before
    assert not ledger.spent.uncounted_calls


# long replies


def test_a_long_reply_is_parsed_outside_of_the_event_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[int] = []

    def parsing(raw: bytes) -> dict[str, Any] | None:
        threads.append(threading.get_ident())
        return parse_object(raw)

    monkeypatch.setattr(proxy, "parse_object", parsing)
    usages = []
    for length in (0, SMALL):
        reader = ReplyReader(False, {})
        reader.feed(b'{"usage": {"prompt_tokens": 3, "completion_tokens": 4}, "other": "%s"}' % (b"x" * length))
        usages.append(asyncio.run(reader.reported()))
    assert {(usage.prompt, usage.generated) for usage in usages if usage} == {(3, 4)} and len(usages) == 2
    assert threads[0] == threading.get_ident() != threads[1]


def test_a_reply_of_very_many_values_is_not_parsed_when_it_is_passed_through(start_gateway: Start) -> None:
    endpoint, gateway = start_gateway(keyed(Budget(tokens=1000)), probed=False)
    values = ",".join(["[]"] * (VALUES + 1))
    usage = '"usage": {"prompt_tokens": 3, "completion_tokens": 4}'
    endpoint.sent.append(written(f'{{"choices": [], {usage}, "other": [{values}]}}'.encode()))
    assert gateway.ask(PLAIN, **BEARER)[0] == 200
    spent = gateway.gateway.auth.clients[0].ledger.spent
    assert (spent.generated_tokens, spent.uncounted_calls) == (PLAIN["max_tokens"], 1)
