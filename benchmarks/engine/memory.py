"""Memory of a sampling process, against the limit on bytes of keys and values."""

from __future__ import annotations

import multiprocessing
from collections.abc import Sequence
from typing import Any

from benchmarks.engine.measure import STATUS, status
from thinktime import pocket
from thinktime.models.engine.engine import Engine
from thinktime.models.engine.models import load_language_model
from thinktime.models.engine.rows import Row
from thinktime.pocket.problems import problems


def measure(caps: Sequence[int], rows: int, length: int) -> dict[str, Any]:
    """Run the same rows under every limit, each in its own process."""
    if not STATUS.exists():
        return {"not measured": "this system does not tell a process its peak memory"}
    by_cap = {}
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        for cap in caps:
            by_cap[str(cap)] = pool.apply(peak, (cap, rows, length))
    return {"rows": rows, "length": length, "by_kv_bytes": by_cap}


def peak(kv_bytes: int, rows: int, length: int) -> dict[str, int]:
    """Resident bytes of this process: after a few rows, and the peak with many rows."""
    solver = load_language_model(pocket.directory("solver"))
    prompts = [tuple(solver.tokenizer.encode_chat(problem.question)) for problem in problems("test", rows, seed=9)]
    tasks = [Row(ids, key, length) for key, ids in enumerate(prompts)]
    options: dict[str, Any] = {"context": solver.context, "max_rows": rows}
    small = Engine(solver.model, solver.shape, solver.dtype, kv_bytes=4 << 20, **options)
    small.run(tasks[:2])
    before = status("VmRSS")
    engine = Engine(solver.model, solver.shape, solver.dtype, kv_bytes=kv_bytes, **options)
    engine.run(tasks)
    return {
        "resident_before": before,
        "resident_peak": status("VmHWM"),
        "grown": status("VmHWM") - before,
        "kv_held_peak": engine.account.kv_bytes_held_peak,
        "preemptions": engine.preemptions,
        "recomputed_tokens": engine.account.recomputed,
    }
