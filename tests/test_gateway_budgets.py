"""The gateway reports the cost of each answer, and no client exceeds its budget."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from gateway_server import BEARER, KEY, PLAIN, VOTE, Serving, Start, keyed, probe_first
from waiting import PATIENCE, MovableClock, eventually

from thinktime.core.usage import Budget, Usage
from thinktime.gateway.config import Key, digest
from thinktime.models.remote.prices import Price

PROBED = 14
"""Tokens that a probe of the fake endpoint generates, if it ignores ``n``."""
PROBED_N = 23
"""The same, if it honours ``n``."""
BOB_KEY = "another key of more than sixteen letters"
BOB = {"Authorization": f"Bearer {BOB_KEY}"}
PICTURE = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://host/picture.png"}}]}]


# the reported cost


@pytest.mark.parametrize("n", ["honoured", "ignored", "refused"])
@pytest.mark.parametrize("model", ["majority:n=8/words", "single/words", "adaptive_consistency/words"])
def test_usage_is_the_sum_of_the_endpoints_counts_over_all_samples(start_gateway: Start, n: str, model: str) -> None:
    endpoint, gateway = start_gateway(n=n)
    answer = gateway.ask({**PLAIN, "model": model})[1]
    usage, account = answer["usage"], answer["thinktime"]["account"]
    assert (usage["prompt_tokens"], usage["completion_tokens"]) == (endpoint.prompt_tokens, endpoint.generated_tokens)
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert account["generated_tokens"] == usage["completion_tokens"] and account["uncounted_calls"] == 0
    assert account["model_calls"] == answer["thinktime"]["samples"]


def test_dollars_are_reported_if_there_is_a_price_and_are_unknown_otherwise(start_gateway: Start) -> None:
    endpoint, gateway = start_gateway({"price": Price(2, 8)})
    paid = gateway.ask(VOTE)[1]["thinktime"]["account"]["dollars"]
    assert paid == pytest.approx((2 * endpoint.prompt_tokens + 8 * endpoint.generated_tokens) / 1e6)
    _, free = start_gateway()
    assert free.ask(VOTE)[1]["thinktime"]["account"]["dollars"] is None


def test_uncounted_samples_are_charged_their_worst_case_and_reported(start_gateway: Start) -> None:
    endpoint, gateway = start_gateway(n="ignored")
    endpoint.faults.append("no usage")
    answer = gateway.ask({**VOTE, "max_tokens": 100})[1]
    assert answer["thinktime"]["account"]["uncounted_calls"] == 1
    assert answer["usage"]["prompt_tokens"] == endpoint.prompt_tokens * 7 // 8
    assert answer["usage"]["completion_tokens"] >= endpoint.generated_tokens


def test_usage_is_null_if_nothing_was_counted(start_gateway: Start) -> None:
    _, gateway = start_gateway(usage=False)
    answer = gateway.ask(VOTE)[1]
    assert answer["usage"] is None and answer["thinktime"]["account"]["uncounted_calls"] == 8


# the budget of a request


@pytest.mark.parametrize("tokens", [64, 100, 200])
def test_a_request_keeps_its_budget_and_reports_that_it_ended(start_gateway: Start, tokens: int) -> None:
    endpoint, gateway = start_gateway(n="ignored")
    status, answer, _ = gateway.ask({**PLAIN, "model": f"majority:n=64@{tokens}tok/words"})
    assert status == 200 and answer["thinktime"]["finish"] == "budget" and answer["choices"][0]["message"]["content"]
    assert 0 < answer["usage"]["completion_tokens"] == endpoint.generated_tokens <= tokens


def test_a_budget_in_dollars_holds(start_gateway: Start) -> None:
    endpoint, gateway = start_gateway({"price": Price(1, 10)})
    answer = gateway.ask({**PLAIN, "model": "majority:n=64@0.003usd/words"})[1]
    assert answer["thinktime"]["finish"] == "budget"
    assert 0.001 < (endpoint.prompt_tokens + 10 * endpoint.generated_tokens) / 1e6 <= 0.003


def test_a_budget_below_one_sample_is_refused_before_anything_is_spent(start_gateway: Start) -> None:
    endpoint, gateway = start_gateway()
    status, answer, _ = gateway.ask({**PLAIN, "model": "majority@20tok/words"})
    assert (status, answer["error"]["param"]) == (400, "budget")
    assert "one sample may cost 64 tokens" in answer["error"]["message"] and endpoint.requests == []


@pytest.mark.parametrize(
    ("model", "limit"),
    [
        ("majority:n=8@400tok/words", 100),
        ("majority:n=2@400tok/words", 200),
        ("single@400tok/words", 400),
        ("single@9000tok/words", 4096),
        ("majority:n=8@10s/words", 4096),
    ],
)
def test_a_sample_without_a_length_limit_does_not_reserve_the_whole_budget(
    start_gateway: Start, model: str, limit: int
) -> None:
    endpoint, gateway = start_gateway(n="ignored")
    assert gateway.ask({"model": model, "messages": PLAIN["messages"]})[0] == 200
    assert {body["max_tokens"] for body in endpoint.requests[:1]} == {limit}


def ask_until(due: Callable[[], object], clock: MovableClock, gateway: Serving, model: str, **headers: str) -> Any:
    """An answer of the gateway; as soon as it is due, ten minutes pass at once."""
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(gateway.ask, {**PLAIN, "model": model}, **headers)
        eventually(due)
        clock.ahead += 600
        return asked.result()


def test_a_slow_probe_ends_with_the_seconds_of_the_budget(start_gateway: Start, clock: MovableClock) -> None:
    endpoint, gateway = start_gateway(probed=False)
    endpoint.faults.append("never")
    assert ask_until(lambda: endpoint.requests, clock, gateway, "single@600s/words")[0] == 504


def test_when_the_seconds_end_the_samples_so_far_answer(start_gateway: Start, clock: MovableClock) -> None:
    endpoint, gateway = start_gateway(n="ignored")
    endpoint.faults.extend(["", "never", ""])

    def two_have_come() -> bool:
        page = f"{gateway.url.removesuffix('/v1')}/ui/requests/2"  # the first request was for the probe
        try:
            with urlopen(page, timeout=PATIENCE) as reply:
                tree = json.loads(reply.read())["tree"]
        except HTTPError:
            return False
        return tree is not None and sum(node["finish"] == "eos" for node in tree["growing"]) == 2

    status, answer, _ = ask_until(two_have_come, clock, gateway, "majority:n=3@600s/words")
    assert (status, answer["thinktime"]["finish"], answer["thinktime"]["samples"]) == (200, "budget", 2)
    endpoint.requests.clear()
    endpoint.faults.append("never")
    status, answer, _ = ask_until(lambda: endpoint.requests, clock, gateway, "single@600s/words")
    assert (status, answer["error"]["type"]) == (504, "server_error")
    assert answer["thinktime"]["account"]["uncounted_calls"] == 1


# the budgets of a key and of the gateway


@pytest.mark.parametrize("who", ["key", "gateway"])
@pytest.mark.parametrize("model", ["majority:n=4/words", "words"])
def test_many_requests_at_once_never_exceed_the_budget(start_gateway: Start, who: str, model: str) -> None:
    limit = Budget(tokens=1000)
    settings = keyed(limit) if who == "key" else {**keyed(Budget()), "budget": limit}
    endpoint, gateway = start_gateway(settings, probed=False, n="ignored", latency=0.02)

    def ask(_: int) -> dict[str, Any]:
        status, answer, headers = gateway.ask({**PLAIN, "model": model}, **BEARER)
        assert status == 200 or (status, answer["error"]["code"]) == (429, "insufficient_quota")
        assert "retry-after" not in headers
        return answer

    with ThreadPoolExecutor(24) as pool:
        answers = list(pool.map(ask, range(120)))
    spent = sum(answer["usage"]["completion_tokens"] for answer in answers if "usage" in answer)
    charged = gateway.gateway.auth.clients[0].ledger.spent.generated_tokens
    assert spent + (0 if model == "words" else PROBED) == charged == endpoint.generated_tokens
    assert 1000 - 64 < charged <= 1000
    status, answer, headers = gateway.ask({**PLAIN, "model": model, "max_tokens": 500}, **BEARER)
    assert (status, answer["error"]["type"]) == (429, "insufficient_quota") and "retry-after" not in headers


@pytest.mark.parametrize("model", ["majority:n=3/words", "single/words", "words"])
def test_streams_are_charged_like_whole_answers(start_gateway: Start, model: str) -> None:
    endpoint, gateway = start_gateway(keyed(Budget(tokens=1000)), probed=False)
    probe_first(endpoint, gateway, KEY)
    before = gateway.gateway.auth.clients[0].ledger.spent.generated_tokens
    body = {**PLAIN, "model": model, "stream": True, "stream_options": {"include_usage": True}}
    data = json.dumps(body).encode()
    request = Request(f"{gateway.url}/chat/completions", data, {"Content-Type": "application/json", **BEARER})
    with urlopen(request, timeout=PATIENCE) as reply:
        reply.read()
    spent = gateway.gateway.auth.clients[0].ledger.spent
    assert spent.generated_tokens - before == endpoint.generated_tokens > 0 and spent.uncounted_calls == 0


@pytest.mark.parametrize("model", ["majority:n=4/words", "words"])
def test_a_request_waits_while_others_have_reserved_the_budget_and_loses_no_sample(
    start_gateway: Start, model: str
) -> None:
    _, gateway = start_gateway(keyed(Budget(tokens=3000)), probed=False, n="ignored", latency=0.01)
    body = {**PLAIN, "model": model, "max_tokens": 1000}  # two samples reserve nearly all of it
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: gateway.ask(body, **BEARER), range(8)))
    assert [status for status, _, _ in answers] == [200] * 8
    if model != "words":
        received = [answer["thinktime"] for _, answer, _ in answers]
        assert [(one["finish"], one["samples"]) for one in received] == [("done", 4)] * 8


def test_the_last_tokens_of_a_key_give_an_answer_marked_budget(start_gateway: Start) -> None:
    _, gateway = start_gateway(keyed(Budget(tokens=130)), probed=False)
    answer = gateway.ask({**PLAIN, "model": "majority:n=16/words"}, **BEARER)[1]
    assert answer["thinktime"]["finish"] == "budget" and answer["usage"]["completion_tokens"] <= 130
    assert answer["choices"][0]["message"]["content"]


def test_a_key_with_a_budget_has_to_send_max_tokens(start_gateway: Start) -> None:
    endpoint, gateway = start_gateway(keyed(Budget(tokens=200)), probed=False)
    status, answer, _ = gateway.ask({"model": "words", "messages": PLAIN["messages"]}, **BEARER)
    assert (status, answer["error"]["param"]) == (400, "max_tokens") and endpoint.requests == []


def test_a_dollar_budget_of_a_key_needs_a_price_and_a_prompt_of_known_size(start_gateway: Start) -> None:
    _, gateway = start_gateway(keyed(Budget(dollars=1)), probed=False)
    for model in ("words", "single/words"):
        status, answer, _ = gateway.ask({**PLAIN, "model": model}, **BEARER)
        assert status == 400 and "dollars are unknown" in answer["error"]["message"]
    _, priced = start_gateway({**keyed(Budget(dollars=0.01)), "price": Price(1, 10)}, probed=False)
    for model in ("words", "single/words"):
        assert priced.ask({**PLAIN, "model": model}, **BEARER)[0] == 200
        assert priced.ask({**PLAIN, "model": model, "messages": PICTURE}, **BEARER)[0] == 400


def test_a_failed_request_gives_back_what_was_reserved_for_it(start_gateway: Start) -> None:
    endpoint, gateway = start_gateway(keyed(Budget(tokens=130)), probed=False)
    for _ in range(5):
        assert gateway.ask({**PLAIN, "model": "single/nothing"}, **BEARER)[0] == 404
        assert gateway.ask({**PLAIN, "model": "nothing"}, **BEARER)[0] == 404
    endpoint.context = 20
    assert gateway.ask({**PLAIN, "model": "single/words"}, **BEARER)[0] == 400
    endpoint.context = 10_000
    assert gateway.ask({**PLAIN, "model": "single/words"}, **BEARER)[0] == 200


def test_the_seconds_of_a_key_limit_each_request(start_gateway: Start, clock: MovableClock) -> None:
    endpoint, gateway = start_gateway(keyed(Budget(seconds=600)), probed=False)
    for model in ("single/words", "words"):
        assert gateway.ask({**PLAIN, "model": model}, **BEARER)[0] == 200
        endpoint.requests.clear()
        endpoint.faults.append("never")
        assert ask_until(lambda: endpoint.requests, clock, gateway, model, **BEARER)[0] == 504
        assert gateway.ask({**PLAIN, "model": model}, **BEARER)[0] == 200


# who pays for probes


def two_keys(budget: Budget, other: Budget | None = None) -> dict[str, Any]:
    """Settings with the keys of ann and of bob."""
    return {"keys": (Key("ann", digest(KEY), budget), Key("bob", digest(BOB_KEY), other or budget))}


def spent(gateway: Serving, place: int = 0) -> Usage:
    """The spending of the key at this place."""
    return gateway.gateway.auth.clients[place].ledger.spent


@pytest.mark.parametrize("budget", [Budget(tokens=1000), Budget(calls=40), Budget(dollars=0.01)])
def test_a_key_with_a_budget_pays_for_the_probes_that_it_causes(start_gateway: Start, budget: Budget) -> None:
    endpoint, gateway = start_gateway({**two_keys(budget), "price": Price(1, 10)}, probed=False)
    answer = gateway.ask({**PLAIN, "model": "single/words"}, **BEARER)[1]
    assert spent(gateway).generated_tokens == endpoint.generated_tokens > answer["usage"]["completion_tokens"]
    assert spent(gateway).model_calls >= len(endpoint.requests) and gateway.gateway.probes.spent == Usage()
    before = endpoint.generated_tokens
    gateway.ask({**PLAIN, "model": "single/words"}, **BOB)
    assert spent(gateway, 1).generated_tokens == endpoint.generated_tokens - before, "the model is probed already"


def test_without_a_budget_the_account_of_probes_pays(start_gateway: Start) -> None:
    _, gateway = start_gateway(keyed(Budget(seconds=60)), probed=False)
    answer = gateway.ask({**PLAIN, "model": "single/words"}, **BEARER)[1]
    assert spent(gateway).generated_tokens == answer["usage"]["completion_tokens"]
    assert gateway.gateway.probes.spent.generated_tokens > 0


def test_names_of_unknown_models_cost_their_client_calls(start_gateway: Start) -> None:
    _, gateway = start_gateway(keyed(Budget(calls=15)), probed=False, lists_models=False)
    statuses = [gateway.ask({**PLAIN, "model": f"single/model-{i}"}, **BEARER)[0] for i in range(8)]
    assert statuses == [502] * 4 + [429] * 4, "a probe reserves 12 calls"
    assert (spent(gateway).model_calls, spent(gateway).generated_tokens) == (4, 0)


def test_a_probe_that_its_first_client_cannot_pay_is_paid_by_the_next(start_gateway: Start) -> None:
    _, gateway = start_gateway(two_keys(Budget(tokens=70), Budget(tokens=1000)), probed=False)
    status, answer, _ = gateway.ask({**PLAIN, "model": "single/words"}, **BEARER)
    assert (status, answer["error"]["code"]) == (429, "insufficient_quota") and spent(gateway) == Usage()
    assert gateway.ask({**PLAIN, "model": "single/words"}, **BOB)[0] == 200
    assert gateway.ask({**PLAIN, "model": "single/words"}, **BEARER)[0] == 200


def test_probes_that_never_end_do_not_hold_back_another_client(start_gateway: Start) -> None:
    endpoint, gateway = start_gateway(two_keys(Budget(tokens=10_000)), probed=False, silent="stuck")
    with ThreadPoolExecutor(20) as pool:
        stuck = [pool.submit(gateway.ask, {**PLAIN, "model": f"single/stuck-{i}"}, **BEARER) for i in range(20)]
        eventually(lambda: len(endpoint.requests) == 20)
        assert gateway.ask({**PLAIN, "model": "single/words"}, **BOB)[0] == 200
        assert not any(one.done() for one in stuck)
        endpoint.silent = ""
        assert {one.result()[0] for one in stuck} == {404}


def test_two_clients_of_one_model_share_its_probe_and_the_first_one_pays(start_gateway: Start) -> None:
    endpoint, gateway = start_gateway(two_keys(Budget(tokens=1000)), probed=False, silent="words")
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(gateway.ask, {**PLAIN, "model": "single/words"}, **BEARER)
        eventually(lambda: len(endpoint.requests) == 1)
        second = pool.submit(gateway.ask, {**PLAIN, "model": "single/words"}, **BOB)
        eventually(lambda: len(list(gateway.gateway.history.seen_by(gateway.gateway.auth.clients[1]))) == 1)
        endpoint.silent = ""
        answers = [one.result()[1] for one in (first, second)]
    tokens = [answer["usage"]["completion_tokens"] for answer in answers]
    assert [spent(gateway, place).generated_tokens - tokens[place] for place in (0, 1)] == [PROBED_N, 0]


# judges


def test_what_a_judge_writes_is_in_the_budget_of_tokens(start_gateway: Start) -> None:
    endpoint, gateway = start_gateway({**two_keys(Budget(tokens=3000))}, probed=False, says=["Grade: 7"])
    body = {**PLAIN, "model": "words", "thinktime": {"strategy": "best_of_n", "n": 64, "scorers": {"main": "words"}}}
    for _ in range(4):
        gateway.ask({**body, "max_tokens": 16}, **BEARER)
        assert spent(gateway).generated_tokens + spent(gateway).judge_tokens == endpoint.generated_tokens <= 3000
    assert spent(gateway).judge_tokens > 0
