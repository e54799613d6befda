r"""Reads the final answer of a solution.

Thoughts are cut first, and then further questions that the model wrote itself. The rest can state answers in six ways:

- ``\boxed{72}``; boxes that are joined by *or*, *and* or a comma are one answer;
- ``#### 72``, to the end of the line; ``A: 72`` in the last line;
- ``<answer>72</answer>``;
- ``"answer": 72`` in JSON;
- ``Final answer: 72``, ``**Answer**`` and ``Correct option: B`` at the beginning of a sentence, on the same line or the
  next;
- ``the answer is 72`` and ``the correct option is B`` anywhere, to the end of the sentence.

The last statement wins; a remark such as *the answer is correct* does not count beside others. An empty box, a
placeholder, a denial, a condition, and a number *between 3 and 4* are no statements. ``not 5 but 7`` states 7. Only
statements in English are read; other languages state answers in boxes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from thinktime.answers.notation import closing, plain, trimmed, without_emphasis
from thinktime.answers.numbers import number

LONGEST = 400
"""Characters of a statement."""
READ = 20_000
"""Characters at the end of a solution that are read."""
MOST = 100
"""At most so many statements of each kind are read, the last ones."""

_THOUGHT = re.compile(r"<(think|thinking|thought|reasoning)>.*?(?:</\1>|\Z)", re.DOTALL | re.IGNORECASE)
_THOUGHT_END = re.compile(r"</(?:think|thinking|thought|reasoning)>", re.IGNORECASE)
"""A chat template may write the beginning of a thought itself, so a sample may have only its end."""
_NEXT_QUESTION = re.compile(
    r"\n[^\S\n]{0,9}(?:#{1,9} ?|\*\* ?)?(?:Question|Problem|Q|Human|User|Exercise|Instruction)\b ?\d{0,9} ?(?:[:.]|\n)",
    re.IGNORECASE,
)
_TURN_END = re.compile(
    r"<\|(?:endoftext|end_of_text|im_end|im_start|eot_id|eos|user|assistant|system)\|>|</s>|<(?:end|start)_of_turn>|<eos>"
    r"|\[INST\]|<\uff5c(?:User|Assistant|end\u2581of\u2581sentence)\uff5c>"
)
_INLINE = re.compile(r"</?(?:b|i|u|em|strong|span|code)>", re.IGNORECASE)
_BLOCK = re.compile(r"</?(?:p|br|div|li)\s?/?>", re.IGNORECASE)
_BARE = re.compile(r"[\w.,/-]{0,40}\w")
_BOX = re.compile(r"\\(?:boxed|fbox)(?![A-Za-z])\s{0,9}")
_BETWEEN_BOXES = re.compile(r"[\s$.]*(?:,|;|or|and|\\text\{ *(?:or|and) *\})?[\s$]*")
_WORD = re.compile(r"\w")
_HASHES = re.compile(r"####[ \t]*(?P<said>[^\n]*)")
_TAGGED = re.compile(r"<answer>(?P<said>.{0,400}?)</answer>", re.DOTALL | re.IGNORECASE)
_MEMBER = re.compile(
    r"""(?ix) ["'](?:final[_ ]?)?answer["'] \s{0,9}:\s{0,9}
    (?P<said> "(?:[^"\\\n]|\\.){0,400}" | \[[^]\n]{0,400}\] | [^\s,{}[\]"][^,}\n]{0,99} )"""
)
"""A member of a JSON object."""
_LAST_LINE = re.compile(r"(?:^|\n)A:(?P<said>[^\n]*)\s*\Z")
"""Elsewhere, A: begins the first option, or the answer to a further question."""
_STATED = r"(?:answers?|(?P<option>(?:correct|right|best)\s{1,9}(?:option|choice)s?))"
_LETTERED = re.compile(r"[\s:*$(\\]*(?:text\{)?\(?[A-J]\b")
"""The best option is B; but the best option is to add."""
_HEADED = re.compile(
    r"(?:^|(?<=[.!?\n]))[^\w\n\\]{0,8}(?:(?:the|my)\s{1,9})?(?:(?:final|correct|right|best)\s{1,9})?"
    rf"{_STATED}[ \t]{{0,9}}(?:\*\*)?"
    r"[ \t]{0,9}(?:[:=\uff1a]|\n)(?:\*\*)?\s{0,9}(?P<said>[^\n]*)",
    re.IGNORECASE | re.MULTILINE,
)
_SAID = re.compile(
    rf"\b{_STATED}(?:\s{{1,9}}(?:to|in|for|of)\s{{1,9}}[^.\n]{{1,60}}?|\s{{1,9}}\([^()\n]{{1,60}}\))?\s{{1,9}}"
    r"(?:is|are)(?=n't|\W|$)(?P<colon>\s{0,9}:(?:\*\*)?\s{0,9})?(?=(?P<said>[^\n]{0,400}))",
    re.IGNORECASE,
)
"""What is said is only looked at, so that the next statement may begin in it."""
_NAMING = (_TAGGED, _MEMBER, _HEADED, _SAID)
"""Patterns that need one of the words of `_NAMED`; it is much faster to look for those first."""
_NAMED = re.compile(r"answer|option|choice", re.IGNORECASE)
_BEFORE_NAME = 80
"""A match of them begins at most so many characters before the word."""
_UNASSERTED = re.compile(
    r"(?:\b(?:if|whether|suppos\w+|assum\w+|unless)(?:\s+that)?"
    r"|(?:\b(?:not|(?<!no )doubt|false|wrong|incorrect|unlikely)\b|n't\b)[^.!?\n]{0,20}\bthat)"
    r"\s+(?:(?:the|my|this)\s+)?(?:\w+\s+)?$",
    re.IGNORECASE,
)
"""Words before an answer that is only supposed, or is denied."""
_FENCE = re.compile(r"```\w*\s*")
_DISPLAYED = re.compile(r"\s*(?:\$\$|\\\[|\*\*)")
_DENIED = re.compile(
    r"^\s*(?:(?:not|n't|never|no\s+(?:longer|more|less|fewer|greater)|wrong|unknown|unclear|none\s+of|what|it)\b"
    r"|I\s+(?:do|can))",
    re.IGNORECASE,
)
_RATHER = re.compile(
    r"(?:[.,;]\s*(?:(?:rather|instead),?\s+)?it(?:\s+is|'s)|,?\s+but(?:\s+(?:rather|instead))?|[.,;]\s*(?:rather|instead),?)"
    r"\s+(?!(?:not|I|we|you|it|this|that|maybe|perhaps|possibly|could|may|might)\b)(?P<said>[^\n]*)",
    re.IGNORECASE,
)
_REMARK = re.compile(
    r"(?:correct|incorrect|right|verified|confirmed|reasonable|consistent|clear|obvious|exact|as (?:above|shown))\b.*",
    re.IGNORECASE | re.DOTALL,
)
_PROSE = re.compile(r"(?!(?:yes|no|true|false)\b)[a-z][a-z' ,-]*")
"""Words that may be about an answer: an integer, unique, in square meters."""
_ADVERBS = re.compile(
    r"^(?:(?:approximately|about|around|roughly|therefore|thus|hence|simply|just|exactly|indeed|then|now|given by"
    r"|equal to|either|probably|definitely|clearly|obviously|certainly|likely|surely|actually|of course|in fact|only"
    r"|precisely|as follows|is|are|the)\b[ ,]*|[:=,;]\s*|[-=]{1,3}>\s*|[\u2190-\u21ff]\s*)+",
    re.IGNORECASE,
)
_SENTENCE_END = re.compile(r"(?<![.\\])[.!?](?=\s|$)|</answer>|[\u3002\uff01\uff1f]")
_REASON = re.compile(
    r"(?:,\s*|\s+)(?:because|since|which|where|so that|as\b)|,\s*(?:the|an?|not|but)\b"
    r"|\s+(?:(?:and|but)\s+not|rather\s+than|instead\s+of)\b",
    re.IGNORECASE,
)
_OPTION = re.compile(r"^(?:\(([A-J])\)|([A-J])[).:])(?:\s(?!(?:and|or)\b)(?!.*[\s(][A-J][).:])|$)", re.DOTALL)
"""One option, with its text behind it; not the first of several."""
_ONLY_NUMBER = re.compile(r"\s*(-?\d[\d,]*(?:(?<!,)\.\d+)?)(?<!,)\.?\s*")
_PICTURES = re.compile("[\u2600-\u27bf\u2b00-\u2bff\U0001f000-\U0001faff\ufe0f]|[:;]-?\\)$")
_IN_BRACKETS = re.compile(r"\s+\(([^()]+)\)$")
_NAME = re.compile(r"[A-Za-z]\w*(?:\([^()]*\))?")
_VARIABLE = re.compile(r"(?<![A-Za-z\\])[A-Za-z](?![A-Za-z])")
_COMPOUND = re.compile(
    r"\b(?:hour|minute|pound|dollar|year|month|week|day|meter|kilogram)s?\b|\bf[oe][oe]t\b", re.IGNORECASE
)
"""Units that go together with smaller ones, as in 2 hours and 30 minutes."""
_ENDING = re.compile(
    r"(?:\A|[^A-Za-z\s]\s{0,9}\n|[.!?]\s{1,9})(?:(?:So|Thus|Therefore|Hence),? )?[Tt]he (?:final )?"
    r"(?P<stated>answer is:? )(?P<said>-?\d[\d,]*(?:(?<!,)\.\d+)?)(?<!,)\.?\s{0,9}\Z"
)
"""The end of most texts. All rules together take five times as long, and find the same."""
_ENDS = 80
"""Most characters of it."""
_MARKS = ("answer", "option", "choice", "boxed", "fbox", "####", "a:", "<", "[", "\u017f", "\u0131", "\u0307")
"""Signs, in lower case, that the rules may find something else. To the rules, the last three are forms of s and i."""
_PLACEHOLDER = re.compile(
    r"(?:your |the |final |my |insert |put )*(?:answer|number|result|value|solution|…|x{2,}|[_ ]+|\?+)(?: here)?"
    r"|null|\\(?:square|Box|blank)|(?:somewhere |lies )?(?:in )?between\b.*",
    re.IGNORECASE | re.DOTALL,
)
"""What stands for an answer, and what narrows it only."""


def extract(text: str) -> str | None:
    """The final answer of a solution, or None if it states none."""
    found = _ENDING.search(text, max(0, len(text) - _ENDS)) if len(text) <= READ else None
    if found is not None:
        before = text[: found.start("stated")].lower()  # an expression that ignores case is ten times as slow
        if not any(mark in before for mark in _MARKS):
            return found["said"]
    return _last_statement(text)


def _last_statement(text: str) -> str | None:
    text = _INLINE.sub("", without_thoughts(text)[-READ:].replace("\r\n", "\n"))
    text = _BLOCK.sub("\n", text)
    statements = list(_statements(text))
    ends = [end for end, _, _ in statements]
    for cut in _NEXT_QUESTION.finditer(text):
        if ends and min(ends) <= cut.start():
            statements = [each for each in statements if each[0] <= cut.start()]
            break
    first = min((end for end, _, is_marked in statements if is_marked), default=len(text))
    statements = [each for each in statements if each[2] or not _is_remark(each[1], each[0] > first)] or statements
    return max(statements, key=lambda each: each[0])[1] if statements else None


def _is_remark(said: str, is_behind_mark: bool) -> bool:
    """Whether the words may be about an answer that is stated elsewhere; behind a box, any prose may."""
    is_prose = is_behind_mark and _PROSE.fullmatch(said) is not None and number(said) is None
    return is_prose or _REMARK.fullmatch(said) is not None


def without_thoughts(text: str) -> str:
    """The text behind its thoughts, up to the end of the turn.

    A thought may have an end mark only; an unfinished one goes to the end.
    """
    text = _THOUGHT.sub("", text)
    text = text[max((found.end() for found in _THOUGHT_END.finditer(text)), default=0) :]
    return next((turn for turn in _TURN_END.split(text) if turn.strip()), "")


def boxed(text: str) -> str | None:
    """The last box with an answer, whatever else the text states."""
    return next((said for _, said in reversed(list(_boxes(without_thoughts(text)[-READ:])))), None)


def hashes(text: str) -> str | None:
    """The answer in the last line with ``####``, whatever else the text states."""
    said = [found["said"] for found in _HASHES.finditer(without_thoughts(text)[-READ:])]
    said = [nested["said"] if (nested := _SAID.search(each)) else each for each in said]
    return next((answer for each in reversed(said) if (answer := _stated(each)) is not None), None)


READERS = {"statement": extract, "boxed": boxed, "hashes": hashes}
"""Readers by name: the last statement of any kind, the last box, or the last line with ``####``."""


def _statements(text: str) -> Iterator[tuple[int, str, bool]]:
    """Every statement of an answer, where it ends, and whether it is marked by more than *the answer is*."""
    yield from ((end, said, True) for end, said in _boxes(text))
    is_one_question = _NEXT_QUESTION.search(text) is None
    patterns = [_HASHES] * ("####" in text) + [_LAST_LINE] * ("A:" in text and is_one_question)
    if named := _NAMED.search(text):
        patterns += _NAMING
    start = max(0, named.start() - _BEFORE_NAME) if named else 0
    for pattern in patterns:
        for found in list(pattern.finditer(text, start if pattern in _NAMING else 0))[-MOST:]:
            said, end = found["said"], found.end()
            if pattern is _SAID:
                if _UNASSERTED.search(text, max(0, found.start() - 60), found.start()):
                    continue
                if _DENIED.match(said):
                    rather = _RATHER.search(said)
                    if rather is None:
                        continue
                    said = rather["said"]
                elif not said.strip() and found["colon"] is None and not _is_displayed(text, end):
                    continue
            if pattern is _MEMBER:
                said = _member(said)
            elif pattern is not _TAGGED and (not said.strip("* \t$\\[(`") or _FENCE.fullmatch(said)):
                end, said = _next_line(text, end)  # the answer is on a line of its own
            if "\\boxed" in said or "\\fbox" in said or (pattern is not _SAID and _SAID.search(said)):
                continue  # what it states is found by itself
            is_option = pattern in (_HEADED, _SAID) and found["option"] is not None
            answer = None if is_option and not _LETTERED.match(said) else _stated(said)
            if answer is not None:
                yield end, answer, pattern is not _SAID


def _is_displayed(text: str, start: int) -> bool:
    """Whether a formula, bold words or a number come next, on a line of their own."""
    return _DISPLAYED.match(text, start) is not None or number(plain(_next_line(text, start)[1])) is not None


def _next_line(text: str, end: int) -> tuple[int, str]:
    """The next line with a word in it, and where it ends."""
    for line in text[end : end + 2 * LONGEST].split("\n"):
        end += len(line) + 1
        if _WORD.search(line) and not line.startswith("```"):
            return end - 1, line
    return end, ""


def _member(said: str) -> str:
    """The value of a JSON member as text."""
    try:
        value = json.loads(said)
    except ValueError:  # Python writes its values with other quotes
        return said
    return value if isinstance(value, str) else said


def _boxes(text: str) -> Iterator[tuple[int, str]]:
    """Boxes with an answer; several in a row are one."""
    joined: list[str] = []
    last = -1
    for found in list(_BOX.finditer(text))[-MOST:]:
        if text[found.end() : found.end() + 1] == "{":
            near = text[found.end() : found.end() + LONGEST]
            close = closing(near, 0)
            inside, end = (near[1:close], found.end() + close + 1) if close is not None else ("", found.end())
        else:
            word = _BARE.match(text, found.end())
            inside, end = (word[0], word.end()) if word else ("", found.end())
        if _BOX.match(inside.strip()):
            continue  # the inner box comes next
        shown = plain(inside)
        if option := _OPTION.match(shown):
            inside = shown = option[1] or option[2]
        if not shown or _PLACEHOLDER.fullmatch(shown):
            continue
        is_next = last >= 0 and found.start() - last < 20 and _BETWEEN_BOXES.fullmatch(text, last, found.start())
        joined = [*joined, inside.strip()] if is_next else [inside.strip()]
        last = end
        yield end, ", ".join(dict.fromkeys(joined))


def _stated(said: str) -> str | None:
    """The answer in the rest of a sentence, without reasons and remarks."""
    if found := _ONLY_NUMBER.fullmatch(said):  # most answers; the rules below take ten times as long
        return found[1]
    said = _PICTURES.sub("", without_emphasis(said[:LONGEST].strip())).strip().strip("*").strip()
    said = _ADVERBS.sub("", trimmed(said[: _end(said)])).strip()
    said = said.rstrip("!?").strip()
    if option := _OPTION.match(said):
        return option[1] or option[2]
    said = trimmed(_REASON.split(said)[0])
    head = said.split(", ")[0]
    if head != said and number(plain(head)) is not None and not re.search(r"\d", said[len(head) :]):
        said = head
    if behind := _IN_BRACKETS.search(said):
        before, inside = said[: behind.start()], behind[1]
        is_remark = inside[0].isalpha() and not re.search(r"(?:\band|\bor|,)$", before)
        if is_remark or number(inside) == number(before) is not None:
            said = before  # 10 (ten), and ten (10)
    if "=" in said and not re.search(r"\b(?:or|and)\b", said) and not re.search(r"[<>≤≥]|\\[lg]e", said):
        *left, right = said.split("=")
        sides = [plain(side) for side in left]
        worked_out = all(_NAME.fullmatch(side) or not _VARIABLE.search(side) for side in sides)
        if worked_out and number(plain(right)) is not None and not any("," in side for side in sides):
            said = right.strip()  # x = 72 and 60 + 12 = 72 are 72; x^2 + y^2 = 1 is an equation
    plainly = plain(said)
    if not plainly or _PLACEHOLDER.fullmatch(plainly):
        return None
    amounts = [part for part in re.split(r"\s+and\s+|,\s+", plainly) if re.match(r"[\d$]", part)]
    if len(amounts) > 1 and all(re.search("[a-z]{2}", part) for part in amounts) and not _COMPOUND.search(plainly):
        return None  # 7 apples and 2 pears are two answers
    return trimmed(said)


def _end(said: str) -> int:
    """Where the sentence ends."""
    for found in _SENTENCE_END.finditer(said):
        if found[0] != "." or not re.search(r"\b(?:a|p|approx|no|St|Mr|Mrs|Dr)$", said[: found.start()]):
            return found.start()
    return len(said)
