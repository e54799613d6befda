"""Accounts that several processes share: never exceeded, never leaked, never counted twice."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from random import Random
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from postgres_server import PostgresServer
from waiting import eventually

from thinktime.bank.store import ALL, Bank
from thinktime.core.ledger import Ledger
from thinktime.core.usage import Budget, Usage, uncounted

pytest.importorskip("psycopg", reason="needs psycopg: pip install 'thinktime[postgres]'", exc_type=ImportError)

from thinktime.bank.accounts import Accounts, Balance


@pytest.fixture
def place(postgres: PostgresServer) -> str:
    url = postgres.bank()
    Bank(url).close()
    return url


@pytest.fixture
def accounts(place: str) -> Iterator[Accounts]:
    opened = Accounts(place)
    yield opened
    opened.close()


def call(tokens: int, **more: Any) -> Usage:
    return Usage(generated_tokens=tokens, model_calls=1, **more)


def balance(accounts: Accounts, account: str = "ann") -> Balance:
    return accounts.open([account])[account]


def test_a_reservation_counts_until_it_is_settled_and_a_settlement_counts_once(accounts: Accounts) -> None:
    accounts.open(["ann"])
    name, limit = uuid4(), Budget(tokens=10)
    assert accounts.reserve(name, "ann", limit, Budget(), call(6))[0]
    fits, seen = accounts.reserve(uuid4(), "ann", limit, Budget(), call(6))
    assert not fits and seen["ann"] == Balance(Usage(), call(6))
    for _ in range(2):
        accounts.settle([name], "ann", call(2))
    accounts.settle([uuid4()], "ann", call(2))
    assert balance(accounts) == Balance(call(2), Usage())
    assert accounts.reserve(uuid4(), "ann", limit, Budget(), call(8))[0]


def test_the_sum_of_all_accounts_has_a_limit_of_its_own(accounts: Accounts) -> None:
    accounts.open(["ann", "bob"])
    of_all = Budget(tokens=10)
    assert accounts.reserve(uuid4(), "ann", Budget(), of_all, call(6))[0]
    assert not accounts.reserve(uuid4(), "bob", Budget(), of_all, call(6))[0]
    assert balance(accounts, "bob").reserved == Usage(), "a refusal changes nothing"
    assert accounts.reserve(uuid4(), "bob", Budget(), of_all, call(4))[0]
    assert balance(accounts, ALL).reserved == call(6) + call(4)


def test_a_count_that_becomes_unknown_never_fits_a_limit(accounts: Accounts) -> None:
    accounts.open(["ann"])
    name = uuid4()
    assert accounts.reserve(name, "ann", Budget(), Budget(), call(1, dollars=None))[0]
    accounts.settle([name], "ann", call(1, dollars=None))
    assert balance(accounts) == Balance(call(1, dollars=None), Usage())
    assert not accounts.reserve(uuid4(), "ann", Budget(dollars=9), Budget(), call(1, dollars=0.1))[0]
    assert accounts.reserve(uuid4(), "ann", Budget(tokens=9), Budget(), call(1, dollars=0.1))[0]


def test_an_expired_reservation_is_spent_and_uncounted_and_its_late_settlement_changes_nothing(place: str) -> None:
    short, other = Accounts(place, lease=0.05), Accounts(place)
    short.open(["ann"])
    late, kept, renewed = uuid4(), uuid4(), uuid4()
    for accounts, name in ((short, late), (other, kept), (short, renewed)):
        assert accounts.reserve(name, "ann", Budget(tokens=100), Budget(), call(10))[0]
    other.renew([renewed])
    eventually(other.expire)
    for _ in range(2):
        short.settle([late], "ann", call(1))
        other.expire()
    assert balance(other) == Balance(uncounted(call(10)), call(10) + call(10))
    other.settle([kept, renewed], "ann", call(1) + call(1))
    assert balance(other) == Balance(uncounted(call(10)) + call(1) + call(1), Usage())
    assert balance(other, ALL) == balance(other)
    short.close()
    other.close()


counts = st.builds(
    Usage,
    generated_tokens=st.integers(0, 9),
    judge_tokens=st.integers(0, 3),
    model_calls=st.integers(1, 3),
    denoiser_calls=st.integers(0, 3),
    dollars=st.sampled_from([0.0, 0.1, 0.2, 0.7]),
    flops=st.sampled_from([0.0, 1e12, 3e17]),
)
limits = st.builds(
    Budget,
    tokens=st.none() | st.integers(1, 40),
    calls=st.none() | st.integers(1, 12),
    dollars=st.none() | st.sampled_from([0.3, 1.0]),
    flops=st.none() | st.just(4e17),
    nfe=st.none() | st.integers(1, 9),
)


@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(limits, limits, st.lists(st.tuples(st.sampled_from("ab"), counts, st.booleans()), max_size=8))
def test_it_decides_as_the_ledgers_of_one_process_do(
    postgres: PostgresServer, inner: Budget, outer: Budget, calls: list[tuple[str, Usage, bool]]
) -> None:
    place = postgres.bank()
    Bank(place).close()
    accounts = Accounts(place)
    accounts.open(["a", "b"])
    within = Ledger(outer)
    ledgers = {name: Ledger(inner, within=within) for name in "ab"}
    for account, worst, ends in calls:
        name, ledger = uuid4(), ledgers[account]
        held = asyncio.run(ledger.reserve(worst))
        assert accounts.reserve(name, account, inner, outer, worst)[0] is (held is not None)
        if held is not None and ends:
            ledger.settle([held], worst)
            accounts.settle([name], account, worst)
    seen = accounts.open(["a", "b"])
    accounts.close()
    for account, ledger in {**ledgers, ALL: within}.items():
        for mine, theirs in ((ledger.spent, seen[account].spent), (ledger._reserved, seen[account].reserved)):
            assert mine.as_dict() == pytest.approx(theirs.as_dict())


STEPS = 60


def worker(place: str, seed: int, log: Path, waits: bool) -> None:
    """Reserve and settle at random, and write each step down: a reservation after it, a settlement before it.

    With ``waits``, it does not end by itself: it was faster than the test that kills it.
    """
    dice, held, accounts = Random(seed), dict[UUID, int](), Accounts(place)
    account = "ann" if seed % 2 else "bob"
    with log.open("w", buffering=1) as lines:
        for _ in range(STEPS):
            if held and dice.random() < 0.5:
                name, worst = held.popitem()
                lines.write(f"settled {name} {(cost := dice.randrange(worst + 1))}\n")
                for _ in range(dice.choice([1, 2])):
                    accounts.settle([name], account, call(cost))
            else:
                name, worst = uuid4(), dice.randrange(1, 30)
                if accounts.reserve(name, account, Budget(tokens=500), Budget(tokens=700), call(worst))[0]:
                    held[name] = worst
                    lines.write(f"reserved {name} {worst}\n")
            if dice.random() < 0.1:
                accounts.renew(list(held))
                accounts.expire()
        for name in held:
            lines.write(f"settled {name} 1\n")
            accounts.settle([name], account, call(1))
    if waits:
        signal.pause()


def test_processes_that_are_killed_at_random_exceed_leak_and_repeat_nothing(
    place: str, accounts: Accounts, tmp_path: Path
) -> None:
    accounts.open(["ann", "bob"])
    logs = [tmp_path / f"{seed}.log" for seed in range(4)]
    begin = get_context("fork").Process  # a new interpreter takes a second to import this
    workers = [begin(target=worker, args=(place, seed, log, seed < 2)) for seed, log in enumerate(logs)]
    for each in workers:
        each.start()
    for victim, log in zip(workers[:2], logs, strict=False):
        eventually(partial(has_lines, log, STEPS // 3))
        victim.kill()
        now = accounts.open(["ann", "bob"])
        for name, limit in {"ann": 500, "bob": 500, ALL: 700}.items():
            assert now[name].spent.generated_tokens + now[name].reserved.generated_tokens <= limit
    least = most = 0
    for each, log in zip(workers, logs, strict=True):
        each.join()
        assert each.exitcode == (-signal.SIGKILL if each in workers[:2] else 0)
        lines = [line.split() for line in log.read_text().splitlines()]
        worst = {name: int(tokens) for what, name, tokens in lines if what == "reserved"}
        spent = worst | {name: int(tokens) for what, name, tokens in lines if what == "settled"}
        least += sum(spent.values())
        most += sum(spent.values())
        if each in workers[:2]:  # its last settlement may not be stored, or its last reservation not be in the log
            most += worst[lines[-1][1]] - spent[lines[-1][1]] + 29
    clock_moves(accounts)
    left = accounts.expire()
    now = accounts.open(["ann", "bob"])
    assert now[ALL].reserved == now["ann"].reserved == now["bob"].reserved == Usage()
    assert now[ALL].spent == now["ann"].spent + now["bob"].spent
    assert least <= now[ALL].spent.generated_tokens <= most
    assert now[ALL].spent.uncounted_calls == left


def has_lines(log: Path, number: int) -> bool:
    return log.exists() and log.read_text().count("\n") > number


def clock_moves(accounts: Accounts) -> None:
    """As if the leases of all reservations had ended by the clock of the database."""
    with accounts._database() as database:
        database.write("UPDATE reservations SET expires = clock_timestamp() - ? * interval '1 second'", [(1,)])
