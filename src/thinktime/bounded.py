"""A process that computes within limits. If it exceeds one it ends, and the next call starts it again.

A formula of a model or a chat template may loop forever or fill the memory, and Python cannot stop a thread.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import Any


class BoundedProcess:
    """Runs a script that reads one JSON object a line, and answers each with one. The script keeps its own limits.

    Args:
        script: path of the script. It runs in Python's isolated mode.
    """

    def __init__(self, script: Path) -> None:
        self._script, self._lock, self._owner = script, Lock(), 0
        self._running: subprocess.Popen[str] | None = None

    def ask(self, request: Mapping[str, Any]) -> dict[str, Any] | None:
        """The answer to a request; None if it takes too much time or memory."""
        with self._lock:
            process = self._started()
            assert process.stdin is not None and process.stdout is not None
            said = ""
            with suppress(BrokenPipeError):
                process.stdin.write(json.dumps(request) + "\n")
                process.stdin.flush()
                said = process.stdout.readline()
            if said.endswith("\n"):
                answer: dict[str, Any] = json.loads(said)
                return answer
            self._running = None
            process.kill()
            process.communicate()
            return None

    def _started(self) -> subprocess.Popen[str]:
        if self._running is None or self._owner != os.getpid() or self._running.poll() is not None:
            self._owner = os.getpid()
            self._running = subprocess.Popen(
                [sys.executable, "-I", str(self._script)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                encoding="utf-8",
            )
        return self._running
