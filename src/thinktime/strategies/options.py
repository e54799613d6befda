"""Checks of options, and required capabilities, that several strategies share."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.util import find_spec
from math import inf

from thinktime.core.errors import InputError, UnknownNameError, check_number
from thinktime.core.types import Capability

MOST = 65_536
"""The most samples of one problem; a larger number is taken for a typing error."""

DRAFT = "draft"
"""The role of the small model in strategies of two models."""

UNREADABLE = ("raise", "plurality")
"""The reaction if replies ended and none can be read: an error that quotes some, or a plurality of the answers."""

TREE_SEARCH: frozenset[str] = frozenset({Capability.STEPS, Capability.PREFIX, Capability.PROCESS_REWARD})
"""The capabilities that every search over steps with a process reward model needs."""


def at_least(field: str, value: int, least: int) -> None:
    """Raise an `InputError` unless ``least <= value <= 65536``."""
    check_number(field, value)
    if value < least:
        raise InputError(field, value, f"give {least} or more")
    if value > MOST:
        raise InputError(field, value, f"give {MOST} or fewer")


def above(field: str, value: float, least: float) -> None:
    """Raise an `InputError` unless ``value > least`` and finite."""
    check_number(field, value)
    if not least < value < inf:
        raise InputError(field, value, f"give a number above {least:g}")


def below(field: str, value: float, most: float) -> None:
    """Raise an `InputError` unless ``value < most``."""
    check_number(field, value)
    if not value < most:
        raise InputError(field, value, f"give a number below {most:g}")


def not_below(field: str, value: float, least: float) -> None:
    """Raise an `InputError` unless ``value >= least`` and finite."""
    check_number(field, value)
    if not least <= value < inf:
        raise InputError(field, value, f"give {least:g} or more")


def between(field: str, value: float, least: float, most: float) -> None:
    """Raise an `InputError` unless ``least <= value <= most``."""
    check_number(field, value)
    if not least <= value <= most:
        raise InputError(field, value, f"give {least:g} to {most:g}")


def one_of(field: str, value: str, names: Iterable[str]) -> None:
    """Raise an `UnknownNameError` unless the value is one of these names."""
    if value not in (known := list(names)):
        raise UnknownNameError(field, value, known)


def divides(width: int, n: int, name: str = "width") -> None:
    """Raise an `InputError` unless ``n`` is a multiple of ``width``, or smaller."""
    if n > width and n % width:
        raise InputError("n", n, f"give a multiple of {name}={width}")


def installed(field: str, value: str, package: str) -> None:
    """Raise an `InputError` unless a package is installed that the extra ``bench`` brings."""
    if find_spec(package) is None:
        raise InputError(field, value, f"it needs {package}; pip install 'thinktime[bench]'")
