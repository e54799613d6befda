"""The time of each part of an iteration, and the growth of the cost of a tree with its size."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Sequence
from typing import Any

import torch

from benchmarks.engine.measure import Stopwatch, spread
from benchmarks.engine.prefill import random_llama
from thinktime.models.engine import engine as engine_module
from thinktime.models.engine.engine import BLOCK_SIZE, Engine
from thinktime.models.engine.llama import LlamaConfig
from thinktime.models.engine.models import LanguageModel
from thinktime.models.engine.rows import Row
from thinktime.pocket.problems import problems

TINY = LlamaConfig(64, 8, 16, 1, 1, 1, 8, max_position_embeddings=256)


def iterations(solver: LanguageModel, sizes: Sequence[int], steps: int, rounds: int) -> dict[str, Any]:
    """Shares of the parts of an iteration in which every row draws one token."""
    prompts = [solver.tokenizer.encode_chat(problem.question) for problem in problems("test", max(sizes), seed=8)]
    table = {}
    for size in sizes:
        runs = [_parts(solver, prompts[:size], steps) for _ in range(rounds)]
        table[str(size)] = {
            "milliseconds": spread([1e3 * run["iteration"] / steps for run in runs]),
            "share": {
                name: spread([run[name] / run["iteration"] for run in runs]) for name in runs[0] if name != "iteration"
            },
        }
    return {"rounds": rounds, "iterations": steps, "by_rows": table}


def _parts(solver: LanguageModel, prompts: Sequence[Sequence[int]], steps: int) -> dict[str, float]:
    """Seconds of ``steps`` iterations by part. Plan, schedule and all time outside the parts are bookkeeping."""
    engine = Engine(solver.model, solver.shape, solver.dtype, context=solver.context, max_rows=len(prompts))
    jobs = [engine.submit(Row(tuple(ids), key, steps + 200)) for key, ids in enumerate(prompts)]
    while not all(job.logprobs for job in jobs):
        engine.step()
    clock = Stopwatch()
    undo = [
        clock.wrap(solver.model, "hidden", "layers"),
        clock.wrap(solver.model, "head", "head"),
        clock.wrap(engine_module, "sample", "sampling"),
        clock.wrap(engine._store, "attend", "attention"),
        clock.wrap(engine._store, "plan", "plan"),
        clock.wrap(engine._scheduler, "schedule", "schedule"),
    ]
    started = time.perf_counter()
    for _ in range(steps):
        engine.step()
    total = time.perf_counter() - started
    for back in undo:
        back()
    spent = clock.seconds
    spent["layers"] -= spent["attention"]
    bookkeeping = total - sum(spent[name] for name in ("layers", "attention", "head", "sampling"))
    return {**spent, "bookkeeping": bookkeeping, "iteration": total}


def tree_growth(sizes: Sequence[int], at_once: int = 32) -> dict[str, Any]:
    """Seconds until a tree of one-token nodes has these sizes; the parent of each node is drawn at random."""
    model, shape = random_llama(TINY, torch.float32)
    room = (max(sizes) + 2 * at_once) * BLOCK_SIZE * shape.kv_bytes_per_token
    engine = Engine(model, shape, torch.float32, context=TINY.max_position_embeddings, kv_bytes=room)
    rng = random.Random(0)
    nodes: list[tuple[int, ...]] = [(1, 2, 3)]
    seconds: dict[int, float] = {}
    started = time.perf_counter()
    while len(seconds) < len(sizes):
        parents = [rng.choice(nodes) for _ in range(at_once)]
        outputs = engine.run([Row(ids, len(nodes) + index, 1) for index, ids in enumerate(parents)])
        nodes += [ids + output.ids for ids, output in zip(parents, outputs, strict=True)]
        if len(nodes) >= sizes[len(seconds)]:
            seconds[sizes[len(seconds)]] = time.perf_counter() - started
    return {
        "at_once": at_once,
        "deepest": max(map(len, nodes)) - 3,
        "seconds": {str(size): round(spent, 4) for size, spent in seconds.items()},
        "log_log_slope": round(_slope(seconds), 3),
    }


def _slope(seconds: dict[int, float]) -> float:
    """The slope of a least-squares line through the logarithms."""
    points = [(math.log(size), math.log(spent)) for size, spent in seconds.items()]
    mean_x, mean_y = (sum(side) / len(points) for side in zip(*points, strict=True))
    covariance = math.fsum((x - mean_x) * (y - mean_y) for x, y in points)
    return covariance / math.fsum((x - mean_x) ** 2 for x, _ in points)
