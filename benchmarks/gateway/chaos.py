"""Four gateways on one Postgres bank, hundreds of clients, and processes that are killed: do the budgets hold?

    python -m benchmarks.gateway.chaos --seconds 600 --every 20        # writes chaos.json
    python -m benchmarks.gateway.chaos --every 0 --out chaos-control.json        # nothing is killed, nobody leaves
    python -m benchmarks.gateway.chaos --seconds 600 --every 10 --workers 2 --out chaos-workers.json

Clients send requests with and without a method, and some of them disconnect. They use three keys: one with a small
budget, one with a large budget, and one without. Every few seconds a gateway gets SIGKILL and is started again, and
sometimes Postgres does, which syncs to disk. With ``--workers`` every gateway has several processes, and half of the
time only one of them is killed. The upstream is `tests/fake_endpoint.py`, which counts what it generates.

The run fails if at any moment an account has spent and reserved more than its budget, or if at the end something is
still reserved, less is charged than was generated, or more than that and the worst case of the uncounted calls.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections import Counter
from contextlib import ExitStack, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import aiohttp

from benchmarks.gateway.serving import family
from benchmarks.gateway.upstream import BODY, HERE, FakeEndpoint, PostgresServer, Running
from thinktime.bank.accounts import LEASE, Accounts, Balances
from thinktime.bank.store import ALL, Bank
from thinktime.bench.environment import environment
from thinktime.core.errors import BankError
from thinktime.gateway.config import digest

GATEWAYS, TOKENS = 4, int(BODY["max_tokens"])
BUDGETS = {"small": 20_000, "large": 10_000_000, "none": None}
METHODS = ("words", "words", "single/words", "majority:n=4/words")


def key(name: str) -> str:
    """The key of an account."""
    return f"the key with the {name} budget"


class Replica:
    """A gateway of one or more processes, always at the same port."""

    def __init__(self, folder: Path, upstream: str, bank: str, workers: int) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}/v1/chat/completions"
        self._config = folder / f"{port}.toml"
        lines = [f'upstream = "{upstream}"', f"port = {port}", f"workers = {workers}", f'bank = "{bank}"']
        for name, tokens in BUDGETS.items():
            lines += [f"[keys.{name}]", f'sha256 = "{digest(key(name))}"']
            lines += [] if tokens is None else [f'budget = "{tokens}tok"']
        self._config.write_text("\n".join(lines))
        self._log = folder / f"{port}.log"
        self.start()

    def start(self) -> None:
        """Start it; it may take seconds until it listens, and it ends if the bank cannot be reached."""
        command = [sys.executable, "-m", "thinktime", "serve", "--config", str(self._config)]
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log)

    def listens(self) -> bool:
        """Wait until it listens; whether it does."""
        assert self.process.stdout is not None
        return bool(self.process.stdout.readline())

    def workers(self) -> list[int]:
        """The processes that serve for it, if there are several."""
        _, *started = family(self.process.pid)
        return [process for process in started if b"spawn_main" in Path(f"/proc/{process}/cmdline").read_bytes()]

    def stop(self, number: signal.Signals) -> None:
        """End it by a signal."""
        self.process.send_signal(number)
        self.process.wait()


class Clients:
    """Clients that send requests one after another until the end; this share of the requests is given up."""

    def __init__(self, replicas: list[Replica], given_up: float) -> None:
        self.replicas, self._given_up = replicas, given_up
        self.replies: Counter[str] = Counter()
        self.seconds: list[float] = []

    async def one(self, session: aiohttp.ClientSession, seed: int, until: float) -> None:
        """Send requests."""
        dice = random.Random(seed)
        while time.monotonic() < until:
            name = dice.choice(list(BUDGETS))
            body = {**BODY, "model": dice.choice(METHODS), "stream": dice.random() < 0.2}
            if body["stream"]:
                body["stream_options"] = {"include_usage": True}
            headers = {"Authorization": f"Bearer {key(name)}"}
            patience = 0.02 if dice.random() < self._given_up else 600.0
            began = time.perf_counter()
            try:
                async with asyncio.timeout(patience):
                    url = dice.choice(self.replicas).url
                    async with session.post(url, json=body, headers=headers) as reply:
                        await reply.read()
                        said = str(reply.status)
                        if reply.status == 200:
                            self.seconds.append(time.perf_counter() - began)
            except TimeoutError:
                said = "given up" if patience < 1 else "late"
            except aiohttp.ClientError:
                said = "cut off or refused"
            self.replies[f"{name}: {said}"] += 1
            await asyncio.sleep(0.05 if said == "200" else 0.5)


async def kill(replicas: list[Replica], server: PostgresServer, every: float, until: float) -> Counter[str]:
    """Kill a gateway or a process of one after each interval, and each fifth time Postgres; start them again."""
    dice, killed, restarting = random.Random(0), Counter[str](), dict[Replica, asyncio.Task[None]]()

    async def again(replica: Replica) -> None:
        while not await asyncio.to_thread(replica.listens):  # it ends while Postgres is away
            await asyncio.sleep(0.5)
            replica.start()
        del restarting[replica]

    while time.monotonic() + every < until:
        await asyncio.sleep(every)
        if sum(killed.values()) % 5 == 4:
            killed["Postgres"] += 1
            await asyncio.to_thread(server.stop, kill=True)
            await asyncio.sleep(1)
            await asyncio.to_thread(server.start)
        elif up := [replica for replica in replicas if replica not in restarting]:
            replica = dice.choice(up)
            if (workers := replica.workers()) and dice.random() < 0.5:
                killed["worker"] += 1
                os.kill(dice.choice(workers), signal.SIGKILL)
                continue
            killed["gateway"] += 1
            await asyncio.to_thread(replica.stop, signal.SIGKILL)
            replica.start()
            restarting[replica] = asyncio.create_task(again(replica))
    await asyncio.gather(*restarting.values())
    return killed


async def watch(accounts: Accounts, until: float) -> tuple[int, dict[str, int]]:
    """Number of looks at the accounts, and most tokens that each had spent and reserved in one of them."""
    looks, most = 0, dict.fromkeys((*BUDGETS, ALL), 0)
    while time.monotonic() < until:
        with suppress(BankError):
            found = await asyncio.to_thread(accounts.open, list(BUDGETS))
            looks += 1
            for name in most:
                most[name] = max(most[name], committed(found, name))
        await asyncio.sleep(0.1)
    return looks, most


def committed(balances: Balances, name: str) -> int:
    """Tokens that an account has spent and reserved."""
    return balances[name].spent.generated_tokens + balances[name].reserved.generated_tokens


async def run(args: argparse.Namespace, stack: ExitStack, endpoint: FakeEndpoint, folder: Path) -> dict[str, Any]:
    """One run; the result as JSON."""
    seconds, every = args.seconds, args.every or 2 * args.seconds
    (folder / "postgres").mkdir()
    server = stack.enter_context(PostgresServer(folder / "postgres", ("max_connections=200",)))
    bank = server.bank()
    Bank(bank).close()
    accounts = Accounts(bank)
    replicas = [Replica(folder, endpoint.url, bank, args.workers) for _ in range(GATEWAYS)]
    for replica in replicas:
        stack.callback(replica.process.kill)
        assert replica.listens()
    clients, until = Clients(replicas, 0.05 if args.every else 0.0), time.monotonic() + seconds
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        crowd = asyncio.gather(*(clients.one(session, seed, until) for seed in range(args.clients)))
        killed, (looks, most), _ = await asyncio.gather(
            kill(replicas, server, every, until), watch(accounts, until), crowd
        )
    print("the clients have ended; leases end", flush=True)
    ended = time.monotonic() + 3 * LEASE
    while time.monotonic() < ended:  # the gateways settle, renew nothing, and end the leases of those that were killed
        with accounts._database() as database:
            if database.read("SELECT count(*) FROM reservations", ()) == [(0,)]:
                break
        await asyncio.sleep(1)
    for replica in replicas:
        await asyncio.to_thread(replica.stop, signal.SIGTERM)
    found = accounts.open(list(BUDGETS))
    spent = found[ALL].spent
    quick = sorted(clients.seconds)
    return {
        "seconds": seconds,
        "gateways": GATEWAYS,
        "workers": args.workers,
        "clients": args.clients,
        "killed": dict(killed),
        "replies": dict(sorted(clients.replies.items())),
        "answered_in_seconds": {
            "median": round(statistics.median(quick), 3),
            "p99": round(quick[len(quick) * 99 // 100], 3),
        },
        "looks": looks,
        "budget": BUDGETS,
        "most_spent_and_reserved": most,
        "spent": {name: each.spent.generated_tokens for name, each in found.items()},
        "reserved": {name: each.reserved.generated_tokens for name, each in found.items()},
        "generated": endpoint.generated_tokens,
        "charged": spent.generated_tokens,
        "uncounted_calls": spent.uncounted_calls,
        "most_tokens_of_a_call": TOKENS,
        "environment": environment(),
    }


def faults(result: dict[str, Any]) -> list[str]:
    """What did not hold."""
    found = []
    for name, budget in BUDGETS.items():
        if budget is not None and max(result["most_spent_and_reserved"][name], result["spent"][name]) > budget:
            found.append(f"the budget {name} is exceeded")
    if any(result["reserved"].values()):
        found.append("something is still reserved")
    if result["charged"] < result["generated"]:
        found.append("less is charged than was generated")
    if result["charged"] > result["generated"] + result["most_tokens_of_a_call"] * result["uncounted_calls"]:
        found.append("something is charged twice")
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--every", type=float, default=5, help="seconds between two kills; 0: nothing is killed")
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--workers", type=int, default=1, help="processes of a gateway")
    parser.add_argument("--out", type=Path, default=HERE / "chaos.json")
    args = parser.parse_args()
    with TemporaryDirectory(prefix="thinktime-chaos-") as folder, Running(latency=0.05, n="honoured") as endpoint:
        os.chmod(folder, 0o755)
        with ExitStack() as stack:
            result = asyncio.run(run(args, stack, endpoint, Path(folder)))
    result["faults"] = faults(result)
    args.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))
    sys.exit(bool(result["faults"]))


if __name__ == "__main__":
    main()
