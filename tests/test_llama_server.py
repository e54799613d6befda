"""The remote generator on llama.cpp's own server, with the shipped solver as GGUF."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest
from gateway_server import BEARER, Serving, keyed
from llama_server import remote
from waiting import PATIENCE, eventually

from thinktime.answers import TextAnswers
from thinktime.core.search import Search
from thinktime.core.trace import Answer
from thinktime.core.types import Capability, Node, Problem, Sampling, Score
from thinktime.core.usage import Budget, total
from thinktime.gateway import replies
from thinktime.gateway.replies import SearchOutcome
from thinktime.generators.local import LocalGenerator
from thinktime.generators.openai import RemoteGenerator
from thinktime.models.remote.refusals import only_model
from thinktime.pocket.problems import problems, read_answer
from thinktime.scorers.judge import Judge
from thinktime.scorers.prm import ProcessReward
from thinktime.strategies import make

GREEDY = Sampling(temperature=0.0, max_length=100)


@pytest.fixture
def url(llama_cpp: str) -> str:
    return llama_cpp


def tokens_of(url: str, text: str) -> int:
    """The tokens of a text by llama.cpp's own tokenizer."""
    body, kind = json.dumps({"content": text}).encode(), {"Content-Type": "application/json"}
    with urlopen(Request(f"{url.removesuffix('/v1')}/tokenize", body, kind), timeout=PATIENCE) as reply:
        return len(json.load(reply)["tokens"])


def generated(url: str) -> int:
    """The tokens that llama.cpp has generated so far, by its own counter."""
    with urlopen(f"{url.removesuffix('/v1')}/metrics", timeout=PATIENCE) as reply:
        found = re.search(r"^llamacpp:tokens_predicted_total (\S+)", reply.read().decode(), re.MULTILINE)
    assert found is not None
    return int(float(found[1]))


def search_for(
    question: str,
    generator: RemoteGenerator | LocalGenerator,
    sampling: Sampling,
    budget: Budget | None = None,
    scorer: ProcessReward | None = None,
) -> Search:
    answers = TextAnswers(read_answer)
    return Search(Problem("q", question), generator, scorers=scorer, answers=answers, sampling=sampling, budget=budget)


def test_the_probe_of_llama_cpp_finds_its_traits(url: str) -> None:
    traits = remote(url).traits
    assert (traits.n, traits.seeds, traits.logprobs, traits.usage) == (True, True, True, True)
    assert not traits.counts_all
    assert traits.streams
    assert (traits.continues, traits.echoes, traits.stops, traits.thinks) == (True, True, "unlisted", None)


def test_a_greedy_sample_equals_that_of_the_local_model_with_the_same_token_count(
    url: str, generator: LocalGenerator, questions: tuple[str, ...]
) -> None:
    model = remote(url)

    async def both(question: str) -> tuple[Node, Node]:
        searches = [search_for(question, maker, GREEDY) for maker in (model, generator)]
        there, here = [(await search.extend([search.root]))[0] for search in searches]
        await model.close()
        return there, here

    for question in questions[:5]:
        there, here = asyncio.run(both(question))
        assert (there.state.text, there.finish) == (here.state.text, here.finish)
        assert there.usage.generated_tokens == here.usage.generated_tokens
        assert (there.usage.prompt_tokens or 0) + (there.usage.cached_tokens or 0) == here.usage.prompt_tokens


def test_samples_of_one_request_differ_are_counted_and_can_be_repeated(url: str) -> None:
    model = remote(url)

    async def sample() -> list[Node]:
        # on problems of its task, its samples hardly differ
        search = search_for("Say what comes to mind", model, Sampling(max_length=60))
        nodes = await search.extend([search.root], 8)
        await model.close()
        return nodes

    first, again = asyncio.run(sample()), asyncio.run(sample())
    assert len({node.state.text for node in first}) > 1
    assert [node.state.text for node in first] == [node.state.text for node in again]
    spent = total(node.usage for node in first)
    assert spent.uncounted_calls == 0 and spent.generated_tokens == sum(node.state.tokens for node in first)
    written = sum(tokens_of(url, node.state.text) + 1 for node in first)  # and the end
    assert written <= spent.generated_tokens <= written + len(first), "although its usage counts one of eight samples"


def test_a_chat_continues_its_last_message(url: str, questions: tuple[str, ...]) -> None:
    model = remote(url)
    assert Capability.PREFIX in model.capabilities

    async def walk() -> tuple[Node, Node]:
        search = search_for(questions[0], model, GREEDY)
        (whole,) = await search.extend([search.root])
        (start,) = await search.extend([search.root], at_most=12)
        (rest,) = await search.extend([start])
        await model.close()
        return whole, rest

    whole, rest = asyncio.run(walk())
    assert rest.depth == 2 and rest.state.text == whole.state.text


def test_a_generation_by_steps_equals_one_call(url: str, questions: tuple[str, ...]) -> None:
    model = remote(url)

    async def walk(question: str) -> tuple[Node, Node]:
        search = search_for(question, model, GREEDY)
        (whole,) = await search.extend([search.root])
        node = search.root
        while node.finish in ("root", "step"):
            (node,) = await search.extend([node], until="step")
        await model.close()
        return whole, node

    for question in questions[:3]:
        whole, stepped = asyncio.run(walk(question))
        assert stepped.depth == len(stepped.state.step_ends) > 1
        assert (stepped.state.text, stepped.finish) == (whole.state.text, whole.finish)


def test_a_beam_search_runs_on_the_server_with_the_shipped_reward_model(
    url: str, reward: ProcessReward, questions: tuple[str, ...]
) -> None:
    model = remote(url)
    search = search_for(questions[0], model, Sampling(max_length=60), scorer=reward)

    async def beam() -> Answer:
        answer = await make("beam_search", {"n": 2, "width": 1})(search)
        await model.close()
        return answer

    assert asyncio.run(beam()).usage.scorer_calls > 0
    assert max(record.node.depth for record in search.trace.values()) > 1


def test_a_vote_with_the_shipped_reward_model_keeps_its_budget(
    url: str, reward: ProcessReward, questions: tuple[str, ...]
) -> None:
    model = remote(url)
    search = search_for(questions[0], model, Sampling(max_length=100), Budget(tokens=600), reward)

    async def vote() -> Answer:
        answer = await make("weighted_majority", {"n": 16})(search)
        await model.close()
        return answer

    answer = asyncio.run(vote())
    assert answer.value is not None and answer.usage.generated_tokens <= 600
    assert answer.usage.scorer_calls > 4 and answer.usage.uncounted_calls == 0


def test_the_first_sample_to_end_answers_and_the_others_are_cancelled(url: str, questions: tuple[str, ...]) -> None:
    model = remote(url)
    search = search_for(questions[0], model, Sampling(max_length=200))

    async def race() -> Answer:
        answer = await make("first_finish", {"n": 4, "guard": "off"})(search)
        await model.close()
        return answer

    answer = asyncio.run(race())
    leaves = [record.node for record in search.trace.values() if record.node.depth]
    ended = [leaf for leaf in leaves if leaf.finish == "eos"]
    assert answer.value is not None and answer.node in ended and len(leaves) == 4
    assert answer.node is not None and answer.node.passes == min(leaf.passes for leaf in ended)
    assert all(leaf.passes > answer.node.passes for leaf in leaves if leaf.finish == "pruned")


def test_a_judge_on_the_server_is_charged_what_the_server_counts(
    url: str, generator: LocalGenerator, questions: tuple[str, ...]
) -> None:
    model = remote(url)
    judge = Judge(model, template="{question} {solution}", samples=4, retries=0, max_tokens=20)

    async def judged() -> tuple[Problem, Node, Score]:
        search = search_for(questions[0], generator, Sampling(temperature=0.0, max_length=100))
        (node,) = await search.extend([search.root])
        (score,) = await judge.score(search.problem, [node])
        await judge.close()
        return search.problem, node, score

    problem, node, score = asyncio.run(judged())
    read = generator.worst_case(node, 1).prompt_tokens
    assert read is not None and read <= score.usage.scorer_tokens <= judge.worst_case(problem, node).scorer_tokens
    assert (score.usage.scorer_calls, score.usage.uncounted_calls, score.reason) == (1, 0, "")


@pytest.fixture(scope="module")
def gateway(llama_cpp: str) -> Iterator[Serving]:
    """A gateway in front of llama.cpp that has probed its model, with a key that has a budget."""
    with Serving(llama_cpp, **keyed(Budget(tokens=50_000))) as gateway:
        gateway.read({**BODY, "model": f"single/{only_model(llama_cpp)}"}, "completions", **BEARER)
        yield gateway


BODY: dict[str, Any] = {"prompt": "Say what comes to mind", "max_tokens": 40, "temperature": 1}
STREAM = {"stream": True, "stream_options": {"include_usage": True}}


@pytest.mark.parametrize("more", [{}, STREAM, {"logprobs": 1}, {"logprobs": 1, **STREAM}])
@pytest.mark.parametrize(
    ("method", "asked", "exact"),
    [
        ("", {}, True),
        ("", {"n": 4}, False),
        ("", {"prompt": ["one", "two", "three"]}, False),
        ("majority:n=4/", {}, False),
        ("single/", {}, True),
    ],
)
def test_a_key_is_charged_at_least_what_llama_cpp_generated_and_exactly_that_for_one_sample(
    url: str, gateway: Serving, method: str, asked: dict[str, Any], exact: bool, more: dict[str, Any]
) -> None:
    client = gateway.gateway.auth.clients[0]
    before, spent = generated(url), client.ledger.spent
    gateway.read({**BODY, "model": f"{method}{only_model(url)}", **asked, **more}, "completions", **BEARER)
    charged, written = (client.ledger.spent - spent).generated_tokens, generated(url) - before
    samples = 4 if "n" in asked or "majority" in method else 3 if "prompt" in asked else 1
    assert written <= charged <= (written if exact else 40 * samples)
    if samples == 4 and ("logprobs" in more or method):
        assert charged <= written + samples, "each sample lists its tokens, but not its end"


def test_a_cancelled_sample_is_charged_at_least_what_llama_cpp_generated(url: str, questions: tuple[str, ...]) -> None:
    model = remote(url)
    search = search_for(questions[0], model, Sampling(max_length=200))

    async def race() -> None:
        await model.probe()
        before = generated(url)
        await make("first_finish", {"n": 4, "guard": "off"})(search)
        await model.close()
        idle = r"^llamacpp:requests_processing 0$"
        metrics = f"{url.removesuffix('/v1')}/metrics"
        eventually(lambda: re.search(idle, urlopen(metrics).read().decode(), re.MULTILINE))
        assert generated(url) - before <= search.ledger.spent.generated_tokens < 4 * 200

    asyncio.run(race())


TASK = """
from inspect_ai import Task, task
from inspect_ai.dataset import json_dataset
from inspect_ai.scorer import pattern
from inspect_ai.solver import generate


@task
def pocket() -> Task:
    return Task(json_dataset("problems.jsonl"), solver=generate(), scorer=pattern(r"Answer: ([0-9]+)"))
"""


def test_an_evaluation_harness_reads_the_gateways_accuracy_and_usage(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Runs inspect_ai as a user does, on a task file."""
    pytest.importorskip("inspect_ai")
    whole = replies.completion
    asked = {problem.question: problem.answer for problem in problems("test", 6, seed=3)}
    (tmp_path / "pocket.py").write_text(TASK)
    lines = [json.dumps({"input": question, "target": str(answer)}) for question, answer in asked.items()]
    (tmp_path / "problems.jsonl").write_text("\n".join(lines))
    pairs: list[tuple[str, Any]] = []

    def completion(outcome: SearchOutcome) -> dict[str, Any]:
        answer = whole(outcome)
        pairs.append((outcome.request.prompt[-1]["content"], answer))
        return answer

    monkeypatch.setattr(replies, "completion", completion)
    with Serving(url) as gateway:
        model = f"openai-api/gateway/majority:n=4/{only_model(url)}"
        options = ("--model", model, "--max-tokens", "100", "--display", "none", "--log-format", "json")
        command = [sys.executable, "-m", "inspect_ai", "eval", "pocket.py", *options, "--log-dir", str(tmp_path)]
        settings = os.environ | {"GATEWAY_BASE_URL": gateway.url, "GATEWAY_API_KEY": "none"}
        subprocess.run(command, env=settings, cwd=tmp_path, check=True, timeout=PATIENCE)
        spent = gateway.gateway.auth.clients[0].ledger.spent
    (log,) = tmp_path.glob("*.json")
    seen = json.loads(log.read_text())
    right = [answer["thinktime"]["answer"] == str(asked[question]) for question, answer in pairs]
    (score,) = seen["results"]["scores"]
    assert len(right) == 6 and score["metrics"]["accuracy"]["value"] == pytest.approx(sum(right) / 6)
    (usage,) = seen["stats"]["model_usage"].values()
    assert usage["total_tokens"] == sum(answer["usage"]["total_tokens"] for _, answer in pairs)
    assert usage["output_tokens"] == spent.generated_tokens > 0 and spent.model_calls == 24
