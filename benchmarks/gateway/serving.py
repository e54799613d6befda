"""Measures the overhead of the gateway: votes of 8 through it, and the same requests by a raw client.

    python -m benchmarks.gateway.serving        # a minute; writes serving.json

The upstream is `tests/fake_endpoint.py` with 50 ms latency. It and the gateway run in their own processes. ``raw`` is
aiohttp alone: 8 requests at once for one vote, 256 for 32 votes, or one with ``n=8`` for each vote if the endpoint
honours it. Contenders take turns, so a busy moment affects all of them. Start-up is the time from the command to the
first whole answer, including the probe of the model. Memory is the gateway's resident set.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiohttp

from benchmarks.gateway.upstream import BODY, HERE, LATENCY, SAMPLES, endpoint
from thinktime.bench.environment import environment

QUERIES = 32
ROUNDS = 7
VOTE = {**BODY, "model": f"majority:n={SAMPLES}/words"}


@contextmanager
def gateway(upstream: str) -> Iterator[tuple[str, int, float]]:
    """Start a gateway; yield its root, its process id, and its start time."""
    began = time.perf_counter()
    command = [sys.executable, "-m", "thinktime", "serve", "--upstream", upstream, "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            yield server.stdout.readline().split()[0], server.pid, began
        finally:
            server.terminate()


async def crowd(url: str, bodies: list[dict[str, Any]]) -> float:
    """Seconds for all of these requests at once, on open connections."""
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

        async def send(body: dict[str, Any]) -> None:
            async with session.post(f"{url}/chat/completions", json=body) as reply:
                assert reply.status == 200, await reply.text()
                await reply.read()

        for _ in range(2):
            started = time.perf_counter()
            await asyncio.gather(*(send(body) for body in bodies))
        return time.perf_counter() - started


def resident(process: int) -> float:
    """Resident memory of a process in megabytes."""
    with open(f"/proc/{process}/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def family(process: int) -> Iterator[int]:
    """A process and all that it started."""
    yield process
    for children in Path(f"/proc/{process}/task").glob("*/children"):
        for child in children.read_text().split():
            yield from family(int(child))


def first_answer(url: str) -> None:
    request = urllib.request.Request(
        f"{url}/chat/completions", json.dumps(VOTE).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=30) as reply:
        assert json.loads(reply.read())["thinktime"]["samples"] == SAMPLES


def main() -> None:
    seconds: dict[str, list[float]] = {}
    startups, memory = [], {}
    with endpoint("ignored") as ignoring, endpoint("honoured") as honouring:
        for _ in range(3):
            with gateway(ignoring) as (url, _process, began):
                first_answer(url)
                startups.append(time.perf_counter() - began)
        with gateway(ignoring) as (one_by_one, process, _), gateway(honouring) as (by_n, _other, _began):
            first_answer(one_by_one)
            memory["after the first answer"] = resident(process)
            together = {**BODY, "n": SAMPLES}
            contenders = {
                "one vote, raw": (ignoring, [BODY] * SAMPLES),
                "one vote, gateway": (one_by_one, [VOTE]),
                "32 votes, raw": (ignoring, [BODY] * SAMPLES * QUERIES),
                "32 votes, gateway": (one_by_one, [VOTE] * QUERIES),
                "32 votes by n, raw": (honouring, [together] * QUERIES),
                "32 votes by n, gateway": (by_n, [VOTE] * QUERIES),
                "one request without a method, raw": (ignoring, [BODY]),
                "one request without a method, gateway": (one_by_one, [BODY]),
            }
            for turn in range(ROUNDS + 1):
                for name, (root, bodies) in contenders.items():
                    taken = asyncio.run(crowd(root, bodies))
                    if turn:  # the first round loads imports and opens connections
                        seconds.setdefault(name, []).append(taken)
            memory["after all"] = resident(process)
    rows = {
        name: {"median": round(statistics.median(v), 4), "low": round(min(v), 4), "high": round(max(v), 4)}
        for name, v in seconds.items()
    }
    ratios = {
        name: round(rows[f"{name}, gateway"]["median"] / rows[f"{name}, raw"]["median"], 3)
        for name in ("one vote", "32 votes", "32 votes by n", "one request without a method")
    }
    for name, row in rows.items():
        print(f"{name:40} {row['median']:.4f} s [{row['low']:.4f}, {row['high']:.4f}]")
    print(f"ratios {ratios}\nstart-up {[round(s, 2) for s in startups]} s, memory {memory} MB")
    result = {
        "command": "python -m benchmarks.gateway.serving",
        "environment": environment() | {"aiohttp": aiohttp.__version__},
        "latency": LATENCY,
        "rounds": ROUNDS,
        "seconds": rows,
        "ratios": ratios,
        "startup_seconds": [round(s, 3) for s in startups],
        "resident_megabytes": {name: round(value, 1) for name, value in memory.items()},
    }
    (HERE / "serving.json").write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
