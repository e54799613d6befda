"""Runs a bench on a Ray cluster: each worker runs one shard of the problems, with models of its own.

A sample is a function of its key, so it does not matter which worker draws it. A worker sends each write of its bank to
a mailbox at once, and this process repeats the write in the bank of the run. If a worker is lost, another one takes its
shard, and finds there what is in the bank by then. At the end one worker gets the whole bank, and makes the result as a
single process does that continues a run.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import signal
import socket
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import groupby
from math import inf
from operator import itemgetter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import ray
from ray import cloudpickle
from ray.exceptions import RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from thinktime.bank.database import Row
from thinktime.bank.store import Bank
from thinktime.bench.environment import environment
from thinktime.bench.execution import ProgramValues
from thinktime.bench.runner import Bench, Entry, Outcome, Results
from thinktime.bench.shards import Shard
from thinktime.core.errors import InputError, ModelError, ThinktimeError
from thinktime.sandbox.running import find_sandbox

NAMESPACE = "thinktime"
"""Where Ray keeps the names of our mailboxes."""
ANSWER = 5.0
"""Seconds in which a cluster has to accept a connection."""
POLL = 0.2
"""Seconds between two looks into the mailbox."""
ABANDONED = 600.0
"""Seconds without such a look after which a mailbox ends itself."""
QUIET = 60.0
"""Seconds without any worker after which a line says so."""
LOSSES = 3
"""How many workers a shard may lose."""
AGAIN = "run the same command again to go on; finished samples are kept"


@dataclass(frozen=True)
class RayCluster:
    """The workers that a user asks of a cluster.

    Args:
        address: ``local`` starts Ray on this machine, ``auto`` finds a cluster of this machine (or ``RAY_ADDRESS``);
            else ``HOST:PORT`` or ``ray://HOST:PORT``.
        workers: how many; by default as many as fit on the nodes.
        cpus: of each worker, and the threads of its models.
        gpus: of each worker.
    """

    address: str
    workers: int | None = None
    cpus: int = 1
    gpus: int = 0


def run(
    cluster: RayCluster,
    make: Callable[[Bank], Bench],
    bank: Bank,
    problems: int,
    *,
    name: str,
    command: str,
    accept: Callable[[Mapping[str, Any]], None],
    seen: Callable[[str, str, bool], None],
) -> Results:
    """Run a bench on a cluster, and return its results. Finished samples are in the bank, also after an error.

    Args:
        cluster: which workers.
        make: makes the bench with a given bank, on a worker; Ray has to be able to pickle it.
        bank: of this process.
        problems: how many the task has.
        name: of the run; a run of the same name takes what an earlier one left in its mailbox.
        command: what the result names as the command.
        accept: gets the settings of the bench before it runs; may raise an error.
        seen: gets strategy, problem and whether it is right, of every outcome.

    Raises:
        KeyboardInterrupt: also at SIGTERM.
        InputError: there is no such cluster, or the bench is refused.
        ModelError: a shard lost its worker several times, or the cluster was lost.
    """
    try:
        parts = cloudpickle.dumps((make, bank.place, os.getcwd()))
    except Exception as error:  # of any kind: the task or a strategy may be from another package
        fix = f"the task, the models or a strategy cannot be sent to workers ({_line(error)}); leave out --ray"
        raise InputError("ray", cluster.address, fix) from None
    _connect(cluster)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # Ray has set another one
    try:
        shards = min(problems, cluster.workers or _room(cluster))
        workers = _Workers(cluster, parts, bank, shards, name, accept, seen)
        try:
            workers.do([("run", Shard(index, shards)) for index in range(1, shards + 1)])
            results: Results = workers.do([("finish", command)])[0]
            return replace(results, result={**results.result, "environment": workers.machines()})
        finally:
            workers.close()
    except RayError as error:
        raise ModelError(f"ray={cluster.address!r}: {_line(error)}; {AGAIN}") from None
    finally:
        ray.shutdown()


def _connect(cluster: RayCluster) -> None:
    """Start Ray, or connect to it.

    Raises:
        InputError: nothing answers at the address.
    """
    address = os.environ.get("RAY_ADDRESS") or "auto" if cluster.address == "auto" else cluster.address
    options: dict[str, Any] = {"namespace": NAMESPACE, "log_to_driver": False, "logging_level": "ERROR"}
    if address == "local":
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        options |= {"include_dashboard": False, "num_cpus": cluster.workers and cluster.workers * cluster.cpus}
    else:
        os.environ.setdefault("RAY_gcs_server_port_wait_time_s", "1")  # one try, of 40 s
    try:
        if address not in ("local", "auto"):
            where = re.fullmatch(r"(?:ray://)?(\[[0-9A-Fa-f:]+\]|[^:/]+):([0-9]{1,5})", address)
            if where is None:
                raise InputError("ray", address, "give local, auto, HOST:PORT or ray://HOST:PORT")
            socket.create_connection((where[1].strip("[]"), int(where[2])), ANSWER).close()
        ray.init(address, **options)
    except (OSError, OverflowError, RuntimeError, ValueError) as error:
        fix = f"cannot connect ({_line(error)}); start a cluster with `ray start --head`, or give local"
        raise InputError("ray", address, fix) from None


def _line(error: BaseException) -> str:
    """The beginning of a message, on one line."""
    return " ".join(str(error).split())[:400]


def _lives(worker: Any) -> bool:
    """Whether a worker that has nothing to do answers."""
    try:
        ray.get(worker.ping.remote(), timeout=ANSWER)
    except RayError:
        return False
    return True


def _room(cluster: RayCluster) -> int:
    """How many workers fit on the nodes of the cluster.

    Raises:
        InputError: none does.
    """
    wanted = {"CPU": cluster.cpus, "GPU": cluster.gpus}
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    room = sum(min(int(node.get(kind, 0) // n) for kind, n in wanted.items() if n) for node in nodes)
    if room < 1:
        has = ", ".join(f"{node.get('CPU', 0):g} CPUs and {node.get('GPU', 0):g} GPUs" for node in nodes)
        raise InputError("ray_cpus", cluster.cpus, f"no node has room for a worker: the nodes have {has}")
    return room


Job = tuple[str, Any]
"""A method of a worker, and its argument."""
LOAD: Job = ("load", None)
_TOLD = {"load": "loading the models", "run": "one part of the problems", "finish": "making the result"}


class _Workers:
    """The workers of a run, and what each of them does."""

    def __init__(
        self,
        cluster: RayCluster,
        parts: bytes,
        bank: Bank,
        count: int,
        name: str,
        accept: Callable[[Mapping[str, Any]], None],
        seen: Callable[[str, str, bool], None],
    ) -> None:
        self._address = cluster.address
        self._bank, self._count, self._accept, self._seen = bank, count, accept, seen
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        mailbox = f"bench-{hashlib.sha256(name.encode()).hexdigest()[:16]}"
        detached = {"name": mailbox, "get_if_exists": True, "lifetime": "detached", "num_cpus": 0}
        self._mailbox = ray.remote(_Mailbox).options(**detached, scheduling_strategy=here).remote()
        resources = {"num_cpus": cluster.cpus, "num_gpus": cluster.gpus}
        self._kind = ray.remote(_Worker).options(**resources, scheduling_strategy="SPREAD")
        self._parts = ray.put(parts)
        self._known: Any = None
        self._running: dict[Any, tuple[Any, Job]] = {}
        self._free: list[Any] = []
        self._lost: Counter[Job] = Counter()
        self._machines: list[Mapping[str, str | None]] = []
        self._started = time.monotonic()
        for _ in range(count):
            self._add()

    def do(self, jobs: Sequence[Job]) -> list[Any]:
        """The values of the jobs, in any order. A job whose worker is lost runs again on another one.

        Raises:
            ThinktimeError: a worker raised it, or too many workers were lost.
        """
        waiting, values = deque(jobs), list[Any]()
        self._known = ray.put(self._bank.contents())
        while len(values) < len(jobs):
            while waiting and self._free:
                self._start(self._free.pop(), waiting.popleft())
            ready, _ = ray.wait(list(self._running), timeout=POLL)
            self.write_down()
            for reference in ready:
                worker, job = self._running.pop(reference)
                try:
                    value = ray.get(reference)
                except RayTaskError as error:
                    raise self._cause(error) from None
                except RayError as error:
                    self._replace(worker, job, error)
                    waiting.extend([job] if job != LOAD else [])
                    continue
                self._free.append(worker)
                if job == LOAD:
                    self._loaded(*value)
                else:
                    values.append(value)
            if not self._machines and time.monotonic() - self._started > QUIET:
                self._started = inf
                print("no worker has started yet; the cluster may have no room: waiting", file=sys.stderr)
        return values

    def write_down(self) -> None:
        """Write what the workers sent to the bank, and pass on their outcomes."""
        writes, outcomes = ray.get(self._mailbox.take.remote())
        for statement, group in groupby(writes, key=itemgetter(0)):
            self._bank.write(statement, [row for _, rows in group for row in rows])
        for outcome in outcomes:
            self._seen(*outcome)

    def machines(self) -> dict[str, str | None]:
        """The environment of the workers; what differs between them is joined."""
        found = {name: dict.fromkeys(each[name] for each in self._machines) for name in self._machines[0]}
        return {name: next(iter(v)) if len(v) == 1 else " | ".join(sorted(map(str, v))) for name, v in found.items()}

    def close(self) -> None:
        """Write down what is left, and end the mailbox. The workers end with the connection to Ray."""
        with suppress(RayError):
            self.write_down()
            ray.kill(self._mailbox)

    def _cause(self, error: RayTaskError) -> Exception:
        """What a user should see of an error on a worker."""
        cause: Exception = error.cause
        if isinstance(cause, ThinktimeError | RayError):
            return cause
        if isinstance(cause, ModuleNotFoundError):
            fix = f"a worker says: {cause}; install the same packages on all nodes"
            return InputError("ray", self._address, fix)
        return RuntimeError(str(error))  # a fault of ours, with its traceback

    def _add(self) -> None:
        self._start(self._kind.remote(self._mailbox, self._parts), LOAD)

    def _start(self, worker: Any, job: Job) -> None:
        method, argument = job
        known = () if job == LOAD else (self._known, argument)
        self._running[getattr(worker, method).remote(*known)] = worker, job

    def _loaded(self, settings: Mapping[str, Any], machine: Mapping[str, str | None], files: Sequence[Row]) -> None:
        """Check that a worker has the models that the bank knows."""
        for name, fingerprint in files:
            self._bank.bind(name, fingerprint)
        self._accept(settings)
        self._machines.append(machine)

    def _replace(self, worker: Any, job: Job, error: RayError) -> None:
        """Start another worker in the place of one that is lost.

        Raises:
            ModelError: too many were lost.
        """
        ray.kill(worker)  # it may only be out of reach
        self._lost[job] += 1
        if self._lost[job] >= LOSSES * (self._count if job == LOAD else 1):
            fix = f"{self._lost[job]} workers were lost at {_TOLD[job[0]]} ({_line(error)}); {AGAIN}"
            raise ModelError(f"ray={self._address!r}: {fix}")
        print("a worker is lost; another one goes on", file=sys.stderr)
        self._free = [each for each in self._free if _lives(each)]
        self._known = ray.put(self._bank.contents())
        self._add()


class _Mailbox:
    """Keeps what the workers of a run send until the process of the run takes it."""

    def __init__(self) -> None:
        self._writes: list[tuple[str, Sequence[Row]]] = []
        self._outcomes: list[tuple[str, str, bool]] = []
        self._taken = time.monotonic()
        threading.Thread(target=self._end_if_abandoned, daemon=True).start()

    def write(self, statement: str, rows: Sequence[Row]) -> None:
        """Keep a write of a bank."""
        self._writes.append((statement, rows))

    def outcome(self, strategy: str, problem: str, correct: bool) -> None:
        """Keep whether a strategy is right in a problem."""
        self._outcomes.append((strategy, problem, correct))

    def flush(self) -> None:
        """Nothing; calls are answered in turn, so everything that the caller sent before has arrived."""

    def take(self) -> tuple[list[tuple[str, Sequence[Row]]], list[tuple[str, str, bool]]]:
        """Everything since the last call."""
        taken = self._writes, self._outcomes
        self._writes, self._outcomes, self._taken = [], [], time.monotonic()
        return taken

    def _end_if_abandoned(self) -> None:
        while time.monotonic() - self._taken < ABANDONED:
            time.sleep(ABANDONED / 10)
        os._exit(0)


class _SendingBank(Bank):
    """A bank on a worker, which sends what is new to the mailbox."""

    def __init__(self, place: Path, mailbox: Any) -> None:
        super().__init__(place)
        self._mailbox, self._sends = mailbox, True

    def add_contents(self, contents: Mapping[str, Sequence[Row]]) -> None:
        """As `Bank.add_contents`; nothing of it is new."""
        self._sends = False
        super().add_contents(contents)
        self._sends = True

    def write(self, statement: str, rows: Sequence[Row]) -> None:
        """As `Bank.write`."""
        super().write(statement, rows)
        if self._sends and rows:
            self._mailbox.write.remote(statement, rows)


class _Worker:
    """Runs shards of a bench in a process of its own."""

    def __init__(self, mailbox: Any, parts: bytes) -> None:
        self._mailbox = mailbox
        self._make, place, folder = cloudpickle.loads(parts)
        with suppress(OSError):
            os.chdir(folder)  # on this machine, relative paths mean the same then
        with TemporaryDirectory(ignore_cleanup_errors=True) as files:  # open files go with the process, also if killed
            self._bank = _SendingBank(Path(files) / "bank.db", mailbox)
        self._bank.place = place

    def load(self) -> tuple[Mapping[str, Any], Mapping[str, str | None], Sequence[Row]]:
        """Load the models. Return the settings of the bench, this machine, and the fingerprints of the models."""
        self._bench: Bench = self._make(self._bank)
        task = self._bench.task
        programs = task.answers if isinstance(task.answers, ProgramValues) else task.programs
        if programs is not None:
            find_sandbox(programs.sandbox.kind == "none")  # each node needs one
        return self._bench.settings(), environment(), self._bank.contents()["fingerprints"]

    def ping(self) -> None:
        """Nothing; the answer says that the worker lives."""

    def run(self, known: Mapping[str, Sequence[Row]], shard: Shard) -> None:
        """Draw the samples of a shard."""

        def outcome(entry: Entry, found: Outcome) -> None:
            self._mailbox.outcome.remote(entry.label, found.problem.id, found.correct)

        bench = self._bench.part(shard)
        bench.on_outcome = outcome
        self._run(known, bench)

    def finish(self, known: Mapping[str, Sequence[Row]], command: str) -> Results:
        """The results of the whole bench, whose samples are known."""
        bench = self._bench.part(Shard())
        self._run(known, bench)
        return bench.results(command, {})

    def _run(self, known: Mapping[str, Sequence[Row]], bench: Bench) -> None:
        self._bank.add_contents(known)

        async def whole() -> None:
            try:
                await bench.run()
            finally:
                await bench.session.disconnect()

        asyncio.run(whole())
        ray.get(self._mailbox.flush.remote())
