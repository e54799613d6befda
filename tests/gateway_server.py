"""A gateway in a thread, in front of a test's endpoint, for the duration of a ``with`` block."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from typing import Any

import uvicorn
import uvicorn.server
from fake_endpoint import FakeEndpoint
from prometheus_client.parser import text_string_to_metric_families
from waiting import PATIENCE

from thinktime.core.protocols import Scorer
from thinktime.core.usage import Budget
from thinktime.gateway.config import GatewayConfig, Key, UpstreamConfig, digest
from thinktime.gateway.server import bound, listening
from thinktime.gateway.state import Gateway


class _ShortSleeps:
    """The module asyncio, whose sleeps last a twentieth of their time."""

    def __getattr__(self, name: str) -> Any:
        return getattr(asyncio, name)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds / 20)


vars(uvicorn.server)["asyncio"] = _ShortSleeps()
"""A server looks every 0.1 s whether it has to stop, and then sleeps as long: too long for hundreds of servers."""

MESSAGES = [{"role": "user", "content": "what is 3 + 4"}]
PLAIN: dict[str, Any] = {"model": "words", "messages": MESSAGES, "max_tokens": 64}
VOTE: dict[str, Any] = {**PLAIN, "model": "majority:n=8/words"}
KEY = "a key of more than sixteen letters"
BEARER = {"Authorization": f"Bearer {KEY}"}


def keyed(budget: Budget, **more: Any) -> dict[str, Any]:
    """Settings with one key."""
    return {"keys": (Key("ann", digest(KEY), budget, **more),)}


Behind = str | tuple[UpstreamConfig, ...]


class Serving:
    """Runs a gateway; ``url`` is the root of its API."""

    gateway: Gateway

    def __init__(self, upstream: Behind, scorer: Scorer | None = None, **settings: Any) -> None:
        self.url, self._scorer = "", scorer
        self._config = GatewayConfig(upstream, port=0, **settings)
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        self.gateway = Gateway(self._config, self._scorer)
        socket = bound(self._config)
        self.url = f"http://127.0.0.1:{socket.getsockname()[1]}/v1"
        config = listening(self.gateway)
        config.loop = "asyncio"  # tests move its clock; uvloop, which uvicorn takes if it is installed, has its own
        self._server = uvicorn.Server(config)
        self._ready.set()
        self._server.run([socket])

    def __enter__(self) -> Serving:
        self._thread.start()
        assert self._ready.wait(PATIENCE)
        return self

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        self._thread.join(PATIENCE)

    def ask(
        self, body: Mapping[str, Any] | bytes, path: str = "chat/completions", **headers: str
    ) -> tuple[int, dict[str, Any], Mapping[str, str]]:
        """Status, JSON object and headers of an answer, without a client library."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        sent = {"Content-Type": "application/json"} | {name.replace("_", "-"): value for name, value in headers.items()}
        request = urllib.request.Request(f"{self.url}/{path}", data or None, sent)
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE) as reply:
                return reply.status, json.loads(reply.read()), dict(reply.headers)
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read()), dict(error.headers)

    def read(self, body: Mapping[str, Any], path: str = "chat/completions", **headers: str) -> bytes:
        """The raw bytes of an answer, also of a stream."""
        sent = {"Content-Type": "application/json", **headers}
        request = urllib.request.Request(f"{self.url}/{path}", json.dumps(body).encode(), sent)
        with urllib.request.urlopen(request, timeout=PATIENCE) as reply:
            return bytes(reply.read())

    def page(self, path: str) -> str:
        """The text at a path of the server."""
        with urllib.request.urlopen(self.url.removesuffix("/v1") + path, timeout=PATIENCE) as reply:
            return str(reply.read().decode())


Start = Callable[..., tuple[FakeEndpoint, Serving]]


def probe_first(endpoint: FakeEndpoint, gateway: Serving, key: str | None = None) -> None:
    """Let the gateway probe its endpoint, then forget the requests of the probe."""
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    assert gateway.ask({**PLAIN, "model": "single/words"}, **headers)[0] == 200
    endpoint.requests.clear()
    endpoint.prompt_tokens = endpoint.generated_tokens = endpoint.ended = 0


NO_KEYS = dict.fromkeys(("THINKTIME_API_KEY", "OPENAI_API_KEY", "THINKTIME_GATEWAY_KEY"), "")


def serve(*options: str, **environment: str) -> subprocess.Popen[str]:
    """The program, with these options and environment variables, and without the keys of this machine."""
    command = [sys.executable, "-m", "thinktime", "serve", *options]
    settings = {**os.environ, **NO_KEYS, **environment}
    return subprocess.Popen(command, env=settings, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def answered(gateway: Serving) -> set[tuple[str, str, str]]:
    """Path, strategy and status of the requests that the metrics count."""
    families = text_string_to_metric_families(gateway.gateway.metrics.text({}).decode())
    samples = [sample for family in families for sample in family.samples if sample.name == "thinktime_requests_total"]
    return {(sample.labels["path"], sample.labels["strategy"], sample.labels["status"]) for sample in samples}
