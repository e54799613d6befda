"""Verifiers without a reference answer: arithmetic is worked out again, programs are put to their tests."""

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
"""Exit status after the last test; a program that ends before has not passed, whatever its status."""

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
    """Whether a text works something out, and all that it works out is so.

    What it works out are equations between numbers, such as ``3 + 4 = 7``, to the digits that are written.
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

    if side.count("(") != side.count(")"):  # those of the sentence around it
        side = side.strip(" ()")
    return of(ast.parse(re.sub(r"(?<![\d.])0+(?=\d)", "", side.strip()), mode="eval").body)


def passes(program: str, tests: str, seconds: float = SECONDS) -> bool | None:
    """Whether a Python program passes its tests (assertions, run behind it); None where its time is over first.

    It runs in a process, an empty folder and an environment of its own, with an end to its time and memory. That keeps
    mistakes in, not malice: it is no sandbox. Run programs of models you do not trust in a container.
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
            with suppress(ProcessLookupError, PermissionError):  # it, and whatever it has started
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def program_of(text: str) -> str:
    """The last fenced block of a reply; all of it where nothing is fenced."""
    blocks = _FENCED.findall(text)
    return blocks[-1] if blocks else text


class Programs(TextAnswers):
    """Programs as answers. Two are the same where they are letter for letter, so votes hardly help."""

    def __init__(self) -> None:
        super().__init__(program_of)

    def key(self, answer: str) -> str:
        """The program."""
        return answer
