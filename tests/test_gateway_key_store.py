"""Keys in a store: they are added, limited and revoked for all gateways at once."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from commands import ran
from fake_endpoint import FakeEndpoint, Running
from gateway_server import KEY, PLAIN, Serving
from waiting import eventually

from thinktime.bank.keys import KeyStore, Slots
from thinktime.core.errors import BankError, InputError
from thinktime.gateway.config import GatewayConfig, Key, digest
from thinktime.gateway.rates import RateLimit, add, admit
from thinktime.gateway.state import Gateway

ANN, BOB = "the first key of the tests in a store", "the second key of the tests in a store"


def of(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


@pytest.fixture
def endpoint() -> Iterator[FakeEndpoint]:
    with Running() as running:
        yield running


@pytest.fixture(params=["file", "postgres"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A place for keys: a file, or a Postgres bank."""
    if request.param == "file":
        return str(tmp_path / "keys.db")
    return str(request.getfixturevalue("postgres").bank())


@pytest.fixture
def gateways(place: str, endpoint: FakeEndpoint) -> Iterator[list[Serving]]:
    """Two gateways on one store."""
    with ExitStack() as running:
        yield [running.enter_context(Serving(endpoint.url, key_store=place)) for _ in range(2)]


def store(place: str, name: str, key: str, **settings: Any) -> KeyStore:
    opened = KeyStore(place)
    opened.add(name, digest(key), settings)
    return opened


def test_a_key_is_valid_until_it_is_revoked_at_all_gateways(place: str, gateways: list[Serving]) -> None:
    assert [gateway.ask(PLAIN, **of(ANN))[0] for gateway in gateways] == [401, 401]
    keys = store(place, "ann", ANN)
    assert [gateway.ask(PLAIN, **of(ANN))[0] for gateway in gateways] == [200, 200]
    keys.revoke("ann")
    replies = [gateway.ask(PLAIN, **of(ANN)) for gateway in gateways]
    assert [status for status, _, _ in replies] == [401, 401]
    assert "the key is revoked" in replies[0][1]["error"]["message"]
    keys.add("ann", digest(BOB), {"budget": "1tok"})  # a new key of the same account
    assert gateways[0].ask(PLAIN, **of(ANN))[0] == 401
    assert gateways[0].ask(PLAIN, **of(BOB))[1]["error"]["code"] == "insufficient_quota"
    keys.close()


def test_requests_of_a_key_are_counted_at_all_gateways(place: str, gateways: list[Serving]) -> None:
    keys = store(place, "ann", ANN, requests_per_minute=3)
    keys.add("bob", digest(BOB), {})
    replies = [gateways[place % 2].ask(PLAIN, **of(ANN)) for place in range(5)]
    assert [status for status, _, _ in replies] == [200, 200, 200, 429, 429]
    _, answer, headers = replies[-1]
    assert answer["error"]["code"] == "rate_limit_exceeded" and 50 < int(headers["retry-after"]) <= 60
    left = [found["x-ratelimit-remaining-requests"] for _, _, found in replies]
    assert left == ["2", "1", "0", "0", "0"] and headers["x-ratelimit-limit-requests"] == "3"
    assert 50 < int(headers["x-ratelimit-reset-requests"].removesuffix("s")) <= 60
    assert gateways[0].ask(PLAIN, **of(BOB))[0] == 200
    keys.close()


def test_tokens_of_a_key_are_counted_at_all_gateways(place: str, gateways: list[Serving]) -> None:
    keys = store(place, "ann", ANN, tokens_per_minute=20)
    used = 0
    while used < 20:
        status, answer, headers = gateways[0].ask(PLAIN, **of(ANN))
        assert status == 200 and int(headers["x-ratelimit-remaining-tokens"]) == 20 - used
        used += answer["usage"]["completion_tokens"]
        assert eventually(partial(is_counted, keys, used))
    for gateway in gateways:
        status, answer, headers = gateway.ask(PLAIN, **of(ANN))
        assert (status, headers["x-ratelimit-remaining-tokens"]) == (429, "0")
        assert "20 tokens" in answer["error"]["message"]
    keys.close()


def is_counted(keys: KeyStore, tokens: int) -> bool:
    """Whether so many tokens of ann count in the last minute."""
    slots: Slots = keys.change_rate("ann", lambda slots, now: (slots, slots))
    return sum(slot[3] for slot in slots) == tokens


def test_a_key_of_the_file_has_its_rate_in_the_store_too(place: str, endpoint: FakeEndpoint) -> None:
    keys = (Key("ann", digest(KEY), requests_per_minute=1),)
    with ExitStack() as running:
        one, two = (running.enter_context(Serving(endpoint.url, key_store=place, keys=keys)) for _ in range(2))
        assert [gateway.ask(PLAIN, **of(KEY))[0] for gateway in (one, two)] == [200, 429]
        taken = store(place, "ann", ANN)  # a stored key cannot take the account of one in the file
        assert one.ask(PLAIN, **of(ANN))[0] == 401
        taken.close()


def test_gateways_on_a_postgres_bank_count_the_rates_of_the_file_together(
    endpoint: FakeEndpoint, request: pytest.FixtureRequest
) -> None:
    keys = (Key("ann", digest(KEY), requests_per_minute=2),)
    bank = request.getfixturevalue("postgres").bank()
    with ExitStack() as running:
        gateways = [running.enter_context(Serving(endpoint.url, bank=bank, keys=keys)) for _ in range(3)]
        assert [gateway.ask(PLAIN, **of(KEY))[0] for gateway in gateways] == [200, 200, 429]


def test_spending_of_a_stored_key_is_kept_in_the_bank(tmp_path: Path, endpoint: FakeEndpoint) -> None:
    keys = store(str(tmp_path / "keys.db"), "ann", ANN, budget="70tok")
    settings: dict[str, Any] = {"key_store": str(tmp_path / "keys.db"), "bank": tmp_path / "bank.db"}
    with Serving(endpoint.url, **settings) as gateway:
        assert gateway.ask(PLAIN, **of(ANN))[0] == 200
        keys.revoke("ann")
        keys.add("ann", digest(BOB), {"budget": "80tok"})
        assert gateway.ask(PLAIN, **of(BOB))[0] == 200
        assert gateway.ask(PLAIN, **of(BOB))[0] == 429
    with Serving(endpoint.url, **settings) as gateway:
        assert gateway.ask(PLAIN, **of(BOB))[0] == 429
    keys.close()


def test_without_its_store_a_gateway_accepts_only_known_keys_without_a_budget(
    endpoint: FakeEndpoint, request: pytest.FixtureRequest
) -> None:
    server = request.getfixturevalue("postgres")
    place = str(server.bank())
    keys = store(place, "ann", ANN, budget="9000tok")
    keys.add("bob", digest(BOB), {"requests_per_minute": 3})
    keys.close()
    with Serving(endpoint.url, key_store=place) as gateway:
        assert [gateway.ask(PLAIN, **of(key))[0] for key in (ANN, BOB)] == [200, 200]
        server.stop(kill=True)
        try:
            status, answer, headers = gateway.ask(PLAIN, **of(ANN))
            assert (status, answer["error"]["code"], headers["retry-after"]) == (503, "bank_unreachable", "5")
            assert gateway.ask(PLAIN, **of("a key that nobody has seen"))[0] == 503
            assert [gateway.ask(PLAIN, **of(BOB))[0] for _ in range(4)] == [200, 200, 200, 429]
        finally:
            server.start()
        assert eventually(lambda: gateway.ask(PLAIN, **of(ANN))[0] == 200)


def test_the_program_adds_lists_and_revokes_keys(tmp_path: Path, endpoint: FakeEndpoint) -> None:
    place = str(tmp_path / "keys.db")
    options = ("--budget", "500tok", "--requests-per-minute", "60", "--tokens-per-minute", "900")
    made = ran("keys", "add", "ann", "--store", place, *options)[1].strip()
    with Serving(endpoint.url, key_store=place) as gateway:
        assert gateway.ask(PLAIN, **of(made))[0] == 200
        listed = ran("keys", "ls", "--store", place)[1]
        assert "ann  since" in listed and "budget=500tok requests_per_minute=60 tokens_per_minute=900" in listed
        (shown,) = json.loads(ran("keys", "ls", "--json", "--store", place)[1])
        assert shown["name"] == "ann" and digest(made) not in json.dumps(shown)
        assert ran("keys", "revoke", "ann", "--store", place)[1] == "ann is revoked\n"
        assert gateway.ask(PLAIN, **of(made))[0] == 401
    assert "ann  revoked" in ran("keys", "ls", "--store", place)[1]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("add", "ann"), "name='ann': there is a key of this name; revoke it first"),
        (("add", "(all)"), "a name in parentheses is an account of the gateway itself"),
        (("add", "bob", "--budget", "9"), "budget"),
        (("add", "bob", "--requests-per-minute", "0"), "keys.bob.requests_per_minute=0: give 1 or more"),
        (("add", "bob", "--tokens-per-minute", "0"), "keys.bob.tokens_per_minute=0: give 1 or more"),
        (("revoke", "bob"), "name='bob': there is no valid key of this name; `thinktime keys ls` lists them"),
    ],
)
def test_a_wrong_key_is_one_line(tmp_path: Path, arguments: tuple[str, ...], says: str) -> None:
    place = str(tmp_path / "keys.db")
    store(place, "ann", ANN).close()
    code, _, errors = ran("keys", *arguments, "--store", place)
    assert code == 2 and says in errors and errors.count("\n") == 1


def test_two_keys_never_have_one_hash(place: str) -> None:
    keys = store(place, "ann", ANN)
    for name in ("bob", "ann"):
        with pytest.raises(InputError, match=rf"sha256='{digest(ANN)[:8]}…': the key 'ann' has this hash; make a new"):
            keys.add(name, digest(ANN), {})
    keys.revoke("ann")
    with pytest.raises(InputError, match="the key 'ann' has this hash"):  # a revoked key stays revoked
        keys.add("ann", digest(ANN), {})
    assert [(key.name, key.revoked is None) for key in keys.all()] == [("ann", False)]
    keys.close()
    with pytest.raises(InputError, match=r"keys.bob.sha256='…': the key 'ann' has this hash too; make a new key"):
        GatewayConfig("http://127.0.0.1:9/v1", keys=(Key("ann", digest(ANN)), Key("bob", digest(ANN))))


def test_errors_name_the_setting_that_gives_the_store(tmp_path: Path) -> None:
    place = tmp_path / "keys.db"
    place.write_text("no database")
    for field in ("key_store", "bank"):
        with pytest.raises(BankError, match=f"^{field}='{place}': cannot open it "):
            KeyStore(place, field)
    for wrong, says in ((str(place), "store="), ("mysql://h/d", "store='mysql://': give the path of a file")):
        _, _, errors = ran("keys", "ls", "--store", wrong)
        assert errors.startswith(f"error: {says}") and errors.count("\n") == 1
    with pytest.raises(BankError, match=r"^key_store="):
        Gateway(GatewayConfig("http://127.0.0.1:9/v1", key_store=str(place)))


def test_a_store_of_keys_opens_the_gateway_to_other_machines(tmp_path: Path) -> None:
    assert GatewayConfig("http://127.0.0.1:9/v1", host="0.0.0.0", key_store=str(tmp_path / "keys.db"))
    with pytest.raises(InputError, match="without a key it serves only this machine"):
        GatewayConfig("http://127.0.0.1:9/v1", host="0.0.0.0")


def test_no_minute_has_more_than_its_limits() -> None:
    limit = RateLimit(requests=7)
    slots: Slots = []
    passed: list[float] = []
    for step in range(1500):
        now = 1000 + 0.13 * step
        slots, state = admit(slots, now, limit)
        if not state.wait:
            passed.append(now)
        assert len(slots) <= 122
    assert len(passed) >= 21
    assert all(after - before >= 60 for before, after in zip(passed, passed[7:], strict=False))


def test_tokens_count_for_a_minute() -> None:
    slots = add([], 100.0, 0, 30)
    slots, state = admit(slots, 110.0, RateLimit(tokens=30))
    assert state.wait == pytest.approx(50.0) and state.tokens == 30
    slots, state = admit(slots, 160.1, RateLimit(tokens=30))
    assert not state.wait and state.tokens == 0 and state.headers["X-RateLimit-Remaining-tokens"] == "30"


def test_processes_share_a_file_of_rates(tmp_path: Path) -> None:
    one, two = (KeyStore(tmp_path / "keys.db") for _ in range(2))
    states = [each.change_rate("ann", lambda slots, now: admit(slots, now, RateLimit(4))) for each in (one, two) * 4]
    assert [bool(state.wait) for state in states] == [False] * 4 + [True] * 4
    one.close()
    two.close()


def test_only_add_makes_a_store_and_wrong_settings_are_one_line(tmp_path: Path) -> None:
    place = str(tmp_path / "keys.db")
    for command in (("ls",), ("revoke", "ann")):
        code, _, errors = ran("keys", *command, "--store", place)
        assert (code, Path(place).exists()) == (2, False) and "`thinktime keys add` makes it" in errors
    for name in ("", "a\nb"):
        assert ran("keys", "add", name, "--store", place)[0] == 2 and not Path(place).exists()
    keys = KeyStore(place)
    for wrong in ("3", "{"):
        keys._rows.write("INSERT OR REPLACE INTO keys VALUES ('ann', 'x', ?, 0, NULL)", [(wrong,)])
        code, out, errors = ran("keys", "ls", "--store", place)
        assert (code, out, errors.count("\n")) == (1, "", 1) and "the settings of the key 'ann'" in errors
    keys.close()
