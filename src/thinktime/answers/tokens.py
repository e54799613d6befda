"""The tokens of a formula: numbers, names and signs.

A letter with digits behind it has an index: ``x2`` is ``x_2``. Other letters side by side are a product.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from thinktime.answers.arithmetic import NotUnderstoodError

Token = tuple[str, str]
"""Its kind (``number``, ``name`` or ``sign``) and its text."""

_TOKEN = re.compile(
    r"\s*(?:(?P<number>\d+(?:\.\d+)?|\.\d+)|(?P<name>\\[A-Za-z]+|[A-Za-z]+\d*)|(?P<sign>\*\*|\\[{}|]|[-+*/^_(){}\[\]|!,=]))"
)
FUNCTIONS = frozenset(
    {
        *("sqrt", "exp", "ln", "log", "lg", "abs", "floor", "ceil", "gcd", "lcm", "min", "max"),
        *("sin", "cos", "tan", "cot", "sec", "csc", "arcsin", "arccos", "arctan", "asin", "acos", "atan"),
        *("sinh", "cosh", "tanh"),
    }
)


def tokens(text: str) -> Iterator[Token]:
    """The tokens of a formula.

    Raises:
        NotUnderstoodError: a sign belongs to no formula, or the letters are a word.
    """
    text, place = text.rstrip(), 0
    while place < len(text):
        match = _TOKEN.match(text, place)
        if match is None:
            raise NotUnderstoodError(text[place:])
        kind, place = match.lastgroup or "", match.end()
        if kind == "name":
            yield from _split(match[kind], text[place : place + 1])
        else:
            yield kind, match[kind]


def _split(name: str, behind: str) -> list[Token]:
    """A run of letters as functions, constants and variables of one letter; ``2pi r`` is a product of three.

    Args:
        name: a command, or letters and the digits behind them.
        behind: the next character.
    """
    if name.startswith("\\"):
        return [("name", name)]
    letters = name.rstrip("0123456789")
    digits = name[len(letters) :]
    found: list[Token] = []
    known = sorted(FUNCTIONS | {"pi"}, key=len, reverse=True)
    while letters:
        head = next((each for each in known if letters.startswith(each)), letters[0])
        found.append(("name", head))
        letters = letters[len(head) :]
    if sum(len(each) == 1 for _, each in found) > 3:
        raise NotUnderstoodError("a word")
    if digits:  # x2 and log2(8) have an index
        last = found[-1][1]
        found += [("sign", "_")] * (len(last) == 1 or (last == "log" and behind == "(")) + [("number", digits)]
    return found
