"""Typed errors. Every message is one line that names the field, the value and the fix."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from difflib import get_close_matches
from numbers import Integral, Real

MESSAGE, FIELD, VALUE = 2000, 100, 160
"""Most characters of a message, and of a field's name and a value in it."""


def cut(text: str, most: int) -> str:
    """The text, without its middle if it is long. The end stays, because it tells long paths apart."""
    return text if len(text) <= most else f"{text[: most * 2 // 3 - 1]}…{text[-(most // 3) :]}"


def shown(value: object) -> str:
    """A value of any kind and size, as a message shows it."""
    try:
        return cut(repr(value), VALUE)
    except (ValueError, RecursionError):  # a number of thousands of digits, or lists that are nested too deeply
        return f"({type(value).__name__})"


class ThinktimeError(Exception):
    """Base of every error this package raises on purpose. Line breaks in the message become spaces."""

    repeatable = False
    """Whether a call that failed like this is worth a second try, which is charged too."""
    late = False
    """Whether a call was given up because it took too long."""

    def __init__(self, message: str) -> None:
        super().__init__(cut(" ".join(message.splitlines()), MESSAGE))


class InputError(ThinktimeError):
    """A value from the user that cannot work; nothing has been spent yet."""

    def __init__(self, field: str, value: object, fix: str) -> None:
        field = cut(field, FIELD)
        super().__init__(f"{field}={shown(value)}: {fix}")
        self.field, self.value, self.fix = field, value, fix

    def __reduce__(self) -> tuple[type[InputError], tuple[str, object, str]]:
        return InputError, (self.field, self.value, self.fix)  # another process may raise it


class UnknownNameError(InputError):
    """A name that is not in a list of known ones."""

    def __init__(self, field: str, value: str, known: Iterable[str]) -> None:
        names = sorted(known)
        nearest = get_close_matches(value[:FIELD] if isinstance(value, str) else "", names, n=1)
        hint = f"did you mean {nearest[0]!r}? " if nearest else ""
        super().__init__(field, value, f"unknown; {hint}there are: {', '.join(names)}")


class TooLongError(InputError):
    """A prompt that does not fit the model's context."""


class CapabilityError(ThinktimeError):
    """A strategy needs something its generator or scorer does not have."""


class BusyError(ThinktimeError):
    """Other requests have reserved the rest of a budget, for longer than this one may wait."""


class ModelError(ThinktimeError):
    """A model cannot be loaded, or failed while it ran."""


class BankError(ThinktimeError):
    """The sample bank cannot be opened or written. What was written before is safe."""


class UnreachableBankError(BankError):
    """The database of a bank does not answer. The same call may succeed later."""


def check_number(field: str, value: object, *, whole: bool = False) -> None:
    """Check that a value from Python code is a number: Python's or numpy's, and no text or truth value.

    Raises:
        InputError: it is not, or no float holds it.
    """
    if isinstance(value, bool) or not isinstance(value, Integral if whole else Real):
        raise InputError(field, value, f"give a {'whole ' if whole else ''}number")
    if isinstance(value, int) and abs(value) > sys.float_info.max:
        raise InputError(field, value, "give a smaller number")
