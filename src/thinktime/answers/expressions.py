"""Formulas in LaTeX or plain notation: a small parser, and values that are equal where the formulas are.

A formula without variables is its value. One with variables is its values at fixed points; formulas that agree there
are equal but for a chance of about 10^-25 (Schwartz 1980, Zippel 1979). `thinktime.answers.arithmetic` computes them.

Commands that are neither functions nor Greek letters, such as arrows and accents, are not understood.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable
from fractions import Fraction

from thinktime.answers import arithmetic
from thinktime.answers.arithmetic import NotUnderstoodError, TooMuchError, UndefinedError, Value
from thinktime.answers.tokens import FUNCTIONS, Token, tokens

LONGEST = 300
"""Characters of a formula; a longer one is compared as text."""
DEEPEST = 40
"""Brackets inside each other."""
NEAR, FAR, STEPS = range(3), range(3, 5), range(5, 17)
"""Numbers of points: near 0, far from it, and those of formulas with steps, such as the floor of n/2."""
OPERATIONS = 800
"""Of all formulas of one answer, some 20 microseconds each."""

Formula = Callable[["Point"], Value]
Point = Callable[[str], Value]
"""The value of a variable."""


_INVERTIBLE = frozenset({"sin", "cos", "tan", "cot", "sec", "csc", "sinh", "cosh", "tanh"})
"""Functions whose power -1 is the inverse function."""
_ALONE = FUNCTIONS - {"sqrt", "abs"}
"""Functions that end the argument of another function without brackets: sin x cos x is a product."""
_LETTERS = """
    alpha beta gamma delta epsilon varepsilon zeta eta theta vartheta iota kappa lambda mu nu xi rho sigma tau phi
    varphi chi psi omega Gamma Delta Theta Lambda Xi Sigma Phi Psi Omega ell hbar
"""
_GREEK = frozenset(_LETTERS.split())
_CONSTANTS = frozenset({"pi", "e", "i", "infty"})
_MULTIPLY = frozenset({"*", r"\cdot", r"\times", r"\ast"})
_DIVIDE = frozenset({"/", r"\div"})


def value_of(text: str, work: Effort) -> Hashable | None:
    """A key that is equal for equal formulas; a `Fraction` for a rational number. None if it is not understood.

    Raises:
        TooMuchError: the formula takes too long to evaluate.
        UndefinedError: the formula has no value.
    """
    if len(text) > LONGEST:
        return None
    try:
        parser = _Parser(text, work)
        formula = parser.whole()
        if not parser.variables:
            return arithmetic.key_of_value(formula(_no_variable))
        if parser.has_steps:
            return ("steps", *(_far_key(formula, number) for number in STEPS))
        keys = [arithmetic.key_of_value(formula(_point(number))) for number in NEAR]
    except ZeroDivisionError:  # a pole of a function, such as cot(0)
        raise UndefinedError from None
    except (NotUnderstoodError, RecursionError, OverflowError, ValueError, TypeError, MemoryError):
        return None
    keys += [_far_key(formula, number) for number in FAR]
    if len(set(keys)) == 1:
        return keys[0]
    for name in parser.variables:
        if len(name) == 1 and keys == [_point(number)(name) for number in (*NEAR, *FAR)]:
            return name.casefold()  # the key of a letter alone
    return ("formula", *keys)


def _point(number: int) -> Point:
    """The values of all variables at one of the fixed points, different for each name.

    Near points are between -3 and 3, far ones between 40 and 90 from 0; |x + 5| and x + 5 differ only there.
    """
    first = Fraction(0 if number in NEAR else 40)

    def value(name: str) -> Fraction:
        drawn = int.from_bytes(hashlib.blake2b(f"{number} {name}".encode(), digest_size=4).digest(), "big")
        size = first + Fraction(drawn % 9973 + 1, 4007 if number in NEAR else 211)
        return -size if number in (2, 4, 8, 16) else size

    return value


def _far_key(formula: Formula, number: int) -> Hashable:
    """The key of the value at a far point; None where it is too large, as in e^(e^x)."""
    try:
        return arithmetic.key_of_value(formula(_point(number)))
    except (TooMuchError, NotUnderstoodError, UndefinedError, OverflowError, ZeroDivisionError):
        return None


def _no_variable(name: str) -> Value:
    raise NotUnderstoodError(name)


class Effort:
    """The operations that are left to compare one answer."""

    def __init__(self) -> None:
        self._left = OPERATIONS

    def one(self) -> None:
        """Use up one operation.

        Raises:
            TooMuchError: none is left.
        """
        self._left -= 1
        if self._left < 0:
            raise TooMuchError("too much to compute")


class _Parser:
    """Recursive descent over the tokens; what it returns evaluates at a point."""

    def __init__(self, text: str, work: Effort) -> None:
        self.tokens: list[Token] = list(tokens(text))
        self.variables: set[str] = set()
        self.work = work
        self.at, self.depth = 0, 0
        self.in_angle = False
        """Whether a degree sign counts: in the argument of a function; elsewhere it is a unit."""
        self.has_steps = False
        """Whether it rounds, so that formulas may agree at many points."""

    def whole(self) -> Formula:
        """The formula of all tokens."""
        if not self.tokens:
            raise NotUnderstoodError("")
        formula = self._sum()
        if self.at < len(self.tokens):
            raise NotUnderstoodError(self._sign())
        return formula

    def _binary(self, combine: Callable[[Value, Value], Value], left: Formula, right: Formula) -> Formula:
        def evaluate(point: Point) -> Value:
            self.work.one()
            return combine(left(point), right(point))

        return evaluate

    def _applied(self, function: Callable[[Value], Value], inside: Formula) -> Formula:
        def evaluate(point: Point) -> Value:
            self.work.one()
            return function(inside(point))

        return evaluate

    def _sign(self, ahead: int = 0) -> str:
        place = self.at + ahead
        return self.tokens[place][1] if place < len(self.tokens) else ""

    def _kind(self) -> str:
        return self.tokens[self.at][0] if self.at < len(self.tokens) else ""

    def _take(self) -> str:
        self.at += 1
        if self.at > len(self.tokens):
            raise NotUnderstoodError("it ends early")
        return self.tokens[self.at - 1][1]

    def _expect(self, sign: str) -> None:
        if self._take() != sign:
            raise NotUnderstoodError(sign)

    def _sum(self) -> Formula:
        self.depth += 1
        if self.depth > DEEPEST:
            raise TooMuchError("too deep")
        left = self._product()
        while self._sign() in ("+", "-"):
            left = self._binary(arithmetic.add if self._take() == "+" else arithmetic.subtract, left, self._product())
        self.depth -= 1
        return left

    def _product(self, implicit_only: bool = False) -> Formula:
        left = self._signed()
        while True:
            sign = self._sign()
            if sign in _MULTIPLY and not implicit_only:
                self._take()
                left = self._binary(arithmetic.multiply, left, self._signed())
            elif sign in _DIVIDE and not implicit_only:
                self._take()
                left = self._binary(arithmetic.divide, left, self._signed())
            elif self._begins_factor() and not (implicit_only and self._sign().removeprefix("\\") in _ALONE):
                left = self._binary(arithmetic.multiply, left, self._power())
            else:
                return left

    def _begins_factor(self) -> bool:
        if self._kind() == "number":
            return self.tokens[self.at - 1][0] == "sign"  # behind a number or a variable, a number is no factor
        if self._kind() == "name":
            return self._sign() not in _MULTIPLY | _DIVIDE and self._sign() not in (r"\rfloor", r"\rceil", r"\rvert")
        if self._sign() == "[":
            return self.tokens[self.at - 1][0] == "number"  # a[0] is no product
        return self._sign() in ("(", "{")

    def _signed(self) -> Formula:
        if self._sign() in ("+", "-"):
            minus = self._take() == "-"
            inside = self._signed()
            return (lambda point: arithmetic.subtract(Fraction(0), inside(point))) if minus else inside
        return self._power()

    def _power(self) -> Formula:
        base = self._postfixed()
        if self._sign() in ("^", "**"):
            self._take()
            exponent = self._signed() if self._sign() != "{" else self._group()
            return self._binary(arithmetic.power, base, exponent)
        return base

    def _postfixed(self) -> Formula:
        inside = self._atom()
        while self._sign() == "!":
            self._take()
            inside = self._applied(arithmetic.factorial, inside)
        braced = self._sign() == "^" and self._sign(1) == "{" and self._sign(2) == r"\circ"
        if braced or (self._sign() == "^" and self._sign(1) == r"\circ"):
            self.at += 4 if braced else 2
            if self.in_angle:
                return self._binary(arithmetic.multiply, inside, lambda point: arithmetic.constant("pi") / 180)
        return inside

    def _atom(self) -> Formula:
        kind, sign = self._kind(), self._take()
        if kind == "number":
            number = Fraction(sign)
            return lambda point: number
        if sign in ("(", "{", "[", r"\{"):
            return self._until({"(": ")", "{": "}", "[": "]", r"\{": r"\}"}[sign])
        if sign in ("|", r"\|"):
            return self._applied(arithmetic.absolute, self._until(sign))
        if kind == "name":
            return self._named(sign.removeprefix("\\"), in_latex=sign[0] == "\\")
        raise NotUnderstoodError(sign)

    def _until(self, sign: str) -> Formula:
        inside = self._sum()
        self._expect(sign)
        return inside

    def _group(self) -> Formula:
        """A group in braces, or the single sign that LaTeX takes in its place."""
        if self._sign() == "{":
            self._take()
            return self._until("}")
        if self._kind() == "number" and len(self._sign()) > 1 and self._sign().isdigit():
            whole = self._sign()  # \frac12 is one half
            self.tokens[self.at : self.at + 1] = [("number", digit) for digit in whole]
        return self._atom()

    def _named(self, name: str, in_latex: bool) -> Formula:
        if name == "frac":
            above, below = self._group(), self._group()
            return self._binary(arithmetic.divide, above, below)
        if name in ("binom", "tbinom", "dbinom"):
            return self._binary(arithmetic.choose, self._group(), self._group())
        if name in ("lfloor", "lceil", "lvert"):
            self.has_steps |= name != "lvert"
            inside = self._until(f"\\r{name[1:]}")
            return self._applied(
                {"lfloor": arithmetic.floor, "lceil": arithmetic.ceiling, "lvert": arithmetic.absolute}[name], inside
            )
        if name in ("sum", "prod"):
            return self._many(name)
        if name == "sqrt":
            return self._root(in_latex)
        if name in FUNCTIONS:
            self.has_steps |= name in ("floor", "ceil")
            return self._function(name)
        if name in _CONSTANTS and self._sign() != "_":
            return lambda point: arithmetic.constant(name)
        if len(name) > 1 and name not in _GREEK:
            raise NotUnderstoodError(name)
        if self._sign() == "_":
            self._take()
            name += "_" + self._subscript()
        if self._sign() == "(" and len(name) == 1 and name in "fghFGH":
            raise NotUnderstoodError(f"{name}(…)")  # a function that nobody defined
        self.variables.add(name)
        return lambda point: point(name)

    def _subscript(self) -> str:
        if self._sign() != "{":
            return self._take()
        self._take()
        signs = []
        while (sign := self._take()) != "}":
            signs.append(sign)
        return "".join(signs)

    def _root(self, in_latex: bool) -> Formula:
        degree: Formula = lambda point: Fraction(2)  # noqa: E731  # the default of one argument
        if self._sign() == "[":
            self._take()
            degree = self._until("]")
        inside = self._group() if in_latex else self._atom()
        return lambda point: arithmetic.root(inside(point), degree(point))

    def _function(self, name: str) -> Formula:
        base: Formula | None = None
        power: Formula | None = None
        while self._sign() in ("_", "^"):
            if self._take() == "_":
                base = self._group()
            elif name in _INVERTIBLE and [self._sign(place) for place in range(4)] == ["{", "-", "1", "}"]:
                self.at += 4
                name = f"a{name}"
            else:
                power = self._group()
        outside, self.in_angle = self.in_angle, True
        if self._sign() in ("(", "{", "["):
            self._take()
            closes = {"(": ")", "{": "}", "[": "]"}[self.tokens[self.at - 1][1]]
            arguments = [self._sum()]
            while self._sign() == ",":
                self._take()
                arguments.append(self._sum())
            self._expect(closes)
        else:
            arguments = [self._product(implicit_only=True)]
        self.in_angle = outside

        def evaluate(point: Point) -> Value:
            values = [argument(point) for argument in arguments]
            found = arithmetic.applied(name, values, None if base is None else base(point))
            return found if power is None else arithmetic.power(found, power(point))

        return evaluate

    def _many(self, name: str) -> Formula:
        r"""``\sum_{k=1}^{3} k`` with bounds that are whole numbers."""
        self._expect("_")
        self._expect("{")
        variable = self._take()
        self._expect("=")
        first = self._until("}")
        self._expect("^")
        last = self._group()
        term = self._product()
        self.variables.discard(variable)

        def evaluate(point: Point) -> Value:
            low, high = first(point), last(point)
            if not (arithmetic.is_whole(low) and arithmetic.is_whole(high)):
                raise NotUnderstoodError("bounds")
            found = Fraction(0 if name == "sum" else 1)
            for k in range(int(low), int(high) + 1):
                self.work.one()
                value = term(lambda asked, k=k: Fraction(k) if asked == variable else point(asked))  # type: ignore[misc]
                found = (arithmetic.add if name == "sum" else arithmetic.multiply)(found, value)
            return found

        return evaluate
