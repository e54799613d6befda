"""Removes what could control a terminal from text that a model or a server wrote."""

from __future__ import annotations

import re

_ESCAPES = (
    r"\x1b\[[0-?]*[ -/]*[@-~]?"  # a control sequence, such as a colour
    r"|\x1b[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\)?"  # a string, such as a title or a link
    r"|\x1b[ -/]*[0-~]?"  # any other escape
)
_CONTROLS = r"[\x00-\x08\x0b-\x1f\x7f-\x9f]"
_DIRECTIONS = "[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]"
"""Characters that change the direction of the text around them, so that a reader sees another order."""
_UNSAFE = re.compile(f"{_ESCAPES}|{_CONTROLS}|{_DIRECTIONS}")


def printable(text: str) -> str:
    """The text without terminal escapes, control characters and marks of direction. Lines and tabs stay."""
    return _UNSAFE.sub("", text)
