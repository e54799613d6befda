"""Request bodies and answers of the two sampling calls of an OpenAI-compatible endpoint."""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from thinktime.core.errors import InputError, shown
from thinktime.models.remote.client import LongNumber, MalformedError, UnreadableError
from thinktime.models.remote.limits import SAMPLE
from thinktime.models.remote.reported_errors import reported_error

Api = Literal["chat/completions", "completions"]
"""The path of a call below the base URL."""
THOUGHTS = ("reasoning_content", "reasoning")
"""Fields that hold thoughts apart from the text: vLLM's older and newer spelling."""
TEXTS = (*THOUGHTS, "refusal")
"""Fields of a message that are texts; a value of another type is left out."""
TEXT_PARTS = ("text", "output_text", "input_text", "refusal", None)
THOUGHT_PARTS = ("thinking", "reasoning", "reasoning_text", "redacted_thinking")
"""Types of the parts of a content."""
DEEPEST = 100
"""Levels of objects and lists in a sample."""


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

    @property
    def confidences(self) -> tuple[float, ...]:
        """For each token, minus the mean log-probability of the tokens that are listed for its place.

        It is empty unless every place has such a list.
        """
        listed = self.whole.get("logprobs")
        return _confidences(listed) if isinstance(listed, dict) else ()


@dataclass(frozen=True)
class ReportedUsage:
    """Token counts that an endpoint reports. ``cached`` is a part of ``prompt``, ``thoughts`` a part of ``generated``.

    None is an unreported count.
    """

    prompt: int
    generated: int
    cached: int | None = None
    thoughts: int | None = None


def root_and_api(url: str, field: str = "base_url") -> tuple[str, Api]:
    """Split a URL into the root of the API and the call that it names; the default is chat.

    Args:
        url: of an endpoint.
        field: how the error names it.

    Raises:
        InputError: the text is not an HTTP URL, or contains a key.
    """
    if not re.fullmatch(r"https?://[^/\s@?#]+(/[^\s@?#]*)?", url):
        fix = "write http://host:port/v1" + ("; keys go into api_key" if re.search("[@?#]", url) else "")
        raise InputError(field, url.rpartition("@")[2], fix)
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
    if not isinstance(choices, list) or not any(isinstance(choice, dict) for choice in choices):
        raise UnreadableError(f"endpoint={url!r}: its answer has choices={shown(choices)}; expected a list of samples")
    placed = []
    for place, choice in enumerate(choices):
        index = _whole(choice.get("index")) if isinstance(choice, dict) else None
        placed.append((place if index is None else index, _choice(choice)))
    return [choice for _, choice in sorted(placed, key=lambda pair: pair[0])]


def documented(message: Mapping[str, Any]) -> dict[str, Any]:
    """A message, or a part of one in a stream, in the documented form.

    Its content is a text or None. The thoughts among the parts of its content are its ``reasoning_content``. Its tool
    calls are a list of objects, and their arguments are texts.

    Raises:
        MalformedError: the content has a part that is neither text nor thought, or an argument cannot be written.
    """
    found = {
        name: value for name, value in message.items() if name not in TEXTS or value is None or isinstance(value, str)
    }
    if isinstance(content := message.get("content"), _NESTED):
        text, thoughts = _joined(content if isinstance(content, list) else [content])
        found["content"] = text
        if thoughts and not any(found.get(name) for name in THOUGHTS):
            found["reasoning_content"] = thoughts
    elif content is not None and not isinstance(content, str):
        raise MalformedError(f"content={shown(content)}: the sample has no text")
    if (calls := message.get("tool_calls")) is not None:
        calls = [calls] if isinstance(calls, dict) else calls if isinstance(calls, list) else []
        found["tool_calls"] = [
            {**call, "function": _with_text(call["function"])}
            for call in calls
            if isinstance(call, dict) and isinstance(call.get("function"), dict)
        ]
    if isinstance(call := message.get("function_call"), dict):
        found["function_call"] = _with_text(call)
    return found


def _joined(parts: Sequence[Any]) -> tuple[str, str]:
    """The texts and the thoughts of the parts of a content, each joined."""
    texts: list[str] = []
    thoughts: list[str] = []
    for part in parts:
        if part is None or isinstance(part, str):
            texts.append(part or "")
            continue
        kind = part.get("type") if isinstance(part, dict) else type(part).__name__
        if not isinstance(part, dict):
            raise MalformedError(f"content.type={kind!r}: the sample has a part that is not text")
        said = next((part[name] for name in ("text", "thinking", "reasoning", "refusal") if part.get(name)), "")
        if isinstance(said, list) and kind in THOUGHT_PARTS:
            said = _joined(said)[0]
        if kind not in (*TEXT_PARTS, *THOUGHT_PARTS) or not isinstance(said, str):
            raise MalformedError(f"content.type={shown(kind)}: the sample has a part that is not text")
        (thoughts if kind in THOUGHT_PARTS else texts).append(said)
    return "".join(texts), "".join(thoughts)


def _with_text(function: Mapping[str, Any]) -> dict[str, Any]:
    """A function of a tool call whose arguments are a text."""
    arguments = function.get("arguments")
    if arguments is None or (isinstance(arguments, str) and not isinstance(arguments, LongNumber)):
        return dict(function)
    if (reason := _unwritable(arguments)) is not None:
        raise MalformedError(f"tool_calls.arguments: {reason}")
    return {**function, "arguments": json.dumps(arguments)}


def _unwritable(value: Any, depth: int = 0) -> str | None:
    """Why a value cannot be written as JSON again; None if it can."""
    if isinstance(value, LongNumber):
        return f"the sample has the number {shown(str(value))}, which no float holds"
    if depth > DEEPEST:
        return f"the sample is nested deeper than {DEEPEST} levels"
    return next((reason for each in _inside(value) if (reason := _unwritable(each, depth + 1)) is not None), None)


def _is_deep(values: Iterable[Any], levels: int = DEEPEST) -> bool:
    """Whether one of these values has objects or lists in more than this number of levels."""
    nested = [value for value in values if isinstance(value, _NESTED)]
    return bool(nested) and (not levels or any(_is_deep(_inside(value), levels - 1) for value in nested))


_NESTED = (dict, list)
"""What a value of JSON can be nested in."""


def _inside(value: Any) -> Iterable[Any]:
    return value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()


def unechoed(choice: Choice, prefix: str) -> Choice:
    """A sample without the echoed ``prefix``."""
    if choice.error is not None or choice.text.startswith(prefix):
        return replace(choice, text=choice.text[len(prefix) :])
    return replace(choice, error="the sample does not repeat its prefix, although the endpoint's probe did")


def at_most(choice: Choice, most: int) -> int:
    """Upper bound of an uncounted sample's tokens: its log-probabilities and an end token, or the limit."""
    return most if choice.tokens is None else min(most, choice.tokens + 1)


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
    if not isinstance(usage, dict):
        return None
    before, after = ("input", "output") if "input_tokens" in usage else ("prompt", "completion")
    prompt, generated = _whole(usage.get(f"{before}_tokens")), _whole(usage.get(f"{after}_tokens"))
    if generated is None and prompt is not None and usage.get("total_tokens") == prompt:
        generated = 0  # embeddings have no second count
    if prompt is None or generated is None:
        return None
    cached = _detail(usage, f"{before}_tokens_details", "cached_tokens", prompt)
    return ReportedUsage(
        prompt, generated, cached, _detail(usage, f"{after}_tokens_details", "reasoning_tokens", generated)
    )


def _detail(usage: Mapping[str, Any], details: str, name: str, most: int) -> int | None:
    found = usage.get(details)
    count = _whole(found.get(name)) if isinstance(found, dict) else None
    return None if count is None else min(count, most)


def _choice(choice: object) -> Choice:
    if not isinstance(choice, dict):
        return Choice(error=f"choices={shown(choice)}: the sample is not an object")
    if (error := reported_error({**choice, "choices": []})) is not None:
        return Choice(error=f"error={shown(error.get('message'))}: the endpoint reports that the sample failed")
    if _is_deep((value for name, value in choice.items() if name != "logprobs"), DEEPEST - 1):
        return Choice(error=f"choices: the sample is nested deeper than {DEEPEST} levels")
    reason = choice.get("finish_reason")
    if not isinstance(reason, str) or not reason:
        return Choice(error=f"finish_reason={shown(reason)}: the sample has no finish reason, so it may be cut off")
    message = next((choice[name] for name in ("message", "delta") if isinstance(choice.get(name), dict)), None)
    try:
        message = None if message is None else _whole_message(message)
    except MalformedError as error:
        return Choice(error=str(error))
    text = choice.get("text") if message is None else message.get("content")
    calls = message is not None and bool(message.get("tool_calls") or message.get("function_call"))
    if reason in ("tool_calls", "function_call") and calls:
        reason = "stop"
    if reason not in ("stop", "length"):
        return Choice(error=f"finish_reason={shown(reason)}: the sample is not text; expected 'stop' or 'length'")
    thoughts = _thoughts(message)
    if reason == "stop" and not calls and thoughts.strip() and (text is None or text == "" or str(text).isspace()):
        text = thoughts  # the endpoint takes the whole sample for a thought
    if text is None and (reason == "length" or calls):
        text = ""  # all tokens are hidden thoughts, or a tool call
    if not isinstance(text, str):
        return Choice(error=f"content={shown(text)}: the sample has no text")
    if len(text) + len(thoughts) > SAMPLE:
        return Choice(error=f"content: the sample has {len(text) + len(thoughts)} characters; {SAMPLE} is the limit")
    text = text.encode(errors="replace").decode()  # UTF-8 cannot encode half of a surrogate pair
    listed = choice.get("logprobs")
    logprobs = _logprobs(listed, text)
    named = next((choice[name] for name in ("stop_reason", "matched_stop") if isinstance(choice.get(name), str)), None)
    tokens, logprob = (None, math.nan) if logprobs is None else (len(logprobs), sum(logprobs))
    whole = {name: value for name, value in choice.items() if name != "delta" or message is None}
    if listed is not None and logprobs is None:
        whole["logprobs"] = None
    if message is not None:
        whole["message"] = message
    return Choice(text, reason, named, tokens, logprob, thoughts=thoughts, whole=whole)


def _whole_message(message: Mapping[str, Any]) -> dict[str, Any]:
    """A whole message in the documented form. A call has its place as its index, and ``{}`` if it has no arguments."""
    found = documented(message)
    for place, call in enumerate(found.get("tool_calls") or ()):
        if "index" in call:
            call["index"] = place
        _fill(call["function"])
    if isinstance(call := found.get("function_call"), dict):
        _fill(call)
    return found


def _fill(function: dict[str, Any]) -> None:
    if function.get("arguments") is None:
        function["arguments"] = "{}"


def _thoughts(message: Mapping[str, Any] | None) -> str:
    found = message or {}
    thoughts = next((found[name] for name in THOUGHTS if found.get(name)), None)
    return thoughts if isinstance(thoughts, str) else ""


def _logprobs(found: object, text: str) -> list[float] | None:
    """One log-probability per token, in the format of chats or of completions; None if any is missing or malformed."""
    if not isinstance(found, dict):
        return None
    content = found.get("content")
    if content == [] and not text:
        return []
    if content and not (isinstance(content, list) and set(map(type, content)) == {dict}):
        return None
    values = [token.get("logprob") for token in content] if content else found.get("token_logprobs")
    if not isinstance(values, list) or not values:
        return None
    if set(map(type, values)) == {float} and math.isfinite(sum(values)):  # the usual case, and there are many
        return values
    return [float(value) for value in values] if all(map(_is_number, values)) else None


def _confidences(found: Mapping[str, Any]) -> tuple[float, ...]:
    """The confidence of each token, from the likeliest tokens that are listed for its place, to four decimals."""
    content = found.get("content")
    listed = [token.get("top_logprobs") for token in content] if content else found.get("top_logprobs")
    places = [_listed(place) for place in listed] if isinstance(listed, list) and all(listed) else []
    return tuple(round(-sum(place) / len(place), 4) for place in places) if all(places) else ()


def _listed(place: object) -> list[float]:
    """The log-probabilities listed for one place, in the format of chats or of completions; empty if malformed."""
    values: list[Any] = list(place.values()) if isinstance(place, dict) else []
    if isinstance(place, list):
        values = [each.get("logprob") if isinstance(each, dict) else None for each in place]
    return [float(value) for value in values] if all(map(_is_number, values)) else []


def _is_number(value: object) -> bool:
    """Whether this is a number that a float holds."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MOST_TOKENS else None


def shares(total: int, choices: Sequence[Choice], most: int) -> list[int]:
    """Share the generated tokens of a request among its samples. The shares sum to the total, or to more.

    Some endpoints count one sample of several (llama.cpp). If the samples list more tokens than the total, each is
    charged its listed tokens, and one more for the end token that is not listed; one without a list, the limit.

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
        return [most if c.reason == "length" and not c.error else at_most(c, most) for c in choices]
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
