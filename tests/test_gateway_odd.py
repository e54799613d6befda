"""After each of 200 odd requests and odd replies, another key's plain request is served, and its account is exact."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from fake_endpoint import FakeEndpoint, written, written_stream
from gateway_server import MESSAGES, PLAIN, VOTE, Serving, Start, probe_first
from waiting import PATIENCE

from thinktime.core.usage import Budget
from thinktime.gateway.config import Key, digest

ANN, BOB = "a key of more than sixteen letters", "another key of more letters"
DEEP = "[" * 20_000 + "]" * 20_000
ODD: dict[str, Any] = {
    "surrogate": "\ud800",
    "zero": "\x00",
    "escape": "\x1b]0;x\x07",
    "long": "x" * 100_000,
    "empty": "",
    "digits": 10**400,
    "large": 10**30,
    "negative": -1,
    "infinite": float("inf"),
    "nothing": float("nan"),
    "half": 0.5,
    "true": True,
    "null": None,
    "list": [[], {}, None],
    "object": {"a": {"b": []}},
}
FIELDS = ("model", "messages", "max_tokens", "n", "seed", "temperature", "stop", "stream", "tools", "response_format")


def requests() -> Iterator[tuple[str, bytes]]:
    """Odd requests: each field with each odd value, and bodies that are none."""
    for place, field in enumerate(FIELDS):
        for name, value in ODD.items():
            body = VOTE if (place + len(name)) % 2 else PLAIN
            yield f"{field} {name}", json.dumps({**body, field: value}).encode()
    for name in ("surrogate", "zero", "large", "infinite", "list"):
        message = {"role": "user", "content": ODD[name]}
        yield f"content {name}", json.dumps({**VOTE, "messages": [message]}).encode()
        yield f"method {name}", json.dumps({**PLAIN, "model": f"majority:n={ODD[name]}/words"}).encode()
    yield "deep", b'{"model": "words", "messages": ' + DEEP.encode() + b"}"
    yield "no JSON", b"\xff\xfe{"
    yield "empty", b""


def choice(content: Any, **fields: Any) -> dict[str, Any]:
    message = {"role": "assistant", "content": content}
    return {"choices": [{"index": 0, "finish_reason": "stop", "message": message}], "usage": USAGE} | fields


USAGE = {"prompt_tokens": 5, "completion_tokens": 2}
BOX = {name: rf"so \boxed{{{text}}}" for name, text in {"factorial": "99999999!", "digits": "9" * 5000}.items()}
REPLIES: dict[str, bytes] = {
    **{f"content {name}": written(json.dumps(choice(value))) for name, value in ODD.items() if name != "surrogate"},
    **{
        f"usage {name}": written(json.dumps(choice("so 7", usage={"prompt_tokens": 5, "completion_tokens": value})))
        for name, value in ODD.items()
    },
    **{f"box {name}": written(choice(text)) for name, text in BOX.items()},
    "half of a pair": written(rb'{"choices": [{"finish_reason": "stop", "message": {"content": "so \ud83d"}}]}'),
    "log-probability": written(json.dumps(choice("7") | {"logprobs": {"content": [{"logprob": float("nan")}]}})),
    "deep": written(DEEP),
    "bytes": written(b"\xff\xfe\x00"),
    "status 599": written({"error": {"message": "no"}}, status=599),
    "status 204": written(b"", status=204),
    "stream": written_stream({"choices": [{"index": 0, "delta": {"content": "so 7"}}]}, end=""),
    "stream of nothing": written_stream(end=""),
    "stream of zeros": written_stream("\x00\n\n"),
}


@pytest.fixture(scope="module")
def keys() -> tuple[Key, ...]:
    return (Key("ann", digest(ANN), budget=Budget(tokens=10**9)), Key("bob", digest(BOB), budget=Budget(tokens=10**9)))


def sent(gateway: Serving, key: str, body: bytes) -> tuple[int, bytes]:
    """Status and body of an answer. Any bytes can be sent."""
    address = urlsplit(gateway.url)
    connection = http.client.HTTPConnection(str(address.hostname), address.port, timeout=PATIENCE)
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {key}"}
    connection.request("POST", "/v1/chat/completions", body, headers)
    reply = connection.getresponse()
    status, found = reply.status, reply.read()
    connection.close()
    return status, found


def spent(gateway: Serving, name: str) -> int:
    (ledger,) = (client.ledger for client in gateway.gateway.auth.clients if client.name == name)
    return (ledger.spent.prompt_tokens or 0) + (ledger.spent.cached_tokens or 0) + ledger.spent.generated_tokens


def assert_others_are_served(endpoint: FakeEndpoint, gateway: Serving, body: Mapping[str, Any]) -> None:
    endpoint.sent.clear()
    before = endpoint.prompt_tokens + endpoint.generated_tokens, spent(gateway, "bob")
    status, answer, _ = gateway.ask(body, Authorization=f"Bearer {BOB}")
    assert status == 200 and answer["choices"][0]["message"]["content"]
    made = endpoint.prompt_tokens + endpoint.generated_tokens - before[0]
    assert spent(gateway, "bob") - before[1] == made > 0


PLAIN_ONES = ({"seed": 3, **PLAIN}, {"seed": 3, **VOTE, "model": "majority:n=2/words"})


@pytest.mark.parametrize("bank", [False, True], ids=["without a bank", "with a bank"])
def test_after_an_odd_request_another_key_is_served_and_its_account_is_exact(
    start_gateway: Start, tmp_path: Path, keys: tuple[Key, ...], bank: bool
) -> None:
    settings = {"keys": keys} | ({"bank": tmp_path / "bank.db"} if bank else {})
    endpoint, gateway = start_gateway(settings, probed=False)
    probe_first(endpoint, gateway, BOB)
    for place, (name, body) in enumerate(requests()):
        status, answer = sent(gateway, ANN, body)
        assert status in (200, 400, 404, 413, 429, 502), (name, status, answer[:300])
        plain = PLAIN_ONES[place % 2]
        assert_others_are_served(endpoint, gateway, {**plain, "seed": place})
    assert place >= 150


@pytest.mark.parametrize("stream", [False, True])
def test_after_an_odd_reply_another_key_is_served_and_its_account_is_exact(
    start_gateway: Start, tmp_path: Path, keys: tuple[Key, ...], stream: bool
) -> None:
    endpoint, gateway = start_gateway({"keys": keys, "bank": tmp_path / "bank.db"}, probed=False)
    probe_first(endpoint, gateway, BOB)
    for place, (name, reply) in enumerate(REPLIES.items()):
        for turn, model in enumerate(("words", "majority:n=2/words")):
            endpoint.sent.extend([reply] * 4)
            body = {"messages": MESSAGES, "max_tokens": 64, "model": model, "stream": stream, "seed": place}
            status, answer = sent(gateway, ANN, json.dumps(body).encode())
            assert status in (200, 204, 400, 502, 599), (name, model, status, answer[:300])
            assert_others_are_served(endpoint, gateway, {**PLAIN_ONES[place % 2], "seed": 1000 + 2 * place + turn})
