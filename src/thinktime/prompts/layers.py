"""Prompts about the candidates of an inference-time architecture, in plain words (Archon, arXiv 2409.15254).

They fuse, rank and criticise all candidates at once, argue for one and judge it, write statements that hold for every
good answer, and test a candidate by them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from thinktime.core.types import Problem, Prompt
from thinktime.prompts.common import CHECK
from thinktime.prompts.turns import Message, assistant, conversation, shown, user

FUSE_WORDS = """Here are {n} candidate answers to the question above. Some of them may be wrong, or all of them.

{answers}

Combine what is right in them into one better answer. Work every step out again: an error that several candidates \
share is still an error. Reply with the complete answer, in the format the question asks for."""

RANK_WORDS = """Here are {n} candidate answers to the question above.

{answers}

Rank them: the one that is most likely right and complete comes first. End with one line that has the number of every \
candidate, the best first, in this form: "Ranking: {example}"."""

CRITIQUE_WORDS = """Here are {n} candidate answers to the question above.

{answers}

Write the strengths and the weaknesses of each candidate, and name every error you find. Write one section for each \
candidate, in the order above, under the headings "### Critique 1" to "### Critique {n}". Do not answer the question."""

ARGUE_WORDS = "Say why the answer above is right: give the best reasons for each of its steps."

VERDICT_WORDS = """Now judge the answer by these reasons and by the question. \
End with one line, either "Verdict: Yes" if the answer is right, or "Verdict: No" if it is wrong."""

TESTS_WORDS = """Do not answer this yet. Write five to ten short statements that are true of every good answer to the \
question above, such as "The answer gives a number of days." Write one statement on each line, as a numbered list."""

EVALUATE_WORDS = """Here is a list of statements about the answer above.

{tests}

Say of each statement whether it is true of this answer. Write one line for each: its number, a colon, and "pass" or \
"fail"."""

MOST_TESTS = 10
"""Later statements of a reply are not used."""

_IDENTIFIER = re.compile(r"\[\s*(\d{1,9})\s*\]")
_RANKING = re.compile(r"ranking\W*:", re.IGNORECASE)
_HEADING = re.compile(
    r"^\W*critique\s+(?:of\s+)?(?:candidate\s+|answer\s+)?(\d{1,9})\b[^\w\n]*", re.IGNORECASE | re.MULTILINE
)
_ITEM = re.compile(r"^\s*(?:\d{1,9}[.):]|[-*•])\s+(\S.*)$", re.MULTILINE)
_MARK = re.compile(r"^\W*(?:statement\s+)?(\d{1,9})\b.*?\b(pass|fail)", re.IGNORECASE | re.MULTILINE)


def _candidates(states: Sequence[Any], critiques: Sequence[str]) -> str:
    """The texts of the candidates under numbered headings, each with its critique if there is one."""
    blocks = []
    for place, state in enumerate(states):
        blocks.append(f"### Candidate {place + 1}\n{shown(state)}")
        if place < len(critiques) and critiques[place]:
            blocks.append(f"### Critique of candidate {place + 1}\n{critiques[place]}")
    return "\n\n".join(blocks)


def _about_all(
    words: str, problem: Problem, about: Sequence[Any], said: Sequence[Any], critiques: Sequence[str] = ()
) -> list[Message]:
    example = " > ".join(f"[{number}]" for number in range(len(about), 0, -1))
    return [
        *conversation(problem),
        user(words.format(n=len(about), answers=_candidates(about, critiques), example=example)),
    ]


def _argue(problem: Problem, about: Sequence[Any], said: Sequence[Any]) -> list[Message]:
    return [*conversation(problem), *(assistant(shown(state)) for state in about), user(ARGUE_WORDS)]


def _verdict(problem: Problem, about: Sequence[Any], said: Sequence[Any]) -> list[Message]:
    reasons = [assistant(shown(state)) for state in said]
    return [*_argue(problem, about, ()), *reasons, user(VERDICT_WORDS)]


def _write_tests(problem: Problem, about: Sequence[Any], said: Sequence[Any]) -> list[Message]:
    return [*conversation(problem), user(TESTS_WORDS)]


def _evaluate(problem: Problem, about: Sequence[Any], said: Sequence[Any]) -> list[Message]:
    tests = [test for state in said for test in read_tests(state, 0) or ()]
    numbered = "\n".join(f"{number}. {test}" for number, test in enumerate(tests, 1))
    answers = [assistant(shown(state)) for state in about]
    return [*conversation(problem), *answers, user(EVALUATE_WORDS.format(tests=numbered))]


def read_ranking(state: Any, n: int) -> tuple[int, ...] | None:
    """The places of ``n`` candidates, the best first; None if the reply names no candidate.

    Repeated numbers and those of no candidate are dropped. Candidates that are not named come last, in their order.
    """
    text = shown(state)
    line = _RANKING.split(text)[-1]
    named = [int(number) - 1 for number in _IDENTIFIER.findall(line)]
    kept = dict.fromkeys(place for place in named if 0 <= place < n)
    return (*kept, *(place for place in range(n) if place not in kept)) if kept else None


def read_critiques(state: Any, n: int) -> tuple[str, ...] | None:
    """The critique of each of ``n`` candidates, empty if it is missing; None if the reply has none."""
    _, *parts = _HEADING.split(shown(state))
    found = {int(number): text.strip() for number, text in zip(parts[::2], parts[1::2], strict=True)}
    critiques = tuple(found.get(number, "") for number in range(1, n + 1))
    return critiques if any(critiques) else None


def read_tests(state: Any, n: int) -> tuple[str, ...] | None:
    """The statements of a list, at most `MOST_TESTS`; None if there is none."""
    return tuple(text.strip() for text in _ITEM.findall(shown(state))[:MOST_TESTS]) or None


def read_marks(state: Any, n: int) -> Mapping[int, bool] | None:
    """Whether the answer passes each test, by the number of the test from 1; None if the reply marks none."""
    return {int(number): mark.lower() == "pass" for number, mark in _MARK.findall(shown(state))} or None


FUSE = Prompt("fuse", partial(_about_all, FUSE_WORDS), is_answer=True)
"""About all candidates; an earlier reply is the critique of them."""
RANK = Prompt("rank", partial(_about_all, RANK_WORDS), read_ranking)
"""About all candidates; an earlier reply is the critique of them."""
CRITIQUE = Prompt("critique", partial(_about_all, CRITIQUE_WORDS), read_critiques)
"""About all candidates."""
ARGUE = Prompt("argue", _argue)
"""About one candidate. The reply says why it is right."""
VERDICT = Prompt("verdict", _verdict, CHECK.read)
"""About one candidate; the earlier reply argues for it. A reply gives 1 or 0."""
WRITE_TESTS = Prompt("write_tests", _write_tests, read_tests)
"""About the question alone."""
EVALUATE = Prompt("evaluate", _evaluate, read_marks)
"""About one candidate; the earlier reply has the tests."""


def with_critiques(prompt: Prompt, critiques: Sequence[str]) -> Prompt:
    """The prompt `FUSE` or `RANK` with one critique for each candidate that it is about."""
    words = {FUSE.name: FUSE_WORDS, RANK.name: RANK_WORDS}[prompt.name]
    return replace(prompt, render=partial(_about_all, words, critiques=critiques))
