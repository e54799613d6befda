"""Verifiers without a reference answer: they recompute arithmetic, and run programs against tests."""

from __future__ import annotations

import ast
import operator
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from fractions import Fraction

from thinktime.answers import TextAnswers

SECONDS = 5.0
MEGABYTES = 1024
PASSED = 77
"""Exit status after the last test. A program that exits earlier with another status has not passed."""

_BEGIN = f"""\
import os, resource, sys
resource.setrlimit(resource.RLIMIT_AS, ({MEGABYTES << 20}, {MEGABYTES << 20}))
space = {{"__name__": "__main__"}}
exec(compile(sys.argv[1], "program", "exec"), space)
exec(compile(sys.argv[2], "tests", "exec"), space)
os._exit({PASSED})
"""
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


def passes(program: str, tests: str, seconds: float = SECONDS) -> bool | None:
    """Whether a Python program passes its tests (assertions that run after it); None if it runs out of time.

    The program runs in its own process, in an empty folder, without environment variables, and with limits of time and
    memory. This contains mistakes but not malice. Run untrusted programs in a container.
    """
    with tempfile.TemporaryDirectory() as folder:
        process = subprocess.Popen(
            [sys.executable, "-I", "-c", _BEGIN, program, tests],
            cwd=folder,
            env={},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            return process.wait(seconds) == PASSED
        except subprocess.TimeoutExpired:
            return None
        finally:
            with suppress(ProcessLookupError, PermissionError):  # the process and its children
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


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
