"""What callers hand to the engine, what they get back, and a row's life in between."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor

from thinktime.engine.blocks import Prefix
from thinktime.engine.states import SegmentMeans, Segments

RowFinish = Literal["eos", "stop", "length", "cancelled"]


@dataclass(eq=False)
class Race:
    """Rows of which ``k`` are wanted: when so many have ended, the rest end where they are as long as the last of them.

    ``counts`` is asked with the sampled ids whether an end is an arrival; ``lengths`` are the arrivals', in tokens.
    """

    k: int
    counts: Callable[[Sequence[int]], bool]
    lengths: list[int]

    def arrive(self, ids: Sequence[int]) -> None:
        """A row has ended by itself."""
        if self.counts(ids):
            self.lengths.append(len(ids))

    def over(self, length: int) -> bool:
        """Whether a row of this length has lost."""
        return len(self.lengths) >= self.k and length >= sorted(self.lengths)[self.k - 1]


@dataclass(frozen=True)
class Row:
    """One continuation to sample. ``key`` fixes its noise: the same key gives the same tokens in any batch.

    ``stop_ids`` and ``stop_strings`` end it after the token that completes them; ``deadline`` is a reading of the
    monotonic clock, in seconds, after which it is cancelled. ``segments`` asks for hidden states of what it says, all
    but the last token, which is never read.
    """

    ids: tuple[int, ...]
    key: int
    max_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    stop_ids: frozenset[int] = frozenset()
    stop_strings: tuple[str, ...] = ()
    deadline: float | None = None
    segments: Segments | None = None
    race: Race | None = None


@dataclass(frozen=True)
class Read:
    """Given ids to be read: their log-probabilities from place ``start`` on, or a classifier's logits.

    ``segments`` asks for hidden states from that place on, too.
    """

    ids: tuple[int, ...]
    start: int
    segments: Segments | None = None


@dataclass(frozen=True)
class Output:
    """The sampled ids, a final end-of-sequence token included, and what is known about them.

    ``logprobs`` are those of the model at temperature 1, whatever the row was sampled at. ``computed`` and ``reused``
    count the tokens of the prompt; of rows that share it the first pays. ``seconds`` is the row's share of the wall
    time, by tokens. ``values`` is for a `Read`: ``[tokens]`` log-probabilities or ``[tokens, labels]`` logits.
    ``states`` are the means that were asked for, ``[segments, layers, hidden]``.
    """

    ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    finish: RowFinish
    computed: int
    reused: int
    seconds: float
    values: Tensor | None = None
    states: Tensor | None = None


@dataclass(eq=False)
class Job:
    """A row or reading on its way through the engine; in the end it has an ``output`` or an ``error``.

    ``prefix`` holds the blocks of all ids but the last, which the next iteration reads. ``reusable`` of the task's ids
    need not be read if they are stored.
    """

    task: Row | Read
    ids: list[int]
    reusable: int
    prefix: Prefix = field(default_factory=Prefix)
    trunk: Trunk | None = None
    logprobs: list[float] = field(default_factory=list)
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
    def done(self) -> bool:
        """Whether it has an output or an error."""
        return self.output is not None or self.error is not None

    def finish(self, how: RowFinish, values: Tensor | None = None) -> None:
        """Write the output."""
        new = tuple(self.ids[len(self.task.ids) :])
        states = self.means.tensor() if self.means is not None else None
        self.output = Output(new, tuple(self.logprobs), how, self.computed, self.reused, self.seconds, values, states)


@dataclass(eq=False)
class Trunk:
    """Ids to be read before the jobs that share them go their own ways.

    Of its ids, ``reusable`` may come from what is stored already (a row needs the logits behind the last one, so that
    one must be read). ``paid`` counts those read before and given up for want of room.
    """

    ids: tuple[int, ...]
    reusable: int
    jobs: list[Job]
    paid: int = 0
    reused: int = 0
    computed: int = 0
    logprobs: list[float] = field(default_factory=list)
    prefix: Prefix = field(default_factory=Prefix)

    @property
    def left(self) -> int:
        """Tokens still to be read."""
        return len(self.ids) - self.prefix.length
