"""Odd inputs for property tests: mutated bytes, JSON documents with odd values, and a limit on processor time."""

from __future__ import annotations

import copy
import json
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from hypothesis import strategies as st

SECONDS = 1.0
"""Most processor time of one example."""
HANGS = 5.0
"""Processor time after which an example is interrupted."""
PIECES = (
    *(
        b"",
        b"\x00",
        b"\xff",
        b"\xef\xbb\xbf",
        b"\xed\xa0\xbd",
        b"\x1b[2J",
        b"\r",
        b"\n",
        b"\n\n",
        b" ",
        b"\t",
        b"'",
        b'"',
    ),
    *(
        b"null",
        b"true",
        b"NaN",
        b"-Infinity",
        b"1e400",
        b"-0",
        b"0.0",
        b"9" * 5000,
        b"1" + b"0" * 400,
        b"-1",
        b"10" * 9,
    ),
    *(
        b"{",
        b"}",
        b"[",
        b"]",
        b"(",
        b")",
        b"[" * 3000,
        b"{" * 200,
        b"(" * 200,
        b'{"a":' * 2000,
        b"\\",
        b"\\ud83d",
        b"/",
    ),
    *(b",", b":", b"=", b"@", b"%", b"#", b"$", b"*", b"-", b"^", b"_", b"{{", b"}}", b"{%", b"%}", b"../", b"~", b"`"),
)
"""Bytes that parsers stumble over."""
VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2, 7, 10**6, 2**31, 2**63, 10**30, 0.5, -0.5, 1e308, 1e-308),
    *("", " ", "7", "text", "true", "None", "é", "\x00", "\ud83d", "\x1b[31m", "9" * 5000, "{" * 50, "a" * 10_000),
    *([], {}, [None], [[]], [1, 2], ["a"], [{}], {"a": 1}, {"text": "7"}, {"": {}}, [{"type": "text", "text": "7"}]),
)
"""Values that no documentation mentions. A document gets them in any place."""


def _deep(levels: int = 500) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


ODD = st.sampled_from([*VALUES, _deep(), {"a": _deep(60)}])


@st.composite
def mutated(draw: st.DrawFn, seeds: Sequence[bytes]) -> bytes:
    """One of the seeds after up to four changes: a piece is put in, cut out, repeated or flipped, or comes from another
    seed.
    """
    data = draw(st.sampled_from(seeds))
    for _ in range(draw(st.integers(0, 4))):
        start = draw(st.integers(0, len(data)))
        end = start + draw(st.integers(0, 8) | st.integers(0, max(0, len(data) - start)))
        how = draw(st.sampled_from(["put in", "cut out", "repeat", "flip", "splice"]))
        if how == "put in":
            piece = draw(st.sampled_from(PIECES) | st.binary(max_size=4))
        elif how == "cut out":
            piece = b""
        elif how == "repeat":
            piece = data[start:end] * draw(st.integers(2, 3))
        elif how == "flip":
            piece = bytes(byte ^ 1 << draw(st.integers(0, 7)) for byte in data[start : start + 1])
            end = start + 1
        else:
            other = draw(st.sampled_from(seeds))
            place = draw(st.integers(0, len(other)))
            piece = other[place : place + draw(st.integers(0, len(other)))]
        data = data[:start] + piece + data[end if how != "put in" else start :]
    return data


@st.composite
def grafted(draw: st.DrawFn, documents: Sequence[Any], most: int = 3, odd: st.SearchStrategy[Any] = ODD) -> Any:
    """One of the JSON documents after up to ``most`` changes of its values: odd ones, missing ones and moved ones."""
    document = copy.deepcopy(draw(st.sampled_from(documents)))
    for _ in range(draw(st.integers(0, most))):
        places = list(_places(document))
        if not places:
            break
        inside, key = draw(st.sampled_from(places))
        how = draw(st.sampled_from(["odd", "odd", "missing", "moved"]))
        if how == "missing":
            del inside[key]
        elif how == "moved":
            other, name = draw(st.sampled_from(places))
            inside[key] = copy.deepcopy(other[name])
        else:
            inside[key] = copy.deepcopy(draw(odd))  # a later change must not reach the list of odd values
    return document


def _places(document: Any) -> Iterator[tuple[Any, Any]]:
    """Every container with each of its keys; a list of thousands counts with its first eight."""
    waiting = [document]
    while waiting:
        inside = waiting.pop()
        keys = list(inside)[:50] if isinstance(inside, dict) else range(min(8, len(inside)))
        for key in keys:
            yield inside, key
            if isinstance(inside[key], dict | list):
                waiting.append(inside[key])


def as_bytes(document: Any) -> bytes:
    """A document as JSON. Half of a surrogate pair is escaped."""
    return json.dumps(document).encode()


class HangError(BaseException):
    """An example takes too much processor time. No ``except Exception`` catches it."""


@contextmanager
def bounded(seconds: float = SECONDS) -> Iterator[None]:
    """Fail if the block takes more processor time of this process; other load does not count.

    Raises:
        HangError: the block had to be interrupted.
        AssertionError: it ended, but too late.
    """

    def interrupt(*_: object) -> None:
        raise HangError(f"more than {HANGS:g} s of processor time")

    before = signal.signal(signal.SIGPROF, interrupt)
    signal.setitimer(signal.ITIMER_PROF, HANGS)
    began = time.process_time()
    try:
        yield
    finally:
        took = time.process_time() - began
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)
    assert took <= seconds, f"{took:.2f} s of processor time"
