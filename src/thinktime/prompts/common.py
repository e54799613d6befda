"""The prompts that ask a chat model to check, judge and revise, in plain words.

A model that was trained for one of these tasks has its own wording: see `thinktime.pocket.prompts`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from thinktime.core.types import Problem, Prompt
from thinktime.prompts.turns import Message, assistant, conversation, listed, places, shown, user

CHECK_WORDS = """Check the solution above: go through it step by step and work every step out again. \
End with one line, either "Verdict: Yes" if all of it is correct, or "Verdict: No" if anything is wrong."""

JUDGE_WORDS = """Judge {n} answers to the question above.

{answers}

First write down the criteria that matter for this question, each with a weight in percent; the weights sum to 100. \
Then go through every answer by every criterion. \
End with one line "Scores: [{example}]", where S1 is an integer from 1 to 10 for answer 1, and so on."""

REVISE_WORDS = """Your answer may be wrong. Look for what is wrong in it, then write a complete better answer to the \
question, in the format the question asks for."""

_VERDICT = re.compile(r"verdict\W+(yes|no)\b", re.IGNORECASE)
_SCORES = re.compile(r"scores\W*\[([^\]]*)\]", re.IGNORECASE)


def _check(problem: Problem, about: Sequence[Any], said: Sequence[Any]) -> list[Message]:
    return [*conversation(problem), *(assistant(shown(state)) for state in about), user(CHECK_WORDS)]


def _verdict(state: Any, n: int) -> float | None:
    text = shown(state)
    found = _VERDICT.findall(text)
    if found:
        return float(found[-1].lower() == "yes")
    words = re.findall(r"\b(incorrect|not correct|correct)\b", text.lower())
    return float(words[-1] == "correct") if words else None


def _judge(problem: Problem, about: Sequence[Any], said: Sequence[Any]) -> list[Message]:
    words = JUDGE_WORDS.format(n=len(about), answers=listed(about), example=places(about))
    return [*conversation(problem), user(words)]


def _scores(state: Any, n: int) -> list[float] | None:
    found = _SCORES.findall(shown(state))
    parts = [part.strip() for part in found[-1].split(",")] if found else []
    if len(parts) != n or not all(part.isdecimal() and 1 <= int(part) <= 10 for part in parts):
        return None
    return [int(part) / 10 for part in parts]


def _revise(problem: Problem, about: Sequence[Any], said: Sequence[Any]) -> Any:
    if not about:
        return problem.prompt
    messages = conversation(problem)
    for index, state in enumerate(about):
        checked = [user(CHECK_WORDS), assistant(shown(said[index]))] if index < len(said) else []
        messages += [assistant(shown(state)), *checked, user(REVISE_WORDS)]
    return messages


CHECK = Prompt("check", _check, _verdict)
"""About one solution. A reply gives 1 or 0. If it has no verdict line, "incorrect" or "correct" in its text counts."""
JUDGE = Prompt("judge", _judge, _scores)
"""About several answers. A reply gives each answer a score from 0.1 to 1."""
REVISE = Prompt("revise", _revise, is_answer=True)
"""About the answers so far, the oldest first. The earlier replies are checks of these answers, in the same order."""
