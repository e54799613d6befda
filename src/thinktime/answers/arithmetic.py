"""Bounded arithmetic for formulas: values, their functions, and keys that are equal for equal values.

Rational values are exact. Others have 40 digits, of which 25 are compared. Every operation checks the size of its
arguments before it is carried out, so none takes long.
"""

from __future__ import annotations

import math
from collections.abc import Hashable
from fractions import Fraction
from typing import Any

DIGITS, COMPARED = 40, 25
TINY = 100
"""Zeros behind the point of the smallest value. The sine of pi has 40, because of rounding; (1/2)^100000 has 30,000."""
BITS = 4096
"""Of the numerator or denominator of an exact value."""
LARGEST_FACTORIAL = 500
EXACT_FACTORS = 20
"""Of the numerator of a binomial coefficient that is a rational number."""
LARGEST_DEGREE = 100
"""Of a root."""

Value = Any
"""A `Fraction`, or a real or complex number of mpmath."""


class NotUnderstoodError(Exception):
    """The text is no formula."""


class TooMuchError(Exception):
    """The formula takes too long to evaluate."""


class UndefinedError(Exception):
    """The formula has no value: a division by zero, 0 to the power of 0, the logarithm of 0, the cotangent of 0."""


def _mp() -> Any:
    from mpmath import mp

    mp.dps = DIGITS
    return mp


def key_of_value(value: Value) -> Hashable:
    """A key that is equal for equal values; a `Fraction` for a rational number.

    Raises:
        TooMuchError: the value is too small for its digits to be written.
        UndefinedError: it is not a number.
    """
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


def constant(name: str) -> Value:
    """The value of ``pi``, ``e``, ``i`` or ``infty``."""
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


def is_whole(value: Value) -> bool:
    """Whether this is an exact whole number."""
    return isinstance(value, Fraction) and value.denominator == 1


def _is_complex(value: Value) -> bool:
    return not isinstance(value, Fraction) and bool(_mp().im(value))


def _checked(value: Value) -> Value:
    if isinstance(value, Fraction) and max(value.numerator.bit_length(), value.denominator.bit_length()) > BITS:
        return _real(value)
    return value


def _both(a: Value, b: Value) -> bool:
    return isinstance(a, Fraction) and isinstance(b, Fraction)


def add(a: Value, b: Value) -> Value:
    """The sum."""
    return _checked(a + b) if _both(a, b) else _real(a) + _real(b)


def subtract(a: Value, b: Value) -> Value:
    """The difference."""
    return _checked(a - b) if _both(a, b) else _real(a) - _real(b)


def multiply(a: Value, b: Value) -> Value:
    """The product."""
    return _checked(a * b) if _both(a, b) else _real(a) * _real(b)


def divide(a: Value, b: Value) -> Value:
    """The quotient.

    Raises:
        UndefinedError: ``b`` is 0.
    """
    if b == 0:
        raise UndefinedError
    return _checked(a / b) if _both(a, b) else _real(a) / _real(b)


def power(base: Value, exponent: Value) -> Value:
    """The power, exact if it has at most `BITS` bits.

    Raises:
        TooMuchError: it is too large to compute.
        UndefinedError: 0 to a power that is not positive.
    """
    if base == 0 and (not isinstance(exponent, Fraction) or exponent <= 0):
        raise UndefinedError
    if _both(base, exponent) and exponent.denominator == 1:
        bits = max(base.numerator.bit_length(), base.denominator.bit_length())
        if bits * abs(exponent) <= BITS or abs(base) in (0, 1):
            return base ** (int(exponent) % 2 if abs(base) == 1 else int(exponent))
    if _both(base, exponent) and 1 < exponent.denominator <= LARGEST_DEGREE:
        return power(root(base, Fraction(exponent.denominator)), Fraction(exponent.numerator))
    base, exponent = _real(base), _real(exponent)
    if abs(exponent) > 10**6 or (abs(base) > 10**6 and abs(exponent) > 10**4):
        raise TooMuchError("too large a power")
    return base**exponent


def root(value: Value, degree: Value) -> Value:
    """The root of a whole degree, exact if it is rational.

    Raises:
        NotUnderstoodError: the degree is not a whole number from 1 to `LARGEST_DEGREE`.
    """
    if not is_whole(degree) or not 1 <= degree <= LARGEST_DEGREE:
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


def factorial(value: Value) -> Value:
    """The factorial; the gamma function extends it, so that formulas with ``n!`` have values at every point.

    Raises:
        NotUnderstoodError: of a negative whole number, or of a complex one.
        TooMuchError: the number is too large.
    """
    if _is_complex(value) or (is_whole(value) and value < 0):
        raise NotUnderstoodError("factorial")
    if abs(value) > LARGEST_FACTORIAL:
        raise TooMuchError("too large a factorial")
    return Fraction(math.factorial(int(value))) if is_whole(value) else _mp().gamma(_real(value) + 1)


def choose(n: Value, k: Value) -> Value:
    """The binomial coefficient.

    Raises:
        NotUnderstoodError: of whole numbers without 0 <= k <= n, or of complex ones.
        TooMuchError: the numbers are too large.
    """
    whole = is_whole(n) and is_whole(k)
    if _is_complex(n) or _is_complex(k) or (whole and not 0 <= k <= n):
        raise NotUnderstoodError("binomial coefficient")
    if max(abs(n), abs(k)) > LARGEST_FACTORIAL:
        raise TooMuchError("too large a binomial coefficient")
    if whole:
        return Fraction(math.comb(int(n), int(k)))
    if isinstance(n, Fraction) and is_whole(k) and 0 <= k <= EXACT_FACTORS:  # n over 2 is n(n-1)/2
        return _checked(math.prod(n - i for i in range(int(k))) / Fraction(math.factorial(int(k))))
    return _mp().binomial(_real(n), _real(k))


def absolute(value: Value) -> Value:
    """The absolute value."""
    return abs(value)


def floor(value: Value) -> Value:
    """The largest whole number that is not above the value."""
    return Fraction(math.floor(value)) if isinstance(value, Fraction) else _whole(_mp().floor(value))


def ceiling(value: Value) -> Value:
    """The smallest whole number that is not below the value."""
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


def applied(name: str, values: list[Value], base: Value | None) -> Value:
    """The value of a function.

    Args:
        name: of the function, such as ``sin`` or ``gcd``.
        values: its arguments.
        base: of a logarithm; None for the base 10.

    Raises:
        NotUnderstoodError: the function takes other arguments.
        TooMuchError: an argument is too large.
        UndefinedError: the logarithm of 0.
    """
    mp = _mp()
    if name in ("gcd", "lcm", "min", "max"):
        if not all(map(is_whole, values)):
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
            return absolute(value)
        case "floor":
            return floor(value)
        case "ceil":
            return ceiling(value)
        case "ln":
            return _logarithm(value, None)
        case "log":
            return _logarithm(value, Fraction(10) if base is None else base)
        case "lg":
            return _logarithm(value, Fraction(10))
        case "exp":
            return power(constant("e"), value)
    names = {"arcsin": "asin", "arccos": "acos", "arctan": "atan"}
    real = _real(value)
    if abs(real) > 10**6:
        raise TooMuchError("too large an argument")
    return getattr(mp, names.get(name, name))(real)
