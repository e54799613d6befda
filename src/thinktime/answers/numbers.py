"""Plain numbers in the ways that people write them, as exact fractions."""

from __future__ import annotations

import re
from fractions import Fraction

from thinktime.answers.units import NOT_UNITS, SHORT_UNITS, is_long_unit

LARGEST_EXPONENT = 4000
"""A larger power of ten is compared as text."""
LARGEST_BITS = 14_000
"""Of a numerator or denominator, some 4,200 digits; Python writes at most 4,300. Other numbers are compared as text."""

_THOUSANDS = r"\d{1,3}(?:,\d{3})+|\d{1,3}(?: \d{3})+|\d{1,3}(?:'\d{3})+"
_DECIMAL = rf"(?:{_THOUSANDS}|\d+)(?:\.\d*)?|\.\d+"
_POINTS = r"\d{1,3}(?:\.\d{3}){2,}"
_REPEATING = r"(?P<whole>\d*)\.(?P<once>\d*)(?:\\(?:overline|bar|dot)\{(?P<line>\d+)\}|\((?P<bracket>\d+)\))"
_BRACED = r"(?:\{ *(-?\d+) *\}|(\d))"
_POWER_OF_TEN = r"(?:e([+-]?\d+)|(?:\s*(?:\\times|\\cdot|[*x])\s*)10\s*\^\s*(?:\{\s*([+-]?\d+)\s*\}|([+-]?\d+)))"
_SCALES = {"hundred": 100, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12, "dozen": 12}
_PARTS = {"half": 2, "halves": 2, "third": 3, "quarter": 4, "fourth": 4, "fifth": 5, "sixth": 6, "eighth": 8}
_PARTS |= {"tenth": 10, "hundredth": 100}
_ONES = """
    zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen
    eighteen nineteen
"""
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety"
_WORDS = {word: value for value, word in enumerate(_ONES.split())}
_WORDS |= {word: 10 * value for value, word in enumerate(_TENS.split(), 2)}

_SPELT = re.compile(
    rf"(?:{'|'.join([*_WORDS, 'hundred'])})\b(?:[\s-]+(?:and\s+)?(?:{'|'.join([*_WORDS, *_SCALES])})\b)*"
)
_ARTICLE = re.compile(rf"^an?\s+(?={'|'.join([*_SCALES, *_PARTS])})")
_HALF_OF = re.compile(rf"(?:a\s+)?half\s+(?:of\s+)?an?\s+({'|'.join(_SCALES)})")
_AND_PART = re.compile(rf"\s+and\s+(?:(an?|{'|'.join(_WORDS)})\s+)({'|'.join(_PARTS)})s?$")
_TRAILING = re.compile(r"(\d*)\.(\d{0,20}?)(?:(\d)\3\3+|(\d{2,12}?)\4+)…")
"""0.1666… and 0.1212…: the digits at the end repeat."""

_ORDINALS = re.compile(rf"(?:{'|'.join([*_WORDS, *_SCALES, 'eigh', 'nin', 'twelf', 'twentie', 'thirtie'])})ths?")
_MINUS = re.compile(r"^(?:minus|negative)\s+(?=[a-z\d.$])", re.IGNORECASE)
_SIGN = re.compile(r"^([-+]?)\s*")
_PREFIX = re.compile(r"^(?:US|USD|EUR|GBP|Rs\.?|[€£¥₹#]|[Nn]o\.|№)\s*(?=[\d.\\-])")
_NUMBER = re.compile(rf"(?P<number>{_POINTS}|{_DECIMAL})(?P<ten>{_POWER_OF_TEN})?", re.IGNORECASE)
_TEN = re.compile(r"10\s*\^\s*(?:\{\s*([+-]?\d+)\s*\}|([+-]?\d+))")
_MIXED = re.compile(r"(\d+)\s+(\d+)\s*/\s*(\d+)")
_MIXED_FRAC = re.compile(rf"(\d+)?\s*\\frac\s*{_BRACED}\s*{_BRACED}")
_RATIO = re.compile(rf"({_DECIMAL})\s*/\s*({_DECIMAL})")
_BASE = re.compile(r"0[xX][0-9a-fA-F]+|0[bB][01]+|0[oO][0-7]+")
_ORDINAL = re.compile(r"(\d+)(?:\s*\^\s*\{?\s*)?(?:st|nd|rd|th)(?![A-Za-z])\s*\}?", re.IGNORECASE)
_REPEATS = re.compile(_REPEATING)
_UNIT = re.compile(
    r"""(?ix) \s* (?: %|percent(?:age\s+points)?|per\s+cent | \^\s*\{?\s*\\circ\s*\}? \s* [CFK]? | [€£¥₹¢]
    | (?P<words> [a-zμΩ]+ (?:[\s/·.-]+[a-z]+)* \.? ) (?: \s*\^\s*\{?\s*-?\d\s*\}? )?
      (?: / [a-z]+ (?:\^\{?\d\}?)? )? )"""
)


def number(text: str) -> Fraction | None:
    """The value of a number in plain notation, without its unit, percent sign or currency; None if it is no number."""
    if len(text) > 400 or not text:
        return None
    sign = _SIGN.match(text := _MINUS.sub("-", text))
    assert sign is not None
    rest = _PREFIX.sub("", text[sign.end() :])
    if rest[:1] in ("-", "+") and not sign[1]:
        sign, rest = _SIGN.match(rest) or sign, rest[1:].lstrip()
    value = _unsigned(rest)
    if value is None or max(value.numerator.bit_length(), value.denominator.bit_length()) > LARGEST_BITS:
        return None
    return -value if sign[1] == "-" else value


def _unsigned(text: str) -> Fraction | None:
    if text.isascii() and text.isdigit():
        return Fraction(int(text))
    if _BASE.fullmatch(text):
        return Fraction(int(text, 0))
    if re.fullmatch("[0-9]+…", text):
        return Fraction(int(text[:-1]))
    if match := _TRAILING.fullmatch(text):
        return _repeating(match[1], match[2], match[3] or match[4])
    found = _longest(text)
    if found is not None:
        value, end = found
        return _with_unit(value, text[end:])
    return _in_words(text)


def _longest(text: str) -> tuple[Fraction, int] | None:
    """The number at the beginning of a text, and where it ends."""
    if match := _ORDINAL.match(text):
        return Fraction(int(match[1])), match.end()
    if match := _MIXED.match(text):
        return (int(match[1]) + Fraction(int(match[2]), int(match[3])), match.end()) if int(match[3]) else None
    if match := _MIXED_FRAC.match(text):
        whole, above, below = match[1] or "0", match[2] or match[3], match[4] or match[5]
        return (int(whole) + Fraction(int(above), int(below)), match.end()) if int(below) else None
    if match := _REPEATS.match(text):
        return _repeating(match["whole"], match["once"], match["line"] or match["bracket"]), match.end()
    if match := _RATIO.match(text):
        above, below = _decimal(match[1]), _decimal(match[2])
        return (above / below, match.end()) if below else None
    if match := _TEN.match(text):
        return _times_ten(Fraction(1), match[1] or match[2], match.end())
    if match := _NUMBER.match(text):
        value = _decimal(match["number"])
        exponent = next((each for each in match.groups()[2:5] if each), None)
        return (value, match.end()) if exponent is None else _times_ten(value, exponent, match.end())
    return None


def _repeating(whole: str, once: str, again: str) -> Fraction:
    """The decimal whose last digits repeat."""
    return Fraction(f"{whole or 0}.{once or 0}") + Fraction(int(again), 10 ** len(once) * (10 ** len(again) - 1))


def _times_ten(value: Fraction, exponent: str, end: int) -> tuple[Fraction, int] | None:
    return (value * Fraction(10) ** int(exponent), end) if abs(int(exponent)) <= LARGEST_EXPONENT else None


def _decimal(text: str) -> Fraction:
    text = re.sub(r"[ ,']", "", text)
    return Fraction(text.replace(".", "") if text.count(".") > 1 else text)


def _with_unit(value: Fraction, rest: str) -> Fraction | None:
    """The value times a scale such as *million*; None if the rest is neither a scale nor a unit."""
    words = rest.split(maxsplit=1)
    if rest[:1] in (" ", "-") and words:
        first = words[0].lower().strip("-").rstrip(".")
        scale = _SCALES.get(first) or _SCALES.get(first.removesuffix("s"))
        if scale is not None:
            return _with_unit(value * scale, f" {words[1]}" if len(words) > 1 else "")
        part = _PARTS.get(first) or _PARTS.get(first.removesuffix("s"))
        if part is not None and len(words) == 1:
            return value / part
    if not rest.strip() or rest == " times":
        return value
    if (extra := _AND_PART.fullmatch(rest)) and value.denominator == 1:  # 2 and a half
        return value + _part(extra)
    match = _UNIT.fullmatch(rest)
    if match is None:
        return None
    if match["words"]:
        units = re.findall("[A-Za-zμΩ]+", match["words"])
        if any(unit.lower() in NOT_UNITS or unit.lower() in _SCALES or unit.lower() in _WORDS for unit in units):
            return None
        if any(_ORDINALS.fullmatch(unit.lower()) for unit in units):
            return None
        if units[0] == "a" and not any(len(unit) > 2 for unit in units):
            return None  # 10 a.m. is a time, and 5 a day a number
        if any(len(unit) < 3 and unit not in SHORT_UNITS for unit in units if unit != "a"):
            return None
        if rest[:1].isalpha() and (len(units) > 1 or len(units[0]) < 2 or units[0] not in SHORT_UNITS):
            return None  # 5cm is a length; 4s may be a product; 5apples and 2abc are not understood
    return value


def _part(found: re.Match[str]) -> Fraction:
    return Fraction(_WORDS.get(found[1], 1), _PARTS[found[2]])


def _in_words(text: str) -> Fraction | None:
    """``seventy-two``, ``three hundred and five``, ``a dozen``, ``half a million`` and ``two and a half``."""
    text = _ARTICLE.sub("one ", text.lower())
    if (extra := _AND_PART.search(text)) and (whole := _in_words(text[: extra.start()])) is not None:
        return whole + _part(extra)
    if half := _HALF_OF.fullmatch(text):
        return Fraction(_SCALES[half[1]], 2)
    if text == "half":
        return Fraction(1, 2)
    spelt = _SPELT.match(text)
    if spelt is None:
        return None
    words = [word for word in re.split(r"[\s-]+", spelt[0]) if word != "and"]
    total, group = 0, None
    for word in words:
        if word in _WORDS:
            if group is not None and (
                group % 100 and not (group % 10 == 0 and group % 100 >= 20 and _WORDS[word] < 10)
            ):
                return None
            group = (group or 0) + _WORDS[word]
        elif word == "hundred":
            group = (1 if group is None else group) * 100
        else:
            total, group = total + (1 if group is None else group) * _SCALES[word], None
    value, rest = Fraction(total + (group or 0)), text[spelt.end() :].strip().lstrip("-")
    part = _PARTS.get(rest) or _PARTS.get(rest.removesuffix("s"))
    if part is not None:
        return value / part  # two thirds
    return value if rest in ("", "%") or all(map(is_long_unit, rest.split())) else None
