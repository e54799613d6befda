"""The work of an iteration: one token of every running row, and chunks of waiting prompts.

The token budget serves decoding first, as in chunked prefill with piggybacked decodes (arXiv 2308.16369). When blocks
run out, the youngest rows lose theirs and are computed again later.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from thinktime.models.engine.blocks import BlockPool, OutOfBlocksError
from thinktime.models.engine.rows import Job, Prefill, Read, Row


@dataclass(frozen=True)
class Iteration:
    """Running rows with the slots of their tokens, and prefills with the slots of their chunks, which may be empty.

    Rows that have drawn the same tokens so far are processed once.
    """

    decoding: list[tuple[list[Job], int]] = field(default_factory=list)
    chunks: list[tuple[Prefill, list[int]]] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.decoding or self.chunks)


class Scheduler:
    """Queues of jobs over one pool of blocks.

    Args:
        pool: the blocks.
        max_tokens: tokens of one iteration; it limits prompts only, never running rows.
        max_rows: rows that run at once.
        chunked: False processes whole prompts, in iterations of their own, before any row continues: the baseline.
    """

    def __init__(self, pool: BlockPool, max_tokens: int, max_rows: int, chunked: bool) -> None:
        self.pool, self._max_tokens, self._max_rows, self._chunked = pool, max_tokens, max_rows, chunked
        self._waiting: deque[Prefill] = deque()
        self._prefilling: list[Prefill] = []
        self._running: list[Job] = []
        self._paused: list[Job] = []
        self._joinable: dict[tuple[tuple[int, ...], int, int], Prefill] = {}
        self.preemptions = 0

    @property
    def busy(self) -> bool:
        """Whether there is anything to compute."""
        return bool(self._waiting or self._prefilling or self._running)

    def add(self, task: Row | Read, reusable: int) -> Job:
        """Queue a task; tasks with the same ids are processed once."""
        job = Job(task, list(task.ids), reusable)
        self._wait(job)
        return job

    def pause(self, job: Job) -> None:
        """Pause a row; it keeps its blocks unless other rows need them."""
        if job in self._paused:
            return
        if job in self._running:
            self._running.remove(job)
        elif job.prefill is not None:
            self._leave(job, job.prefill)
        self._paused.append(job)

    def resume(self, job: Job) -> None:
        """Continue a paused row."""
        if job not in self._paused:
            return
        self._paused.remove(job)
        if not job.logprobs:
            self._wait(job)
        elif job.prefix.length == len(job.ids) - 1 and self._rows < self._max_rows:
            self._running.append(job)
        else:
            self.pool.release(job.prefix)
            self._wait_again(job)

    def remove(self, job: Job) -> None:
        """Remove a job from every queue and release its blocks."""
        if job.prefill is not None:
            self._leave(job, job.prefill)
        for rows in (self._running, self._paused):
            if job in rows:
                rows.remove(job)
        self.pool.release(job.prefix)

    def branch(self, prefill: Prefill) -> None:
        """Start the rows of a finished prefill; they share its blocks."""
        for job in prefill.jobs:
            job.prefill = None
            if isinstance(job.task, Row):
                job.prefix = self.pool.fork(prefill.prefix)
                self._running.append(job)
        prefill.jobs = []
        self._drop(prefill)

    def schedule(self) -> Iteration:
        """Claim slots for the next iteration. It is empty only if no work is left."""
        iteration = Iteration()
        if self._chunked or not (self._prefilling or self._waiting):
            self._take_running(iteration)
        self._take_chunks(iteration)
        if not iteration and self.busy:
            if self._running and not self._prefilling:  # prompts have priority here, but none of them fits
                self._take_running(iteration)
            else:
                self._make_room()
                return self.schedule()
        return iteration

    @property
    def _rows(self) -> int:
        """Rows that run, or will run when their ids are processed."""
        return len(self._running) + sum(len(prefill.jobs) for prefill in self._prefilling)

    def _take_running(self, iteration: Iteration) -> None:
        place = 0
        same: dict[tuple[int, int], list[Job]] = {}
        while place < len(self._running):
            job = self._running[place]
            at = (job.prefix.node, job.ids[-1])
            if at in same:
                self.pool.release(job.prefix)
                job.prefix = self.pool.fork(same[at][0].prefix)
                same[at].append(job)
                place += 1
                continue
            try:
                slot = self.pool.append(job.prefix, job.ids[-1])
            except OutOfBlocksError:
                self._make_room()
                continue
            same[at] = [job]
            iteration.decoding.append((same[at], slot))
            place += 1

    def _take_chunks(self, iteration: Iteration) -> None:
        room = self._max_tokens - len(iteration.decoding)
        for prefill in self._prefilling:
            room -= self._take_chunk(iteration, prefill, room)
        while self._waiting and (room > 0 or not iteration) and self._admit(self._waiting[0]):
            prefill = self._waiting.popleft()
            self._prefilling.append(prefill)
            room -= self._take_chunk(iteration, prefill, room)

    def _take_chunk(self, iteration: Iteration, prefill: Prefill, room: int) -> int:
        slots: list[int] = []
        size = min(prefill.left, room) if self._chunked else prefill.left
        try:
            while len(slots) < size:
                slots.append(self.pool.append(prefill.prefix, prefill.ids[prefill.prefix.length]))
        except OutOfBlocksError:
            pass  # take a shorter chunk, or none
        if slots or not prefill.left:
            iteration.chunks.append((prefill, slots))
        return len(slots)

    def _admit(self, prefill: Prefill) -> bool:
        """Hold the stored prefix of a prefill; False if the prefill has to wait."""
        pool = self.pool
        rows = self._rows
        if rows and rows + len(prefill.jobs) > self._max_rows:
            return False
        prefill.prefix = pool.match(prefill.ids[: prefill.reusable])
        needed = -(-len(prefill.ids) // pool.block_size) + 1 - len(prefill.prefix.blocks) + len(prefill.jobs) + rows
        if not pool.is_written(prefill.prefix) or (rows and needed > pool.free):
            pool.release(prefill.prefix)
            return False
        if not prefill.paid:
            prefill.reused = prefill.prefix.length
        return True

    def _make_room(self) -> None:
        """Take the blocks of the job that loses least: a paused row, then a prompt, then the youngest row."""
        self.preemptions += 1
        for job in self._paused:
            if job.prefix.blocks:
                return self.pool.release(job.prefix)
        if len(self._prefilling) > 1 or (self._prefilling and self._running):
            prefill = self._prefilling.pop()
            prefill.paid = max(prefill.paid, prefill.prefix.length)
            prefill.logprobs = []
            self.pool.release(prefill.prefix)
            return self._waiting.appendleft(prefill)
        job = self._running.pop()
        self.pool.release(job.prefix)
        self._wait_again(job)

    def _wait(self, job: Job) -> None:
        name = (job.task.ids, job.reusable, job.first)
        prefill = self._joinable.get(name)
        rows = 0 if prefill is None else self._rows if prefill in self._prefilling else len(prefill.jobs)
        if prefill is None or rows >= self._max_rows:
            prefill = self._joinable[name] = Prefill(*name, [])
            self._waiting.append(prefill)
        prefill.jobs.append(job)
        job.prefill = prefill

    def _wait_again(self, job: Job) -> None:
        """Queue a row that has begun: all its tokens but the last were processed before."""
        last = len(job.ids) - 1
        job.prefill = Prefill(tuple(job.ids), last, len(job.ids), [job], paid=last)
        self._waiting.appendleft(job.prefill)

    def _leave(self, job: Job, prefill: Prefill) -> None:
        prefill.jobs.remove(job)
        job.prefill = None
        if not prefill.jobs:
            self._drop(prefill)

    def _drop(self, prefill: Prefill) -> None:
        if self._joinable.get(prefill.name) is prefill:
            del self._joinable[prefill.name]
        if prefill in self._prefilling:
            self._prefilling.remove(prefill)
        elif prefill in self._waiting:
            self._waiting.remove(prefill)
        self.pool.release(prefill.prefix)
