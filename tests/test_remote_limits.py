"""Limits on what an endpoint sends, and replies with odd heads: each costs its sample and no more."""

from __future__ import annotations

import asyncio
import gzip
import http.client
import json
import zlib
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from fake_endpoint import Running, written, written_stream
from gateway_server import PLAIN, VOTE, Serving, Start
from waiting import eventually

from thinktime.gateway.errors import http_error, redacted
from thinktime.models.remote import events, limits
from thinktime.models.remote.client import Client, RefusedError, Reply, UnreadableError, retry_seconds
from thinktime.models.remote.events import EventReader
from thinktime.models.remote.limits import MIB, SMALL, OversizeError, Reading
from thinktime.models.remote.protocol import read_choices

CHUNK = b"8000\r\n" + b"x" * 0x8000 + b"\r\n"


def head(status: int = 200, **headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status} x", *(f"{name.replace('_', '-')}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode("utf-8", "surrogateescape")


def endless(kind: str, piece: bytes = CHUNK, count: int = 20) -> list[bytes]:
    """A chunked reply that never ends; ``count`` pieces of it are enough for every limit of a test."""
    return [head(Content_Type=kind, Transfer_Encoding="chunked"), *[piece[6:-2]] * count, b"\n"]


async def nothing(event: Mapping[str, Any]) -> None:
    """Take an event."""


def error_of(reply: bytes | list[bytes], *, stream: bool = False) -> Exception:
    """The error of a client whose request gets this reply."""
    with Running() as endpoint:
        endpoint.sent.append(reply)  # type: ignore[arg-type]

        async def ask() -> Reply:
            client = Client(endpoint.url)
            try:
                return await client.post("completions", {}, tries=1, on_event=nothing if stream else None)
            finally:
                await client.close()

        with pytest.raises(Exception) as raised:  # noqa: PT011
            asyncio.run(ask())
        return raised.value


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("kind", ["application/json", "text/event-stream"])
def test_an_endless_reply_ends_at_the_limit(monkeypatch: pytest.MonkeyPatch, kind: str, stream: bool) -> None:
    monkeypatch.setattr(limits, "REPLY", 4 * SMALL)
    error = error_of(endless(kind), stream=stream)
    assert isinstance(error, UnreadableError) and "too long" in str(error) and "\n" not in str(error)


@pytest.mark.parametrize("piece", [b"data: " + b"x" * 0x8000, b"data: x\n" * 0x1000, b" " * 0x8000])
def test_an_endless_event_ends_at_the_limit(monkeypatch: pytest.MonkeyPatch, piece: bytes) -> None:
    monkeypatch.setattr(events, "EVENT", SMALL)
    error = error_of(endless("text/event-stream", b"123456" + piece + b"12"), stream=True)
    assert isinstance(error, UnreadableError) and "an event of more than" in str(error)


def test_a_plain_body_of_events_has_the_same_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "EVENT", 1000)
    error = error_of(written(f'data: "{"x" * 2000}"\n\n', "application/json"), stream=True)
    assert isinstance(error, UnreadableError) and "an event of more than" in str(error)


def test_events_of_any_size_below_the_limit_are_read() -> None:
    reader = EventReader()
    for _ in range(3):
        assert [len(event.data) for event in reader.feed(b"data: " + b"x" * (limits.EVENT - 100) + b"\n\n")]
    with pytest.raises(OversizeError):
        list(reader.feed(b"data: " + b"x" * limits.EVENT))


def test_all_replies_together_have_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    room = limits._replies
    free = room.free
    with Reading() as one, Reading() as small:
        for _ in range(limits.REPLY // MIB):
            one.add(b"x" * MIB)
        with pytest.raises(OversizeError, match="64 MiB"):
            one.add(b"x")
        monkeypatch.setattr(room, "free", 0)
        small.add(b"x" * SMALL)
        with pytest.raises(OversizeError, match="together"):
            small.add(b"x")
        monkeypatch.undo()
        room.free = free - limits.REPLY
    assert room.free == free


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("encoding", "pack"), [("gzip", gzip.compress), ("deflate", zlib.compress), ("br", bytes), ("zstd", bytes)]
)
def test_a_compressed_reply_is_refused_unread(encoding: str, pack: Callable[[bytes], bytes], stream: bool) -> None:
    body = pack(b" " * 10_000_000)
    error = error_of(head(Content_Encoding=encoding, Content_Length=str(len(body))) + body, stream=stream)
    assert isinstance(error, UnreadableError) and f"compressed ({encoding})" in str(error) and error.billed


def test_requests_ask_for_no_compression() -> None:
    with Running() as endpoint:

        async def ask() -> None:
            client = Client(endpoint.url)
            await client.post("completions", {"model": "words", "prompt": "hi"})
            await client.close()

        asyncio.run(ask())
        assert endpoint.headers[0]["accept-encoding"] == "identity"


def test_a_reply_of_very_many_values_is_not_parsed() -> None:
    raw = b'{"choices": [' + b"0," * (limits.VALUES + 1) + b"0]}"
    error = error_of(written(raw))
    assert isinstance(error, UnreadableError)


def test_a_sample_of_very_many_characters_costs_itself() -> None:
    def sample(text: str, **more: str) -> dict[str, Any]:
        return {"message": {"content": text, **more}, "finish_reason": "stop"}

    long = "x" * limits.SAMPLE
    choices = [sample("fine"), sample(long), sample(long + "x"), sample("x", reasoning_content=long)]
    errors = [choice.error is None for choice in read_choices({"choices": choices}, "u")]
    assert errors == [True, True, False, False]


@pytest.mark.parametrize("number", [10**400, -(10**400)])
def test_a_number_that_no_float_holds_is_no_log_probability(number: int) -> None:
    listed = {"content": [{"token": "x", "logprob": number}]}
    choice = {"message": {"content": "x"}, "finish_reason": "stop", "logprobs": listed, "index": number}
    usage = {"prompt_tokens": number, "completion_tokens": number}
    (found,) = read_choices({"choices": [choice], "usage": usage}, "u")
    assert found.error is None and found.tokens is None and found.whole["logprobs"] is None


@pytest.mark.parametrize(
    ("written", "seconds"),
    [("7", 7.0), ("0.5", 0.5), ("-1", 0.0), ("1e300", 86_400.0), ("Thu, 01 Jan 1970 00:00:00 GMT", 0.0)]
    + [("Fri, 31 Dec 9999 23:59:59 GMT", 86_400.0)]
    + [(odd, None) for odd in ("inf", "-inf", "nan", "1e400", "", "soon", "Thu, 99 Jan 99999999999999 00:00:00 GMT")]
    + [("9" * 5000, None), ("Mon, 01 Jan 2024", None), ("\udcff", None)],
)
def test_retry_after_is_a_number_of_seconds_or_nothing(written: str, seconds: float | None) -> None:
    assert retry_seconds(written) == seconds


@pytest.mark.parametrize("wait", ["inf", "nan", "-1", "1e400", "Fri, 31 Dec 9999 23:59:59 GMT", "9" * 400, "soon"])
@pytest.mark.parametrize("model", ["words", "single/words"])
def test_an_odd_retry_after_reaches_no_client(start_gateway: Start, model: str, wait: str) -> None:
    endpoint, gateway = start_gateway()
    endpoint.faults.extend([f"429:{wait}"] * 6)
    status, _, headers = gateway.ask({**PLAIN, "model": model})
    assert status == 429
    if model == "words":  # forwarded as it is, or not at all
        assert headers.get("retry-after") == (wait if wait.startswith("Fri") else None)
    else:
        assert int(headers.get("retry-after", "0")) in range(86_401)


@pytest.mark.parametrize("status", [999, 101])
@pytest.mark.parametrize("model", ["words", "single/words", "majority:n=2/words"])
def test_a_status_that_http_does_not_have_is_a_502(start_gateway: Start, model: str, status: int) -> None:
    endpoint, gateway = start_gateway()
    reply = head(status, Content_Type="application/json", Content_Length="2") + b"{}"
    endpoint.sent.extend([reply] * 12)
    assert gateway.ask({**PLAIN, "model": model})[0] == 502


@pytest.mark.parametrize("status", [300, 302, 308])
@pytest.mark.parametrize("model", ["single/words", "majority:n=2/words"])
def test_a_redirect_is_a_fault_of_the_upstream(start_gateway: Start, model: str, status: int) -> None:
    endpoint, gateway = start_gateway()
    reply = head(status, Location=f"{endpoint.url}/elsewhere", Content_Length="0")
    endpoint.sent.extend([reply] * 4)
    found, answer, _ = gateway.ask({**PLAIN, "model": model})
    assert found == 502 and str(status) in answer["error"]["message"] and str(endpoint.port) not in json.dumps(answer)


@pytest.mark.parametrize("value", ["caf\u00e9", "\u7b54", "\udcff\udcfe", "tab\there", "\u202eabc"])
def test_headers_that_are_not_ascii_do_not_spoil_an_answer(start_gateway: Start, value: str) -> None:
    endpoint, gateway = start_gateway()
    body = written({"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 4}})
    endpoint.sent.append(body.replace(b"\r\n", f"\r\nX-Request-Id: {value}\r\n".encode("utf-8", "surrogateescape"), 1))
    status, answer, headers = gateway.ask(PLAIN)
    assert status == 200 and answer["usage"]["completion_tokens"] == 4
    assert gateway.gateway.auth.ledger.spent.generated_tokens >= 4
    assert headers["x-request-id"].encode("latin-1") == value.encode("utf-8", "surrogateescape")


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("model", ["words", "single/words"])
@pytest.mark.parametrize("fault", ["compressed", "too long"])
def test_compressed_and_oversized_replies_are_a_502_and_are_charged(
    start_gateway: Start, monkeypatch: pytest.MonkeyPatch, fault: str, model: str, stream: bool
) -> None:
    endpoint, gateway = start_gateway()
    monkeypatch.setattr(limits, "REPLY", SMALL)
    body = gzip.compress(b" " * 1_000_000)
    packed = head(Content_Encoding="gzip", Content_Length=str(len(body))) + body
    long = written_stream("data: " + "x" * 2 * SMALL) if stream else written('{"a": "' + "x" * 2 * SMALL + '"}')
    endpoint.sent.extend([packed if fault == "compressed" else long] * 4)
    before = gateway.gateway.auth.ledger.spent.uncounted_calls
    if model == "words" and fault == "too long":  # its head has reached the client already
        with pytest.raises((OSError, http.client.HTTPException)):
            gateway.read({**PLAIN, "stream": stream})
    else:
        status, answer, _ = gateway.ask({**PLAIN, "model": model, "stream": stream})
        assert (status, answer["error"]["type"]) == (502, "server_error") and fault in answer["error"]["message"]
    assert eventually(lambda: gateway.gateway.auth.ledger.spent.uncounted_calls > before)
    endpoint.sent.clear()
    assert gateway.ask(PLAIN)[0] == 200


def test_one_oversized_sample_of_eight_costs_that_sample(start_gateway: Start) -> None:
    endpoint, gateway = start_gateway(n="ignored")
    body = gzip.compress(b" " * 100_000)
    endpoint.sent.append(head(Content_Encoding="gzip", Content_Length=str(len(body))) + body)
    status, answer, _ = gateway.ask(VOTE)
    assert (status, answer["thinktime"]["samples"], answer["thinktime"]["failed"]) == (200, 7, 1)


# the address of the upstream


@pytest.mark.parametrize("model", ["words", "single/words", "majority:n=2/words"])
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "no-such-host.invalid"])
def test_no_reply_has_the_address_of_the_upstream(host: str, model: str) -> None:
    with Serving(f"http://{host}:9/v1") as gateway:
        pages = [gateway.ask({**PLAIN, "model": model}), gateway.ask(b"", "models")]
        assert [status for status, _, _ in pages] == [502, 502]
        assert "cannot be reached (" in pages[0][1]["error"]["message"]
        text = json.dumps([body for _, body, _ in pages]) + gateway.page("/ui/requests") + gateway.page("/metrics")
        assert host.strip("[]") not in text and ":9/" not in text and "9)" not in text


@pytest.mark.parametrize(
    ("reason", "shown"),
    [
        ("endpoint='http://10.0.0.5:8000/v1': down", "endpoint=upstream: down"),
        ("Cannot connect to host 10.0.0.5:8000 ssl:default", "Cannot connect to host the upstream ssl:default"),
        ("proxy http://10.0.0.5:8000/health failed", "proxy http://the upstream/health failed"),
        ("at 10.0.0.5", "at the upstream"),
        ("110.0.0.5 and 10.0.0.50", "110.0.0.5 and 10.0.0.50"),
        ("GPU.Example.ORG: refused", "the upstream: refused"),
        ("the model vllm of vllm:8000", "the model vllm of the upstream"),
        ("see [fd00::1]:8000", "see the upstream"),
    ],
)
def test_hosts_and_ports_leave_messages(reason: str, shown: str) -> None:
    addresses = (
        "http://10.0.0.5:8000/v1",
        "https://gpu.example.org/v1",
        "http://vllm:8000/v1",
        "http://[fd00::1]:8000/v1",
    )
    assert redacted(reason, addresses) == shown


def test_a_message_is_not_longer_than_a_screen() -> None:
    error = http_error(RefusedError("u", 400, "x" * 10_000, tries=1, billed=False, retry_after=None), ())
    assert len(error.message) <= 2000
