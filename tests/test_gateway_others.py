"""Calls of the gateway beside samples: embeddings, and one model by its name."""

from __future__ import annotations

from typing import Any
from urllib.request import Request, urlopen

import pytest
from gateway_server import BEARER, KEY, PLAIN, Serving, Start, answered, keyed
from openai import BadRequestError, NotFoundError, OpenAI
from prometheus_client.parser import text_string_to_metric_families
from waiting import PATIENCE

from thinktime.core.usage import Budget
from thinktime.models.remote.prices import Price

TEXTS = ["one two three", "four"]


def test_embeddings_are_passed_on_and_charged(start_gateway: Start) -> None:
    endpoint, gateway = start_gateway(
        {**keyed(Budget(tokens=5000, dollars=9.0)), "price": Price(1000, 1000)}, probed=False
    )
    client = OpenAI(base_url=gateway.url, api_key=KEY, max_retries=0)
    found = client.embeddings.create(model="words", input=TEXTS, encoding_format="float")
    assert [each.embedding for each in found.data] == [[3.0], [1.0]]
    assert endpoint.requests == [{"model": "words", "input": TEXTS, "encoding_format": "float"}]
    spent = gateway.gateway.auth.clients[0].ledger.spent
    assert (spent.prompt_tokens, spent.generated_tokens, spent.model_calls, spent.uncounted_calls) == (4, 0, 1, 0)
    assert spent.dollars == pytest.approx(4e-3)


def test_embeddings_without_a_budget_pass_every_field(start_gateway: Start) -> None:
    endpoint, gateway = start_gateway()
    status, answer, _ = gateway.ask({"model": "words", "input": "one", "truncate": "END"}, "embeddings")
    assert (status, answer["data"][0]["embedding"]) == (200, [1.0]) and endpoint.requests[0]["truncate"] == "END"


@pytest.mark.parametrize(
    ("field", "body"), [("model", {"model": "majority:n=2/words"}), ("truncate", {"truncate": "END"})]
)
def test_embeddings_refuse_methods_and_under_a_budget_unknown_fields(
    start_gateway: Start, field: str, body: dict[str, Any]
) -> None:
    endpoint, gateway = start_gateway(keyed(Budget(tokens=5000)), probed=False)
    status, answer, _ = gateway.ask({"model": "words", "input": "one", **body}, "embeddings", **BEARER)
    assert (status, answer["error"]["param"]) == (400, field) and endpoint.requests == []


def test_an_embedding_whose_price_has_no_bound_is_refused_under_a_budget_in_dollars(start_gateway: Start) -> None:
    endpoint, gateway = start_gateway({**keyed(Budget(dollars=1.0)), "price": Price(1000, 1000)}, probed=False)
    image = {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}
    status, answer, _ = gateway.ask({"model": "words", "input": [image]}, "embeddings", **BEARER)
    assert status == 400 and "dollars" in answer["error"]["message"] and endpoint.requests == []


@pytest.mark.parametrize("name", ["words", "majority/words", "majority:n=8@4000tok/words"])
def test_a_model_is_found_by_its_name(start_gateway: Start, name: str) -> None:
    _, gateway = start_gateway()
    found = OpenAI(base_url=gateway.url, api_key="none").models.retrieve(name)
    assert found.id == name and found.object == "model"


@pytest.mark.parametrize("name", ["other", "majority/other"])
def test_an_unknown_model_is_a_404(start_gateway: Start, name: str) -> None:
    _, gateway = start_gateway()
    with pytest.raises(NotFoundError, match="words"):
        OpenAI(base_url=gateway.url, api_key="none", max_retries=0).models.retrieve(name)
    with pytest.raises(BadRequestError):
        OpenAI(base_url=gateway.url, api_key="none", max_retries=0).models.retrieve("majority:n=x/words")


def metrics_text(gateway: Serving, key: str) -> str:
    request = Request(gateway.url.removesuffix("/v1") + "/metrics", headers={"Authorization": f"Bearer {key}"})
    with urlopen(request, timeout=PATIENCE) as reply:
        return str(reply.read().decode())


def test_names_in_a_path_are_one_line_of_the_metrics(start_gateway: Start) -> None:
    _, gateway = start_gateway()
    for name in ("words", "a", "b"):
        gateway.ask(b"", f"models/{name}")
    assert {path for path, _, _ in answered(gateway)} == {"/v1/models/", "/v1/chat/completions"}


def test_metrics_keep_known_sums_apart_from_unknown_counts(start_gateway: Start) -> None:
    endpoint, gateway = start_gateway(keyed(Budget(tokens=9000), sees_all=True), probed=False)
    _, first, _ = gateway.ask({**PLAIN, "model": "majority:n=2/words"}, **BEARER)
    endpoint.usage = False
    assert gateway.ask(PLAIN, **BEARER)[0] == 200
    families = list(text_string_to_metric_families(metrics_text(gateway, KEY)))
    samples = [sample for family in families for sample in family.samples]
    prompts = {
        sample.name: sample.value
        for sample in samples
        if sample.labels.get("what") == "prompt_tokens" and sample.labels["key"] == "ann"
    }
    assert prompts["thinktime_request_unknown_total"] == 1 and "thinktime_spent_total" not in prompts
    assert prompts["thinktime_request_spent_total"] >= first["usage"]["prompt_tokens"] > 0
    assert all(family.documentation for family in families)
    assert [sample.value for sample in samples if sample.name == "thinktime_requests_in_flight"] == [0]
    voted = {"path": "/v1/chat/completions", "strategy": "majority"}
    assert gateway.gateway.metrics.value("request_seconds_bucket", le="+Inf", **voted) == 1
