"""Compares the gateway with its_hub 1.2.0 and optillm 0.4.0 in one run, in front of a fake upstream of 50 ms.

    python -m benchmarks.gateway.peers        # a quarter of an hour; writes peers.json and peers.png

Each peer is installed from PyPI into its own environment, below ``runs/peers``. optillm declares 36 packages (3.2 GB
with torch). Only the imports of its server, ``bon`` and ``majority_voting`` are installed, so it starts faster and
needs less memory than after ``pip install optillm``. A vote has 8 samples; a judged answer is the best of 8 by 8
judgements. One upstream refuses ``n`` above 1, like llama.cpp, so all contenders send 8 requests; another one honours
it. Contenders take turns. A missing figure means that the peer cannot do this: its_hub's server has no judge.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import aiohttp

from benchmarks.gateway.serving import crowd, resident
from benchmarks.gateway.upstream import BODY, HERE, LATENCY, SAMPLES, FakeEndpoint, Running, endpoint
from thinktime.bench.environment import environment

QUERIES, ROUNDS, STARTS = 32, 5, 3
LEAVES, PATIENCE = 50, 2.0
"""Number of disconnecting clients, and seconds after which a running upstream request counts as kept."""
STREAMS, BEFORE, PACE, LIMIT = 1000, 5.0, 1.0, 45.0
"""Number of slow streams at once, seconds before the first event and between events, and the time limit."""
INSTALLED = HERE.parents[1] / "runs" / "peers"
PACKAGES: dict[str, list[list[str]]] = {
    "its_hub": [["its_hub[iaas,lm]==1.2.0"]],
    "optillm": [
        ["--no-deps", "optillm==0.4.0"],
        ["flask", "cerebras_cloud_sdk", "openai", "z3-solver<=4.15.4.0", "sympy", "numpy", "networkx", "aiohttp"],
        ["pyyaml", "math-verify", "requests"],
    ],
}


@dataclass(frozen=True)
class Peer:
    """The command of a gateway and its requests. ``None`` marks a request that it does not support."""

    name: str
    command: Callable[[str, int], list[str]]
    """Takes the upstream and a port."""
    vote: dict[str, Any]
    judged: dict[str, Any] | None
    one: dict[str, Any]
    """A single sample."""
    configure: dict[str, Any] | None = None


def program(peer: str, name: str) -> str:
    """The path of a program of a peer's environment."""
    return str(INSTALLED / peer / "bin" / name)


PEERS = (
    Peer(
        "thinktime",
        lambda upstream, port: [
            *(sys.executable, "-m", "thinktime", "serve", "--upstream", upstream, "--port", str(port)),
            *("--scorer", upstream, "--scorer-name", "words"),
        ],
        {**BODY, "model": f"majority:n={SAMPLES}/words"},
        {**BODY, "model": f"best_of_n:n={SAMPLES}/words"},
        {**BODY, "model": "single/words"},
    ),
    Peer(
        "its_hub",
        lambda _, port: [program("its_hub", "its-iaas"), "--host", "127.0.0.1", "--port", str(port)],
        {**BODY, "budget": SAMPLES},
        None,
        {**BODY, "budget": 1},
        {"api_key": "x", "model": "words", "alg": "self-consistency", "budget": SAMPLES}
        | {"regex_patterns": [r"answer is (\d+)"]},
    ),
    Peer(
        "optillm",
        lambda upstream, port: [
            *(program("optillm", "optillm"), "--base-url", upstream, "--port", str(port), "--log", "error"),
            *("--best-of-n", str(SAMPLES), "--approach", "none", "--model", "words"),
        ],
        {**BODY, "optillm_approach": "majority_voting"},
        {**BODY, "optillm_approach": "bon"},
        {**BODY, "optillm_approach": "none"},
    ),
)


def install(packages: Mapping[str, list[list[str]]]) -> dict[str, Any]:
    """Install peers if needed; return packages, megabytes and the seconds of the installation.

    Args:
        packages: by peer, what each call of pip gets.
    """
    installed = {}
    for peer, steps in packages.items():
        folder, record = INSTALLED / peer, INSTALLED / f"{peer}.json"
        if not record.exists():
            began = time.perf_counter()
            subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
            for arguments in steps:
                subprocess.run([folder / "bin" / "pip", "install", "--quiet", *arguments], check=True)
            seconds = time.perf_counter() - began
            listed = subprocess.run([folder / "bin" / "pip", "freeze"], capture_output=True, text=True, check=True)
            size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file() and not file.is_symlink())
            found = {"asked_for": steps, "seconds": round(seconds, 1), "megabytes": round(size / 1e6)}
            record.write_text(json.dumps({**found, "packages": listed.stdout.split()}))
        installed[peer] = json.loads(record.read_text())
    return installed


@contextmanager
def serving(peer: Peer, upstream: str, port: int) -> Iterator[tuple[str, int, float]]:
    """Start a gateway and wait for its first answer; yield its root, its process id, and the seconds this took."""
    log = INSTALLED / f"{peer.name}.log"
    began = time.perf_counter()
    settings = {
        "OPENAI_API_KEY": "x",
        "PATH": "/usr/bin:/bin",
        "HOME": str(INSTALLED),
        "PYTHONPATH": ":".join(sys.path),
    }
    if not peer.name.startswith("thinktime"):
        del settings["PYTHONPATH"]
    with (
        log.open("w") as out,
        subprocess.Popen(peer.command(upstream, port), env=settings, stdout=out, stderr=out, cwd=INSTALLED) as server,
    ):
        root = f"http://127.0.0.1:{port}"
        try:
            if peer.configure is not None:
                _until_answered(f"{root}/configure", {**peer.configure, "endpoint": upstream}, server)
            _until_answered(f"{root}/v1/chat/completions", peer.vote, server)
            yield f"{root}/v1", server.pid, time.perf_counter() - began
        finally:
            server.kill()


def _until_answered(url: str, body: dict[str, Any], server: subprocess.Popen[bytes]) -> None:
    request = Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    while True:
        try:
            with urlopen(request, timeout=60) as reply:
                reply.read()
                return
        except OSError:
            if server.poll() is not None:
                raise
            time.sleep(0.01)


# a client that disconnects


async def leave(url: str, upstream: FakeEndpoint, body: dict[str, Any], requests: int) -> float | None:
    """Seconds from the disconnect until all upstream requests have ended; None if they continue."""
    upstream.requests.clear()
    upstream.left = 0
    host, port = url.split("/")[2].split(":")
    _, writer = await asyncio.open_connection(host, int(port))
    data = json.dumps(body).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
    writer.write(f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data)
    while len(upstream.requests) < requests:
        await asyncio.sleep(0.001)
    await asyncio.sleep(0.02)
    left = time.perf_counter()
    writer.transport.abort()
    while upstream.left < requests:
        await asyncio.sleep(0.0005)
        if time.perf_counter() - left > PATIENCE:
            return None
    return time.perf_counter() - left


def leaving(peer: Peer, port: int) -> dict[str, Any]:
    """The time until upstream requests end after their client disconnects, with and without a stream."""
    found: dict[str, Any] = {}
    for stream in (False, True):
        with Running(n="refused") as upstream, serving(peer, upstream.url, port) as (url, _, _):
            upstream.latency = 3600.0
            requests = SAMPLES if peer.name != "optillm" else 1  # one after another
            taken: list[float | None] = []
            for _ in range(LEAVES):
                taken.append(asyncio.run(leave(url, upstream, {**peer.vote, "stream": stream}, requests)))
                if taken == [None] * 3:
                    break
        ended = [seconds for seconds in taken if seconds is not None]
        found["stream" if stream else "in one piece"] = summary(ended) if len(ended) == len(taken) else None
    return found


# slow streams


async def streams(url: str, body: dict[str, Any], process: int) -> dict[str, Any]:
    """Run many slow streams at once: the number that ended, the most open at once, and the memory over time."""
    open_now = most = ended = 0
    memory: list[tuple[float, float]] = []
    began = time.perf_counter()

    async def watch() -> None:
        while True:
            memory.append((round(time.perf_counter() - began, 1), round(resident(process), 1)))
            await asyncio.sleep(0.5)

    async def one(session: aiohttp.ClientSession) -> None:
        nonlocal open_now, most, ended
        async with session.post(f"{url}/chat/completions", json={**body, "stream": True}) as reply:
            async for line in reply.content:
                if line.startswith(b"data:"):
                    break
            open_now += 1
            most = max(most, open_now)
            rest = await reply.read()
            ended += b"[DONE]" in rest
            open_now -= 1

    watching = asyncio.create_task(watch())
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        requests = [asyncio.create_task(one(session)) for _ in range(STREAMS)]
        _, late = await asyncio.wait(requests, timeout=LIMIT)
        for task in late:
            task.cancel()
        await asyncio.gather(*requests, return_exceptions=True)
    watching.cancel()
    return {
        "ended": ended,
        "open_at_once": most,
        "seconds": round(time.perf_counter() - began, 1),
        "megabytes": memory,
    }


def summary(values: Sequence[float]) -> dict[str, float]:
    return {"median": round(statistics.median(values), 4), "low": round(min(values), 4), "high": round(max(values), 4)}


def main() -> None:
    INSTALLED.mkdir(parents=True, exist_ok=True)
    installed = install(PACKAGES)
    result: dict[str, Any] = {
        "command": "python -m benchmarks.gateway.peers",
        "environment": environment() | {"aiohttp": aiohttp.__version__},
        "latency": LATENCY,
        "rounds": ROUNDS,
        "installed": installed,
        "startup_seconds": {},
        "megabytes": {peer.name: {} for peer in PEERS},
    }
    seconds: dict[str, dict[str, list[float]]] = {}
    with ExitStack() as running:
        refusing, honouring = (running.enter_context(endpoint(n)) for n in ("refused", "honoured"))
        for index, peer in enumerate(PEERS):
            taken = []
            for turn in range(STARTS):
                with serving(peer, refusing, 9700 + 10 * index + turn) as (_, process, started):
                    taken.append(started)
                    result["megabytes"][peer.name]["after the first answer"] = round(resident(process), 1)
            result["startup_seconds"][peer.name] = summary(taken)
        together = {**BODY, "n": SAMPLES}
        contenders: list[tuple[str, str, str, list[dict[str, Any]]]] = [
            ("one vote", "raw", refusing, [BODY] * SAMPLES),
            ("32 votes at once", "raw", refusing, [BODY] * SAMPLES * QUERIES),
            ("32 votes at once, by n", "raw", honouring, [together] * QUERIES),
        ]
        processes = {}
        for index, peer in enumerate(PEERS):
            one_by_one, process, _ = running.enter_context(serving(peer, refusing, 9800 + 10 * index))
            by_n, _, _ = running.enter_context(serving(peer, honouring, 9801 + 10 * index))
            processes[peer.name] = process
            contenders += [
                ("one vote", peer.name, one_by_one, [peer.vote]),
                ("32 votes at once", peer.name, one_by_one, [peer.vote] * QUERIES),
                ("32 votes at once, by n", peer.name, by_n, [peer.vote] * QUERIES),
            ]
            if peer.judged is not None:
                contenders.append(("one judged answer", peer.name, one_by_one, [peer.judged]))
        for turn in range(ROUNDS + 1):
            for what, who, url, bodies in contenders:
                spent = asyncio.run(crowd(url, bodies))
                if what == "one vote" and who == "raw":  # a judged answer takes two rounds of requests
                    judged = spent + asyncio.run(crowd(url, bodies))
                    if turn:
                        seconds.setdefault("one judged answer", {}).setdefault("raw", []).append(judged)
                if turn:  # the first round loads imports and opens connections
                    seconds.setdefault(what, {}).setdefault(who, []).append(spent)
        for name, process in processes.items():
            result["megabytes"][name]["after all"] = round(resident(process), 1)
    result["seconds"] = {what: {who: summary(v) for who, v in rows.items()} for what, rows in seconds.items()}
    keep(result)
    result["left"] = {peer.name: leaving(peer, 9900 + 10 * index) for index, peer in enumerate(PEERS)}
    keep(result)
    result["slow_streams"] = {}
    with endpoint("refused", latency=BEFORE, pace=PACE) as slow:
        for index, peer in enumerate(PEERS):
            with serving(peer, slow, 9950 + 10 * index) as (url, process, _):
                result["slow_streams"][peer.name] = asyncio.run(streams(url, peer.one, process))
    keep(result)
    tell(result)
    plot(result, HERE / "peers.png")


def keep(result: dict[str, Any]) -> None:
    """Write the result so far."""
    (HERE / "peers.json").write_text(json.dumps(result, indent=1) + "\n")


def tell(result: dict[str, Any]) -> None:
    """Print the result as a table."""
    names = ["raw", *(peer.name for peer in PEERS)]
    print(f"{'':36}" + "".join(f"{name:>26}" for name in names))

    def line(what: str, cells: list[dict[str, float] | None]) -> None:
        texts = [f"{c['median']:.3f} [{c['low']:.3f}, {c['high']:.3f}]" if c else "cannot" for c in cells]
        print(f"{what:36}" + "".join(f"{cell:>26}" for cell in texts))

    for what, rows in result["seconds"].items():
        line(f"{what}, s", [rows.get(name) for name in names])
    line("start to first answer, s", [result["startup_seconds"].get(name) for name in names])
    for how in ("in one piece", "stream"):
        line(f"left, {how}, s", [result["left"].get(name, {}).get(how) for name in names])
    for name in names[1:]:
        slow, memory = result["slow_streams"][name], result["megabytes"][name]
        rss = [value for _, value in slow["megabytes"]]
        middle = statistics.median(rss[len(rss) // 3 :])
        print(
            f"{name}: {memory} MB; slow streams: {slow['ended']} of {STREAMS} in {slow['seconds']} s, "
            f"{slow['open_at_once']} open at once, MB first {rss[0]}, middle {middle}, last {rss[-1]}"
        )


def plot(result: dict[str, Any], path: Path) -> None:
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, len(result["seconds"]) + 1, figsize=(15, 3.4))
    for axis, (what, rows) in zip(axes, result["seconds"].items(), strict=False):
        medians = [row["median"] for row in rows.values()]
        low = [row["median"] - row["low"] for row in rows.values()]
        high = [row["high"] - row["median"] for row in rows.values()]
        axis.barh(list(rows), medians, xerr=[low, high], color="0.7")
        axis.set(title=what, xlabel="seconds", xlim=(0, None))
        axis.invert_yaxis()
    for name, slow in result["slow_streams"].items():
        axes[-1].plot(*zip(*slow["megabytes"], strict=True), label=name)
    axes[-1].set(title=f"{STREAMS} slow streams", xlabel="seconds", ylabel="MB resident", ylim=(0, None))
    axes[-1].legend()
    figure.tight_layout()
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
