"""The examples that the prompt of a programming problem shows, as tests: a verifier that needs no reference.

Two forms are read: a line ``>>> f(1)`` with the value on the next line, and ``f(1) == 2`` anywhere in the prompt, also
with ``=>``, ``->`` or ``returns`` in place of ``==``. Arguments and value have to be Python literals.
"""

from __future__ import annotations

import ast
import re

_ARROW = re.compile(r"\s*(?:={1,2}>|==|->|➞|should return\b|returns?\b|\n)\s*", re.IGNORECASE)
_ENDS = re.compile(r"\s*(?:$|[#.,;])")
"""What may follow a value on its line; ``19 - 5 = 14`` is no value."""
_LOWER = {"true": "True", "false": "False"}
_LONGEST = 400
"""Characters of a call or a value."""


def visible_tests(prompt: str, function: str) -> str:
    """An assertion a line for each example; empty if there is none.

    Args:
        prompt: the signature of the function and its documentation.
        function: its name.
    """
    found: dict[str, None] = {}
    for place in re.finditer(rf"(?<![\w.]){re.escape(function)}\(", prompt):
        call = next(filter(_is_call, _beginnings(prompt, place.start())), None)
        arrow = call and _ARROW.match(prompt, place.start() + len(call))
        if call and arrow:
            value = next(filter(_is_literal, _beginnings(prompt, arrow.end())), None)
            if value is not None and _ENDS.match(prompt[arrow.end() + len(value) :].partition("\n")[0]):
                found[f"assert {call.strip()} == {_LOWER.get(value.strip(), value.strip())}"] = None
    return "\n".join(found)


def _beginnings(text: str, start: int) -> list[str]:
    """The beginnings of the rest of a line, the longest first."""
    line = text[start:].partition("\n")[0][:_LONGEST]
    return [line[:stop] for stop in range(len(line), 0, -1)]


def _is_call(text: str) -> bool:
    try:
        call = ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return False
    return isinstance(call, ast.Call) and not call.keywords and all(_is_literal(ast.unparse(arg)) for arg in call.args)


def _is_literal(text: str) -> bool:
    try:
        ast.literal_eval(_LOWER.get(text.strip(), text.strip()))
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return False
    return True
