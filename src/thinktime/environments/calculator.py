"""A calculator: actions are arithmetic in text, answers are exact fractions."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable
from fractions import Fraction
from typing import Any

from thinktime.core.environment import FORK, REPLAY, Observation
from thinktime.core.types import Problem

LONGEST = 200
"""Most characters of an expression; a longer one gets an error as its observation."""
LARGEST_POWER = 1000

_BINARY: dict[type[ast.operator], Callable[[Any, Any], Fraction]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
}


class Calculator:
    """Evaluates ``+ - * / **`` and brackets over decimal numbers. It has no state.

    An expression that cannot be evaluated gives an observation with the error, because a model writes the expression.
    """

    name = "calculator"
    capabilities = frozenset({FORK, REPLAY})

    async def start(self, problem: Problem) -> None:
        """No state."""
        return None

    async def fork(self, state: None) -> None:
        """No state."""
        return None

    async def step(self, state: None, action: Any) -> Observation:
        """The value of an expression."""
        return Observation(evaluate(str(action)), None)


def evaluate(expression: str) -> str:
    """The value as a whole number, a decimal or a fraction; or ``error: `` and the mistake."""
    if len(expression) > LONGEST:
        return f"error: the expression has {len(expression)} characters; write at most {LONGEST}"
    try:
        value = _value(ast.parse(expression.strip(), mode="eval").body)
    except ZeroDivisionError:
        return "error: division by zero"
    except (SyntaxError, ValueError, RecursionError, MemoryError) as mistake:
        return f"error: {mistake}"
    return str(value)


def _value(node: ast.expr) -> Fraction:
    """The exact value of a syntax tree.

    Raises:
        ValueError: the tree is not arithmetic, or a number would be too large.
    """
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float) and not isinstance(node.value, bool):
        return Fraction(str(node.value))
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return -_value(node.operand)
    if isinstance(node, ast.BinOp) and type(node.op) in _BINARY:
        left, right = _value(node.left), _value(node.right)
        if isinstance(node.op, ast.Pow) and (right.denominator != 1 or abs(right) * _digits(left) > LARGEST_POWER):
            raise ValueError("this power is too large, or its exponent is no whole number")
        return Fraction(_BINARY[type(node.op)](left, right))
    raise ValueError("write numbers, + - * / ** and brackets")


def _digits(value: Fraction) -> int:
    return max(len(str(value.numerator)), len(str(value.denominator)))
