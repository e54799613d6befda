"""The local engine: rows of all branches of all problems in one running batch over shared keys and values.

A row that stops leaves the batch at once and another row takes its slot. Its keys and values stay in the store for
rows that continue from it. So a search that extends, prunes and returns to a node computes every token once.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import compress
from typing import Any, Protocol

import torch
from torch import Tensor

from thinktime.core.errors import InputError
from thinktime.models.engine.attention import KVStore, Plan, View
from thinktime.models.engine.blocks import BlockPool, Prefix
from thinktime.models.engine.costs import Account, Shape
from thinktime.models.engine.row_engine import RowEngine, not_finite
from thinktime.models.engine.rows import Job, Prefill, Read, Row
from thinktime.models.engine.scheduler import Iteration, Scheduler

Tap = Callable[[int, Tensor], None]
BLOCK_SIZE = 16


class Attend(Protocol):
    """Attention of one layer over the stored keys and values of every row; see `KVStore.attend`."""

    def __call__(
        self,
        layer: int,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        *,
        window: int | None = None,
        softcap: float | None = None,
        sinks: Tensor | None = None,
    ) -> Tensor:
        """A tensor like q. With a ``window``, a token attends to so many tokens, of which it is the last."""
        ...


class Model(Protocol):
    """A model for the engine: hidden states of a flat batch. The engine provides attention."""

    def hidden(self, ids: Tensor, positions: Tensor, attend: Attend, tap: Tap | None = None) -> Tensor:
        """Hidden states ``[tokens, hidden]``; ``attend`` takes and returns ``[tokens, heads, head_dim]``.

        ``tap`` is called with the index and the hidden states of every layer.
        """
        ...

    def head(self, hidden: Tensor) -> Tensor:
        """Logits over the vocabulary, or over the labels of a classifier."""
        ...


class Engine(RowEngine):
    """Runs rows and reads on one model. Not thread-safe: one thread calls it.

    Args:
        model: the model.
        shape: its shape.
        dtype: the type of keys and values.
        device: the device of the model, and of the keys and values.
        context: positions the model supports.
        end_ids: the tokens that end a row.
        labels: labels of a classifier; 0 for a language model.
        decode: ids to text, needed for stop strings.
        kv_bytes: the most memory for keys and values.
        max_tokens: tokens of one iteration; tokens of running rows come first.
        max_rows: rows that run at once.
        chunked: False processes whole prompts before any row continues; the outputs are the same.

    Raises:
        InputError: ``kv_bytes`` is not enough for one block, or ``max_tokens`` or ``max_rows`` is below 1.
    """

    def __init__(
        self,
        model: Model,
        shape: Shape,
        dtype: torch.dtype,
        device: torch.device | str = "cpu",
        *,
        context: int,
        end_ids: frozenset[int] = frozenset(),
        labels: int = 0,
        decode: Callable[[Sequence[int]], str] | None = None,
        kv_bytes: int = 2 << 30,
        max_tokens: int = 512,
        max_rows: int = 256,
        chunked: bool = True,
    ) -> None:
        n_blocks = kv_bytes // (BLOCK_SIZE * shape.kv_bytes_per_token)
        if n_blocks < 1:
            least = BLOCK_SIZE * shape.kv_bytes_per_token
            raise InputError("kv_bytes", kv_bytes, f"{BLOCK_SIZE} tokens of this model take {least}; give more")
        for name, value in (("max_tokens", max_tokens), ("max_rows", max_rows)):
            if value < 1:
                raise InputError(name, value, "give at least 1")
        self.account = Account(shape)
        super().__init__(context, end_ids, decode)
        self._model = model
        self._device = torch.device(device)
        self._pool = BlockPool(n_blocks, BLOCK_SIZE)
        heads = (shape.heads, shape.kv_heads, shape.head_dim)
        self._store = KVStore(shape.layers, *heads, n_blocks, BLOCK_SIZE, dtype, self._device)
        self._labels = torch.zeros(n_blocks, BLOCK_SIZE, labels, dtype=dtype, device=self._device) if labels else None
        self._scheduler = Scheduler(self._pool, max_tokens, max_rows, chunked)

    @property
    def busy(self) -> bool:
        """Whether there is anything to compute."""
        return self._scheduler.busy

    @property
    def preemptions(self) -> int:
        """How often a row lost its blocks to other rows."""
        return self._scheduler.preemptions

    def submit(self, task: Row | Read) -> Job:
        """Add a row or a read; it starts with the next iteration that has room.

        Raises:
            InputError: it does not fit the context or the store, or this model does not support it.
        """
        self._check(task)
        if isinstance(task, Row):
            reusable = len(task.ids) - 1
        elif self._labels is not None:
            reusable = len(task.ids) if task.segments is None else task.start
        else:
            reusable = task.start - task.logprobs
        job = self._scheduler.add(task, reusable)
        self._watch(job)
        return job

    def fork(self, job: Job, key: int, then: Sequence[int] = ()) -> Job:
        """Add a second row that continues this row's ids and ``then``; both rows share keys and values.

        Raises:
            InputError: the longer row does not fit.
        """
        assert isinstance(job.task, Row), "a read cannot be continued"
        return self.submit(replace(job.task, ids=(*job.ids, *then), key=key))

    def pause(self, job: Job) -> None:
        """Pause a row; it keeps its blocks unless other rows need them."""
        if not job.done:
            self._scheduler.pause(job)

    def resume(self, job: Job) -> None:
        """Continue a paused row; it draws the same tokens as if it had never stopped."""
        if not job.done:
            self._scheduler.resume(job)

    @torch.inference_mode()
    def step(self) -> list[Job]:
        """Run one iteration; return the jobs it finished. An error of the model fails only this iteration's jobs."""
        started = time.perf_counter()
        late = self._cancel_late()
        iteration = self._scheduler.schedule()
        ids, slots, views = _flatten(iteration)
        try:
            hidden, states = self._forward(ids, slots, views, _layers(iteration)) if ids else (torch.empty(0), {})
        except Exception as error:  # a model may raise any exception, and the callers have to get it
            return late + self._fail(iteration, error)
        self._pool.settle()
        failed: list[Job] = []
        if not math.isfinite(hidden.sum()):
            iteration, views, broken = _without_broken(hidden, iteration, views)
            failed = self._fail(broken, not_finite())
        self._count(iteration)
        _add_states(states, iteration, views)
        share = (time.perf_counter() - started) / max(1, len(ids))
        for jobs, _ in iteration.decoding:
            for job in jobs:
                job.seconds += share / len(jobs)
        for prefill, new in iteration.chunks:
            for job in prefill.jobs:
                job.seconds += share * len(new) / len(prefill.jobs)
        reads = self._finish_reads(hidden, iteration, views[len(iteration.decoding) :])
        return late + failed + reads + self._draw(hidden, iteration, views)

    def _remove(self, job: Job) -> None:
        self._scheduler.remove(job)

    def _forget(self, job: Job) -> None:
        self._pool.forget(job.prefix)
        self._scheduler.remove(job)

    def _check(self, task: Row | Read) -> None:
        super()._check(task)
        length = self._longest(task)
        if length > self._pool.n_blocks * BLOCK_SIZE:
            most = self._pool.n_blocks * BLOCK_SIZE
            raise InputError("kv_bytes", f"room for {most} tokens", f"this row may grow to {length}; give it more")
        if task.segments is not None:
            n_layers = self.account.shape.layers
            if not task.segments.layers or not all(0 <= layer < n_layers for layer in task.segments.layers):
                raise InputError("layers", task.segments.layers, f"this model has the layers 0 to {n_layers - 1}")
        if isinstance(task, Row):
            if self._labels is not None:
                raise InputError("task", "a row to sample", "this model is a classifier; it can only read")
        elif not 0 < task.start <= len(task.ids) and self._labels is None:
            raise InputError("start", task.start, f"the first token has no probability; give 1 to {len(task.ids)}")

    def _forward(
        self, ids: list[int], slots: list[int], views: list[View], layers: set[int]
    ) -> tuple[Tensor, dict[int, Tensor]]:
        """The hidden states after the last layer, and after each of ``layers``."""
        if self._pool.copies:
            self._store.copy(self._pool.copies)
            if self._labels is not None:
                source, target = map(list, zip(*self._pool.copies, strict=True))
                self._labels[target] = self._labels[source]
        whole: Plan = self._store.plan(views, slots)
        plans: dict[int | None, Plan] = {None: whole}
        positions = [place for view in views for place in range(view.length - view.count, view.length)]

        def attend(layer: int, q: Tensor, k: Tensor, v: Tensor, *, window: int | None = None, **how: Any) -> Tensor:
            if window not in plans:
                plans[window] = self._store.windowed(whole, views, slots, window)
            return self._store.attend(plans[window], layer, q, k, v, **how)

        states: dict[int, Tensor] = {}

        def tap(layer: int, state: Tensor) -> None:
            if layer in layers:
                states[layer] = state

        inputs = (torch.tensor(ids, device=self._device), torch.tensor(positions, device=self._device))
        hidden = self._model.hidden(*inputs, attend, tap if layers else None)
        self.account.iteration(len(ids), sum(positions) + len(positions), whole.read, self._pool.held * BLOCK_SIZE)
        if self._labels is not None:
            self._labels.view(-1, self._labels.shape[-1])[torch.tensor(slots)] = self._model.head(hidden)
        return hidden, states

    def _count(self, iteration: Iteration) -> None:
        account = self.account
        account.generated += len(iteration.decoding)
        for prefill, new in iteration.chunks:
            before = prefill.prefix.length - len(new)
            again = max(0, min(prefill.prefix.length, prefill.paid) - before)
            account.recomputed += again
            if prefill.jobs[0].logprobs:  # a row that continues: its last token was drawn before and is processed now
                account.generated += len(new) - again
                continue
            account.prompt_computed += len(new) - again
            prefill.computed += len(new) - again
            if not prefill.left:
                account.prompt_reused += prefill.reused
                first, *others = prefill.jobs
                first.computed += prefill.computed
                first.reused += prefill.reused
                for job in others:
                    job.reused += len(prefill.ids)

    def _fail(self, iteration: Iteration, error: Exception) -> list[Job]:
        """Fail the jobs of an iteration, and clear everything it wrote."""
        slots = [slot for _, slot in iteration.decoding] + [slot for _, new in iteration.chunks for slot in new]
        self._store.clear(slots)
        decoding = [job for jobs, _ in iteration.decoding for job in jobs]
        failed = decoding + [job for prefill, _ in iteration.chunks for job in prefill.jobs]
        for prefix in [job.prefix for job in decoding] + [prefill.prefix for prefill, _ in iteration.chunks]:
            self._pool.forget(prefix)
        self._pool.settle()
        for job in failed:
            self._scheduler.remove(job)
            job.error = error
        return failed

    def _finish_reads(self, hidden: Tensor, iteration: Iteration, views: Sequence[View]) -> list[Job]:
        finished: list[Job] = []
        for (prefill, _), view in zip(iteration.chunks, views, strict=True):
            reads = [job for job in prefill.jobs if isinstance(job.task, Read)]
            if not reads:
                continue
            if self._labels is None:
                self._read_logprobs(hidden[view.start : view.start + view.count], prefill)
            if prefill.left:
                continue
            for job in reads:
                assert isinstance(job.task, Read)
                values: Tensor | None = None
                if self._labels is not None:
                    values = self._read_labels(prefill.prefix, job.task)
                elif job.task.logprobs:
                    values = torch.tensor(prefill.logprobs, dtype=torch.float64)
                job.finish("length", values)
                finished.append(job)
        return finished

    def _read_logprobs(self, hidden: Tensor, prefill: Prefill) -> None:
        """Add the needed log-probabilities of the ids that follow each token of this chunk."""
        end = prefill.prefix.length
        begin = end - len(hidden) + 1
        first = max(begin, prefill.first)
        following = torch.tensor(prefill.ids[first : end + 1], device=self._device)
        if not len(following):
            return
        logits = self._model.head(hidden[first - begin :][: len(following)])
        logprobs = logits.double().log_softmax(-1)
        prefill.logprobs += logprobs.gather(1, following[:, None])[:, 0].tolist()

    def _read_labels(self, prefix: Prefix, task: Read) -> Tensor:
        assert self._labels is not None
        return self._labels[prefix.blocks].flatten(0, 1)[task.start : len(task.ids)].to("cpu", copy=True)

    def _draw(self, hidden: Tensor, iteration: Iteration, views: Sequence[View]) -> list[Job]:
        """Sample a token for every row whose ids are all processed."""
        decoded = zip(iteration.decoding, views, strict=False)
        rows = [(job, view.start) for (jobs, _), view in decoded for job in jobs]
        for (prefill, _), view in zip(iteration.chunks, views[len(iteration.decoding) :], strict=True):
            if not prefill.left:
                place = view.start + view.count - 1
                rows += [(job, place) for job in prefill.jobs if isinstance(job.task, Row)]
                self._scheduler.branch(prefill)
        if not rows:
            return []
        distinct = {place: index for index, place in enumerate(dict.fromkeys(place for _, place in rows))}
        logits = self._model.head(hidden[torch.tensor(list(distinct))])
        return self._draw_tokens(logits, [distinct[place] for _, place in rows], [job for job, _ in rows])


def _flatten(iteration: Iteration) -> tuple[list[int], list[int], list[View]]:
    """The flat batch of an iteration: ids, slots, and the view of every row and chunk."""
    ids = [jobs[0].ids[-1] for jobs, _ in iteration.decoding]
    slots = [slot for _, slot in iteration.decoding]
    prefixes = [jobs[0].prefix for jobs, _ in iteration.decoding]
    views = [View(place, 1, prefix.length, prefix.blocks) for place, prefix in enumerate(prefixes)]
    for prefill, new in iteration.chunks:
        length = prefill.prefix.length
        views.append(View(len(ids), len(new), length, prefill.prefix.blocks))
        ids += prefill.ids[length - len(new) : length]
        slots += new
    return ids, slots, views


def _layers(iteration: Iteration) -> set[int]:
    """The layers whose hidden states a job of the iteration needs."""
    return {
        layer
        for jobs in [*(jobs for jobs, _ in iteration.decoding), *(prefill.jobs for prefill, _ in iteration.chunks)]
        for job in jobs
        if job.task.segments is not None
        for layer in job.task.segments.layers
    }


def _add_states(states: dict[int, Tensor], iteration: Iteration, views: Sequence[View]) -> None:
    if not states:
        return
    groups = [*(jobs for jobs, _ in iteration.decoding), *(prefill.jobs for prefill, _ in iteration.chunks)]
    for jobs, view in zip(groups, views, strict=True):
        own = {layer: state[view.start : view.start + view.count] for layer, state in states.items()}
        first = view.length - view.count
        for job in jobs:
            if job.means is not None:
                job.means.add(own, job.ids[first : view.length], first)


def _without_broken(
    hidden: Tensor, iteration: Iteration, views: Sequence[View]
) -> tuple[Iteration, list[View], Iteration]:
    """Split an iteration into the jobs with finite hidden states, their views, and the other jobs."""
    n = len(iteration.decoding)
    sound = [bool(hidden[view.start : view.start + view.count].isfinite().all()) for view in views]
    broken = [not numbers for numbers in sound]
    whole, rest = (
        Iteration(list(compress(iteration.decoding, part[:n])), list(compress(iteration.chunks, part[n:])))
        for part in (sound, broken)
    )
    return whole, list(compress(views, sound)), rest
