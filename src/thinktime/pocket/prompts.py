"""The prompts by which the skilled pocket model checks, judges, revises and plans, and the readers of its replies.

A prompt is the material and then one word; the reply is text that is read line by line. The words are extra tokens
after the solver's vocabulary, so the solver's ids mean the same in both models.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from thinktime.core.types import Problem, Prompt

WORDS = ("Check", "Judge", "No", "Plan", "Restart", "Revise", "Scores", "Solve", "Verdict", "Yes")
"""Added to the vocabulary of the solver, each with and without a space before it. Restart is not in use: see
``training/LOG.md``."""
YES, NO = "Yes", "No"
LETTERS = "ABCD"
"""Names of the solutions that are judged together; more than four do not fit."""
REVISED = 4
"""Number of previous answers that a revision sees; older ones are left out."""

Message = dict[str, str]
_PLACE = re.compile(r"^With \w+ \d+: ")
_CLAIM = re.compile(r", (?=\d|[A-Za-z]+ \d|still)|: (?=\d)|(?: \d+)? it is| (?=\d+ [-+*] )")
_SCORES = re.compile(r"Scores: \[([^\]]*)\]")
_VERDICT = re.compile(rf"Verdict: ({YES}|{NO})")


def user(content: str) -> Message:
    """A turn of the user."""
    return {"role": "user", "content": content}


def assistant(content: str) -> Message:
    """A turn of the model."""
    return {"role": "assistant", "content": content}


def check(question: str, solution: str) -> list[Message]:
    """Ask for a check of a solution."""
    return [user(question), assistant(solution), user("Check")]


def checked(lines: Sequence[tuple[str, bool]]) -> str:
    """The reply to `check`: the correct form of each line, and whether the line has it, up to the first wrong line."""
    verdicts = [f"{line} {YES if right else NO}" for line, right in lines]
    return "\n".join([*verdicts, f"Verdict: {YES if all(right for _, right in lines) else NO}"])


def verdict(reply: str) -> bool | None:
    """The last verdict of a check, or None if it has no verdict."""
    found = _VERDICT.findall(reply)
    return found[-1] == YES if found else None


def revise(question: str, previous: Sequence[str], checks: Sequence[str] = ()) -> list[Message]:
    """Ask for a better answer than the previous ones, the oldest first; ``checks`` are the checks of these answers."""
    messages = [user(question)]
    for index, answer in enumerate(previous):
        messages.append(assistant(answer))
        if index < len(checks):
            messages += [user("Check"), assistant(checks[index])]
        messages.append(user("Revise"))
    return messages if previous else [*messages, user("Revise")]


def judge(question: str, solutions: Sequence[str]) -> list[Message]:
    """Ask for one score for each of up to four solutions, in this order.

    Raises:
        ValueError: there are none, or more than four.
    """
    if not 1 <= len(solutions) <= len(LETTERS):
        raise ValueError(f"solutions={len(solutions)}: judge 1 to {len(LETTERS)} at a time")
    parts = [f"{letter}\n{solution}" for letter, solution in zip(LETTERS, solutions, strict=False)]
    return [user(question), user("\n".join(["Judge", *parts]))]


def judged(checks: Sequence[tuple[int, int, str, bool]], scores: Sequence[int]) -> str:
    """The reply to `judge`: checks of lines (solution, line, correct form, whether it has this form), then scores."""
    verdicts = [f"{LETTERS[who]} {line + 1}: {text} {YES if right else NO}" for who, line, text, right in checks]
    return "\n".join([*verdicts, f"Scores: [{', '.join(map(str, scores))}]"])


def scores(reply: str, n: int) -> list[int] | None:
    """The ``n`` scores of a judgement, or None if it does not have exactly ``n`` scores from 1 to 10."""
    found = _SCORES.findall(reply)
    parts = [part.strip() for part in found[-1].split(",")] if found else []
    if len(parts) != n or not all(part.isdigit() and 1 <= int(part) <= 10 for part in parts):
        return None
    return [int(part) for part in parts]


def plan(question: str) -> list[Message]:
    """Ask for a plan: what to compute, in which order, without computing it."""
    return [user(question), user("Plan")]


def planned(steps: Sequence[str]) -> str:
    """The reply to `plan`: the steps without their computations."""
    return "\n".join(_CLAIM.split(_PLACE.sub("", step), maxsplit=1)[0].rstrip(".") for step in steps)


def solve_by(question: str, plan: str) -> list[Message]:
    """Ask for the solution by this plan."""
    return [user(question), user("Plan"), assistant(plan), user("Solve")]


def _texts(states: Sequence[Any]) -> list[str]:
    return [state.text for state in states]


def _verdict(state: Any, n: int) -> float | None:
    found = verdict(state.text)
    return None if found is None else float(found)


def _judged(state: Any, n: int) -> list[float] | None:
    found = scores(state.text, n)
    return None if found is None else [score / 10 for score in found]


def _revised(problem: Problem, about: Sequence[Any], said: Sequence[Any]) -> list[Message]:
    return revise(str(problem.prompt), _texts(about)[-REVISED:], _texts(said))


PROMPTS = {
    prompt.name: prompt
    for prompt in (
        Prompt("check", lambda problem, about, said: check(str(problem.prompt), *_texts(about)), _verdict),
        Prompt("judge", lambda problem, about, said: judge(str(problem.prompt), _texts(about)), _judged),
        Prompt("revise", _revised, is_answer=True),
        Prompt("aggregate", _revised, is_answer=True),
        Prompt("plan", lambda problem, about, said: plan(str(problem.prompt))),
        Prompt("solve", lambda problem, about, said: solve_by(str(problem.prompt), *_texts(said)), is_answer=True),
    )
}
"""The skilled model's prompts. It was not trained to aggregate, so it revises instead."""
