"""Request bodies and answers of the two sampling calls of an OpenAI-compatible endpoint."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from thinktime.core.errors import InputError
from thinktime.models.remote.client import UnreadableError

Api = Literal["chat/completions", "completions"]
"""The path of a call below the base URL."""
THOUGHTS = ("reasoning_content", "reasoning")
"""Fields that hold thoughts apart from the text: vLLM's older and newer spelling."""


@dataclass(frozen=True)
class Choice:
    """One sample of an answer. ``error`` is the reason if it cannot be used, else None."""

    text: str = ""
    reason: str = ""
    stop: str | None = None
    """The stop string that ended the sample, if the endpoint names it."""
    tokens: int | None = None
    """Number of tokens with a log-probability; None without log-probabilities."""
    logprob: float = math.nan
    error: str | None = None
    thoughts: str = ""
    """The thoughts, if the endpoint returns them apart from the text."""
    whole: Mapping[str, Any] = field(default_factory=dict)
    """The sample as the endpoint returned it."""


@dataclass(frozen=True)
class ReportedUsage:
    """Token counts that an endpoint reports. ``cached`` is a part of ``prompt``, ``thoughts`` a part of ``generated``.

    None is an unreported count.
    """

    prompt: int
    generated: int
    cached: int | None = None
    thoughts: int | None = None


def root_and_api(url: str) -> tuple[str, Api]:
    """Split a URL into the root of the API and the call that it names; the default is chat.

    Raises:
        InputError: the text is not an HTTP URL, or contains a key.
    """
    if not re.fullmatch(r"https?://[^/\s@?#]+(/[^\s@?#]*)?", url):
        raise InputError("base_url", url.rpartition("@")[2], "write http://host:port/v1; keys go into api_key")
    root = url.rstrip("/")
    if root.endswith("/chat/completions"):
        return root.removesuffix("/chat/completions"), "chat/completions"
    if root.endswith("/completions"):
        return root.removesuffix("/completions"), "completions"
    return root, "chat/completions"


def prompt_of(prompt: str, api: Api, prefix: str) -> dict[str, Any]:
    """The fields of a request body that contain the prompt and the text to continue.

    Args:
        prompt: a text, or for a chat its messages as JSON.
        api: the endpoint's call.
        prefix: the text generated so far; a chat continues it as its last message.
    """
    if api == "completions":
        return {"prompt": prompt + prefix}
    messages = json.loads(prompt)
    if not prefix:
        return {"messages": messages}
    messages.append({"role": "assistant", "content": prefix})
    return {"messages": messages, "continue_final_message": True, "add_generation_prompt": False}


def read_choices(body: Mapping[str, Any], url: str) -> list[Choice]:
    """The samples of an answer, in order of their index.

    Raises:
        UnreadableError: the answer has no samples.
    """
    choices = body.get("choices")
    if not isinstance(choices, Sequence) or not choices or not all(isinstance(c, Mapping) for c in choices):
        raise UnreadableError(f"endpoint={url!r}: its answer has choices={choices!r}; expected a list of samples")
    return [_choice(choice) for choice in sorted(choices, key=lambda c: _whole(c.get("index")) or 0)]


def unechoed(choice: Choice, prefix: str) -> Choice:
    """A sample without the echoed ``prefix``."""
    if choice.error is not None or choice.text.startswith(prefix):
        return replace(choice, text=choice.text[len(prefix) :])
    return replace(choice, error="the sample does not repeat its prefix, although the endpoint's probe did")


def unlisted(choice: Choice, reported: ReportedUsage | None) -> bool:
    """Whether the only sample of a request ended at a stop string that has no log-probability."""
    return (
        choice.reason == "stop"
        and choice.tokens is not None
        and reported is not None
        and reported.generated > choice.tokens
    )


MOST_TOKENS = 10**12
"""A larger count in a reply is malformed."""


def read_usage(body: Mapping[str, Any]) -> ReportedUsage | None:
    """The usage that an answer reports; None if it is missing or malformed."""
    usage = body.get("usage")
    if not isinstance(usage, Mapping):
        return None
    before, after = ("input", "output") if "input_tokens" in usage else ("prompt", "completion")
    prompt, generated = _whole(usage.get(f"{before}_tokens")), _whole(usage.get(f"{after}_tokens"))
    if prompt is None or generated is None:
        return None
    cached = _detail(usage, f"{before}_tokens_details", "cached_tokens", prompt)
    return ReportedUsage(
        prompt, generated, cached, _detail(usage, f"{after}_tokens_details", "reasoning_tokens", generated)
    )


def _detail(usage: Mapping[str, Any], details: str, name: str, most: int) -> int | None:
    found = usage.get(details)
    count = _whole(found.get(name)) if isinstance(found, Mapping) else None
    return None if count is None else min(count, most)


def _choice(choice: Mapping[str, Any]) -> Choice:
    reason, message = choice.get("finish_reason"), choice.get("message")
    text = message.get("content") if isinstance(message, Mapping) else choice.get("text")
    if not isinstance(reason, str) or not reason:
        return Choice(error=f"finish_reason={reason!r}: the sample has no finish reason, so it may be cut off")
    calls = isinstance(message, Mapping) and bool(message.get("tool_calls") or message.get("function_call"))
    if reason in ("tool_calls", "function_call") and calls:
        reason = "stop"
    if reason not in ("stop", "length"):
        return Choice(error=f"finish_reason={reason!r}: the sample is not text; expected 'stop' or 'length'")
    if text is None and (reason == "length" or calls):
        text = ""  # all tokens are hidden thoughts, or a tool call
    if not isinstance(text, str):
        return Choice(error=f"content={text!r}: the sample has no text")
    text = text.encode(errors="replace").decode()  # UTF-8 cannot encode half of a surrogate pair
    logprobs = _logprobs(choice.get("logprobs"), text)
    named = next((choice[name] for name in ("stop_reason", "matched_stop") if isinstance(choice.get(name), str)), None)
    tokens, logprob = (None, math.nan) if logprobs is None else (len(logprobs), sum(logprobs))
    return Choice(text, reason, named, tokens, logprob, thoughts=_thoughts(message), whole=choice)


def _thoughts(message: object) -> str:
    found = message if isinstance(message, Mapping) else {}
    thoughts = next((found[name] for name in THOUGHTS if found.get(name)), None)
    return thoughts if isinstance(thoughts, str) else ""


def _logprobs(found: object, text: str) -> list[float] | None:
    """One log-probability per token, in the format of chats or of completions; None without them."""
    if not isinstance(found, Mapping):
        return None
    content = found.get("content")
    values = [token.get("logprob") for token in content] if content else found.get("token_logprobs")
    if content == [] and not text:
        return []
    if not isinstance(values, Sequence) or not values or not all(isinstance(v, int | float) for v in values):
        return None
    return [float(value) for value in values]


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MOST_TOKENS else None


def shares(total: int, choices: Sequence[Choice], most: int) -> list[int]:
    """Share the generated tokens of a request among its samples. The shares sum to the total, or to more.

    Some endpoints count one sample of several (llama.cpp). If the samples list more tokens than the total, each is
    charged its listed tokens, and one more for the end token that is not listed.

    A sample cut at the limit gets the limit. Others get their number of log-probabilities. The rest (an end token is
    often counted but not listed, or there are no log-probabilities) is shared in proportion to the length of the text.

    Args:
        total: generated tokens that the endpoint reports.
        choices: the samples of the request.
        most: the limit of each sample.
    """
    known = [most if c.reason == "length" and not c.error else min(c.tokens or 0, most) for c in choices]
    rest = total - sum(known)
    if rest < 0:
        return [min(n + (c.reason != "length"), most) for c, n in zip(choices, known, strict=True)]
    weights = [len(c.text) + 1 if n < most else 0 for c, n in zip(choices, known, strict=True)]
    if not any(weights):
        weights = [1] * len(choices)
    passed, given, shared = 0, 0, []
    for before, weight in zip(known, weights, strict=True):
        passed += weight
        upto = rest * passed // sum(weights)
        shared.append(before + upto - given)
        given = upto
    return shared
