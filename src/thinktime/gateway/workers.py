"""Several processes that serve one port. One that ends is started again, and a signal to stop drains all of them."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from pathlib import Path
from tempfile import TemporaryDirectory

from thinktime.core.errors import InputError, ThinktimeError
from thinktime.core.printable import printable
from thinktime.core.protocols import Scorer
from thinktime.gateway.config import GatewayConfig
from thinktime.gateway.connections import allow_descriptors
from thinktime.gateway.logs import configure
from thinktime.gateway.server import LAST_SECONDS, run
from thinktime.gateway.state import Gateway

_log = logging.getLogger("thinktime")

AGAIN_SECONDS = 1.0
"""Wait before another process starts in place of one that could not start."""
KILL_SECONDS = 5.0
"""Seconds after the drain time at which a process that still runs is killed."""
SIGNALS = (signal.SIGTERM, signal.SIGINT)
MakeScorer = Callable[[], Scorer | None]
"""Makes the scorer in the process that uses it. It can be pickled."""


class ServingProcess:
    """One process that serves.

    Args:
        config: the settings.
        make_scorer: makes its scorer.
        listener: the socket that all processes share.
        folder: where all processes keep their metrics.
    """

    def __init__(self, config: GatewayConfig, make_scorer: MakeScorer, listener: socket.socket, folder: Path) -> None:
        context = multiprocessing.get_context("spawn")  # a fork would copy threads and locks in any state
        self._said, says = context.Pipe(duplex=False)
        self.process = context.Process(target=_work, args=(config, make_scorer, listener, folder, says))
        self.process.start()
        says.close()

    def started(self, seconds: float | None = None) -> bool:
        """Whether it serves, or has served; wait for that, or for its end, at most so long."""
        with suppress(EOFError):
            return self._said.poll(seconds) and bool(self._said.recv())
        return False


class _Signals:
    """Notes signals to stop, and ends a wait for processes when one comes."""

    def __init__(self) -> None:
        self.stop = False
        self._woken, self._wakes = socket.socketpair()
        self._wakes.setblocking(False)

    def __enter__(self) -> _Signals:
        self._before = [signal.signal(each, self._note) for each in SIGNALS]
        signal.set_wakeup_fd(self._wakes.fileno())
        return self

    def __exit__(self, *_: object) -> None:
        signal.set_wakeup_fd(-1)
        for each, handler in zip(SIGNALS, self._before, strict=True):
            signal.signal(each, handler)
        self._woken.close()
        self._wakes.close()

    def wait(self, sentinels: Iterable[int]) -> None:
        """Wait until a process ends or a signal comes."""
        if self._woken in wait([*sentinels, self._woken]):
            self._woken.recv(64)

    def _note(self, *_: object) -> None:
        self.stop = True


def serve_with(
    config: GatewayConfig, make_scorer: MakeScorer, listener: socket.socket, on_ready: Callable[[], None]
) -> int:
    """Serve by ``config.workers`` processes until a signal stops this one.

    Args:
        config: the settings.
        make_scorer: makes the scorer of a process.
        listener: the socket that all processes share.
        on_ready: called when the first process serves.

    Returns:
        The exit status: that of the first process if it cannot start, else 0.
    """
    configure(config.log_level, config.log_format, access=False)
    with TemporaryDirectory(prefix="thinktime-") as folder, _Signals() as signals:

        def another() -> ServingProcess:
            return ServingProcess(config, make_scorer, listener, Path(folder))

        workers = [another()]
        if not workers[0].started():  # its error is on the standard error
            workers[0].process.join()
            return workers[0].process.exitcode or 1
        on_ready()
        workers += [another() for _ in range(config.workers - 1)]
        while not signals.stop:
            signals.wait(worker.process.sentinel for worker in workers)
            for place, worker in enumerate(workers):
                process = worker.process
                if not signals.stop and not process.is_alive():
                    _log.error("process %d ended (%s); another one starts", process.pid, process.exitcode)
                    time.sleep(0.0 if worker.started(0.0) else AGAIN_SECONDS)
                    workers[place] = another()
        _stop(workers, config.drain_seconds + LAST_SECONDS + KILL_SECONDS)
    return 0


def _stop(workers: Sequence[ServingProcess], seconds: float) -> None:
    """End all processes: they drain, and are killed after these seconds."""
    for worker in workers:
        worker.process.terminate()
    until = time.monotonic() + seconds
    for worker in workers:
        worker.process.join(max(0.0, until - time.monotonic()))
        worker.process.kill()
        worker.process.join()


def _work(
    config: GatewayConfig, make_scorer: MakeScorer, listener: socket.socket, folder: Path, says: Connection
) -> None:
    """Serve in this process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to all processes; the first one stops the others
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        allow_descriptors()
        run(Gateway(config, make_scorer(), folder), listener, lambda: says.send(True))
    except ThinktimeError as error:
        print(f"error: {printable(str(error))}", file=sys.stderr, flush=True)
        sys.exit(2 if isinstance(error, InputError) else 1)


def _end_with_parent() -> None:
    """Stop this process if the one that started it is gone."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)
