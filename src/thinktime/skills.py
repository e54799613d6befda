"""Asking any chat model to check, judge, revise, plan or aggregate, in plain words, and reading what it replies.

A model that was trained in these skills does better with the words of its training: see `thinktime.pocket.skills`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from thinktime.core.errors import InputError
from thinktime.core.types import Capability, Problem

Message = dict[str, Any]

CHECK = """Check the solution above: go through it step by step and work every step out again. \
End with one line, either "Verdict: Yes" if all of it is correct, or "Verdict: No" if anything is wrong."""

JUDGE = """Judge {n} answers to the question above.

{answers}

First write down the criteria that matter for this question, each with a weight in percent; the weights sum to 100. \
Then go through every answer by every criterion. \
End with one line that gives each answer an integer from 1 to 10, in the order above: "Scores: [{example}]"."""

REVISE = """Your answer may be wrong. Look for what is wrong in it, then write a complete better answer to the \
question, in the format the question asks for."""

PLAN = "Do not solve this yet. Write a short plan: what has to be worked out, in which order."
SOLVE = "Now solve the question by this plan, in the format it asks for."

AGGREGATE = """Here are {n} proposed answers to the question above. Some of them may be wrong, as may most of them.

{answers}

Weigh them against each other and against the question, then write one complete answer of your own, in the format the \
question asks for."""

_VERDICT = re.compile(r"verdict\W+(yes|no)\b", re.IGNORECASE)
_SCORES = re.compile(r"scores\W*\[([^\]]*)\]", re.IGNORECASE)
_THOUGHT = re.compile(r"<think>.*?</think>", re.DOTALL)


class ChatSkills:
    """All skills as turns of a chat.

    Args:
        show: what is shown of an answer: its text without its thinking.
        judge: the prompt of a judgement, with ``{answers}``, and if you like ``{n}`` and ``{example}`` (of scores). Put
            your own principles here; by default the judge makes up criteria for every question.

    Raises:
        InputError: the prompt lacks the answers, or has an unknown field.
    """

    capabilities = frozenset(
        {Capability.CHECK, Capability.JUDGE, Capability.REVISE, Capability.PLAN, Capability.AGGREGATE}
    )

    def __init__(
        self, show: Callable[[str], str] = lambda text: _THOUGHT.sub("", text).strip(), judge: str = JUDGE
    ) -> None:
        self._show, self._judge = show, judge
        try:
            whole = "a1" in judge.format(n=1, answers="a1", example="7")
        except (AttributeError, IndexError, KeyError, ValueError):
            whole = False
        if not whole:
            raise InputError("judge", judge, "give a prompt with {answers}, {n} and {example}, and no other braces")

    def ask(self, skill: Capability, problem: Problem, about: Sequence[Any], said: Sequence[Any] = ()) -> list[Message]:
        """The conversation up to the reply that is wanted."""
        messages = [_user(problem.prompt)] if isinstance(problem.prompt, str) else list(problem.prompt)
        answers, replies = [self._show(state.text) for state in about], [self._show(state.text) for state in said]
        if skill == Capability.CHECK:
            return [*messages, *(_assistant(answer) for answer in answers), _user(CHECK)]
        if skill == Capability.JUDGE:
            example = ", ".join("7" for _ in answers)
            return [*messages, _user(self._judge.format(n=len(answers), answers=_listed(answers), example=example))]
        if skill == Capability.AGGREGATE:
            return [*messages, _user(AGGREGATE.format(n=len(answers), answers=_listed(answers)))]
        if skill == Capability.REVISE:
            for place, answer in enumerate(answers):
                checked = [_user(CHECK), _assistant(replies[place])] if place < len(replies) else []
                messages += [_assistant(answer), *checked, _user(REVISE)]
            return messages
        planned = [_assistant(plan) for plan in replies]
        return [*messages, _user(PLAN), *planned, *([_user(SOLVE)] if planned else [])]

    def read(self, skill: Capability, reply: Any, n: int = 1) -> list[float] | None:
        """A verdict is 1 or 0; where none is given in form, "incorrect" or "correct" counts. Scores are tenths."""
        text = self._show(reply.text)
        if skill == Capability.CHECK:
            found = _VERDICT.findall(text)
            if found:
                return [float(found[-1].lower() == "yes")]
            words = re.findall(r"\b(incorrect|not correct|correct)\b", text.lower())
            return [float(words[-1] == "correct")] if words else None
        listed = _SCORES.findall(text)
        parts = [part.strip() for part in listed[-1].split(",")] if listed else []
        if len(parts) != n or not all(part.isdecimal() and 1 <= int(part) <= 10 for part in parts):
            return None
        return [int(part) / 10 for part in parts]


def _listed(answers: Sequence[str]) -> str:
    return "\n\n".join(f"### Answer {place}\n{answer}" for place, answer in enumerate(answers, 1))


def _user(content: Any) -> Message:
    return {"role": "user", "content": content}


def _assistant(content: str) -> Message:
    return {"role": "assistant", "content": content}
