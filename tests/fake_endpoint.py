"""An OpenAI-compatible endpoint that samples words, with the faults that a test gives it. Plain asyncio.

    python tests/fake_endpoint.py --latency 0.05     # prints its port; for benchmarks

Its model solves every question in three lines, one token per word. The last line is sometimes wrong.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import threading
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from random import Random
from typing import Any

from waiting import PATIENCE

MODELS = ("words", "other-words")


@dataclass
class FakeEndpoint:
    """Its behaviour, and a record of its clients' requests. All fields may be changed while it runs."""

    latency: float = 0.0
    pace: float = 0.0
    """Seconds between the events of a stream."""
    sprint: int = 0
    """Events that a stream sends at once. Then it waits until an answer has ``ended``, and goes on at its pace."""
    limits: tuple[str, ...] = ("max_tokens", "max_completion_tokens")
    """The length limits that it knows; the first one in a request counts."""
    n: str = "honoured"
    """Or ``copies`` (all samples are the same, if there is a seed), ``ignored`` (one sample), or ``refused`` (400)."""
    usage: bool = True
    counts_all: bool = True
    """Whether the usage counts all samples of a request, or only the first one (llama.cpp)."""
    streams: bool = True
    logprobs: bool = True
    seeds: bool = True
    continues: bool | str = True
    """Whether a chat continues its last assistant message on request; ``always``: also without a request."""
    echoes: bool = False
    """Whether such a continuation repeats that message."""
    stops: str = "named"
    """How it treats a stop string: ``named`` (vLLM), ``echoed`` (transformers), ``echoed if asked``, ``silent``, or
    ``unlisted`` (llama.cpp: counted, but without a log-probability)."""
    thinks: str = ""
    """How it returns thoughts: ``marked``, ``apart``, ``hidden``, or empty if it does not think."""
    thought: int = 0
    """Number of words in a thought; 0: as many as in the answer."""
    begins: bool = False
    """Whether its template begins the thought, so that the text has only the end mark."""
    forgets: bool = False
    """Whether its template drops the thought of a message that it continues."""
    caps: str = ""
    """The field that caps a thought; a dot means a nested object."""
    counts_thoughts: bool = False
    """Whether the usage has the number of thought tokens."""
    relapses: bool = False
    """Whether it thinks again after the end of a thought."""
    slots: int | None = None
    """The number of slots in its properties; None: it has no properties."""
    busy: int = 0
    """Requests for samples that it works on."""
    busiest: int = 0
    """Most of them at once."""
    identical: bool = False
    reasons: bool = False
    """Whether a message has a thought in a field of its own."""
    says: list[str] = field(default_factory=list)
    """Replies in place of solutions, used in turn."""
    lists_models: bool = True
    refuses: tuple[str, ...] = ()
    """Fields that it refuses with a 400."""
    replies: deque[str] = field(default_factory=deque)
    """Replies of the next samples in place of solutions, one for each."""
    rewards: str = "lines"
    """What /pooling scores: ``lines``, ``tags``, ``tokens``, or ``one`` for the whole text."""
    candidates: list[dict[str, Any]] = field(default_factory=list)
    """Candidates for every token, if the request has ``top_logprobs``."""
    sent: deque[bytes] = field(default_factory=deque)
    """The next replies to requests for samples, whole with their head, in place of all others. See `written`."""
    key: str | None = None
    context: int = 10_000
    faults: deque[str] = field(default_factory=deque)
    """Faults of the next requests for samples, one for each; ``""`` is no fault."""
    silent: str = ""
    """Requests for samples of models whose name contains this wait until it is empty."""
    spoils: str = ""
    """Every request with this text gets garbage."""
    requests: list[dict[str, Any]] = field(default_factory=list)
    """The body of every request for samples."""
    headers: list[dict[str, str]] = field(default_factory=list)
    """The headers of the same requests."""
    prompt_tokens: int = 0
    generated_tokens: int = 0
    connections: int = 0
    left: int = 0
    """Number of clients that disconnected before their answer."""
    port: int = 0
    ended: int = 0
    """Answers that were sent to their end."""
    _drawn: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    async def serve(self, port: int = 0) -> asyncio.Server:
        server = await asyncio.start_server(self._connection, "127.0.0.1", port, backlog=2048)
        self.port = server.sockets[0].getsockname()[1]
        return server

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                lines = head.decode().split("\r\n")
                headers = {
                    name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])
                }
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                gone = asyncio.ensure_future(reader.read(1))
                gone.add_done_callback(lambda done: done.cancelled() or done.exception())  # a reset is no fault here
                answering = asyncio.ensure_future(self._answer(lines[0].split()[1], headers, body))
                await asyncio.wait({gone, answering}, return_when=asyncio.FIRST_COMPLETED)
                if not answering.done():
                    answering.cancel()
                    self.left += 1
                    break
                answer = answering.result()
                head, *events = answer if isinstance(answer, list) else [answer]
                self.ended += not events  # before the client can see its answer, because a test may then set it to 0
                writer.write(head)
                if not await self._send(events, writer, gone):
                    self.left += 1
                    break
                gone.cancel()
                await asyncio.wait({gone})
                await writer.drain()
                if answer[-1] == HALF or (isinstance(answer, bytes) and answer.endswith(CUT)):
                    break
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    async def _send(self, events: list[bytes], writer: asyncio.StreamWriter, gone: asyncio.Future[bytes]) -> bool:
        """Send the events of a stream; return whether the client stayed to the end."""
        with suppress(ConnectionError):
            for place, event in enumerate(events):
                while self.sprint and place >= self.sprint and not self.ended and not gone.done():
                    await asyncio.wait({gone}, timeout=0.01)
                if self.pace and event and place >= self.sprint:
                    await asyncio.wait({gone}, timeout=self.pace)
                if gone.done():
                    return False
                self.ended += place == len(events) - 1
                writer.write(b"%x\r\n%s\r\n" % (len(event), event))
                await writer.drain()
            return not gone.done()
        return False

    async def _answer(self, path: str, headers: dict[str, str], raw: bytes) -> bytes | list[bytes]:
        if self.key is not None and headers.get("authorization") != f"Bearer {self.key}":
            return _error(401, "bad key")
        if path == "/v1/models":
            data = [{"id": name, "object": "model"} for name in MODELS]
            return _reply(200, {"object": "list", "data": data}) if self.lists_models else _error(404, "not found")
        if path == "/props" and self.slots:
            return _reply(200, {"total_slots": self.slots, "model_path": "words.gguf"})
        if path not in ("/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/pooling", "/classify", "/score"):
            return _error(404, "not found")
        body = json.loads(raw)
        self.requests.append(body)
        self.headers.append(headers)
        if self.sent:
            return self.sent.popleft()
        fault = self.faults.popleft() if self.faults else ""
        if self.spoils and self.spoils in raw.decode():
            fault = "garbage"
        self.busy += 1
        self.busiest = max(self.busy, self.busiest)
        try:
            await asyncio.sleep(3600 if fault == "never" else self.latency)
        finally:
            self.busy -= 1
        while self.silent and self.silent in body["model"]:
            await asyncio.sleep(0.01)
        if fault == "moved":
            return _raw(301, b"<html>Moved</html>", "text/html", {"Location": "/elsewhere"})
        if fault.startswith(("429", "5")):
            status, _, wait = fault.partition(":")
            return _error(int(status), "not now", {"Retry-After": wait} if wait else {})
        if body["model"] not in MODELS:
            return _error(404, f"The model `{body['model']}` does not exist.")
        for name in self.refuses:
            if name in body:
                return _error(400, f"unknown field {name}")
        if self.n == "refused" and body.get("n", 1) > 1:
            return _error(400, "only one completion choice is allowed")
        try:
            if path == "/v1/embeddings":
                return self._embedded(body)
            return self._sampled(path, body, fault) if path.startswith("/v1") else self._rewarded(path, body, fault)
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            return _error(400, f"a field has another form: {type(error).__name__}")

    def _embedded(self, body: dict[str, Any]) -> bytes:
        """A vector with the number of words of each text."""
        texts = [body["input"]] if isinstance(body["input"], str) else body["input"]
        lengths = [len(text.split()) for text in texts]
        self.prompt_tokens += sum(lengths)
        data = [{"object": "embedding", "index": i, "embedding": [float(n)]} for i, n in enumerate(lengths)]
        usage = {"prompt_tokens": sum(lengths), "total_tokens": sum(lengths)}
        return _reply(200, {"object": "list", "data": data, "model": body["model"], "usage": usage})

    def _rewarded(self, path: str, body: dict[str, Any], fault: str) -> bytes:
        """A reward for every position of a text: a thousandth of the length up to there."""
        if path == "/score":
            pair = {"index": 0, "score": len(body["text_2"]) / 1000}
            return _reply(200, {"object": "list", "data": [pair], "usage": {"prompt_tokens": 5, "total_tokens": 5}})
        text = body["messages"][-1]["content"]
        if fault == "garbage":
            return _raw(200, b"[0.5", "application/json")
        indices = {"lines": r"\n", "tags": "<extra_0>", "tokens": r"\S+", "one": "$"}[self.rewards]
        pairs = [[1 - match.end() / 1000, match.end() / 1000] for match in re.finditer(indices, text)]
        item = {"index": 0, "data": pairs if self.rewards != "one" else pairs[-1]}
        if path == "/classify":
            item = {"index": 0, "probs": pairs[-1], "num_classes": 2}
        read = sum(len(_tokens(message["content"])) + 3 for message in body["messages"])
        self.prompt_tokens += read
        reply: dict[str, Any] = {"object": "list", "model": body["model"], "data": [item]}
        if self.usage and fault != "no usage":
            reply["usage"] = {"prompt_tokens": read, "total_tokens": read}
        return _reply(200, reply)

    def _sampled(self, path: str, body: dict[str, Any], fault: str) -> bytes | list[bytes]:
        chat = path == "/v1/chat/completions"
        messages = body["messages"] if chat else []
        last = messages[-1] if messages else {"role": "user", "content": body.get("prompt", "")}
        requested = body.get("continue_final_message", False) or self.continues == "always"
        continued = not chat or (self.continues and requested and last["role"] == "assistant")
        prefix = str(last["content"]) if continued else ""
        read = sum(len(_tokens(_content(m))) + 3 for m in messages) if chat else len(_tokens(body["prompt"]))
        read -= 3 if chat and continued else 0
        read -= len(_tokens(prefix.partition("</think>")[0])) if self.forgets and "</think>" in prefix else 0
        limit = next((body[name] for name in self.limits if name in body), 16)
        if read + limit > self.context:
            return _error(400, f"This model's maximum context length is {self.context} tokens.")
        choices = []
        for index in range(body.get("n", 1) if self.n in ("honoured", "copies") else 1):
            self._drawn += 1
            noise = body["seed"] + index * (self.n != "copies") if self.seeds and "seed" in body else -self._drawn
            solution = _solution(prefix, noise * (not self.identical))
            text = self.says[self._drawn % len(self.says)] if self.says else solution
            text = self.replies.popleft() if self.replies else text
            choices.append(self._choice(index, chat, body, text, limit, prefix))
        thoughts = sum(choice.pop("thoughts") for choice in choices)
        each = [choice.pop("tokens") for choice in choices]
        new = sum(each)
        self.prompt_tokens += read
        self.generated_tokens += new
        reply: dict[str, Any] = {"id": "x", "object": "chat.completion", "model": body["model"], "choices": choices}
        if self.usage and fault != "no usage":
            reported = new if self.counts_all else each[0]
            reply["usage"] = {"prompt_tokens": read, "completion_tokens": reported, "total_tokens": read + reported}
            if self.counts_thoughts:
                reply["usage"]["completion_tokens_details"] = {"reasoning_tokens": thoughts}
        if fault == "one list is missing":
            choices[1]["logprobs"] = None
        if fault == "no finish":
            del choices[0]["finish_reason"]
        if fault == "no text" and chat:
            choices[0]["message"]["content"] = None
        if fault == "no choices":
            reply["choices"] = []
        if body.get("stream") and self.streams and fault in STREAMED:
            return _events(reply, bool((body.get("stream_options") or {}).get("include_usage")), fault)
        if fault == "html":
            return _raw(200, b"<html>Sign in</html>", "text/html")
        if fault == "half a character" and chat:
            choices[0]["message"]["content"] += "\ud83d"
        whole = json.dumps(reply).encode() if fault != "deep" else b"[" * 100_000
        if fault == "garbage":
            return _raw(200, whole[: len(whole) // 2], "application/json")
        if fault == "cut":
            return _raw(200, whole, "application/json")[: -len(whole) // 2] + CUT
        return _raw(200, whole, "application/json")

    def _choice(
        self, index: int, chat: bool, body: dict[str, Any], text: str, limit: int, prefix: str
    ) -> dict[str, Any]:
        tokens = _tokens(self._thinking(text, body, prefix) if self.thinks else text)
        reason: str = "stop" if len(tokens) <= limit else "length"
        tokens = tokens[:limit]
        met = None
        for stop in body.get("stop", []):
            for at, token in enumerate(tokens):
                if stop in token:
                    tokens, reason, met = tokens[: at + 1], "stop", stop
                    break
        text = "".join(tokens)
        thought = len(_tokens(text.partition("</think>")[0].replace("<think> ", ""))) if self.thinks else 0
        requested = self.stops == "echoed if asked" and body.get("include_stop_str_in_output")
        if met and not (self.stops == "echoed" or requested):
            text = text[: text.index(met)]
        choice: dict[str, Any] = {"index": index, "finish_reason": reason}
        choice["thoughts"] = 0 if "</think>" in prefix else thought
        choice["tokens"] = len(tokens) + (met is not None and self.stops == "unlisted")
        if self.stops == "named":
            choice["stop_reason"] = met
        if self.echoes and chat and body["messages"][-1]["role"] == "assistant":
            text = str(body["messages"][-1]["content"]) + text
        if chat:
            choice["message"] = {"role": "assistant", "content": text}
            if self.reasons:
                choice["message"]["reasoning_content"] = "Let me see."
            if body.get("tools") and reason == "stop" and text[-1:].isdigit():
                choice["message"] |= {"content": None, "tool_calls": [_tool_call(body["tools"][0], text)]}
                choice["finish_reason"] = "tool_calls"
            elif body.get("response_format"):
                choice["message"]["content"] = json.dumps({"sum": int(text[-1])}, indent=ord(text[0]) % 3 or None)
        else:
            choice["text"] = text
        if self.thinks in ("apart", "hidden"):
            thoughts, _, rest = text.removeprefix("<think> ").partition("</think> ")
            choice["message"] = {"role": "assistant", "content": rest or None}
            if self.thinks == "apart":
                choice["message"]["reasoning_content"] = thoughts
        if self.logprobs and chat and body.get("logprobs"):
            top = {"top_logprobs": self.candidates} if body.get("top_logprobs") else {}
            choice["logprobs"] = {"content": [{"token": token, "logprob": -0.5} | top for token in tokens]}
        elif self.logprobs and not chat and "logprobs" in body:
            choice["logprobs"] = {"tokens": tokens, "token_logprobs": [-0.5] * len(tokens)}
        return choice

    def _thinking(self, text: str, body: dict[str, Any], prefix: str) -> str:
        """The text with its thought first, without the part that the prefix already has."""
        if "</think>" in prefix:
            return f"<think> {text} </think> {text}" if self.relapses else text
        outer, _, inner = self.caps.partition(".")
        cap = body.get(outer, {}).get(inner) if inner else body.get(outer)
        words = _tokens(text) if not self.thought else [f"hm{index} " for index in range(self.thought)]
        thought = "".join(words[:cap]).rstrip()
        opening = "" if self.begins or prefix.lstrip().startswith("<think>") else "<think> "
        return f"{opening}{thought} </think> {text}"


def _content(message: dict[str, Any]) -> str:
    content = message.get("content") or ""
    return content if isinstance(content, str) else " ".join(part.get("text", "picture") for part in content)


def _tool_call(tool: dict[str, Any], text: str) -> dict[str, Any]:
    """A tool call whose argument is the last digit of the text; its spelling depends on the beginning of the text."""
    pairs = [("unit", "apples"), ("count", int(text[-1]))]
    arguments = json.dumps(dict(pairs if text.startswith("so") else reversed(pairs)), indent=ord(text[0]) % 3 or None)
    function = {"name": tool["function"]["name"], "arguments": arguments}
    return {"id": f"call_{Random(text).getrandbits(32)}", "type": "function", "function": function}


def _events(reply: dict[str, Any], with_usage: bool, fault: str) -> list[bytes]:
    """A reply as a stream: the head, then one event per token."""
    base = {name: value for name, value in reply.items() if name not in ("choices", "usage")}
    base["object"] = "chat.completion.chunk" if "message" in reply["choices"][0] else "text_completion"
    deltas: list[dict[str, Any]] = []
    for choice in reply["choices"]:
        common, message = {"index": choice["index"], "finish_reason": None}, choice.get("message")
        if message is None:
            deltas += [{**common, "text": token} for token in _tokens(choice["text"])]
            deltas.append({**common, "text": "", "finish_reason": choice["finish_reason"]})
            continue
        deltas.append({**common, "delta": {"role": "assistant", "content": ""}})
        if "reasoning_content" in message:
            deltas.append({**common, "delta": {"reasoning_content": message["reasoning_content"]}})
        deltas += [{**common, "delta": {"content": token}} for token in _tokens(message["content"] or "")]
        listed = (choice.get("logprobs") or {}).get("content") or []
        for event, token in zip(deltas[-len(listed) :], listed, strict=False):  # the tokens of a thought have none
            event["logprobs"] = {"content": [token]}
        for number, call in enumerate(message.get("tool_calls", [])):
            arguments = call["function"]["arguments"]
            start = {**call, "index": number, "function": {**call["function"], "arguments": ""}}
            parts = [{"index": number, "function": {"arguments": letter}} for letter in arguments]
            deltas += [{**common, "delta": {"tool_calls": [part]}} for part in [start, *parts]]
        deltas.append({**common, "delta": {}, "finish_reason": choice.get("finish_reason")})
    events = [{**base, "choices": [one]} for one in deltas]
    if with_usage and "usage" in reply:
        events.append({**base, "choices": [], "usage": reply["usage"]})
    lines = [f"data: {json.dumps(event)}\n\n".encode() for event in events]
    if fault == "cut":
        lines = [*lines[: len(lines) // 2], HALF]
    elif fault == "slow":
        wait = [b": not yet\n\n"] * 7
        lines = [line for each in [*lines, b"data: [DONE]\n\n"] for line in (*wait, each)] + [b""]
    elif fault == "broken":
        lines = [*lines[: len(lines) // 2], b'data: {"error": {"message": "out of memory"}}\n\n', b""]
    else:
        lines += [b"data: [DONE]\n\n", b""]
    head = "HTTP/1.1 200 x\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    return [head.encode(), *lines]


STREAMED = ("", "cut", "broken", "slow", "no usage", "no finish", "no text")
"""Faults that a stream can have; a request with another fault gets no stream."""
HALF = b"data: {"
"""Ends a stream that is cut off."""
CUT = b" "
"""The end of a reply that is cut off; no whole reply ends like this."""


def _solution(prefix: str, noise: int) -> str:
    """The rest of a three-line solution after the prefix; or the next sums, if the prefix is a list of sums."""
    if prefix.endswith("1 + 3 ="):
        return " 4.\n1 + 4 = 5."
    rng = Random(f"{prefix}/{noise}")
    lines = [f"{' '.join(rng.choices(['so', 'well', 'thus'], k=rng.randint(1, 4)))} {step}\n" for step in (3, 4)]
    lines.append(f"The answer is {rng.choice('77789')}")
    return "".join(lines[min(2, prefix.count("\n")) :])


def _tokens(text: str) -> list[str]:
    return re.findall(r"\S+\s*", text)


def written(body: object, kind: str = "application/json", status: int = 200) -> bytes:
    """A reply with this body, for `FakeEndpoint.sent`: bytes or a text as they are, any other value as JSON."""
    raw = body if isinstance(body, bytes) else (body if isinstance(body, str) else json.dumps(body)).encode()
    return _raw(status, raw, kind)


def written_stream(*events: object, end: str = "data: [DONE]\n\n") -> bytes:
    """A reply that is a stream of these events: texts as they are, any other value as the data of an event."""
    lines = [event if isinstance(event, str) else f"data: {json.dumps(event)}\n\n" for event in events]
    return written("".join([*lines, end]), "text/event-stream")


def _raw(status: int, body: bytes, kind: str, headers: dict[str, str] | None = None) -> bytes:
    lines = [f"HTTP/1.1 {status} x", f"Content-Type: {kind}", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


def _reply(status: int, value: object, headers: dict[str, str] | None = None) -> bytes:
    return _raw(status, json.dumps(value).encode(), "application/json", headers)


def _error(status: int, message: str, headers: dict[str, str] | None = None) -> bytes:
    return _reply(status, {"error": {"message": message}}, headers)


class Running:
    """An endpoint in a thread of its own, for as long as the block lasts."""

    def __init__(self, kind: type[FakeEndpoint] = FakeEndpoint, **behaviour: Any) -> None:
        self._endpoint = kind(**behaviour)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> FakeEndpoint:
        self._thread.start()
        self._server = asyncio.run_coroutine_threadsafe(self._endpoint.serve(), self._loop).result(PATIENCE)
        return self._endpoint

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(PATIENCE)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(PATIENCE)
        self._loop.close()

    async def _close(self) -> None:
        self._server.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)


async def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--latency", type=float, default=0.0)
    options.add_argument("--pace", type=float, default=0.0)
    options.add_argument("--n", default="honoured")
    endpoint = FakeEndpoint(**vars(options.parse_args()))
    server = await endpoint.serve()
    print(endpoint.port, flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
