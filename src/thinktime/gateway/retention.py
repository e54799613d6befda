"""Removes old samples from the bank while the gateway runs, at the start and then every hour."""

from __future__ import annotations

import asyncio
import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from thinktime.bank.retention import days, size
from thinktime.bank.store import Bank
from thinktime.core.errors import BankError

_log = logging.getLogger("thinktime")

EVERY_SECONDS = 3600.0
"""Time between two passes."""
PAUSE_SECONDS = 0.02
"""Pause after each transaction, in which requests write to a file."""


class Retention:
    """Removes the oldest samples in a thread, over a connection of its own.

    Of several processes on one database, one removes at a time; the others skip their pass.

    Args:
        place: of the bank, which is open.
        time: older samples are removed, as ``30d``; None keeps them.
        largest: then the oldest ones beyond this size, as ``5GB``; None keeps them.
    """

    def __init__(self, place: Path | str, time: str | None, largest: str | None) -> None:
        self._place = place
        self._days = None if time is None else days("retention_time", time)
        self._size = None if largest is None else size("retention_size", largest)
        self._thread = ThreadPoolExecutor(1, "retention")
        self._closing = threading.Event()
        self.passes = 0
        """Passes that have ended since the start."""

    async def run(self) -> None:
        """Remove what is too old, again and again."""
        while True:
            await asyncio.get_running_loop().run_in_executor(self._thread, self.remove)
            self.passes += 1
            await asyncio.sleep(EVERY_SECONDS)

    def remove(self) -> None:
        """One pass. A bank that refuses is an error in the log; the next pass tries again."""
        removed = 0
        try:
            with Bank(self._place, beside=True, waits=()) as bank:
                if not bank.claim():
                    return
                for number in bank.remove_old(self._days, self._size):
                    removed += number
                    if self._closing.wait(PAUSE_SECONDS):
                        break
                if removed:
                    _log.info("bank=%r: %d old samples are removed, %d are left", bank.place, removed, len(bank))
        except BankError as error:
            _log.error("%s; %d old samples are removed, the next try is in %g s", error, removed, EVERY_SECONDS)

    def close(self) -> None:
        """Stop after the transaction that runs."""
        self._closing.set()
        self._thread.shutdown()
