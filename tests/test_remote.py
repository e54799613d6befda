"""Models behind HTTP: their cost, their capabilities, and their failures."""

from __future__ import annotations

import asyncio
import json
import logging
import math
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from random import Random
from typing import Any, TypeVar

import pytest
from fake_endpoint import FakeEndpoint, Running
from toy import LengthScorer
from waiting import PATIENCE, MovableClock, eventually

from thinktime.answers import TextAnswers
from thinktime.bank.store import Bank
from thinktime.core.clock import Deadline
from thinktime.core.errors import CapabilityError, InputError, ModelError, UnknownNameError
from thinktime.core.search import Search
from thinktime.core.transitions import Race
from thinktime.core.types import Capability, Node, Problem, Sampling, Until
from thinktime.core.usage import Budget, Usage, total
from thinktime.generators.openai import RemoteGenerator
from thinktime.models.remote import client as client_module
from thinktime.models.remote.client import (
    Client,
    OnEvent,
    RefusedError,
    TooLateError,
    UnreachableError,
    UnreadableError,
)
from thinktime.models.remote.prices import LISTED, Price, listed
from thinktime.models.remote.probe import Traits
from thinktime.models.remote.probe_cache import ProbeCache
from thinktime.models.remote.protocol import Choice, read_usage, shares
from thinktime.models.remote.streams import Assembly
from thinktime.strategies import make
from thinktime.testing import MemoryJournal

Result = TypeVar("Result")
Start = Callable[..., FakeEndpoint]
SAMPLING = Sampling(max_length=64)
QUESTION = "what is 3 + 4"
CLIENTS: list[Client] = []
ALL = {
    Capability.STEPS,
    Capability.PREFIX,
    Capability.LOGPROBS,
    Capability.CONFIDENCES,
    Capability.NOISE,
    Capability.CANCEL,
}
PAST = "Wed, 21 Oct 2015 07:28:00 GMT"
BODY = {"model": "words", "max_tokens": 9, "messages": [{"role": "user", "content": QUESTION}]}


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts endpoints with the given behaviour."""
    with ExitStack() as running:
        yield lambda **behaviour: running.enter_context(Running(**behaviour))


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retries wait only briefly, and `run` closes the clients that a test opens."""
    monkeypatch.setattr(client_module, "FIRST_WAIT", 0.01)
    make_client = Client.__init__

    def noted(client: Client, *arguments: Any, **options: Any) -> None:
        make_client(client, *arguments, **options)
        CLIENTS.append(client)

    monkeypatch.setattr(Client, "__init__", noted)
    CLIENTS.clear()


def run(coroutine: Coroutine[Any, Any, Result]) -> Result:
    async def closing() -> Result:
        try:
            return await coroutine
        finally:
            await asyncio.gather(*(client.close() for client in CLIENTS))

    return asyncio.run(closing())


async def passing(
    clock: MovableClock, seconds: float, due: Callable[[], bool], work: Coroutine[Any, Any, Result]
) -> Result:
    """The result of some work; as soon as it is due, so many seconds pass at once."""
    working = asyncio.ensure_future(work)
    while not due() and not working.done():
        await asyncio.sleep(0.01)
    clock.ahead += seconds
    return await working


def search_on(generator: RemoteGenerator, budget: Budget | None = None, **options: Any) -> Search:
    options = dict[str, Any](sampling=SAMPLING, answers=TextAnswers()) | options
    return Search(Problem("sum", QUESTION), generator, budget=budget, **options)


def opened(endpoint: FakeEndpoint, **options: Any) -> RemoteGenerator:
    """A generator that has probed its endpoint; the requests of the probe are forgotten."""
    generator = RemoteGenerator(endpoint.url, "words", **options)
    assert generator.traits
    endpoint.requests.clear()
    endpoint.prompt_tokens = endpoint.generated_tokens = endpoint.ended = 0
    return generator


def sampled(generator: RemoteGenerator, n: int, **options: Any) -> list[Node]:
    search = search_on(generator, **options)
    return run(search.extend([search.root], n))


def solved(strategy: str, search: Search, **options: str | int | float) -> Any:
    return run(make(strategy, options)(search))


# probes


def test_the_probe_costs_a_few_tokens_and_runs_once_and_late(start: Start) -> None:
    endpoint = start()
    generator = RemoteGenerator(endpoint.url, "words")
    generator.root(Problem("sum", QUESTION))
    assert endpoint.requests == []
    for _ in range(2):
        assert generator.capabilities == ALL | {Capability.CHAT}
    assert len(endpoint.requests) == 6 and endpoint.generated_tokens < 40
    assert generator.traits.spent.generated == endpoint.generated_tokens
    assert generator.traits.spent.prompt == endpoint.prompt_tokens


@pytest.mark.parametrize(
    ("behaviour", "trait", "value"),
    [
        ({}, "n", True),
        ({"n": "ignored"}, "n", False),
        ({"n": "refused"}, "n", False),
        ({"n": "copies"}, "n", False),
        ({}, "streams", True),
        ({"streams": False}, "streams", False),
        ({"refuses": ("stream",)}, "streams", False),
        ({}, "seeds", True),
        ({"seeds": False}, "seeds", False),
        ({"identical": True}, "seeds", False),
        ({"refuses": ("seed",)}, "seeds", False),
        ({"logprobs": False}, "logprobs", False),
        ({"refuses": ("logprobs",)}, "logprobs", False),
        ({"continues": False}, "continues", False),
        ({"refuses": ("continue_final_message",)}, "continues", False),
        ({}, "stops", "named"),
        ({"stops": "echoed"}, "stops", "echoed"),
        ({"stops": "echoed", "refuses": ("include_stop_str_in_output",)}, "stops", "echoed"),
        ({"stops": "echoed if asked"}, "stops", "echoed if asked"),
        ({"stops": "silent", "refuses": ("include_stop_str_in_output",)}, "stops", None),
        ({"stops": "silent"}, "stops", None),
        ({"stops": "unlisted", "refuses": ("include_stop_str_in_output",)}, "stops", "unlisted"),
        ({"stops": "unlisted"}, "stops", "unlisted"),
        ({"stops": "unlisted", "logprobs": False}, "stops", None),
        ({"usage": False}, "usage", False),
        ({}, "limit_field", "max_tokens"),
        ({"continues": "always"}, "continues", True),
        ({}, "echoes", False),
        ({"echoes": True}, "echoes", True),
        ({"echoes": True, "continues": "always"}, "continues", True),
        ({}, "thinks", None),
        ({"thinks": "marked"}, "thinks", "marked"),
        ({"thinks": "apart"}, "thinks", "apart"),
        ({"thinks": "hidden"}, "thinks", "hidden"),
    ],
)
def test_the_probe_observes_the_endpoint(start: Start, behaviour: dict[str, Any], trait: str, value: object) -> None:
    assert getattr(RemoteGenerator(start(**behaviour).url, "words").traits, trait) == value


def test_a_probe_is_kept_on_disk_and_runs_once_for_all_runs(start: Start, tmp_path: Path) -> None:
    endpoint, cache = start(), ProbeCache(tmp_path / "cache" / "probes.json")
    first = RemoteGenerator(endpoint.url, "words", probe_cache=cache).traits
    endpoint.requests.clear()
    assert RemoteGenerator(endpoint.url, "words", probe_cache=cache).traits == first and endpoint.requests == []


def test_another_call_model_or_step_of_the_same_host_is_another_probe(start: Start, tmp_path: Path) -> None:
    endpoint, cache = start(), ProbeCache(tmp_path / "probes.json")
    assert RemoteGenerator(endpoint.url, "words", probe_cache=cache).traits
    for url, model, step in (
        (f"{endpoint.url}/completions", "words", "\n"),
        (endpoint.url, "other-words", "\n"),
        (endpoint.url, "words", "."),
    ):
        endpoint.requests.clear()
        assert RemoteGenerator(url, model, step=step, probe_cache=cache).traits and endpoint.requests
    assert len(json.loads(cache.path.read_text())) == 4


def test_a_probe_of_yesterday_expires(start: Start, tmp_path: Path) -> None:
    endpoint, cache = start(), ProbeCache(tmp_path / "probes.json")
    assert RemoteGenerator(endpoint.url, "words", probe_cache=cache).traits.n
    kept = json.loads(cache.path.read_text())
    for entry in kept.values():
        entry["seen"] = (datetime.now(UTC) - timedelta(hours=25)).isoformat()
    cache.path.write_text(json.dumps(kept))
    endpoint.n = "ignored"
    assert not RemoteGenerator(endpoint.url, "words", probe_cache=cache).traits.n
    assert not RemoteGenerator(endpoint.url, "words", probe_cache=cache).traits.n


@pytest.mark.parametrize("text", ["", "{", "[]", "3", '{"X": 3}', '{"X": {"seen": "x", "traits": {}}}', "[" * 99_999])
def test_a_broken_cache_counts_as_empty(start: Start, tmp_path: Path, text: str) -> None:
    cache = ProbeCache(tmp_path / "probes.json")
    generator = RemoteGenerator(start().url, "words", probe_cache=cache)
    cache.path.write_text(text.replace("X", generator.probe_key.replace('"', "")))
    assert generator.traits.n and cache.find(generator.probe_key, Traits) == generator.traits


def test_a_cache_that_cannot_be_written_is_ignored(start: Start, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert RemoteGenerator(start().url, "words", probe_cache=ProbeCache(tmp_path / "file" / "probes.json")).traits.n


def test_a_failed_probe_is_not_kept(start: Start, tmp_path: Path) -> None:
    cache = ProbeCache(tmp_path / "probes.json")
    with pytest.raises(UnknownNameError):
        assert RemoteGenerator(start().url, "word", probe_cache=cache).traits
    assert not cache.path.exists()


def test_a_refused_field_does_not_disable_the_others(start: Start) -> None:
    traits = RemoteGenerator(start(refuses=("seed",)).url, "words").traits
    assert (traits.n, traits.logprobs, traits.continues, traits.stops) == (True, True, True, "named")


def test_a_completions_endpoint_continues_any_text(start: Start) -> None:
    generator = RemoteGenerator(f"{start(continues=False).url}/completions", "words")
    assert generator.capabilities == ALL


def test_a_strategy_whose_needs_the_probe_did_not_observe_is_refused_by_name(start: Start) -> None:
    generator = opened(start(stops="silent", continues=False))
    search = search_on(generator)
    with pytest.raises(CapabilityError, match="it lacks step boundaries"):
        run(search.extend([search.root], until="step"))
    assert generator.traits.continues is False


# races


def of_length(tokens: int, answer: int) -> str:
    """A sample of this many tokens that ends with its answer."""
    return " ".join(["so"] * (tokens - 4)) + f"\nThe answer is {answer}"


def left(endpoint: FakeEndpoint, n: int) -> int:
    """Wait until ``n`` clients have disconnected; return their number."""
    eventually(lambda: endpoint.left >= n)
    return endpoint.left


def raced(generator: RemoteGenerator, n: int, **options: Any) -> tuple[Any, Search]:
    search = search_on(generator, **options)
    return solved("first_finish", search, n=n, guard="off"), search


def test_the_shortest_of_several_streams_answers_and_the_others_are_cancelled_when_they_are_longer(
    start: Start,
) -> None:
    endpoint = start(sprint=20, pace=PATIENCE)
    generator = opened(endpoint, price=Price(1000, 1000, 2000))
    endpoint.replies.extend(of_length(*each) for each in ((40, 1), (8, 2), (50, 3), (60, 4)))
    answer, search = raced(generator, 4)
    assert (answer.value, answer.finish, answer.path_tokens) == ("2", "done", 8)
    assert left(endpoint, 3) == 3 and len(endpoint.requests) == 4
    given_up = [record.node for record in search.trace.values() if record.node.finish == "pruned"]
    assert len(given_up) == 3 and all(8 < node.usage.generated_tokens < 40 for node in given_up)
    assert all(len(node.state.text.split()) == node.passes == node.usage.generated_tokens - 2 for node in given_up)
    assert answer.usage.uncounted_calls == 3 and answer.usage.prompt_tokens is None
    assert answer.usage.dollars >= answer.usage.generated_tokens * 2000 / 1e6


def test_a_slow_stream_can_still_win_by_length_but_not_by_time(start: Start) -> None:
    found = {}
    for by in ("length", "time"):
        endpoint = start(pace=0.01)
        generator = opened(endpoint)
        endpoint.replies.extend([of_length(20, 1), of_length(9, 2)])
        endpoint.faults.extend(["", "slow"])
        answer = solved("first_finish", search_on(generator), n=2, by=by, guard="off")
        found[by] = answer.value, answer.path_tokens, left(endpoint, by == "time")
    assert found == {"length": ("2", 9, 0), "time": ("1", 20, 1)}


def test_with_by_time_a_request_that_gets_no_answer_is_cancelled_when_another_ends(start: Start) -> None:
    endpoint = start()
    generator = opened(endpoint)
    endpoint.faults.extend(["", "never"])
    answer = solved("first_finish", search_on(generator), n=2, by="time", guard="off")
    assert answer.finish == "done" and answer.usage.uncounted_calls == 1 and left(endpoint, 1) == 1


def test_with_by_time_no_sample_is_requested_after_the_race_is_over(start: Start) -> None:
    endpoint = start()
    # one request after the other: the first has ended when the second begins
    generator = opened(endpoint, connections=1)
    race = Race(1, lambda state: True, [3], at_once=True)
    search = search_on(generator)
    (node,) = run(search.extend([search.root], race=race))
    assert node.finish == "pruned" and node.usage == Usage() and endpoint.requests == []


def test_an_end_without_an_answer_counts_only_with_counts_any(start: Start) -> None:
    found = []
    for counts, sprint in (("answer", 40), ("any", 20)):
        endpoint = start(sprint=sprint, pace=PATIENCE)
        generator = opened(endpoint)
        endpoint.replies.extend(["so so", of_length(30, 7), of_length(60, 8)])
        answer = solved("first_finish", search_on(generator), n=3, counts=counts, guard="off")
        found.append((answer.value, left(endpoint, 1 if counts == "answer" else 2)))
    assert found == [("7", 1), (None, 2)]


def test_a_repeated_race_sends_no_request_and_ends_the_same(start: Start) -> None:
    endpoint, journal = start(sprint=20, pace=PATIENCE), MemoryJournal()
    generator = opened(endpoint)
    endpoint.replies.extend(of_length(*each) for each in ((40, 1), (8, 2), (12, 3)))
    first, search = raced(generator, 3, journal=journal)
    kept, asked = dict(journal.samples), len(endpoint.requests)
    again, twice = raced(generator, 3, journal=journal)
    assert len(endpoint.requests) == asked == 3 and journal.samples == kept
    assert (again.value, again.usage, again.passes) == (first.value, first.usage, first.passes) and first.value == "2"
    assert [r.node.finish for r in twice.trace.values()] == [r.node.finish for r in search.trace.values()]


def test_a_broken_stream_loses_only_its_own_sample(start: Start) -> None:
    endpoint = start()
    generator = opened(endpoint)
    endpoint.faults.extend(["broken", "cut"])
    search = search_on(generator)
    answer = solved("first_finish", search, n=3, guard="off")
    assert answer.finish == "done" and len(search.errors) == 2


def test_tokens_of_a_thought_in_a_field_apart_count_as_they_arrive(start: Start) -> None:
    endpoint = start(sprint=20, pace=PATIENCE, thinks="apart", thought=3)
    generator = opened(endpoint)
    endpoint.replies.extend([of_length(40, 1), of_length(8, 2)])
    answer = solved("first_finish", search_on(generator), n=2, guard="off")
    assert answer.value == "2" and left(endpoint, 1) == 1


# streams, and fields of one request


def test_an_assembled_stream_equals_the_whole_answer(start: Start) -> None:
    endpoint = start(reasons=True)
    generator, events = opened(endpoint), []

    async def hear(event: Mapping[str, Any]) -> None:
        events.append(event)

    def nodes(listener: OnEvent | None) -> list[Node]:
        search = search_on(generator.sending({"user": "Ann"}, listener))
        return run(search.extend([search.root]))

    (streamed,), (whole,) = nodes(hear), nodes(None)
    assert streamed.state.text == whole.state.text and streamed.usage.generated_tokens == whole.usage.generated_tokens
    received, expected = json.loads(streamed.state.choice), json.loads(whole.state.choice)
    assert (
        received["message"] == expected["message"] and received["finish_reason"] == expected["finish_reason"] == "stop"
    )
    assert len(events) > 5 and [body["user"] for body in endpoint.requests] == ["Ann", "Ann"]


def test_parts_of_several_samples_and_calls_are_assembled_by_their_index() -> None:
    def call(index: int, text: str, **more: Any) -> dict[str, Any]:
        return {"tool_calls": [{"index": index, "function": {"arguments": text}, **more}]}

    deltas = [(0, {"role": "assistant", "content": ""}), (1, {"content": "a"}), (0, call(0, "{", id="x"))]
    deltas += [(1, {"content": "b"}), (0, call(1, "[", id="y")), (0, call(0, "}")), (0, call(1, "]"))]
    whole = Assembly()
    for index, delta in deltas:
        whole.add({"choices": [{"index": index, "delta": delta}], "usage": None})
    whole.add({"choices": [], "usage": {"prompt_tokens": 1}})
    whole.add({"choices": [{"index": "none"}, 7], "unknown": True})
    first, second = whole.body["choices"]
    assert [(c["id"], c["function"]["arguments"]) for c in first["message"]["tool_calls"]] == [("x", "{}"), ("y", "[]")]
    assert second["message"]["content"] == "ab" and whole.body["usage"] == {"prompt_tokens": 1}


def test_a_sample_that_calls_a_tool_is_complete_and_kept_whole(start: Start, tmp_path: Path) -> None:
    endpoint = start()
    tools = [{"type": "function", "function": {"name": "count"}}]
    generator = opened(endpoint).sending({"tools": tools})
    with Bank(tmp_path / "bank.db") as bank:
        states = []
        for _ in range(2):
            search = search_on(generator, journal=bank)
            (node,) = run(search.extend([search.root]))
            states.append(node.state)
    assert (node.finish, node.state.text, len(endpoint.requests)) == ("eos", "", 1)
    assert json.loads(node.state.choice)["message"]["tool_calls"][0]["function"]["name"] == "count"
    assert states[0] == states[1]


@pytest.mark.parametrize("patience", [0.005, 30.0])
def test_a_wait_longer_than_the_patience_is_an_error(start: Start, patience: float) -> None:
    endpoint = start()
    endpoint.faults.append("429:0.02")
    client = Client(endpoint.url, patience=patience)
    if patience < 0.02:
        with pytest.raises(RefusedError):
            run(client.post("chat/completions", BODY))
    else:
        assert run(client.post("chat/completions", BODY)).body["choices"]


# sampling, and its account


def test_children_of_one_node_are_one_request_if_n_is_honoured(start: Start) -> None:
    endpoint = start()
    nodes = sampled(opened(endpoint), 8)
    assert [body["n"] for body in endpoint.requests] == [8]
    assert [node.finish for node in nodes] == ["eos"] * 8
    assert len({node.state.text for node in nodes}) > 1


@pytest.mark.parametrize("n", ["ignored", "refused"])
def test_children_are_requests_with_their_own_seeds_if_n_is_not_honoured(start: Start, n: str) -> None:
    endpoint = start(n=n)
    nodes = sampled(opened(endpoint), 8)
    assert len(endpoint.requests) == 8 and not any("n" in body for body in endpoint.requests)
    assert len({body["seed"] for body in endpoint.requests}) == 8
    assert [node.state for node in nodes] == [node.state for node in sampled(opened(endpoint), 8)]


def test_missing_samples_are_requested_again(start: Start) -> None:
    endpoint = start()
    generator = opened(endpoint)
    endpoint.n = "ignored"
    nodes = sampled(generator, 4)
    assert len(endpoint.requests) == 4 and all(node.done for node in nodes)
    assert total(node.usage for node in nodes).generated_tokens == endpoint.generated_tokens


def test_if_n_is_refused_later_samples_are_requested_one_by_one(start: Start) -> None:
    endpoint = start()
    generator = opened(endpoint)
    endpoint.n = "refused"
    assert all(node.done for node in sampled(generator, 4))


@pytest.mark.parametrize("logprobs", [True, False])
def test_the_costs_of_the_children_sum_to_the_cost_of_the_request(start: Start, logprobs: bool) -> None:
    endpoint = start(logprobs=logprobs)
    nodes = sampled(opened(endpoint, price=Price(2, 8)), 6)
    spent = total(node.usage for node in nodes)
    assert (spent.prompt_tokens, spent.generated_tokens) == (endpoint.prompt_tokens, endpoint.generated_tokens)
    assert spent.dollars == pytest.approx((2 * endpoint.prompt_tokens + 8 * endpoint.generated_tokens) / 1e6)
    assert (spent.model_calls, spent.flops, spent.cached_tokens, spent.uncounted_calls) == (6, None, None, 0)
    if logprobs:
        assert [node.usage.generated_tokens for node in nodes] == [len(node.state.text.split()) for node in nodes]
        assert all(node.state.logprob == -0.5 * node.state.tokens for node in nodes)
    else:
        assert all(math.isnan(node.state.logprob) for node in nodes)


@pytest.mark.parametrize("path", ["", "/chat/completions", "/completions"])
@pytest.mark.parametrize("stops", ["named", "echoed", "echoed if asked", "unlisted"])
def test_a_step_continues_where_the_last_one_ended(start: Start, path: str, stops: str) -> None:
    endpoint = start(stops=stops)
    generator = RemoteGenerator(endpoint.url + path, "words")

    async def walk() -> list[Node]:
        search = search_on(generator)
        nodes = [search.root]
        while nodes[-1].finish in ("root", "step"):
            nodes += await search.extend([nodes[-1]], until="step")
        return nodes

    nodes = run(walk())
    assert [node.finish for node in nodes] == ["root", "step", "step", "eos"]
    text = nodes[-1].state.text
    assert [text[:end].count("\n") for end in nodes[-1].state.step_ends] == [1, 2, 2]
    assert text.startswith(nodes[2].state.text) and "answer is" in text.splitlines()[2]
    line_ends = 2 if stops == "unlisted" else 0  # tokens of their own there
    assert generator.length(nodes[-1].state) == len(text.split()) + line_ends


@pytest.mark.parametrize("until", ["done", "step"])
@pytest.mark.parametrize("stops", ["named", "echoed", "echoed if asked", "unlisted"])
def test_a_stop_string_completes_a_sample_at_every_kind_of_endpoint(start: Start, stops: str, until: Until) -> None:
    endpoint = start(stops=stops)
    generator = opened(endpoint)

    async def walk() -> list[Node]:
        search = search_on(generator, sampling=replace(SAMPLING, stop=("answer",)))
        nodes = [search.root]
        while nodes[-1].finish in ("root", "step"):
            nodes += await search.extend([nodes[-1]], until=until)
        return nodes

    nodes = run(walk())
    assert [node.finish for node in nodes[1:]] == (["step", "step", "eos"] if until == "step" else ["eos"])
    text = nodes[-1].state.text
    assert "answer" not in text and text.count("\n") == 2 and nodes[-1].state.step_ends[-1] == len(text)
    assert sum(node.usage.generated_tokens for node in nodes) == endpoint.generated_tokens
    sent = [body["stop"] for body in endpoint.requests]
    assert all(("answer" in strings) == (until == "done" or stops != "unlisted") for strings in sent if strings)


@pytest.mark.parametrize("continues", [True, "always"])
def test_an_echoed_prefix_is_removed(start: Start, continues: bool | str) -> None:
    generator = opened(start(echoes=True, continues=continues))

    async def walk() -> list[Node]:
        search = search_on(generator)
        nodes = [search.root]
        while nodes[-1].finish in ("root", "step"):
            nodes += await search.extend([nodes[-1]], until="step")
        return nodes

    first, second, last = (node.state.text for node in run(walk())[1:])
    assert second.startswith(first) and last.startswith(second)
    assert (last.count("\n"), last.count("answer is")) == (2, 1)


def test_a_missing_echo_is_a_failed_sample(start: Start) -> None:
    endpoint = start(echoes=True)
    generator = opened(endpoint)

    async def walk() -> Node:
        search = search_on(generator)
        first = await search.extend([search.root], until="step")
        endpoint.echoes = False
        (node,) = await search.extend(first)
        return node

    node = run(walk())
    assert node.finish == "error" and node.usage.generated_tokens > 0


def test_a_beam_search_runs_on_an_endpoint_with_step_boundaries(start: Start) -> None:
    generator = opened(start())
    search = search_on(generator, scorers=LengthScorer())
    answer = solved("beam_search", search, n=4, width=2)
    assert answer.value in ("7", "8", "9") and answer.node.depth == 3


def test_a_sample_stops_at_its_limit_and_its_finish_names_the_limit(start: Start) -> None:
    endpoint = start()
    generator = opened(endpoint)

    async def cut() -> list[Node]:
        search = search_on(generator, sampling=Sampling(max_length=5))
        nodes = await search.extend([search.root], at_most=2)
        return nodes + await search.extend(nodes)

    first, rest = run(cut())
    assert (first.finish, first.state.tokens, rest.finish, rest.state.tokens) == ("cut", 2, "length", 5)
    assert [body["max_tokens"] for body in endpoint.requests] == [2, 3]


def test_messages_are_sent_unchanged(start: Start) -> None:
    endpoint = start()
    generator = opened(endpoint)
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": QUESTION, "name": "Ann"}]
    search = Search(Problem("chat", messages), generator, sampling=SAMPLING)
    run(search.extend([search.root]))
    assert endpoint.requests[0]["messages"] == messages


def test_the_temperature_of_one_call_reaches_the_endpoint(start: Start) -> None:
    endpoint = start()
    search = search_on(opened(endpoint))
    run(search.extend([search.root], temperature=0.0))
    assert endpoint.requests[0]["temperature"] == 0.0


def test_log_probabilities_select_if_the_endpoint_returns_them(start: Start) -> None:
    generator = opened(start())
    answer = solved("most_likely", search_on(generator), n=8)
    assert answer.node.state.tokens == min(len(node.state.text.split()) for node in sampled(generator, 8))


# budgets


@pytest.mark.parametrize("tokens", [64, 100, 200])
@pytest.mark.parametrize("n", ["honoured", "ignored"])
def test_a_token_budget_holds_by_the_endpoints_count(start: Start, tokens: int, n: str) -> None:
    endpoint = start(n=n)
    generator = opened(endpoint)
    answer = solved("majority", search_on(generator, Budget(tokens=tokens)), n=64)
    assert 0 < answer.usage.generated_tokens == endpoint.generated_tokens <= tokens
    assert answer.finish == "budget" and answer.value is not None


def test_a_budget_in_dollars_holds_and_needs_a_price(start: Start) -> None:
    endpoint = start()
    generator = opened(endpoint, price=Price(1, 10))
    budget = Budget(dollars=0.003)
    answer = solved("majority", search_on(generator, budget), n=64)
    paid = (endpoint.prompt_tokens + 10 * endpoint.generated_tokens) / 1e6
    assert answer.usage.dollars == pytest.approx(paid) and 0.001 < paid <= 0.003
    with pytest.raises(InputError, match="dollars are unknown"):
        search_on(opened(endpoint), budget)


def test_the_price_of_a_picture_is_unknown_before_the_request(start: Start) -> None:
    content = [{"type": "image_url", "image_url": {"url": "http://host/picture.png"}}]
    generator = opened(start(), price=Price(1, 10))
    with pytest.raises(InputError, match="dollars are unknown"):
        Search(Problem("p", [{"role": "user", "content": content}]), generator, budget=Budget(dollars=1.0))


def test_an_endpoint_without_usage_is_charged_its_worst_case_with_a_warning(
    start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    generator = opened(start(usage=False, logprobs=False), price=None)
    answer = solved("majority", search_on(generator, Budget(tokens=300)), n=16)
    assert answer.usage.generated_tokens == 64 * 4 and answer.usage.uncounted_calls == 4
    assert answer.usage.prompt_tokens is None and answer.value is not None
    assert "reports no usage" in caplog.text


def test_one_answer_without_usage_is_kept_and_charged_its_worst_case(start: Start) -> None:
    endpoint = start(n="ignored", logprobs=False)
    generator = opened(endpoint)
    endpoint.faults.extend(["", "no usage"])
    nodes = sampled(generator, 3)
    assert all(node.done for node in nodes)
    assert sorted(node.usage.uncounted_calls for node in nodes) == [0, 0, 1]
    assert max(node.usage.generated_tokens for node in nodes) == 64


def test_a_deadline_ends_running_requests_and_their_connections(start: Start, clock: MovableClock) -> None:
    endpoint, journal = start(n="ignored"), MemoryJournal()
    generator = opened(endpoint)
    endpoint.faults.extend(["", "", "never"])
    search = search_on(generator, Budget(seconds=600), journal=journal)
    solving = make("majority", {"n": 3})(search)
    answer = run(passing(clock, 600, lambda: len(journal.samples) == 2, solving))
    assert (answer.finish, left(endpoint, 1)) == ("budget", 1) and answer.value is not None
    assert answer.usage.uncounted_calls == 1


def test_a_cancelled_caller_closes_its_connections(start: Start) -> None:
    endpoint = start(n="ignored")
    generator = opened(endpoint)
    endpoint.latency = 3600.0

    async def leave() -> None:
        search = search_on(generator)
        task = asyncio.ensure_future(search.extend([search.root], 8))
        while len(endpoint.requests) < 8:
            await asyncio.sleep(0.01)
        task.cancel()
        while endpoint.left < 8:
            await asyncio.sleep(0.01)

    run(asyncio.wait_for(leave(), PATIENCE))
    assert endpoint.left == 8


# faults


@pytest.mark.parametrize(("fault", "wait"), [("429:0.2", 0.2), ("429", 0), ("500", 0), ("503", 0)])
def test_temporary_failures_are_retried(start: Start, fault: str, wait: float) -> None:
    endpoint = start()
    generator = opened(endpoint)
    endpoint.faults.extend([fault, fault])
    began = time.monotonic()
    (node,) = sampled(generator, 1)
    assert node.done and len(endpoint.requests) == 3 and time.monotonic() - began >= 2 * wait
    assert node.usage.generated_tokens == endpoint.generated_tokens


@pytest.mark.parametrize("fault", ["garbage", "cut", "html", "no choices", "no finish", "no text", "500"])
def test_one_bad_sample_of_eight_costs_that_sample_only(start: Start, fault: str) -> None:
    endpoint = start(n="ignored")
    generator = opened(endpoint)
    endpoint.faults.extend(["", "", fault])
    search = search_on(generator)
    answer = solved("majority", search, n=8)
    finishes = sorted(record.node.finish for record in search.trace.values() if record.node.parent)
    passes = fault == "500"
    assert finishes == ["eos"] * 8 if passes else finishes == ["eos"] * 7 + ["error"]
    assert len(endpoint.requests) == (9 if passes else 8) and answer.value is not None
    assert len(search.errors) == (0 if passes else 1)
    assert all(str(error).startswith("endpoint=") and "\n" not in str(error) for error in search.errors)
    counted = fault in ("no finish", "no text", "500")
    assert answer.usage.uncounted_calls == (0 if counted else 1)
    assert answer.usage.generated_tokens >= endpoint.generated_tokens
    assert not counted or answer.usage.generated_tokens == endpoint.generated_tokens


def test_failed_children_are_not_scored_and_take_no_slot(start: Start) -> None:
    endpoint = start(n="ignored")
    generator = opened(endpoint)
    endpoint.faults.extend(["", "garbage"])
    scorer = LengthScorer()
    search = search_on(generator, scorers=scorer)
    answer = solved("beam_search", search, n=2, width=1)
    assert answer.value is not None and all(node.finish != "error" for batch in scorer.asked for node in batch)
    (failed,) = [record for record in search.trace.values() if record.node.finish == "error"]
    assert failed.score is None and failed.node.state == search.root.state


@pytest.mark.parametrize("seed", range(24))
def test_under_any_mix_of_faults_nothing_paid_is_missing_and_no_budget_is_exceeded(start: Start, seed: int) -> None:
    rng = Random(seed)
    endpoint = start(
        n=rng.choice(["honoured", "ignored", "refused"]),
        usage=rng.random() < 0.8,
        logprobs=rng.random() < 0.5,
        stops=rng.choice(["named", "echoed", "echoed if asked", "silent"]),
    )
    generator = opened(endpoint, price=Price(1, 10))
    faults = ["", "", "", "garbage", "cut", "html", "no choices", "no finish", "no text", "no usage", "429", "500"]
    endpoint.faults.extend(rng.choice(faults) for _ in range(200))
    tokens = rng.randint(64, 1000)
    budget = Budget(tokens=tokens, dollars=rng.uniform(0.001, 0.02) if generator.traits.usage else None)
    search = search_on(generator, budget, scorers=LengthScorer())
    with suppress(ModelError):
        if Capability.STEPS in generator.capabilities and rng.random() < 0.5:
            solved("beam_search", search, n=8, width=2)
        else:
            solved("adaptive_consistency", search, n=32)
    spent = search.ledger.spent
    assert endpoint.generated_tokens <= spent.generated_tokens <= tokens
    if budget.dollars is not None:
        paid = (endpoint.prompt_tokens + 10 * endpoint.generated_tokens) / 1e6
        assert spent.dollars is not None and paid <= spent.dollars + 1e-12 and spent.dollars <= budget.dollars
    traced = total(record.node.usage for record in search.trace.values())
    assert traced.generated_tokens == spent.generated_tokens


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ("garbage", "'application/json' that is not a JSON object"),
        ("cut", "was cut off"),
        ("html", "'text/html' that is not a JSON object (<html>Sign in</html>)"),
        ("deep", "'application/json' that is not a JSON object"),
        ("moved", "answers 301 (<html>Moved</html>)"),
        ("no choices", "choices=[]"),
        ("no finish", "finish_reason=None"),
        ("no text", "content=None"),
        ("500", "answers 500 after 5 tries (not now)"),
        ("429", "answers 429 after 5 tries (not now); send fewer requests at once, or wait"),
    ],
)
def test_if_all_samples_fail_the_error_has_the_reason(start: Start, fault: str, says: str) -> None:
    endpoint = start(n="ignored")
    generator = opened(endpoint)
    endpoint.faults.extend([fault] * 99)
    with pytest.raises((ModelError, InputError)) as caught:
        solved("majority", search_on(generator), n=2)
    assert says in str(caught.value) and "\n" not in str(caught.value)


def test_an_endpoint_that_stops_answering_is_an_error_and_not_a_spent_budget(start: Start, clock: MovableClock) -> None:
    endpoint = start(n="ignored")
    generator = opened(endpoint, timeout=600)
    endpoint.faults.extend(["never"] * 2)
    solving = make("majority", {"n": 2})(search_on(generator))
    with pytest.raises(ModelError, match=r"no answer in 60\d\.\d s"):
        run(passing(clock, 600, lambda: len(endpoint.requests) == 2, solving))


def test_the_error_for_an_unknown_model_lists_the_known_ones(start: Start) -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'words'"):
        assert RemoteGenerator(start().url, "word").traits


def test_a_key_that_is_rejected_is_reported_without_showing_it(start: Start) -> None:
    endpoint = start(key="secret-1")
    assert RemoteGenerator(endpoint.url, "words", "secret-1").traits.n
    for key in (None, "secret-2"):
        with pytest.raises(InputError, match=r"api_key=.*THINKTIME_API_KEY") as caught:
            assert RemoteGenerator(endpoint.url, "words", key).traits
        assert "secret" not in str(caught.value)
    assert "secret" not in RemoteGenerator(endpoint.url, "words", "secret-1").name


def test_a_prompt_beyond_the_context_is_refused_by_name(start: Start) -> None:
    endpoint = start()
    generator = opened(endpoint)
    endpoint.context = 40
    with pytest.raises(InputError, match="prompt='too long': This model's maximum context length is 40 tokens"):
        sampled(generator, 2)
    assert len(endpoint.requests) == 1


def test_a_text_that_fills_the_context_has_finish_length(start: Start) -> None:
    endpoint = start()
    generator = opened(endpoint)

    async def grow() -> list[Node]:
        search = search_on(generator)
        first = await search.extend([search.root], until="step")
        endpoint.context = 10
        return first + await search.extend(first, until="step")

    first, second = run(grow())
    assert (first.finish, second.finish, second.state) == ("step", "length", first.state)


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("127.0.0.1:8000/v1", r"base_url='127.0.0.1:8000/v1': write http://host:port/v1$"),
        ("http://me:secret@host/v1", "keys go into api_key"),
        ("ftp://host/v1", "base_url="),
    ],
)
def test_an_invalid_url_is_refused_at_once(url: str, says: str) -> None:
    with pytest.raises(InputError, match=says) as caught:
        RemoteGenerator(url, "words")
    assert "secret" not in str(caught.value)


def test_a_path_that_is_no_api_is_reported(start: Start) -> None:
    url = start().url.removesuffix("/v1")
    with pytest.raises(InputError, match=r"base_url=.*404"):
        assert RemoteGenerator(url, "words").traits


def test_an_unreachable_endpoint_is_reported(start: Start) -> None:
    with pytest.raises(ModelError, match=r"cannot be reached.*start the server"):
        assert RemoteGenerator("http://127.0.0.1:9/v1", "words").traits


def test_identical_samples_are_reported(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    sampled(opened(start()), 8)
    assert "the same" not in caplog.text
    sampled(opened(start(identical=True)), 8)
    assert "8 samples at temperature 1 are all the same text" in caplog.text


# the client


def test_a_refused_request_is_not_retried(start: Start) -> None:
    endpoint = start()
    with pytest.raises(RefusedError):
        run(Client(endpoint.url).post("chat/completions", {**BODY, "model": "none"}))
    assert len(endpoint.requests) == 1


@pytest.mark.parametrize("fault", ["garbage", "cut"])
def test_a_request_that_may_be_billed_is_not_retried(start: Start, fault: str) -> None:
    endpoint = start()
    endpoint.faults.append(fault)
    with pytest.raises(UnreadableError):
        run(Client(endpoint.url).post("chat/completions", BODY))
    assert len(endpoint.requests) == 1


def test_a_wait_longer_than_the_deadline_ends_at_the_deadline_and_costs_nothing(
    start: Start, clock: MovableClock
) -> None:
    endpoint = start()
    endpoint.faults.append("429:3600")

    async def ask() -> None:
        client = Client(endpoint.url, patience=7200, connections=1)
        refused = asyncio.ensure_future(
            client.post("chat/completions", BODY, deadline=Deadline(time.monotonic() + 600))
        )
        await asyncio.sleep(0)
        await client.post("chat/completions", BODY)  # gets the only connection when the first request waits
        clock.ahead = 600
        await refused

    with pytest.raises(TooLateError) as caught:
        run(ask())
    assert not caught.value.billed and len(endpoint.requests) == 2


def test_an_endpoint_that_never_answers_times_out(start: Start, clock: MovableClock) -> None:
    endpoint = start()
    endpoint.faults.append("never")
    asking = Client(endpoint.url, timeout=600).post("chat/completions", BODY)
    with pytest.raises(TooLateError, match=r"no answer in 60\d\.\d s") as caught:
        run(passing(clock, 600, lambda: len(endpoint.requests) == 1, asking))
    assert caught.value.billed


def test_a_failed_connection_is_retried() -> None:
    with pytest.raises(UnreachableError):
        run(Client("http://127.0.0.1:9/v1").post("chat/completions", BODY))


def test_the_wait_for_a_connection_does_not_count_for_the_timeout(
    start: Start, clock: MovableClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoint, attempt = start(), Client._attempt

    async def slow(client: Client, *arguments: Any) -> Any:
        clock.ahead += 250
        return await attempt(client, *arguments)

    monkeypatch.setattr(Client, "_attempt", slow)

    async def many() -> None:
        client = Client(endpoint.url, connections=1, timeout=600)  # less than all five take, and far more than one
        await asyncio.gather(*(client.post("chat/completions", BODY) for _ in range(5)))

    run(many())
    assert len(endpoint.requests) == 5


def test_connections_are_reused_and_never_more_than_allowed(start: Start) -> None:
    endpoint = start(latency=0.01)

    async def many() -> None:
        client = Client(endpoint.url, connections=5)
        await asyncio.gather(*(client.post("chat/completions", BODY) for _ in range(40)))

    run(many())
    assert len(endpoint.requests) == 40 and endpoint.connections <= 5


def test_many_requests_to_a_host_name_run_at_once(start: Start) -> None:
    endpoint = start(latency=0.01)

    async def many() -> None:
        client = Client(endpoint.url.replace("127.0.0.1", "localhost"))
        await asyncio.gather(*(client.post("chat/completions", BODY) for _ in range(300)))

    run(many())
    assert len(endpoint.requests) == 300


def test_half_a_character_is_replaced_and_the_rest_kept(start: Start, tmp_path: Path) -> None:
    endpoint = start()
    generator = opened(endpoint, price=Price(1, 1))
    endpoint.faults.append("half a character")
    with Bank(tmp_path / "bank.db") as bank:
        (node,) = sampled(generator, 1, journal=bank)
    assert node.done and node.state.text.endswith("?") and generator.worst_case(node, 5).dollars


@pytest.mark.parametrize(
    ("header", "expected"), [(None, None), ("7", 7.0), ("0.5", 0.5), ("-3", 0.0), ("soon", None), (PAST, 0.0)]
)
def test_retry_after_is_seconds_or_a_date(header: str | None, expected: float | None) -> None:
    assert client_module.retry_seconds(header) == expected


def test_retry_after_may_be_a_date_to_come() -> None:
    wait = client_module.retry_seconds(format_datetime(datetime.now(UTC) + timedelta(seconds=30)))
    assert wait is not None and 25 < wait <= 30


@pytest.mark.parametrize("logprobs", [True, False])
def test_an_endpoint_that_counts_one_of_several_samples_is_charged_for_all(start: Start, logprobs: bool) -> None:
    endpoint = start(counts_all=False, logprobs=logprobs, stops="unlisted")
    generator = opened(endpoint)
    search = search_on(generator)
    nodes = run(search.extend([search.root], 8))
    assert len(endpoint.requests) == (1 if logprobs else 8), "without a list of tokens each sample is asked for alone"
    spent = search.ledger.spent.generated_tokens
    assert spent == sum(node.state.tokens for node in nodes) >= endpoint.generated_tokens
    assert spent <= endpoint.generated_tokens + 8, "at most the end tokens that the endpoint does not list"


def test_a_budget_of_tokens_holds_on_an_endpoint_that_counts_one_of_several_samples(start: Start) -> None:
    endpoint = start(counts_all=False)
    answer = solved("majority", search_on(opened(endpoint), Budget(tokens=4 * SAMPLING.max_length)), n=16)
    assert 0 < endpoint.generated_tokens <= answer.usage.generated_tokens <= 4 * SAMPLING.max_length


@pytest.mark.parametrize("says", [[], ["Hi"]], ids=["long", "short"])
@pytest.mark.parametrize("counts", [True, False])
def test_the_probe_finds_out_whether_all_samples_of_a_request_are_counted(
    start: Start, counts: bool, says: list[str]
) -> None:
    traits = RemoteGenerator(start(counts_all=counts, logprobs=False, says=says).url, "words").traits
    assert traits.counts_all == (counts and not says), "two short samples may be as long as one"
    assert traits.n == traits.counts_all


def test_a_sample_without_a_list_of_its_tokens_is_charged_its_limit_if_the_usage_counts_one(start: Start) -> None:
    endpoint = start(counts_all=False)
    generator = opened(endpoint)
    endpoint.replies.extend(["so 1", "so so so so so so 2", "so 3"])
    endpoint.faults.append("one list is missing")
    search = search_on(generator)
    nodes = run(search.extend([search.root], 3))
    charged = [node.usage.generated_tokens for node in nodes]
    assert charged == [3, SAMPLING.max_length, 3] and [node.usage.uncounted_calls for node in nodes] == [0, 1, 0]


# arithmetic


@pytest.mark.parametrize(
    ("total_tokens", "choices", "expected"),
    [
        (9, [Choice("a b", "stop", tokens=4), Choice("c", "stop", tokens=5)], [4, 5]),
        (11, [Choice("a b", "stop", tokens=4), Choice("c d", "stop", tokens=5)], [5, 6]),
        (26, [Choice("a" * 99, "length"), Choice("b" * 39, "stop"), Choice("c" * 19, "stop")], [20, 4, 2]),
        (30, [Choice("aaa", "stop"), Choice("aaa", "stop")], [15, 15]),
        (3, [Choice("a", "stop", tokens=4), Choice("b", "stop", tokens=5)], [5, 6]),
        (20, [Choice("a" * 99, "length", tokens=20), Choice("b", "stop", tokens=20)], [20, 20]),
        (7, [Choice(error="none"), Choice("", "stop")], [3, 4]),
        (4, [Choice("a", "stop", tokens=9), Choice("a", "stop"), Choice("a", "length", tokens=20)], [10, 20, 20]),
    ],
)
def test_a_request_is_shared_among_its_samples(total_tokens: int, choices: list[Choice], expected: list[int]) -> None:
    assert shares(total_tokens, choices, 20) == expected


@pytest.mark.parametrize(
    "usage",
    [None, 3, {}, {"prompt_tokens": 3}, {"prompt_tokens": -1, "completion_tokens": 2}, {"completion_tokens": True}],
)
def test_malformed_usage_is_unknown(usage: object) -> None:
    assert read_usage({"usage": usage}) is None


def test_prices_are_known_if_listed_or_given() -> None:
    assert listed("https://api.openai.com/v1", "gpt-4o-mini") == LISTED["api.openai.com"]["gpt-4o-mini"]
    assert listed("http://127.0.0.1:8000/v1", "gpt-4o-mini") is None
    assert Price.parse("1/2").dollars(3_000_000, 1_000_000, 0) == 4.0
    assert Price.parse("1/2/0.5").dollars(0, 2_000_000, 1_000_000) == 3.0
    for text in ("1", "1/2/3/4", "a/b", "-1/2", "nan/1"):
        with pytest.raises(InputError, match="price="):
            Price.parse(text)


# the bank


def test_a_run_resumes_without_repeating_a_finished_sample(start: Start, tmp_path: Path) -> None:
    endpoint = start(n="ignored")
    generator = opened(endpoint)
    endpoint.faults.extend([*[""] * 5, *["never"] * 3])
    with Bank(tmp_path / "bank.db") as bank:

        async def killed() -> None:
            search = search_on(generator, journal=bank)
            task = asyncio.ensure_future(make("majority", {"n": 8})(search))
            while len(bank) < 5 or len(endpoint.requests) < 8:  # later arrivals would be counted below
                await asyncio.sleep(0.01)
            task.cancel()

        run(asyncio.wait_for(killed(), PATIENCE))
        seeds = [body["seed"] for body in endpoint.requests[:5]]
        endpoint.requests.clear()
        answer = solved("majority", search_on(generator, journal=bank), n=8)
        assert len(endpoint.requests) == 3 and not {body["seed"] for body in endpoint.requests} & set(seeds)
        endpoint.requests.clear()
        again = solved("majority", search_on(generator, journal=bank), n=8)
    assert endpoint.requests == [] and (again.value, again.usage) == (answer.value, answer.usage)


def test_a_later_run_requests_a_failed_sample_again(start: Start) -> None:
    endpoint, journal = start(n="ignored"), MemoryJournal()
    generator = opened(endpoint)
    endpoint.faults.extend(["garbage"])
    solved("majority", search_on(generator, journal=journal), n=4)
    assert len(journal.samples) == 3
    endpoint.requests.clear()
    solved("majority", search_on(generator, journal=journal), n=4)
    assert len(endpoint.requests) == 1 and len(journal.samples) == 4


@pytest.mark.parametrize("logprobs", [True, False])
def test_a_state_survives_the_bank(start: Start, logprobs: bool) -> None:
    generator = opened(start(logprobs=logprobs))

    async def walk() -> list[Node]:
        search = search_on(generator)
        first = await search.extend([search.root], until="step")
        return first + await search.extend(first, until="step")

    for node in run(walk()):
        assert node.parent is not None
        packed = generator.pack(node.parent.state, node.state)
        state = generator.unpack(node.parent.state, packed)
        assert state == node.state and (state.logprob == node.state.logprob or not logprobs)


def test_flops_of_a_listed_model_are_twice_its_parameters_per_computed_token(start: Start) -> None:
    endpoint = start()
    nodes = sampled(opened(endpoint, parameters=1e6), 4)
    spent = total(node.usage for node in nodes)
    assert spent.flops == 2e6 * (endpoint.prompt_tokens + endpoint.generated_tokens)
    answer = solved("majority", search_on(opened(endpoint, parameters=1e6), Budget(flops=1e9)), n=64)
    assert 0 < answer.usage.flops <= 1e9 and answer.finish == "budget"
    with pytest.raises(InputError, match="flops are unknown"):
        search_on(opened(endpoint), Budget(flops=1e9))
