"""Batching across coroutines: requests that arrive at the same time run in one call of the model."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

Request = TypeVar("Request")
Result = TypeVar("Result")
PATIENCE = 20
"""Rounds of the event loop without a new request after which a batch runs."""


class Batch(Generic[Request, Result]):
    """Gathers requests until no new one arrives, and computes them together.

    The computation runs on the event loop's thread. torch has a pool of threads for each calling thread, and in a
    second one the same network took 1.2 times as long on two cores.

    Args:
        compute: maps a list of requests to their results, in order.
        most: most requests of one call.
    """

    def __init__(self, compute: Callable[[Sequence[Request]], Sequence[Result]], most: int) -> None:
        self._compute, self._most = compute, most
        self._waiting: list[tuple[Request, asyncio.Future[Result]]] = []
        self._task: asyncio.Task[None] | None = None

    async def ask(self, request: Request) -> Result:
        """The result of a request. A request that is cancelled before its batch runs is not computed."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Result] = loop.create_future()
        self._waiting.append((request, future))
        if self._task is None or self._task.done() or self._task.get_loop() is not loop:
            self._task = loop.create_task(self._work())
        return await future

    async def _work(self) -> None:
        while self._waiting:
            seen, quiet = 0, 0
            while quiet < PATIENCE and len(self._waiting) < self._most:
                await asyncio.sleep(0)
                quiet = 0 if len(self._waiting) > seen else quiet + 1
                seen = len(self._waiting)
            taken, self._waiting = self._waiting[: self._most], self._waiting[self._most :]
            taken = [(request, future) for request, future in taken if not future.done()]
            if not taken:
                continue
            try:
                results = self._compute([request for request, _ in taken])
            except Exception as error:  # all requests of the batch fail, so none waits forever
                for _, future in taken:
                    if not future.done():
                        future.set_exception(error)
                continue
            for (_, future), result in zip(taken, results, strict=True):
                if not future.done():
                    future.set_result(result)
