"""An upstream that breaks HTTP on purpose, one way for each model's name. A thread serves each connection."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

PIECE = b"x" * 65536
JSON_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
EVENTS_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
Send = Callable[[bytes], None]


def sample(body: dict[str, Any], text: str = "the answer is 7", reason: str = "stop") -> dict[str, Any]:
    """An honest reply with one sample of four tokens."""
    choice = {"index": 0, "finish_reason": reason, "message": {"role": "assistant", "content": text}}
    usage = {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}
    return {"id": "x", "object": "chat.completion", "model": body["model"], "choices": [choice], "usage": usage}


def honest(send: Send, body: dict[str, Any]) -> None:
    raw = json.dumps(sample(body)).encode()
    send(JSON_HEAD + b"Content-Length: %d\r\n\r\n" % len(raw) + raw)


def _forever(send: Send, begin: bytes, piece: bytes, pause: float = 0.002) -> None:
    send(begin)
    while True:
        send(piece)
        time.sleep(pause)


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


WAYS: dict[str, Callable[[Send, dict[str, Any]], None]] = {
    "honest": honest,
    "endless status line": lambda send, _: _forever(send, b"HTTP/1.1 200 ", PIECE),
    "endless headers": lambda send, _: _forever(send, b"HTTP/1.1 200 OK\r\n", b"X-A: b\r\n" * 1000),
    "an endless header": lambda send, _: _forever(send, b"HTTP/1.1 200 OK\r\nX-A: ", PIECE),
    "endless interim replies": lambda send, _: _forever(send, b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 1000),
    "endless trailers": lambda send, body: _forever(
        send,
        JSON_HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + _chunk(json.dumps(sample(body)).encode()) + b"0\r\n",
        b"X-A: b\r\n" * 1000,
    ),
    "an endless trailer": lambda send, body: _forever(
        send,
        JSON_HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + _chunk(json.dumps(sample(body)).encode()) + b"0\r\nX-A: ",
        PIECE,
    ),
    "an endless chunk size": lambda send, _: _forever(
        send, JSON_HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"0" * 9999
    ),
    "an endless chunk extension": lambda send, _: _forever(
        send, JSON_HEAD + b"Transfer-Encoding: chunked\r\n\r\n5;a=", PIECE
    ),
    "endless comments": lambda send, _: _forever(send, EVENTS_HEAD, _chunk(b": waiting\n\n" * 5000)),
    "slow comments": lambda send, _: _forever(send, EVENTS_HEAD, _chunk(b": waiting\n\n"), 0.05),
    "endless empty events": lambda send, _: _forever(send, EVENTS_HEAD, _chunk(b"data: {}\n\n" * 5000)),
    "endless spaces": lambda send, _: _forever(send, JSON_HEAD + b"\r\n", b" " * 65536),
    "slow spaces": lambda send, _: _forever(send, JSON_HEAD + b"\r\n", b" ", 0.05),
    "slow headers": lambda send, _: _forever(send, b"HTTP/1.1 200 OK\r\n", b"X-A: b\r\n", 0.05),
    "silence": lambda send, _: _forever(send, b"", b"", 0.05),
    "silence after the head": lambda send, _: _forever(send, JSON_HEAD + b"Content-Length: 9\r\n\r\n", b"", 0.05),
    "no reply": lambda send, _: None,
    "a negative length": lambda send, _: send(JSON_HEAD + b"Content-Length: -1\r\n\r\n{}"),
    "two lengths": lambda send, _: send(JSON_HEAD + b"Content-Length: 2\r\nContent-Length: 5\r\n\r\n{}"),
    "a length and chunks": lambda send, body: send(
        JSON_HEAD + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n" + _chunk(b"{}") + b"0\r\n\r\n"
    ),
    "a longer length": lambda send, _: send(JSON_HEAD + b"Content-Length: 999\r\n\r\n{}"),
    "an upgrade": lambda send, _: _forever(
        send, b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", PIECE
    ),
    "no HTTP": lambda send, _: send(b"\x00\x01\x02\xff" * 100),
}
"""What it sends by the model's name. The connection closes at the end."""


class HostileUpstream:
    """Serves all ways at once. ``url`` is the root of its API."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}/v1"
        self.open = 0
        """Connections that a reply is being sent on."""
        self.listing: Callable[[Send, dict[str, Any]], None] = honest
        """How it answers a request for the list of models."""
        self.listings = 0
        """Number of these requests."""
        self._stopped = False
        self._count = threading.Lock()

    def serve(self) -> None:
        """Accept connections until the socket closes."""
        while True:
            try:
                client, _ = self._socket.accept()
            except OSError:
                return
            threading.Thread(target=self._answer, args=(client,), daemon=True).start()

    def close(self) -> None:
        """Stop all replies."""
        self._stopped = True
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def _answer(self, client: socket.socket) -> None:
        def send(data: bytes) -> None:
            if self._stopped or (not data and _is_closed(client)):
                raise ConnectionResetError
            client.sendall(data)

        with client, suppress(OSError), client.makefile("rb") as reader:
            while head := _head(reader):
                length = next((int(v) for k, v in head[1:] if k == b"content-length"), 0)
                body = json.loads(reader.read(length) or b"{}")
                way = WAYS[body["model"]] if "model" in body else self.listing
                self.listings += "model" not in body
                with self._counted():
                    way(send, body)
                if way is not honest:
                    return

    @contextmanager
    def _counted(self) -> Iterator[None]:
        with self._count:
            self.open += 1
        try:
            yield
        finally:
            with self._count:
                self.open -= 1


def _head(reader: Any) -> list[tuple[bytes, bytes]]:
    lines = []
    while line := reader.readline().strip():
        name, _, value = line.partition(b":")
        lines.append((name.lower(), value.strip()))
    return lines


def _is_closed(client: socket.socket) -> bool:
    client.setblocking(False)
    try:
        return client.recv(1, socket.MSG_PEEK) == b""
    except BlockingIOError:
        return False
    finally:
        client.setblocking(True)


@contextmanager
def hostile() -> Iterator[HostileUpstream]:
    """Serve in a thread for the duration of the block."""
    upstream = HostileUpstream()
    threading.Thread(target=upstream.serve, daemon=True).start()
    try:
        yield upstream
    finally:
        upstream.close()
