"""What all engines do with rows: check them, draw their tokens, end them, and keep deadlines and races."""

from __future__ import annotations

import math
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from thinktime.core.clock import Deadline
from thinktime.core.errors import InputError, ModelError
from thinktime.models.engine.rows import Job, Output, Read, Row, RowFinish
from thinktime.models.engine.sampling import confidences, sample, uniform

LOGITS = 1 << 19
"""Logits that are sampled from at once, in float64. All rows of a large vocabulary would be hundreds of megabytes: too
much for a processor's cache, and a page fault for every page."""


class RowEngine(ABC):
    """Runs rows and reads on one model. Not thread-safe: one thread calls it.

    Args:
        context: positions the model supports.
        end_ids: the tokens that end a row.
        decode: ids to text, needed for stop strings.
    """

    def __init__(
        self, context: int, end_ids: frozenset[int], decode: Callable[[Sequence[int]], str] | None = None
    ) -> None:
        self._context, self._end_ids, self._decode = context, end_ids, decode
        self._deadlines: dict[Deadline, list[weakref.ref[Job]]] = {}

    @property
    @abstractmethod
    def busy(self) -> bool:
        """Whether there is anything to compute."""

    @abstractmethod
    def submit(self, task: Row | Read) -> Job:
        """Add a row or a read; it starts with the next iteration that has room.

        Raises:
            InputError: it does not fit the context or the store, or this model does not support it.
        """

    @abstractmethod
    def step(self) -> list[Job]:
        """Run one iteration; return the jobs it finished. An error of the model fails only this iteration's jobs."""

    @abstractmethod
    def _remove(self, job: Job) -> None:
        """Remove a job from every queue and release its keys and values; other rows may reuse them."""

    @abstractmethod
    def _forget(self, job: Job) -> None:
        """Remove a job, and the keys and values that it has written, because they may be wrong."""

    def cancel(self, job: Job) -> None:
        """End a job now: its output holds its tokens so far, and its keys and values are released."""
        if not job.done:
            self._remove(job)
            job.finish("cancelled")

    def run(self, tasks: Sequence[Row | Read]) -> list[Output]:
        """Run tasks to their end; return their outputs in order.

        Raises:
            InputError: one of them does not fit.
            ModelError: the model returned NaN or infinity for one of them.
        """
        for task in tasks:
            self._check(task)
        jobs = [self.submit(task) for task in tasks]
        try:
            while not all(job.done for job in jobs):
                self.step()
        finally:
            for job in jobs:
                self.cancel(job)
        outputs = []
        for job in jobs:
            if job.error is not None:
                raise job.error
            assert job.output is not None
            outputs.append(job.output)
        return outputs

    def _check(self, task: Row | Read) -> None:
        if not task.ids:
            raise InputError("ids", (), "give at least one token")
        if len(task.ids) + isinstance(task, Row) > self._context:
            raise InputError("ids", f"{len(task.ids)} tokens", f"the model's context is {self._context}; shorten them")
        if isinstance(task, Row):
            if task.max_tokens < 1:
                raise InputError("max_tokens", task.max_tokens, "give at least 1")
            if task.stop_strings and self._decode is None:
                raise InputError("stop_strings", task.stop_strings, "this engine has no tokenizer; use stop_ids")

    def _longest(self, task: Row | Read) -> int:
        """The most ids that a task may have in the end."""
        return min(self._context, len(task.ids) + (task.max_tokens if isinstance(task, Row) else 0))

    def _watch(self, job: Job) -> None:
        """Cancel a row at its deadline, if it has one."""
        if isinstance(job.task, Row) and job.task.deadline is not None:
            self._deadlines.setdefault(job.task.deadline, []).append(weakref.ref(job))

    def _cancel_late(self) -> list[Job]:
        """Cancel all rows whose deadline has passed."""
        late: list[Job] = []
        for deadline in [deadline for deadline in self._deadlines if deadline.passed]:
            for job in (row() for row in self._deadlines.pop(deadline)):
                if job is not None and not job.done:
                    self.cancel(job)
                    late.append(job)
        return late

    def _draw_tokens(self, logits: Tensor, of_row: Sequence[int], jobs: Sequence[Job]) -> list[Job]:
        """Draw the next token of rows; return the jobs that ended.

        Args:
            logits: ``[distinct, vocabulary]``.
            of_row: for each job, the index of its logits.
            jobs: rows whose ids are all processed.
        """
        tasks = [job.task for job in jobs if isinstance(job.task, Row)]
        at_once = max(1, LOGITS // logits.shape[-1])
        drawn: list[tuple[int, float]] = []
        for part in (slice(start, start + at_once) for start in range(0, len(jobs), at_once)):
            those = logits[torch.tensor(of_row[part])].double()
            tokens = _sample(those, tasks[part], [len(job.ids) for job in jobs[part]])
            distribution = those.log_softmax(-1)
            drawn += zip(tokens.tolist(), distribution.gather(1, tokens[:, None])[:, 0].tolist(), strict=True)
            asked = [place for place, task in enumerate(tasks[part]) if task.confidences]
            if asked:
                for place, confidence in zip(asked, confidences(distribution[asked]).tolist(), strict=True):
                    jobs[part][place].confidences.append(round(confidence, 4))
            for job, task, row in zip(jobs[part], tasks[part], distribution, strict=True):
                if task.top and not job.logprobs:
                    found = row.topk(min(task.top, len(row)))
                    job.top = tuple(zip(found.indices.tolist(), found.values.tolist(), strict=True))
        finished: list[Job] = []
        for job, task, (token, logprob) in zip(jobs, tasks, drawn, strict=True):
            if math.isnan(logprob):
                self._forget(job)
                job.error = not_finite()
                finished.append(job)
                continue
            job.ids.append(token)
            job.logprobs.append(logprob)
            if finish := self._finish(job, task):
                self._remove(job)
                job.finish(finish)
                finished.append(job)
                if finish in ("eos", "stop") and token not in task.stop_ids and task.race is not None:
                    task.race.arrive(job.ids[len(task.ids) :])
        for job, task in zip(jobs, tasks, strict=True):  # only after all rows of this iteration could have ended
            if task.race is not None and not job.done and task.race.over(len(job.logprobs)):
                self.cancel(job)
                finished.append(job)
        return finished

    def _finish(self, job: Job, task: Row) -> RowFinish | None:
        token, generated = job.ids[-1], len(job.logprobs)
        if token in self._end_ids:
            return "eos"
        if token in task.stop_ids or (task.stop_strings and self._ends_in_stop_string(job, task)):
            return "stop"
        if generated >= task.max_tokens or len(job.ids) >= self._context:
            return "length"
        return None

    def _ends_in_stop_string(self, job: Job, task: Row) -> bool:
        """Whether the newest token completed a stop string.

        A token has at least one byte and a character at most four, so a short tail of the row is enough.
        """
        assert self._decode is not None
        longest = max(len(stop.encode()) for stop in task.stop_strings)
        tail = self._decode(job.ids[max(len(task.ids), len(job.ids) - longest - 4) :])
        return any(stop in tail for stop in task.stop_strings)


def _sample(logits: Tensor, tasks: Sequence[Row], positions: Sequence[int]) -> Tensor:
    """A token for each task, with the noise of its key."""
    if all(task.temperature == 0 for task in tasks):
        return logits.argmax(-1)
    noise = uniform(np.array([task.key for task in tasks], dtype=np.uint64), np.array(positions, dtype=np.uint64))
    return sample(
        logits,
        torch.tensor([task.temperature for task in tasks], dtype=torch.float64, device=logits.device),
        torch.tensor([task.top_p for task in tasks], dtype=torch.float64, device=logits.device),
        torch.tensor([task.top_k for task in tasks], device=logits.device),
        torch.from_numpy(noise).to(logits.device),
    )


def not_finite() -> ModelError:
    """The error of a job whose logits are no numbers."""
    return ModelError("the model returned NaN or infinity: its weights are broken, or overflow in this dtype")
