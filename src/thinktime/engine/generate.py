"""Batched sampling: rows that share a prefix are prefilled once, finished rows leave the batch.

This is the whole engine for now: a wave of rows runs until its last row stops. It knows token ids and nothing
else; `thinktime.generators.local` turns nodes into rows and coalesces the rows of all problems into waves.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

RowFinish = Literal["eos", "step", "length", "budget"]


class Cache(Protocol):
    """What a model remembers of the rows of a batch."""

    def select(self, rows: Tensor) -> None:
        """Keep these rows, in this order; a row may be taken more than once."""
        ...


class CausalLM(Protocol):
    """What the loop asks of a language model."""

    def new_cache(self) -> Any:
        """An empty `Cache` of the model's own kind."""
        ...

    def next_logits(self, ids: Tensor, positions: Tensor, mask: Tensor, cache: Any) -> Tensor:
        """Logits after the last of ``ids``, ``[batch, vocab]``; the cache then holds ``ids`` too.

        ``ids`` and ``positions`` are ``[batch, tokens]``; ``mask`` is true where a query may look,
        ``[batch, 1, tokens, cached + tokens]``.
        """
        ...


@dataclass(frozen=True)
class Row:
    """One continuation to sample. ``key`` fixes its noise: the same key gives the same tokens in any batch."""

    ids: tuple[int, ...]
    key: int
    max_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    step_ids: frozenset[int] = frozenset()
    deadline: float | None = None


@dataclass(frozen=True)
class Output:
    """The sampled ids, a final end-of-sequence token included, and what is known about them.

    ``logprobs`` are those of the model at temperature 1, whatever the row was sampled at; ``seconds`` is the
    row's share of the wave's wall time, by tokens.
    """

    ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    finish: RowFinish
    seconds: float


def uniform(keys: npt.NDArray[np.uint64], position: npt.NDArray[np.uint64]) -> npt.NDArray[np.float64]:
    """One number in [0, 1) per (key, position): the SplitMix64 counter generator, 53 bits."""
    with np.errstate(over="ignore"):
        z = keys + (position + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    unit: npt.NDArray[np.float64] = (z >> np.uint64(11)).astype(np.float64) * 2.0**-53
    return unit


def sample(logits: Tensor, temperature: Tensor, top_p: Tensor, noise: Tensor) -> Tensor:
    """Draw one id per row by inverting the cumulative distribution at ``noise``; temperature 0 is argmax.

    Shapes: logits ``[rows, vocab]`` in float64, the others ``[rows]``.
    """
    scaled = logits / temperature.clamp(min=1e-6)[:, None]
    probs = scaled.softmax(-1)
    if bool((top_p < 1).any()):
        order = probs.sort(dim=-1, descending=True)
        kept = order.values * (order.values.cumsum(-1) - order.values < top_p.clamp(min=1e-12)[:, None])
        probs = torch.zeros_like(probs).scatter(1, order.indices, kept)
    cumulative = probs.cumsum(-1)
    drawn = torch.searchsorted(cumulative, (noise * cumulative[:, -1])[:, None], right=True)[:, 0]
    last_possible = (probs > 0).int().cumsum(-1).argmax(-1)
    return torch.where(temperature > 0, torch.minimum(drawn, last_possible), logits.argmax(-1))


@torch.inference_mode()
def generate(model: CausalLM, rows: Sequence[Row], eos_id: int, pad_id: int = 0) -> list[Output]:
    """Sample all rows as one wave. Outputs are in the order of the rows."""
    started = time.perf_counter()
    prefixes = list(dict.fromkeys(row.ids for row in rows))
    place = {prefix: index for index, prefix in enumerate(prefixes)}
    width = max(map(len, prefixes))
    ids = torch.full((len(prefixes), width), pad_id)
    real = torch.zeros(len(prefixes), width, dtype=torch.bool)
    for index, prefix in enumerate(prefixes):
        ids[index, width - len(prefix) :] = torch.tensor(prefix)
        real[index, width - len(prefix) :] = True
    positions = (real.long().cumsum(-1) - 1).clamp(min=0)
    mask = real[:, None, None, :] & torch.ones(width, width, dtype=torch.bool).tril()
    mask = mask | torch.eye(width, dtype=torch.bool)  # a padding position sees itself, so its softmax is defined
    cache: Cache = model.new_cache()
    logits = model.next_logits(ids, positions, mask, cache)

    source = torch.tensor([place[row.ids] for row in rows])
    logits, seen = logits[source], real[source]
    cache.select(source)
    batch = list(range(len(rows)))  # the row at each place of the batch; finished ones stay until it shrinks
    lengths = np.array([len(row.ids) for row in rows])
    keys = np.array([row.key for row in rows], dtype=np.uint64)
    temperature = torch.tensor([row.temperature for row in rows], dtype=torch.float64)
    top_p = torch.tensor([row.top_p for row in rows], dtype=torch.float64)
    tokens: list[list[int]] = [[] for _ in rows]
    logprobs: list[list[float]] = [[] for _ in rows]
    finish: dict[int, RowFinish] = {}
    for position in range(max(row.max_tokens for row in rows)):
        logits = logits.double()
        noise = torch.from_numpy(uniform(keys[batch], lengths[batch].astype(np.uint64) + np.uint64(position)))
        drawn = sample(logits, temperature[batch], top_p[batch], noise)
        drawn_logprobs = logits.log_softmax(-1).gather(1, drawn[:, None])[:, 0]
        now = time.monotonic()
        for index, token, logprob in zip(batch, drawn.tolist(), drawn_logprobs.tolist(), strict=True):
            if index in finish:
                continue
            tokens[index].append(token)
            logprobs[index].append(logprob)
            row = rows[index]
            if token == eos_id:
                finish[index] = "eos"
            elif token in row.step_ids:
                finish[index] = "step"
            elif position + 1 >= row.max_tokens:
                finish[index] = "length"
            elif row.deadline is not None and now >= row.deadline:
                finish[index] = "budget"
        places = [place for place, index in enumerate(batch) if index not in finish]
        if not places:
            break
        if len(places) <= 0.75 * len(batch):  # copying the cache for every finished row would cost more
            kept = torch.tensor(places)
            batch = [batch[place] for place in places]
            drawn, seen = drawn[kept], seen[kept]
            cache.select(kept)
        seen = torch.cat((seen, torch.ones(len(batch), 1, dtype=torch.bool)), dim=1)
        at = torch.tensor(lengths[batch] + position)[:, None]
        logits = model.next_logits(drawn[:, None], at, seen[:, None, None, :], cache)
    share = (time.perf_counter() - started) / sum(map(len, tokens))
    return [
        Output(tuple(tokens[i]), tuple(logprobs[i]), finish[i], seconds=share * len(tokens[i]))
        for i in range(len(rows))
    ]
