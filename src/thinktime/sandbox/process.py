"""The first code of a process in a sandbox. `thinktime.sandbox.running` sends it there.

It drops its privileges, sets limits that neither it nor its children can raise, and then runs the program.
"""

from __future__ import annotations

import os
import resource
import sys
from types import ModuleType
from typing import Any


def main(job: dict[str, Any]) -> None:
    """Run the program of a job; `thinktime.sandbox.running.Sandbox` says what the job holds."""
    if job["user"] is not None:
        os.chown(".", job["user"], job["user"])  # a program may change the mode of its own folder
        os.setgroups([])
        os.setresgid(job["user"], job["user"], job["user"])
        os.setresuid(job["user"], job["user"], job["user"])
    for name, most in job["limits"].items():
        kind = getattr(resource, name)
        hard = resource.getrlimit(kind)[1]
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(kind, (most, most))
    for name, content in job["files"].items():
        os.makedirs(os.path.dirname(name) or ".", exist_ok=True)
        with open(name, "wb") as file:
            file.write(content)
    _read_from(job["stdin"])
    os.environ.clear()
    os.putenv("OPENBLAS_NUM_THREADS", "1")  # numpy's threads would count as processes
    os.write(job["status"], b"!")
    os.close(job["status"])
    module = sys.modules["__main__"] = ModuleType("__main__")
    vars(module).update(job["names"])
    program = job["program"]
    try:
        exec(compile(program, "program", "exec") if isinstance(program, str) else program, vars(module))
    except MemoryError:
        os._exit(job["out_of_memory"])


def _read_from(content: bytes) -> None:
    """Make the content the standard input."""
    with open(".stdin", "w+b", buffering=0) as file:
        os.unlink(".stdin")
        file.write(content)
        file.seek(0)
        os.dup2(file.fileno(), 0)
