"""A pytest plugin that runs the tests of one mutant after another. Each mutant runs in a fork of the process that has
collected all tests, so it starts without imports."""

from __future__ import annotations

import gc
import inspect
import os
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from types import CodeType, FunctionType

import pytest
from _pytest.runner import runtestprotocol
from hypothesis import settings

from benchmarks.mutation.mutants import Mutant

EXAMPLES = 15
"""Examples of a property; fewer than in the suite, so a mutant may survive here that the suite would kill."""

Try = Callable[[Mutant, str, Mapping[str, int]], str | None]


class Forks:
    """Collects the tests, and then calls ``work`` with a function that tries one mutant.

    That function takes the mutant, the source without it, and the time limit of each test in whole seconds. It returns
    ``killed``, ``timed out`` or ``survived``, or None if the fault is not in the body of a function.
    """

    def __init__(self, root: Path, work: Callable[[Try], None]) -> None:
        self._root, self._work = root, work
        self._items: dict[str, pytest.Item] = {}

    def pytest_sessionstart(self) -> None:
        """Use fewer examples of each property."""
        use_fewer_examples()

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Try the mutants in place of running the tests."""
        self._items = {item.nodeid: item for item in session.items}
        self._work(self._outcome)
        return True

    def _outcome(self, mutant: Mutant, source: str, limits: Mapping[str, int]) -> str | None:
        path = str(self._root / mutant.file)
        before, after = (_around(mutant, compile(text, path, "exec")) for text in (source, mutant.applied(source)))
        if before is None or after is None or before == after:
            return None
        pid = os.fork()
        if pid == 0:
            self._run(before, after, limits)
        _, status = os.waitpid(pid, 0)
        with suppress(ProcessLookupError):  # processes that its tests have started
            os.killpg(pid, signal.SIGKILL)
        if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGALRM:
            return "timed out"
        return "killed" if status else "survived"

    def _run(self, before: CodeType, after: CodeType, limits: Mapping[str, int]) -> None:
        """In the child: swap the function's code, run the tests, and exit with 1 if one fails.

        The signal of an alarm ends the process if a test takes too long.
        """
        os.setsid()
        nowhere = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(nowhere, stream)
        status = 1
        try:
            for function in [each for each in gc.get_objects() if isinstance(each, FunctionType)]:
                if function.__code__ == before:
                    function.__code__ = after
            items = [self._items[name] for name in limits]
            following = [*items[1:], None]
            status = int(any(map(_fails, items, following, limits.values())))
        finally:
            os._exit(status)


def use_fewer_examples() -> None:
    """Run `EXAMPLES` examples of each property."""
    settings.register_profile("mutation", settings.default, max_examples=EXAMPLES)
    settings.load_profile("mutation")


def _fails(item: pytest.Item, following: pytest.Item | None, seconds: int) -> bool:
    signal.alarm(seconds)
    return any(report.failed for report in runtestprotocol(item, log=False, nextitem=following))


def _around(mutant: Mutant, module: CodeType) -> CodeType | None:
    """The code of the function or method around a mutant."""
    before = [code for code in _functions(module) if code.co_firstlineno <= mutant.line]
    return before[-1] if before and mutant.function else None


def _functions(code: CodeType) -> Iterator[CodeType]:
    """Functions of a module and methods of its classes, in order, without those inside other functions."""
    for inside in code.co_consts:
        if isinstance(inside, CodeType):
            if inside.co_flags & inspect.CO_OPTIMIZED:
                yield inside
            else:
                yield from _functions(inside)
