"""Load curves of the gateway, of LiteLLM's proxy and of a raw client, in one run.

    python -m benchmarks.gateway.load        # a quarter of an hour; writes load.json and load.png

So many clients ask the same question again and again: each sends its next request when it has the last answer. The
upstream is `tests/fake_endpoint.py`, which answers after 50 ms, so that one client can have 20 answers in a second.
``raw`` asks it without a gateway. No contender has a method, keys or a database. Each one runs alone; they take turns
in every round. Clients, gateway and upstream share the cores of this machine. Memory is the resident set of all
processes of a gateway; what they share counts once for each. LiteLLM is installed from PyPI into its own environment,
below ``runs/peers``.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import aiohttp

from benchmarks.engine.measure import ratio, spread
from benchmarks.gateway.peers import INSTALLED, Peer, install, program, serving
from benchmarks.gateway.serving import family, resident
from benchmarks.gateway.upstream import BODY, HERE, LATENCY, endpoint
from thinktime.bench.environment import environment

CLIENTS = (1, 4, 16, 64, 256)
PACKAGES = {"litellm": [["litellm[proxy]==1.106.12"]]}
RAW = "raw"


def gateway(name: str, *options: str) -> Peer:
    """Our gateway with these options."""
    serve = (sys.executable, "-m", "thinktime", "serve", *options)
    return Peer(name, lambda upstream, port: [*serve, "--upstream", upstream, "--port", str(port)], BODY, None, BODY)


PEERS = (
    gateway("thinktime"),
    gateway("thinktime, 2 workers", "--workers", "2"),
    Peer(
        "litellm",
        lambda upstream, port: [
            *(program("litellm", "litellm"), "--model", "openai/words", "--api_base", upstream),
            *("--host", "127.0.0.1", "--port", str(port)),
        ],
        {**BODY, "model": "openai/words"},
        None,
        {**BODY, "model": "openai/words"},
    ),
)


async def load(url: str, body: dict[str, Any], clients: int, seconds: float) -> dict[str, float]:
    """Requests in a second and the percentiles of their milliseconds, with so many clients for so long."""
    taken: list[float] = []
    failed = 0

    async def client(session: aiohttp.ClientSession, until: float) -> None:
        nonlocal failed
        while (began := time.perf_counter()) < until:
            async with session.post(f"{url}/chat/completions", json=body) as reply:
                await reply.read()
                failed += reply.status != 200
            taken.append(time.perf_counter() - began)

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        await asyncio.gather(*(client(session, time.perf_counter() + seconds / 4) for _ in range(clients)))
        taken.clear()  # of the requests that open connections
        began = time.perf_counter()
        await asyncio.gather(*(client(session, began + seconds) for _ in range(clients)))
        whole = time.perf_counter() - began
    cuts = statistics.quantiles(taken, n=100, method="inclusive")
    return {"per_second": len(taken) / whole, "p50": 1e3 * cuts[49], "p99": 1e3 * cuts[98], "failed": failed}


@contextmanager
def contender(peer: Peer | None, upstream: str, port: int) -> Iterator[tuple[str, int | None]]:
    """The URL to ask, and the first process of the gateway; without a peer it is the upstream."""
    with serving(peer, upstream, port) if peer else nullcontext((upstream, None, 0.0)) as (url, process, _):
        yield url, process


def plot(result: Mapping[str, Any], path: Path) -> None:
    """Requests in a second against the median and the 99th percentile of their time."""
    from experiments.plot import COLOURS, panels, save

    figure, (rates, times) = panels(2, 10, 4)
    for colour, (name, curve) in zip(COLOURS, result["curves"].items(), strict=False):
        per_second = [curve[str(n)]["per_second"]["median"] for n in CLIENTS]
        rates.plot(CLIENTS, per_second, "o-", color=colour, label=name, ms=4)
        for percentile, style in (("p50", "o-"), ("p99", "o:")):
            times.plot(per_second, [curve[str(n)][percentile]["median"] for n in CLIENTS], style, color=colour, ms=4)
    rates.set(xlabel="clients", ylabel="requests in a second", xscale="log")
    rates.set_xticks(CLIENTS, [str(n) for n in CLIENTS])
    times.set(xlabel="requests in a second", ylabel="milliseconds; dotted: 99th percentile", yscale="log")
    rates.legend(frameon=False)
    save(figure, path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=6.0, help="of a point of a curve")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    INSTALLED.mkdir(parents=True, exist_ok=True)
    installed = install(PACKAGES)
    found: dict[str, dict[int, dict[str, list[float]]]] = {}
    with endpoint("ignored") as upstream:
        for round_ in range(args.rounds):
            for index, peer in enumerate((None, *PEERS)):
                name = peer.name if peer else RAW
                curve = found.setdefault(name, {n: defaultdict(list) for n in CLIENTS})
                with contender(peer, upstream, 9600 + 10 * index + round_) as (url, process):
                    for n in CLIENTS:
                        point = asyncio.run(load(url, peer.one if peer else BODY, n, args.seconds))
                        if process:
                            point["megabytes"] = sum(map(resident, family(process)))
                        for figure, value in point.items():
                            curve[n][figure].append(value)
                        print(f"round {round_ + 1}, {name}, {n} clients: {json.dumps(point)}", flush=True)
    ours = found[PEERS[0].name]
    result = {
        "command": f"python -m benchmarks.gateway.load --seconds {args.seconds} --rounds {args.rounds}",
        "environment": environment() | {"aiohttp": aiohttp.__version__},
        "cores": os.cpu_count(),
        "latency": LATENCY,
        "installed": installed,
        "curves": {
            name: {str(n): {figure: spread(values) for figure, values in point.items()} for n, point in curve.items()}
            for name, curve in found.items()
        },
        "thinktime_answers_more_by": {
            name: {str(n): ratio(ours[n]["per_second"], curve[n]["per_second"]) for n in CLIENTS}
            for name, curve in found.items()
            if name != PEERS[0].name
        },
    }
    (HERE / "load.json").write_text(json.dumps(result, indent=1) + "\n")
    plot(result, HERE / "load.png")


if __name__ == "__main__":
    main()
