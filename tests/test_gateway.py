"""The gateway: how a request names a method, and how it is passed on."""

from __future__ import annotations

import json
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from gateway_server import PLAIN, VOTE, Start
from waiting import PATIENCE

from thinktime.gateway.methods import parse

# how a request names a method


def test_a_method_before_the_models_name_votes_over_samples_of_that_model(start_gateway: Start) -> None:
    endpoint, gateway = start_gateway()
    status, answer, _ = gateway.ask({**VOTE, "model": "majority:n=8@4000tok/words"})
    assert status == 200 and [body["n"] for body in endpoint.requests] == [8]
    assert endpoint.requests[0]["model"] == "words" and answer["model"] == "majority:n=8@4000tok/words"
    assert (answer["object"], len(answer["choices"])) == ("chat.completion", 1)
    message = answer["choices"][0]["message"]
    received = answer["thinktime"]
    assert message["content"].endswith(f"The answer is {received['answer']}") and received["share"] > 0.1
    assert (received["strategy"], received["options"], received["samples"]) == ("majority", {"n": 8}, 8)


@pytest.mark.parametrize(
    "body",
    [
        {"model": "restarts(majority:n=2):n=3/words"},
        {"thinktime": {"strategy": "restarts(majority:n=2)", "n": 3}},
        {"thinktime": {"strategy": "restarts", "inner": "majority:n=2", "n": 3}},
    ],
)
def test_a_strategy_inside_another_is_named_in_brackets_or_as_an_option(
    start_gateway: Start, body: dict[str, Any]
) -> None:
    endpoint, gateway = start_gateway()
    status, answer, _ = gateway.ask({**VOTE, "model": "words", **body})
    assert status == 200, answer
    assert answer["thinktime"]["options"] == {"inner": "majority:n=2", "n": 3, "select": "majority"}
    assert [request["n"] for request in endpoint.requests] == [2, 2, 2]
    assert (parse("restarts(majority:n=2):n=3").samples, parse("single").samples) == (6, 1)
    assert parse("majority:n=1").one_sample and not parse("restarts(majority:n=2):n=1").one_sample


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        ({"model": "majority:n=3/words"}, {}),
        ({"thinktime": {"strategy": "majority", "n": 3}}, {}),
        ({"thinktime": {"strategy": "majority:n=3", "budget": {"tokens": 4000}}}, {}),
        ({"thinktime": {"strategy": "majority", "n": 3, "budget": "4000tok,30s"}}, {}),
        ({}, {"X_Thinktime": "majority:n=3@4000tok"}),
    ],
)
def test_name_field_and_header_are_equivalent(
    start_gateway: Start, body: dict[str, Any], headers: dict[str, str]
) -> None:
    endpoint, gateway = start_gateway(n="ignored")
    status, answer, _ = gateway.ask({**PLAIN, **body}, **headers)
    assert (status, len(endpoint.requests), answer["thinktime"]["options"]) == (200, 3, {"n": 3})


@pytest.mark.parametrize(
    ("body", "headers", "param", "says"),
    [
        ({"model": "majorty@4000tok/words"}, {}, "strategy", "did you mean 'majority'?"),
        ({"model": "majorty/words"}, {}, "strategy", "did you mean 'majority'?"),
        ({"model": f"majority:n={'0' * 2000}4/words"}, {}, "strategy", "at most 1000 characters"),
        ({"model": "majority:k=3/words"}, {}, "majority option", "there are: n"),
        ({"model": "majority:n=many/words"}, {}, "majority.n", "type int"),
        ({"model": "majority:n=0/words"}, {}, "n", "1 or more"),
        ({"model": "majority:n=1000000/words"}, {}, "n", "65536 or fewer"),
        ({"model": "majority:n=1025/words"}, {}, "n", "1024 samples"),
        ({"model": "restarts(majority:n=64):n=17/words"}, {}, "n", "1024 samples"),
        ({"model": "restarts(majority:n=64/words"}, {}, "strategy", "close every bracket"),
        ({"model": "majority(single)/words"}, {}, "strategy", "runs no other strategy"),
        ({"model": "majority@4000/words"}, {}, "budget", "4000tok"),
        ({"model": "majority@1e3flops/words"}, {}, "budget.flops", "unknown"),
        ({"model": "moa-words"}, {}, "optillm_approach", "self_consistency"),
        ({"optillm_approach": "mcts"}, {}, "optillm_approach", "majority"),
        ({"model": "beam_search/words"}, {}, "strategy", "what would work"),
        ({"model": ""}, {}, "model", "name a model"),
        ({"model": 7}, {}, "model", "name a model"),
        ({"thinktime": "majority"}, {}, "thinktime", '"strategy": "majority"'),
        ({"thinktime": {"n": 3}}, {}, "thinktime.strategy", "majority"),
        ({"thinktime": {"strategy": "majority", "n": True}}, {}, "thinktime.n", "number"),
        ({"thinktime": {"strategy": "majority", "n": [3]}}, {}, "thinktime.n", "number"),
        ({"thinktime": {"strategy": "majority", "budget": 4000}}, {}, "thinktime.budget", "4000tok"),
        ({"thinktime": {"strategy": "majority", "budget": {"toks": 1}}}, {}, "thinktime.budget", "tokens"),
        ({"thinktime": {"strategy": "majority", "budget": {"tokens": 0.5}}}, {}, "thinktime.budget.tokens", "whole"),
        ({"thinktime": {"strategy": "majority", "budget": {"seconds": -1}}}, {}, "budget.seconds", "above 0"),
        ({"model": "majority/words"}, {"X_Thinktime": "single"}, "thinktime", "once"),
        ({"model": "majority/words", "n": 4}, {}, "n", "thinktime.n"),
        ({"model": "majority/words", "n": 0}, {}, "n", "thinktime.n"),
        ({"model": "majority/words", "n": -1}, {}, "n", "thinktime.n"),
        ({"model": "majority/words", "n": "eight"}, {}, "n", "whole number"),
        ({"thinktime": {"strategy": "majority", "n": -3}}, {}, "n", "1 or more"),
        ({"model": "majority/words", "temperature": 0}, {}, "temperature", "would be the same"),
        ({"model": "majority/words", "temperature": "hot"}, {}, "temperature", "number"),
        ({"model": "majority/words", "max_tokens": 0}, {}, "max_tokens", "1 or more"),
        ({"model": "majority/words", "max_tokens": 2.5}, {}, "max_tokens", "whole number"),
        ({"model": "majority/words", "messages": []}, {}, "messages", "one or more"),
        ({"model": "majority/words", "messages": "hello"}, {}, "messages", "list"),
        ({"model": "majority/words", "stream": "yes"}, {}, "stream", "true or false"),
        ({"model": "majority/words", "seed": "x"}, {}, "seed", "whole number"),
    ],
)
def test_an_unknown_name_is_a_400_that_lists_the_known_ones(
    start_gateway: Start, body: dict[str, Any], headers: dict[str, str], param: str, says: str
) -> None:
    endpoint, gateway = start_gateway()
    status, answer, _ = gateway.ask({**PLAIN, **body}, **headers)
    error = answer["error"]
    assert (status, error["type"], error["param"]) == (400, "invalid_request_error", param)
    assert says in error["message"] and "\n" not in error["message"] and endpoint.requests == []


@pytest.mark.parametrize(
    ("model", "samples"), [("self_consistency-words", 5), ("majority_voting-words", 8), ("none-words", 1)]
)
def test_names_of_optillm_are_accepted(start_gateway: Start, model: str, samples: int) -> None:
    endpoint, gateway = start_gateway(n="ignored")
    assert gateway.ask({**PLAIN, "model": model})[0] == 200
    assert gateway.ask({**PLAIN, "optillm_approach": model.removesuffix("-words")})[0] == 200
    assert [body["model"] for body in endpoint.requests] == ["words"] * 2 * samples


def test_a_model_whose_name_has_a_slash_is_the_upstreams(start_gateway: Start) -> None:
    endpoint, gateway = start_gateway(probed=False)
    status, answer, _ = gateway.ask({**PLAIN, "model": "Maker/words-7B"})
    assert status == 404 and "Maker/words-7B" in answer["error"]["message"]
    assert endpoint.requests[0]["model"] == "Maker/words-7B"


FIELDS: dict[str, Any] = {
    "temperature": 0.7,
    "top_p": 0.9,
    "stop": ["###"],
    "presence_penalty": 0.5,
    "logit_bias": {"7": -1},
    "user": "Ann",
    "top_k": 40,
    "chat_template_kwargs": {"enable_thinking": False},
    "response_format": {"type": "text"},
    "tools": [{"type": "function", "function": {"name": "count", "parameters": {}}}],
    "tool_choice": "auto",
}
TALK = [
    {"role": "system", "content": "Be brief."},
    {
        "role": "user",
        "content": [{"type": "text", "text": "look"}, {"type": "image_url", "image_url": {"url": "data:,"}}],
    },
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "count", "arguments": "{}"}}],
    },
    {"role": "tool", "tool_call_id": "c1", "content": "3 User: and Assistant: 4"},
    {"role": "assistant", "tool_calls": [{"id": "c2", "type": "function", "function": {"name": "f", "arguments": ""}}]},
    {"role": "tool", "tool_call_id": "c2", "content": ""},
    {"role": "user", "content": "and now?"},
]


def test_all_fields_except_the_method_reach_every_sample_unchanged(start_gateway: Start) -> None:
    endpoint, gateway = start_gateway(n="ignored")
    assert gateway.ask({**VOTE, **FIELDS, "messages": TALK})[0] == 200
    assert len(endpoint.requests) == 8
    for sent in endpoint.requests:
        assert sent["messages"] == TALK and {name: sent[name] for name in FIELDS} == FIELDS
        assert "thinktime" not in sent and sent["max_tokens"] == 64


def test_concurrent_requests_keep_their_own_settings(start_gateway: Start) -> None:
    endpoint, gateway = start_gateway(n="ignored", latency=0.02)
    bodies = [{**PLAIN, "model": f"majority:n={n}/words", "user": str(n), "top_p": n / 10} for n in range(1, 9)]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda body: gateway.ask(body)[1]["thinktime"], bodies))
    assert [(received["options"]["n"], received["samples"]) for received in answers] == [(n, n) for n in range(1, 9)]
    sent = Counter((body["user"], body["top_p"]) for body in endpoint.requests)
    assert sent == {(str(n), n / 10): n for n in range(1, 9)}


def test_a_seed_repeats_the_answer_and_without_a_seed_answers_differ(start_gateway: Start) -> None:
    _, gateway = start_gateway(n="ignored")
    fixed = [gateway.ask({**VOTE, "seed": 5})[1] for _ in range(2)]
    assert (
        fixed[0]["choices"] == fixed[1]["choices"] and fixed[0]["thinktime"]["trace"] == fixed[1]["thinktime"]["trace"]
    )
    assert len({gateway.ask({**VOTE, "model": "single/words"})[1]["thinktime"]["seed"] for _ in range(3)}) == 3


def test_a_request_without_a_method_passes_untouched(start_gateway: Start) -> None:
    endpoint, gateway = start_gateway(probed=False)
    raw = b'{"model":"words",  "messages":[{"role":"user","content":"hi"}],"n":2,"seed":1,"max_tokens":9}'
    status, answer, _ = gateway.ask(raw)
    assert status == 200 and len(endpoint.requests) == 1 and endpoint.requests[0] == json.loads(raw)
    assert answer["id"] == "x" and len(answer["choices"]) == 2 and "thinktime" not in answer


def test_a_race_answers_with_the_shortest_sample_and_reports_uncounted_calls(start_gateway: Start) -> None:
    endpoint, gateway = start_gateway(sprint=20, pace=PATIENCE)
    endpoint.replies.extend(" ".join(["so"] * n) + f" The answer is {n}" for n in (60, 4, 50))
    status, answer, _ = gateway.ask({**PLAIN, "thinktime": {"strategy": "first_finish", "n": 3}})
    assert (status, answer["thinktime"]["answer"], answer["thinktime"]["account"]["model_calls"]) == (200, "4", 3)
    assert answer["thinktime"]["account"]["uncounted_calls"] == 2
    assert all("n" not in body and body["stream"] for body in endpoint.requests)


def test_completions_vote_too(start_gateway: Start) -> None:
    _, gateway = start_gateway(probed=False)
    body = {"model": "majority:n=4/words", "prompt": "what is 3 + 4\n", "max_tokens": 64}
    status, answer, _ = gateway.ask(body, "completions")
    assert status == 200 and answer["object"] == "text_completion"
    assert answer["choices"][0]["text"].endswith(f"answer is {answer['thinktime']['answer']}")
    status, answer, _ = gateway.ask({**body, "prompt": ["a", "b"]}, "completions")
    assert (status, answer["error"]["param"]) == (400, "prompt")


def test_models_are_listed_with_the_methods_that_need_only_samples(start_gateway: Start) -> None:
    _, gateway = start_gateway(probed=False)
    status, listing, _ = gateway.ask(b"", "models")
    names = [model["id"] for model in listing["data"]]
    assert status == 200 and names[:2] == ["words", "other-words"]
    assert "majority/words" in names and "beam_search/words" not in names


@pytest.mark.parametrize(
    ("raw", "kind", "status", "says"),
    [
        (b"{", "application/json", 400, "not JSON"),
        (b"[]", "application/json", 400, "send an object"),
        (b"[" * 100_000, "application/json", 400, "nested"),
        (b'{"temperature": NaN}', "application/json", 400, "NaN"),
        (b"\xff", "application/json", 400, "not JSON"),
        (b'{"model": "words", "seed": ' + b"9" * 5000 + b"}", "application/json", 400, "not JSON"),
        (b'{"model": "\\ud800"}', "application/json", 400, "half of a surrogate pair"),
        (b'{"messages": [{"\\uDC00": 1}]}', "application/json", 400, "half of a surrogate pair"),
        (b'{"model": "words"}', "text/plain", 415, "application/json"),
        (b'{"a": "' + b"x" * 300_000 + b'"}', "application/json", 413, "200000 bytes"),
    ],
)
def test_an_invalid_body_is_an_error(start_gateway: Start, raw: bytes, kind: str, status: int, says: str) -> None:
    endpoint, gateway = start_gateway({"max_body": 200_000}, probed=False)
    found, answer, _ = gateway.ask(raw, Content_Type=kind)
    assert found == status and says in answer["error"]["message"] and endpoint.requests == []


def test_unknown_paths_and_verbs_are_reported_in_the_same_shape(start_gateway: Start) -> None:
    _, gateway = start_gateway(probed=False)
    assert gateway.ask(b"{}", "rerank")[0] == 404
    status, answer, _ = gateway.ask(b"", "chat/completions")
    assert status == 405 and answer["error"]["type"] == "invalid_request_error"
