"""Several upstreams: who is asked for a model, and what happens when one of them fails."""

from __future__ import annotations

import json
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from fake_endpoint import FakeEndpoint, Running
from gateway_server import BEARER, MESSAGES, PLAIN, VOTE, Serving, keyed

from thinktime.bank.store import Bank
from thinktime.core.errors import InputError
from thinktime.core.usage import Budget
from thinktime.gateway import upstream
from thinktime.gateway.config import GatewayConfig, UpstreamConfig, read_config
from thinktime.gateway.state import Gateway
from thinktime.models.remote import client
from thinktime.models.remote.prices import Price

NOWHERE = "http://127.0.0.1:9/v1"
SOLO: dict[str, Any] = {**PLAIN, "model": "single/words"}


class Pair:
    """Two endpoints and a gateway in front of them; clients know their model as ``small``."""

    def __init__(self, running: ExitStack) -> None:
        self._running = running
        self.one, self.two = (running.enter_context(Running()) for _ in range(2))

    def start(self, first: str | None = None, weights: tuple[float, float] = (1, 0), **settings: Any) -> Serving:
        """A gateway that prefers the first endpoint, by these weights; ``first`` replaces its address."""
        models = {"small": "words"}
        upstreams = (
            UpstreamConfig("one", first or self.one.url, models=models, weight=weights[0]),
            UpstreamConfig("two", self.two.url, models=models, weight=weights[1]),
        )
        return self._running.enter_context(Serving(upstreams, **settings))

    def probed(self, gateway: Serving, **headers: str) -> None:
        """Let the gateway probe both, then forget what they were asked."""
        for name in ("one", "two"):
            others = [each for each in gateway.gateway.upstreams.all if each.config.name != name]
            for each in others:
                each._paused["words"] = float("inf")
            assert gateway.ask({**SOLO, "model": "single/small"}, **headers)[0] == 200
            for each in others:
                each._paused.clear()
        for endpoint in (self.one, self.two):
            endpoint.requests.clear()


@pytest.fixture
def pair(monkeypatch: pytest.MonkeyPatch) -> Iterator[Pair]:
    monkeypatch.setattr(client, "FIRST_WAIT", 0.01)
    with ExitStack() as running:
        yield Pair(running)


def drawn(endpoint: FakeEndpoint) -> int:
    """Samples that clients asked of an endpoint."""
    return sum(body.get("n", 1) for body in endpoint.requests)


@pytest.mark.parametrize("model", ["small", "single/small", "majority:n=4/small"])
def test_a_model_is_known_by_its_alias(pair: Pair, model: str) -> None:
    gateway = pair.start()
    assert gateway.ask({**PLAIN, "model": model})[0] == 200
    assert {body["model"] for body in pair.one.requests} == {"words"}
    assert not pair.two.requests
    assert gateway.ask({**PLAIN, "model": model.replace("small", "words")})[0] == 404
    listed = [entry["id"] for entry in gateway.ask(b"", "models")[1]["data"]]
    assert listed[0] == "small" and "majority/small" in listed and "words" not in listed
    assert gateway.ask(b"", "models/small")[1]["id"] == "small"


@pytest.mark.parametrize("model", ["small", "single/small", "majority:n=4/small"])
@pytest.mark.parametrize("fault", ["unreachable", "503", "429:3600", "another key"])
def test_the_next_upstream_answers_if_one_fails(pair: Pair, fault: str, model: str) -> None:
    gateway = pair.start(NOWHERE if fault == "unreachable" else None)
    pair.one.key = "a key that the gateway does not have" if fault == "another key" else None
    pair.one.faults.extend([fault] * 100)
    status, answer, _ = gateway.ask({**PLAIN, "model": model})
    assert status == 200 and drawn(pair.two) >= 1
    before = len(pair.one.requests)
    assert gateway.ask({**PLAIN, "model": model})[0] == 200  # the failed one is not asked for a while
    assert len(pair.one.requests) == before
    assert "127.0.0.1" not in json.dumps(answer)


def test_a_search_goes_on_at_the_next_upstream_and_the_bank_says_who_answered(pair: Pair, tmp_path: Path) -> None:
    gateway = pair.start(bank=tmp_path / "bank.db", **keyed(Budget(tokens=10_000, calls=200)))
    pair.probed(gateway, **BEARER)
    ledger = gateway.gateway.auth.clients[0].ledger
    before = ledger.spent
    pair.one.n = pair.two.n = "ignored"
    pair.one.faults.extend(["", "", *["503"] * 6])
    body = {**VOTE, "model": "majority:n=8/small", "seed": 3}
    status, answer, _ = gateway.ask(body, **BEARER)
    assert (status, answer["thinktime"]["samples"], answer["thinktime"]["failed"]) == (200, 8, 0)
    spent = ledger.spent - before
    assert (spent.model_calls, spent.uncounted_calls) == (8, 0)
    assert spent.generated_tokens == answer["usage"]["completion_tokens"]
    asked = len(pair.one.requests) + len(pair.two.requests)
    assert gateway.ask(body, **BEARER)[1]["choices"] == answer["choices"]
    assert len(pair.one.requests) + len(pair.two.requests) == asked  # all samples are in the bank
    (row,) = [row for row in json.loads(gateway_page(gateway))["requests"] if row["number"] == 4]
    assert sorted(row["upstreams"]) == ["one", "two"]
    gateway.__exit__()
    with Bank(tmp_path / "bank.db", read_only=True) as bank:
        made = Counter(sample["state"]["upstream"] for sample in bank.samples_of(answer["thinktime"]["trace"]))
        assert made["two"] == 6 and made["one"] == 2
        assert not any("127.0.0.1" in name for name in bank.models() if "small" in name)


def gateway_page(gateway: Serving) -> str:
    request = urllib.request.Request(gateway.url.removesuffix("/v1") + "/ui/requests", headers=BEARER)
    with urllib.request.urlopen(request) as reply:
        return str(reply.read().decode())


@pytest.mark.parametrize("model", ["small", "single/small"])
def test_a_sample_that_may_be_billed_is_charged_before_another_upstream_is_asked(pair: Pair, model: str) -> None:
    gateway = pair.start(**keyed(Budget(tokens=10_000)))
    pair.probed(gateway, **BEARER)
    ledger = gateway.gateway.auth.clients[0].ledger
    before = ledger.spent
    pair.one.sent.append(b"HTTP/1.1 no\r\n\r\n")  # it closes after it has read the request, so it may have worked
    status, answer, _ = gateway.ask({**PLAIN, "model": model, "max_tokens": 64}, **BEARER)
    spent = ledger.spent - before
    assert status == 200 and drawn(pair.two) == 1
    assert (spent.model_calls, spent.uncounted_calls) == (2, 1)
    if model == "small":
        assert spent.generated_tokens == 64 + answer["usage"]["completion_tokens"]
    else:
        assert spent.generated_tokens == answer["thinktime"]["account"]["generated_tokens"] > 64


def test_weights_share_the_requests_and_a_seed_fixes_the_upstream(pair: Pair) -> None:
    gateway = pair.start(weights=(3, 1))
    targets = gateway.gateway.upstreams.targets
    first = Counter(targets("small", str(key))[0].name for key in range(4000))
    assert 0.72 < first["one"] / 4000 < 0.78
    for model in ("small", "single/small"):
        pair.one.requests.clear()
        pair.two.requests.clear()
        for _ in range(4):
            assert gateway.ask({**PLAIN, "model": model, "seed": 5, "max_tokens": 20})[0] == 200
        assert not (pair.one.requests and pair.two.requests)


def test_an_upstream_is_asked_again_after_its_pause(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upstream, "PAUSE", 0.0)
    gateway = pair.start()
    pair.one.faults.append("503")
    for _ in range(2):
        assert gateway.ask({**PLAIN, "model": "small"})[0] == 200
    assert (len(pair.one.requests), len(pair.two.requests)) == (2, 1)


@pytest.mark.parametrize("model", ["small", "single/small"])
def test_the_last_refusal_reaches_the_client(pair: Pair, model: str) -> None:
    gateway = pair.start()
    for endpoint in (pair.one, pair.two):
        endpoint.faults.extend(["503"] * 100)
    status, answer, _ = gateway.ask({**PLAIN, "model": model})
    assert status == 503 and "127.0.0.1" not in json.dumps(answer)


def test_a_request_that_is_wrong_is_not_sent_elsewhere(pair: Pair) -> None:
    gateway = pair.start()
    assert gateway.ask({**PLAIN, "model": "small", "max_tokens": 100_000})[0] == 400
    assert gateway.ask({**SOLO, "model": "single/small", "max_tokens": 100_000})[0] == 400
    assert not pair.two.requests


def test_another_model_is_the_fallback_of_one_that_fails(pair: Pair) -> None:
    upstreams = (
        UpstreamConfig("local", NOWHERE, models={"large": "words"}),
        UpstreamConfig("cloud", pair.two.url, models={"other": "other-words"}),
    )
    with Serving(upstreams, fallbacks={"large": ("other",)}) as gateway:
        for model in ("large", "majority:n=2/large"):
            assert gateway.ask({**PLAIN, "model": model})[0] == 200
        assert {body["model"] for body in pair.two.requests} == {"other-words"}
        ready = json.loads(gateway.page("/ready"))
    assert ready == {"status": "ok", "upstreams": {"local": False, "cloud": True}}


def test_dollars_are_reserved_at_the_dearest_price(pair: Pair) -> None:
    def upstreams(dear: Price | None) -> tuple[UpstreamConfig, ...]:
        return (
            UpstreamConfig("one", pair.one.url, price=Price(1, 1)),
            UpstreamConfig("two", pair.two.url, price=dear, weight=0),
        )

    body = {**SOLO, "model": "single@0.01usd/words", "max_tokens": 100}
    with Serving(upstreams(Price(1, 200))) as gateway:
        status, answer, _ = gateway.ask(body)
        assert status == 400 and "one sample may cost" in answer["error"]["message"]
    with Serving(upstreams(Price(1, 20))) as gateway:
        assert gateway.ask(body)[0] == 200
    with Serving(upstreams(None)) as gateway:
        status, answer, _ = gateway.ask(body)
        assert status == 400 and "dollars" in answer["error"]["message"]


def test_roles_name_a_model_by_its_alias(pair: Pair) -> None:
    gateway = pair.start()
    named = {"strategy": "best_of_n", "n": 2, "scorers": {"main": "small"}}
    body = {**PLAIN, "model": "small", "thinktime": named}
    assert gateway.ask(body)[0] in (200, 502)  # this endpoint writes no grades
    named["scorers"] = {"main": "words"}
    status, answer, _ = gateway.ask(body)
    assert status == 404 or "thinktime.scorers.main" in answer["error"]["message"]


def test_responses_and_embeddings_go_to_the_next_upstream_too(pair: Pair) -> None:
    gateway = pair.start(NOWHERE)
    assert gateway.ask({"model": "small", "input": "3 + 4"}, "embeddings")[0] == 200
    assert gateway.ask({"model": "small", "input": "3 + 4", "max_output_tokens": 20}, "responses")[0] == 200
    assert gateway.ask({"model": "small", "messages": MESSAGES, "max_tokens": 20}, "messages")[0] == 200


FILE = """
[[upstream]]
name = "fast"
url = "http://127.0.0.1:8000/v1"
weight = 3
models = ["small"]

[[upstream]]
name = "cloud"
url = "https://api.example/v1"
key_variable = "CLOUD_KEY"
price = "0.15/0.60"
models = {small = "org/small-2", large = "org/large"}

[fallbacks]
large = ["small"]
"""


def test_upstreams_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "gateway.toml"
    file.write_text(FILE)
    config = GatewayConfig(**read_config(file))
    fast, cloud = config.upstreams
    assert (fast.weight, fast.models) == (3, {"small": "small"})
    assert cloud.models == {"small": "org/small-2", "large": "org/large"}
    assert config.fallbacks == {"large": ("small",)}
    with pytest.raises(InputError, match=r"upstream.cloud.key_variable='CLOUD_KEY': set this environment variable"):
        Gateway(config)
    monkeypatch.setenv("CLOUD_KEY", "secret")
    assert Gateway(config).upstreams.all[1].client.has_key and not Gateway(config).upstreams.all[0].client.has_key
    shown = config.shown()
    assert shown["upstream"][1]["key_variable"] == "CLOUD_KEY" and "secret" not in str(shown)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('name = "fast"\n', "", r'upstream=.*write \[\[upstream\]\] with name = "…" and url = "…"'),
        ('url = "http://127.0.0.1:8000/v1"\n', "", 'upstream.fast.url=None: give url = "http://host:port/v1"'),
        (
            "http://127.0.0.1:8000",
            "127.0.0.1:8000",
            r"upstream.fast.url='127.0.0.1:8000/v1': write http://host:port/v1",
        ),
        ("weight = 3", "weight = -1", "upstream.fast.weight=-1: give a number up to"),
        ("weight = 3", "weight = nan", "upstream.fast.weight=nan: give a number up to"),
        ("weight = 3", 'wieght = "3"', "upstream.fast='wieght': unknown; did you mean 'weight'"),
        ("weight = 3", 'key = "sk-1"', r"upstream.fast.key='…': a secret does not belong in this file"),
        ('["small"]\n\n', "[]\n\n", "upstream.fast.models={}: name one model or more"),
        ('["small"]\n\n', "[3]\n\n", r"upstream.fast.models=\[3\]: give a list of models"),
        ('"fast"', '"cloud"', "upstream.name='cloud': two upstreams have this name; rename one"),
        ('"fast"', '"a b"', "upstream.name='a b': name it in at most 40 letters"),
        ('large = ["small"]', 'large = ["smal"]', "fallbacks.large='smal': unknown; did you mean 'small'"),
        ('large = ["small"]', 'large = "small"', "fallbacks.large='small': give a list of models"),
        ("[[upstream]]", 'price = "1/1"\n[[upstream]]', "price='1/1': several upstreams have prices of their own"),
        ('price = "', 'price = "x', r"upstream.cloud.price='x.*': write dollars per million tokens"),
        ('["small"]\n\n', '"small"\n\n', "upstream.fast.models='small': give a value of type list"),
        (
            "[fallbacks]",
            '[models]\nbig = "lrge"\n[fallbacks]',
            "models.big.model='lrge': unknown; did you mean 'large'",
        ),
        (FILE, "upstream = 3", r"upstream=3: write upstream = .*, or tables \[\[upstream\]\]"),
    ],
)
def test_a_wrong_upstream_is_one_line_with_its_fix(tmp_path: Path, old: str, new: str, says: str) -> None:
    file = tmp_path / "gateway.toml"
    assert old in FILE
    file.write_text(FILE.replace(old, new, 1))
    with pytest.raises(InputError, match=says) as refused:
        GatewayConfig(**read_config(file))
    assert "\n" not in str(refused.value)
