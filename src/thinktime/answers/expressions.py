"""Formulas in LaTeX or plain notation: a small parser, and values that are equal where the formulas are.

A formula without variables is its value. One with variables is its values at three fixed points; formulas that agree
there are equal but for a chance of about 10^-25 (Schwartz 1980, Zippel 1979). Rational values are exact. Others have
40 digits, of which 25 are compared. Every operation is bounded before it is carried out, so no formula takes long.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Callable, Hashable
from fractions import Fraction
from typing import Any

LONGEST = 300
"""Characters of a formula; a longer one is compared as text."""
DEEPEST = 40
"""Brackets inside each other."""
DIGITS, COMPARED = 40, 25
TINY = 100
"""Zeros behind the point of the smallest value. The sine of pi has 40, because of rounding; (1/2)^100000 has 30,000."""
BITS = 4096
"""Of the numerator or denominator of an exact value."""
LARGEST_FACTORIAL = 500
OPERATIONS = 800
"""Of all formulas of one answer, some 20 microseconds each."""

Value = Any
"""A `Fraction`, or a real or complex number of mpmath."""
Formula = Callable[["Point"], Value]
Point = Callable[[str], Value]
"""The value of a variable."""


class NotUnderstoodError(Exception):
    """The text is no formula."""


class TooMuchError(Exception):
    """The formula takes too long to evaluate."""


class UndefinedError(Exception):
    """The formula has no value: a division by zero, 0 to the power of 0, the logarithm of 0, the cotangent of 0."""


_TOKEN = re.compile(
    r"\s*(?:(?P<number>\d+(?:\.\d+)?|\.\d+)|(?P<name>\\[A-Za-z]+|[A-Za-z]+)|(?P<sign>\*\*|\\[{}|]|[-+*/^_(){}\[\]|!,=]))"
)
_FUNCTIONS = frozenset(
    {
        *("sqrt", "exp", "ln", "log", "lg", "abs", "floor", "ceil", "gcd", "lcm", "min", "max"),
        *("sin", "cos", "tan", "cot", "sec", "csc", "arcsin", "arccos", "arctan", "asin", "acos", "atan"),
        *("sinh", "cosh", "tanh"),
    }
)
_INVERTIBLE = frozenset({"sin", "cos", "tan", "cot", "sec", "csc", "sinh", "cosh", "tanh"})
"""Functions whose power -1 is the inverse function."""
_CONSTANTS = frozenset({"pi", "e", "i", "infty"})
_MULTIPLY = frozenset({"*", r"\cdot", r"\times", r"\ast"})
_DIVIDE = frozenset({"/", r"\div"})


def value_of(text: str, work: Work) -> Hashable | None:
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
            return _key(formula(_no_variable))
        keys = [_key(formula(_point(number))) for number in range(3)]
    except ZeroDivisionError:  # a pole of a function, such as cot(0)
        raise UndefinedError from None
    except (NotUnderstoodError, RecursionError, OverflowError, ValueError, TypeError, MemoryError):
        return None
    if len(set(keys)) == 1:
        return keys[0]
    return ("formula", *keys)


def _point(number: int) -> Point:
    """The values of all variables at one of the fixed points, between -3 and 3 and different for each name."""

    def value(name: str) -> Fraction:
        drawn = int.from_bytes(hashlib.blake2b(f"{number} {name}".encode(), digest_size=4).digest(), "big")
        return Fraction(drawn % 9973 + 1, 4007) * (-1 if number == 2 else 1)

    return value


def _no_variable(name: str) -> Value:
    raise NotUnderstoodError(name)


def _key(value: Value) -> Hashable:
    if isinstance(value, Fraction):
        return value
    mp = _mp()
    if mp.isnan(value):
        raise UndefinedError
    if mp.isinf(value):
        return "infinity" if mp.re(value) > 0 else "-infinity"
    parts = [mp.re(value), mp.im(value)]
    scale = max(1, *(abs(part) for part in parts))
    near = _near_fraction(parts[0]) if abs(parts[1]) < scale * mp.mpf(10) ** -COMPARED else None
    if near is not None:
        return near
    parts = [part if abs(part) > scale * mp.mpf(10) ** -COMPARED else mp.mpf(0) for part in parts]
    return ("number", *(mp.nstr(part, COMPARED) for part in parts))


def _near_fraction(value: Any) -> Fraction | None:
    """The fraction of a small denominator that a rounded number stands for, as 1/2 for the sine of 30 degrees."""
    mp = _mp()
    if abs(value) > 10**9:
        return None
    if value and abs(value) < mp.mpf(10) ** -TINY:
        raise TooMuchError("too small a value")  # its digits would take seconds
    found = Fraction(mp.nstr(value, DIGITS)).limit_denominator(10**4)
    return found if abs(_real(found) - value) < mp.mpf(10) ** -(COMPARED + 5) else None


def _mp() -> Any:
    from mpmath import mp

    mp.dps = DIGITS
    return mp


class Work:
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

    def __init__(self, text: str, work: Work) -> None:
        self.tokens: list[tuple[str, str]] = []
        self.variables: set[str] = set()
        self.work = work
        place = 0
        text = text.rstrip()
        while place < len(text):
            match = _TOKEN.match(text, place)
            if match is None:
                raise NotUnderstoodError(text[place:])
            kind = match.lastgroup or ""
            self.tokens += _split(match[kind]) if kind == "name" else [(kind, match[kind])]
            place = match.end()
        self.at, self.depth = 0, 0
        self.in_angle = False
        """Whether a degree sign counts: in the argument of a function; elsewhere it is a unit."""

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
            left = self._binary(_add if self._take() == "+" else _subtract, left, self._product())
        self.depth -= 1
        return left

    def _product(self, implicit_only: bool = False) -> Formula:
        left = self._signed()
        while True:
            sign = self._sign()
            if sign in _MULTIPLY and not implicit_only:
                self._take()
                left = self._binary(_multiply, left, self._signed())
            elif sign in _DIVIDE and not implicit_only:
                self._take()
                left = self._binary(_divide, left, self._signed())
            elif self._begins_factor():
                left = self._binary(_multiply, left, self._power())
            else:
                return left

    def _begins_factor(self) -> bool:
        if self._kind() == "number":
            return self.tokens[self.at - 1][0] != "number"  # two numbers side by side are no product
        if self._kind() == "name":
            return self._sign() not in _MULTIPLY | _DIVIDE and self._sign() not in (r"\rfloor", r"\rceil", r"\rvert")
        return self._sign() in ("(", "{", "[")

    def _signed(self) -> Formula:
        if self._sign() in ("+", "-"):
            minus = self._take() == "-"
            inside = self._signed()
            return (lambda point: _subtract(Fraction(0), inside(point))) if minus else inside
        return self._power()

    def _power(self) -> Formula:
        base = self._postfixed()
        if self._sign() in ("^", "**"):
            self._take()
            exponent = self._signed() if self._sign() != "{" else self._group()
            return self._binary(_raise, base, exponent)
        return base

    def _postfixed(self) -> Formula:
        inside = self._atom()
        while self._sign() == "!":
            self._take()
            inside = self._applied(_factorial, inside)
        braced = self._sign() == "^" and self._sign(1) == "{" and self._sign(2) == r"\circ"
        if braced or (self._sign() == "^" and self._sign(1) == r"\circ"):
            self.at += 4 if braced else 2
            if self.in_angle:
                return self._binary(_multiply, inside, lambda point: _constant("pi") / 180)
        return inside

    def _atom(self) -> Formula:
        kind, sign = self._kind(), self._take()
        if kind == "number":
            number = Fraction(sign)
            return lambda point: number
        if sign in ("(", "{", "[", r"\{"):
            return self._until({"(": ")", "{": "}", "[": "]", r"\{": r"\}"}[sign])
        if sign in ("|", r"\|"):
            return self._applied(_absolute, self._until(sign))
        if kind == "name":
            return self._named(sign.removeprefix("\\"))
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

    def _named(self, name: str) -> Formula:
        if name in ("frac",):
            above, below = self._group(), self._group()
            return self._binary(_divide, above, below)
        if name in ("binom", "tbinom", "dbinom"):
            return self._binary(_choose, self._group(), self._group())
        if name in ("lfloor", "lceil", "lvert"):
            inside = self._until(f"\\r{name[1:]}")
            return self._applied({"lfloor": _floor, "lceil": _ceiling, "lvert": _absolute}[name], inside)
        if name in ("sum", "prod"):
            return self._many(name)
        if name == "sqrt":
            return self._root()
        if name in _FUNCTIONS:
            return self._function(name)
        if name in _CONSTANTS and self._sign() != "_":
            return lambda point: _constant(name)
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

    def _root(self) -> Formula:
        degree: Formula = lambda point: Fraction(2)  # noqa: E731  # the default of one argument
        if self._sign() == "[":
            self._take()
            degree = self._until("]")
        inside = self._group()
        return lambda point: _root(inside(point), degree(point))

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
            found = _apply(name, values, None if base is None else base(point))
            return found if power is None else _raise(found, power(point))

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
            if not (_is_whole(low) and _is_whole(high)):
                raise NotUnderstoodError("bounds")
            found = Fraction(0 if name == "sum" else 1)
            for k in range(int(low), int(high) + 1):
                self.work.one()
                value = term(lambda asked, k=k: Fraction(k) if asked == variable else point(asked))  # type: ignore[misc]
                found = (_add if name == "sum" else _multiply)(found, value)
            return found

        return evaluate


def _split(name: str) -> list[tuple[str, str]]:
    """A run of letters as functions, constants and variables of one letter; ``2pi r`` is a product of three."""
    if name.startswith("\\"):
        return [("name", name)]
    found: list[tuple[str, str]] = []
    known = sorted(_FUNCTIONS | {"pi"}, key=len, reverse=True)
    while name:
        head = next((each for each in known if name.startswith(each)), name[0])
        found.append(("name", head))
        name = name[len(head) :]
    if sum(len(each) == 1 for _, each in found) > 3:
        raise NotUnderstoodError("a word")
    return found


def _constant(name: str) -> Value:
    mp = _mp()
    return {"pi": +mp.pi, "e": +mp.e, "i": mp.mpc(0, 1), "infty": mp.inf}[name]


def _real(value: Value) -> Any:
    """The value as a number of mpmath.

    Raises:
        TooMuchError: a part of a complex number is so small that functions of it take as many digits as it has
            zeros.
    """
    mp = _mp()
    if isinstance(value, mp.mpc) and any(part and mp.mag(part) < -BITS for part in (value.real, value.imag)):
        raise TooMuchError("too small a part")
    return mp.mpf(value.numerator) / value.denominator if isinstance(value, Fraction) else value


def _is_whole(value: Value) -> bool:
    return isinstance(value, Fraction) and value.denominator == 1


def _checked(value: Value) -> Value:
    if isinstance(value, Fraction) and max(value.numerator.bit_length(), value.denominator.bit_length()) > BITS:
        return _real(value)
    return value


def _both(a: Value, b: Value) -> bool:
    return isinstance(a, Fraction) and isinstance(b, Fraction)


def _add(a: Value, b: Value) -> Value:
    return _checked(a + b) if _both(a, b) else _real(a) + _real(b)


def _subtract(a: Value, b: Value) -> Value:
    return _checked(a - b) if _both(a, b) else _real(a) - _real(b)


def _multiply(a: Value, b: Value) -> Value:
    return _checked(a * b) if _both(a, b) else _real(a) * _real(b)


def _divide(a: Value, b: Value) -> Value:
    if b == 0:
        raise UndefinedError
    return _checked(a / b) if _both(a, b) else _real(a) / _real(b)


def _raise(base: Value, exponent: Value) -> Value:
    if base == 0 and (not isinstance(exponent, Fraction) or exponent <= 0):
        raise UndefinedError
    if _both(base, exponent) and exponent.denominator == 1:
        bits = max(base.numerator.bit_length(), base.denominator.bit_length())
        if bits * abs(exponent) <= BITS or abs(base) in (0, 1):
            return base ** (int(exponent) % 2 if abs(base) == 1 else int(exponent))
    if _both(base, exponent) and exponent.denominator > 1:
        return _root(_raise(base, Fraction(exponent.numerator)), Fraction(exponent.denominator))
    base, exponent = _real(base), _real(exponent)
    if abs(exponent) > 10**6 or (abs(base) > 10**6 and abs(exponent) > 10**4):
        raise TooMuchError("too large a power")
    return base**exponent


def _root(value: Value, degree: Value) -> Value:
    if not _is_whole(degree) or not 1 <= degree <= 100:
        raise NotUnderstoodError("degree of a root")
    n = int(degree)
    if isinstance(value, Fraction) and (value >= 0 or n % 2):
        above, below = (_whole_root(abs(part), n) for part in (value.numerator, value.denominator))
        if above is not None and below is not None:
            return Fraction(-above if value < 0 else above, below)
    mp, real = _mp(), _real(value)
    if mp.im(real) == 0 and real < 0 and n % 2:
        return -mp.root(-real, n)
    return mp.root(real, n)


def _whole_root(number: int, n: int) -> int | None:
    """The exact n-th root of a whole number, if it is whole."""
    if n == 2:
        found = math.isqrt(number)
    else:
        mp = _mp()
        found = int(mp.nint(mp.root(mp.mpf(number), n)))
    return found if found**n == number else None


def _factorial(value: Value) -> Value:
    if not _is_whole(value) or value < 0:
        raise NotUnderstoodError("factorial")
    if value > LARGEST_FACTORIAL:
        raise TooMuchError("too large a factorial")
    return Fraction(math.factorial(int(value)))


def _choose(n: Value, k: Value) -> Value:
    if not (_is_whole(n) and _is_whole(k)) or not 0 <= k <= n:
        raise NotUnderstoodError("binomial coefficient")
    if n > LARGEST_FACTORIAL:
        raise TooMuchError("too large a binomial coefficient")
    return Fraction(math.comb(int(n), int(k)))


def _absolute(value: Value) -> Value:
    return abs(value)


def _floor(value: Value) -> Value:
    return Fraction(math.floor(value)) if isinstance(value, Fraction) else _whole(_mp().floor(value))


def _ceiling(value: Value) -> Value:
    return Fraction(math.ceil(value)) if isinstance(value, Fraction) else _whole(_mp().ceil(value))


def _whole(value: Value) -> Value:
    if abs(value) > 2**BITS:
        raise TooMuchError("too large a whole number")
    return Fraction(int(value))


def _logarithm(value: Value, base: Value | None) -> Value:
    mp = _mp()
    if value == 0:
        raise UndefinedError
    found = mp.log(_real(value))
    return found if base is None else found / mp.log(_real(base))


def _apply(name: str, values: list[Value], base: Value | None) -> Value:
    mp = _mp()
    if name in ("gcd", "lcm", "min", "max"):
        if not all(map(_is_whole, values)):
            raise NotUnderstoodError(name)
        numbers = [int(value) for value in values]
        if name in ("gcd", "lcm"):
            return Fraction(math.gcd(*numbers) if name == "gcd" else math.lcm(*numbers))
        return Fraction(min(numbers) if name == "min" else max(numbers))
    if len(values) != 1 or (base is not None and name != "log"):
        raise NotUnderstoodError(name)
    (value,) = values
    match name:
        case "abs":
            return _absolute(value)
        case "floor":
            return _floor(value)
        case "ceil":
            return _ceiling(value)
        case "ln":
            return _logarithm(value, None)
        case "log":
            return _logarithm(value, Fraction(10) if base is None else base)
        case "lg":
            return _logarithm(value, Fraction(10))
        case "exp":
            return _raise(_constant("e"), value)
    names = {"arcsin": "asin", "arccos": "acos", "arctan": "atan"}
    real = _real(value)
    if abs(real) > 10**6:
        raise TooMuchError("too large an argument")
    return getattr(mp, names.get(name, name))(real)
