"""Verifiers without a reference answer: they recompute arithmetic, and run programs against tests."""

from __future__ import annotations

import ast
import asyncio
import hashlib
import operator
import os
import re
from collections import Counter
from collections.abc import Awaitable, Callable, Hashable, Iterable
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from typing import Any, Generic, TypeVar

from thinktime.answers import TextAnswers
from thinktime.sandbox.judging import Verdict, judge, returned
from thinktime.sandbox.running import Reason, Sandbox

Ended = TypeVar("Ended")
_FENCED = re.compile(r"```(?:python|py)?[ \t]*\n(.*?)(?:```|\Z)", re.DOTALL)
"""A code block. A stop string may have cut off its end."""
_NOTES = re.compile(r"<<[^<>]*>>|\$|(?<=\d),(?=\d{3}(?!\d))")
"""Calculator annotations, dollars, and commas of thousands."""
_TIMES = re.compile(r"(?<=[\d)]) ?[x\u00d7] ?(?=[\d(.])")
_SIDE = r"\(*-?(?:\d+(?:\.\d+)?|\.\d+)\)*(?: ?[-+*/] ?\(*-?(?:\d+(?:\.\d+)?|\.\d+)\)*)*"
_EQUATION = re.compile(rf"{_SIDE}(?: ?= ?{_SIDE})+")
_OPERATORS: dict[type[ast.operator], Callable[[Fraction, Fraction], Fraction]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}


def arithmetic(text: str) -> bool:
    """Whether a text contains calculations such as ``3 + 4 = 7``, and all of them are right.

    A result is right if it agrees to the number of digits that is written.
    """
    found = [equation.split("=") for equation in _EQUATION.findall(_TIMES.sub("*", _NOTES.sub("", text)))]
    worked_out = [sides for sides in found if re.search(r"[\d)] ?[-+*/]", sides[0])]
    return bool(worked_out) and all(_holds(first, side) for first, *others in worked_out for side in others)


def _holds(left: str, right: str) -> bool:
    try:
        apart = abs(_value(left) - _value(right))
    except (SyntaxError, ValueError, ZeroDivisionError, RecursionError):
        return False
    _, _, digits = right.strip(" ()").partition(".")
    return bool(apart * 2 * 10 ** len(digits) <= 1)


def _value(side: str) -> Fraction:
    def of(node: ast.expr) -> Fraction:
        match node:
            case ast.BinOp(left, op, right) if type(op) in _OPERATORS:
                return _OPERATORS[type(op)](of(left), of(right))
            case ast.UnaryOp(ast.USub(), operand):
                return -of(operand)
            case ast.Constant():
                return Fraction(ast.unparse(node))
        raise ValueError(side)

    if side.count("(") != side.count(")"):  # a parenthesis of the surrounding sentence
        side = side.strip(" ()")
    return of(ast.parse(re.sub(r"(?<![\d.])0+(?=\d)", "", side.strip()), mode="eval").body)


def program_of(text: str) -> str:
    """The last fenced code block of a reply, or the whole reply if there is none."""
    blocks = [block for block in _FENCED.findall(text) if block.strip()]
    return blocks[-1] if blocks else text


class Programs(TextAnswers):
    """Reads programs as answers. Two are equal only if they are identical, so votes hardly help."""

    def __init__(self) -> None:
        super().__init__(program_of, "program")

    def key(self, answer: str) -> str:
        """The program."""
        return answer


class _Runs(Generic[Ended]):
    """Runs programs, as many at once as there are processors, and each once."""

    def __init__(self) -> None:
        self._tasks: dict[Hashable, asyncio.Future[Ended]] = {}
        self._loop: asyncio.AbstractEventLoop | None = None

    async def once(self, key: Hashable, start: Callable[[], Awaitable[Ended]]) -> Ended:
        """The result of the program of this key."""
        if self._loop is not asyncio.get_running_loop():
            self._loop, self._free = asyncio.get_running_loop(), asyncio.Semaphore(os.cpu_count() or 1)
        if key not in self._tasks or self._tasks[key].cancelled():
            self._tasks[key] = asyncio.create_task(self._run(start))
        return await asyncio.shield(self._tasks[key])

    async def _run(self, start: Callable[[], Awaitable[Ended]]) -> Ended:
        async with self._free:
            return await start()

    def ended(self) -> list[Ended]:
        """The results so far."""
        return [task.result() for task in self._tasks.values() if task.done() and not task.cancelled()]


class ProgramValues(TextAnswers):
    """Reads programs, and takes what their function returns as the answer. Votes are over these values.

    Equal programs run once.

    Args:
        sandbox: where they run.
        function: the name of the function; it is called without arguments.
    """

    def __init__(self, sandbox: Sandbox, function: str) -> None:
        super().__init__(name=f"value of {function}()")
        self.sandbox = sandbox
        self._function = function
        self._runs = _Runs[tuple[Reason, str]]()
        self._values: dict[str, str | None] = {}
        self._counts: Counter[str] = Counter()

    def read(self, state: Any) -> str | None:
        """The value of the program in ``state.text``; None if it has none."""
        program = program_of(state.text)
        if program not in self._values:
            with ThreadPoolExecutor(1) as thread:  # this thread may have a running event loop
                ended = thread.submit(asyncio.run, returned(self.sandbox, program, self._function)).result()
            self._note(program, ended)
        return self._values[program]

    async def prepare(self, states: Iterable[Any]) -> None:
        """Run the programs."""
        await asyncio.gather(*(self._prepare(program_of(state.text)) for state in states))

    def counts(self) -> dict[str, int]:
        """How many different programs ended in each way."""
        return dict(sorted(self._counts.items()))

    async def _prepare(self, program: str) -> None:
        ended = await self._runs.once(program, lambda: returned(self.sandbox, program, self._function))
        if program not in self._values:
            self._note(program, ended)

    def _note(self, program: str, ended: tuple[Reason, str]) -> None:
        reason, value = ended
        self._values[program] = value or None
        self._counts["value" if value else "no value" if reason == "ok" else reason] += 1


class Checks:
    """Runs programs against tests. Equal programs with equal tests run once.

    Args:
        sandbox: where they run.
    """

    def __init__(self, sandbox: Sandbox) -> None:
        self.sandbox = sandbox
        self._runs = _Runs[Verdict]()

    async def passes(self, program: str | None, tests: str | None, preamble: str = "") -> bool:
        """Whether a program passes its tests. No program makes this raise.

        Args:
            program: Python source; no program does not pass.
            tests: statements that use its names.
            preamble: code that comes before the program, such as imports and the function that it completes.
        """
        if program is None or tests is None:
            return False
        program = f"{preamble}\n{program}" if preamble else program
        key = hashlib.sha256(repr((program, tests)).encode()).digest()
        return await self._runs.once(key, lambda: judge(self.sandbox, program, tests)) == "passed"

    def counts(self) -> dict[str, int]:
        """How many different programs got each verdict."""
        return dict(sorted(Counter(self._runs.ended()).items()))
