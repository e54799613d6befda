"""Coalesces what many coroutines ask for into batches, run one at a time off the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class Batcher(Generic[Item, Result]):
    """Runs ``run`` on up to ``max_items`` items of all callers at once."""

    def __init__(self, run: Callable[[list[Item]], list[Result]], max_items: int) -> None:
        self._run, self._max_items = run, max_items
        self._pending: list[tuple[Item, asyncio.Future[Result]]] = []
        self._worker: asyncio.Task[None] | None = None

    async def submit(self, items: Sequence[Item]) -> list[Result]:
        """The results of these items, in order. An error of a batch reaches all its callers."""
        loop = asyncio.get_running_loop()
        futures: list[asyncio.Future[Result]] = [loop.create_future() for _ in items]
        self._pending += zip(items, futures, strict=True)
        if self._worker is None or self._worker.done():
            self._worker = loop.create_task(self._work())
        return list(await asyncio.gather(*futures))

    async def _work(self) -> None:
        while self._pending:
            await asyncio.sleep(0)  # every coroutine that is ready gets to ask first
            batch, self._pending = self._pending[: self._max_items], self._pending[self._max_items :]
            batch = [(item, future) for item, future in batch if not future.cancelled()]
            try:
                results = await asyncio.to_thread(self._run, [item for item, _ in batch])
            except Exception as error:  # no caller may wait for ever
                for _, future in batch:
                    if not future.done():
                        future.set_exception(error)
                continue
            for (_, future), result in zip(batch, results, strict=True):
                if not future.done():
                    future.set_result(result)
