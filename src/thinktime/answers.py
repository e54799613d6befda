"""Equivalence of answers, the same for votes, checkers and agreement: numbers, fractions, LaTeX.

Plain numbers are compared exactly without further imports. Math-Verify
(https://github.com/huggingface/Math-Verify) parses all other answers; it is imported on first use.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable
from fractions import Fraction
from functools import lru_cache
from typing import Any

_NUMBER = re.compile(r"[-+]?(?:\d{1,3}(?:,\d{3})+|\d+)?(?:\.\d*)?")
_MARKED = re.compile(r"(?:####|[Aa]nswer\s*(?:is|:)(?:\*\*)?\s*:?)\s*(.+?)\s*$", re.MULTILINE)


_TEXT = re.compile(r"\\text\{([^{}]*)\}")
_MARKUP = re.compile(r"\*\*|\\[$,!;]|\$")
_UNIT = re.compile(r"(?<=[\d.])\s*\\?%$|(?<=[\d.])\s+[A-Za-z][A-Za-z ]*\.?$")
_MIXED = re.compile(r"([-+]?)(\d+) +(\d+)/(\d+)")


def _number(text: str) -> Fraction | None:
    text = _MARKUP.sub("", _TEXT.sub(r" \1", text)).replace("\u2212", "-").strip().rstrip(".")
    text = _UNIT.sub("", text).strip()
    if (mixed := _MIXED.fullmatch(text)) and int(mixed[4]):
        return (int(mixed[2]) + Fraction(int(mixed[3]), int(mixed[4]))) * (-1 if mixed[1] == "-" else 1)
    numerator, _, denominator = text.partition("/")
    parts = [numerator.strip(), *([denominator.strip()] if denominator else [])]
    if not all(any(c.isdigit() for c in part) and _NUMBER.fullmatch(part) for part in parts):
        return None
    values = [Fraction(part.replace(",", "")) for part in parts]
    if len(values) == 1:
        return values[0]
    return values[0] / values[1] if values[1] else None


@lru_cache(maxsize=65536)
def canonical(answer: str) -> Hashable:
    """The common key of equivalent answers: ``canonical("0.50") == canonical("1/2") == canonical(r"\\frac12")``."""
    number = _number(answer)
    if number is not None:
        return number
    parsed = _parse_math(answer)
    return parsed if parsed is not None else " ".join(answer.split()).casefold()


def _parse_math(answer: str) -> Hashable | None:
    if len(answer) > 200 or not re.search(r"[\\^_{}()\[\]=*/0-9]", answer):
        return None
    import logging

    from math_verify import parse

    logging.getLogger("math_verify").setLevel(logging.ERROR)  # it warns about the missing time limit
    expressions = parse(f"${answer.strip().strip('$')}$", parsing_timeout=None)
    if not expressions:
        return None
    value: Any = expressions[0]
    try:
        if _is_small(value):
            value = value.doit()
        if value.is_number and value.is_rational:
            return Fraction(int(value.p), int(value.q))
        if str(value) in ("zoo", "nan"):  # undefined: equals no other
            return object()
    except AttributeError:
        pass
    return str(value)


def _is_small(value: Any) -> bool:
    """Whether an expression is cheap to evaluate: it has no towers of powers and no large exponents."""
    from sympy import Pow

    powers = value.atoms(Pow)
    return all(p.exp.is_Rational and abs(p.exp) <= 64 and not p.base.has(Pow) for p in powers)


def equivalent(a: str | None, b: str | None) -> bool:
    """Whether two answers are equivalent; a missing answer is equivalent to no answer, not even a missing one."""
    return bool(a and b and a.strip() and b.strip()) and canonical(str(a)) == canonical(str(b))


def extract(text: str) -> str | None:
    """The final answer of a free-form solution: the last ``\\boxed{…}``, ``#### …`` or ``answer is …``."""
    boxed = _last_boxed(text)
    if boxed is not None:
        return boxed
    marked = _MARKED.findall(text)
    return marked[-1].rstrip(".") if marked else None


def _last_boxed(text: str) -> str | None:
    start = text.rfind("\\boxed{")
    if start < 0:
        return None
    depth = 0
    for index in range(start + 6, len(text)):
        depth += {"{": 1, "}": -1}.get(text[index], 0)
        if depth == 0:
            return text[start + 7 : index].strip()
    return None


class TextAnswers:
    """Answers of text generations, compared by `canonical`. ``read`` extracts the answer from a text."""

    def __init__(self, read: Callable[[str], str | None] = extract) -> None:
        self._read = read

    def read(self, state: Any) -> str | None:
        """The final answer in ``state.text``, or None."""
        answer = self._read(state.text)
        return answer if answer and answer.strip() else None

    def key(self, answer: str) -> Hashable:
        """Equal keys mean equivalent answers."""
        return canonical(answer)
