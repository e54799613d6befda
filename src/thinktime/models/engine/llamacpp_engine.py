"""Rows and reads on llama.cpp. A row is a sequence; rows with a common prefix share its keys and values.

The keys and values of ended rows stay until their room is needed, so a search that extends, prunes and returns to a
node computes every token once.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from thinktime.core.errors import CapabilityError, InputError, ModelError
from thinktime.models.engine.llamacpp_library import MAX_SEQUENCES, NO_ROOM, Context, GgufModel
from thinktime.models.engine.row_engine import RowEngine
from thinktime.models.engine.rows import Job, Read, Row

KEPT = 64
"""Sequences beside those of the running rows, for the keys and values of ended rows."""
OUTPUTS = 256
"""The most logits of one iteration. A vocabulary of 150,000 tokens takes 0.6 MB each."""


@dataclass(eq=False)
class _Sequence:
    """A sequence of llama.cpp: the first ``length`` of ``ids`` are processed. It has no job if its row has ended."""

    number: int
    ids: list[int]
    job: Job | None
    length: int = 0
    logprobs: list[float] = field(default_factory=list)

    def common(self, ids: Sequence[int]) -> int:
        """The number of leading ids that are the same."""
        most = min(len(ids), len(self.ids))
        if self.ids[:most] == list(ids[:most]):
            return most
        return next(i for i in range(most) if self.ids[i] != ids[i])


class LlamaCppEngine(RowEngine):
    """See `RowEngine`. Hidden states are not offered.

    Args:
        weights: the model.
        kv_bytes_per_token: of its keys and values.
        context: positions the model supports.
        end_ids: the tokens that end a row.
        decode: ids to text, needed for stop strings.
        kv_bytes: the most memory for keys and values. It is taken at once.
        max_tokens: tokens of one iteration.
        max_rows: rows that run at once; at most 192.
        threads: of the processor.

    Raises:
        InputError: this version of llama.cpp has another interface.
        ModelError: there is not enough memory.
    """

    def __init__(
        self,
        weights: GgufModel,
        kv_bytes_per_token: int,
        *,
        context: int,
        end_ids: frozenset[int],
        decode: Callable[[Sequence[int]], str] | None = None,
        kv_bytes: int = 512 << 20,
        max_tokens: int = 512,
        max_rows: int = 256,
        threads: int = 1,
    ) -> None:
        super().__init__(context, end_ids, decode)
        n_sequences = min(MAX_SEQUENCES, max_rows + KEPT)
        cells = min(max(256, kv_bytes // kv_bytes_per_token), context * n_sequences)
        self._max_rows, self._max_tokens = min(max_rows, MAX_SEQUENCES - KEPT), max_tokens
        self._whole_only = weights.whole_only
        self._run = Context(weights, cells=cells, sequences=n_sequences, tokens=max_tokens, threads=threads)
        self._free = list(range(n_sequences))
        self._waiting: deque[Job] = deque()
        self._running: dict[Job, _Sequence] = {}
        self._kept: dict[int, _Sequence] = {}
        """By number, the least recently used first."""

    @property
    def busy(self) -> bool:
        """Whether there is anything to compute."""
        return bool(self._waiting or self._running)

    @property
    def held(self) -> int:
        """Sequences that are in use, also by the keys and values of ended rows."""
        return len(self._running) + len(self._kept)

    def submit(self, task: Row | Read) -> Job:
        """Add a row or a read; it starts with the next iteration that has room.

        Raises:
            InputError: it does not fit the context or the store.
            CapabilityError: it asks for hidden states.
        """
        self._check(task)
        job = Job(task, list(task.ids), (len(task.ids) if isinstance(task, Row) else task.start) - 1)
        self._waiting.append(job)
        self._watch(job)
        return job

    @torch.inference_mode()
    def step(self) -> list[Job]:
        """Run one iteration; return the jobs it finished. An error of llama.cpp fails only this iteration's jobs."""
        started = time.perf_counter()
        late = self._cancel_late()
        self._admit()
        batch: list[tuple[_Sequence, int]] = []
        if not self._running:
            return late
        try:
            while (code := self._decode_batch(batch := self._next_batch())) == NO_ROOM:
                self._make_room()
            if code:
                raise ModelError(f"llama.cpp failed with code {code}")
            return late + self._take(batch, started)
        except Exception as error:  # the callers have to get any error
            failed = [sequence.job for sequence, _ in batch or [(each, 0) for each in self._running.values()]]
            for job in failed:
                assert job is not None
                self._forget(job)
                job.error = error
            return late + [job for job in failed if job is not None]

    def _check(self, task: Row | Read) -> None:
        super()._check(task)
        if task.segments is not None:
            raise CapabilityError("engine='llamacpp': llama.cpp gives no hidden states; take --engine own")
        if (length := self._longest(task)) > self._run.cells:
            raise InputError("kv_bytes", f"room for {self._run.cells} tokens", f"this row may grow to {length}")
        if isinstance(task, Read) and not 0 < task.start <= len(task.ids):
            raise InputError("start", task.start, f"the first token has no probability; give 1 to {len(task.ids)}")

    def _remove(self, job: Job) -> None:
        sequence = self._running.pop(job, None)
        if sequence is None:
            if job in self._waiting:
                self._waiting.remove(job)
            return
        sequence.job, sequence.ids = None, sequence.ids[: sequence.length]
        if sequence.length:
            self._kept[sequence.number] = sequence
        else:
            self._free.append(sequence.number)

    def _forget(self, job: Job) -> None:
        sequence = self._running.get(job)
        self._remove(job)
        if sequence is not None and sequence.length:
            self._drop(sequence)

    def _drop(self, sequence: _Sequence) -> None:
        """Free a kept sequence."""
        del self._kept[sequence.number]
        self._run.clear(sequence.number)
        self._free.append(sequence.number)

    def _make_room(self) -> None:
        """Take the cells of the least recently used prefix, or of the youngest row, which begins again later."""
        if self._kept:
            return self._drop(next(iter(self._kept.values())))
        job = list(self._running)[-1]
        if len(self._running) == 1:
            raise ModelError("llama.cpp has no room for one row")
        self._forget(job)
        self._waiting.appendleft(job)

    def _admit(self) -> None:
        """Start waiting jobs. A job whose prefix is being processed for another one waits until that is done."""
        later: list[Job] = []
        blocked: set[tuple[int, ...]] = set()
        while self._waiting and len(self._running) < self._max_rows:
            job = self._waiting.popleft()
            reusable = len(job.ids) - 1 if job.logprobs else job.reusable
            if job.task.ids in blocked:
                later.append(job)
                continue
            source, length, soon = None, 0, 0
            for other in (*self._kept.values(), *self._running.values()):
                common = other.common(job.ids[:reusable])
                soon = max(soon, common)
                done = min(common, other.length)
                if self._whole_only and done < other.length:
                    done = 0
                if done > length:
                    source, length = other, done
            if soon > length and not self._whole_only:
                blocked.add(job.task.ids)
                later.append(job)
                continue
            self._start(job, source, length)
        self._waiting.extendleft(reversed(later))

    def _start(self, job: Job, source: _Sequence | None, length: int) -> None:
        if source is not None and source.job is None:  # it was used just now
            self._kept[source.number] = self._kept.pop(source.number)
        if not self._free:
            self._drop(next(each for each in self._kept.values() if each is not source))
        sequence = _Sequence(self._free.pop(), job.ids, job)
        if source is not None:
            self._run.copy(source.number, sequence.number, length)
            sequence.length = length
        if not job.logprobs:
            job.reused = length
        self._running[job] = sequence

    def _next_batch(self) -> list[tuple[_Sequence, int]]:
        """The sequences of this iteration, and how many tokens of each. Running rows come first."""
        batch: list[tuple[_Sequence, int]] = []
        tokens, outputs = self._max_tokens, OUTPUTS
        for sequence in sorted(self._running.values(), key=lambda each: len(each.ids) - each.length > 1):
            assert sequence.job is not None
            count = min(len(sequence.ids) - sequence.length, tokens)
            if isinstance(sequence.job.task, Read):
                before = max(0, sequence.job.task.start - 1 - sequence.length)
                count = min(count, before + outputs)
                outputs -= max(0, count - before)
            else:
                count = min(count, tokens if outputs else 0)
                outputs -= count == len(sequence.ids) - sequence.length
            if count > 0:
                batch.append((sequence, count))
                tokens -= count
        return batch

    def _decode_batch(self, batch: Sequence[tuple[_Sequence, int]]) -> int:
        tokens: list[int] = []
        positions: list[int] = []
        numbers: list[int] = []
        wanted: list[bool] = []
        for sequence, count in batch:
            assert sequence.job is not None
            task, end = sequence.job.task, sequence.length + count
            first = task.start - 1 if isinstance(task, Read) else len(sequence.ids) - 1
            tokens += sequence.ids[sequence.length : end]
            positions += range(sequence.length, end)
            numbers += [sequence.number] * count
            wanted += [place >= first for place in range(sequence.length, end)]
        return self._run.decode(tokens, positions, numbers, wanted)

    def _take(self, batch: Sequence[tuple[_Sequence, int]], started: float) -> list[Job]:
        """Draw and read from the logits of a batch."""
        finished: list[Job] = []
        drawing: list[tuple[Job, int]] = []
        at = 0
        n = sum(count for _, count in batch)
        share = (time.perf_counter() - started) / n
        for sequence, count in batch:
            job = sequence.job
            assert job is not None
            job.seconds += share * count
            if not job.logprobs:
                job.computed += count
            sequence.length += count
            if isinstance(job.task, Read):
                self._read(sequence, job.task, at, count)
                if sequence.length == len(sequence.ids):
                    self._remove(job)
                    job.finish("length", torch.tensor(sequence.logprobs, dtype=torch.float64))
                    finished.append(job)
            elif sequence.length == len(sequence.ids):
                same = [] if job.logprobs else self._branch(sequence)
                drawing += [(each, at + count - 1) for each in (job, *same)]
            at += count
        if drawing:
            distinct = {place: index for index, place in enumerate(dict.fromkeys(place for _, place in drawing))}
            logits = torch.from_numpy(np.stack([self._run.logits(place) for place in distinct]))
            of_row = [distinct[place] for _, place in drawing]
            finished += self._draw_tokens(logits, of_row, [job for job, _ in drawing])
        return finished

    def _branch(self, sequence: _Sequence) -> list[Job]:
        """Start the waiting rows of a prompt that is processed now; they draw from its logits too."""
        assert sequence.job is not None
        ids = sequence.job.task.ids
        rows = [job for job in self._waiting if isinstance(job.task, Row) and not job.logprobs and job.task.ids == ids]
        rows = rows[: self._max_rows - len(self._running)]
        for job in rows:
            self._waiting.remove(job)
            self._start(job, sequence, sequence.length)
        return rows

    def _read(self, sequence: _Sequence, task: Read, at: int, count: int) -> None:
        """Add the log-probabilities of the ids that follow each token of this part."""
        begin = sequence.length - count
        for place in range(max(begin, task.start - 1), min(sequence.length, len(task.ids) - 1)):
            logits = torch.from_numpy(self._run.logits(at + place - begin)).double()
            sequence.logprobs.append(float(logits.log_softmax(-1)[task.ids[place + 1]]))
