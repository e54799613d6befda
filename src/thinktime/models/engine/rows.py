"""The tasks and outputs of the engine, and the jobs that track them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor

from thinktime.core.clock import Deadline
from thinktime.models.engine.blocks import Prefix
from thinktime.models.engine.states import SegmentMeans, Segments

RowFinish = Literal["eos", "stop", "length", "cancelled"]


@dataclass(eq=False)
class RowRace:
    """Rows that compete until ``k`` of them have arrived; every other row is cancelled at the length of the k-th.

    ``counts`` takes the sampled ids of a row that has ended and decides whether it arrived. ``lengths`` are the lengths
    of the arrived rows, in tokens.
    """

    k: int
    counts: Callable[[Sequence[int]], bool]
    lengths: list[int]

    def arrive(self, ids: Sequence[int]) -> None:
        """Record the length of a row that has ended, if the row counts."""
        if self.counts(ids):
            self.lengths.append(len(ids))

    def over(self, length: int) -> bool:
        """Whether a row of this length has lost."""
        return len(self.lengths) >= self.k and length >= sorted(self.lengths)[self.k - 1]


@dataclass(frozen=True)
class Row:
    """One continuation to sample. ``key`` fixes its noise: the same key gives the same tokens in any batch.

    ``stop_ids`` and ``stop_strings`` end the row after the token that completes them. The row is cancelled at its
    ``deadline``. ``segments`` requests hidden states of the sampled tokens, without the last one, which is never
    processed. ``confidences`` requests the confidence of every sampled token. ``top`` requests so many of the most
    likely tokens at the place of the first sampled one.
    """

    ids: tuple[int, ...]
    key: int
    max_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    stop_ids: frozenset[int] = frozenset()
    stop_strings: tuple[str, ...] = ()
    deadline: Deadline | None = None
    segments: Segments | None = None
    race: RowRace | None = None
    confidences: bool = False
    top: int = 0


@dataclass(frozen=True)
class Read:
    """Given ids to process: returns the log-probabilities, or a classifier's logits, of the ids from ``start`` on.

    ``segments`` also requests the hidden states from ``start`` on. ``logprobs`` is False if a language model's
    log-probabilities are not needed; with a large vocabulary they cost as much as several layers.
    """

    ids: tuple[int, ...]
    start: int
    segments: Segments | None = None
    logprobs: bool = True


@dataclass(frozen=True)
class Output:
    """The sampled ids, including a final end-of-sequence token, with their probabilities and costs.

    ``logprobs`` are the model's at temperature 1, at any sampling temperature. ``computed`` and ``reused`` count prompt
    tokens; the first of the rows that share a prompt is charged for it. ``seconds`` is the row's share of the wall
    time, by tokens. ``values`` belongs to a `Read`: ``[tokens]`` log-probabilities, if requested, or ``[tokens,
    labels]`` logits. ``states`` are the requested means, ``[segments, layers, hidden]``. ``confidences`` are those of
    the sampled ids, if requested, to four decimals (`thinktime.models.engine.sampling.confidences`). ``top`` are the
    most likely tokens after the task's ids with their log-probabilities at temperature 1, the most likely one first.
    """

    ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    finish: RowFinish
    computed: int
    reused: int
    seconds: float
    values: Tensor | None = None
    states: Tensor | None = None
    confidences: tuple[float, ...] = ()
    top: tuple[tuple[int, float], ...] = ()


@dataclass(eq=False)
class Job:
    """A row or read in the engine; it ends with an ``output`` or an ``error``.

    ``prefix`` holds the blocks of all ids but the last, which the next iteration processes. The first ``reusable`` ids
    of the task are not processed again if the store has them.
    """

    task: Row | Read
    ids: list[int]
    reusable: int
    prefix: Prefix = field(default_factory=Prefix)
    prefill: Prefill | None = None
    logprobs: list[float] = field(default_factory=list)
    confidences: list[float] = field(default_factory=list)
    top: tuple[tuple[int, float], ...] = ()
    computed: int = 0
    reused: int = 0
    seconds: float = 0.0
    output: Output | None = None
    error: Exception | None = None
    means: SegmentMeans | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        if self.task.segments is not None:
            start = len(self.task.ids) if isinstance(self.task, Row) else self.task.start
            self.means = SegmentMeans(self.task.segments, start)

    @property
    def first(self) -> int:
        """The first id of the task whose log-probability is needed; their number if none is."""
        task = self.task
        return task.start if isinstance(task, Read) and task.logprobs else len(task.ids)

    @property
    def done(self) -> bool:
        """Whether it has an output or an error."""
        return self.output is not None or self.error is not None

    def finish(self, how: RowFinish, values: Tensor | None = None) -> None:
        """Write the output."""
        new = tuple(self.ids[len(self.task.ids) :])
        states = self.means.tensor() if self.means is not None else None
        costs = self.computed, self.reused, self.seconds
        self.output = Output(new, tuple(self.logprobs), how, *costs, values, states, tuple(self.confidences), self.top)


@dataclass(eq=False)
class Prefill:
    """Ids that one or more jobs wait for. They are processed once; then every job continues on its own.

    The first ``reusable`` ids may come from the store. A row needs the logits after its last id, so this id is always
    processed. Log-probabilities are needed from the id at ``first`` on. ``paid`` counts ids that were processed before
    and evicted for lack of room.
    """

    ids: tuple[int, ...]
    reusable: int
    first: int
    jobs: list[Job]
    paid: int = 0
    reused: int = 0
    computed: int = 0
    logprobs: list[float] = field(default_factory=list)
    prefix: Prefix = field(default_factory=Prefix)

    @property
    def name(self) -> tuple[tuple[int, ...], int, int]:
        """What a job has to have in common with it to join it."""
        return self.ids, self.reusable, self.first

    @property
    def left(self) -> int:
        """Tokens still to process."""
        return len(self.ids) - self.prefix.length
