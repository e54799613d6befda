"""Independent samples of different prompts. They are greedy, so all contenders write the same tokens."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from benchmarks.engine.llama_cpp import LlamaCpp
from benchmarks.engine.measure import Timed, alternate, ratio, spread
from benchmarks.engine.peers import Continuation, Transformers
from thinktime.models.engine.models import LanguageModel
from thinktime.models.engine.rows import Row
from thinktime.pocket.problems import problems

MAX_TOKENS = 400
AT_ONCE = (8, 16, 32, 64)
"""Numbers of rows for continuous batching; the fastest one is the peer."""
Prompts = list[list[int]]


def measure(
    solver: LanguageModel,
    peer: Transformers,
    llama: LlamaCpp | None,
    sizes: Sequence[int],
    rounds: int,
    at_least: int = 32,
) -> dict[str, Any]:
    """Tokens per second at every batch size; small batches are repeated up to ``at_least`` rows per round."""
    questions = [problem.question for problem in problems("test", max(*sizes, at_least), seed=5)]
    prompts = [solver.tokenizer.encode_chat(question) for question in questions]
    ours(solver, [prompts[:8]])
    padded(solver, peer, [prompts[:8]])
    continuous = {"generate_batch": peer.generate_batch} | ({"llama_cpp": llama.sample} if llama else {})
    trials = {
        name: {rows: queued(solver, run, [prompts[:64]], rows)[0].rate for rows in AT_ONCE}
        for name, run in continuous.items()
    }
    at_once = {name: max(rates, key=lambda rows: rates[rows]) for name, rates in trials.items()}
    table = {}
    for size in sizes:
        batches = [prompts[first : first + size] for first in range(0, max(size, at_least), size)]
        results = alternate(
            {
                "ours": partial(ours, solver, batches),
                "generate": partial(padded, solver, peer, batches),
                **{name: partial(queued, solver, run, batches, at_once[name]) for name, run in continuous.items()},
            },
            rounds,
        )
        rates = {name: [timed.rate for timed, _ in runs] for name, runs in results.items()}
        rows = {name: runs[0][1] for name, runs in results.items()}
        table[str(size)] = {
            "tokens": {name: runs[0][0].tokens for name, runs in results.items()},
            "rows": len(rows["ours"]),
            "longest": max(len(row.ids) for row in rows["ours"]),
            "shortest": min(len(row.ids) for row in rows["ours"]),
            "same_text": {
                name: sum(a.ids == b.ids for a, b in zip(rows["ours"], rows[name], strict=True)) / len(rows["ours"])
                for name in ("generate", *continuous)
            },
            "tokens_per_second": {name: spread(values) for name, values in rates.items()},
            "ratio": {name: ratio(rates["ours"], rates[name]) for name in ("generate", *continuous)},
        }
    return {
        "rounds": rounds,
        "max_tokens": MAX_TOKENS,
        "rows_at_once": {name: {"chosen": at_once[name], "tokens_per_second": trials[name]} for name in continuous},
        "by_rows": table,
    }


Sampled = tuple[Timed, list[Continuation]]
Queue = Callable[[Sequence[Sequence[int]], int, int, int], Sampled]
"""Takes prompts, the most new tokens, the end token, and the number of rows at once."""


def ours(solver: LanguageModel, batches: Sequence[Prompts]) -> Sampled:
    """A new engine with default options, so nothing is stored from another round."""
    engine = solver.engine()
    started = time.perf_counter()
    outputs = [
        output
        for batch in batches
        for output in engine.run([Row(tuple(ids), key, MAX_TOKENS, 0.0) for key, ids in enumerate(batch)])
    ]
    seconds = time.perf_counter() - started
    return Timed(sum(len(output.ids) for output in outputs), seconds), [Continuation(output.ids) for output in outputs]


def padded(solver: LanguageModel, peer: Transformers, batches: Sequence[Prompts]) -> Sampled:
    """``transformers`` on a padded batch."""
    started = time.perf_counter()
    rows = [row for batch in batches for row in peer.generate(batch, MAX_TOKENS, [solver.tokenizer.eos_id])]
    seconds = time.perf_counter() - started
    return Timed(sum(len(row.ids) for row in rows), seconds), rows


def queued(solver: LanguageModel, run: Queue, batches: Sequence[Prompts], at_once: int) -> Sampled:
    """A peer with continuous batching."""
    parts = [run(batch, MAX_TOKENS, solver.tokenizer.eos_id, at_once) for batch in batches]
    timed = Timed(sum(t.tokens for t, _ in parts), sum(t.seconds for t, _ in parts))
    return timed, [row for _, rows in parts for row in rows]
