"""The state of a text generation. Token ids are kept if they are known, and never decoded and encoded again."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

from thinktime.core.context import Document, FileTree, Part, Start, Table
from thinktime.core.errors import InputError
from thinktime.core.types import Node, Problem
from thinktime.prompts.turns import words

LOGPROB_DIGITS = 3
"""Decimals of the log-probabilities of single tokens that a state and the bank keep."""


@dataclass(frozen=True)
class Text:
    """A partial solution: the prompt's ids, the generated ids, the ends of its steps, and its log-probability.

    ``step_ends`` are offsets into ``ids``, each just past a step; the last is ``len(ids)`` whenever generation has
    stopped. ``text`` is the decoded generation without special tokens and without a stop string of the user, whose ids
    are kept. States with the same ids are equal.
    """

    prompt: tuple[int, ...]
    ids: tuple[int, ...] = ()
    text: str = ""
    step_ends: tuple[int, ...] = ()
    logprob: float = field(default=0.0, compare=False)
    known: int = field(default=0, compare=False)
    """Number of leading ids the model has already processed: of the prompt, and if ``adopted`` also of ``ids``."""
    adopted: bool = field(default=False, compare=False)
    """Whether another model wrote ``ids``, so that this one still has to process them."""
    thinking: int | None = field(default=None, compare=False)
    """Upper bound of the thought tokens in ``ids``; None without a cap on thoughts."""
    logprobs: tuple[float, ...] = field(default=(), compare=False)
    """The log-probabilities of the drawn tokens, rounded to `LOGPROB_DIGITS`; empty if the bank has none."""
    confidences: tuple[float, ...] = field(default=(), compare=False)
    """The confidence of each drawn token, if requested: minus the mean log-probability, at temperature 1, of the 20
    most likely tokens."""


def added_text(node: Node) -> str:
    """The text that a node adds to its parent's; empty if states are not texts."""
    before = getattr(node.parent.state, "text", "") if node.parent else ""
    return str(getattr(node.state, "text", ""))[len(before) :]


def until_stop(before: str, text: str, stops: Iterable[str]) -> tuple[str, bool]:
    """A generation up to its first stop string, and whether it has one.

    Only strings that end after ``before`` count. That part of the text belongs to earlier nodes, so it stays whole.
    """
    found = [text.find(stop, max(0, len(before) - len(stop) + 1)) for stop in stops]
    first = min((place for place in found if place >= 0), default=None)
    return (text, False) if first is None else (text[: max(first, len(before))], True)


def shared(a: Sequence[int], b: Sequence[int]) -> int:
    """The length of the common prefix of two sequences."""
    pairs = zip(a, b, strict=False)
    return next((index for index, (x, y) in enumerate(pairs) if x != y), min(len(a), len(b)))


def pack(before: Text, state: Text) -> dict[str, Any]:
    """A child's record in the bank: its new ids, and the whole generation's text, steps and probability.

    The log-probabilities of the new tokens are whole thousandths without their sign.
    """
    return {
        "ids": state.ids[len(before.ids) :],
        "text": state.text,
        "step_ends": state.step_ends,
        "logprob": state.logprob,
        **({} if state.thinking is None else {"thinking": state.thinking}),
        **_packed_logprobs(before, state),
        **_packed_confidences(before, state),
    }


def unpack(before: Text, packed: Mapping[str, Any]) -> Text:
    """The state that `pack` described.

    Raises:
        KeyError, TypeError: it is not such a description.
    """
    _check(packed, text=str, logprob=int | float, thinking=int | None)
    _check_numbers(packed, "ids", "step_ends")
    ids = before.ids + tuple(packed["ids"])
    ends = tuple(packed["step_ends"])
    fields = {"text": packed["text"], "logprob": packed["logprob"], "thinking": packed.get("thinking")}
    logprobs, confidences = _unpacked_logprobs(before, packed), _unpacked_confidences(before, packed)
    before = replace(before, logprobs=logprobs, confidences=confidences)
    return replace(before, ids=ids, step_ends=ends, adopted=False, **fields)


def _packed_logprobs(before: Text | RemoteText, state: Text | RemoteText) -> dict[str, list[int]]:
    new = state.logprobs[len(before.logprobs) :]
    return {"logprobs": [round(-logprob * 10**LOGPROB_DIGITS) for logprob in new]} if new else {}


def _unpacked_logprobs(before: Text | RemoteText, packed: Mapping[str, Any]) -> tuple[float, ...]:
    if "logprobs" not in packed:
        return before.logprobs
    _check_numbers(packed, "logprobs")
    return before.logprobs + tuple(-number / 10**LOGPROB_DIGITS for number in packed["logprobs"])


@dataclass(frozen=True)
class RemoteText:
    """A partial solution without known token ids: its text, and the number of tokens that were sampled.

    ``prompt`` is a text, or the messages of a chat as JSON. ``step_ends`` are offsets into ``text``,
    each just past a step.
    """

    prompt: str
    text: str = ""
    tokens: int = 0
    step_ends: tuple[int, ...] = ()
    logprob: float = field(default=0.0, compare=False)
    """NaN if the endpoint returns none."""
    chat: bool = False
    """Whether ``prompt`` holds messages."""
    choice: str = ""
    """The last sample as JSON in the endpoint's format, if requested: tool calls, thoughts, finish reason."""
    thinking: int | None = None
    """Upper bound of its thought tokens; None without a cap on thoughts, or if the thoughts are uncounted."""
    logprobs: tuple[float, ...] = field(default=(), compare=False)
    """As in `Text`; only an export of a bank has them."""
    confidences: tuple[float, ...] = field(default=(), compare=False)
    """As in `Text`; empty if the endpoint lists no other tokens than the drawn one."""
    upstream: str = field(default="", compare=False)
    """The upstream that answered, if a gateway chose it among several."""


def pack_remote(before: RemoteText, state: RemoteText) -> dict[str, Any]:
    """A child's record in the bank: the text it adds, and the whole generation's tokens, steps and probability."""
    logprob = None if math.isnan(state.logprob) else state.logprob
    counts = {"tokens": state.tokens, "step_ends": state.step_ends, "logprob": logprob}
    whole: dict[str, Any] = {"choice": state.choice} if state.choice else {}
    whole |= {} if state.thinking is None else {"thinking": state.thinking}
    whole |= {"upstream": state.upstream} if state.upstream else {}
    whole |= _packed_confidences(before, state)
    return {"text": state.text[len(before.text) :], **counts, **whole}


def unpack_remote(before: RemoteText, packed: Mapping[str, Any]) -> RemoteText:
    """The state that `pack_remote` described.

    Raises:
        KeyError, TypeError: it is not such a description.
    """
    _check(packed, text=str, tokens=int, logprob=int | float | None, choice=str | None, thinking=int | None)
    _check(packed, upstream=str | None)
    _check_numbers(packed, "step_ends")
    logprob = math.nan if packed["logprob"] is None else packed["logprob"]
    text, ends = before.text + packed["text"], tuple(packed["step_ends"])
    choice, thoughts = packed.get("choice") or "", packed.get("thinking")
    fields = {"text": text, "tokens": packed["tokens"], "step_ends": ends, "logprob": logprob}
    logprobs, confidences = _unpacked_logprobs(before, packed), _unpacked_confidences(before, packed)
    before = replace(before, logprobs=logprobs, confidences=confidences)
    return replace(before, **fields, choice=choice, thinking=thoughts, upstream=packed.get("upstream") or "")


def _packed_confidences(before: Text | RemoteText, state: Text | RemoteText) -> dict[str, Any]:
    """The confidences that a child adds; nothing if it has none."""
    added = state.confidences[len(before.confidences) :]
    return {"confidences": added} if added else {}


def _unpacked_confidences(before: Text | RemoteText, packed: Mapping[str, Any]) -> tuple[float, ...]:
    added = packed.get("confidences", ())
    if not isinstance(added, list | tuple) or not all(isinstance(each, int | float) for each in added):
        raise TypeError(f"confidences={str(added)[:40]!r}")
    return (*before.confidences, *added)


def _check(packed: Mapping[str, Any], **types: Any) -> None:
    """Raise a `TypeError` if a value of a banked state does not have its type; a missing value is None."""
    for name, kind in types.items():
        if not isinstance(packed.get(name), kind):
            raise TypeError(f"{name}={str(packed.get(name))[:40]!r}")


def _check_numbers(packed: Mapping[str, Any], *names: str) -> None:
    for name in names:
        if not isinstance(packed[name], list | tuple) or not all(type(number) is int for number in packed[name]):
            raise TypeError(f"{name}={str(packed[name])[:40]!r}")


def thinking_counts(nodes: Iterable[Node]) -> list[int | None]:
    """Upper bound of each sample's thought tokens, None if uncounted. The root and failed samples are left out."""
    return [node.state.thinking for node in nodes if node.parent is not None and node.finish != "error"]


def thinking_report(thoughts: Sequence[int | None], limit: int) -> dict[str, Any]:
    """The report on a cap on thinking: the cap, the longest thought, and whether every thought is within the cap.

    ``held`` is None if no sample is known to exceed the cap and some are uncounted.
    """
    known = [count for count in thoughts if count is not None]
    beyond = any(count > limit for count in known)
    kept = None if len(known) < len(thoughts) else True
    return {"limit": limit, "most": max(known, default=None), "held": False if beyond else kept}


def messages_of(prompt: Any) -> list[dict[str, Any]]:
    """The messages of a chat; a text is one user turn."""
    return [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt)


def with_context(problem: Problem) -> Any:
    """The problem's prompt after its context as text: documents, tables and files, each under its id.

    Raises:
        InputError: a part of the context is not text.
    """
    if not problem.context:
        return problem.prompt
    shown = "\n\n".join(text for part in problem.context if (text := _shown(part)))
    if not shown:
        return problem.prompt
    if isinstance(problem.prompt, str):
        return f"{shown}\n\n{problem.prompt}"
    return [{"role": "user", "content": shown}, *problem.prompt]


def _shown(part: Part) -> str:
    """A part of a context as text."""
    if isinstance(part, Document):
        return f"# {part.title or part.id}\n{part.text}"
    if isinstance(part, Table):
        rows = [part.columns, *part.rows]
        return f"# {part.id}\n" + "\n".join(" | ".join(map(str, row)) for row in rows)
    if isinstance(part, FileTree) and all(isinstance(content, str) for content in part.files.values()):
        return "\n\n".join(f"# {part.id}/{path}\n{content!s}" for path, content in part.files.items())
    if isinstance(part, Start):
        return ""
    fix = "this model reads text: give documents, tables, or files of text"
    raise InputError("context", f"{type(part).__name__} {part.id}", fix)


def question_of(problem: Problem) -> str:
    """The problem's question as text, after its context; pictures and sounds in the prompt are left out.

    Raises:
        InputError: a part of the context is not text.
    """
    return "\n\n".join(map(words, messages_of(with_context(problem))))


def steps_of(state: Text | RemoteText) -> list[str]:
    """The steps of a partial solution, including an unfinished last one; joined, they are its text."""
    if isinstance(state, RemoteText):
        return [state.text[start:end] for start, end in pairwise((0, *state.step_ends))]
    return re.findall(r"[^\n]*\n|[^\n]+", state.text)
