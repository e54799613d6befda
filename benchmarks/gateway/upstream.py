"""The fake upstream of these measurements, and what else they take from the tests."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ENDPOINT = HERE.parents[1] / "tests" / "fake_endpoint.py"
sys.path.append(str(ENDPOINT.parent))
from fake_endpoint import FakeEndpoint, Running  # noqa: E402
from postgres_server import PostgresServer  # noqa: E402

__all__ = ["BODY", "ENDPOINT", "HERE", "LATENCY", "SAMPLES", "FakeEndpoint", "PostgresServer", "Running", "endpoint"]
LATENCY = 0.05
SAMPLES = 8
BODY: dict[str, Any] = {"model": "words", "max_tokens": 64, "messages": [{"role": "user", "content": "what is 3 + 4"}]}


@contextmanager
def endpoint(n: str, latency: float = LATENCY, pace: float = 0.0) -> Iterator[str]:
    command = [sys.executable, str(ENDPOINT), "--latency", str(latency), "--pace", str(pace), "--n", n]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            yield f"http://127.0.0.1:{server.stdout.readline().strip()}/v1"
        finally:
            server.terminate()
