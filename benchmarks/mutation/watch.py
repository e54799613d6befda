"""A pytest plugin: which functions of this project each test runs, and how long it takes, as a JSON file.

pytest -p benchmarks.mutation.watch --functions FILE
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Generator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

SOURCES = f"{Path(__file__).parents[2]}/"
_told: dict[str, dict[str, Any]] = {}


def pytest_addoption(parser: pytest.Parser) -> None:
    """Where to write."""
    parser.addoption("--functions", type=Path, required=True)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Note the functions of one test, its fixtures included."""
    ran: set[str] = set()

    def called(frame: FrameType, event: str, _: Any) -> None:
        code = frame.f_code
        if event == "call" and code.co_filename.startswith(SOURCES):
            ran.add(f"{code.co_filename.removeprefix(SOURCES)}:{code.co_firstlineno}")

    began = time.perf_counter()
    sys.setprofile(called)
    try:
        return (yield)
    finally:
        sys.setprofile(None)
        _told[item.nodeid] = {"seconds": round(time.perf_counter() - began, 3), "functions": sorted(ran)}


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Write what was noted."""
    session.config.getoption("--functions").write_text(json.dumps(_told))
