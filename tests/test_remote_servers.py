"""The remote generator on a real server: ``transformers serve`` with the shipped solver."""

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

import pytest
from gateway_server import BEARER, Serving, keyed
from waiting import PATIENCE, eventually

from thinktime.answers import TextAnswers
from thinktime.core.search import Search
from thinktime.core.trace import Answer
from thinktime.core.types import Capability, Node, Problem, Sampling
from thinktime.core.usage import Budget
from thinktime.generators.local import LocalGenerator
from thinktime.generators.openai import RemoteGenerator
from thinktime.models.remote.refusals import only_model
from thinktime.pocket.problems import read_answer
from thinktime.scorers.prm import ProcessReward
from thinktime.strategies import make

GREEDY = Sampling(temperature=0.0, max_length=100)
COLD = 0.01
"""A temperature above 0 at which all samples are greedy: this server does not take seeds."""

for needed in ("accelerate", "fastapi", "openai", "uvicorn"):
    pytest.importorskip(needed)


@pytest.fixture(scope="module")
def url(solver_directory: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    program = Path(sys.executable).with_name("transformers")
    options = ("--host", "127.0.0.1", "--port", "0", "--device", "cpu")
    log = tmp_path_factory.mktemp("server") / "log"
    with log.open("w") as out:
        command = [str(program), "serve", str(solver_directory), *options]
        server = subprocess.Popen(command, env=os.environ | {"HF_HUB_OFFLINE": "1"}, stdout=out, stderr=out)
    try:
        running = r"running on (http://127\.0\.0\.1:\d+)"
        eventually(lambda: server.poll() is not None or re.search(running, log.read_text()))
        found = re.search(running, log.read_text())
        assert found, log.read_text()[-500:]
        yield f"{found[1]}/v1"
    finally:
        server.terminate()
        server.wait(PATIENCE)


def search_for(
    question: str,
    generator: RemoteGenerator | LocalGenerator,
    sampling: Sampling,
    scorer: ProcessReward | None = None,
) -> Search:
    answers = TextAnswers(read_answer)
    return Search(Problem("q", question), generator, scorers=scorer, answers=answers, sampling=sampling)


def test_the_probe_of_transformers_serve_finds_its_traits(url: str) -> None:
    chat, text = (RemoteGenerator(address, only_model(url)) for address in (url, f"{url}/completions"))
    assert (chat.traits.n, chat.traits.usage, chat.traits.logprobs) == (False, True, False)
    assert chat.capabilities == {Capability.CHAT, Capability.NOISE, Capability.CANCEL}
    assert text.traits.stops == "echoed" and text.capabilities == {
        Capability.STEPS,
        Capability.PREFIX,
        Capability.NOISE,
        Capability.CANCEL,
    }


@pytest.fixture(scope="module")
def greedy(url: str, generator: LocalGenerator, questions: tuple[str, ...]) -> list[tuple[Problem, Node, Node]]:
    """Problems, each with the greedy sample of the server and that of the local model."""
    remote = RemoteGenerator(url, only_model(url))

    async def both(question: str) -> tuple[Problem, Node, Node]:
        searches = [search_for(question, maker, GREEDY) for maker in (remote, generator)]
        there, here = [(await search.extend([search.root]))[0] for search in searches]
        await remote.close()
        return searches[0].problem, there, here

    return [asyncio.run(both(question)) for question in (questions[0], questions[5])]  # the shortest answers


def test_a_greedy_sample_is_the_one_that_the_local_model_makes_at_the_same_count(
    greedy: list[tuple[Problem, Node, Node]],
) -> None:
    for _, there, here in greedy:
        assert there.state.text.strip() == here.state.text.strip()
        assert (there.finish, there.usage.prompt_tokens) == (here.finish, here.usage.prompt_tokens)
        assert there.usage.generated_tokens == here.usage.generated_tokens


def test_a_generation_by_steps_equals_one_call(url: str, questions: tuple[str, ...]) -> None:
    remote = RemoteGenerator(f"{url}/completions", only_model(url))

    async def walk() -> tuple[Node, Node]:
        search = search_for(questions[0], remote, GREEDY)
        (whole,) = await search.extend([search.root])
        node = search.root
        while node.finish in ("root", "step"):
            (node,) = await search.extend([node], until="step")
        await remote.close()
        return whole, node

    whole, stepped = asyncio.run(walk())
    assert stepped.depth > 1 and stepped.state.text == whole.state.text


def test_the_shipped_reward_model_gives_a_text_and_its_ids_the_same_rewards(
    greedy: list[tuple[Problem, Node, Node]], reward: ProcessReward
) -> None:
    def steps(problem: Problem, node: Node) -> tuple[float, ...]:
        (score,) = asyncio.run(reward.score(problem, [node], [None]))
        return score.steps

    for problem, there, here in greedy:
        assert len(steps(problem, there)) > 1
        assert steps(problem, there) == steps(problem, here)


def test_a_beam_search_runs_on_the_server_with_the_shipped_reward_model(
    url: str, reward: ProcessReward, questions: tuple[str, ...]
) -> None:
    remote = RemoteGenerator(f"{url}/completions", only_model(url))
    search = search_for(questions[0], remote, Sampling(COLD, max_length=60), reward)

    async def beam() -> Answer:
        answer = await make("beam_search", {"n": 2, "width": 1})(search)
        await remote.close()
        return answer

    assert asyncio.run(beam()).usage.scorer_calls > 0
    assert max(record.node.depth for record in search.trace.values()) > 1


def test_a_vote_requests_every_sample_from_the_server_and_counts_them(url: str, questions: tuple[str, ...]) -> None:
    remote = RemoteGenerator(url, only_model(url))

    async def vote() -> Answer:
        answer = await make("majority", {"n": 4})(search_for(questions[0], remote, Sampling(COLD, max_length=100)))
        await remote.close()
        return answer

    answer = asyncio.run(vote())
    assert answer.value is not None and answer.usage.model_calls == 4 and answer.usage.uncounted_calls == 0


def test_openais_client_gets_a_vote_of_the_shipped_model_through_the_gateway(
    url: str, questions: tuple[str, ...]
) -> None:
    from gateway_server import Serving
    from openai import OpenAI

    name, messages = only_model(url), [{"role": "user", "content": questions[0]}]
    with Serving(url) as gateway, OpenAI(base_url=gateway.url, api_key="none", max_retries=0) as client:
        ask: Any = client.chat.completions.create
        answer = ask(model=f"majority:n=4@600tok/{name}", messages=messages, max_tokens=100, temperature=COLD)
        report = answer.model_extra["thinktime"]
        assert report["account"]["model_calls"] == 4 and report["account"]["uncounted_calls"] == 0
        assert answer.usage.completion_tokens == report["account"]["generated_tokens"] <= 600
        greedy = {"messages": messages, "max_tokens": 100, "temperature": 0}
        whole = ask(model=f"single/{name}", **greedy).choices[0].message.content
        chunks = list(ask(model=f"single/{name}", stream=True, **greedy))
        pieces = [
            chunk.choices[0].delta.content for chunk in chunks if chunk.choices and chunk.choices[0].delta.content
        ]
        assert whole and "".join(pieces) == whole and len(pieces) > 3
        passed = ask(model=name, **greedy)
        assert passed.choices[0].message.content == whole and passed.model_extra.get("thinktime") is None
        assert chunks[-1].model_extra["thinktime"]["account"]["generated_tokens"] == passed.usage.completion_tokens


def test_methods_that_score_run_through_the_gateway_with_the_shipped_reward_model(
    url: str, reward: ProcessReward, questions: tuple[str, ...]
) -> None:
    from gateway_server import Serving

    name = only_model(url)
    with Serving(url, reward) as gateway:
        body = {"prompt": questions[0], "max_tokens": 60, "temperature": COLD}
        for method in ("best_of_n:n=3", "beam_search:n=2,width=1"):
            status, answer, _ = gateway.ask({"model": f"{method}/{name}", **body}, "completions")
            assert status == 200 and answer["choices"][0]["text"]
            assert answer["thinktime"]["account"]["scorer_calls"] > 0


@pytest.mark.parametrize("more", [{}, {"stream": True, "stream_options": {"include_usage": True}}])
@pytest.mark.parametrize(("method", "samples"), [("", 1), ("single/", 1), ("majority:n=2/", 2)])
def test_a_key_is_charged_at_least_what_the_server_writes(
    url: str,
    transformers_tokenizer: Any,
    questions: tuple[str, ...],
    method: str,
    samples: int,
    more: dict[str, Any],
) -> None:
    body = {"messages": [{"role": "user", "content": questions[0]}], "max_tokens": 30, "temperature": COLD}
    with Serving(url, **keyed(Budget(tokens=5000))) as gateway:
        client = gateway.gateway.auth.clients[0]
        name = only_model(url)
        gateway.read({**body, "model": f"single/{name}"}, **BEARER)
        spent = client.ledger.spent
        reply = gateway.read({**body, "model": f"{method}{name}", **more}, **BEARER).decode()
        charged = (client.ledger.spent - spent).generated_tokens
    lines = [line.removeprefix("data:") for line in reply.splitlines()] if more else [reply]
    events = [json.loads(line) for line in lines if line.strip().startswith("{")]
    choices = [choice for event in events for choice in event["choices"]]
    text = "".join(choice.get("message", choice.get("delta", {})).get("content") or "" for choice in choices)
    written = len(transformers_tokenizer(text, add_special_tokens=False)["input_ids"])
    assert 0 < samples * written <= charged <= samples * (written + 1)
