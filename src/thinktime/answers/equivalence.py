"""When two answers are the same: each has a key, and equal keys mean equivalent answers.

So equivalence is symmetric and transitive, and a vote needs one pass. `thinktime.answers.kinds` has the keys. Here they
are computed within limits and remembered.
"""

from __future__ import annotations

from collections.abc import Hashable
from functools import lru_cache
from pathlib import Path

from thinktime.answers.kinds import quick_key
from thinktime.answers.notation import LONGEST, plain
from thinktime.bounded import BoundedProcess

REMEMBERED = 2000
"""Characters; the keys of longer answers are computed again."""
KEYS = 16_384
"""Keys that are remembered: as many as the samples that the gateway runs at once."""

_PROCESS = BoundedProcess(Path(__file__).with_name("process.py"))


class Undecided(str):
    """The key of an answer that takes too long to compute, or is too long: its text, so it equals that text alone."""


class Unlike:
    """The key of an answer that is equivalent to none, not even to itself written again. Each call makes a new one."""


def canonical(answer: str) -> Hashable:
    r"""The key of an answer: ``canonical("0.50") == canonical("1/2") == canonical(r"\frac12")``.

    Formulas are computed in a process with limits, 50 milliseconds of processor time each. An empty answer, and one
    without a value such as ``1/0``, has a key that equals no other.
    """
    found = _known(answer) if len(answer) <= REMEMBERED else _known.__wrapped__(answer)
    return Unlike() if found is None else found


def is_quick(answer: str) -> bool:
    """Whether the key of an answer needs no process: numbers, choices, plain words, and answers that are too long."""
    return len(answer) > LONGEST or _quick(plain(answer)) is not None


@lru_cache(maxsize=KEYS)
def _known(answer: str) -> str | None:
    if len(answer) > LONGEST:
        return Undecided(answer)
    text = plain(answer)
    if not text:
        return None
    if (quick := _quick(text)) is not None:
        return quick
    found = _PROCESS.ask({"text": text})
    if found is None or "undecided" in found:
        return Undecided(text)
    return found.get("key")


_quick = lru_cache(maxsize=4096)(quick_key)


def equivalent(a: str | None, b: str | None) -> bool:
    """Whether two answers are equivalent; a missing answer is equivalent to no answer, not even a missing one."""
    return bool(a and b) and canonical(str(a)) == canonical(str(b))
