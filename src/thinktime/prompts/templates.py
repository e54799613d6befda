"""Templates of a user that replace a prompt's words: a text with fields, from a file or from TOML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from string import Formatter
from typing import Any

from thinktime.core.errors import InputError, UnknownNameError
from thinktime.core.types import Problem, Prompt
from thinktime.prompts.turns import Message, listed, places, question_text, shown, user

FIELDS = ("question", "answer", "answers", "reply", "replies", "n", "example")
"""``question``: the problem's turns as text. ``answer`` and ``answers``: the last and all of the generations that it is
about. ``reply`` and ``replies``: the same of earlier replies. ``n``: how many answers. ``example``: ``S1, S2, S3``."""


def with_words(prompt: Prompt, words: str) -> Prompt:
    """The prompt as one user turn in these words; replies are read as before.

    Args:
        prompt: the prompt to replace.
        words: a text with `FIELDS` in braces, without formats; other braces are doubled.

    Raises:
        InputError: a field is unknown or has a format, or a brace has no partner.
    """
    try:
        parts = [part for _, *part in Formatter().parse(words) if part[0] is not None]
    except ValueError as error:
        raise InputError(f"prompt.{prompt.name}", words[:60], f"double braces that are no field ({error})") from None
    for name, form, conversion in parts:
        if name not in FIELDS:
            raise UnknownNameError(f"prompt.{prompt.name} field", name or "", FIELDS)
        if form or conversion:  # a field width of a billion would fill the memory
            raise InputError(f"prompt.{prompt.name}", f"{name}:{form}"[:60], f"write {{{name}}}, without a format")

    def render(problem: Problem, about: Sequence[Any], said: Sequence[Any]) -> list[Message]:
        values = {
            "question": question_text(problem),
            "answer": shown(about[-1]) if about else "",
            "answers": listed(about),
            "reply": shown(said[-1]) if said else "",
            "replies": "\n\n".join(map(shown, said)),
            "n": len(about),
            "example": places(about),
        }
        return [user(words.format(**values))]

    return replace(prompt, render=render)


def overridden(known: Mapping[str, Prompt], words: Mapping[str, str]) -> dict[str, Prompt]:
    """The prompts with these templates, by name.

    Args:
        known: the prompts of all strategies by name.
        words: templates for some of them, by name.

    Raises:
        UnknownNameError: there is no prompt of this name.
        InputError: a template is broken.
    """
    for name in words:
        if name not in known:
            raise UnknownNameError("prompt", name, known)
    return {name: with_words(known[name], text) for name, text in words.items()}
