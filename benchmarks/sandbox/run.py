"""Measures what the sandbox costs: the seconds of an empty program, and of a program with a test, in it and without.

    python -m benchmarks.sandbox.run        # half a minute; needs bubblewrap

The two take turns, so both see the same load of the machine. It writes ``result.json`` beside this file.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from thinktime.bench.environment import environment
from thinktime.bench.statistics import mean_interval
from thinktime.sandbox.judging import judge
from thinktime.sandbox.running import Sandbox, find_sandbox

HERE = Path(__file__).parent
RUNS = 100
PROGRAM, TESTS = "def f(x):\n    return x + 1", "assert f(1) == 2"

Work = Callable[[Sandbox], Awaitable[object]]


async def seconds(work: Work, sandbox: Sandbox) -> float:
    began = time.perf_counter()
    await work(sandbox)
    return time.perf_counter() - began


async def turns(work: Work, sandboxes: list[Sandbox]) -> dict[str, list[float]]:
    """Seconds of each run, by kind of sandbox."""
    found: dict[str, list[float]] = {sandbox.kind: [] for sandbox in sandboxes}
    for run in range(RUNS + 1):
        for sandbox in sandboxes:
            took = await seconds(work, sandbox)
            if run:  # the first one reads files
                found[sandbox.kind].append(took)
    return found


async def measure() -> dict[str, object]:
    sandboxes = [find_sandbox(), find_sandbox(unsafe=True)]
    measured: dict[str, object] = {}
    kinds: dict[str, Work] = {
        "program": lambda sandbox: sandbox.run(""),
        "program and test": lambda sandbox: judge(sandbox, PROGRAM, TESTS),
    }
    for name, work in kinds.items():
        found = await turns(work, sandboxes)
        inside, outside = found["bubblewrap"], found["none"]
        measured[name] = {
            **{kind: mean_interval(each, 0).as_dict() for kind, each in found.items()},
            "difference": mean_interval([a - b for a, b in zip(inside, outside, strict=True)], 0).as_dict(),
            "ratio": sum(inside) / sum(outside),
        }
    return measured


def main() -> None:
    result = {"environment": environment(), "runs": RUNS, "seconds": asyncio.run(measure())}
    (HERE / "result.json").write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result["seconds"], indent=1))


if __name__ == "__main__":
    main()
