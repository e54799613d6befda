"""Finds out how to cap the thoughts of an endpoint's model, and counts the thoughts of samples."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from thinktime.models.remote.client import RemoteError
from thinktime.models.remote.probe import THINK, Prober, Traits
from thinktime.models.remote.protocol import Choice, ReportedUsage

END = "</think>"
CLOSING = f"\n{END}\n\n"
"""The text that closes a thought, as models write it."""
FIELDS = (
    "thinking_token_budget",  # vLLM, Dynamo
    "reasoning_budget_tokens",  # llama.cpp
    "thinking_budget_tokens",  # llama.cpp, earlier
    "thinking_budget",  # Qwen's own service
    "custom_params.thinking_budget",  # SGLang
    "nvext.max_thinking_tokens",  # NIM
)
"""Names of the field for a cap in various engines; a dot means a nested object."""
CAP, WHOLE, ANSWER = 4, 256, 16
"""Token limits of the probe: of a capped thought, of a whole uncapped sample, and of an answer after a thought."""
QUESTION = "Today: stamps 10 coins, keys 4 coins. Jon buys 6 keys. Jon buys 7 stamps. How many coins does Jon pay?"
THOUGHTS = ("Jon buys 6 keys.", "Jon buys 6 keys, 6 * 4 = 24. Jon buys 7 stamps, 7 * 10 = 70. 24 + 70 = 94.")


@dataclass(frozen=True)
class Cap:
    """The way to cap the thoughts of a model.

    ``by`` is ``continuation`` (a sample is cut at the cap, its thought is closed, and it continues from there), the
    name of a field that caps thoughts, or None if there is no way. ``begun``: the chat template begins the thought.
    """

    by: str | None
    begun: bool
    spent: ReportedUsage
    """The cost of the probe, see `Prober.spent`."""

    def sent(self, text: str) -> str:
        """The prefix to send for the text ``text``: with the ``<think>`` that the template writes itself."""
        return f"{THINK}\n{text}" if self.begun and text else text

    def fields(self, tokens: int) -> dict[str, Any]:
        """The fields of a request that cap thoughts at this number of tokens."""
        return {} if self.by in (None, "continuation") else _field(self.by or "", tokens)


def thinking(text: str, *, begun: bool) -> bool:
    """Whether a text ends inside a thought."""
    return (begun or text.lstrip().startswith(THINK)) and END not in text


def thinks_again(text: str) -> bool:
    """Whether a text thinks again after its thought has ended. A repeated end mark alone does not count."""
    after = text.partition(END)[2].lstrip().removeprefix(END)
    return after.lstrip().startswith(THINK) or END in after


def thought_tokens(
    choice: Choice, generated: int, reported: ReportedUsage | None, *, begun: bool, hidden: bool = False
) -> int | None:
    """Number of a sample's tokens that are thoughts, without the marks around them; None if it is unknown.

    Args:
        choice: the sample.
        generated: the number of its tokens.
        reported: the usage of its request, if that has no other sample.
        begun: whether the template begins the thought.
        hidden: whether the endpoint hides thoughts.
    """
    seen = bool(choice.thoughts) or thinking(choice.text, begun=begun) or END in choice.text
    if reported is not None and reported.thoughts is not None and (reported.thoughts or not seen):
        return reported.thoughts  # a 0 beside visible thoughts does not count; some endpoints always report 0
    if thinking(choice.text, begun=begun) or (choice.thoughts and not choice.text and choice.reason == "length"):
        return generated  # the sample was cut inside its thought
    if not seen:
        return None if hidden or not choice.text else 0
    listed = (choice.whole.get("logprobs") or {}).get("content") or []
    tokens = [str(token.get("token", "")) for token in listed if isinstance(token, Mapping)]
    text = "".join(tokens)
    if END not in text:
        return None
    begin = text.find(THINK) + len(THINK) if text.lstrip().startswith(THINK) else 0
    at, count = 0, 0
    for token in tokens:
        count += at >= begin and at + len(token) <= text.index(END)
        at += len(token)
    return count


async def probe_cap(prober: Prober, traits: Traits) -> Cap:
    """Probe how to cap the thoughts of a model, with at most nine requests.

    Args:
        prober: sends the requests.
        traits: the result of the first probe.

    Raises:
        RemoteError: the endpoint cannot be reached, or refuses the simplest request.
    """
    if prober.api == "completions":
        return Cap("continuation", begun=False, spent=prober.spent)
    options = {traits.limit_field: WHOLE, "temperature": 0} | ({"logprobs": True} if traits.logprobs else {})
    (free,) = await prober.sample(options, question=QUESTION)
    marked = free.text.lstrip().startswith(THINK)
    begun = END in free.text and not marked
    if (begun or marked) and traits.continues and await _answers_after_thought(prober, traits):
        return Cap("continuation", begun, prober.spent)
    hidden = traits.thinks == "hidden" or not (free.text or free.thoughts)
    return Cap(await _field_that_holds(prober, options, free, begun=begun, hidden=hidden), begun, prober.spent)


async def _answers_after_thought(prober: Prober, traits: Traits) -> bool:
    """Whether the model answers after a thought that we closed, and reads that thought."""
    read = []
    for thought in THOUGHTS:
        try:
            prefix = f"{THINK}\n{thought}{CLOSING}"
            (choice,) = await prober.sample({traits.limit_field: ANSWER, "temperature": 0}, prefix, question=QUESTION)
        except RemoteError:
            return False
        answer = choice.text[len(prefix) :] if traits.echoes and choice.text.startswith(prefix) else choice.text
        if prober.last is None or choice.thoughts or not answer.strip() or thinks_again(END + answer):
            return False
        read.append(prober.last.prompt)
    return read[0] < read[1]


async def _field_that_holds(
    prober: Prober, options: Mapping[str, Any], free: Choice, *, begun: bool, hidden: bool
) -> str | None:
    """The first field that shortens a thought to the cap and is followed by an answer; None if none does."""

    def short(choice: Choice) -> bool | None:
        generated = prober.last.generated if prober.last else WHOLE
        count = thought_tokens(choice, generated, prober.last, begun=begun, hidden=hidden)
        return None if count is None else count <= CAP

    if short(free) is not False:
        return None
    for name in FIELDS:
        with suppress(RemoteError):
            (capped,) = await prober.sample({**options, **_field(name, CAP)}, question=QUESTION)
            if short(capped) and capped.text:
                return name
    return None


def _field(name: str, tokens: int) -> dict[str, Any]:
    outer, _, inner = name.partition(".")
    return {outer: {inner: tokens} if inner else tokens}
