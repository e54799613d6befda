"""The work of an iteration: one token of every running row, and chunks of waiting prompts.

The token budget serves decoding first, as in chunked prefill with piggybacked decodes (arXiv 2308.16369). When blocks
run out, the youngest rows lose theirs and are computed again later.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from thinktime.models.engine.blocks import BlockPool, OutOfBlocksError
from thinktime.models.engine.rows import Job, Read, Row, Trunk


@dataclass(frozen=True)
class Iteration:
    """Running rows with the slot of their token, and trunks with the slots of their chunk, which may be empty.

    Rows that have drawn the same tokens so far are processed once.
    """

    decoding: list[tuple[list[Job], int]] = field(default_factory=list)
    chunks: list[tuple[Trunk, list[int]]] = field(default_factory=list)

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
        self._waiting: deque[Trunk] = deque()
        self._reading: list[Trunk] = []
        self._running: list[Job] = []
        self._paused: list[Job] = []
        self._joinable: dict[tuple[tuple[int, ...], int], Trunk] = {}
        self.preemptions = 0

    @property
    def busy(self) -> bool:
        """Whether there is anything to compute."""
        return bool(self._waiting or self._reading or self._running)

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
        elif job.trunk is not None:
            self._leave(job, job.trunk)
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
        if job.trunk is not None:
            self._leave(job, job.trunk)
        for rows in (self._running, self._paused):
            if job in rows:
                rows.remove(job)
        self.pool.release(job.prefix)

    def branch(self, trunk: Trunk) -> None:
        """Start the rows of a trunk that is fully processed; they share its blocks."""
        for job in trunk.jobs:
            job.trunk = None
            if isinstance(job.task, Row):
                job.prefix = self.pool.fork(trunk.prefix)
                self._running.append(job)
        trunk.jobs = []
        self._drop(trunk)

    def schedule(self) -> Iteration:
        """Claim slots for the next iteration. It is empty only if no work is left."""
        iteration = Iteration()
        if self._chunked or not (self._reading or self._waiting):
            self._take_running(iteration)
        self._take_chunks(iteration)
        if not iteration and self.busy:
            if self._running and not self._reading:  # prompts have priority here, but none of them fits
                self._take_running(iteration)
            else:
                self._make_room()
                return self.schedule()
        return iteration

    @property
    def _rows(self) -> int:
        """Rows that run, or will run when their ids are processed."""
        return len(self._running) + sum(len(trunk.jobs) for trunk in self._reading)

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
        for trunk in self._reading:
            room -= self._take_chunk(iteration, trunk, room)
        while self._waiting and (room > 0 or not iteration) and self._admit(self._waiting[0]):
            trunk = self._waiting.popleft()
            self._reading.append(trunk)
            room -= self._take_chunk(iteration, trunk, room)

    def _take_chunk(self, iteration: Iteration, trunk: Trunk, room: int) -> int:
        slots: list[int] = []
        size = min(trunk.left, room) if self._chunked else trunk.left
        try:
            while len(slots) < size:
                slots.append(self.pool.append(trunk.prefix, trunk.ids[trunk.prefix.length]))
        except OutOfBlocksError:
            pass  # take a shorter chunk, or none
        if slots or not trunk.left:
            iteration.chunks.append((trunk, slots))
        return len(slots)

    def _admit(self, trunk: Trunk) -> bool:
        """Hold the stored prefix of a trunk; False if the trunk has to wait."""
        pool = self.pool
        rows = self._rows
        if rows and rows + len(trunk.jobs) > self._max_rows:
            return False
        trunk.prefix = pool.match(trunk.ids[: trunk.reusable])
        needed = -(-len(trunk.ids) // pool.block_size) + 1 - len(trunk.prefix.blocks) + len(trunk.jobs) + rows
        if not pool.is_written(trunk.prefix) or (rows and needed > pool.free):
            pool.release(trunk.prefix)
            return False
        if not trunk.paid:
            trunk.reused = trunk.prefix.length
        return True

    def _make_room(self) -> None:
        """Take the blocks of the job that loses least: a paused row, then a prompt, then the youngest row."""
        self.preemptions += 1
        for job in self._paused:
            if job.prefix.blocks:
                return self.pool.release(job.prefix)
        if len(self._reading) > 1 or (self._reading and self._running):
            trunk = self._reading.pop()
            trunk.paid = max(trunk.paid, trunk.prefix.length)
            trunk.logprobs = []
            self.pool.release(trunk.prefix)
            return self._waiting.appendleft(trunk)
        job = self._running.pop()
        self.pool.release(job.prefix)
        self._wait_again(job)

    def _wait(self, job: Job) -> None:
        name = (job.task.ids, job.reusable)
        trunk = self._joinable.get(name)
        rows = 0 if trunk is None else self._rows if trunk in self._reading else len(trunk.jobs)
        if trunk is None or rows >= self._max_rows:
            trunk = self._joinable[name] = Trunk(job.task.ids, job.reusable, [])
            self._waiting.append(trunk)
        trunk.jobs.append(job)
        job.trunk = trunk

    def _wait_again(self, job: Job) -> None:
        """Queue a row that has begun: all its tokens but the last were processed before."""
        last = len(job.ids) - 1
        job.trunk = Trunk(tuple(job.ids), last, [job], paid=last)
        self._waiting.appendleft(job.trunk)

    def _leave(self, job: Job, trunk: Trunk) -> None:
        trunk.jobs.remove(job)
        job.trunk = None
        if not trunk.jobs:
            self._drop(trunk)

    def _drop(self, trunk: Trunk) -> None:
        name = (trunk.ids, trunk.reusable)
        if self._joinable.get(name) is trunk:
            del self._joinable[name]
        if trunk in self._reading:
            self._reading.remove(trunk)
        elif trunk in self._waiting:
            self._waiting.remove(trunk)
        self.pool.release(trunk.prefix)
