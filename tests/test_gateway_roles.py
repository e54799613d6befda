"""The gateway: models, scorers and prompts by name, accounts by role, and methods that compare steps."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
from fake_endpoint import Running
from gateway_server import PLAIN, Serving, Start
from waiting import PATIENCE

from thinktime import strategies
from thinktime.core.errors import InputError
from thinktime.core.search import Search
from thinktime.core.trace import Answer
from thinktime.core.types import Capability, Node, Problem, Score
from thinktime.core.usage import Usage
from thinktime.gateway.config import Endpoint, Key, digest, read_config
from thinktime.models.remote.prices import Price

KEY = "a key of the test"
SIGNED = {"Authorization": f"Bearer {KEY}"}


@dataclass(frozen=True)
class TwoModels:
    """A draft by one model, and a sample of the main one."""

    n: int = 2
    needs: ClassVar[frozenset[str]] = frozenset({Capability.ANSWERS})

    async def __call__(self, search: Search) -> Answer:
        with search.phase("draft"):
            await search.extend([search.root], model="draft")
        nodes = await search.extend([search.root])
        return search.finish(next(iter(search.candidates(nodes)), None))


@pytest.fixture(autouse=True)
def two_models(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(strategies.BUILT_IN, "two_models", TwoModels)


class LengthReward:
    """A process reward: longer texts score higher."""

    name = "lengths"
    capabilities = frozenset({Capability.SCORES, Capability.PROCESS_REWARD})

    def worst_case(self, problem: Problem, node: Node, known: Node | None) -> Usage:
        return Usage(scorer_calls=1)

    async def score(self, problem: Problem, nodes: Sequence[Node], known: Sequence[Node | None]) -> list[Score]:
        return [Score(len(node.state.text) / 1000, Usage(scorer_calls=1)) for node in nodes]


def asked(**thinktime: Any) -> dict[str, Any]:
    return {**PLAIN, "thinktime": thinktime}


def summed(accounts: Sequence[dict[str, Any]], count: str) -> int:
    return sum(account["usage"][count] for account in accounts)


def shown(gateway: Serving, number: int) -> dict[str, Any]:
    """The data of a request for the page."""
    with urllib.request.urlopen(f"{gateway.url.removesuffix('/v1')}/ui/requests/{number}", timeout=PATIENCE) as reply:
        found: dict[str, Any] = json.loads(reply.read())
    return found


def spent_by(gateway: Serving, name: str) -> Usage:
    return next(client.ledger.spent for client in gateway.gateway.auth.clients if client.name == name)


# Steps and accounts


def test_a_method_that_compares_steps_runs_and_its_embeddings_are_in_the_account(start_gateway: Start) -> None:
    _, gateway = start_gateway({"scorer": LengthReward()}, stops="echoed")
    body = {"model": "ets:n=4/words", "prompt": "what is 3 + 4\n", "max_tokens": 64}
    status, answer, _ = gateway.ask(body, path="completions")
    assert status == 200, answer
    received = answer["thinktime"]
    assert received["account"]["embeddings"] > 0
    assert {"embedder", "model main", "scorer main"} <= {account["role"] for account in received["accounts"]}


def test_an_answer_and_the_page_have_accounts_by_phase_and_role_that_sum_to_the_total(start_gateway: Start) -> None:
    _, gateway = start_gateway()
    status, answer, _ = gateway.ask(asked(strategy="two_models", models={"draft": "other-words"}))
    assert status == 200, answer
    received = answer["thinktime"]
    accounts = received["accounts"]
    assert [(account["phase"], account["role"]) for account in accounts] == [
        ("draft", "model draft"),
        ("online", "model main"),
    ]
    for count in ("prompt_tokens", "generated_tokens", "model_calls"):
        assert summed(accounts, count) == received["account"][count] > 0
    page = shown(gateway, 2)
    assert page["tree"]["accounts"] == accounts
    assert [node.get("model") for node in page["tree"]["nodes"]] == [None, "draft", None]


def test_accounts_are_in_the_last_event_of_a_stream(start_gateway: Start) -> None:
    _, gateway = start_gateway()
    events = gateway.read({**PLAIN, "model": "majority:n=2/words", "stream": True}).decode().split("\n\n")
    last = next(json.loads(event[6:]) for event in reversed(events) if '"thinktime"' in event)
    assert [account["role"] for account in last["thinktime"]["accounts"]] == ["model main"]


def test_a_cascade_runs_with_a_draft_and_without_one_the_role_is_named(start_gateway: Start) -> None:
    _, gateway = start_gateway()
    status, answer, _ = gateway.ask(asked(strategy="cascade", n=2, models={"draft": "other-words"}))
    assert status == 200, answer
    roles = [account["role"] for account in answer["thinktime"]["accounts"]]
    assert roles[0] == "model draft" and summed(answer["thinktime"]["accounts"], "model_calls") == 1 + len(roles)
    status, answer, _ = gateway.ask(asked(strategy="cascade", n=2))
    assert status == 400 and "a model of the role 'draft'" in answer["error"]["message"]
    assert '("thinktime": {"models": {"draft": NAME}})' in answer["error"]["message"], "clients have no command line"


# Models and scorers by role


def test_a_request_names_the_models_of_roles_and_request_key_and_gateway_pay_for_all(start_gateway: Start) -> None:
    endpoint, gateway = start_gateway({"keys": (Key("alice", digest(KEY)),)}, probed=False)
    status, answer, _ = gateway.ask(asked(strategy="two_models", models={"draft": "other-words"}), **SIGNED)
    assert status == 200, answer
    assert {"words", "other-words"} == {body["model"] for body in endpoint.requests}
    total = answer["thinktime"]["account"]["generated_tokens"]
    assert answer["usage"]["completion_tokens"] == total
    assert spent_by(gateway, "alice").generated_tokens == total
    probes = gateway.gateway.probes.spent.generated_tokens
    assert gateway.gateway.auth.ledger.spent.generated_tokens == total + probes == endpoint.generated_tokens


def test_the_budget_of_a_request_limits_all_its_roles(start_gateway: Start) -> None:
    _, gateway = start_gateway()
    body = asked(strategy="two_models", models={"draft": "other-words"}, budget={"calls": 1})
    status, answer, _ = gateway.ask(body)
    assert (status, answer["thinktime"]["finish"]) == (200, "budget")
    assert answer["thinktime"]["account"]["model_calls"] == 1


def test_a_configured_role_has_its_own_address_and_key(start_gateway: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRAFT_KEY", "secret")
    with Running(key="secret") as drafts:
        models = {"draft": Endpoint("other-words", drafts.url, "DRAFT_KEY")}
        endpoint, gateway = start_gateway({"models": models, "upstream_key": "main"})
        status, answer, _ = gateway.ask(asked(strategy="two_models"))
        assert status == 200, answer
        assert {body["model"] for body in drafts.requests} == {"other-words"}
        assert {body["model"] for body in endpoint.requests} == {"words"}
        drafts.requests.clear()
        assert gateway.ask(asked(strategy="two_models", models={"draft": "other-words"}))[0] == 200
        assert drafts.requests == [], "a role in the request replaces the configured one"


def test_the_upstreams_key_is_not_sent_to_another_host(start_gateway: Start) -> None:
    with Running() as drafts:
        models = {"draft": Endpoint("words", drafts.url)}
        endpoint, gateway = start_gateway({"models": models, "upstream_key": "main"})
        assert gateway.ask(asked(strategy="two_models"))[0] == 200
        assert endpoint.headers[-1]["authorization"] == "Bearer main"
        assert drafts.headers and all("authorization" not in headers for headers in drafts.headers)


def test_a_role_whose_endpoint_is_down_is_left_out_and_other_methods_work(start_gateway: Start) -> None:
    with Running() as gone:
        url = gone.url
    models = {"draft": Endpoint("words", url)}
    _, gateway = start_gateway({"models": models})
    status, answer, _ = gateway.ask(asked(strategy="two_models"))
    assert status == 400, answer
    assert "no model has this role" in answer["error"]["message"]
    assert url not in json.dumps(answer)
    assert gateway.ask({**PLAIN, "model": "majority:n=2/words"})[0] == 200


def test_errors_of_a_role_do_not_show_its_address(start_gateway: Start) -> None:
    with Running() as drafts:
        models = {"draft": Endpoint("words", drafts.url)}
        _, gateway = start_gateway({"models": models})
        assert gateway.ask(asked(strategy="two_models"))[0] == 200
        url = drafts.url
        drafts.faults.extend(["garbage"] * 2)  # a call that gives nothing is tried twice
        assert gateway.ask(asked(strategy="two_models"))[0] == 200
        page = shown(gateway, 3)
    assert any("error" in node for node in page["tree"]["nodes"])
    assert url not in json.dumps(page) and url.removesuffix("/v1") not in json.dumps(page)


def test_a_model_of_the_upstream_can_be_the_scorer(start_gateway: Start) -> None:
    endpoint, gateway = start_gateway()
    status, answer, _ = gateway.ask(asked(strategy="best_of_n", n=2, scorers={"main": "other-words"}))
    assert status == 200, answer
    assert [body["model"] for body in endpoint.requests].count("words") == 1
    roles = {account["role"]: account["usage"] for account in answer["thinktime"]["accounts"]}
    assert roles["scorer main"]["scorer_calls"] == 2 and roles["scorer main"]["scorer_tokens"] > 0


def test_a_configured_reward_model_scores(start_gateway: Start) -> None:
    with Running(rewards="one") as rewards:
        scorers = {"main": Endpoint("words", rewards.url.removesuffix("/v1") + "/pooling")}
        _, gateway = start_gateway({"scorers": scorers})
        status, answer, _ = gateway.ask(asked(strategy="best_of_n", n=2))
        assert status == 200, answer
        assert answer["thinktime"]["account"]["scorer_calls"] == 2


@pytest.mark.parametrize("scored", [True, False])
def test_auto_votes_and_weighs_the_votes_if_a_scorer_is_configured(start_gateway: Start, scored: bool) -> None:
    _, gateway = start_gateway({"scorer": LengthReward()} if scored else {})
    status, answer, _ = gateway.ask(asked(strategy="auto"))
    assert status == 200, answer
    account = answer["thinktime"]["account"]
    assert (account["model_calls"], account["scorer_calls"]) == (16, 16 if scored else 0)


def test_the_command_lines_scorer_replaces_the_files_and_the_requests_replaces_both(start_gateway: Start) -> None:
    settings = {"scorer": LengthReward(), "scorers": {"main": Endpoint("words")}}
    _, gateway = start_gateway(settings)
    _, answer, _ = gateway.ask(asked(strategy="best_of_n", n=2))
    assert answer["thinktime"]["account"]["scorer_tokens"] == 0
    _, answer, _ = gateway.ask(asked(strategy="best_of_n", n=2, scorers={"main": "words"}))
    assert answer["thinktime"]["account"]["scorer_tokens"] > 0


def test_a_budget_of_dollars_is_refused_if_the_price_of_a_role_is_unknown(start_gateway: Start) -> None:
    with Running() as drafts:
        models = {"draft": Endpoint("words", drafts.url)}
        endpoint, gateway = start_gateway({"models": models, "price": Price.parse("1/1")})
        status, answer, _ = gateway.ask(asked(strategy="two_models", budget="1usd"))
    assert status == 400 and "for model draft, this model's dollars are unknown" in answer["error"]["message"]
    assert endpoint.requests == []


# Prompts


def test_a_clients_prompt_replaces_the_configured_one_and_the_strategys(start_gateway: Start) -> None:
    endpoint, gateway = start_gateway(
        {"prompts": {"check": "Is {answer} right?"}}, says=["The answer is 7\nVerdict: Yes"]
    )
    body = asked(strategy="generative_verification", n=1)
    status, answer, _ = gateway.ask(body)
    assert status == 200, answer
    assert "right?" in endpoint.requests[-1]["messages"][-1]["content"]
    status, answer, _ = gateway.ask(
        asked(strategy="generative_verification", n=1, prompts={"check": "Weigh {answer}!"})
    )
    assert status == 200, answer
    (message,) = endpoint.requests[-1]["messages"]
    assert message["content"].startswith("Weigh ") and "The answer is" in message["content"]


# Refusals


@pytest.mark.parametrize(
    ("thinktime", "param", "says"),
    [
        ({"models": "words"}, "thinktime.models", '{"draft": "MODEL"}'),
        ({"models": {f"role{index}": "words" for index in range(9)}}, "thinktime.models", "at most 8"),
        ({"models": {"main": "words"}}, "thinktime.models", "another role"),
        ({"models": {"a\nb": "words"}}, "thinktime.models", "name a role"),
        ({"models": {"draft": 3}}, "thinktime.models.draft", "name a model"),
        ({"models": {"draft": "wrds"}}, "thinktime.models.draft", "did you mean 'words'?"),
        ({"scorers": {"judge": ""}}, "thinktime.scorers.judge", "name a model"),
        ({"scorers": {"judge": "wrds"}}, "thinktime.scorers.judge", "there are: other-words, words"),
        ({"prompts": ["check"]}, "thinktime.prompts", "object of texts"),
        ({"prompts": {"chek": "Is it?"}}, "thinktime.prompts", "did you mean 'check'?"),
        ({"prompts": {"check": ""}}, "thinktime.prompts.check", "give a text"),
        ({"prompts": {"check": "a" * 10_001}}, "thinktime.prompts.check", "10000 characters"),
        ({"prompts": {"check": "{answr}"}}, "thinktime.prompts.check", "did you mean 'answer'?"),
        ({"prompts": {"check": "{answer.__class__}"}}, "thinktime.prompts.check", "unknown"),
        ({"prompts": {"check": "{answer:>999999999}"}}, "thinktime.prompts.check", "without a format"),
        ({"prompts": {"check": "{answer!r}"}}, "thinktime.prompts.check", "without a format"),
        ({"prompts": {"check": "{question}" * 9}}, "thinktime.prompts.check", "at most 8 fields"),
        ({"prompts": {"check": "{"}}, "thinktime.prompts.check", "double braces"),
    ],
)
def test_wrong_roles_and_prompts_are_a_400_of_one_line(
    start_gateway: Start, thinktime: dict[str, Any], param: str, says: str
) -> None:
    endpoint, gateway = start_gateway()
    status, answer, _ = gateway.ask(asked(strategy="majority", **thinktime))
    error = answer["error"]
    assert (status, error["param"]) == (400, param)
    assert says in error["message"] and "\n" not in error["message"] and len(error["message"]) < 1000
    assert endpoint.requests == []


def test_an_unknown_model_is_refused_by_its_field_if_the_upstream_lists_no_models(start_gateway: Start) -> None:
    _, gateway = start_gateway(lists_models=False)
    status, answer, _ = gateway.ask(asked(strategy="two_models", models={"draft": "wrds"}))
    assert (status, answer["error"]["param"]) == (400, "thinktime.models.draft")


# The file


def test_roles_and_prompts_are_read_from_the_file(tmp_path: Path) -> None:
    file = tmp_path / "gateway.toml"
    file.write_text(
        'upstream = "http://127.0.0.1:8000/v1"\n[models]\ndraft = "small"\n'
        '[models.other]\nmodel = "big"\nbase_url = "http://127.0.0.1:8001/v1"\nkey_variable = "BIG"\nprice = "1/2"\n'
        '[scorers.judge]\nmodel = "judge"\n[prompts]\ncheck = "Is {answer} right?"\n'
    )
    settings = read_config(file)
    other = Endpoint("big", "http://127.0.0.1:8001/v1", "BIG", Price.parse("1/2"))
    assert settings["models"] == {"draft": Endpoint("small"), "other": other}
    assert settings["scorers"] == {"judge": Endpoint("judge")}
    assert settings["prompts"] == {"check": "Is {answer} right?"}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('models = "small"', r"models='small': write a table for each role: \[models.NAME\]"),
        ("[models]\ndraft = 3", "models.draft=3: give model"),
        ('[models.draft]\nmodel = "a"\nurl = "b"', "models.draft='url': unknown"),
        ('[models.draft]\nmodel = "a"\nbase_url = 3', "models.draft.base_url=3: give a value of type str"),
        ('[scorers.judge]\nbase_url = "http://h/v1"', "scorers.judge="),
        ('prompts = "check"', "prompts='check': write a table"),
        ("[prompts]\ncheck = 3", "prompts.check=3: give a value of type str"),
    ],
)
def test_wrong_settings_are_refused_by_name(tmp_path: Path, text: str, says: str) -> None:
    file = tmp_path / "gateway.toml"
    file.write_text(text)
    with pytest.raises(InputError, match=says):
        read_config(file)


def test_roles_that_cannot_be_served_are_refused_at_the_start(start_gateway: Start) -> None:
    from thinktime.gateway.config import GatewayConfig
    from thinktime.gateway.state import Gateway

    upstream = "http://127.0.0.1:9/v1"
    with pytest.raises(InputError, match=r"models.draft.key_variable='NOT_SET': set this environment variable"):
        Gateway(GatewayConfig(upstream, models={"draft": Endpoint("small", key_variable="NOT_SET")}))
    with pytest.raises(InputError, match="prompt='chek': unknown"):
        Gateway(GatewayConfig(upstream, prompts={"chek": "Is it?"}))
    with pytest.raises(InputError, match="models='main'"):
        GatewayConfig(upstream, models={"main": Endpoint("small")})
