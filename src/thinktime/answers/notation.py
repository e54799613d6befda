"""One plain notation for answers, without LaTeX layout, Markdown, and signs that look alike."""
# ruff: noqa: RUF001  (the signs that look alike)

from __future__ import annotations

import re
import unicodedata

LONGEST = 2000
"""Characters of an answer that are looked at; a longer one is compared as text."""

NEW_ROW = "\x01"
"""Stands for the double backslash that ends a row of a matrix. It is no white space."""

_SMALL_GREEK = "alpha beta gamma delta epsilon zeta eta theta kappa lambda nu xi rho sigma tau phi chi psi omega"
_LARGE_GREEK = "Gamma Delta Theta Lambda Xi Sigma Phi Psi"
_SIGNS = {
    **dict.fromkeys("\u2212\u2013\u2014\u2010\u2011", "-"),
    **dict.fromkeys("\u00a0\u2009\u200a\u202f\u2002\u2003\u3000", " "),
    **dict.fromkeys("\u200b\u200c\u200d\ufeff\u2060", ""),
    **{"×": r"\times ", "·": r"\cdot ", "⋅": r"\cdot ", "÷": "/", "∕": "/", "⁄": "/", "∗": "*"},
    **{"π": r"\pi ", "∞": r"\infty ", "√": r"\sqrt ", "∛": r"\sqrt[3] ", "∜": r"\sqrt[4] ", "±": r"\pm "},
    **{"°": r"^\circ ", "℃": r"^\circ C", "℉": r"^\circ F", "∅": r"\emptyset "},
    **{"≤": r"\le ", "≥": r"\ge ", "≠": r"\ne ", "≈": r"\approx ", "∈": r"\in ", "∪": r"\cup ", "∩": r"\cap "},
    **{"ℤ": r"\mathbb{Z}", "ℝ": r"\mathbb{R}", "ℕ": r"\mathbb{N}", "ℚ": r"\mathbb{Q}", "ℂ": r"\mathbb{C}"},
    **{sign: f"\\{name} " for sign, name in zip("αβγδεζηθκλνξρστφχψω", _SMALL_GREEK.split(), strict=True)},
    **{sign: f"\\{name} " for sign, name in zip("ΓΔΘΛΞΣΦΨ", _LARGE_GREEK.split(), strict=True)},
    **dict.fromkeys("“”„«»", '"'),
    **dict.fromkeys("\u2018\u2019", "'"),
}
_RAISED = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺ⁿ", "0123456789-+n")
_RAISED_RUN = re.compile("[⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺ⁿ]+")
_SMALL = re.compile("[⁰¹²³⁴-⁹]+⁄[₀-₉]+")
"""A fraction of small digits."""
_ROOT = re.compile(r"([√∛∜])\s?(\d+(?:\.\d+)?)")
"""The root of a whole number, of which LaTeX takes the first digit only."""
_RANGE = re.compile(r"(?<![\d–.])(\d+(?:\.\d+)?)–(?=\d+(?:\.\d+)?(?![\d–]))")
"""Numbers with a dash between them, which is longer than a minus sign."""
_DOTS = re.compile(r"\.{3,}|\\[lcdv]?dots[bcimo]?(?![A-Za-z])\s*")
_VULGAR = re.compile(r"(\d?)\s*([\u00bc-\u00be\u2150-\u215e])")
_SPACING = re.compile(
    r"(?<!^)~|~(?![A-Za-z])"
    r"|\\!\s*|\\(?:[,;:> ]|(?:quad|qquad|displaystyle|textstyle|limits|left\.?|right\.?|[bB]igg?[lr]?)(?![A-Za-z]))"
)
_DELIMITERS = re.compile(r"\\[()\[\]]|\$\$?")
_FONTS = re.compile(
    r"\\(?:text(?:bf|it|rm|tt|sf|normal)?|math(?:rm|bf|it|sf|tt|normal)|mbox|hbox|boxed|fbox|operatorname\*?|emph|underline)\s*(?=\{)"
)
_BOLD = re.compile(r"(?<![\w)*])(\*{1,3}|__)(?=[^\s*])([^*]+?)(?<=\S)\1(?![\w(*])")
_PLAIN = re.compile(r"(?!.*\.\.\.)[A-Za-z0-9 .,:;+\-/()=%!?']*")
"""Texts of these characters have no layout. Most answers are such texts, and the other rules take ten times as long."""
_SYNONYMS = (
    (re.compile(r"\\[dtc]frac(?![A-Za-z])"), r"\\frac"),
    (re.compile(r"\\leq(?:slant)?(?![A-Za-z])"), r"\\le"),
    (re.compile(r"\\geq(?:slant)?(?![A-Za-z])"), r"\\ge"),
    (re.compile(r"\\neq(?![A-Za-z])"), r"\\ne"),
    (re.compile(r"\\lbrace(?![A-Za-z])"), r"\\{"),
    (re.compile(r"\\rbrace(?![A-Za-z])"), r"\\}"),
    (re.compile(r"\\(?:degree|degrees)(?![A-Za-z])"), r"^\\circ"),
    (re.compile(r"\\langle(?![A-Za-z])"), "("),
    (re.compile(r"\\rangle(?![A-Za-z])"), ")"),
    (re.compile(r"\{,\}"), ","),
    (re.compile(r"\\([%$#&_])"), r"\1"),
)


def plain(answer: str) -> str:
    """The answer in plain notation, without what only lays it out. It may be empty."""
    if len(answer) <= LONGEST and _PLAIN.fullmatch(answer):
        return trimmed(answer)
    return _rewritten(answer)


def _rewritten(answer: str) -> str:
    text = answer[: LONGEST + 1].replace(r"\\", f" {NEW_ROW} ")
    text = _ROOT.sub(lambda root: f"{_SIGNS[root[1]].strip()}{{{root[2]}}}", text)
    text = _RANGE.sub(r"\1 to ", text)
    text = _SMALL.sub(lambda found: unicodedata.normalize("NFKC", f" {found[0]}"), text)
    text = _RAISED_RUN.sub(lambda run: f"^{{{run[0].translate(_RAISED)}}}", text)
    text = _VULGAR.sub(_fraction, text)
    text = unicodedata.normalize("NFKC", "".join(_SIGNS.get(sign, sign) for sign in text))
    if len(text) > 2 * LONGEST:  # one sign may stand for 18
        return trimmed(answer[: LONGEST + 1])
    text = _DOTS.sub("…", text)
    for pattern, by in _SYNONYMS:
        text = pattern.sub(by, text)
    text = _SPACING.sub(lambda found: "" if found[0][:2] == r"\!" or found[0][1:2].isalpha() else " ", text)
    text = _DELIMITERS.sub("", text)
    text = _without_fonts(text)
    return trimmed(without_emphasis(text).replace("`", ""))


def without_emphasis(text: str) -> str:
    """Without the marks of bold and slanted text in Markdown."""
    return _BOLD.sub(r"\2", text)


def trimmed(text: str) -> str:
    """Without outer spaces, quotes, unpaired emphasis, and the full stop of a sentence. Three points stay."""
    before = None
    while before != text:
        before, text = text, text.strip().strip('"')
        text = text if text.endswith("...") else text.rstrip(".;,:").strip()
        if len(text) > 1 and text[0] == text[-1] == "'":
            text = text[1:-1]
        outer = text.startswith("**") + text.endswith("**")
        if outer and outer == text.count("**"):
            text = text.removeprefix("**").removesuffix("**")
    return text


def _fraction(found: re.Match[str]) -> str:
    """A sign such as ½, behind a space where it follows a digit."""
    above, _, below = unicodedata.normalize("NFKC", found[2]).partition("\u2044")
    return f"{found[1]}{' ' if found[1] else ''}{above}/{below}"


def _without_fonts(text: str) -> str:
    r"""``\text{A}`` is ``A`` and ``5\text{ cm}`` is ``5 cm``, whatever is inside."""
    while found := _FONTS.search(text):
        end = closing(text, found.end())
        inside = text[found.end() + 1 : end] if end is not None else text[found.end() + 1 :]
        rest = text[end + 1 :] if end is not None else ""
        glue = " " if text[: found.start()][-1:].isalnum() and inside[:1].isalpha() else ""
        text = (
            f"{text[: found.start()]}{glue}{inside}{' ' if inside[-1:].isalpha() and rest[:1].isalpha() else ''}{rest}"
        )
    return text


def closing(text: str, start: int) -> int | None:
    """The index of the brace that closes the one at ``start``; None if there is none."""
    depth = 0
    for index in range(start, len(text)):
        if text[index] in "{}" and text[index - 1 : index] != "\\":
            depth += 1 if text[index] == "{" else -1
            if depth == 0:
                return index
    return None
