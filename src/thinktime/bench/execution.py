"""Verifiers without a reference answer: they recompute arithmetic, and run programs against tests."""

from __future__ import annotations

import ast
import asyncio
import hashlib
import operator
import os
import re
from collections import Counter
from collections.abc import Callable
from fractions import Fraction

from thinktime.answers import TextAnswers
from thinktime.sandbox.judging import Verdict, judge
from thinktime.sandbox.running import Sandbox

_FENCED = re.compile(r"```(?:python|py)?[ \t]*\n(.*?)```", re.DOTALL)
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
    blocks = _FENCED.findall(text)
    return blocks[-1] if blocks else text


class Programs(TextAnswers):
    """Reads programs as answers. Two are equal only if they are identical, so votes hardly help."""

    def __init__(self) -> None:
        super().__init__(program_of, "program")

    def key(self, answer: str) -> str:
        """The program."""
        return answer


class Checks:
    """Runs programs against tests, as many at once as there are processors. Equal programs with equal tests run once.

    Args:
        sandbox: where they run.
    """

    def __init__(self, sandbox: Sandbox) -> None:
        self.sandbox = sandbox
        self._verdicts: dict[bytes, asyncio.Task[Verdict]] = {}
        self._loop: asyncio.AbstractEventLoop | None = None

    async def passes(self, program: str | None, tests: str | None) -> bool:
        """Whether a program passes its tests. No program makes this raise."""
        if program is None or tests is None:
            return False
        if self._loop is not asyncio.get_running_loop():
            self._loop, self._free = asyncio.get_running_loop(), asyncio.Semaphore(os.cpu_count() or 1)
        key = hashlib.sha256(repr((program, tests)).encode()).digest()
        if key not in self._verdicts or self._verdicts[key].cancelled():
            self._verdicts[key] = asyncio.create_task(self._judge(program, tests))
        return await asyncio.shield(self._verdicts[key]) == "passed"

    def counts(self) -> dict[str, int]:
        """How many different programs got each verdict."""
        ended = [task for task in self._verdicts.values() if task.done() and not task.cancelled()]
        return dict(sorted(Counter(task.result() for task in ended).items()))

    async def _judge(self, program: str, tests: str) -> Verdict:
        async with self._free:
            return await judge(self.sandbox, program, tests)
