"""How much time is saved if rows are cancelled early, relative to the saved tokens?"""

from __future__ import annotations

import time
from functools import partial
from typing import Any

from benchmarks.engine.measure import Timed, alternate, spread
from thinktime.models.engine.engine import Engine
from thinktime.models.engine.models import LanguageModel
from thinktime.models.engine.rows import Row
from thinktime.pocket.problems import problems

CANCELLED = 0.75
AFTER = 0.25


def sample(solver: LanguageModel, prompts: list[tuple[int, ...]], length: int, slots: int, cancel: bool) -> Timed:
    """Run all rows to ``length`` tokens, ``slots`` at once; ``cancel`` stops three of four after a quarter."""
    engine = Engine(solver.model, solver.shape, solver.dtype, context=solver.context, max_rows=slots)  # no end token
    started = time.perf_counter()
    jobs = [engine.submit(Row(ids, key, length)) for key, ids in enumerate(prompts)]
    doomed = {job for index, job in enumerate(jobs) if cancel and index % 4 < 4 * CANCELLED}
    while engine.busy:
        engine.step()
        for job in [job for job in doomed if len(job.logprobs) >= AFTER * length]:
            engine.cancel(job)
            doomed.remove(job)
    return Timed(sum(len(job.logprobs) for job in jobs), time.perf_counter() - started)


def measure(solver: LanguageModel, slots: int, queue: int, length: int, rounds: int) -> dict[str, Any]:
    """Measure two cases: one batch that only shrinks, and ``queue`` times as many rows, which wait for free slots."""
    questions = [problem.question for problem in problems("test", slots * queue, seed=7)]
    prompts = [tuple(solver.tokenizer.encode_chat(question)) for question in questions]
    sample(solver, prompts[:8], 8, slots, False)
    cases = {}
    for name, rows in (("batch", prompts[:slots]), ("queue", prompts)):
        results = alternate(
            {
                "all": partial(sample, solver, rows, length, slots, False),
                "cancelled": partial(sample, solver, rows, length, slots, True),
            },
            rounds,
        )
        pairs = list(zip(results["all"], results["cancelled"], strict=True))
        ideal = 1 - pairs[0][1].tokens / pairs[0][0].tokens
        saved = [1 - cancelled.seconds / everything.seconds for everything, cancelled in pairs]
        cases[name] = {
            "rows": len(rows),
            "ideal_saving": round(ideal, 4),
            "time_saving": spread(saved),
            "saved_of_ideal": spread([share / ideal for share in saved]),
        }
    return {"rounds": rounds, "places": slots, "length": length, "cancelled": CANCELLED, "after": AFTER, **cases}
