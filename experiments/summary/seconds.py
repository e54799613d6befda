"""Measured seconds of every arm of the summary: sampled live, without a bank, 32 problems in flight.

    python -m experiments.summary.seconds --minutes 4     # again until all is measured; then it draws

Noted are the time until the last problem has its answer and the processor time that took, both over 32. Models are
loaded anew for every arm, so none finds keys and values that another left behind. Arms take turns, three rounds of
them, so what else the machine does falls on all alike. What ``seconds.json`` holds is not measured again.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import time
from collections.abc import Mapping
from statistics import median

from experiments.harness import Arm, language_model, new_search, reward_model
from experiments.provenance import provenance, write_json
from experiments.summary.run import SECONDS, arms, plot
from thinktime.bench.tasks import Task, load

PROBLEMS = 32
ROUNDS = 3


async def measured(arm: Arm, task: Task) -> tuple[float, float]:
    """Seconds a problem by the clock and of the processor, all problems at once."""
    generator, scorer = language_model(), reward_model()
    searches = [new_search(problem, task, generator, scorer) for problem in task.problems]
    clock, processor = time.perf_counter(), time.process_time()
    await asyncio.gather(*(arm.strategy(search) for search in searches))
    return (time.perf_counter() - clock) / len(searches), (time.process_time() - processor) / len(searches)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=600.0, help="no arm is begun later than this")
    ends = time.perf_counter() + 60 * parser.parse_args().minutes
    task = load("pocket", PROBLEMS, seed=0)
    rounds: dict[str, list[list[float]]] = json.loads(SECONDS.read_text())["rounds"] if SECONDS.exists() else {}
    left = [arm for turn in range(ROUNDS) for arm in arms() if len(rounds.get(arm.label, [])) <= turn]
    if left:
        asyncio.run(measured(left[0], task))  # the first run of a process is slower
    while left and time.perf_counter() < ends:
        arm = left.pop(0)
        rounds.setdefault(arm.label, []).append(list(asyncio.run(measured(arm, task))))
        print(f"{arm.label}: {rounds[arm.label][-1][0]:.3f} s a problem, {len(left)} to go", flush=True)
        write(rounds)
    if not left:
        print("all is measured")
        plot()


def write(rounds: Mapping[str, list[list[float]]]) -> None:
    """Every round of every arm, and medians and ranges over rounds."""
    seconds = {}
    for label, found in rounds.items():
        clock, processor = zip(*found, strict=True)
        middle = {"value": median(clock), "low": min(clock), "high": max(clock), "processor": median(processor)}
        seconds[label] = middle
    threads = os.environ.get("OMP_NUM_THREADS", "all")
    result = {"n_problems": PROBLEMS, "threads": threads, "seconds": seconds, "rounds": rounds}
    write_json(SECONDS, provenance(SECONDS.parent, 0, "seconds") | result)


if __name__ == "__main__":
    main()
