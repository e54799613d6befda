"""Odd replies of an upstream, as the gateway's client sees them, and votes over JSON."""

from __future__ import annotations

import asyncio
import json
import threading
import time
import tracemalloc
from typing import Any

import pytest
from fake_endpoint import written, written_stream
from gateway_server import PLAIN, Start

from thinktime.gateway.answers import SampleAnswers
from thinktime.gateway.proxy import ReplyReader
from thinktime.generators.text import RemoteText
from thinktime.models.remote.events import EventReader

READER = SampleAnswers(as_json=True, tools=False)
AS_JSON = {**PLAIN, "model": "majority:n=4/words", "response_format": {"type": "json_object"}}
LONG = "9" * 5000


def sample(content: str | None, **message: Any) -> bytes:
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": content, **message}}
    return written({"choices": [choice], "usage": {"prompt_tokens": 7, "completion_tokens": 5}})


SAME = ['{"n": 2}', '{"n":2.0}', '{"n": 20e-1}', '```json\n{"n": 2}\n```', '```\n{"n": 2}', '\ufeff{"n": 2}\n']
SAME += ['<think>{"n": 3}?</think>{"n": 2}', 'Is it {"n": 3}?</think>\n\n```JSON\n{"n": 2}```', '{"n": 1, "n": 2}']
SAME += ['Here it is:\n```json\n{"n": 2}\n```\nAnything else?', 'Sure! {"n": 2}.', '{"\\u006e": 0.2e1}']
OTHERS = ['{"n": "2"}', '{"n": true}', '{"n": [2]}', '{"N": 2}', '{"n": 2.0000000000000000001}', '{"n": -2}', "2"]
OTHERS += ['{"n": 1}', '{"n": 1e400}', '{"n": 1e401}', f'{{"n": {LONG}}}', f'{{"n": {LONG}9}}', '{"n": null}']


def test_equal_json_values_are_one_answer() -> None:
    assert {READER.read(RemoteText("", text)) for text in SAME} == {'{"n": 2}'}


def test_other_json_values_are_other_answers() -> None:
    answers = [READER.read(RemoteText("", text)) for text in [*OTHERS, SAME[0]]]
    assert None not in answers and len(set(answers)) == len(answers)
    assert len({READER.key(answer) for answer in answers if answer}) == len(answers)


@pytest.mark.parametrize(
    ("text", "spelled"),
    [
        *(("-0.0", "0"), ("0.10", "0.1"), ("-1.50e1", "-15"), ("1E-7", "0.0000001"), ("1e23", "1e23")),
        *(("100000000000000000000000", "1e23"), ("1e-99", "1e-99"), ("[1.0, {}]", "[1, {}]")),
        *(('{"b": 1, "a": "ü"}', '{"a": "\\u00fc", "b": 1}'), ('"\\ud83d"', '"\\ud83d"'), ("false", "false")),
        ('{"s": "```json 5 ```"}', '{"s": "```json 5 ```"}'),
    ],
)
def test_a_json_value_has_one_spelling(text: str, spelled: str) -> None:
    assert READER.read(RemoteText("", text)) == spelled


@pytest.mark.parametrize(
    "text",
    [
        *("", "two", '{"n": NaN}', '{"n": -Infinity}', '{"n": 2', "[" * 100_000, '{"a":' * 500 + "1" + "}" * 500),
        *("1e99999999999999999999999", "<think>{}", "```json\n```", "2 apples", "{'n': 2}"),
    ],
)
def test_what_is_no_json_has_no_answer(text: str) -> None:
    assert READER.read(RemoteText("", text)) is None


@pytest.mark.parametrize("as_json", [True, False])
def test_long_samples_are_read_outside_of_the_event_loop(as_json: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    answers, threads, read = SampleAnswers(as_json=as_json, tools=False), [], SampleAnswers._answer

    def reading(self: SampleAnswers, state: RemoteText) -> str | None:
        threads.append(threading.get_ident())
        return read(self, state)

    monkeypatch.setattr(SampleAnswers, "_answer", reading)
    said = '{"n": 7}' if as_json else "#### 7"
    states = [RemoteText("", said + " " * len(LONG) + " " * place) for place in range(4)]
    asyncio.run(answers.prepare(states))
    assert len(threads) == 4 and threading.get_ident() not in threads
    assert None not in [answers.read(state) for state in states] and len(threads) == 4  # they are remembered


def test_many_code_fences_take_no_more_memory_than_their_text() -> None:
    tracemalloc.start()
    assert READER.read(RemoteText("", "```json\n" * 5000)) is None
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 5_000_000


@pytest.mark.parametrize("bad", ['{"n": NaN}', "[" * 100_000, f'{{"n": {LONG}}}', '{"n": 1e400}', '{"n": "\ud83d"}'])
def test_one_bad_value_of_four_costs_its_vote_alone(start_gateway: Start, bad: str) -> None:
    endpoint, gateway = start_gateway(n="ignored")
    endpoint.sent.extend([sample(SAME[0]), sample(bad), sample(SAME[1]), sample(SAME[3])])
    status, answer, _ = gateway.ask(AS_JSON)
    assert (status, answer["thinktime"]["answer"], answer["thinktime"]["failed"]) == (200, '{"n": 2}', 0)
    assert answer["thinktime"]["samples"] == 4 and answer["thinktime"]["share"] >= 0.75


def called(arguments: Any) -> bytes:
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": arguments}}
    return sample(None, tool_calls=[call])


def test_tool_calls_vote_by_the_value_of_their_arguments(start_gateway: Start) -> None:
    endpoint, gateway = start_gateway(n="ignored")
    spellings = ['{"n": 2, "m": 0}', {"m": 0.0, "n": 2}, '{"m":0,"n":2.0}']
    endpoint.sent.extend([*map(called, spellings), called('{"m": 0, "n": 1e400}'), called("[" * 9000)])
    tools = [{"type": "function", "function": {"name": "f"}}]
    status, answer, _ = gateway.ask({**PLAIN, "model": "majority:n=5/words", "tools": tools})
    assert (status, answer["thinktime"]["share"], answer["thinktime"]["failed"]) == (200, 0.6, 0)
    (call,) = answer["choices"][0]["message"]["tool_calls"]
    assert json.loads(call["function"]["arguments"]) == {"m": 0, "n": 2}


@pytest.mark.parametrize("path", ["chat/completions", "responses"])
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("name", ["reasoning", "reasoning_content"])
def test_an_answer_that_is_all_thought_reaches_the_client_as_text(
    start_gateway: Start, path: str, stream: bool, name: str
) -> None:
    endpoint, gateway = start_gateway()
    deltas: list[dict[str, Any]] = [{name: "so "}, {name: "7"}, {}]
    reasons = [None, None, "stop"]
    events = [
        {"choices": [{"index": 0, "delta": delta, "finish_reason": reason}]}
        for delta, reason in zip(deltas, reasons, strict=True)
    ]
    endpoint.sent.append(written_stream(*events) if stream else sample("", **{name: "so 7"}))
    fields = {"input": "what is 3 + 4"} if path == "responses" else {"messages": PLAIN["messages"]}
    raw = gateway.read({"model": "single/words", "stream": stream, **fields}, path)
    if path == "responses":
        lines = [line[6:] for line in raw.decode().split("\n") if line.startswith("data: {")]
        whole = json.loads(lines[-1])["response"] if stream else json.loads(raw)
        assert [item["content"][0]["text"] for item in whole["output"]] == ["so 7", "so 7"]
        assert [item["type"] for item in whole["output"]] == ["reasoning", "message"]
        return
    if stream:
        found = [json.loads(line[6:])["choices"] for line in raw.decode().split("\n") if line.startswith("data: {")]
        assert "".join(each[0]["delta"].get("content") or "" for each in found) == "so 7"
    else:
        assert json.loads(raw)["choices"][0]["message"]["content"] == "so 7"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("error", "status"),
    [({"code": 429}, 429), ({"type": "overloaded_error"}, 503), ({"type": "invalid_request_error"}, 400)],
)
def test_an_error_in_a_reply_of_status_200_has_its_own_status(
    start_gateway: Start, error: dict[str, Any], status: int, stream: bool
) -> None:
    endpoint, gateway = start_gateway()
    endpoint.sent.extend([written({"error": {"message": "not now", **error}})] * 5)
    found, answer, _ = gateway.ask({**PLAIN, "model": "single/words", "stream": stream})
    assert found == status and "not now" in answer["error"]["message"]
    assert answer["thinktime"]["account"]["generated_tokens"] == 0


@pytest.mark.parametrize("stream", [False, True])
def test_garbage_is_tried_once_more_and_both_tries_are_charged(start_gateway: Start, stream: bool) -> None:
    endpoint, gateway = start_gateway()
    endpoint.sent.extend([written(b""), sample("so 7")])
    raw = gateway.read({**PLAIN, "model": "single/words", "stream": stream})
    assert b"so 7" in raw and len(endpoint.requests) == 2
    assert f'"generated_tokens": {PLAIN["max_tokens"] + 5}'.encode() in raw


def test_garbage_without_a_budget_for_a_second_try_is_an_error(start_gateway: Start) -> None:
    endpoint, gateway = start_gateway()
    endpoint.sent.append(written(b""))
    status, answer, _ = gateway.ask({**PLAIN, "model": "single@100tok/words"})
    assert (status, answer["thinktime"]["account"]["generated_tokens"], len(endpoint.requests)) == (502, 64, 1)


@pytest.mark.parametrize("reader", [ReplyReader(True, {}), EventReader()])
def test_a_long_line_in_small_pieces_is_read_once(reader: ReplyReader | EventReader) -> None:
    """Each reader took seconds for it on the event loop."""
    began = time.process_time()
    for _ in range(3500):
        assert list(reader.feed(b"x" * 1000) or ()) == []
    assert time.process_time() - began < 0.5
