"""No field of a request makes an upstream generate more than its client was charged, in tokens, calls and dollars.

The upstream of these tests obeys the length fields of all calls and engines, at any depth and in any spelling, and
takes the most of them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from fake_endpoint import FakeEndpoint, Running, _raw
from gateway_server import BEARER, MESSAGES, PLAIN, Serving, Start, keyed
from hypothesis import given
from hypothesis import strategies as st

from thinktime.core.ledger import Ledger
from thinktime.core.usage import Budget
from thinktime.gateway import lengths
from thinktime.models.remote.prices import Price

PRICE = Price(1, 10, 2)
CONTEXT = 2000
"""Tokens that the upstream generates without a limit."""
LENGTHS = frozenset(
    {"max_tokens", "max_completion_tokens", "max_output_tokens", "n_predict", "max_new_tokens", "min_new_tokens"}
    | {"min_tokens", "num_predict", "max_length", "max_gen_len", "max_tokens_to_sample", "budget_tokens"}
)
NUMBERS = ("n", "best_of")
WITH_USAGE = ("stream_options", {"include_usage": True})
MORE = ("n_cmpl", "num_return_sequences", "num_beams")


@dataclass
class ObedientEndpoint(FakeEndpoint):
    """Obeys every length field that any engine has, and counts tokens and samples. It reads a token for each byte."""

    sampled: int = 0
    """Samples so far."""

    async def _answer(self, path: str, headers: dict[str, str], raw: bytes) -> bytes | list[bytes]:
        if path == "/v1/models":
            return await super()._answer(path, headers, raw)
        pairs = list(_pairs(json.loads(raw, object_pairs_hook=lambda found: _Pairs(found))))
        if not pairs:
            return _raw(400, b"{}", "application/json")  # an empty request, for whether the call exists
        body = json.loads(raw)
        self.requests.append(body)
        found = [_obeyed(value) for name, value in pairs if name in LENGTHS and value is not None]
        limit = max(found, default=CONTEXT)
        samples = max([_obeyed(value) for name, value in pairs if name in NUMBERS and value is not None], default=1)
        samples *= math.prod(_obeyed(value) for name, value in pairs if name in MORE and value is not None)
        if path == "/v1/completions" and isinstance(prompt := body.get("prompt"), list):
            samples *= len(prompt) if not all(isinstance(token, int) for token in prompt) else 1
        self.prompt_tokens += len(raw)
        self.generated_tokens += limit * samples
        self.sampled += samples
        reported = limit * (samples if self.counts_all else 1)
        read, new = ("input", "output") if path == "/v1/responses" else ("prompt", "completion")
        reply: dict[str, Any] = {"usage": {f"{read}_tokens": len(raw), f"{new}_tokens": reported}} if self.usage else {}
        if path != "/v1/responses":
            reply["choices"] = [self._choice_of(index, path, body, limit) for index in range(samples)]
        if not body.get("stream"):
            return _raw(200, json.dumps(reply).encode(), "application/json")
        with_usage = path == "/v1/responses" or (body.get("stream_options") or {}).get("include_usage")
        events = [{**reply, "usage": reply.get("usage") if with_usage else None}]
        text = "".join(f"data: {json.dumps(event)}\n\n" for event in events) + "data: [DONE]\n\n"
        return _raw(200, text.encode(), "text/event-stream")

    def _choice_of(self, index: int, path: str, body: dict[str, Any], limit: int) -> dict[str, Any]:
        choice: dict[str, Any] = {"index": index, "finish_reason": "length"}
        if path == "/v1/chat/completions":
            choice["delta" if body.get("stream") else "message"] = {"role": "assistant", "content": "a " * limit}
            if self.logprobs and body.get("logprobs"):
                choice["logprobs"] = {"content": [{"token": "a ", "logprob": -0.5}] * limit}
        else:
            choice["text"] = "a " * limit
            if self.logprobs and body.get("logprobs") is not None:
                choice["logprobs"] = {"tokens": ["a "] * limit, "token_logprobs": [-0.5] * limit}
        return choice


class _Pairs(list[tuple[str, Any]]):
    """The members of an object, also those whose name comes twice."""


def _pairs(value: Any) -> Iterator[tuple[str, Any]]:
    """All members of all objects by lower-case name, as Go reads them, but not those of messages and prompts."""
    for name, inner in value if isinstance(value, _Pairs) else ():
        yield name.lower(), inner
        if name not in ("messages", "input", "prompt"):
            yield from _pairs(inner)


def _obeyed(value: Any) -> int:
    """The number that an engine could read. A number below one is no limit for some engines."""
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return CONTEXT
    return int(number) if 1 <= number <= CONTEXT else CONTEXT


@contextmanager
def served(**behaviour: Any) -> Iterator[tuple[ObedientEndpoint, Serving]]:
    settings: dict[str, Any] = {"price": PRICE, **keyed(Budget(tokens=10_000))}
    with Running(ObedientEndpoint, **behaviour) as endpoint, Serving(endpoint.url, **settings) as gateway:
        assert isinstance(endpoint, ObedientEndpoint)
        yield endpoint, gateway


ENGINES: dict[str, dict[str, Any]] = {
    "counts all": {},
    "counts one": {"counts_all": False},
    "counts one and lists nothing": {"counts_all": False, "logprobs": False},
    "counts nothing": {"usage": False},
}


@pytest.fixture(scope="module")
def engines() -> Iterator[dict[str, tuple[ObedientEndpoint, Serving]]]:
    with ExitStack() as stack:
        yield {name: stack.enter_context(served(**behaviour)) for name, behaviour in ENGINES.items()}


small = st.integers(1, 40)
odd = st.sampled_from([0, -1, 1e3, 10.0, 0.5, True, False, "5", None, 10**400, [7], {"max_new_tokens": 90}, "auto"])
values = st.one_of(small, small, odd)
names = st.sampled_from(
    sorted({name for each in (lengths.LIMITS, lengths.COUNTS) for fields in each.values() for name in fields})
    + sorted({*lengths.ELSEWHERE, *lengths.ONLY, *LENGTHS, *MORE, "MAX_TOKENS", "N", "max_tokens ", "ignore_eos"})
)
nested = st.fixed_dictionaries({}, optional=dict.fromkeys(sorted(LENGTHS), values))
extra: st.SearchStrategy[list[tuple[str, Any]]] = st.one_of(
    st.just([]), st.lists(st.tuples(names, st.one_of(values, nested)), max_size=2)
)
prompts = st.one_of(
    st.just("what is 3 + 4"),
    st.lists(st.sampled_from(["a", "b c"]), min_size=1, max_size=4),
    st.lists(st.integers(0, 9), min_size=1, max_size=4),
    st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=2), min_size=1, max_size=3),
    st.sampled_from([[], ["a", 1], {"prompt_string": "a"}, [[["a"]]]]),
)
methods = st.sampled_from(["", "", "single/", "majority:n=3/", "majority:n=3@100tok/", "single@2calls/"])
budgets = st.sampled_from([Budget(tokens=600), Budget(tokens=600, calls=40), Budget(calls=30), Budget(dollars=0.02)])


@st.composite
def requests(draw: st.DrawFn) -> tuple[str, bytes]:
    """A call, and a body that may have a name twice."""
    api = draw(st.sampled_from([lengths.CHAT, lengths.COMPLETIONS, lengths.RESPONSES]))
    pairs: list[tuple[str, Any]] = [("model", f"{draw(methods)}words")]
    pairs += [("messages", MESSAGES)] if api == lengths.CHAT else []
    pairs += [("prompt", draw(prompts))] if api == lengths.COMPLETIONS else []
    pairs += [("input", "what is 3 + 4")] if api == lengths.RESPONSES else []
    pairs += draw(st.sampled_from([[], [(lengths.LIMITS[api][0], draw(small))]]))
    pairs += draw(st.sampled_from([[], [("n", draw(st.integers(1, 4)))]]))
    pairs += draw(st.sampled_from([[], [], [("logprobs", 1 if api == lengths.COMPLETIONS else True)]]))
    pairs += draw(st.sampled_from([[], [], [("stream", True)], [("stream", True), WITH_USAGE]]))
    pairs += draw(extra)
    members = ", ".join(f"{json.dumps(name)}: {json.dumps(value)}" for name, value in pairs)
    return api, f"{{{members}}}".encode()


@pytest.mark.parametrize("engine", ENGINES)
@given(requests(), budgets)
def test_a_client_is_charged_at_least_what_was_generated_and_never_above_its_budget(
    engines: dict[str, tuple[ObedientEndpoint, Serving]], engine: str, request: tuple[str, bytes], budget: Budget
) -> None:
    endpoint, gateway = engines[engine]
    api, body = request
    client = gateway.gateway.auth.clients[0]
    client.ledger, client.limits = Ledger(budget), (budget, Budget())
    read, generated, sampled = endpoint.prompt_tokens, endpoint.generated_tokens, endpoint.sampled
    status = ask(gateway, body, api)
    spent = client.ledger.spent
    generated, read = endpoint.generated_tokens - generated, endpoint.prompt_tokens - read
    assert status in (200, 400, 404, 429), body
    assert generated <= spent.generated_tokens <= (budget.tokens or math.inf), body
    assert endpoint.sampled - sampled <= spent.model_calls <= (budget.calls or math.inf), body
    if budget.dollars is not None:
        assert spent.dollars is not None
        assert PRICE.dollars(read, 0, generated) <= spent.dollars * (1 + 1e-9) <= budget.dollars, body


def ask(gateway: Serving, body: bytes, api: str) -> int:
    from urllib.error import HTTPError
    from urllib.request import Request, urlopen

    try:
        sent = Request(f"{gateway.url}/{api}", body, {"Content-Type": "application/json", **BEARER})
        with urlopen(sent, timeout=30) as reply:
            reply.read()
            return int(reply.status)
    except HTTPError as error:
        error.read()
        return error.code


# what a client with a budget may send

LIMIT = Budget(tokens=1000)
FOREIGN: dict[str, list[tuple[str, Any]]] = {
    lengths.CHAT: [
        *(("max_output_tokens", 500), ("n_predict", 500), ("n_cmpl", 8), ("min_tokens", 500), ("N_PREDICT", 500)),
        *(("max_new_tokens", 500), ("options", {"num_predict": 500}), ("parameters", {"max_new_tokens": 500})),
        *(("thinking", {"budget_tokens": 500}), ("extra_body", {"n_predict": 500}), ("MAX_TOKENS", 500)),
        *(("use_beam_search", True), ("generation_config", '{"max_new_tokens": 500}'), ("nvext", {})),
        *(
            ("prediction", {"type": "content", "content": "a"}),
            ("web_search_options", {}),
            ("service_tier", "priority"),
        ),
        *(("modalities", ["text", "audio"]), ("chat_template_kwargs", {"chat_template": "{% for i in x %}"})),
        *(("tools", [{"type": "web_search"}]), ("models", ["a"]), ("anything_new", 1), ("background", True)),
    ],
    lengths.COMPLETIONS: [
        *(("max_completion_tokens", 5), ("max_output_tokens", 5), ("n_predict", 500), ("prompt_embeds", "a")),
        *(("num_return_sequences", 4), ("messages", MESSAGES), ("prompt", [{"prompt_string": "a"}])),
    ],
    lengths.RESPONSES: [
        *(("max_tokens", 5), ("max_completion_tokens", 5), ("n", 50), ("best_of", 2), ("background", True)),
        *(("tools", [{"type": "code_interpreter"}]), ("max_tool_calls", 3), ("prompt", {"id": "p"})),
    ],
}


def plain(api: str) -> dict[str, Any]:
    """A request that a client with a budget may send."""
    asked = {lengths.CHAT: "messages", lengths.COMPLETIONS: "prompt", lengths.RESPONSES: "input"}[api]
    question = MESSAGES if api == lengths.CHAT else "what is 3 + 4"
    return {"model": "words", lengths.LIMITS[api][0]: 20, asked: question}


@pytest.fixture(scope="module")
def obedient() -> Iterator[tuple[ObedientEndpoint, Serving]]:
    with served() as both:
        yield both


@pytest.mark.parametrize("method", ["", "single/"])
@pytest.mark.parametrize("api", FOREIGN)
def test_a_field_that_may_lengthen_answers_is_refused_with_its_name_its_value_and_a_fix(
    obedient: tuple[ObedientEndpoint, Serving], api: str, method: str
) -> None:
    endpoint, gateway = obedient
    before = endpoint.generated_tokens
    for name, value in FOREIGN[api]:
        body = {**plain(api), "model": f"{method}words", name: value}
        status, answer, _ = gateway.ask(body, api, **BEARER)
        message = answer["error"]["message"]
        assert status == 400 and "\n" not in message, name
        assert str(answer["error"]["param"]).partition("[")[0] == name and message.startswith(name), message
        assert "budget" in message or "gateway" in message or "method" in message, message
    assert endpoint.generated_tokens == before


def test_a_budget_of_a_request_refuses_the_same_fields(start_gateway: Start) -> None:
    endpoint, gateway = start_gateway()
    assert gateway.ask({**PLAIN, "model": "single/words", "n_predict": 99})[0] == 200
    status, answer, _ = gateway.ask({**PLAIN, "model": "single@500tok/words", "n_predict": 99})
    assert (status, answer["error"]["param"]) == (400, "n_predict") and "llama.cpp" in answer["error"]["message"]
    assert len(endpoint.requests) == 1


def test_a_client_without_a_budget_sends_what_it_likes(start_gateway: Start) -> None:
    endpoint, gateway = start_gateway(keyed(Budget(seconds=60)), probed=False)
    body = b'{"model": "words", "messages": [], "n_predict": 9,\t"n_predict": 8, "N": 2, "max_tokens": 5}'
    assert gateway.ask(body, **BEARER)[0] == 200
    assert endpoint.requests[-1] == json.loads(body)


def test_honest_requests_pass_under_a_budget(obedient: tuple[ObedientEndpoint, Serving]) -> None:
    _, gateway = obedient
    tool = {"type": "function", "function": {"name": "f", "parameters": {}}}
    fields: dict[str, Any] = {"temperature": 0.5, "top_k": 5, "stop": ["x"], "seed": 1, "user": "ann", "tools": [tool]}
    fields |= {"response_format": {"type": "json_object"}, "reasoning_effort": "low", "n_predict": None}
    fields |= {"chat_template_kwargs": {"enable_thinking": False}, "modalities": ["text"], "service_tier": "auto"}
    fields |= {"logit_bias": {"5": -1}, "guided_json": {}, "ignore_eos": True, "min_tokens": 0, "n": 2}
    assert gateway.ask({**plain(lengths.CHAT), **fields}, **BEARER)[0] == 200
    more = {"echo": True, "suffix": "a", "logprobs": 1, "best_of": 2}
    assert gateway.ask({**plain(lengths.COMPLETIONS), **more}, "completions", **BEARER)[0] == 200
    more = {"reasoning": {"effort": "low"}, "store": False, "text": {"format": {"type": "text"}}, "truncation": "auto"}
    assert gateway.ask({**plain(lengths.RESPONSES), **more}, "responses", **BEARER)[0] == 200


@pytest.mark.parametrize("value", [0, -1, 1e3, 2.0, True, "5", 10**400, [5]])
@pytest.mark.parametrize("name", ["max_tokens", "n", "best_of"])
@pytest.mark.parametrize("model", ["words", "single/words"])
def test_a_number_that_engines_read_in_several_ways_is_refused(
    obedient: tuple[ObedientEndpoint, Serving], model: str, name: str, value: Any
) -> None:
    endpoint, gateway = obedient
    before = endpoint.generated_tokens
    status, answer, _ = gateway.ask({**plain(lengths.CHAT), "model": model, name: value}, **BEARER)
    assert status == 400 and answer["error"]["param"] == name and endpoint.generated_tokens == before


@pytest.mark.parametrize(
    "body",
    [
        b'{"model": "words", "prompt": "a", "max_tokens": 900, "max_tokens": 5}',
        '{"model": "words", "prompt": "a", "max_tokens": 5}'.encode("utf-16"),
        b'\xef\xbb\xbf{"model": "words", "prompt": "a", "max_tokens": 5}',
    ],
)
def test_a_body_that_parsers_read_in_several_ways_is_refused(
    obedient: tuple[ObedientEndpoint, Serving], body: bytes
) -> None:
    endpoint, gateway = obedient
    before = endpoint.generated_tokens
    assert gateway.ask(body, "completions", **BEARER)[0] == 400
    assert endpoint.generated_tokens == before


@pytest.mark.parametrize(
    ("fields", "samples"),
    [
        *(({"n": 3}, 3), ({"best_of": 4, "n": 2}, 4), ({"prompt": ["a", "b"]}, 2), ({"prompt": ["a", "b"], "n": 3}, 6)),
        *(({"prompt": [5, 6, 7]}, 1), ({"prompt": [[5, 6], [7]]}, 2)),
    ],
)
def test_each_sample_of_each_prompt_is_a_call(
    obedient: tuple[ObedientEndpoint, Serving], fields: dict[str, Any], samples: int
) -> None:
    endpoint, gateway = obedient
    client = gateway.gateway.auth.clients[0]
    budget = Budget(calls=samples)
    assert gateway.ask({**plain(lengths.COMPLETIONS), "n": 2}, "completions", **BEARER)[0] == 200  # it is probed now
    client.ledger, client.limits = Ledger(budget), (budget,)
    before = endpoint.sampled
    try:
        assert gateway.ask({**plain(lengths.COMPLETIONS), **fields}, "completions", **BEARER)[0] == 200
        assert endpoint.sampled - before == client.ledger.spent.model_calls == samples
        assert gateway.ask(plain(lengths.COMPLETIONS), "completions", **BEARER)[0] == 429
    finally:
        client.ledger, client.limits = Ledger(), (LIMIT,)


def test_a_request_without_a_method_draws_at_most_the_samples_that_one_request_may_draw(start_gateway: Start) -> None:
    endpoint, gateway = start_gateway({**keyed(LIMIT), "max_samples": 8}, probed=False)
    for fields in ({"n": 9}, {"n": 3, "prompt": ["a", "b", "c"]}):
        body = {**plain(lengths.COMPLETIONS), **fields}
        assert gateway.ask(body, "completions", **BEARER)[0] == 400 and endpoint.requests == []


@pytest.mark.parametrize("name", ["tools", "response_format", "functions"])
def test_the_worst_case_in_dollars_has_all_bytes_of_the_request(
    obedient: tuple[ObedientEndpoint, Serving], name: str
) -> None:
    _, gateway = obedient
    client = gateway.gateway.auth.clients[0]
    budget = Budget(dollars=0.05)
    client.ledger, client.limits = Ledger(budget), (budget,)
    large: Any = {"type": "json_schema", "json_schema": {"name": "a", "schema": {"description": "a" * 100_000}}}
    large = (
        large if name == "response_format" else [{"type": "function", "function": {"name": "f", "d": "a" * 100_000}}]
    )
    try:
        for model in ("words", "single/words"):
            assert gateway.ask({**plain(lengths.CHAT), "model": model}, **BEARER)[0] == 200
            status, answer, _ = gateway.ask({**plain(lengths.CHAT), "model": model, name: large}, **BEARER)
            assert (status, answer["error"]["code"]) == (429, "insufficient_quota")
    finally:
        client.ledger, client.limits = Ledger(), (LIMIT,)


@pytest.mark.parametrize(
    ("behaviour", "status"),
    [
        ({"limits": ("max_completion_tokens", "max_tokens")}, 200),
        ({"limits": ("max_tokens",)}, 400),
        ({"refuses": ("max_completion_tokens",)}, 400),
    ],
    ids=["obeys", "ignores", "refuses"],
)
def test_the_probe_finds_an_upstream_that_ignores_a_length_limit(
    start_gateway: Start, behaviour: dict[str, Any], status: int
) -> None:
    endpoint, gateway = start_gateway(keyed(Budget(tokens=1000)), probed=False, **behaviour)
    body = {"model": "words", "messages": MESSAGES, "max_completion_tokens": 5}
    for _ in range(2):
        assert gateway.ask(body, **BEARER)[0] == status
    spent = gateway.gateway.auth.clients[0].ledger.spent.generated_tokens
    assert spent == endpoint.generated_tokens <= 60
    assert gateway.ask({**body, "max_tokens": 5}, **BEARER)[0] == (400 if "refuses" in behaviour else 200)
