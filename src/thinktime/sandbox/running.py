"""Runs untrusted programs in a sandbox of bubblewrap (https://github.com/containers/bubblewrap).

A program finds the libraries of the system, Python with its packages, and an empty folder. It finds no network, no
home, no environment variables, no other processes and no ``/proc``. Its limits hold for root too, and its children end
with it.
"""

from __future__ import annotations

import asyncio
import marshal
import math
import os
import re
import secrets
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import CodeType
from typing import IO, Any, Literal

from thinktime.core.errors import InputError
from thinktime.sandbox.bubblewrap import bubblewrap
from thinktime.sandbox.folders import working_folder
from thinktime.sandbox.seccomp import seccomp_filter

Kind = Literal["bubblewrap", "none"]
Reason = Literal["ok", "time", "memory", "output", "killed", "refused"]

OUT_OF_MEMORY = 112
"""Exit status of a program that ends with a MemoryError."""
_BEGIN = "import marshal, sys; job = marshal.loads(sys.stdin.buffer.read()); exec(job['begin']); main(job)"
_START = 60.0
"""Seconds until a program must have begun."""
_TICK = 0.1
"""Seconds between two looks at the memory in use."""
_USERS = range(61184, 65520)
"""User ids that systemd keeps for short-lived services: no file belongs to them."""


@dataclass(frozen=True)
class Limits:
    """The most that a program may use. Sizes are in bytes."""

    seconds: float = 5.0
    """From the first line of the program to the end of its process."""
    memory: int = 1 << 30
    """Address space of each process, and resident memory of all together."""
    output: int = 1 << 20
    """Length of the standard output, and of the standard error."""
    files: int = 1 << 26
    """Size of a file, and of all files in the working folder together."""
    processes: int = 16
    """Processes and threads at once. Without a sandbox there is no such limit."""


@dataclass(frozen=True)
class Execution:
    """How a program ended."""

    reason: Reason
    """``ok``: by itself. ``time``, ``memory``, ``output``: it exceeded this limit. ``killed``: by a signal.
    ``refused``: it was not started, and `stderr` says why."""
    exit: int | None
    """The exit status if the reason is ``ok``."""
    stdout: bytes
    """The standard output, up to its limit."""
    stderr: bytes
    """The standard error, up to its limit."""
    seconds: float


@dataclass(frozen=True)
class Sandbox:
    """Runs Python programs with the interpreter and the packages of this process.

    A ``kind`` of ``none`` still sets limits of time, memory and sizes, but the program can do what this user can do.
    """

    kind: Kind

    async def run(
        self,
        program: str | CodeType,
        *,
        stdin: bytes = b"",
        files: Mapping[str, bytes] | None = None,
        names: Mapping[str, Any] | None = None,
        channel: socket.socket | None = None,
        limits: Limits | None = None,
    ) -> Execution:
        """Run a program as ``__main__``. No program makes this raise. If it is cancelled, the program ends.

        Args:
            program: Python source, or code that this interpreter has compiled.
            stdin: the standard input.
            files: content of files in the working folder, by relative path.
            names: global names that the program finds. Their values are of the types that `marshal` knows.
            channel: a socket that the program inherits under the same number. It is closed here.
            limits: by default those of `Limits`.
        """
        limits = limits or Limits()
        job = {
            "begin": compiled("process.py"),
            "program": without_mark(program) if isinstance(program, str) else program,
            "stdin": stdin,
            "files": dict(files or {}),
            "names": dict(names or {}),
            "user": secrets.choice(_USERS) if self.kind == "bubblewrap" and os.geteuid() == 0 else None,
            "limits": _resources(limits, self.kind),
            "out_of_memory": OUT_OF_MEMORY,
        }
        began = time.monotonic()
        with ExitStack() as stack:
            if channel is not None:
                stack.enter_context(channel)
            try:
                folder = "/" if self.kind == "bubblewrap" else stack.enter_context(working_folder())
                stdout, stderr = (stack.enter_context(tempfile.TemporaryFile()) for _ in range(2))
                running = stack.enter_context(_Running(self.kind, job, channel, limits, folder, stdout, stderr))
            except OSError as error:
                return Execution("refused", None, b"", str(error).encode(), 0.0)
            over = await running.end(limits)
            texts = [_beginning(file, limits.output + 1) for file in (stdout, stderr)]
            reason = running.reason(over, any(len(text) > limits.output for text in texts))
            status = running.process.returncode if reason == "ok" else None
            out, err = (text[: limits.output] for text in texts)
            return Execution(reason, status, out, err, time.monotonic() - began)


class _Running:
    """A started process. A thread waits for its end and for the end of its children.

    Bubblewrap has two processes: the one that we start, and below it the first one of the sandbox. When that one ends,
    the kernel ends all others of the sandbox. A pipe sends us its process id, and ``!`` just before the program starts.
    """

    def __init__(
        self,
        kind: Kind,
        job: dict[str, Any],
        channel: socket.socket | None,
        limits: Limits,
        folder: str,
        stdout: IO[bytes],
        stderr: IO[bytes],
    ) -> None:
        self._kind = kind
        self._status, status = os.pipe()
        self._job = marshal.dumps({**job, "status": status})
        with ExitStack() as passed:  # descriptors for the new process, closed here after it has started
            passed.callback(os.close, status)
            descriptors, command = [status], [sys.executable, "-I", "-c", _BEGIN]
            if channel is not None:
                descriptors.append(passed.enter_context(channel).fileno())
            if kind == "bubblewrap":
                info, rules = os.dup(status), _readable(seccomp_filter())  # bubblewrap closes these
                passed.callback(os.close, info)
                passed.callback(os.close, rules)
                descriptors += [info, rules]
                command = [*bubblewrap(limits.files, info, rules), *command]
            try:
                self.process = subprocess.Popen(
                    command,
                    cwd=folder,
                    env={},
                    stdin=subprocess.PIPE,
                    stdout=stdout,
                    stderr=stderr,
                    pass_fds=descriptors,
                    start_new_session=True,
                )
            except OSError:
                os.close(self._status)
                raise
        self._first: int | None = None
        """A descriptor of the first process of the sandbox."""
        self._heard = b""
        self._until = time.monotonic() + _START

    def __enter__(self) -> _Running:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._status)
        if self._first is not None:
            os.close(self._first)

    async def end(self, limits: Limits) -> Reason | None:
        """Wait until all processes are gone. Return the limit that ended them, if one did."""
        with ThreadPoolExecutor(1) as thread:
            ended = asyncio.get_running_loop().run_in_executor(thread, self._follow, limits.seconds)
            try:
                while True:
                    await asyncio.wait({ended}, timeout=max(0.0, min(_TICK, self._until - time.monotonic())))
                    if ended.done():
                        return None
                    if time.monotonic() >= self._until:
                        return "time"
                    if _resident(self.process.pid) > limits.memory:
                        return "memory"
            finally:
                if not ended.done():
                    self._kill()

    def reason(self, over: Reason | None, too_long: bool) -> Reason:
        """Why it ended, after its end."""
        if b"!" not in self._heard:
            return "refused"
        status = self.process.returncode
        ended_by = -status if status < 0 else status - 128 if self._kind == "bubblewrap" and status > 128 else 0
        if over == "time" or ended_by == signal.SIGXCPU:
            return "time"
        if over == "memory" or status == OUT_OF_MEMORY:
            return "memory"
        if too_long:
            return "output"
        return "killed" if ended_by else "ok"

    def _follow(self, seconds: float) -> None:
        while self._kind == "bubblewrap" and self._listen():
            if found := re.search(rb'"child-pid": (\d+)', self._heard):
                with suppress(OSError):  # it has ended
                    self._first = os.pidfd_open(int(found[1]))
                break
        assert self.process.stdin is not None
        with suppress(BrokenPipeError), self.process.stdin as pipe:
            pipe.write(self._job)
        while b"!" not in self._heard and self._listen():
            pass
        self._until = time.monotonic() + seconds
        self.process.wait()
        self._kill()
        if self._first is not None:
            gone = select.poll()
            gone.register(self._first, select.POLLIN)
            gone.poll()

    def _listen(self) -> bool:
        """Wait for the next message. Return whether there is one."""
        more = os.read(self._status, 4096)
        self._heard += more
        return bool(more)

    def _kill(self) -> None:
        with suppress(ProcessLookupError, PermissionError):
            if self._first is not None:
                signal.pidfd_send_signal(self._first, signal.SIGKILL)
            elif self._kind == "bubblewrap":
                self.process.kill()
            else:
                os.killpg(self.process.pid, signal.SIGKILL)


@cache
def compiled(name: str) -> CodeType:
    """A file of this folder, compiled to run in the sandbox, where this package is not."""
    path = Path(__file__).with_name(name)
    return compile(path.read_text(encoding="utf-8"), name, "exec")


def without_mark(source: str) -> str:
    """Source without the byte order mark that a file may begin with. Python's compiler refuses it in a text."""
    return source.removeprefix("\ufeff")


def find_sandbox(unsafe: bool = False) -> Sandbox:
    """The sandbox of this machine, after a trial run; with ``unsafe`` a `Sandbox` of the kind ``none``.

    Raises:
        InputError: bubblewrap is missing or does not work here.
    """
    if unsafe:
        return Sandbox("none")
    if problem := why_not():
        raise InputError(
            "sandbox",
            "bubblewrap",
            f"{problem}; install bubblewrap (bwrap) and let it make namespaces, or give --unsafe to do without it",
        )
    return Sandbox("bubblewrap")


def why_not() -> str | None:
    """Why programs cannot run in bubblewrap on this machine, in one line; None if they can."""
    if shutil.which("bwrap") is None:
        return "it is not installed"
    with ThreadPoolExecutor(1) as thread:  # this thread may have a running event loop
        outcome = thread.submit(
            lambda: asyncio.run(Sandbox("bubblewrap").run("import json", limits=Limits(seconds=30)))
        ).result()
    if outcome.reason == "ok":
        return None
    lines = outcome.stderr.decode(errors="replace").split("\n")
    return f"it does not work here ({next((line for line in reversed(lines) if line), outcome.reason)})"


def _resources(limits: Limits, kind: Kind) -> dict[str, int]:
    """Limits of the kernel by name."""
    found = {
        "RLIMIT_AS": limits.memory,
        "RLIMIT_CPU": math.ceil(limits.seconds) + 1,
        "RLIMIT_FSIZE": limits.files,
        "RLIMIT_NOFILE": 64,
        "RLIMIT_CORE": 0,
    }
    if kind == "bubblewrap":  # without it, the limit would count all processes of the user
        found["RLIMIT_NPROC"] = limits.processes
    return found


def _resident(pid: int) -> int:
    """Bytes of memory that a process and its descendants use; 0 where the system has no ``/proc``."""
    total, left = 0, [pid]
    while left:
        folder = Path("/proc", str(left.pop()))
        with suppress(OSError, IndexError):
            total += int((folder / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
            for thread in os.listdir(folder / "task"):
                with suppress(OSError):  # it has ended
                    left += map(int, (folder / "task" / thread / "children").read_text().split())
    return total


def _readable(content: bytes) -> int:
    """A descriptor to read a few bytes from."""
    reads, writes = os.pipe()
    with open(writes, "wb") as pipe:
        pipe.write(content)
    return reads


def _beginning(file: IO[bytes], n: int) -> bytes:
    file.seek(0)
    return file.read(n)
