r"""The key of an answer in plain notation, by kinds.

The key is the first of these that fits; what fits none is compared as text, in small letters and without layout.

=================== ======================================= =====================================================
kind                examples                                key
=================== ======================================= =====================================================
number              ``1,234``, ``2\frac12``, ``28\%``,      the exact value; units, percent and currency signs go
                    ``5 million``, ``12th``, ``3e8``
choice              ``(A)``, ``A.``, ``(A) Paris``          the letter
time                ``6 am``, ``15:30``, ``noon``           hours and minutes
date                ``2020-01-05``, ``January 5``           year, month and day
parts               ``7:30``, ``1:2:3``                     the numbers, in order
code                ``555-1234``, ``1990-1995``             the digits
base                ``52_8``                                digits and base
matrix              ``\begin{pmatrix}…``                    the rows
cases               ``\begin{cases}…``                      the values with their conditions, in any order
union               ``(0,1) \cup (2,3)``                    the parts, in any order
relation            ``a \le b``, ``k \in \mathbb{Z}``       both sides; a variable set equal to a value is the value
sequence            ``(1,2)``, ``[1,2)``                    brackets and entries, in order
set                 ``\{1,2\}``, ``1, 2``, ``7 or 8``       the entries, in any order
amounts             ``2 hours and 30 minutes``              the entries as text, in any order
alternatives        ``x < 1 or x > 2``, ``John or Mary``    the entries, in any order; values are a set instead
series              ``1, 2, \dots``                         the entries, in order
formula             ``2\sqrt{2}``, ``(x+1)^2``              its values, see `thinktime.answers.expressions`
=================== ======================================= =====================================================
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import accumulate

from thinktime.answers.dates import code, date, is_date, parts, time
from thinktime.answers.expressions import Effort, value_of
from thinktime.answers.notation import NEW_ROW, trimmed
from thinktime.answers.numbers import number
from thinktime.answers.units import without_unit

_DEEPEST = 6
"""Answers inside an answer: entries of sets of sets."""

_APPLIED = "(?:arc)?(?:sin|cos|tan|cot|sec|csc)|ln|log|exp"
_SIGNS = r"[\d\\^_+*/()|!-]"
_FORMULA = re.compile(
    rf".*{_SIGNS}.*|[xyz]{{2,3}}|[abc]{{2}}|pi|(?:[a-z] )*(?:{_APPLIED}) [a-z](?: (?:{_APPLIED}|[a-z]))*|.", re.DOTALL
)
"""A text that may be a formula. Of letters alone, xy and sin x are formulas; most others are words."""
_COMPUTED = re.compile(rf"{_SIGNS}|\b(?:pi|{_APPLIED})\b")
"""A text with a part that takes long if it is a formula."""
_CHOICE = re.compile(r"(?:(?:[Oo]ption|[Cc]hoice|[Aa]nswer:?)\s+)?\(?\s*([A-Za-z])\s*[).:]?")
_OPTION = re.compile(r"\(?([A-J])\)\s[^()]+")
"""An option and its text."""
_BASE = re.compile(r"\(?([0-9][0-9A-Za-z]*|[A-Fa-f][0-9A-Fa-f]+)\)?\s*_\s*(?:\{\s*(\d+)\s*\}|(\d+))")
_VARIABLE = re.compile(r"(?:\\[A-Za-z]+|[A-Za-z])(?:_(?:\w|\{\w+\}))?(?:\([A-Za-z]\))?'*")
_MATRIX = re.compile(r"\\begin\{([pbvV]?matrix|array)\}(?:\{[^}]*\})?(.*)\\end\{\1\}", re.DOTALL)
_ROWS = re.compile(
    r"(?:[A-Za-z](?:\([A-Za-z]\))?\s*=\s*)?\\begin\{(cases|aligned|gathered)\}(.*)\\end\{\1\}", re.DOTALL
)
_RELATIONS = {"=": "=", "==": "=", "<": "<", ">": ">", "!=": "≠", "<=": "≤", ">=": "≥"}
_RELATIONS |= {r"\ne": "≠", r"\le": "≤", r"\ge": "≥"}
_RELATIONS |= {r"\lt": "<", r"\gt": ">", r"\in": "∈", r"\notin": "∉", r"\subset": "⊂", r"\equiv": "≡", r"\mid": "|"}
_RELATIONS |= {r"\to": "→", r"\rightarrow": "→", r"\approx": "≈", r"\sim": "~"}
_RELATION = re.compile(
    r"\\(?:ne|le|ge|lt|gt|in|notin|subset|equiv|mid|to|rightarrow|approx|sim)(?![A-Za-z])|[<>!=]=|[=<>]"
)
_VALUES = frozenset({"number", "formula", "steps", "sequence", "matrix", "time", "date", "parts", "base"})
"""Kinds of keys of values; the others are statements and names."""
_FLIPPED = {"≥": "≤", ">": "<"}
_ABOUT = re.compile(
    r"^(?:about|approximately|approx\.?|around|roughly|exactly|precisely|just|only|~|\\approx|\\sim)\s*(?=[\d.$\\-])",
    re.IGNORECASE,
)
_JOINED = re.compile(r"\s(?:or|and|&)\s|[;,]\s*(?:(?:or|and|&)\s)?")
_AMOUNT = re.compile(r"[\d.,/ ]*\d\s*(?:st|nd|rd|th)?\s+([A-Za-z][A-Za-z ]*)")
"""A number and what it counts."""
_OR = re.compile(r"[;,]?\sor\s")
_AND = re.compile(r"\s(?:and|&)\s")
_UNION = re.compile(r"\\cup(?![A-Za-z])")
_PLUS_MINUS = re.compile(r"\\pm(?![A-Za-z])|\+/-")
_EMPTY = re.compile(r"\\(?:emptyset|varnothing)|(?:the )?empty set", re.IGNORECASE)
_OPENS, _CLOSES = "([{", ")]}"
_INFINITE = re.compile(r"([-+]?)\s*(?:inf(?:inity)?|\\infty)", re.IGNORECASE)


@dataclass(frozen=True)
class _At:
    """How deep inside an answer a part is, and the work that is left for all its parts."""

    work: Effort
    depth: int = 0

    def inside(self) -> _At:
        return _At(self.work, self.depth + 1)


def quick_key(text: str) -> str | None:
    """The key of an answer that is no formula; None if it may be one."""
    value = None if is_date(text) else number(_ABOUT.sub("", trimmed(text)))
    if value is not None:
        return _spelled(value)
    return None if _COMPUTED.search(text) else key_of(text)


def key_of(text: str) -> str:
    """The key of an answer in plain notation.

    Raises:
        TooMuchError: it takes too long to compute.
        UndefinedError: it has no value.
    """
    return _spelled(_key(text, _At(Effort())))


def _spelled(key: Hashable) -> str:
    """The key as a text; different keys have different texts."""
    if isinstance(key, tuple):
        return f"({','.join(map(_spelled, key))})"
    if isinstance(key, frozenset):
        return f"{{{','.join(sorted(map(_spelled, key)))}}}"
    return json.dumps(key) if isinstance(key, str) else str(key)


def _key(text: str, at: _At) -> Hashable:
    text = trimmed(text)
    if at.depth > _DEEPEST:
        return _words(text)
    text = _ABOUT.sub("", text)
    for kind in _KINDS:
        found = kind(text, at)
        if found is not None:
            return found
    return _words(text)


def _words(text: str) -> Hashable:
    """The text without layout, in small letters."""
    text = re.sub(r"(?<=\w\w)[.!?]+$", "", text)  # x! is no exclamation
    return " ".join(re.sub(r"[\\{}\"]", " ", text).split()).casefold()


def _bag(keys: Iterable[Hashable]) -> frozenset[tuple[Hashable, int]]:
    """The keys in any order, with the count of each."""
    return frozenset(Counter(keys).items())


def _set(keys: Iterable[Hashable]) -> Hashable:
    return ("set", _bag(set(keys)))


def _plus_minus(text: str, at: _At) -> Hashable | None:
    """Both values of a formula with one sign for plus or minus."""
    if len(_PLUS_MINUS.findall(text)) != 1:
        return None
    return _set(_key(_PLUS_MINUS.sub(sign, text), at.inside()) for sign in "+-")


def _empty(text: str, at: _At) -> Hashable | None:
    return _set(()) if _EMPTY.fullmatch(text) else None


def _choice(text: str, at: _At) -> Hashable | None:
    match = _CHOICE.fullmatch(text) or _OPTION.fullmatch(text)
    return match[1].casefold() if match else None


def _infinite(text: str, at: _At) -> Hashable | None:
    match = _INFINITE.fullmatch(text)
    return None if match is None else "-infinity" if match[1] == "-" else "infinity"


def _written(text: str, at: _At) -> Hashable | None:
    """A time, a date, numbers between colons, or a code."""
    return next((found for kind in (time, date, parts, code) if (found := kind(text)) is not None), None)


def _base(text: str, at: _At) -> Hashable | None:
    match = _BASE.fullmatch(text)
    return ("base", match[1].casefold(), int(match[2] or match[3])) if match else None


def _relation(text: str, at: _At) -> Hashable | None:
    places = list(_outside(text, _RELATION))
    if not places or len(_split(text, _JOINED)) > 1:
        return None
    ends = [0, *(found.end() for found in places)]
    starts = [*(found.start() for found in places), len(text)]
    sides = [text[end:start].strip() for end, start in zip(ends, starts, strict=True)]
    signs = [_RELATIONS[found[0]] for found in places]
    if signs == ["="] and all(re.fullmatch("[A-Za-df-hj-z]", side) for side in sides):
        return _related(sides[0], "=", sides[1])  # a = b is no value of a; pi, e and i are values
    if signs[0] in "=≈" and (not sides[0] or _is_name(sides[0])) and len(set(signs)) == 1:
        return _key(sides[-1], at.inside())  # x = 5, = 5, (a, b) = (1, 2), x = 2 + 3 = 5
    if len(signs) == 1 and signs[0] == "=" and _is_name(sides[1]):
        return _key(sides[0], at.inside())  # 5 = x
    keys = [_key(side, at.inside()) for side in sides]
    if set(signs) == {"="} and len(set(keys)) == 1 and isinstance(keys[0], Fraction):
        return keys[0]  # 2 + 3 = 5
    related = [_related(a, sign, b) for a, sign, b in zip(keys, signs, keys[1:], strict=False)]
    return related[0] if len(related) == 1 else ("set", _bag(related))  # 1 < x < 2 is 1 < x and x < 2


def _related(a: Hashable, sign: str, b: Hashable) -> Hashable:
    if sign in "=≠≈":
        return ("relation", sign, frozenset((a, b)))
    if sign in _FLIPPED:
        a, sign, b = b, _FLIPPED[sign], a
    return ("relation", sign, a, b)


def _is_name(text: str) -> bool:
    """Whether this is a variable, a function of one, or several variables in brackets."""
    inside = text[1:-1] if text[:1] == "(" and text[-1:] == ")" else text
    return all(_VARIABLE.fullmatch(part.strip()) for part in inside.split(","))


def _sequence(text: str, at: _At) -> Hashable | None:
    text = text.replace(r"\{", "{").replace(r"\}", "}") if text[:2] == r"\{" else text
    if len(text) < 2 or text[0] not in _OPENS or text[-1] not in _CLOSES or not _is_enclosed(text):
        return None
    entries = _split(text[1:-1], re.compile(r"\s*[,;]\s*"))
    if text[0] == "{":
        return _set(_key(entry, at.inside()) for entry in entries if entry)
    if len(entries) == 1:
        return _key(entries[0], at.inside()) if text[0] == "(" and text[-1] == ")" else None
    return ("sequence", text[0], text[-1], *(_key(entry, at.inside()) for entry in entries))


def _union(text: str, at: _At) -> Hashable | None:
    parts = _split(text, _UNION)
    return ("union", frozenset(_key(part, at.inside()) for part in parts)) if len(parts) > 1 else None


def _list(text: str, at: _At) -> Hashable | None:
    r"""Entries that are joined by commas and words.

    Values are the same set whatever joins them, as 3 or 4 are the solutions 3 and 4. Between statements and names *or*
    differs from *and*, and binds less.
    """
    if _JOINED.search(text) is None:
        return None
    text = re.sub(r"^(?:either|both)\s+", "", text)
    either = len(_split(text, _OR)) > 1
    entries = _split(text, _OR if either and len(_split(text, _AND)) > 1 else _JOINED)
    if len(entries) < 2 or not all(entries):
        return None
    if "…" in text:
        entries = [part for entry in entries for part in re.split("(…)$", entry) if part]
        return ("series", *(_key(entry, at.inside()) for entry in entries))
    amounts = [found[1] for entry in entries if (found := _AMOUNT.fullmatch(entry))]
    if len(set(amounts)) > 1:  # 2 hours and 30 minutes, 3 boys and 2 girls
        return ("amounts", _bag(map(_words, entries)))
    pairs = [entry.partition("=") for entry in entries]
    names = {name.strip() for name, sign, _ in pairs if sign}
    if len(names) == 1 and all(_is_name(name) for name in names):  # x = 1 or x = 2, and x = 1, 2
        return _set(_key(value if sign else name, at.inside()) for name, sign, value in pairs)
    keys = [_part(entry, at.inside()) for entry in entries]
    return ("set" if not either or all(map(_is_value, keys)) else "alternatives", _bag(keys))


def _is_value(key: Hashable) -> bool:
    return isinstance(key, Fraction) or (isinstance(key, tuple) and key[0] in _VALUES)


def _part(text: str, at: _At) -> Hashable:
    """An entry of a list; which variable has a value matters there."""
    name, sign, value = text.partition("=")
    if sign and _is_name(name.strip()):
        return ("assigned", name.strip(), _key(value, at))
    return _key(text, at)


def _matrix(text: str, at: _At) -> Hashable | None:
    match = _MATRIX.fullmatch(text)
    if match is None:
        return None
    rows = [row for row in match[2].split(NEW_ROW) if row.strip()]
    kind = "determinant" if match[1] in ("vmatrix", "Vmatrix") else "matrix"
    return (kind, *(tuple(_key(entry, at.inside()) for entry in row.split("&")) for row in rows))


def _rows(text: str, at: _At) -> Hashable | None:
    """Several statements, as a list; or a function by cases, each a value and its condition."""
    match = _ROWS.fullmatch(text)
    if match is None:
        return None
    rows = [row.strip(" ,") for row in match[2].split(NEW_ROW) if row.strip(" ,")]
    if match[1] == "cases" and any("&" in row for row in rows):
        return ("cases", _bag(tuple(_key(entry, at.inside()) for entry in row.split("&")) for row in rows))
    return _key(", ".join(rows).replace("&", ""), at.inside())


def _formula(text: str, at: _At) -> Hashable | None:
    return value_of(without_unit(text), at.work) if _FORMULA.fullmatch(text) else None


def _number(text: str, at: _At) -> Hashable | None:
    return None if is_date(text) else number(text)


_KINDS: tuple[Callable[[str, _At], Hashable | None], ...] = (
    *(_number, _choice, _empty, _infinite, _written, _base, _matrix, _rows, _union, _plus_minus),
    *(_relation, _sequence, _list, _formula),
)


def _level(text: str) -> int:
    """How many brackets a text opens and does not close."""
    return sum(map(text.count, _OPENS)) - sum(map(text.count, _CLOSES))


def _outside(text: str, pattern: re.Pattern[str]) -> Iterator[re.Match[str]]:
    """The matches that are in no bracket."""
    level = place = 0
    for found in pattern.finditer(text):
        level += _level(text[place : found.start()])
        place = found.start()
        if level == 0:
            yield found


def _split(text: str, separator: re.Pattern[str]) -> list[str]:
    """The parts between separators that are in no bracket."""
    parts, start = [], 0
    for found in _outside(text, separator):
        parts.append(text[start : found.start()].strip())
        start = found.end()
    return [*parts, text[start:].strip()]


def _is_enclosed(text: str) -> bool:
    """Whether the first bracket closes at the end."""
    return all(level > 0 for level in accumulate(map(_level, text[:-1])))
