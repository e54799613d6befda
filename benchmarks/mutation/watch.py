"""A pytest plugin that writes the functions of this project that each test calls, and its seconds, to a JSON file.

pytest -p benchmarks.mutation.watch --functions FILE
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Generator
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import pytest

from benchmarks.mutation.forks import use_fewer_examples

ROOT = Path(__file__).parents[2]
_told: dict[str, dict[str, Any]] = {}


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option for the output file."""
    parser.addoption("--functions", type=Path, required=True)


def pytest_sessionstart() -> None:
    """Run the tests as the mutants will."""
    use_fewer_examples()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Record the functions of one test, including its fixtures."""
    ran: dict[int, CodeType] = {}

    def called(frame: FrameType, event: str, _: Any) -> None:
        ran[id(frame.f_code)] = frame.f_code  # the hash of a code object is slow

    began = time.perf_counter()
    sys.settrace(called)
    try:
        return (yield)
    finally:
        sys.settrace(None)
        ours = {f"{code.co_filename}:{code.co_firstlineno}" for code in ran.values()}
        functions = sorted(name.removeprefix(f"{ROOT}/") for name in ours if name.startswith(f"{ROOT}/src/"))
        _told[item.nodeid] = {"seconds": round(time.perf_counter() - began, 3), "functions": functions}


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Write the functions and seconds of all tests."""
    session.config.getoption("--functions").write_text(json.dumps(_told))
