"""Dates, times of the day, and other numbers with signs between them that are no arithmetic."""

from __future__ import annotations

import re
from collections.abc import Hashable

from thinktime.answers.numbers import number

_YEARLY = "january february march april may june july august september october november december"
_MONTHS = _YEARLY.split()
_MONTH = rf"(?P<month>{'|'.join(f'{month[:3]}(?:{month[3:]})?' for month in _MONTHS)}|sept)\.?"
_DAY = r"(?P<day>\d{1,2})(?:st|nd|rd|th)?"
_YEAR = r"(?:\s*,?\s+(?P<year>\d{4}))?"
_NAMED = tuple(
    re.compile(form, re.IGNORECASE)
    for form in (rf"{_MONTH}\s+(?:the\s+)?{_DAY}{_YEAR}", rf"(?:the\s+)?{_DAY}\s+(?:of\s+)?{_MONTH}{_YEAR}")
)
_NUMBERED = re.compile(r"(?:\d{4}[-/.]\d{1,2}[-/.]\d{1,2}|\d{1,2}[-/.]\d{1,2}[-/.]\d{4})")
_HALVES = re.compile(r"(\d{1,2})(?::(\d\d))?\s*([ap])\.?\s?m\.?", re.IGNORECASE)
_CLOCK = re.compile(r"(0|00|1[3-9]|2[0-3]):([0-5]\d)(?::00)?")
"""A time that no clock of twelve hours shows; 7:30 may be in the morning or in the evening."""
_HOUR = re.compile(r"(\d{1,2}) o'clock", re.IGNORECASE)
_NAMES = {"noon": 12, "midday": 12, "12 noon": 12, "midnight": 0, "12 midnight": 0}
_PARTS = re.compile(r"\d+(?:\.\d+)?(?:\s*:\s*\d+(?:\.\d+)?)+")
_CODE = re.compile(r"(?:\(\d{3}\) ?)?\d+(?:-\d+)+")


def is_date(text: str) -> bool:
    """Whether these are a year, a month and a day in numbers."""
    return _NUMBERED.fullmatch(text) is not None


def date(text: str) -> Hashable | None:
    """Year, month and day, with 0 for a year that is not there; of a date in numbers, its numbers in order."""
    if is_date(text):
        return ("date", *map(int, re.split("[-/.]", text)))
    for form in _NAMED:
        if found := form.fullmatch(text):
            month = next(place for place, name in enumerate(_MONTHS, 1) if name[:3] == found["month"][:3].lower())
            return ("date", int(found["year"] or 0), month, int(found["day"]))
    return None


def time(text: str) -> Hashable | None:
    """Hours and minutes of a time whose half of the day is known."""
    if (hour := _NAMES.get(text.lower())) is not None:
        return ("time", hour, 0)
    if match := _CLOCK.fullmatch(text):
        return ("time", int(match[1]), int(match[2]))
    match = _HALVES.fullmatch(text)
    if match is None or not 1 <= int(match[1]) <= 12:
        return None
    return ("time", int(match[1]) % 12 + (12 if match[3] in "Pp" else 0), int(match[2] or 0))


def parts(text: str) -> Hashable | None:
    """The numbers between colons: a ratio, or a time of one half of the day. 9:05 is not 9:5."""
    text = _HOUR.sub(r"\1:00", text)
    if _PARTS.fullmatch(text) is None:
        return None
    first, *others = re.split(r"\s*:\s*", text)
    return ("parts", number(first), *(each if re.match(r"0\d", each) else number(each) for each in others))


def code(text: str) -> Hashable | None:
    """The digits of a telephone number, a range of years, or a similar code; None for a subtraction.

    Codes have no spaces, and three groups or more, two groups of three digits or more, or a group that begins with 0.
    So 3-2 and 100-50 are subtractions.
    """
    if _CODE.fullmatch(text) is None:
        return None
    groups = re.findall(r"\d+", text)
    if len(groups) == 2 and min(map(len, groups)) < 3 and not any(re.match(r"0\d", group) for group in groups):
        return None
    return ("code", *groups)
