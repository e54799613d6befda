"""Looks up clients' keys in a store, for each request, so that a revoked key is refused at once."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from thinktime.bank.keys import KeyStore
from thinktime.core.errors import BankError, InputError, UnreachableBankError
from thinktime.gateway.config import Key, stored_key
from thinktime.gateway.errors import UnknownKeyError

_log = logging.getLogger("thinktime")

LONGEST_WAIT = 5.0
"""Seconds to wait for the store."""
DOWN_SECONDS = 1.0
"""Time after a failure in which the store is not asked again."""
Result = TypeVar("Result")


class StoreThread:
    """Calls a store in a thread, so that the event loop goes on.

    Args:
        store: of the keys and their rates.
    """

    def __init__(self, store: KeyStore) -> None:
        self.store = store
        self._threads = ThreadPoolExecutor(1, "keys")
        self._down_until = 0.0

    async def call(self, work: Callable[..., Result], *arguments: Any) -> Result:
        """What a method of the store returns.

        Raises:
            BankError: as the method; an `UnreachableBankError` if the store does not answer, or did not a moment ago.
        """
        place = f"{self.store.field}={self.store.place!r}"
        if time.monotonic() < self._down_until:
            raise UnreachableBankError(f"{place}: it could not be reached {DOWN_SECONDS:g} s ago; try again")
        asked = self._threads.submit(work, *arguments)
        try:
            async with asyncio.timeout(LONGEST_WAIT):
                return await asyncio.wrap_future(asked)
        except TimeoutError:
            self._down_until = time.monotonic() + DOWN_SECONDS
            raise UnreachableBankError(f"{place}: it does not answer in {LONGEST_WAIT:g} s; try again") from None
        except UnreachableBankError:
            self._down_until = time.monotonic() + DOWN_SECONDS
            raise

    def close(self) -> None:
        """Finish what is left, and release the store."""
        self._threads.shutdown()
        self.store.close()


class SharedKeys:
    """The keys in a store.

    Args:
        thread: calls the store.
    """

    def __init__(self, thread: StoreThread) -> None:
        self._thread = thread

    async def find(self, hashed: str) -> Key | None:
        """The key with this hash; None if it is unknown.

        Raises:
            UnknownKeyError: it is revoked.
            BankError: the store does not answer, or has settings of a later version.
        """
        try:
            found = await self._thread.call(self._thread.store.find, hashed)
        except BankError as error:
            _log.error("%s; only known keys without a budget are accepted", error)
            raise
        if found is None:
            return None
        if found.revoked is not None:
            raise UnknownKeyError(401, "the key is revoked", code="invalid_api_key")
        try:
            return stored_key(found.name, found.sha256, found.settings)
        except InputError as error:
            store = self._thread.store
            raise BankError(f"{store.field}={store.place!r}: {error}") from None
