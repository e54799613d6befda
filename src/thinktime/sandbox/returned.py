"""Calls a function of a program and prints its value. `thinktime.sandbox.judging` sends this file into the sandbox."""

from __future__ import annotations

import math
import sys
from typing import Any

DIGITS = 12
"""Digits of a printed number. A float has 16 or 17, and arithmetic spoils the last ones."""
LONGEST = 400
"""Characters of a printed value."""


def text_of(value: Any) -> str:
    """A value on one line; empty if it is no answer: None, infinite, not a number, or too long.

    A whole number has no decimal point, and a number of numpy reads like one of Python.
    """
    if hasattr(value, "dtype") and hasattr(value, "item") and not getattr(value, "shape", ()):
        value = value.item()
    if value is None:
        return ""
    if isinstance(value, float):
        if not math.isfinite(value):
            return ""
        value = float(f"{value:.{DIGITS}g}")
        value = int(value) if value.is_integer() else value
    text = " ".join(str(value).split())
    return text if len(text) <= LONGEST else ""


def main(source: str, function: str, token: str) -> None:
    """Run a program, call one of its functions, and print the token and the value on the last line."""
    names: dict[str, Any] = {"__name__": "program"}
    exec(compile(source, "program", "exec"), names)
    text = text_of(names[function]())
    sys.stdout.write(f"\n{token}{text}")


if "ARGUMENTS" in globals():  # in the sandbox
    main(*globals()["ARGUMENTS"])
