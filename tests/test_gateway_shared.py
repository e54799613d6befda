"""Several gateways on one Postgres bank share keys' budgets and samples, and know what to do without it."""

from __future__ import annotations

import asyncio
import logging
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from fake_endpoint import FakeEndpoint, Running
from gateway_server import PLAIN, Serving
from postgres_server import PostgresServer
from waiting import PATIENCE, eventually

pytest.importorskip("psycopg", reason="needs psycopg: pip install 'thinktime[postgres]'", exc_type=ImportError)

from thinktime.bank.accounts import Accounts, Balances
from thinktime.bank.store import ALL, Bank
from thinktime.core.errors import UnreachableBankError
from thinktime.core.ledger import Ledger
from thinktime.core.types import Problem
from thinktime.core.usage import Budget, Usage
from thinktime.gateway.auth import reserve
from thinktime.gateway.config import Key, digest
from thinktime.gateway.journal import SharedJournal
from thinktime.gateway.shared import Keeper

ANN, BOB = "the key of ann, who has a budget", "the key of bob, who has none"


def of(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


KEYS = (Key("ann", digest(ANN), Budget(tokens=400)), Key("bob", digest(BOB)))


@pytest.fixture
def place(postgres: PostgresServer) -> str:
    return postgres.bank()


@pytest.fixture
def endpoint() -> Iterator[FakeEndpoint]:
    with Running() as running:
        yield running


@pytest.fixture
def gateways(place: str, endpoint: FakeEndpoint) -> Iterator[list[Serving]]:
    """Two gateways on one bank, in front of one endpoint."""
    with ExitStack() as running:
        yield [running.enter_context(Serving(endpoint.url, bank=place, keys=KEYS)) for _ in range(2)]


def proxied(max_tokens: int) -> dict[str, Any]:
    """A request without a method, for which nothing is probed."""
    return {**PLAIN, "model": "words", "max_tokens": max_tokens}


def ledger(gateway: Serving, name: str = "ann") -> Ledger:
    return next(client.ledger for client in gateway.gateway.auth.clients if client.name == name)


def spent(gateway: Serving, name: str = "ann") -> Usage:
    return ledger(gateway, name).spent


def test_gateways_share_the_budget_of_a_key_and_its_samples(place: str, gateways: list[Serving]) -> None:
    first, second = gateways
    vote = {**PLAIN, "model": "majority:n=4/words", "max_tokens": 40, "seed": 7}
    status, answer, _ = first.ask(vote, **of(ANN))
    assert status == 200
    eventually(lambda: spent(first).model_calls > 4 and not ledger(first)._reserved.model_calls)
    used = spent(first).generated_tokens
    assert answer["thinktime"]["account"]["generated_tokens"] < used < 160, "the key paid for the probe"
    status, refused, _ = second.ask(proxied(401 - used), **of(ANN))
    assert (status, refused["error"]["code"]) == (429, "insufficient_quota")
    assert second.ask(proxied(400 - used), **of(ANN))[0] == 200
    again = eventually(lambda: spent(second).generated_tokens > used and second.ask(vote, **of(BOB)))
    assert again[1]["choices"][0]["message"] == answer["choices"][0]["message"]
    assert again[1]["thinktime"]["trace"] == answer["thinktime"]["trace"]
    with Bank(place) as bank:
        assert bank.spending()["ann"] == spent(second) and len(bank) == 4
        assert ALL not in bank.spending()


def test_a_request_waits_while_another_gateway_holds_the_budget(
    endpoint: FakeEndpoint, gateways: list[Serving]
) -> None:
    endpoint.silent = "words"
    replies: list[int] = []
    asking = [
        threading.Thread(target=lambda gateway=gateway: replies.append(gateway.ask(proxied(300), **of(ANN))[0]))
        for gateway in gateways
    ]
    asking[0].start()
    eventually(lambda: endpoint.requests)
    asking[1].start()
    eventually(lambda: len(gateways[1].gateway.history.models) or gateways[1].gateway.metrics.in_flight)
    assert len(endpoint.requests) == 1, "400 tokens do not cover both"
    endpoint.silent = ""
    for thread in asking:
        thread.join()
    assert replies == [200, 200]
    assert len(endpoint.requests) == 2


def test_without_the_database_keys_with_a_budget_are_refused_and_the_others_go_on(
    postgres: PostgresServer, place: str, gateways: list[Serving], caplog: pytest.LogCaptureFixture
) -> None:
    gateway, _ = gateways
    assert gateway.ask({**PLAIN, "model": "single/words"}, **of(BOB))[0] == 200
    eventually(lambda: spent(gateway, "bob").model_calls)
    before = spent(gateway, "bob")
    with caplog.at_level(logging.WARNING, "thinktime"):
        postgres.stop(kill=True)
        try:
            status, refused, headers = gateway.ask(proxied(9), **of(ANN))
            assert (status, refused["error"]["code"], headers["retry-after"]) == (503, "bank_unreachable", "5")
            assert gateway.ask(proxied(9), **of(BOB))[0] == 200
            assert gateway.ask({**PLAIN, "model": "majority:n=2/words"}, **of(BOB))[0] == 200
            request = urllib.request.Request(gateway.url.removesuffix("/v1") + "/metrics", headers=of(BOB))
            with urllib.request.urlopen(request, timeout=PATIENCE) as reply:
                assert b"thinktime_bank_reachable 0" in reply.read()
        finally:
            postgres.start()
        eventually(lambda: gateway.ask(proxied(9), **of(ANN))[0] == 200)
    eventually(lambda: spent(gateway, "bob").model_calls == before.model_calls + 3)
    said = [record.getMessage() for record in caplog.records]
    assert any("requests with a budget are refused, the others go on" in line for line in said)
    assert any("the bank is reached again" in line for line in said)
    assert not any("trust" in line or "Traceback" in line for line in said)


def test_a_restarted_gateway_stores_what_is_left_and_goes_on_counting(place: str, endpoint: FakeEndpoint) -> None:
    for times in (1, 2):
        with Serving(endpoint.url, bank=place, keys=KEYS) as gateway:
            assert gateway.ask(proxied(9), **of(ANN))[0] == 200
        with Bank(place) as bank:
            assert bank.spending()["ann"].model_calls == times
            assert bank.spending()["ann"].uncounted_calls == 0


# The ledger and the journal


class Slow(Accounts):
    """Accounts whose reservations wait until a test lets them go on."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.go_on = threading.Event()

    def reserve(self, *arguments: Any) -> tuple[bool, Balances]:
        """As `Accounts.reserve`, later."""
        assert self.go_on.wait(PATIENCE)
        return super().reserve(*arguments)


@pytest.fixture
def slow(place: str) -> Iterator[tuple[Slow, Keeper]]:
    Bank(place).close()
    accounts = Slow(place)
    keeper = Keeper(accounts)
    yield accounts, keeper
    accounts.go_on.set()
    keeper.close()


CALL = Usage(generated_tokens=6, model_calls=1)


def test_a_request_that_leaves_while_it_reserves_gives_everything_back(slow: tuple[Slow, Keeper]) -> None:
    accounts, keeper = slow
    keeper.of_all(Budget(tokens=10))
    shared = keeper.ledger(Budget(), "ann")
    request = Ledger(within=shared)

    async def leave() -> None:
        asking = asyncio.create_task(request.reserve(CALL))
        await asyncio.sleep(0.05)
        assert shared._reserved == CALL, "it counts while it is asked for"
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert shared._reserved == request._reserved == Usage()
        accounts.go_on.set()
        while await request.reserve(CALL) is None:
            await request.freed()

    asyncio.run(asyncio.wait_for(leave(), PATIENCE))
    assert accounts.open(["ann"])["ann"].reserved == CALL


def test_a_database_that_is_silent_is_out_of_reach(slow: tuple[Slow, Keeper], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("thinktime.gateway.shared.REPLY_SECONDS", 0.05)
    _, keeper = slow
    limited, unlimited = keeper.ledger(Budget(tokens=9), "ann"), keeper.ledger(Budget(), "bob")
    for _ in range(2):
        with pytest.raises(UnreachableBankError, match=r"does not answer in 0.05 s|could not be reached"):
            asyncio.run(limited.reserve(CALL))
        assert asyncio.run(unlimited.reserve(CALL)) is not None
    assert not keeper.reachable and limited._reserved == Usage()


def test_calls_that_cannot_fit_do_not_ask_the_database_again_and_again(
    slow: tuple[Slow, Keeper], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("thinktime.gateway.shared.LOOK_SECONDS", PATIENCE)
    accounts, keeper = slow
    accounts.go_on.set()
    shared = keeper.ledger(Budget(tokens=10), "ann")

    async def crowd() -> int:
        held = await shared.reserve(CALL)
        assert held is not None
        before = shared._looked
        assert [await shared.reserve(CALL) for _ in range(50)] == [None] * 50
        assert shared._looked == before, "all of them were refused by what is known"
        waiting = [asyncio.create_task(reserve(shared, CALL)) for _ in range(3)]
        await asyncio.sleep(0.01)
        shared.settle([held], Usage(generated_tokens=1, model_calls=1))
        done, left = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        for each in left:
            each.cancel()
        await asyncio.wait(waiting)
        return len(done)

    assert asyncio.run(asyncio.wait_for(crowd(), PATIENCE)) == 1


def test_a_journal_out_of_reach_finds_nothing_keeps_nothing_and_says_so(
    place: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = {"state": {"text": "so 7"}, "finish": "eos", "usage": {}, "passes": 1}
    monkeypatch.setattr("thinktime.gateway.journal.FIND_SECONDS", 0.05)
    with Bank(place) as bank:
        journal = SharedJournal(bank)
        journal.add_samples(Problem("p", ""), "toy", [("k", row)])
        assert eventually(lambda: len(bank) == 1) and journal.find_sample("k") is not None
        hold = threading.Event()
        journal._thread.submit(hold.wait)
        assert journal.find_sample("k") is None
        journal.add_samples(Problem("p", ""), "toy", [("l", row)])
        hold.set()
        assert journal.find_sample("k") is None and len(bank) == 1, "nothing is tried for a while"
        journal.close()
    assert "it does not answer in 0.05 s; samples are neither kept nor found for 10 s" in caplog.text
