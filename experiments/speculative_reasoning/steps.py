"""Which lines of a program for GSM8K are right, by the numbers of the question and of the reference's calculations.

A line that assigns a value is right if that value is one of these numbers. A line that returns a value is right if it
is the answer. Only arithmetic is computed, nothing is run. All other lines have no label. A right line of another way
to the answer may count as wrong, because the reference does not have its number.
"""

from __future__ import annotations

import ast
import json
import operator
import re
from collections.abc import Callable, Iterable
from pathlib import Path

NUMBER = re.compile(r"\d+(?:,\d{3})+(?:\.\d+)?|\d*\.\d+|\d+")
OPERATIONS: dict[type[ast.operator], Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}


def numbers(text: str) -> frozenset[float]:
    """The numbers in a text, rounded."""
    return frozenset(_rounded(float(found.replace(",", ""))) for found in NUMBER.findall(text))


def known_numbers(data: Path) -> dict[str, tuple[frozenset[float], float]]:
    """The numbers of question and reference, and the answer, of each problem of the test split of GSM8K by its id.

    A percentage is known as a share too.
    """
    found = {}
    lines = (data / "gsm8k" / "test.jsonl").read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines, 1):
        row = json.loads(line)
        work, _, answer = row["answer"].rpartition("####")
        both = numbers(row["question"]) | numbers(work)
        shares = {_rounded(each / 100) for each in both if each <= 100}
        found[f"gsm8k-test-{number}"] = both | shares, float(answer.replace(",", ""))
    return found


def labels(lines: Iterable[str], known: frozenset[float], answer: float) -> list[bool | None]:
    """Of each line whether it is right; None where that cannot be said."""
    values: dict[str, float] = {}
    found: list[bool | None] = []
    for line in lines:
        returns = line.strip().startswith("return ")
        name, value = _assigned(line.strip().removeprefix("return ") if returns else line.strip(), values, returns)
        if value is not None:
            values[name] = value
        right = value is not None and (_rounded(value) == _rounded(answer) if returns else _rounded(value) in known)
        found.append(right if value is not None else None)
    return found


def _assigned(line: str, values: dict[str, float], returns: bool) -> tuple[str, float | None]:
    """The name and the value that a line assigns, or the value that it returns; None if it is no arithmetic."""
    try:
        (statement,) = ast.parse(line).body
        if returns and isinstance(statement, ast.Expr):
            return "", _value(statement.value, values)
        if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
            return statement.targets[0].id, _value(statement.value, values)
    except (SyntaxError, ValueError, ZeroDivisionError, OverflowError, RecursionError):
        pass
    return "", None


def _value(tree: ast.expr, values: dict[str, float]) -> float:
    if isinstance(tree, ast.Constant) and isinstance(tree.value, int | float) and not isinstance(tree.value, bool):
        return float(tree.value)
    if isinstance(tree, ast.Name) and tree.id in values:
        return values[tree.id]
    if isinstance(tree, ast.UnaryOp) and isinstance(tree.op, ast.USub):
        return -_value(tree.operand, values)
    if isinstance(tree, ast.BinOp) and type(tree.op) in OPERATIONS:
        return OPERATIONS[type(tree.op)](_value(tree.left, values), _value(tree.right, values))
    raise ValueError("no arithmetic")


def _rounded(value: float) -> float:
    return round(value, 4)
