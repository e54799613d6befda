"""Caps on thinking: enforced in the way that the engine offers, checked by a count, and refused if there is no way."""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from fake_endpoint import FakeEndpoint, Running
from gateway_server import MESSAGES, PLAIN
from gateway_server import Start as StartGateway
from llama_server import remote, serving
from openai import OpenAI
from thinker import make_thinker

from thinktime import cli
from thinktime.answers import TextAnswers
from thinktime.core.errors import InputError
from thinktime.core.search import Search
from thinktime.core.types import Node, Problem, Sampling
from thinktime.core.usage import Budget
from thinktime.generators.local import LocalGenerator
from thinktime.generators.openai import RemoteGenerator
from thinktime.generators.text import pack, thinking_counts, thinking_report, unpack
from thinktime.models.engine.tokenizer import ChatTokenizer
from thinktime.models.remote.prices import Price
from thinktime.models.remote.probe_cache import ProbeCache
from thinktime.models.remote.refusals import only_model
from thinktime.models.remote.thoughts import CLOSING, FIELDS
from thinktime.strategies import make

Start = Callable[..., FakeEndpoint]


@pytest.fixture
def start() -> Iterator[Start]:
    with ExitStack() as running:
        yield lambda **behaviour: running.enter_context(Running(**behaviour))


def capped(endpoint: FakeEndpoint, tokens: int, path: str = "", **options: Any) -> RemoteGenerator:
    generator = RemoteGenerator(endpoint.url + path, "words", thinking_tokens=tokens, **options)
    assert generator.cap
    endpoint.requests.clear()
    endpoint.prompt_tokens = endpoint.generated_tokens = 0
    return generator


def searching(generator: RemoteGenerator, prompt: Any = "what is 3 + 4", **options: Any) -> Search:
    sampling = Sampling(max_length=options.pop("max_tokens", 200))
    return Search(Problem("q", prompt), generator, answers=TextAnswers(), sampling=sampling, **options)


def sampled(search: Search, n: int = 4, **options: Any) -> list[Node]:
    async def run() -> list[Node]:
        try:
            return await search.extend([search.root], n, **options)
        finally:
            await search.generator.close()  # type: ignore[attr-defined]

    return asyncio.run(run())


MARKED: dict[str, Any] = {"thinks": "marked", "thought": 90}


@pytest.mark.parametrize("n", ["honoured", "ignored"])
@pytest.mark.parametrize("begins", [False, True])
def test_a_thought_is_cut_at_the_cap_closed_and_answered(start: Start, begins: bool, n: str) -> None:
    endpoint = start(**MARKED, begins=begins, n=n)
    generator = capped(endpoint, 20)
    assert (generator.cap.by, generator.cap.begun) == ("continuation", begins)
    nodes = sampled(searching(generator))
    for node in nodes:
        thought, end, answer = node.state.text.partition(CLOSING)
        assert thought.split()[-1] == f"hm{19 if begins else 18}" and end  # the begin mark is a token, too
        assert node.finish == "eos" and "The answer is" in answer
        assert (node.state.thinking, node.state.tokens) == (20, node.usage.generated_tokens)
    assert sum(node.usage.generated_tokens for node in nodes) == endpoint.generated_tokens
    assert sum(node.usage.prompt_tokens or 0 for node in nodes) == endpoint.prompt_tokens
    second = endpoint.requests[-1]
    assert second["max_tokens"] == 180 and second["messages"][-1]["content"].startswith("<think>")


def test_a_sample_that_ends_before_the_cap_is_unchanged(start: Start) -> None:
    endpoint = start(thinks="marked", thought=7)
    (node,) = sampled(searching(capped(endpoint, 60)), 1)
    assert len(endpoint.requests) == 1 and node.state.thinking == 7 and CLOSING not in node.state.text


def test_an_answer_longer_than_the_cap_continues_where_it_was_cut(start: Start) -> None:
    endpoint = start(thinks="marked", thought=7)
    (node,) = sampled(searching(capped(endpoint, 11)), 1)
    assert len(endpoint.requests) == 2 and node.finish == "eos" and node.state.thinking == 7
    assert node.state.text.count("</think>") == 1 and CLOSING not in node.state.text


def test_a_cap_of_0_closes_the_thought_before_it_begins(start: Start) -> None:
    for begins in (False, True):
        (node,) = sampled(searching(capped(start(**MARKED, begins=begins), 0)), 1)
        assert node.state.text.removeprefix("<think>\n").startswith(CLOSING) and node.state.thinking == 0
        assert node.finish == "eos" and "hm0" not in node.state.text


def test_a_completion_thinks_if_its_prompt_or_its_text_begins_a_thought(start: Start) -> None:
    endpoint = start(**MARKED, begins=True)
    generator = capped(endpoint, 20, "/completions")
    (node,) = sampled(searching(generator, "what is 3 + 4 <think>\n"), 1)
    assert node.state.text.split()[19] == "hm19" and node.state.thinking == 20
    plain = capped(start(), 3, "/completions")
    (node,) = sampled(searching(plain, "what is 3 + 4\n"), 1)
    assert node.finish == "eos" and CLOSING not in node.state.text and node.state.thinking == 0


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize("thinks", ["apart", "hidden"])
def test_a_field_that_capped_thoughts_in_the_probe_is_sent_and_thoughts_are_counted(
    start: Start, field: str, thinks: str
) -> None:
    endpoint = start(thinks=thinks, thought=90, caps=field, counts_thoughts=True)
    generator = capped(endpoint, 20)
    assert generator.cap.by == field
    (node,) = sampled(searching(generator), 1)
    assert len(endpoint.requests) == 1 and node.state.thinking == 20 and "hm" not in node.state.text
    outer, _, inner = field.partition(".")
    assert endpoint.requests[0][outer] == ({inner: 20} if inner else 20)


def test_thoughts_apart_are_counted_by_log_probabilities_if_usage_has_no_count(start: Start) -> None:
    endpoint = start(thinks="apart", thought=90, caps="thinking_token_budget")
    (node,) = sampled(searching(capped(endpoint, 20)), 1)
    assert node.state.thinking == 20


def test_a_cap_that_does_not_hold_is_reported(start: Start) -> None:
    endpoint = start(thinks="apart", thought=90, caps="thinking_token_budget", counts_thoughts=True)
    generator = capped(endpoint, 20)
    endpoint.caps = ""
    (node,) = sampled(searching(generator), 1)
    assert node.state.thinking == 90
    endpoint = start(**MARKED)
    generator = capped(endpoint, 20)
    endpoint.relapses = True
    (node,) = sampled(searching(generator), 1)
    assert node.state.thinking == node.state.tokens > 20


def test_uncounted_thoughts_are_unknown(start: Start) -> None:
    endpoint = start(thinks="apart", thought=90, caps="thinking_token_budget", counts_thoughts=True)
    generator = capped(endpoint, 20)
    endpoint.counts_thoughts = endpoint.logprobs = False
    (node,) = sampled(searching(generator), 1)
    assert node.state.thinking is None


@pytest.mark.parametrize(
    "behaviour",
    [
        {},  # the probe sees no thoughts
        {"thinks": "apart", "thought": 90},  # no field caps thoughts, and no thought can be closed
        {
            "thinks": "apart",
            "thought": 90,
            "caps": "thinking_token_budget",
            "logprobs": False,
        },  # thoughts are not counted
        {"thinks": "hidden", "thought": 90},
        {**MARKED, "continues": False},
        {**MARKED, "forgets": True},
        {**MARKED, "relapses": True},
        {**MARKED, "usage": False},
    ],
)
def test_without_a_way_to_cap_the_request_is_refused_before_anything_is_spent(
    start: Start, behaviour: dict[str, Any]
) -> None:
    endpoint = start(**behaviour)
    generator = capped(endpoint, 20)
    with pytest.raises(InputError, match="thinking_tokens=20: no way to cap the thoughts of words"):
        searching(generator)
    assert endpoint.requests == []


def test_a_model_that_cannot_be_continued_is_capped_by_its_field(start: Start) -> None:
    endpoint = start(**MARKED, continues=False, caps="thinking_budget")
    generator = capped(endpoint, 20)
    (node,) = sampled(searching(generator), 1)
    assert generator.cap.by == "thinking_budget" and node.state.thinking == 20


@pytest.mark.parametrize("usage", [True, False])
def test_dollars_include_the_second_reading_of_the_prompt(start: Start, usage: bool) -> None:
    endpoint = start(**MARKED)
    generator = capped(endpoint, 20, price=Price.parse("1000/1000"))
    endpoint.usage = usage
    search = searching(generator, budget=Budget(dollars=0.8))
    nodes = sampled(search, 8)
    spent = search.ledger.spent
    assert 1 <= len(nodes) < 8 and spent.dollars is not None and spent.dollars <= 0.8
    if usage:
        assert spent.dollars == pytest.approx((endpoint.prompt_tokens + endpoint.generated_tokens) / 1000)
    else:
        assert spent.dollars >= (endpoint.prompt_tokens + endpoint.generated_tokens) / 1000


def test_the_probe_of_thoughts_is_cached_on_disk_beside_the_other_probe(start: Start, tmp_path: Path) -> None:
    endpoint, cache = start(**MARKED), ProbeCache(tmp_path / "probes.json")
    first = capped(endpoint, 20, probe_cache=cache)
    again = RemoteGenerator(endpoint.url, "words", thinking_tokens=7, probe_cache=cache)
    assert (again.cap, again.traits) == (first.cap, first.traits) and endpoint.requests == []


def test_samples_under_different_caps_are_different_samples(start: Start) -> None:
    endpoint = start(**MARKED)
    names = {RemoteGenerator(endpoint.url, "words", thinking_tokens=cap).name for cap in (None, 5, 6)}
    assert len(names) == 3


def test_all_steps_together_stay_within_the_cap(start: Start) -> None:
    endpoint = start(thinks="marked", thought=90)
    search = searching(capped(endpoint, 30))

    async def walk() -> Node:
        (node,) = await search.extend([search.root], at_most=12)
        (node,) = await search.extend([node], at_most=12)
        (node,) = await search.extend([node])
        await search.generator.close()  # type: ignore[attr-defined]
        return node

    node = asyncio.run(walk())
    assert node.finish == "eos" and node.state.thinking == 30 and node.state.text.count(CLOSING) == 1


# the gateway


CAPPED = "majority:n=4,thinking_tokens=20/words"


@pytest.mark.parametrize(
    "named",
    [
        {"model": CAPPED},
        {"thinktime": {"strategy": "majority", "n": 4, "thinking_tokens": 20}},
        {"thinktime": {"strategy": "majority:thinking_tokens=9", "n": 4, "thinking_tokens": 20}},
    ],
)
def test_the_gateway_caps_by_name_and_field_and_reports_that_the_cap_held(
    start_gateway: StartGateway, named: dict[str, Any]
) -> None:
    endpoint, gateway = start_gateway(**MARKED)
    gateway.ask({**PLAIN, "model": CAPPED})  # caches the probe of thoughts
    endpoint.prompt_tokens = endpoint.generated_tokens = 0
    status, answer, _ = gateway.ask({**PLAIN, "max_tokens": 200, **named})
    report = answer["thinktime"]
    assert status == 200 and report["thinking"] == {"limit": 20, "most": 20, "held": True}
    content = answer["choices"][0]["message"]["content"]
    assert CLOSING in content and content.endswith(f"answer is {report['answer']}") and report["options"] == {"n": 4}
    assert answer["usage"]["prompt_tokens"] == endpoint.prompt_tokens
    assert answer["usage"]["completion_tokens"] == endpoint.generated_tokens
    assert "thinking_tokens" not in endpoint.requests[-1]


def test_a_cap_that_an_engine_stops_keeping_is_reported_with_the_answer(start_gateway: StartGateway) -> None:
    endpoint, gateway = start_gateway(thinks="apart", thought=90, caps="thinking_token_budget", counts_thoughts=True)
    body = {**PLAIN, "model": CAPPED, "max_tokens": 200}
    assert gateway.ask(body)[1]["thinktime"]["thinking"]["held"] is True
    endpoint.caps = ""
    status, answer, _ = gateway.ask(body)
    assert (status, answer["thinktime"]["thinking"]) == (200, {"limit": 20, "most": 90, "held": False})
    endpoint.counts_thoughts = endpoint.logprobs = False
    assert gateway.ask(body)[1]["thinktime"]["thinking"] == {"limit": 20, "most": None, "held": None}


@pytest.mark.parametrize("value", ["many", "-1", "2.5", 2.5, -1, 1e999, True])
def test_a_cap_that_is_no_number_is_a_400(start_gateway: StartGateway, value: Any) -> None:
    endpoint, gateway = start_gateway()
    name = {"model": f"majority:thinking_tokens={value}/words"}
    field = {"thinktime": {"strategy": "majority", "thinking_tokens": value}}
    body = json.dumps({**PLAIN, **(name if isinstance(value, str) else field)}).replace("Infinity", "1e999").encode()
    status, answer, _ = gateway.ask(body)
    assert (status, "thinking_tokens" in answer["error"]["param"]) == (400, True) and endpoint.requests == []


def test_a_model_whose_thoughts_cannot_be_capped_is_a_400_and_is_probed_once(start_gateway: StartGateway) -> None:
    endpoint, gateway = start_gateway()
    status, answer, _ = gateway.ask({**PLAIN, "model": CAPPED})
    assert (status, answer["error"]["param"]) == (400, "thinking_tokens") and "no way to cap" in answer["error"][
        "message"
    ]
    endpoint.requests.clear()
    assert gateway.ask({**PLAIN, "model": CAPPED})[0] == 400 and endpoint.requests == []


def test_a_stream_has_the_same_thought_end_and_answer_as_a_whole_reply(start_gateway: StartGateway) -> None:
    for echoes in (False, True):
        _, gateway = start_gateway(thinks="marked", echoes=echoes)
        client = OpenAI(base_url=gateway.url, api_key="none", max_retries=0)
        ask: dict[str, Any] = {
            "model": "single:thinking_tokens=3/words",
            "messages": MESSAGES,
            "seed": 3,
            "max_tokens": 99,
        }
        whole = client.chat.completions.create(**ask)
        parts = list(client.chat.completions.create(**ask, stream=True))
        streamed = "".join(part.choices[0].delta.content or "" for part in parts if part.choices)
        assert streamed == whole.choices[0].message.content and CLOSING in streamed and "answer is" in streamed


def test_log_probabilities_of_both_parts_are_returned(start_gateway: StartGateway) -> None:
    _, gateway = start_gateway(**MARKED)
    _, answer, _ = gateway.ask(
        {**PLAIN, "model": "single:thinking_tokens=20/words", "max_tokens": 99, "logprobs": True}
    )
    listed = answer["choices"][0]["logprobs"]["content"]
    assert len(listed) == answer["usage"]["completion_tokens"] > 20


# real models


@pytest.fixture(scope="module")
def thinker(solver_directory: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_thinker(solver_directory, tmp_path_factory.mktemp("models") / "thinker")


LONG = "Today: stamps 10 coins, keys 4 coins. Jon buys 6 keys. Jon buys 7 stamps. How many coins does Jon pay?"
GREEDY = Sampling(temperature=0.0, max_length=200)


def thinking_locally(model: Path, cap: int | None, sampling: Sampling = GREEDY, at_most: int | None = None) -> Node:
    """A sample of the local model, in pieces of ``at_most`` tokens."""
    generator = LocalGenerator(model, dtype="float64", thinking_tokens=cap)
    search = Search(Problem("q", LONG), generator, sampling=sampling)

    async def walk() -> Node:
        (node,) = await search.extend([search.root], at_most=at_most)
        while node.finish == "cut":
            (node,) = await search.extend([node], at_most=at_most)
        return node

    return asyncio.run(walk())


def length(model: Path, text: str) -> int:
    return len(ChatTokenizer(model).encode(text))


@pytest.mark.parametrize(("cap", "closed"), [(0, True), (12, True), (300, False)])
def test_a_local_model_thinks_up_to_the_cap(thinker: Path, cap: int, closed: bool) -> None:
    whole, node = thinking_locally(thinker, None), thinking_locally(thinker, cap)
    thought, _, answer = node.state.text.partition("</think>")
    assert (CLOSING in node.state.text) == closed and node.finish == "eos" and any(c.isdigit() for c in answer)
    assert whole.state.text.startswith(thought.removesuffix("\n"))
    forced = 4 * closed
    assert node.usage.generated_tokens == len(node.state.ids) - forced
    assert node.usage.prompt_tokens == len(node.state.prompt) + forced
    assert length(thinker, thought) == (cap + 1 if closed else node.state.thinking)
    assert node.parent and unpack(node.parent.state, pack(node.parent.state, node.state)) == node.state


def test_a_local_model_that_thinks_again_after_its_thought_is_reported(thinker: Path) -> None:
    node = thinking_locally(thinker, 12)
    assert node.state.text.count("</think>") == 2 and (node.state.thinking or 0) > 12


@pytest.mark.parametrize("at_most", [5, 7, 12])
def test_a_local_thought_is_closed_at_the_cap_for_any_earlier_cuts(thinker: Path, at_most: int) -> None:
    node = thinking_locally(thinker, 12, at_most=at_most)
    assert node.finish == "eos" and node.state.text.count(CLOSING) == 1
    assert length(thinker, node.state.text.partition(CLOSING)[0]) == 12


@pytest.mark.parametrize("limit", [11, 12, 13, 16])
def test_a_local_thought_that_the_length_limit_ends_is_within_the_cap(thinker: Path, limit: int) -> None:
    node = thinking_locally(thinker, 12, Sampling(temperature=0.0, max_length=limit))
    assert (node.finish, node.state.thinking) == ("length", min(limit, 12)) and "</think>" not in node.state.text


def test_a_cap_on_a_local_model_without_the_end_mark_is_refused(solver_directory: Path, tmp_path: Path) -> None:
    mute = tmp_path / "mute"
    shutil.copytree(solver_directory, mute)
    tokenizer = json.loads((mute / "tokenizer.json").read_text())
    tokenizer["model"]["vocab"]["unsaid"] = tokenizer["model"]["vocab"].pop("<")
    (mute / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(InputError, match="thinking_tokens=5: this model does not write </think>"):
        LocalGenerator(mute, thinking_tokens=5)
    with pytest.raises(InputError, match="thinking_tokens=-1: give 0 or more"):
        RemoteGenerator("http://127.0.0.1:9/v1", "words", thinking_tokens=-1)


def test_a_race_under_a_cap_is_refused(thinker: Path) -> None:
    search = Search(Problem("q", LONG), LocalGenerator(thinker, thinking_tokens=5), answers=TextAnswers())
    with pytest.raises(InputError, match="leave the cap out"):
        asyncio.run(make("first_finish", {"n": 2})(search))


def test_a_race_of_streams_under_a_cap_is_refused_by_continuation_and_allowed_by_a_field(
    start: Start,
) -> None:
    search = searching(capped(start(thinks="marked"), 3))
    with pytest.raises(InputError, match="thinking_tokens=3: a race compares lengths; leave the cap out"):
        asyncio.run(make("first_finish", {"n": 2})(search))
    search = searching(capped(start(thinks="apart", caps="thinking_budget"), 3))
    assert asyncio.run(make("first_finish", {"n": 2, "guard": "off"})(search)).finish == "done"


def test_the_commands_report_whether_the_cap_held(
    thinker: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def said(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["thinktime", *arguments])
        with pytest.raises(SystemExit, match="0"):
            cli.run()
        return capsys.readouterr().out

    model = ["--model", str(thinker), "--scorer", "none", "--temperature", "0"]
    capped = [*model, "--thinking-tokens", "12"]
    asked = json.loads(said("ask", LONG, "--strategy", "single", "--json", *capped))
    assert (asked["thinking"]["limit"], asked["thinking"]["held"]) == (12, False)
    held = said("ask", LONG, "--strategy", "single", *model, "--thinking-tokens", "300")
    assert "longer than 300 tokens: held, at most" in held
    out = ["--out", str(tmp_path), "--strategies", "single", "--json"]
    (run,) = json.loads(said("bench", "pocket", "--problems", "3", *capped, *out))["runs"]
    assert run["thinking"]["limit"] == 12 and run["thinking"]["most"] >= 12


@pytest.fixture(scope="module")
def llama_cpp(thinker: Path) -> Iterator[str]:
    with serving(thinker) as url:
        yield url


def listed_thoughts(node: Node) -> int:
    """The number of listed tokens of a sample before the end of its thought."""
    return [token["token"] for token in json.loads(node.state.choice)["logprobs"]["content"]].index("</think>")


@pytest.mark.parametrize(("cap", "keeps"), [(10, True), (0, False)])
def test_llama_cpp_keeps_a_cap_by_its_own_field_and_a_broken_cap_is_reported(
    llama_cpp: str, cap: int, keeps: bool
) -> None:
    generator = remote(llama_cpp).sending({"logprobs": True}, thinking_tokens=cap)
    assert generator.cap.by == "reasoning_budget_tokens"
    nodes = sampled(searching(generator, LONG), 1, temperature=0)  # sampled thoughts may end at once
    nodes += sampled(searching(generator, LONG), 2, temperature=0.5)
    thoughts = [listed_thoughts(node) for node in nodes]
    assert thinking_counts(nodes) == thoughts
    assert thinking_report(thoughts, cap) == {"limit": cap, "most": max(thoughts), "held": keeps}


def test_llama_cpp_answers_after_a_thought_that_was_closed_in_a_completion(llama_cpp: str, thinker: Path) -> None:
    generator = RemoteGenerator(f"{llama_cpp}/completions", only_model(llama_cpp), thinking_tokens=12)
    search = searching(generator, f"<|user|>{LONG}<|assistant|><think>\n")
    search.sampling = GREEDY
    (node,), same = sampled(search, 1), thinking_locally(thinker, 12)
    assert node.state.text == same.state.text and CLOSING in node.state.text
    assert node.usage.generated_tokens == same.usage.generated_tokens
