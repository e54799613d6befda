"""Replies in the many forms that servers give them: each is read right, or costs the one sample that it spoils."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any

import pytest
from fake_endpoint import FakeEndpoint, Running, written, written_stream

from thinktime.answers import TextAnswers
from thinktime.core.errors import InputError, ModelError, ThinktimeError
from thinktime.core.search import Search
from thinktime.core.types import Node, Problem, Sampling
from thinktime.core.usage import Budget
from thinktime.generators.openai import RemoteGenerator
from thinktime.models.remote import client as client_module
from thinktime.models.remote.client import LongNumber, RefusedError, UnreadableError, parse_object
from thinktime.models.remote.events import EventReader
from thinktime.models.remote.protocol import Choice, read_choices
from thinktime.models.remote.reported_errors import reported_error, status_of
from thinktime.models.remote.streams import Assembly

QUESTION = "what is 3 + 4"
USAGE = {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12}
LONG = "9" * 5000
TEXT = "The answer is 7"


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retries wait only briefly."""
    monkeypatch.setattr(client_module, "FIRST_WAIT", 0.01)


def reply(content: Any = TEXT, **message: Any) -> dict[str, Any]:
    return of({"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": content, **message}})


def of(*choices: Any, **more: Any) -> dict[str, Any]:
    return {"id": "x", "choices": list(choices), "usage": USAGE, **more}


def event(delta: Any, finish: str | None = None, **more: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": finish, **more}]}


STREAM = (event({"role": "assistant", "content": "The answer "}), event({"content": "is 7"}), event({}, "stop"))
LINES = [json.dumps(each) for each in (*STREAM, {"choices": [], "usage": USAGE})]


async def grown(generator: RemoteGenerator, count: int, budget: Budget | None = None) -> tuple[Search, list[Node]]:
    search = Search(
        Problem("sum", QUESTION), generator, budget=budget, sampling=Sampling(max_length=64), answers=TextAnswers()
    )
    try:
        return search, await search.extend([search.root], count)
    finally:
        await generator.close()


def sampled(
    *sent: bytes, count: int = 1, budget: Budget | None = None, listened: list[Any] | None = None, **behaviour: Any
) -> tuple[Search, list[Node], FakeEndpoint]:
    """Samples of an endpoint that sends these replies. ``listened`` gets the events of a stream."""
    with Running(**behaviour) as endpoint:
        generator = RemoteGenerator(endpoint.url, "words")
        assert generator.traits
        endpoint.requests.clear()
        endpoint.sent.extend(sent)

        async def on_event(found: Mapping[str, Any]) -> None:
            assert listened is not None
            listened.append(found)

        sending = generator.sending({"user": "Ann"}, None if listened is None else on_event)
        search, nodes = asyncio.run(grown(sending, count, budget))
        return search, nodes, endpoint


def message_of(node: Node) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(node.state.choice)["message"]
    return found


# errors inside a reply of status 200


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"error": {"message": "m", "code": 429}}, 429),
        ({"error": {"message": "m", "code": "503", "type": "x"}}, 503),
        ({"error": {"message": "m", "status": 500}}, 500),
        ({"error": {"message": "m", "code": "rate_limit_exceeded", "type": "tokens"}}, 429),
        ({"error": {"message": "m", "type": "rate_limit_error"}}, 429),
        ({"error": {"message": "m", "type": "insufficient_quota", "code": None}}, 429),
        ({"error": {"message": "m", "status": "RESOURCE_EXHAUSTED"}}, 429),
        ({"error": {"message": "m", "type": "TooManyRequestsError"}}, 429),
        ({"type": "error", "error": {"message": "m", "type": "overloaded_error"}}, 503),
        ({"error": {"message": "m", "status": "UNAVAILABLE"}}, 503),
        ({"error": {"message": "m", "type": "InternalServerError"}}, 500),
        ({"error": {"message": "m", "type": "server_error"}}, 500),
        ({"error": {"message": "m", "type": "timeout_error"}}, 504),
        ({"error": "m", "error_type": "overloaded"}, 503),
        ({"error": "m", "error_type": "validation"}, 400),
        ({"error": "Rate limit reached for requests"}, 429),
        ({"error": {"message": "Error code: 502 - bad gateway"}}, 502),
        ({"error": {"message": "m", "code": "context_length_exceeded", "type": "invalid_request_error"}}, 400),
        ({"error": {"message": "m", "type": "BadRequestError"}}, 400),
        ({"error": {"message": "m", "code": "model_not_found", "type": "invalid_request_error"}}, 404),
        ({"error": {"message": "m", "code": "invalid_api_key"}}, 401),
        ({"error": {"message": "m", "type": "permission_error"}}, 403),
        ({"object": "error", "message": "m", "type": "BadRequestError", "code": 400}, 400),
        ({"message": "m", "code": 429}, 429),
        ({"choices": [{"index": 0, "error": {"message": "m", "code": 502}}]}, 502),
        ({"choices": None, "error": {"message": "m", "code": 429}}, 429),
        ({"error": {"message": "out of memory: invalid pointer"}}, None),
        ({"error": True, "message": "m"}, None),
    ],
)
def test_an_error_in_a_reply_has_the_status_it_speaks_of(body: dict[str, Any], status: int | None) -> None:
    error = reported_error(body)
    assert error is not None and status_of(error) == status


@pytest.mark.parametrize(
    "body",
    [
        reply(),
        {**reply(), "error": None},
        {**reply(), "error": {}},
        {**reply(), "error": {"code": 0, "message": ""}},
        {"status": 500, "choices": []},
        {"data": [], "code": 429},
        {"code": 0, "message": "fine"},
        {"status": "completed"},
    ],
)
def test_a_reply_without_an_error_is_none(body: dict[str, Any]) -> None:
    assert reported_error(body) is None


LIMITED = {"error": {"message": "slow down", "code": 429}}


@pytest.mark.parametrize("body", [LIMITED, {"error": {"message": "busy", "type": "overloaded_error"}}])
@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("listens", [False, True])
def test_a_temporary_error_in_a_reply_is_retried_and_costs_nothing(
    body: dict[str, Any], streamed: bool, listens: bool
) -> None:
    sent = (written_stream if streamed else written)(body)
    search, (node,), endpoint = sampled(sent, sent, written(reply()), listened=[] if listens else None)
    assert (node.state.text, len(endpoint.requests)) == (TEXT, 3)
    assert search.ledger.spent.generated_tokens == 5 and search.ledger.spent.uncounted_calls == 0


@pytest.mark.parametrize("streamed", [False, True])
def test_a_refusal_in_a_reply_is_a_mistake_of_the_caller(streamed: bool) -> None:
    body = {"error": {"message": "bad temperature", "type": "invalid_request_error"}}
    with pytest.raises(InputError, match=r"answers 400 \(bad temperature\); change the request"):
        sampled((written_stream if streamed else written)(body))


def test_an_error_that_lasts_is_reported_with_its_status() -> None:
    _, (node,), endpoint = sampled(*[written(LIMITED)] * 5)
    assert node.finish == "error" and len(endpoint.requests) == 5


ENDED = 'event: error\ndata: {"message": "gone", "code": 503}\n\n'


@pytest.mark.parametrize("last", [LIMITED, ENDED, 'error: {"code": 500, "message": "gone"}\n\n', event(None) | LIMITED])
def test_an_error_in_the_middle_of_a_stream_is_charged_and_tried_again(last: Any) -> None:
    broken = written_stream(STREAM[0], last)
    search, (node,), endpoint = sampled(broken, written(reply()))
    assert (node.state.text, len(endpoint.requests)) == (TEXT, 2)
    assert search.ledger.spent.uncounted_calls == 1 and search.ledger.spent.generated_tokens == 64 + 5


@pytest.mark.parametrize("last", [LIMITED, ENDED, {"error": "boom"}, "data: {\n\n"])
def test_a_part_that_was_passed_on_is_not_sampled_again(last: Any) -> None:
    heard: list[Any] = []
    _, (node,), endpoint = sampled(written_stream(STREAM[0], last), listened=heard)
    assert (node.finish, len(endpoint.requests), len(heard)) == ("error", 1, 1)


# garbage is tried once more


GARBAGE = [
    written(b""),
    written(b"", "text/event-stream"),
    written("<html>Sign in</html>", "text/html"),
    written("[1]"),
    written("null"),
    written("{}"),
    written({"choices": None}),
    written({"choices": {}}),
    written({"choices": [None]}),
    written({"choices": "sample"}),
    written(of({"index": 0, "finish_reason": "stop", "message": None})),
    written(of({"index": 0, "finish_reason": "stop", "message": None, "delta": None})),
    written(of({"index": 0, "finish_reason": None, "message": {"content": "7"}})),
    written(reply(None)),
    written(reply([{"type": "image_url", "image_url": {"url": "x"}}])),
    written(reply(7)),
    written({"error": {"message": "boom"}}),
    written_stream(event({"content": "The"})),
    written_stream(event({"content": [{"type": "image_url"}]}), event({}, "stop")),
    written_stream("data: {\n\n"),
    written_stream({"choices": None}, {"choices": [None, 7]}),
]


@pytest.mark.parametrize("sent", GARBAGE)
def test_a_request_whose_only_reply_is_garbage_is_tried_once_more(sent: bytes) -> None:
    search, (node,), endpoint = sampled(sent, written(reply()))
    assert (node.state.text, len(endpoint.requests)) == (TEXT, 2)
    spent = search.ledger.spent
    assert spent.model_calls == 2 and spent == node.usage and spent.generated_tokens in (5 + 5, 64 + 5)


@pytest.mark.parametrize("sent", GARBAGE)
def test_it_is_tried_no_more_than_once_and_the_reason_is_one_line(sent: bytes) -> None:
    search, (node,), endpoint = sampled(*[sent] * 3)
    assert (node.finish, len(endpoint.requests)) == ("error", 2)
    (error,) = search.errors
    assert str(error).startswith("endpoint=") and "\n" not in str(error) and len(str(error)) < 500


@pytest.mark.parametrize(("tokens", "requests"), [(64, 1), (127, 1), (128, 2)])
def test_a_second_try_needs_a_budget_for_its_worst_case(tokens: int, requests: int) -> None:
    search, (node,), endpoint = sampled(written(b""), written(reply()), budget=Budget(tokens=tokens))
    assert len(endpoint.requests) == requests and (node.finish == "eos") == (requests == 2)
    assert search.ledger.spent.generated_tokens <= tokens


def test_a_second_try_of_several_samples_repeats_as_many_as_the_budget_covers() -> None:
    bad, good = written(b""), written(reply())
    search, nodes, endpoint = sampled(*[bad] * 4, *[good] * 4, count=4, budget=Budget(tokens=64 * 6), n="ignored")
    assert [node.finish for node in nodes] == ["eos", "eos", "error", "error"]
    assert len(endpoint.requests) == 6 and search.ledger.spent.generated_tokens <= 64 * 6


def test_garbage_beside_a_good_sample_is_not_repeated() -> None:
    _, nodes, endpoint = sampled(written(b""), written(reply()), count=2, n="ignored")
    assert sorted(node.finish for node in nodes) == ["eos", "error"] and len(endpoint.requests) == 2


def test_a_refused_second_try_leaves_the_first_error() -> None:
    refused = written({"error": {"message": "no"}}, status=400)
    search, (node,), _ = sampled(written(b""), refused)
    assert node.finish == "error" and search.ledger.spent.generated_tokens == 64


# forms of a message


THOUGHT = {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ([{"type": "text", "text": "The answer "}, {"type": "text", "text": "is 7"}], TEXT),
        ([{"type": "output_text", "text": TEXT}], TEXT),
        ([{"text": TEXT}], TEXT),
        ([None, "The answer ", "is 7"], TEXT),
        ({"type": "text", "text": TEXT}, TEXT),
        ([THOUGHT, {"type": "text", "text": TEXT}], TEXT),
        ([{"type": "reasoning", "text": "hm"}, {"type": "text", "text": TEXT}], TEXT),
        ([{"type": "refusal", "refusal": "No."}], "No."),
        ([THOUGHT], "hm"),
    ],
)
@pytest.mark.parametrize("streamed", [False, True])
def test_a_content_of_parts_is_their_text(content: Any, text: str, streamed: bool) -> None:
    sent = written_stream(event({"content": content}), event({}, "stop")) if streamed else written(reply(content))
    heard: list[Any] | None = [] if streamed else None
    _, (node,), endpoint = sampled(sent, listened=heard)
    assert (node.finish, node.state.text, len(endpoint.requests)) == ("eos", text, 1)
    assert isinstance(message_of(node)["content"], str)
    assert all(isinstance(each["choices"][0]["delta"].get("content", ""), str) for each in heard or ())


@pytest.mark.parametrize("kind", ["image_url", "audio", "tool_use", ["a"], 3])
def test_a_part_that_is_not_text_costs_its_sample_and_is_named(kind: Any) -> None:
    bad = {"index": 1, "finish_reason": "stop", "message": {"content": [{"type": kind, "text": "7"}]}}
    good, found = read_choices(of(reply()["choices"][0], bad), "http://x")
    assert good.text == TEXT and found.error is not None and f"content.type={kind!r}" in found.error


@pytest.mark.parametrize("name", ["reasoning", "reasoning_content"])
@pytest.mark.parametrize("content", [None, "", "\n\n"])
@pytest.mark.parametrize("streamed", [False, True])
def test_an_answer_that_is_all_thought_is_a_text(name: str, content: str | None, streamed: bool) -> None:
    deltas = [event({name: "The answer "}), event({name: "is 7", "content": content}), event({}, "stop")]
    sent = written_stream(*deltas) if streamed else written(reply(content, **{name: TEXT}))
    _, (node,), _ = sampled(sent)
    assert (node.finish, node.state.text, message_of(node)[name]) == ("eos", TEXT, TEXT)


def test_a_thought_that_is_cut_at_the_limit_is_no_text() -> None:
    body = reply(None, reasoning_content=TEXT)
    body["choices"][0]["finish_reason"] = "length"
    _, (node,), _ = sampled(written(body))
    assert (node.finish, node.state.text) == ("length", "")


@pytest.mark.parametrize("index", [..., None, "0", 1.5])
def test_a_sample_without_an_index_has_the_index_of_its_place(index: Any) -> None:
    texts = ["a", "b", "c"]
    choices = [{"index": index, "finish_reason": "stop", "text": text} for text in texts]
    choices = [{n: v for n, v in choice.items() if v is not ...} for choice in choices]
    assert [choice.text for choice in read_choices(of(*choices), "http://x")] == texts


def test_samples_are_in_the_order_of_their_index_and_a_null_is_one_bad_sample() -> None:
    choices = [{"index": place, "finish_reason": "stop", "text": str(place)} for place in (2, 0)]
    found = read_choices(of(choices[0], None, choices[1]), "http://x")
    assert [(choice.text, choice.error is None) for choice in found] == [("0", True), ("", False), ("2", True)]


@pytest.mark.parametrize(
    "logprobs",
    [
        *(None, [], "x", 7, {}, {"content": None}, {"content": "x"}, {"content": [None]}, {"content": [[]]}),
        *({"content": {"token": "a"}}, {"content": [{"token": "a"}]}, {"content": [{"logprob": "low"}]}),
        *({"content": [{"logprob": True}]}, {"content": [{"logprob": LongNumber("-Infinity")}]}),
        *({"token_logprobs": None}, {"token_logprobs": [None, -1]}, {"tokens": ["a"], "token_logprobs": "x"}),
    ],
)
@pytest.mark.parametrize("streamed", [False, True])
def test_malformed_log_probabilities_are_missing(logprobs: Any, streamed: bool) -> None:
    body = reply()
    body["choices"][0]["logprobs"] = logprobs
    if streamed:
        whole = Assembly()
        for each in (event({"content": TEXT}, logprobs=logprobs), event({}, "stop", logprobs=None)):
            whole.add(each)
        body = whole.body
    (choice,) = read_choices(body, "http://x")
    assert choice.error is None and choice.tokens is None and choice.text == TEXT
    assert not isinstance(choice.whole.get("logprobs"), str | int | list)


@pytest.mark.parametrize(
    "more",
    [
        {"choices": [{"index": 0, "delta": None, "finish_reason": None}]},
        {"choices": [{"index": 0, "delta": {}, "logprobs": []}]},
        {"choices": [{"index": 0, "message": None}]},
        {"choices": None},
        {"choices": []},
        {"choices": [None]},
        {"choices": {"0": {}}},
        {"usage": None},
        {"choices": [{"index": None, "delta": {"content": None, "tool_calls": None}}]},
        {"choices": [{"delta": {"content": ""}}]},
        {"choices": [{"index": 0, "delta": {"content": []}}]},
    ],
)
@pytest.mark.parametrize("listens", [False, True])
def test_empty_and_malformed_events_of_a_stream_are_skipped(more: dict[str, Any], listens: bool) -> None:
    events = [each for delta in STREAM for each in (more, delta)]
    sent = written_stream(*events, more, {"choices": [], "usage": USAGE}, more)
    search, (node,), _ = sampled(sent, listened=[] if listens else None)
    assert (node.finish, node.state.text) == ("eos", TEXT)
    assert search.ledger.spent.generated_tokens == 5 and search.ledger.spent.uncounted_calls == 0


# tool calls


def piece(arguments: Any, name: str | None = None, **more: Any) -> dict[str, Any]:
    return {**more, "function": {"arguments": arguments} | ({} if name is None else {"name": name})}


WANTED = [("f", '{"a": 1}'), ("g", '{"b": 2}')]
STREAMED_CALLS = {
    "their own index": [
        [piece('{"a"', "f", index=0, id="x")],
        [piece('{"b"', "g", index=1, id="y")],
        [piece(": 1}", index=0)],
        [piece(": 2}", index=1)],
    ],
    "one index, other ids": [
        [piece("", "f", index=0, id="x")],
        [piece('{"a": 1}', index=0)],
        [piece("", "g", index=0, id="y")],
        [piece('{"b": ', index=0)],
        [piece("2}", index=0)],
    ],
    "one index, whole calls, no ids": [[piece('{"a": 1}', "f", index=0)], [piece('{"b": 2}', "g", index=0)]],
    "one index, whole calls, in one event": [
        [piece('{"a": 1}', "f", index=0, id="x"), piece('{"b": 2}', "g", index=0, id="y")]
    ],
    "one index, ids in every piece": [
        [piece('{"a"', "f", index=0, id="x"), piece('{"b"', "g", index=0, id="y")],
        [piece(": 1}", index=0, id="x")],
        [piece(": 2}", index=0, id="y")],
    ],
    "no index, ids in every piece": [
        [piece('{"a"', "f", id="x")],
        [piece('{"b"', "g", id="y")],
        [piece(": 1}", id="x")],
        [piece(": 2}", id="y")],
    ],
    "no index, ids at the beginning": [
        [piece('{"a"', "f", id="x")],
        [piece(": 1}")],
        [piece("", "g", id="y")],
        [piece('{"b": 2}')],
    ],
    "no index, no ids": [[piece('{"a"', "f")], [piece(": 1}")], [piece('{"b"', "g")], [piece(": 2}")]],
    "no index, no ids, by place": [[piece('{"a"', "f"), piece('{"b"', "g")], [piece(": 1}"), piece(": 2}")]],
    "null index": [[piece('{"a": 1}', "f", index=None, id="x")], [piece('{"b": 2}', "g", index=None, id="y")]],
    "the name in every piece": [
        [piece('{"a"', "f", index=0)],
        [piece(": 1}", "f", index=0)],
        [piece('{"b": 2}', "g", index=1)],
    ],
    "a new id in every piece": [
        [piece('{"a"', "f", index=0, id="x")],
        [piece(": 1}", index=0, id="x2")],
        [piece('{"b": 2}', "g", index=1, id="y")],
    ],
    "one id for both": [[piece('{"a": 1}', "f", index=0, id="x")], [piece('{"b": 2}', "g", index=1, id="x")]],
    "objects": [[piece({"a": 1}, "f", index=0)], [piece({"b": 2}, "g", index=1)]],
    "a single call that is no list": [piece('{"a": 1}', "f", id="x"), piece('{"b": 2}', "g", id="y")],
}


@pytest.mark.parametrize("pieces", STREAMED_CALLS.values(), ids=STREAMED_CALLS.keys())
def test_pieces_of_tool_calls_find_their_call(pieces: list[Any]) -> None:
    heard: list[Any] = []
    events = [event({"tool_calls": calls}) for calls in pieces]
    _, (node,), _ = sampled(written_stream(*events, event({}, "tool_calls")), listened=heard)
    calls = message_of(node)["tool_calls"]
    assert [(call["function"]["name"], call["function"]["arguments"]) for call in calls] == WANTED
    passed_on: dict[int, str] = {}
    for each in heard:
        for call in each["choices"][0]["delta"].get("tool_calls") or ():
            passed_on[call["index"]] = passed_on.get(call["index"], "") + call["function"]["arguments"]
    assert passed_on == {0: WANTED[0][1], 1: WANTED[1][1]}


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [({"a": [1, "ü"]}, {"a": [1, "ü"]}), ([1], [1]), (None, {}), ("{}", {}), ('{"a": 1e400}', ...)],
)
def test_arguments_of_a_whole_call_are_text(arguments: Any, expected: Any) -> None:
    call = {"id": "x", "type": "function", "function": {"name": "f", "arguments": arguments}}
    _, (node,), _ = sampled(written(reply(None, tool_calls=[call, None])))
    (found,) = message_of(node)["tool_calls"]
    assert isinstance(found["function"]["arguments"], str) and node.finish == "eos"
    assert found["function"]["arguments"] == arguments or json.loads(found["function"]["arguments"]) == expected


ODD = [True, 7, 1.5, "x", [], [None], {}, {"a": None}]


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("name", ["role", "reasoning", "reasoning_content", "refusal", "tool_calls", "function_call"])
@pytest.mark.parametrize("streamed", [False, True])
def test_a_field_of_another_type_leaves_the_text(odd: Any, name: str, streamed: bool) -> None:
    body = reply(**{name: odd})
    if streamed:
        whole = Assembly()
        whole.add(event({"content": TEXT, name: odd}))
        whole.add(event({}, "stop"))
        body = whole.body
    (choice,) = read_choices(body, "http://x")
    assert (choice.error, choice.text) == (None, TEXT)


@pytest.mark.parametrize("index", ODD)
def test_whole_calls_have_their_place_as_their_index(index: Any) -> None:
    calls = [{"index": index, "function": {"name": name, "arguments": "{}"}} for name in "fg"]
    (choice,) = read_choices(reply(None, tool_calls=[*calls, {"index": 0, "function": "h"}, 7]), "http://x")
    assert [call["index"] for call in choice.whole["message"]["tool_calls"]] == [0, 1]


def spoiled(arguments: str) -> str:
    """Four samples in one reply, as JSON; the third has a tool call with these arguments."""
    call = {"id": "x", "type": "function", "function": {"name": "f", "arguments": "ARGUMENTS"}}
    choices = [{**reply()["choices"][0], "index": index} for index in range(4)]
    choices[2]["message"] = {"content": None, "tool_calls": [call]}
    return json.dumps(of(*choices)).replace('"ARGUMENTS"', arguments)


@pytest.mark.parametrize(
    "arguments",
    [f'{{"n": {LONG}}}', '{"n": 1e400}', '{"n": NaN}', '{"n": -Infinity}', LONG, '{"a":' * 150 + "1" + "}" * 150],
)
def test_one_of_four_samples_that_cannot_be_kept_costs_that_sample_alone(arguments: str) -> None:
    search, nodes, endpoint = sampled(written(spoiled(arguments)), count=4)
    assert [node.finish for node in nodes] == ["eos", "eos", "error", "eos"] and len(endpoint.requests) == 1
    (error,) = search.errors
    assert "nested deeper" in str(error) or "which no float holds" in str(error)
    assert len(str(error)) < 300 and search.ledger.spent.generated_tokens == 5


def test_a_sample_with_bytes_that_are_no_text_keeps_its_siblings() -> None:
    raw = json.dumps(of(*[{**reply()["choices"][0], "index": index} for index in range(4)]))
    body = raw.encode().replace(b"answer", b"answ\xc3er", 1)
    _, nodes, _ = sampled(written(body), count=4)
    assert [node.finish for node in nodes] == ["eos"] * 4 and nodes[0].state.text == "The answ\ufffder is 7"


@pytest.mark.parametrize(
    ("number", "value"),
    [("1", 1), ("1.5", 1.5), ("9" * 400, 10**400 - 1), ("1e400", "1e400"), (LONG, LONG), ("-1e999", "-1e999")],
)
def test_numbers_that_no_float_holds_keep_their_spelling(number: str, value: object) -> None:
    found = parse_object(f'{{"n": {number}}}'.encode())
    assert found == {"n": value} and isinstance(found["n"], LongNumber) == isinstance(value, str)


# forms of a reply


def framed(text: str, kind: str = "text/event-stream") -> bytes:
    return written(text, kind)


FORMS = {
    "another content type": framed(json.dumps(reply()), "text/plain"),
    "the content type of a page": framed(json.dumps(reply()), "text/html; charset=utf-8"),
    "a byte order mark": framed("\ufeff" + json.dumps(reply()), "application/json"),
    "white space around": framed("\n\n " + json.dumps(reply(), indent=2) + "\n", "application/json"),
    "UTF-16": written(json.dumps(reply()).encode("utf-16")),
    "a stream": written_stream(*STREAM, {"choices": [], "usage": USAGE}),
    "JSON with the content type of a stream": framed(json.dumps(reply())),
    "JSON with the content type of a stream and a mark": framed("\ufeff\r\n" + json.dumps(reply(), indent=1)),
    "a stream with the content type of JSON": framed(
        "".join(f"data: {line}\n\n" for line in LINES), "application/json"
    ),
    "a stream as plain text, with a comment first": framed(
        ": hello\n\n" + "".join(f"data: {line}\n\n" for line in LINES), "text/plain"
    ),
    "lines that end in CR LF": framed("".join(f"data: {line}\r\n\r\n" for line in LINES) + "data: [DONE]\r\n\r\n"),
    "lines that end in CR": framed("".join(f"data: {line}\r\r" for line in LINES) + "data: [DONE]\r\r"),
    "no space after the colon": framed("".join(f"data:{line}\n\n" for line in LINES)),
    "comments": framed("".join(f": ping\n\n:\ndata: {line}\n: more\n\n" for line in LINES)),
    "names, ids and retries": framed(
        "".join(f"id: {n}\nevent: message\nretry: 10\ndata: {line}\n\n" for n, line in enumerate(LINES))
    ),
    "data of several lines": framed(
        "".join("data: " + json.dumps(json.loads(line), indent=1).replace("\n", "\ndata: ") + "\n\n" for line in LINES)
    ),
    "no blank lines": framed("".join(f"data: {line}\n" for line in LINES)),
    "no end mark": framed("".join(f"data: {line}\n\n" for line in LINES)),
    "no end of the last line": framed("\n\n".join(f"data: {line}" for line in LINES)),
    "a byte order mark before a stream": framed("\ufeff" + "".join(f"data: {line}\n\n" for line in LINES)),
    "data after the end mark": framed(
        "".join(f"data: {line}\n\n" for line in [*LINES, "[DONE]", json.dumps(event({"content": "8"})), "{broken"])
    ),
}


@pytest.mark.parametrize("sent", FORMS.values(), ids=FORMS.keys())
@pytest.mark.parametrize("listens", [False, True])
def test_a_reply_is_read_whatever_its_form(sent: bytes, listens: bool) -> None:
    heard: list[Any] | None = [] if listens else None
    search, (node,), endpoint = sampled(sent, listened=heard)
    assert (node.finish, node.state.text, len(endpoint.requests)) == ("eos", TEXT, 1)
    assert search.ledger.spent.generated_tokens == 5 and search.ledger.spent.uncounted_calls == 0
    text = "".join(each["choices"][0]["delta"].get("content") or "" for each in heard or () if each["choices"])
    assert text in ("", TEXT)


def test_four_samples_of_a_plain_request_may_come_as_a_stream() -> None:
    events = [{"choices": [{"index": index, "delta": {"content": str(index)}}]} for index in range(4)]
    ends = [{"choices": [{"index": index, "delta": {}, "finish_reason": "stop"}]} for index in range(4)]
    _, nodes, _ = sampled(written_stream(*events, *ends), count=4)
    assert sorted(node.state.text for node in nodes) == ["0", "1", "2", "3"]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_events_do_not_depend_on_how_their_bytes_arrive(size: int) -> None:
    raw = b"\xef\xbb\xbf: hi\r\nevent: a\r\ndata: {\r\ndata: }\r\n\r\ndata: 1\n\ndata: 2\ndata: 3\n\rdata:[DONE]"
    reader = EventReader()
    events = [each for at in range(0, len(raw), size) for each in reader.feed(raw[at : at + size])]
    events += reader.close()
    assert [tuple(each) for each in events] == [("a", b"{\n}"), ("", b"1"), ("", b"2"), ("", b"3"), ("", b"[DONE]")]


def test_a_probe_reads_replies_in_any_form() -> None:
    with Running() as endpoint:
        endpoint.sent.append(written_stream(*STREAM, {"choices": [], "usage": USAGE}))
        assert RemoteGenerator(endpoint.url, "words").traits.usage


def test_a_message_with_half_a_character_can_be_printed() -> None:
    with Running() as endpoint:
        endpoint.sent.append(written({"error": {"message": "bad \ud83d", "code": 401}}))
        with pytest.raises(ThinktimeError, match=r"401 \(bad \?\)") as caught:
            assert RemoteGenerator(endpoint.url, "words").traits
    assert str(caught.value).encode()


def test_only_errors_after_a_part_of_a_sample_are_worth_a_second_try() -> None:
    def refused(status: int, *, billed: bool) -> bool:
        return RefusedError("u", status, "m", tries=1, billed=billed, retry_after=None).repeatable

    assert refused(503, billed=True) and refused(429, billed=True)
    assert not refused(400, billed=True) and not refused(503, billed=False)
    assert UnreadableError("").repeatable and not ModelError("").repeatable
    assert Choice().error is None
