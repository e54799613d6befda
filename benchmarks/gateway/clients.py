"""Compares HTTP clients: 256 requests at once to an endpoint that takes 50 ms for each.

    pip install httpx && python -m benchmarks.gateway.clients        # half a minute; writes clients.json

The endpoint is `tests/fake_endpoint.py` in its own process. ``streams`` is the lower bound: bare asyncio sockets that
write a prepared request and read the bytes of the reply, without a client. ``ours`` is the client of
`thinktime.models.remote` with its retries, deadlines and checks. ``searches`` are 32 votes of 8 samples on it, by 256
requests, or by 32 if the endpoint honours n. Contenders take turns, so a busy moment affects all of them.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import aiohttp
import httpx

from benchmarks.gateway.upstream import BODY, HERE, LATENCY, SAMPLES, endpoint
from thinktime.answers import TextAnswers
from thinktime.bench.environment import environment
from thinktime.core.search import Search
from thinktime.core.types import Problem, Sampling
from thinktime.generators.openai import RemoteGenerator
from thinktime.models.remote.client import Client
from thinktime.strategies.sampling.majority import Majority

AT_ONCE = 256
ROUNDS = 7

Send = Callable[[], Awaitable[Any]]
All = Callable[[], Awaitable[Any]]


@asynccontextmanager
async def streams(url: str) -> AsyncIterator[Send]:
    host, port = url.split("/")[2].split(":")
    body = json.dumps(BODY).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    free: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def send() -> Any:
        reader, writer = free.pop() if free else await asyncio.open_connection(host, int(port))
        writer.write(head + body)
        lines = (await reader.readuntil(b"\r\n\r\n")).lower().split(b"\r\n")
        length = next(int(line.split(b":")[1]) for line in lines if line.startswith(b"content-length"))
        reply = json.loads(await reader.readexactly(length))
        free.append((reader, writer))
        return reply

    yield send
    for _, writer in free:
        writer.close()


@asynccontextmanager
async def with_aiohttp(url: str) -> AsyncIterator[Send]:
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=AT_ONCE)) as session:

        async def send() -> Any:
            async with session.post(f"{url}/chat/completions", json=BODY) as reply:
                return await reply.json()

        yield send


@asynccontextmanager
async def with_httpx(url: str) -> AsyncIterator[Send]:
    limits = httpx.Limits(max_connections=AT_ONCE, max_keepalive_connections=AT_ONCE)
    async with httpx.AsyncClient(limits=limits, timeout=60) as client:

        async def send() -> Any:
            return (await client.post(f"{url}/chat/completions", json=BODY)).json()

        yield send


@asynccontextmanager
async def ours(url: str) -> AsyncIterator[Send]:
    client = Client(url)
    yield lambda: client.post("chat/completions", BODY)
    await client.close()


def crowd(open_client: Callable[[str], AbstractAsyncContextManager[Send]]) -> Contender:
    """A client that sends all requests at once."""

    @asynccontextmanager
    async def opened(url: str) -> AsyncIterator[All]:
        async with open_client(url) as send:
            yield lambda: asyncio.gather(*(send() for _ in range(AT_ONCE)))

    return opened


@asynccontextmanager
async def searches(url: str) -> AsyncIterator[All]:
    """Votes with the same number of samples in total; the endpoint is probed before."""
    generator = RemoteGenerator(url, "words")
    assert await asyncio.to_thread(lambda: generator.traits)

    async def vote(number: int) -> None:
        problem = Problem(str(number), f"what is {number} + 4")
        search = Search(problem, generator, answers=TextAnswers(), sampling=Sampling(max_length=64))
        answer = await Majority(n=SAMPLES)(search)
        assert answer.usage.model_calls == SAMPLES

    yield lambda: asyncio.gather(*(vote(number) for number in range(AT_ONCE // SAMPLES)))
    await generator.close()


Contender = Callable[[str], AbstractAsyncContextManager[All]]
CONTENDERS: dict[str, tuple[Contender, str]] = {
    "streams": (crowd(streams), "ignored"),
    "aiohttp": (crowd(with_aiohttp), "ignored"),
    "httpx": (crowd(with_httpx), "ignored"),
    "ours": (crowd(ours), "ignored"),
    "searches": (searches, "ignored"),
    "searches, n": (searches, "honoured"),
}
"""Each contender, with the behaviour of its endpoint for ``n``."""


async def timed(contender: Contender, url: str) -> tuple[float, float]:
    """Seconds for all requests without open connections, and again with all connections open."""
    async with contender(url) as everything:
        seconds = []
        for _ in range(2):
            started = time.perf_counter()
            await everything()
            seconds.append(time.perf_counter() - started)
    return seconds[0], seconds[1]


def main() -> None:
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in CONTENDERS}
    with endpoint("ignored") as ignoring, endpoint("honoured") as honouring:
        urls = {"ignored": ignoring, "honoured": honouring}
        for turn in range(ROUNDS + 1):
            for name, (contender, n) in CONTENDERS.items():
                seconds = asyncio.run(timed(contender, urls[n]))
                if turn:  # the first round loads imports and caches
                    taken[name].append(seconds)
    rows = {}
    for name, pairs in taken.items():
        for which, index in (("new", 0), ("open", 1)):
            values = sorted(pair[index] for pair in pairs)
            rows[f"{name}, connections {which}"] = {
                "median": round(statistics.median(values), 4),
                "low": round(values[0], 4),
                "high": round(values[-1], 4),
            }
            print(f"{name:11} {which:5} {statistics.median(values):.3f} s [{values[0]:.3f}, {values[-1]:.3f}]")
    versions = {"aiohttp": aiohttp.__version__, "httpx": httpx.__version__}
    result = {
        "command": "python -m benchmarks.gateway.clients",
        "environment": environment() | versions,
        "requests_at_once": AT_ONCE,
        "latency": LATENCY,
        "rounds": ROUNDS,
        "seconds": rows,
    }
    (HERE / "clients.json").write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
