"""Anthropic's Messages API: requests become chat completions, and answers become content blocks and events.

The gateway runs no tools and keeps no files, so it refuses fields that need either. It ignores fields about caches and
speed, which do not change the answer. Source: https://platform.claude.com/docs/en/api/messages.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from thinktime.core.errors import InputError, UnknownNameError
from thinktime.gateway.errors import HttpError
from thinktime.gateway.replies import SearchOutcome, completion, deltas
from thinktime.gateway.request import CompletionRequest

SENT_ON = ("model", "stream", "temperature", "top_p")
"""Fields that have the same name in a chat request."""
IGNORED = frozenset({"anthropic_version", "anthropic_beta", "cache_control", "inference_geo", "service_tier", "speed"})
"""Fields that choose how Anthropic's own servers work. They do not change the answer."""
REFUSED = ("container", "context_management", "mcp_servers")
"""Fields that have to be absent or null: they need tools or files on the server."""
READ = frozenset(
    {*SENT_ON, *IGNORED, *REFUSED, "max_tokens", "messages", "metadata", "output_config", "stop_sequences", "system"}
    | {"thinking", "tool_choice", "tools"}
)
EFFORTS = {"low": "low", "medium": "medium", "high": "high", "xhigh": "xhigh", "max": "xhigh"}
"""OpenAI's ``reasoning_effort`` by Anthropic's ``output_config.effort``."""
ENDS = {"length": "max_tokens", "tool_calls": "tool_use", "function_call": "tool_use", "content_filter": "refusal"}
"""``stop_reason`` by the upstream's ``finish_reason``; all others are ``end_turn``."""
KINDS = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}
"""Types of errors by status. Below 500 all others are ``invalid_request_error``, and from 500 on ``api_error``."""


def as_chat(body: Mapping[str, Any]) -> dict[str, Any]:
    """Translate a request into one for chat completions. Unknown fields pass through.

    Raises:
        InputError: a field has an invalid value, or asks for something that the gateway cannot do.
    """
    for name in REFUSED:
        if body.get(name):
            raise InputError(name, body[name], "the gateway runs no tools and keeps no files; leave it out")
    limit = body.get("max_tokens")
    if isinstance(limit, bool) or not isinstance(limit, int) or limit < 1:
        raise InputError("max_tokens", limit, "give a whole number, 1 or more; this call requires it")
    chat = {name: value for name, value in body.items() if name not in READ}
    chat |= {name: body[name] for name in SENT_ON if body.get(name) is not None}
    chat |= {"max_tokens": limit, "messages": [*_system(body), *_messages(body)]}
    if body.get("stop_sequences"):
        chat["stop"] = body["stop_sequences"]
    if body.get("tools"):
        chat["tools"] = [_tool(index, tool) for index, tool in enumerate(_list("tools", body["tools"]))]
    chat |= _tool_choice(_object("tool_choice", body.get("tool_choice")))
    if user := _object("metadata", body.get("metadata")).get("user_id"):
        chat["user"] = user
    return chat | _output(_object("output_config", body.get("output_config")))


def thinking_tokens(body: Mapping[str, Any]) -> int | None:
    """The cap on the tokens of a thought; None if the request has none.

    Raises:
        InputError: ``thinking`` is not understood.
    """
    thinking = _object("thinking", body.get("thinking"))
    kind = thinking.get("type", "adaptive")
    if kind not in ("adaptive", "disabled", "enabled"):
        raise UnknownNameError("thinking.type", str(kind), ("adaptive", "disabled", "enabled"))
    if kind != "enabled":
        return None
    tokens = thinking.get("budget_tokens")
    if isinstance(tokens, bool) or not isinstance(tokens, int) or tokens < 1:
        raise InputError("thinking.budget_tokens", tokens, "give a whole number, 1 or more")
    return tokens


def error_body(error: HttpError) -> dict[str, Any]:
    """An error in the shape of this API."""
    kind = KINDS.get(error.status, "api_error" if error.status >= 500 else "invalid_request_error")
    return {**error.body, "type": "error", "error": {"type": kind, "message": error.message}}


def error_event(body: Mapping[str, Any]) -> bytes:
    """An error in a stream; Anthropic's client raises it."""
    return _event({**body, "type": "error"})


def _system(body: Mapping[str, Any]) -> list[dict[str, Any]]:
    system = body.get("system")
    return [{"role": "system", "content": _texts("system", system)}] if system else []


def _messages(body: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    given = body.get("messages")
    if not isinstance(given, list) or not given:
        raise InputError("messages", given, "give a list of messages, one or more")
    for index, message in enumerate(given):
        name = f"messages[{index}]"
        if not isinstance(message, Mapping):
            raise InputError(name, message, "give an object")
        role, content = message.get("role"), message.get("content")
        if role not in ("user", "assistant", "system"):
            raise UnknownNameError(f"{name}.role", str(role), ("user", "assistant"))
        if isinstance(content, str):
            yield {"role": role, "content": content}
        elif role == "assistant":
            yield _assistant(name, _blocks(f"{name}.content", content))
        else:
            yield from _user(name, str(role), _blocks(f"{name}.content", content))


def _assistant(name: str, blocks: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One message: texts, thoughts and calls of tools have fields of their own."""
    texts, thoughts, calls = "", "", []
    for index, block in enumerate(blocks):
        kind = block.get("type")
        if kind == "text":
            texts += str(block.get("text", ""))
        elif kind == "thinking":
            thoughts += str(block.get("thinking", ""))
        elif kind == "tool_use":
            function = {"name": block.get("name"), "arguments": json.dumps(block.get("input", {}))}
            calls.append({"id": block.get("id"), "type": "function", "function": function})
        elif kind != "redacted_thinking":  # nobody can read it
            raise UnknownNameError(f"{name}.content[{index}].type", str(kind), ("text", "thinking", "tool_use"))
    message: dict[str, Any] = {"role": "assistant", "content": texts or None}
    message |= {"reasoning_content": thoughts} if thoughts else {}
    return message | ({"tool_calls": calls} if calls else {})


def _user(name: str, role: str, blocks: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """A message for each result of a tool, in their order, then one for the rest."""
    parts = []
    for index, block in enumerate(blocks):
        where = f"{name}.content[{index}]"
        if block.get("type") == "tool_result":
            text = _texts(f"{where}.content", block.get("content") or "")
            text = f"Error: {text}" if block.get("is_error") else text
            yield {"role": "tool", "tool_call_id": block.get("tool_use_id"), "content": text}
        else:
            parts.append(_part(where, block))
    if len(parts) == 1 and parts[0]["type"] == "text":
        yield {"role": role, "content": parts[0]["text"]}
    elif parts:
        yield {"role": role, "content": parts}


def _part(name: str, block: Mapping[str, Any]) -> dict[str, Any]:
    kind = block.get("type")
    if kind == "text":
        return {"type": "text", "text": block.get("text")}
    if kind != "image":
        raise UnknownNameError(f"{name}.type", str(kind), ("text", "image", "tool_result"))
    source = _object(f"{name}.source", block.get("source"))
    if source.get("type") == "base64":
        return {
            "type": "image_url",
            "image_url": {"url": f"data:{source.get('media_type')};base64,{source.get('data')}"},
        }
    if source.get("type") == "url":
        return {"type": "image_url", "image_url": {"url": source.get("url")}}
    raise UnknownNameError(f"{name}.source.type", str(source.get("type")), ("base64", "url"))


def _texts(name: str, content: object) -> str:
    """A text, or the texts of a list of blocks, a line apart."""
    if isinstance(content, str):
        return content
    blocks = _blocks(name, content)
    for index, block in enumerate(blocks):
        if block.get("type") != "text":
            raise UnknownNameError(f"{name}[{index}].type", str(block.get("type")), ("text",))
    return "\n".join(str(block.get("text", "")) for block in blocks)


def _tool(index: int, tool: object) -> dict[str, Any]:
    if not isinstance(tool, Mapping) or tool.get("type") not in (None, "custom"):
        kind = tool.get("type") if isinstance(tool, Mapping) else tool
        raise InputError(f"tools[{index}].type", kind, "the gateway runs no tools; give tools with an input_schema")
    function = {"name": tool.get("name"), "parameters": tool.get("input_schema") or {"type": "object"}}
    return {"type": "function", "function": function | {n: tool[n] for n in ("description", "strict") if n in tool}}


def _tool_choice(choice: Mapping[str, Any]) -> dict[str, Any]:
    if not choice:
        return {}
    kind = choice.get("type")
    alone = {"parallel_tool_calls": False} if choice.get("disable_parallel_tool_use") else {}
    if kind == "tool":
        return {"tool_choice": {"type": "function", "function": {"name": choice.get("name")}}, **alone}
    named = {"auto": "auto", "any": "required", "none": "none"}
    if kind not in named:
        raise UnknownNameError("tool_choice.type", str(kind), (*named, "tool"))
    return {"tool_choice": named[str(kind)], **alone}


def _output(config: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a chat for the effort and the JSON schema of an answer."""
    found: dict[str, Any] = {}
    if (effort := config.get("effort")) is not None:
        if effort not in EFFORTS:
            raise UnknownNameError("output_config.effort", str(effort), tuple(EFFORTS))
        found["reasoning_effort"] = EFFORTS[effort]
    form = _object("output_config.format", config.get("format"))
    if form:
        if form.get("type") != "json_schema":
            raise UnknownNameError("output_config.format.type", str(form.get("type")), ("json_schema",))
        schema = {"name": "answer", "schema": form.get("schema"), "strict": True}
        found["response_format"] = {"type": "json_schema", "json_schema": schema}
    return found


def _object(name: str, value: object) -> Mapping[str, Any]:
    if value is not None and not isinstance(value, Mapping):
        raise InputError(name, value, "give an object")
    return value or {}


def _list(name: str, value: object) -> Sequence[Any]:
    if not isinstance(value, list):
        raise InputError(name, value, "give a list")
    return value


def _blocks(name: str, content: object) -> Sequence[Mapping[str, Any]]:
    if not isinstance(content, list) or not all(isinstance(block, Mapping) for block in content):
        raise InputError(name, content, "give a text, or a list of content blocks")
    return content


@dataclass
class Blocks:
    """Collects the deltas of a chat into the content blocks of one answer, and yields their events."""

    content: list[dict[str, Any]] = field(default_factory=list)
    _open: bool = False
    _call: int | None = None
    """The index of the tool call whose block is open."""
    _arguments: str = ""

    def add(self, delta: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """Add a delta of a message."""
        if thoughts := delta.get("reasoning_content") or delta.get("reasoning"):
            yield from self._say("thinking", thoughts)
        if text := delta.get("content") or delta.get("refusal"):
            yield from self._say("text", text)
        for index, call in enumerate(delta.get("tool_calls") or ()):
            yield from self._calls(call.get("index", index), call)

    def close(self) -> Iterator[dict[str, Any]]:
        """End the open block."""
        if not self._open:
            return
        self._open = False
        block = self.content[-1]
        if block["type"] == "tool_use":
            block["input"] = _arguments(self._arguments)
        yield {"type": "content_block_stop", "index": len(self.content) - 1}

    def _say(self, kind: str, text: str) -> Iterator[dict[str, Any]]:
        if not self._open or self.content[-1]["type"] != kind:
            more = {"signature": ""} if kind == "thinking" else {}
            yield from self._begin({"type": kind, kind: "", **more})
        self.content[-1][kind] += text
        yield self._delta({"type": f"{kind}_delta", kind: text})

    def _calls(self, index: int, call: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        function = call.get("function") or {}
        if not self._open or self.content[-1]["type"] != "tool_use" or self._call != index:
            yield from self._begin(
                {"type": "tool_use", "id": call.get("id"), "name": function.get("name"), "input": {}}
            )
            self._call, self._arguments = index, ""
        if arguments := function.get("arguments"):
            self._arguments += arguments
            yield self._delta({"type": "input_json_delta", "partial_json": arguments})

    def _begin(self, block: dict[str, Any]) -> Iterator[dict[str, Any]]:
        yield from self.close()
        self.content.append(block)
        self._open = True
        yield {"type": "content_block_start", "index": len(self.content) - 1, "content_block": dict(block)}

    def _delta(self, delta: Mapping[str, Any]) -> dict[str, Any]:
        return {"type": "content_block_delta", "index": len(self.content) - 1, "delta": delta}


def _arguments(text: str) -> dict[str, Any]:
    """The input of a tool. A model may write what is no JSON object: then the text is the value of ``arguments``."""
    try:
        value = json.loads(text or "{}")
    except (ValueError, RecursionError):
        value = None
    return value if isinstance(value, dict) else {"arguments": text}


class Message:
    """Builds one answer in this API: an object, or the events of a stream."""

    def __init__(self, request: CompletionRequest, body: Mapping[str, Any]) -> None:
        self._blocks = Blocks()
        self._stops = body.get("stop_sequences") or ()
        self._head = {
            "id": f"msg_{request.problem.id}",
            "type": "message",
            "role": "assistant",
            "model": request.called,
        }

    def whole(self, outcome: SearchOutcome) -> dict[str, Any]:
        """The answer as one object."""
        *_, last, _ = self._closing(outcome)
        content = {"content": self._blocks.content, **last["delta"]}
        return {**self._head, **content, "usage": last["usage"], "thinktime": last["thinktime"]}

    def opening(self) -> bytes:
        """The first event: a message without content. Its usage is unknown until the end."""
        usage = {"input_tokens": 0, "output_tokens": 0}
        ended = {"stop_reason": None, "stop_sequence": None}
        return _event({"type": "message_start", "message": {**self._head, "content": [], **ended, "usage": usage}})

    def progress(self, text: str) -> bytes:
        """Progress of the search, as a comment in the stream."""
        return b": " + text.encode() + b"\n"

    def forwarded(self, event: Mapping[str, Any]) -> bytes:
        """The events for a chat event of the upstream."""
        return b"".join(_event(found) for delta in deltas(event) for found in self._blocks.add(delta))

    def closing(self, outcome: SearchOutcome) -> Iterator[bytes]:
        """The events of the answer unless it was streamed, then why it ended, its usage and its account."""
        return map(_event, self._closing(outcome))

    def _closing(self, outcome: SearchOutcome) -> Iterator[dict[str, Any]]:
        chat = completion(outcome)
        (choice,) = chat["choices"]
        content = self._blocks.content
        if not content:
            yield from self._blocks.add(choice["message"])
        elif outcome.state.text and all(block["type"] == "thinking" for block in content):
            yield from self._blocks.add({"content": outcome.state.text})  # the upstream takes it all for a thought
        yield from self._blocks.close()
        ended = {"stop_reason": ENDS.get(choice["finish_reason"], "end_turn"), "stop_sequence": None}
        if choice.get("stop_reason") in self._stops:  # vLLM and SGLang say which one it was
            ended = {"stop_reason": "stop_sequence", "stop_sequence": choice["stop_reason"]}
        yield {"type": "message_delta", "delta": ended, "usage": _usage(chat["usage"]), "thinktime": chat["thinktime"]}
        yield {"type": "message_stop"}


def _usage(chat: Mapping[str, Any] | None) -> dict[str, int]:
    """All tokens of all samples in the shape of this API.

    Its clients expect numbers, so what the upstream does not count is 0; the account says null.
    """
    if chat is None:
        return {"input_tokens": 0, "output_tokens": 0}
    cached = chat["prompt_tokens_details"]["cached_tokens"]
    usage = {"input_tokens": chat["prompt_tokens"] - cached, "output_tokens": chat["completion_tokens"]}
    return usage | {"cache_read_input_tokens": cached, "cache_creation_input_tokens": 0}


def _event(event: Mapping[str, Any]) -> bytes:
    return f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode()
