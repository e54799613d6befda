"""How long do running rows wait while long prompts arrive?"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from benchmarks.engine.measure import alternate, percentile, ratio, spread
from thinktime.models.engine.costs import Shape
from thinktime.models.engine.engine import Engine
from thinktime.models.engine.llama import Llama, LlamaConfig
from thinktime.models.engine.rows import Job, Row

CONTEXT = 4096
ROWS = 32
ANSWER = 8
SHORT = 24
WHOLE = "whole"


@dataclass(frozen=True)
class Load:
    """Rows that run for ``tokens``, and ``arrivals`` prompts of ``length`` that arrive at equal intervals."""

    tokens: int
    arrivals: int
    length: int


@dataclass(frozen=True)
class Served:
    """Gaps between tokens of the running rows in seconds, tokens per second of all rows, and all drawn ids."""

    gaps: list[float]
    rate: float
    ids: tuple[tuple[int, ...], ...]


def random_llama(config: LlamaConfig, dtype: torch.dtype) -> tuple[Llama, Shape]:
    """A model with random weights from a fixed seed, and its shape."""
    torch.manual_seed(0)
    model = Llama(config).to(dtype).eval()
    parameters = sum(p.numel() for p in model.parameters())
    sizes = (config.num_hidden_layers, config.num_attention_heads, config.num_key_value_heads, config.head_dim)
    return model, Shape(*sizes, parameters, dtype.itemsize)


def serve(config: LlamaConfig, dtype: torch.dtype, load: Load, max_tokens: int | None) -> Served:
    """Run the load; ``max_tokens`` None processes every prompt whole, in its own iteration."""
    model, shape = random_llama(config, dtype)
    options: dict[str, Any] = {"chunked": False} if max_tokens is None else {"max_tokens": max_tokens}
    engine = Engine(model, shape, dtype, context=config.max_position_embeddings, kv_bytes=1 << 30, **options)
    draw = torch.Generator().manual_seed(1)

    def prompt(length: int) -> tuple[int, ...]:
        return tuple(torch.randint(config.vocab_size, (length,), generator=draw).tolist())

    running = [engine.submit(Row(prompt(SHORT), key, load.tokens)) for key in range(ROWS)]
    while not all(job.logprobs for job in running):
        engine.step()
    arrived: list[Job] = []
    every = load.tokens // (load.arrivals + 1)
    last = [time.perf_counter()] * ROWS
    gaps = []
    started, before = time.perf_counter(), engine.account.generated
    while engine.busy:
        counts = [len(job.logprobs) for job in running]
        if len(arrived) < load.arrivals and min(counts) >= every * (len(arrived) + 1):
            arrived.append(engine.submit(Row(prompt(load.length), ROWS + len(arrived), ANSWER)))
        engine.step()
        now = time.perf_counter()
        for index, job in enumerate(running):
            if len(job.logprobs) > counts[index]:
                gaps.append(now - last[index])
                last[index] = now
    rate = (engine.account.generated - before + load.length * load.arrivals) / (time.perf_counter() - started)
    return Served(gaps, rate, tuple(tuple(job.ids) for job in (*running, *arrived)))


def measure(config: LlamaConfig, load: Load, budgets: Sequence[int], rounds: int) -> dict[str, Any]:
    """Compare chunked prefill at several token budgets with whole prompts."""
    config = LlamaConfig(**{**config.__dict__, "max_position_embeddings": CONTEXT})
    settings: dict[str, int | None] = {WHOLE: None, **{str(budget): budget for budget in budgets}}
    exact = {name: serve(config, torch.float64, load, budget).ids for name, budget in settings.items()}
    assert len(set(exact.values())) == 1, "chunking changed a token in float64"
    results = alternate(
        {name: partial(serve, config, torch.float32, load, budget) for name, budget in settings.items()},
        rounds,
    )
    worst = {name: [1e3 * max(run.gaps) for run in runs] for name, runs in results.items()}
    p99 = {name: [1e3 * percentile(run.gaps, 0.99) for run in runs] for name, runs in results.items()}
    rates = {name: [run.rate for run in runs] for name, runs in results.items()}
    return {
        "rounds": rounds,
        "rows": ROWS,
        "load": load.__dict__,
        "outputs_identical_in_float64": len(set(exact.values())) == 1,
        "by_budget": {
            name: {
                "worst_gap_ms": spread(worst[name]),
                "p99_gap_ms": spread(p99[name]),
                "median_gap_ms": spread([1e3 * percentile(run.gaps, 0.5) for run in results[name]]),
                "tokens_per_second": spread(rates[name]),
                "worst_gap_whole_over_this": ratio(worst[WHOLE], worst[name]),
                "p99_gap_whole_over_this": ratio(p99[WHOLE], p99[name]),
                "throughput_this_over_whole": ratio(rates[name], rates[WHOLE]),
            }
            for name in settings
        },
    }
