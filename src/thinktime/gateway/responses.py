"""OpenAI's Responses API: requests become chat completions, and answers become items and events.

The gateway stores nothing and runs no tools, so it refuses fields that need either.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from thinktime.core.errors import InputError, UnknownNameError
from thinktime.gateway.replies import SearchOutcome, completion, deltas
from thinktime.gateway.request import CompletionRequest

UNSTORED = "the gateway stores nothing; leave it out and send the whole conversation as input"
REFUSED = {
    "background": "the gateway keeps no answers; leave it out, and wait or stream",
    "conversation": UNSTORED,
    "max_tool_calls": "the gateway runs no tools; leave it out",
    "previous_response_id": UNSTORED,
    "prompt": "the gateway keeps no templates; send their text as instructions and input",
    "store": UNSTORED,
}
"""Fields that have to be absent, null or false."""
INCLUDED = ("message.output_text.logprobs", "reasoning.encrypted_content")
"""Values that ``include`` may have. Thoughts are sent unencrypted, so the second one changes nothing."""
SENT_ON = ("parallel_tool_calls", "stream", "temperature", "top_logprobs", "top_p")
"""Fields that have the same name in a chat request."""
REPEATED = (
    *("instructions", "max_output_tokens", "metadata", "parallel_tool_calls", "reasoning", "temperature", "text"),
    *("tool_choice", "tools", "top_p", "user"),
)
"""Fields that the answer repeats."""
READ = frozenset({"include", "input", "stream_options", "truncation", *REFUSED, *SENT_ON, *REPEATED}) - {"user"}
DEFAULTS: dict[str, Any] = {"metadata": {}, "parallel_tool_calls": True, "text": {"format": {"type": "text"}}}
DEFAULTS |= {"tool_choice": "auto", "tools": [], "temperature": 1.0, "top_p": 1.0}


def as_chat(body: Mapping[str, Any]) -> dict[str, Any]:
    """Translate a request into one for chat completions. Unknown fields pass through.

    Raises:
        InputError: a field has an invalid value, or asks for something that the gateway cannot do.
    """
    for name, fix in REFUSED.items():
        if body.get(name):
            raise InputError(name, body[name], fix)
    if body.get("truncation") not in (None, "disabled"):
        raise InputError(
            "truncation", body["truncation"], 'the gateway does not truncate; give "disabled", and shorten the input'
        )
    if _object(body, "stream_options").get("include_obfuscation"):
        raise InputError("stream_options.include_obfuscation", True, "the gateway does not pad events; give false")
    chat = {name: value for name, value in body.items() if name not in READ}
    chat |= {name: body[name] for name in SENT_ON if body.get(name) is not None}
    chat["messages"] = _messages(body)
    limit = body.get("max_output_tokens")
    if limit is not None:
        if isinstance(limit, bool) or not isinstance(limit, int) or limit < 1:
            raise InputError("max_output_tokens", limit, "give a whole number, 1 or more")
        chat["max_completion_tokens"] = limit
    if body.get("tools"):
        chat["tools"] = [_tool(index, tool) for index, tool in enumerate(_list(body, "tools"))]
    if body.get("tool_choice") is not None:
        chat["tool_choice"] = _tool_choice(body["tool_choice"])
    for name in _list(body, "include"):
        if name not in INCLUDED:
            raise UnknownNameError("include", str(name), INCLUDED)
    if "message.output_text.logprobs" in _list(body, "include") or body.get("top_logprobs"):
        chat["logprobs"] = True
    reasoning, text = _object(body, "reasoning"), _object(body, "text")
    if reasoning.get("summary") is not None:
        raise InputError("reasoning.summary", reasoning["summary"], "the gateway makes no summaries; leave it out")
    if reasoning.get("effort") is not None:
        chat["reasoning_effort"] = reasoning["effort"]
    if text.get("verbosity") is not None:
        chat["verbosity"] = text["verbosity"]
    form = _object(text, "format")
    if form.get("type") == "json_schema":
        schema = {name: value for name, value in form.items() if name != "type"}
        chat["response_format"] = {"type": "json_schema", "json_schema": schema}
    elif form.get("type") == "json_object":
        chat["response_format"] = dict(form)
    elif form.get("type", "text") != "text":
        raise UnknownNameError("text.format.type", str(form["type"]), ("text", "json_object", "json_schema"))
    return chat


def _messages(body: Mapping[str, Any]) -> list[dict[str, Any]]:
    given, instructions = body.get("input"), body.get("instructions")
    messages: list[dict[str, Any]] = [{"role": "system", "content": instructions}] if instructions else []
    if isinstance(given, str) and given:
        return [*messages, {"role": "user", "content": given}]
    if not isinstance(given, list) or not given:
        raise InputError("input", given, "give a text, or a list of items")
    thoughts = ""
    for index, item in enumerate(given):
        name = f"input[{index}]"
        if not isinstance(item, Mapping):
            raise InputError(name, item, "give an object")
        kind = item.get("type", "message")
        last = messages[-1] if messages and messages[-1]["role"] == "assistant" and not thoughts else None
        if kind == "message":
            role = {"developer": "system"}.get(str(item.get("role")), str(item.get("role")))
            if role not in ("user", "assistant", "system"):
                raise UnknownNameError(f"{name}.role", role, ("user", "assistant", "system", "developer"))
            messages.append({"role": role, "content": _content(name, item.get("content"))})
        elif kind == "function_call":
            call = {"name": item.get("name"), "arguments": item.get("arguments")}
            if last is None:
                messages.append(last := {"role": "assistant", "content": None})
            calls = last.setdefault("tool_calls", [])
            calls.append({"id": item.get("call_id"), "type": "function", "function": call})
        elif kind == "function_call_output":
            output = _content(f"{name}.output", item.get("output"))
            messages.append({"role": "tool", "tool_call_id": item.get("call_id"), "content": output})
        elif kind == "reasoning":
            parts = item.get("content") or item.get("summary") or []
            thoughts += "".join(str(part.get("text", "")) for part in parts if isinstance(part, Mapping))
            continue
        else:
            known = ("message", "function_call", "function_call_output", "reasoning")
            raise UnknownNameError(f"{name}.type", str(kind), known)
        if thoughts and messages[-1]["role"] == "assistant":
            messages[-1]["reasoning_content"], thoughts = thoughts, ""
    return messages


def _content(name: str, content: object) -> Any:
    """The content of a chat message: a string if it is one text, else a list of parts."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list) or not all(isinstance(part, Mapping) for part in content):
        raise InputError(f"{name}.content", content, "give a text, or a list of parts")
    parts = [_part(f"{name}.content[{index}]", part) for index, part in enumerate(content)]
    return parts[0]["text"] if len(parts) == 1 and parts[0]["type"] == "text" else parts


def _part(name: str, part: Mapping[str, Any]) -> dict[str, Any]:
    kind = part.get("type")
    if kind in ("input_text", "output_text", "refusal"):
        return {"type": "text", "text": part.get("refusal" if kind == "refusal" else "text")}
    if part.get("file_id") or part.get("file_url"):
        raise InputError(f"{name}.file", "…", "the gateway fetches no files; send image_url, or file_data")
    if kind == "input_image":
        detail = {"detail": part["detail"]} if part.get("detail") else {}
        return {"type": "image_url", "image_url": {"url": part.get("image_url"), **detail}}
    if kind == "input_file":
        return {"type": "file", "file": {n: part[n] for n in ("file_data", "filename") if part.get(n)}}
    if kind == "input_audio":
        return {"type": "input_audio", "input_audio": part.get("input_audio")}
    raise UnknownNameError(f"{name}.type", str(kind), ("input_text", "input_image", "input_file", "input_audio"))


def _tool(index: int, tool: object) -> dict[str, Any]:
    if not isinstance(tool, Mapping) or tool.get("type") != "function":
        kind = tool.get("type") if isinstance(tool, Mapping) else tool
        raise InputError(f"tools[{index}].type", kind, "the gateway runs no tools; give function tools")
    return {"type": "function", "function": {name: value for name, value in tool.items() if name != "type"}}


def _tool_choice(choice: object) -> Any:
    if choice in ("auto", "none", "required"):
        return choice
    if isinstance(choice, Mapping) and choice.get("type") == "function":
        return {"type": "function", "function": {"name": choice.get("name")}}
    raise InputError("tool_choice", choice, 'give auto, none, required, or {"type": "function", "name": …}')


def _object(body: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = body.get(name) or {}
    if not isinstance(value, Mapping):
        raise InputError(name, value, "give an object")
    return value


def _list(body: Mapping[str, Any], name: str) -> Sequence[Any]:
    value = body.get(name) or []
    if not isinstance(value, list):
        raise InputError(name, value, "give a list")
    return value


@dataclass
class Items:
    """Collects the deltas of a chat into the output items of one answer, and yields their events."""

    name: str
    """The common part of all item ids."""
    output: list[dict[str, Any]] = field(default_factory=list)
    _open: bool = False
    _calls: dict[int, int] = field(default_factory=dict)
    """Position of each tool call in the output, by its index."""

    def add(self, delta: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """Add a delta of a message."""
        if thoughts := delta.get("reasoning_content") or delta.get("reasoning"):
            yield from self._say("reasoning", "reasoning_text", thoughts)
        if content := delta.get("content"):
            yield from self._say("message", "output_text", content)
        if refusal := delta.get("refusal"):
            yield from self._say("message", "refusal", refusal)
        for index, call in enumerate(delta.get("tool_calls") or ()):
            yield from self._call(call.get("index", index), call)

    def close(self, logprobs: Sequence[Any] = ()) -> Iterator[dict[str, Any]]:
        """End the open item; an answer without output becomes an empty message."""
        if not self.output:
            yield from self._begin("message", "output_text")
        for item in self.output:
            if item["type"] == "message" and item["content"][0]["type"] == "output_text":
                item["content"][0]["logprobs"] = list(logprobs)
        yield from self._end()

    def _say(self, kind: str, part: str, text: str) -> Iterator[dict[str, Any]]:
        if not self._open or self.output[-1]["type"] != kind or self.output[-1]["content"][0]["type"] != part:
            yield from self._begin(kind, part)
        content = self.output[-1]["content"][0]
        content[_word(part)] += text
        more: dict[str, Any] = {"logprobs": []} if part == "output_text" else {}
        yield self._of_part(f"response.{part}.delta", delta=text, **more)

    def _begin(self, kind: str, part: str) -> Iterator[dict[str, Any]]:
        yield from self._end()
        empty: dict[str, Any] = {"type": part, _word(part): ""}
        empty |= {"annotations": [], "logprobs": []} if part == "output_text" else {}
        more: dict[str, Any] = {"summary": []} if kind == "reasoning" else {"role": "assistant"}
        self._add({"type": kind, "status": "in_progress", **more, "content": []})
        yield self._of_item("response.output_item.added")
        self.output[-1]["content"].append(empty)
        yield self._of_part("response.content_part.added", part=dict(empty))

    def _call(self, index: int, call: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        function = call.get("function") or {}
        if index not in self._calls:
            yield from self._end()
            self._calls[index] = len(self.output)
            named = {"call_id": call.get("id"), "name": function.get("name"), "arguments": ""}
            self._add({"type": "function_call", "status": "in_progress", **named})
            yield self._of_item("response.output_item.added")
        if arguments := function.get("arguments"):
            item = self.output[self._calls[index]]
            item["arguments"] += arguments
            fields = {"item_id": item["id"], "output_index": self._calls[index], "delta": arguments}
            yield {"type": "response.function_call_arguments.delta", **fields}

    def _end(self) -> Iterator[dict[str, Any]]:
        if not self._open:
            return
        self._open, item = False, self.output[-1]
        item["status"] = "completed"
        if item["type"] == "function_call":
            fields = {"item_id": item["id"], "output_index": len(self.output) - 1}
            fields |= {"name": item["name"], "arguments": item["arguments"]}
            yield {"type": "response.function_call_arguments.done", **fields}
        else:
            part = item["content"][0]
            fields = {_word(part["type"]): part[_word(part["type"])]}
            fields |= {"logprobs": part["logprobs"]} if "logprobs" in part else {}
            yield self._of_part(f"response.{part['type']}.done", **fields)
            yield self._of_part("response.content_part.done", part=dict(part))
        yield self._of_item("response.output_item.done")

    def _add(self, item: dict[str, Any]) -> None:
        prefix = {"message": "msg", "reasoning": "rs", "function_call": "fc"}[item["type"]]
        self.output.append({"id": f"{prefix}_{self.name}_{len(self.output)}", **item})
        self._open = True

    def _of_item(self, kind: str) -> dict[str, Any]:
        item = json.loads(json.dumps(self.output[-1]))  # a copy, because the item still grows
        return {"type": kind, "output_index": len(self.output) - 1, "item": item}

    def _of_part(self, kind: str, **more: Any) -> dict[str, Any]:
        at = {"item_id": self.output[-1]["id"], "output_index": len(self.output) - 1, "content_index": 0}
        return {"type": kind, **at, **more}


def _word(part: str) -> str:
    return "refusal" if part == "refusal" else "text"


class Response:
    """Builds one answer in this API: an object, or the events of a stream."""

    def __init__(self, request: CompletionRequest, body: Mapping[str, Any]) -> None:
        self._items, self._sent = Items(request.problem.id), 0
        repeated = {name: DEFAULTS.get(name) if body.get(name) is None else body[name] for name in REPEATED}
        head = {"id": f"resp_{request.problem.id}", "object": "response", "created_at": int(time.time())}
        fixed = {"previous_response_id": None, "store": False, "truncation": "disabled"}
        self._head = {**head, "model": request.called, **repeated, **fixed, "error": None}
        begun = {**self._head, "status": "in_progress", "incomplete_details": None, "output": [], "usage": None}
        kinds = ("response.created", "response.in_progress")
        self._opening = b"".join(self._event({"type": kind, "response": begun}) for kind in kinds)

    def whole(self, outcome: SearchOutcome) -> dict[str, Any]:
        """The answer as one object."""
        *_, last = self._closing(outcome)
        found: dict[str, Any] = last["response"]
        return found

    def opening(self) -> bytes:
        """The first events, which repeat the request."""
        return self._opening

    def progress(self, text: str) -> bytes:
        """Progress of the search, as a comment in the stream."""
        return b": " + text.encode() + b"\n"

    def forwarded(self, event: Mapping[str, Any]) -> bytes:
        """The events for a chat event of the upstream."""
        return b"".join(self._event(found) for delta in deltas(event) for found in self._items.add(delta))

    def closing(self, outcome: SearchOutcome) -> Iterator[bytes]:
        """The events of the answer unless it was streamed, then the whole answer."""
        return (self._event(event) for event in self._closing(outcome))

    def _closing(self, outcome: SearchOutcome) -> Iterator[dict[str, Any]]:
        chat = completion(outcome)
        (choice,) = chat["choices"]
        if not self._items.output:
            yield from self._items.add(choice["message"])
        elif outcome.state.text and all(item["type"] == "reasoning" for item in self._items.output):
            yield from self._items.add({"content": outcome.state.text})  # the upstream takes it all for a thought
        yield from self._items.close((choice["logprobs"] or {}).get("content") or ())
        cut = {"length": "max_output_tokens", "content_filter": "content_filter"}.get(choice["finish_reason"])
        status = "completed" if cut is None else "incomplete"
        response = {**self._head, "status": status}
        response |= {"incomplete_details": cut and {"reason": cut}, "output": self._items.output}
        response |= {"usage": _usage(chat["usage"], outcome), "thinktime": chat["thinktime"]}
        yield {"type": f"response.{status}", "response": response}

    def _event(self, event: Mapping[str, Any]) -> bytes:
        line = {**event, "sequence_number": self._sent}
        self._sent += 1
        return f"event: {event['type']}\ndata: {json.dumps(line)}\n\n".encode()


def _usage(chat: Mapping[str, Any] | None, outcome: SearchOutcome) -> dict[str, Any] | None:
    """The usage of a chat in the shape of this API.

    Its clients expect numbers, so uncounted thoughts are 0. Cache writes are always 0.
    """
    if chat is None:
        return None
    nodes = [record.node for record in outcome.search.trace.values() if record.node.parent is not None]
    thoughts = sum(node.state.thinking or 0 for node in nodes)
    return {
        "input_tokens": chat["prompt_tokens"],
        "input_tokens_details": {**chat["prompt_tokens_details"], "cache_write_tokens": 0},
        "output_tokens": chat["completion_tokens"],
        "output_tokens_details": {"reasoning_tokens": thoughts},
        "total_tokens": chat["total_tokens"],
    }
