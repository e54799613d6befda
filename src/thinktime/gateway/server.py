"""The gateway as a process: its socket, its connections, its end."""

from __future__ import annotations

import gc
import resource
import socket
from contextlib import suppress

import uvicorn

from thinktime.core.errors import InputError
from thinktime.core.protocols import Scorer
from thinktime.gateway.app import Gateway
from thinktime.gateway.config import Config

BACKLOG = 2048
"""Connections that may wait to be taken."""
GARBAGE = 20_000
"""Objects that may be made, and not freed, before unreachable cycles are looked for."""


def listening(gateway: Gateway) -> uvicorn.Config:
    """How the gateway is served."""
    return uvicorn.Config(
        gateway.app(),
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        backlog=BACKLOG,
        timeout_graceful_shutdown=5,
    )


def bound(config: Config) -> socket.socket:
    """A socket at which clients may knock from now on.

    Raises:
        InputError: the address is not free, or not one of this machine's.
    """
    family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
    # asyncio turns delays off only for what is said to be TCP; else the end of an answer waits 40 ms for its beginning
    door = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        door.bind((config.host.strip("[]"), config.port))
    except OSError as error:
        door.close()
        raise InputError("port", config.port, f"cannot listen at {config.host!r} ({error.strerror})") from None
    door.listen(BACKLOG)
    return door


def serve(config: Config, scorer: Scorer | None = None) -> None:
    """Answer until told to stop.

    Raises:
        InputError: the address is not free.
        BankError: the bank cannot be opened.
    """
    _allow_connections()
    gateway, door = Gateway(config, scorer), bound(config)
    host = f"[{config.host.strip('[]')}]" if ":" in config.host else config.host
    print(f"http://{host}:{door.getsockname()[1]}/v1 in front of {config.upstream}", flush=True)
    gc.freeze()  # what is there stays; requests leave few cycles, and looking for them is a sixth of a crowd's time
    gc.set_threshold(GARBAGE)
    uvicorn.Server(listening(gateway)).run([door])


def _allow_connections() -> None:
    """As many open files as the system grants: each client is one, and each of its samples another."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
