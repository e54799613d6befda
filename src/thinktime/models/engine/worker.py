"""The engine for coroutines: the tasks of all callers join one running batch."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from thinktime.models.engine.row_engine import RowEngine
    from thinktime.models.engine.rows import Job, Output, Read, Row

AnyEngine = TypeVar("AnyEngine", bound="RowEngine")


class Worker(Generic[AnyEngine]):
    """Runs one engine's iterations off the event loop for as long as there is work."""

    def __init__(self, engine: AnyEngine) -> None:
        self.engine = engine
        self._new: list[tuple[Row | Read, asyncio.Future[Output]]] = []
        self._cancelled: list[asyncio.Future[Output]] = []
        self._futures: dict[Job, asyncio.Future[Output]] = {}
        self._task: asyncio.Task[None] | None = None
        self._interrupt = False

    async def run(
        self, tasks: Sequence[Row | Read], arrived: Callable[[int, Output], None] | None = None
    ) -> list[Output]:
        """The outputs of these tasks, in order. Cancelling the caller removes its rows from the batch.

        Args:
            tasks: rows and reads.
            arrived: called with the index and the output of each task when it is done.

        Raises:
            InputError: a task does not fit the model or the engine.
            ModelError: the model returned NaN or infinity for one of them.
        """
        loop = asyncio.get_running_loop()
        futures: list[asyncio.Future[Output]] = [loop.create_future() for _ in tasks]
        if arrived is not None:
            for index, future in enumerate(futures):
                future.add_done_callback(partial(_tell, arrived, index))
        self._new += zip(tasks, futures, strict=True)
        self._interrupt = True
        if self._task is None or self._task.done() or self._task.get_loop() is not loop:
            self._task = loop.create_task(self._work())
        try:
            return list(await asyncio.gather(*futures))
        finally:
            if not all(future.done() and not future.cancelled() for future in futures):
                self._cancelled += futures
                self._interrupt = True

    async def _work(self) -> None:
        while self._new or self._cancelled or self._futures:
            await asyncio.sleep(0)  # let every ready coroutine submit its tasks first
            self._interrupt = False
            self._take_in()
            try:
                finished = await asyncio.to_thread(self._iterate)
            except Exception as error:  # every caller has to get the error, or it would wait forever
                self._fail(error)
                continue
            for job in finished:
                future = self._futures.pop(job, None)
                if future is None or future.done():
                    continue
                if job.output is not None:
                    future.set_result(job.output)
                elif job.error is not None:
                    future.set_exception(job.error)

    def _fail(self, error: Exception) -> None:
        jobs, self._futures = self._futures, {}
        for future in jobs.values():
            if not future.done() and not future.get_loop().is_closed():
                future.set_exception(error)
        for job in jobs:
            self.engine.cancel(job)

    def _iterate(self) -> list[Job]:
        """Run iterations until a job is done, or until a caller adds or cancels tasks."""
        finished: list[Job] = []
        while self.engine.busy and not finished and not self._interrupt:
            finished = self.engine.step()
        return finished

    def _take_in(self) -> None:
        gone = set(self._cancelled)
        self._cancelled = []
        for job in [job for job, future in self._futures.items() if future in gone or future.get_loop().is_closed()]:
            self.engine.cancel(job)
            del self._futures[job]
        new, self._new = self._new, []
        for task, future in new:
            if future.done():
                continue
            try:
                self._futures[self.engine.submit(task)] = future
            except Exception as error:  # the task's own error; the other tasks continue
                future.set_exception(error)


def _tell(arrived: Callable[[int, Output], None], index: int, future: asyncio.Future[Output]) -> None:
    if not future.cancelled() and future.exception() is None:
        arrived(index, future.result())
