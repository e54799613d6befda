"""Runs the gateway as a process: socket, connections, shutdown."""

from __future__ import annotations

import gc
import logging
import socket

import uvicorn

from thinktime.core.errors import InputError
from thinktime.core.protocols import Scorer
from thinktime.gateway.app import Gateway
from thinktime.gateway.config import GatewayConfig
from thinktime.gateway.connections import LogLimit, ServerConfig, allow_descriptors, shares

BACKLOG = 2048
"""Connections that may wait to be accepted."""
GARBAGE = 20_000
"""Net object allocations between two runs of the garbage collector's youngest generation."""


def listening(gateway: Gateway) -> ServerConfig:
    """The settings of the HTTP server."""
    most, _ = shares()
    return ServerConfig(
        gateway.app(),
        most,
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        backlog=min(BACKLOG, most),
        timeout_graceful_shutdown=5,
    )


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


def serve(config: GatewayConfig, scorer: Scorer | None = None) -> None:
    """Serve requests until a signal stops the process.

    Raises:
        InputError: the address is taken.
        BankError: the bank cannot be opened.
    """
    allow_descriptors()
    gateway, listener = Gateway(config, scorer), bound(config)
    host = f"[{config.host.strip('[]')}]" if ":" in config.host else config.host
    print(f"http://{host}:{listener.getsockname()[1]}/v1 in front of {config.upstream}", flush=True)
    gc.freeze()  # requests leave few cycles, and collecting them took a sixth of the time under load
    gc.set_threshold(GARBAGE)
    server, limit = uvicorn.Server(listening(gateway)), LogLimit()
    for name in ("uvicorn.error", "asyncio", "thinktime"):
        logging.getLogger(name).addFilter(limit)
    server.run([listener])
