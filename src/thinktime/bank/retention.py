"""How long and how many samples are kept, as people write it: ``30d`` and ``5GB``."""

from __future__ import annotations

import re
from collections.abc import Mapping

from thinktime.core.errors import InputError

DAYS = {"h": 1 / 24, "d": 1.0, "w": 7.0}
BYTES = {"KB": 10**3, "MB": 10**6, "GB": 10**9}


def days(field: str, text: str) -> float:
    """The days of a text such as ``12h``, ``30d`` or ``8w``.

    Raises:
        InputError: it is something else.
    """
    return _amount(field, text, DAYS, "30d")


def size(field: str, text: str) -> int:
    """The bytes of a text such as ``500MB`` or ``2GB``.

    Raises:
        InputError: it is something else.
    """
    return int(_amount(field, text, BYTES, "2GB"))


def _amount(field: str, text: str, units: Mapping[str, float], example: str) -> float:
    """A number with one of these units."""
    found = re.fullmatch(rf"([0-9]{{1,9}}(?:\.[0-9]{{1,9}})?)\s*({'|'.join(units)})", text.strip())
    if found is None:
        raise InputError(field, text, f"give a number and a unit of {', '.join(units)}, as {example}")
    return float(found[1]) * units[found[2]]
