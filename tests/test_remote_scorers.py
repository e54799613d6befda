"""Scorers behind HTTP: a judge by prompt, reward models in vLLM's wire format, and our own server."""

from __future__ import annotations

import asyncio
import json
import math
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Coroutine, Iterator
from contextlib import ExitStack
from typing import Any, TypeVar

import pytest
from fake_endpoint import FakeEndpoint, Running
from waiting import PATIENCE

from thinktime.answers import TextAnswers
from thinktime.core.context import Document
from thinktime.core.errors import CapabilityError, InputError, ModelError, UnknownNameError
from thinktime.core.search import Search
from thinktime.core.types import Capability, Node, Problem, Sampling
from thinktime.core.usage import Budget, total
from thinktime.generators.local import LocalGenerator
from thinktime.generators.openai import RemoteGenerator
from thinktime.generators.text import RemoteText
from thinktime.models.remote import client as client_module
from thinktime.models.remote.prices import Price
from thinktime.scorers.judge import Judge
from thinktime.scorers.pooling import RemoteReward
from thinktime.scorers.prm import ProcessReward
from thinktime.scorers.untrained import UntrainedSelfEvaluation
from thinktime.strategies import check, make
from thinktime.testing import MemoryJournal

Result = TypeVar("Result")
Start = Callable[..., FakeEndpoint]
QUESTION = "what is 3 + 4"
PROBLEM = Problem("sum", QUESTION)
SAID = "so 3 well\nso 4\nThe answer is 7"


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts endpoints with the given behaviour."""
    with ExitStack() as running:
        yield lambda **behaviour: running.enter_context(Running(**behaviour))


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "FIRST_WAIT", 0.01)


def run(scorer: Judge | RemoteReward, coroutine: Coroutine[Any, Any, Result]) -> Result:
    async def closing() -> Result:
        try:
            return await coroutine
        finally:
            await scorer.close()

    return asyncio.run(closing())


def judge_on(endpoint: FakeEndpoint, *, price: Price | None = None, **options: Any) -> Judge:
    """A judge that has probed its endpoint; the requests of the probe are forgotten."""
    generator = RemoteGenerator(endpoint.url, "words", price=price)
    assert generator.traits
    endpoint.requests.clear()
    endpoint.prompt_tokens = endpoint.generated_tokens = 0
    return Judge(generator, **options)


def reward_on(endpoint: FakeEndpoint, call: str = "pooling", **options: Any) -> RemoteReward:
    scorer = RemoteReward(f"http://127.0.0.1:{endpoint.port}/{call}", "words", **options)
    assert scorer.style
    endpoint.requests.clear()
    endpoint.prompt_tokens = 0
    return scorer


def solution(text: str = SAID, finish: Any = "eos", key: str = "a") -> Node:
    ends = [index + 1 for index, letter in enumerate(text) if letter == "\n"]
    ends += [] if text.endswith("\n") or not text else [len(text)]
    messages = json.dumps([{"role": "user", "content": QUESTION}])
    return Node(key, (0,), RemoteText(messages, text, 9, tuple(ends), chat=True), finish=finish)


# the judge


@pytest.mark.parametrize(
    ("reply", "grade"),
    [
        ("7", 6 / 9),
        ("Step 2 is wrong.\nGrade: 1", 0.0),
        ("Not 3 but rather 10.", 1.0),
        ("8/10", 7 / 9),
        ("8 out of 10", 7 / 9),
        ("7.5", None),
        ("-3", None),
        ("11", None),
        ("v2", None),
        ("", None),
    ],
)
def test_the_last_grade_of_the_closed_set_counts(start: Start, reply: str, grade: float | None) -> None:
    assert judge_on(start()).grade(reply) == grade


def test_grades_can_be_words_from_the_worst_to_the_best(start: Start) -> None:
    judge = judge_on(start(), grades=("wrong", "unsure", "right"))
    assert [judge.grade(reply) for reply in ("Not wrong: RIGHT.", "unsure", "wrongly")] == [1.0, 0.5, None]


def test_the_judge_sees_the_question_and_the_solution(start: Start) -> None:
    endpoint = start()
    judge = judge_on(endpoint, template="Q {question} A {solution} out of {grades}", grades=("no", "yes"))
    run(judge, judge.score(PROBLEM, [solution()]))
    (message,) = endpoint.requests[0]["messages"]
    assert message == {"role": "user", "content": f"Q {QUESTION} A {SAID} out of no, yes"}


def test_the_judge_sees_the_question_of_a_local_model(
    start: Start, generator: LocalGenerator, questions: tuple[str, ...]
) -> None:
    endpoint = start()
    judge = judge_on(endpoint)

    async def judged() -> None:
        search = Search(Problem("q", questions[0]), generator, sampling=Sampling(max_length=20))
        await judge.score(search.problem, await search.extend([search.root], until="step"))

    run(judge, judged())
    assert questions[0] in endpoint.requests[0]["messages"][0]["content"]


@pytest.mark.parametrize("call", ["", "pooling", "score"])
def test_a_scorer_is_shown_the_context_of_the_problem(start: Start, call: str) -> None:
    endpoint = start()
    scorer: Judge | RemoteReward = reward_on(endpoint, call) if call else judge_on(endpoint)
    problem = Problem("sum", QUESTION, context=(Document("notes", "4 means 5 here"),))
    run(scorer, scorer.score(problem, [solution()]))
    asked = json.dumps(endpoint.requests[0])
    assert "4 means 5 here" in asked and asked.index("4 means 5 here") < asked.index(QUESTION)


def test_a_score_is_the_mean_of_its_samples_and_costs_what_the_endpoint_counts(start: Start) -> None:
    endpoint = start()
    judge = judge_on(endpoint, samples=4, price=Price(2, 8))
    endpoint.replies.extend(["Grade 1", "Grade 10", "Grade 10", "Grade 4"])
    (score,) = run(judge, judge.score(PROBLEM, [solution()]))
    assert score.value == pytest.approx((0 + 1 + 1 + 3 / 9) / 4)
    assert [body["n"] for body in endpoint.requests] == [4]
    spent = score.usage
    assert spent.scorer_tokens == endpoint.prompt_tokens + endpoint.generated_tokens
    assert spent.dollars == pytest.approx((2 * endpoint.prompt_tokens + 8 * endpoint.generated_tokens) / 1e6)
    assert (spent.scorer_calls, spent.model_calls, spent.generated_tokens, spent.scorer_flops) == (1, 0, 0, None)


def test_a_reply_without_a_grade_is_sampled_again_at_a_higher_temperature_up_to_the_limit(start: Start) -> None:
    endpoint = start()
    judge = judge_on(endpoint, retries=2)
    endpoint.replies.extend(["no idea", "good", "Grade 4"])
    (score,) = run(judge, judge.score(PROBLEM, [solution()]))
    assert score.value == pytest.approx(3 / 9) and len(endpoint.requests) == 3
    assert [body["temperature"] for body in endpoint.requests] == [0.0, 1.0, 1.0]
    assert score.usage.scorer_tokens == endpoint.prompt_tokens + endpoint.generated_tokens


def test_a_missing_grade_is_a_missing_score_and_not_the_worst_grade(start: Start) -> None:
    endpoint = start()
    judge = judge_on(endpoint, retries=1, samples=2)
    endpoint.replies.extend(["no idea"] * 4)
    (score,) = run(judge, judge.score(PROBLEM, [solution()]))
    assert (score.value, score.reason) == (None, "") and len(endpoint.requests) == 2
    endpoint.replies.extend(["Grade 10", "no idea", "no idea"])
    (score,) = run(judge, judge.score(PROBLEM, [solution()]))
    assert score.value == 1.0


def test_a_grade_in_thoughts_that_were_cut_off_does_not_count(start: Start) -> None:
    endpoint = start()
    judge = judge_on(endpoint, max_tokens=3, retries=0)
    endpoint.replies.append("maybe 3 but then again it may be right: 9")
    (score,) = run(judge, judge.score(PROBLEM, [solution()]))
    assert score.value is None


def test_a_judge_without_usage_is_charged_its_worst_case(start: Start) -> None:
    endpoint = start(usage=False, logprobs=False)
    judge = judge_on(endpoint, max_tokens=50)
    endpoint.replies.append("Grade 4")
    (score,) = run(judge, judge.score(PROBLEM, [solution()]))
    assert score.usage.uncounted_calls == 1
    assert score.usage.scorer_tokens >= endpoint.prompt_tokens + 50


@pytest.mark.parametrize("fault", ["garbage", "no usage", "no text", "500", "429", "cut"])
def test_a_budget_in_dollars_holds_for_generator_and_judge_under_faults(start: Start, fault: str) -> None:
    there, endpoint = start(n="ignored"), start(n="ignored")
    generator = RemoteGenerator(there.url, "words", price=Price(1, 10))
    assert generator.traits
    there.prompt_tokens = there.generated_tokens = 0
    judge = judge_on(endpoint, price=Price(1, 10), samples=2)
    endpoint.faults.extend(["", fault] * 40)
    budget = Budget(dollars=0.03)
    search = Search(
        PROBLEM,
        generator,
        scorers=judge,
        answers=TextAnswers(),
        sampling=Sampling(max_length=64),
        budget=budget,
    )

    async def solve() -> None:
        await make("best_of_n", {"n": 8})(search)
        await generator.close()

    run(judge, solve())
    paid = sum(end.prompt_tokens + 10 * end.generated_tokens for end in (there, endpoint)) / 1e6
    spent = search.ledger.spent.dollars
    assert spent is not None and paid <= spent + 1e-12 and spent <= 0.03 and search.ledger.spent.scorer_calls > 0


def searching(start: Start, judge: Judge, **options: Any) -> Search:
    generator = RemoteGenerator(start().url, "words")
    options = {"scorers": judge, "answers": TextAnswers(), "sampling": Sampling(max_length=64), **options}
    return Search(PROBLEM, generator, **options)


def test_a_failed_score_costs_one_score_and_a_later_run_requests_it_again(start: Start) -> None:
    endpoint, journal = start(n="ignored"), MemoryJournal()
    judge = judge_on(endpoint, retries=0)
    endpoint.faults.extend(["", "garbage"])
    search = searching(start, judge, journal=journal)
    answer = run(judge, make("best_of_n", {"n": 4})(search))
    assert answer.value is not None and len(search.failed_scores()) == 1
    assert sorted(record.score is None for record in search.trace.values() if record.node.done) == [False] * 3 + [True]
    endpoint.requests.clear()
    again = Search(
        search.problem,
        search.generator,
        scorers=judge,
        answers=TextAnswers(),
        sampling=search.sampling,
        journal=journal,
    )
    run(judge, make("best_of_n", {"n": 4})(again))
    assert len(endpoint.requests) == 1 and again.failed_scores() == []


def test_a_judge_that_never_answers_is_an_error_and_not_an_unjudged_answer(start: Start) -> None:
    endpoint = start(n="ignored")
    judge = judge_on(endpoint, retries=0)
    endpoint.faults.extend(["garbage"] * 99)
    with pytest.raises(ModelError, match="not a JSON object"):
        run(judge, make("best_of_n", {"n": 4})(searching(start, judge)))


def test_a_solution_longer_than_the_judges_context_has_no_score(start: Start) -> None:
    endpoint = start(context=120)
    judge = judge_on(endpoint, template="{question} {solution}", max_tokens=20)
    endpoint.replies.append("Grade 4")
    short, long = run(judge, judge.score(PROBLEM, [solution("7"), solution("so " * 200, key="b")]))
    assert short.value == pytest.approx(3 / 9)
    assert long.value is None and "maximum context length" in long.reason


def test_a_judge_gives_no_step_scores_and_a_search_that_needs_them_is_refused(start: Start) -> None:
    judge = judge_on(start())
    assert judge.capabilities == {Capability.SCORES}
    search = searching(start, judge)
    with pytest.raises(CapabilityError, match="process rewards"):
        check("beam_search", make("beam_search", {}), search)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"template": "grade {solution}"}, "template="),
        ({"template": "{question} {solution} {mood}"}, "template="),
        ({"template": "{question} {solution} {"}, "template="),
        ({"grades": ("1",)}, "grades="),
        ({"grades": ("1", "1")}, "grades="),
        ({"grades": ("yes", "Yes")}, "grades="),
        ({"grades": ("1", " ")}, "grades="),
        ({"samples": 0}, "samples=0"),
        ({"retries": -1}, "retries=-1"),
        ({"samples": 2, "temperature": 0.0}, "temperature=0"),
        ({"max_tokens": 0}, "max_tokens=0"),
    ],
)
def test_a_judge_that_cannot_work_is_refused_at_once(options: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says) as caught:
        Judge(RemoteGenerator("http://127.0.0.1:9/v1", "words"), **options)
    assert "\n" not in str(caught.value)


def test_judges_with_other_settings_have_other_names() -> None:
    generator = RemoteGenerator("http://127.0.0.1:9/v1", "words")
    judges = [Judge(generator), Judge(generator, samples=2), Judge(generator, template="{question} {solution}")]
    assert len({judge.name for judge in judges}) == 3


# self-evaluation by prompting


def chances(**words: float) -> list[dict[str, Any]]:
    return [{"token": word.replace("_", " "), "logprob": math.log(chance)} for word, chance in words.items()]


def self_evaluation_on(endpoint: FakeEndpoint) -> UntrainedSelfEvaluation:
    generator = RemoteGenerator(endpoint.url, "words")
    assert generator.traits
    endpoint.requests.clear()
    return UntrainedSelfEvaluation(generator)


def test_self_evaluation_is_the_probability_of_no_normalised_to_yes_and_no_in_any_spelling(start: Start) -> None:
    endpoint = start(candidates=chances(Yes=0.2, _no=0.1, NO=0.5, Maybe=0.1))
    evaluation = self_evaluation_on(endpoint)
    (score,) = run(evaluation, evaluation.score(PROBLEM, [solution()]))
    assert score.value == pytest.approx(0.6 / 0.8)
    (request,) = endpoint.requests
    assert (request["max_tokens"], request["logprobs"], request["top_logprobs"]) == (1, True, 20)
    assert QUESTION in request["messages"][0]["content"] and SAID in request["messages"][0]["content"]
    assert evaluation.name.startswith("untrained self-evaluation, ")


@pytest.mark.parametrize("candidates", [[], chances(Maybe=0.9)])
def test_a_reply_that_is_neither_yes_nor_no_is_a_missing_evaluation(
    start: Start, candidates: list[dict[str, Any]]
) -> None:
    evaluation = self_evaluation_on(start(candidates=candidates))
    (score,) = run(evaluation, evaluation.score(PROBLEM, [solution()]))
    assert score.value is None and score.usage.scorer_calls == 1


def test_an_endpoint_without_log_probabilities_is_refused(start: Start) -> None:
    says = "self-evaluation needs log-probabilities of the first answer token; this endpoint returned none"
    with pytest.raises(InputError, match=says):
        self_evaluation_on(start(logprobs=False))


def test_adaptive_sampling_runs_on_self_evaluation_by_prompting(start: Start) -> None:
    endpoint = start(candidates=chances(Yes=0.02, No=0.9))
    evaluation = self_evaluation_on(endpoint)
    search = searching(start, evaluation)
    answer = run(evaluation, make("adaptive_sampling", {"n": 8, "anneal": "constant"})(search))
    assert answer.value is not None and search.events[-1]["stop"] == "gamma" and search.events[-1]["samples"] == 1


# reward models


@pytest.mark.parametrize(
    ("rewards", "call", "style", "steps"),
    [
        ("lines", "pooling", "lines", True),
        ("tags", "pooling", "tags", True),
        ("tokens", "pooling", "whole", False),
        ("one", "pooling", "whole", False),
        ("lines", "classify", "whole", False),
        ("lines", "score", "whole", False),
    ],
)
def test_the_probe_finds_the_position_of_rewards_and_step_scores_depend_on_it(
    start: Start, rewards: str, call: str, style: str, steps: bool
) -> None:
    scorer = reward_on(start(rewards=rewards), call)
    assert scorer.style == style
    by_step = {Capability.PROCESS_REWARD, Capability.PARTIAL_REWARD} if steps else set()
    assert scorer.capabilities == {Capability.SCORES} | by_step


def test_the_probe_is_two_short_requests_that_run_once_and_late(start: Start) -> None:
    endpoint = start(rewards="tags")
    scorer = RemoteReward(f"http://127.0.0.1:{endpoint.port}/pooling", "words")
    assert endpoint.requests == []
    assert (scorer.style, scorer.style) == ("tags", "tags") and len(endpoint.requests) == 2


@pytest.mark.parametrize(("aggregate", "value"), [("last", 0.031), ("min", 0.01), ("mean", (0.01 + 0.015 + 0.031) / 3)])
def test_step_rewards_become_one_score(start: Start, aggregate: str, value: float) -> None:
    endpoint = start(rewards="lines")
    scorer = reward_on(endpoint, aggregate=aggregate)
    (score,) = run(scorer, scorer.score(PROBLEM, [solution(SAID + "\n")]))
    assert score.steps == pytest.approx((0.01, 0.015, 0.031)) and score.value == pytest.approx(value)
    assert endpoint.requests[0]["messages"][-1] == {"role": "assistant", "content": SAID + "\n"}
    assert endpoint.requests[0]["continue_final_message"] is False
    assert score.usage.scorer_tokens == endpoint.prompt_tokens and score.usage.uncounted_calls == 0


def test_steps_are_joined_by_the_tag_if_rewards_are_at_tags(start: Start) -> None:
    endpoint = start(rewards="tags")
    scorer = reward_on(endpoint)
    (score,) = run(scorer, scorer.score(PROBLEM, [solution(finish="step")]))
    tagged = "so 3 well<extra_0>so 4<extra_0>The answer is 7<extra_0>"
    assert endpoint.requests[0]["messages"][-1]["content"] == tagged and len(score.steps) == 3
    assert endpoint.requests[0]["continue_final_message"] is True


@pytest.mark.parametrize("call", ["pooling", "classify", "score"])
def test_an_outcome_reward_is_one_number_without_steps(start: Start, call: str) -> None:
    scorer = reward_on(start(rewards="one"), call)
    (score,) = run(scorer, scorer.score(PROBLEM, [solution()]))
    assert score.value == pytest.approx(0.03) and score.steps == ()


def test_a_pair_scorer_is_sent_question_and_solution(start: Start) -> None:
    endpoint = start()
    scorer = reward_on(endpoint, "score")
    (score,) = run(scorer, scorer.score(PROBLEM, [solution()]))
    assert endpoint.requests == [{"model": "words", "text_1": QUESTION, "text_2": SAID}]
    assert score.usage.scorer_tokens == 5


def test_rewards_that_do_not_fit_the_steps_are_a_missing_score_with_a_reason(start: Start) -> None:
    scorer = reward_on(start(rewards="lines"))
    (score,) = run(scorer, scorer.score(PROBLEM, [solution()]))
    assert score.value is None and "2 rewards for 3 steps" in score.reason


def test_a_node_without_text_has_no_score_and_sends_no_request(start: Start) -> None:
    endpoint = start()
    scorer = reward_on(endpoint)
    (score,) = run(scorer, scorer.score(PROBLEM, [solution("")]))
    assert score.value is None and endpoint.requests == []


def test_the_label_of_the_reward_can_be_given(start: Start) -> None:
    scorer = reward_on(start(rewards="one"), label=0)
    (score,) = run(scorer, scorer.score(PROBLEM, [solution()]))
    assert score.value == pytest.approx(0.97)
    wrong = reward_on(start(rewards="one"), label=2)
    with pytest.raises(InputError, match="label=2"):
        run(wrong, wrong.score(PROBLEM, [solution()]))


@pytest.mark.parametrize("fault", ["garbage", "no usage", "429", "500"])
def test_a_fault_of_a_reward_model_costs_at_most_one_score_and_is_counted(start: Start, fault: str) -> None:
    endpoint = start()
    scorer = reward_on(endpoint, price=Price(1, 1), parameters=1e9)
    endpoint.faults.extend(["", fault])
    nodes = [solution(SAID + "\n", key=str(index)) for index in range(4)]
    scores = run(scorer, scorer.score(PROBLEM, nodes))
    missing = [score for score in scores if score.value is None]
    assert len(missing) == (1 if fault == "garbage" else 0)
    spent = total(score.usage for score in scores)
    assert spent.uncounted_calls == (1 if fault in ("garbage", "no usage") else 0)
    assert spent.scorer_calls == 4 and spent.scorer_tokens >= endpoint.prompt_tokens
    assert spent.scorer_flops == 2e9 * spent.scorer_tokens
    assert spent.dollars == pytest.approx(spent.scorer_tokens / 1e6)
    assert spent.scorer_tokens <= sum(scorer.worst_case(PROBLEM, node).scorer_tokens for node in nodes)


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("http://127.0.0.1:8000/v1", "/pooling"),
        ("127.0.0.1:8000/pooling", "/pooling"),
        ("http://me:secret@host/pooling", "api_key"),
    ],
)
def test_a_url_that_names_no_reward_call_is_refused_at_once(url: str, says: str) -> None:
    with pytest.raises(InputError, match=says) as caught:
        RemoteReward(url, "words")
    assert "secret" not in str(caught.value)


def test_refusals_of_a_reward_model_name_what_to_change(start: Start) -> None:
    url = f"http://127.0.0.1:{start(key='secret-1').port}/pooling"
    with pytest.raises(InputError, match="THINKTIME_SCORER_API_KEY"):
        assert RemoteReward(url, "words").style
    with pytest.raises(InputError, match="does not exist"):
        assert RemoteReward(url, "word", "secret-1").style
    with pytest.raises(ModelError, match="cannot be reached"):
        assert RemoteReward("http://127.0.0.1:9/pooling", "words").style
    with pytest.raises(UnknownNameError, match="aggregate"):
        RemoteReward(url, "words", aggregate="most")


# our own server


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    for needed in ("uvicorn", "starlette"):
        pytest.importorskip(needed)
    command = [sys.executable, "-m", "thinktime", "score-server", "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
    finally:
        process.terminate()
        process.wait(PATIENCE)


def test_the_server_returns_the_rewards_of_the_local_model_digit_for_digit(
    server: str, generator: LocalGenerator, reward: ProcessReward, questions: tuple[str, ...]
) -> None:
    remote = RemoteReward(server, "reward")
    assert Capability.PROCESS_REWARD in remote.capabilities

    async def sampled(question: str) -> tuple[Search, list[Node]]:
        search = Search(Problem("q", question), generator, sampling=Sampling(max_length=200))
        nodes = await search.extend([search.root], 2) + await search.extend([search.root], 2, until="step")
        return search, nodes + await search.extend([search.root], at_most=7)

    async def both(search: Search, nodes: list[Node]) -> None:
        here, there = (
            await reward.score(search.problem, nodes, [None] * len(nodes)),
            await remote.score(search.problem, nodes),
        )
        assert [(r.value, r.steps, r.usage.scorer_tokens) for r in here] == [
            (r.value, r.steps, r.usage.scorer_tokens) for r in there
        ]
        for node, score in zip(nodes, there, strict=True):
            assert score.usage.scorer_tokens <= remote.worst_case(search.problem, node).scorer_tokens

    async def all_of_them() -> None:
        for search, nodes in await asyncio.gather(*map(sampled, questions[:5])):
            await both(search, nodes)

    run_all: Coroutine[Any, Any, None] = all_of_them()
    run(remote, run_all)


def test_a_beam_search_by_the_server_equals_the_one_by_the_local_model(
    server: str, generator: LocalGenerator, reward: ProcessReward, questions: tuple[str, ...]
) -> None:
    remote = RemoteReward(server, "reward")

    async def solve(scorer: ProcessReward | RemoteReward) -> tuple[str | None, list[float | None]]:
        search = Search(
            Problem("q", questions[1]),
            generator,
            scorers=scorer,
            answers=TextAnswers(),
            sampling=Sampling(max_length=200),
        )
        answer = await make("beam_search", {"n": 4, "width": 2})(search)
        return answer.value, [record.score for record in search.trace.values()]

    async def both() -> tuple[object, object]:
        return await solve(reward), await solve(remote)

    here, there = run(remote, both())
    assert here == there


def posted(url: str, body: bytes) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, body), timeout=PATIENCE) as reply:
            return reply.status, reply.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())["error"]["message"]


ASKED = {"role": "user", "content": "1 + 1"}
ANSWERED = {"role": "assistant", "content": "2"}


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        (b"{", 400, "body="),
        (b"[" * 100_000, 400, "body="),
        (b"[1]", 400, "body="),
        ({"model": "other"}, 404, "there is 'reward'"),
        ({"task": "embed"}, 400, "task='embed'"),
        ({}, 400, "messages="),
        ({"messages": "hello"}, 400, "messages="),
        ({"messages": [1, 2]}, 400, "messages="),
        ({"messages": [ASKED]}, 400, "messages=1"),
        ({"messages": [ASKED, ASKED]}, 400, "messages=2"),
        ({"messages": [ASKED, {"role": "assistant", "content": ""}]}, 400, "messages=2"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}, ANSWERED]}, 400, "messages="),
        ({"messages": [{"role": "user", "content": "quantum"}, ANSWERED]}, 400, "quantum"),
        ({"messages": [ASKED, {"role": "assistant", "content": "1 " * 5000}]}, 400, "tokens"),
        (b" " * (2 << 20), 413, "longer than"),
    ],
)
def test_the_server_refuses_a_bad_request_in_one_line(server: str, body: Any, status: int, says: str) -> None:
    code, message = posted(server, body if isinstance(body, bytes) else json.dumps(body).encode())
    assert code == status and says in message and "\n" not in message
    good = json.dumps({"messages": [ASKED, ANSWERED]}).encode()
    assert posted(server, good)[0] == 200


def test_the_server_lists_its_model_and_reports_its_health(server: str) -> None:
    root = server.removesuffix("/pooling")
    with urllib.request.urlopen(f"{root}/v1/models", timeout=PATIENCE) as reply:
        assert [model["id"] for model in json.load(reply)["data"]] == ["reward"]
    with urllib.request.urlopen(f"{root}/health", timeout=PATIENCE) as reply:
        assert reply.status == 200
