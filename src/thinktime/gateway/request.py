"""Parses a completion request: fields that a search uses, and fields that pass through to each sample."""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from thinktime.core.errors import InputError
from thinktime.core.types import Problem, Sampling
from thinktime.gateway.methods import Method
from thinktime.models.remote.protocol import Api

READ = frozenset(
    {"model", "messages", "prompt", "n", "best_of", "stream", "stream_options", "temperature", "top_p", "seed"}
    | {"max_tokens", "max_completion_tokens", "thinktime", "optillm_approach"}
)
"""Fields that are parsed here; all others go with each sample unchanged."""
MOST = 2**63 - 1
"""Largest number of a field."""


@dataclass(frozen=True)
class CompletionRequest:
    """A parsed request for one answer."""

    api: Api
    model: str
    """The upstream's name of the model."""
    called: str
    """The model as the client wrote it."""
    prompt: Any
    """Messages of a chat, or the text of a completion."""
    sampling: Sampling
    fields: Mapping[str, Any]
    seed: int
    stream: bool
    with_usage: bool
    """Whether the stream ends with the usage."""
    json: bool
    """Whether the request asks for JSON."""

    @property
    def tools(self) -> bool:
        """Whether the answer may call a tool."""
        return bool(self.fields.get("tools") or self.fields.get("functions"))

    @cached_property
    def problem(self) -> Problem:
        """The problem. Its id is a hash of the request and its seed, so a repeated request has the same id."""
        identity = [self.api, self.model, self.prompt, self.fields, self.seed]
        name = hashlib.blake2b(json.dumps(identity, sort_keys=True).encode(), digest_size=12).hexdigest()
        return Problem(name, self.prompt)


def default_max_tokens(method: Method, most: int) -> int:
    """The length limit in tokens of a sample whose request gives none.

    A sample reserves its whole limit. So that the first of several does not reserve the whole budget, the limit is a
    quarter of the budget, or an equal share if there are fewer than four samples.

    Args:
        method: the method with its options and budget.
        most: the gateway's own limit in tokens.
    """
    tokens = method.budget.tokens
    return most if tokens is None else max(1, min(most, tokens // min(4, method.samples)))


def read_request(body: Mapping[str, Any], api: Api, model: str, max_tokens: int) -> CompletionRequest:
    """Parse a request.

    Args:
        body: the JSON body.
        api: the endpoint's call.
        model: the upstream's name of the model.
        max_tokens: the length limit if the request gives none.

    Raises:
        InputError: a field has an invalid value.
    """
    for name in ("n", "best_of"):
        if _number(body, name, 1, whole=True) != 1:
            raise InputError(name, body[name], "a method gives one answer; say how many samples with thinktime.n")
    limit_field = "max_completion_tokens" if body.get("max_completion_tokens") is not None else "max_tokens"
    limit = int(_number(body, limit_field, max_tokens, whole=True))
    if limit < 1:
        raise InputError(limit_field, limit, "give 1 or more")
    sampling = Sampling(
        temperature=_number(body, "temperature", 1.0),
        top_p=_number(body, "top_p", 1.0),
        max_length=limit,
    )
    stream_options = body.get("stream_options") or {}
    if not isinstance(stream_options, Mapping):
        raise InputError("stream_options", stream_options, "give an object")
    response_format = body.get("response_format")
    kind = response_format.get("type") if isinstance(response_format, Mapping) else None
    return CompletionRequest(
        api=api,
        model=model,
        called=body["model"],
        prompt=_messages(body) if api == "chat/completions" else _text(body),
        sampling=sampling,
        fields={name: value for name, value in body.items() if name not in READ and (value or name != "logprobs")},
        seed=int(_number(body, "seed", secrets.randbits(31), whole=True)),
        stream=_flag(body, "stream"),
        with_usage=_flag(stream_options, "include_usage"),
        json=kind in ("json_object", "json_schema"),
    )


def _messages(body: Mapping[str, Any]) -> list[Any]:
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages or not all(isinstance(m, Mapping) for m in messages):
        raise InputError("messages", messages, "give a list of messages, one or more")
    return messages


def _text(body: Mapping[str, Any]) -> str:
    prompt = body.get("prompt")
    if not isinstance(prompt, str) or not prompt:
        raise InputError("prompt", prompt, "a method completes one text; give a string that is not empty")
    return prompt.encode(errors="replace").decode()  # UTF-8 cannot encode half of a surrogate pair


def _number(body: Mapping[str, Any], name: str, default: float, *, whole: bool = False) -> float:
    value = body.get(name)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int if whole else int | float) or not abs(value) <= MOST:
        raise InputError(name, value, f"give a {'whole ' if whole else ''}number")
    return value


def _flag(body: Mapping[str, Any], name: str) -> bool:
    value = body.get(name)
    if value not in (None, True, False):
        raise InputError(name, value, "give true or false")
    return bool(value)
