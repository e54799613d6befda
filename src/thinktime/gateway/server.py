"""Runs the gateway as a process: socket, connections, shutdown."""

from __future__ import annotations

import asyncio
import gc
import math
import socket
import sys
import threading
from collections.abc import Callable
from functools import partial

import uvicorn

from thinktime.core.errors import InputError
from thinktime.core.protocols import Scorer
from thinktime.gateway.app import application
from thinktime.gateway.config import GatewayConfig
from thinktime.gateway.connections import ServerConfig, allow_descriptors, shares
from thinktime.gateway.logs import configure
from thinktime.gateway.state import Gateway
from thinktime.models.remote.client import Client, RefusedError, RemoteError
from thinktime.models.remote.protocol import root_and_api

BACKLOG = 2048
"""Connections that may wait to be accepted."""
LAST_SECONDS = 5.0
"""Seconds after the drain time in which the last replies are sent."""
GARBAGE = 20_000
"""Net object allocations between two runs of the garbage collector's youngest generation."""


def listening(gateway: Gateway) -> ServerConfig:
    """The settings of the HTTP server."""
    most, _ = shares()
    return ServerConfig(
        application(gateway),
        most,
        log_level=gateway.config.log_level,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        backlog=min(BACKLOG, most),
        timeout_graceful_shutdown=math.ceil(gateway.config.drain_seconds + LAST_SECONDS),
    )


class GatewayServer(uvicorn.Server):
    """A server whose running requests end by themselves when it stops, or get a 503 at the end of the drain time."""

    def __init__(self, gateway: Gateway, on_ready: Callable[[], None] | None = None) -> None:
        super().__init__(listening(gateway))
        self._gateway, self._on_ready = gateway, on_ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to accept."""
        await super().startup(sockets)
        if self._on_ready is not None:
            self._on_ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop accepting, and wait for the running requests."""
        stopping = asyncio.get_running_loop().call_later(self._gateway.config.drain_seconds, self._gateway.stop)
        try:
            await super().shutdown(sockets)
        finally:
            stopping.cancel()


def bound(config: GatewayConfig) -> socket.socket:
    """A socket that listens on the configured address.

    Raises:
        InputError: the address is taken, or not an address of this machine.
    """
    family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
    # asyncio disables Nagle's algorithm only if the protocol is explicit; otherwise answers wait 40 ms for an ACK
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((config.host.strip("[]"), config.port))
    except OSError as error:
        listener.close()
        raise InputError("port", config.port, f"cannot listen at {config.host!r} ({error.strerror})") from None
    listener.listen(BACKLOG)
    return listener


async def upstream_problem(url: str, key: str | None, variable: str = "THINKTIME_API_KEY") -> str | None:
    """What is wrong with an upstream's address or key, in one line; None if its list of models can be read.

    Args:
        url: the root of its API.
        key: its key.
        variable: the environment variable of the key.
    """
    client = Client(url, key)
    try:
        await client.get("models")
    except RefusedError as error:
        if error.status in (401, 403):
            return f"upstream={url!r}: it rejects the key; set {variable}"
        if error.status == 404 and not url.endswith("/v1"):
            return f"upstream={url!r}: it has no list of models; most servers want {url}/v1"
    except RemoteError as error:
        return str(error)
    finally:
        await client.close()
    return None


def _warn(config: GatewayConfig) -> None:
    for each in config.upstreams:
        variable = each.key_variable or "THINKTIME_API_KEY"
        if problem := asyncio.run(upstream_problem(root_and_api(each.url)[0], each.find_key(), variable)):
            print(f"warning: {problem}", file=sys.stderr, flush=True)


def announce(config: GatewayConfig, listener: socket.socket) -> None:
    """Print the address, and warn later of upstreams that do not answer."""
    host = f"[{config.host.strip('[]')}]" if ":" in config.host else config.host
    behind = ", ".join(each.url for each in config.upstreams)
    print(f"http://{host}:{listener.getsockname()[1]}/v1 in front of {behind}", flush=True)
    threading.Thread(target=_warn, args=(config,), daemon=True).start()  # a slow upstream does not delay the start


def run(gateway: Gateway, listener: socket.socket, on_ready: Callable[[], None] | None = None) -> None:
    """Serve requests in this process until a signal stops it.

    Args:
        gateway: the state. `allow_descriptors` comes before it.
        listener: the socket.
        on_ready: called when it serves.
    """
    gc.freeze()  # requests leave few cycles, and collecting them took a sixth of the time under load
    gc.set_threshold(GARBAGE)
    server = GatewayServer(gateway, on_ready)
    configure(gateway.config.log_level, gateway.config.log_format, gateway.config.access_log)
    asked = [] if gateway.siblings is None else gateway.siblings.listen()
    server.run([listener, *asked])


def serve(config: GatewayConfig, make_scorer: Callable[[], Scorer | None]) -> int:
    """Serve requests until a signal stops the process.

    Args:
        config: the settings.
        make_scorer: makes the scorer of methods that score. For several processes it has to be picklable.

    Returns:
        The exit status.

    Raises:
        InputError: the address is taken.
        BankError: the bank cannot be opened.
    """
    if config.workers > 1:
        from thinktime.gateway.workers import serve_with

        listener = bound(config)
        return serve_with(config, make_scorer, listener, partial(announce, config, listener))
    allow_descriptors()
    gateway, listener = Gateway(config, make_scorer()), bound(config)
    announce(config, listener)
    run(gateway, listener)
    return 0
