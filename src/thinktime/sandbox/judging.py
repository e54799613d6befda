"""Runs tests against a program, or calls one of its functions.

Tests run in another sandbox than their program, so the program sees only the calls.
"""

from __future__ import annotations

import asyncio
import secrets
import socket
from typing import Literal

from thinktime.sandbox.running import Execution, Limits, Reason, Sandbox, compiled, without_mark

Verdict = Literal["passed", "failed", "time", "memory", "output", "killed", "refused"]

_GRACE = 1.0
"""Seconds in which the program notices the end of its tests. If it stops by itself, its own reason counts."""


async def judge(sandbox: Sandbox, program: str, tests: str, limits: Limits | None = None) -> Verdict:
    """Whether a Python program passes its tests: statements that use its names, and raise if it is wrong.

    Tests may call functions and methods of the program and use its objects. They find its global names; built-in
    functions and the standard library are their own. Arguments and results are copies (`thinktime.sandbox.calls`).

    Returns:
        ``passed``; ``failed``; the limit that the program or its tests exceeded; ``killed`` if a signal ended one of
        them; ``refused`` if the sandbox did not start them.
    """
    ours, theirs = socket.socketpair()
    token = secrets.token_hex()
    with ours, theirs:
        judging = _start(sandbox, ours, limits, "run_tests", without_mark(tests), ours.fileno(), token)
        running = _start(sandbox, theirs, limits, "run_program", without_mark(program), theirs.fileno())
        try:
            judged = await judging
            if judged.stdout == token.encode():
                return "passed"
            await asyncio.wait({running}, timeout=_GRACE)
        finally:
            judging.cancel()
            running.cancel()
            await asyncio.wait({judging, running})
    outcomes = [judged] if running.cancelled() else [running.result(), judged]
    return next((outcome.reason for outcome in outcomes if outcome.reason != "ok"), "failed")


async def returned(sandbox: Sandbox, program: str, function: str, limits: Limits | None = None) -> tuple[Reason, str]:
    """The value that a function of a program returns, as a line of text; it is called without arguments.

    Returns:
        Why the program ended, and the text (see `thinktime.sandbox.returned`). The text is empty if there is no value.
    """
    token = secrets.token_hex()
    names = {"__name__": "returned", "ARGUMENTS": (without_mark(program), function, token)}
    outcome = await sandbox.run(compiled("returned.py"), names=names, limits=limits)
    return outcome.reason, outcome.stdout.decode(errors="replace").rpartition(token)[2] if outcome.exit == 0 else ""


def _start(
    sandbox: Sandbox, channel: socket.socket, limits: Limits | None, function: str, *values: object
) -> asyncio.Task[Execution]:
    names = {"__name__": "calls", "ARGUMENTS": (function, *values)}
    return asyncio.create_task(sandbox.run(compiled("calls.py"), names=names, channel=channel, limits=limits))
