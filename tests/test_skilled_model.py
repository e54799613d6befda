"""The shipped skilled model and the solver's self-evaluation, used through a search."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from statistics import fmean

import pytest

from thinktime.bench.statistics import auc
from thinktime.bench.tasks import load
from thinktime.config import Config
from thinktime.core.errors import InputError
from thinktime.core.search import Search
from thinktime.core.types import Capability, Node, Problem, Sampling, Score
from thinktime.generators.local import LocalGenerator
from thinktime.generators.text import Text
from thinktime.models.engine.tokenizer import ChatTokenizer
from thinktime.pocket import directory
from thinktime.pocket.problems import WordProblem, problems
from thinktime.pocket.prompts import PROMPTS
from thinktime.prompts.common import CHECK
from thinktime.scorers.generative_reward import GenerativeRewardModel
from thinktime.scorers.prm import ProcessReward
from thinktime.session import open_session, run
from thinktime.strategies import make, parse

SAMPLING = Sampling(max_length=400)
TASK = load("pocket", 15, split="dev")


@pytest.fixture(scope="module")
def skilled() -> LocalGenerator:
    return LocalGenerator(directory("skilled"), dtype="float64")


@pytest.fixture(scope="module")
def quick() -> LocalGenerator:
    """The model in float32, for tests that do not compare digits."""
    return LocalGenerator(directory("skilled"), dtype="float32")


def searches(generator: LocalGenerator, scorer: ProcessReward | None = None) -> list[Search]:
    """One search per problem, with the levels in turn from the easiest."""
    return [
        Search(problem, generator, scorers=scorer, answers=TASK.answers, prompts=PROMPTS, sampling=SAMPLING, seed=1)
        for problem in TASK.problems
    ]


def test_checks_are_readable_and_better_than_chance(quick: LocalGenerator) -> None:
    async def checked(search: Search) -> list[tuple[float | None, bool]]:
        found = []
        for leaf in await search.extend([search.root], 2):
            root = search.ask(CHECK, [leaf]) if leaf.done else None
            replies = await search.extend([root], 2) if root is not None else []
            verdicts = [value for reply in replies if (value := search.read(CHECK, reply)) is not None]
            right = TASK.check(TASK.answers.read(leaf.state), search.problem.reference)
            found.append((fmean(verdicts) if verdicts else None, right))
        return found

    async def everything() -> list[list[tuple[float | None, bool]]]:
        return await asyncio.gather(*(checked(search) for search in searches(quick)[:10]))

    pairs = [pair for found in asyncio.run(everything()) for pair in found]
    read = [(verdict, right) for verdict, right in pairs if verdict is not None]
    assert len(read) >= 0.9 * len(pairs)
    area = auc([verdict for verdict, _ in read], [right for _, right in read])
    assert area is not None and area > 0.6


def test_a_check_computes_only_tokens_that_the_solution_did_not(skilled: LocalGenerator) -> None:
    search = searches(skilled)[0]

    async def replies() -> tuple[Node, list[Node]]:
        (leaf,) = await search.extend([search.root])
        root = search.ask(CHECK, [leaf])
        assert root is not None
        return leaf, await search.extend([root], 2)

    leaf, (first, second) = asyncio.run(replies())
    solution, check = leaf.state, first.state
    assert check.prompt[: len(solution.prompt + solution.ids)] == solution.prompt + solution.ids
    new = len(check.prompt) - len(solution.prompt + solution.ids) + 1  # the last token of the solution was only drawn
    assert (first.usage.prompt_tokens, second.usage.prompt_tokens) == (new, 0)
    assert first.usage.cached_tokens == len(check.prompt) - new


def test_a_solution_with_unknown_words_can_still_be_checked(skilled: LocalGenerator) -> None:
    search = searches(skilled)[0]
    (leaf,) = asyncio.run(search.extend([search.root]))
    odd = replace(leaf, key="odd", state=replace(leaf.state, text="ThenThen, zebras: 7"))
    root = search.ask(CHECK, [odd])
    assert root is not None and "ThenThen, zebras: 7" in ChatTokenizer(directory("skilled")).decode(root.state.prompt)
    with pytest.raises(InputError, match="prompt='zebras': this model knows only the words of its own task"):
        skilled.root(Problem("p", "How many zebras are there?"))


def test_a_revision_is_scored_as_an_answer_to_the_problem(skilled: LocalGenerator, reward: ProcessReward) -> None:
    search = searches(skilled, reward)[0]
    answer = asyncio.run(make("revision", {"n": 4, "chains": 2})(search))
    assert answer.value is not None
    scored = [record for record in search.trace.values() if record.score is not None]
    assert len(scored) == 4 and all(search.is_answer(record.node) for record in scored)
    assert len({record.node.state.prompt for record in scored}) > 1, (
        "the prompt of a revision differs from that of the problem"
    )
    as_answers = [
        replace(record.node, state=replace(record.node.state, prompt=search.root.state.prompt)) for record in scored
    ]
    alone = asyncio.run(reward.score(search.problem, as_answers, [None] * 4))
    assert [record.score for record in scored] == pytest.approx([score.value for score in alone], abs=1e-8)


@pytest.mark.parametrize(
    "text",
    [
        "generative_verification:n=3,checks=2",
        "generative_reward",
        "self_refine:rounds=2",
        "stepwise_best_of_n:n=2",
        "plan_then_solve:n=2",
        "aggregate:n=3",
    ],
)
def test_every_strategy_with_prompts_runs_on_the_shipped_model(quick: LocalGenerator, text: str) -> None:
    async def solved() -> list[bool]:
        some = searches(quick)[:3]
        answers = await asyncio.gather(*(parse(text)[1](search) for search in some))
        return [answer.value is not None for answer in answers]

    assert sum(asyncio.run(solved())) >= 2


def test_the_generative_reward_of_right_solutions_is_above_that_of_a_wrong_answer(skilled: LocalGenerator) -> None:
    """The wrong solutions differ from the right ones only in the number of the last line."""
    scorer = GenerativeRewardModel(skilled, prompt=PROMPTS["judge"], k=4, temperature=1.0, max_tokens=200)

    async def compared(index: int, problem: WordProblem) -> Score:
        *lines, last = problem.solution.splitlines()
        wrong = re.sub(r"\d+", lambda number: str(int(number[0]) + 1), last)
        states = [Text((), text=text) for text in (problem.solution, "\n".join([*lines, wrong]))]
        nodes = [Node(f"{index}/{i}", (i,), state, finish="eos") for i, state in enumerate(states)]
        return await scorer.compare(Problem(problem.id, problem.question), nodes)

    async def everything() -> list[Score]:
        return await asyncio.gather(*(compared(i, problem) for i, problem in enumerate(problems("dev", 4))))

    found = asyncio.run(everything())
    assert all(score.value is not None and len(score.steps) == 2 for score in found)
    assert all(score.usage.scorer_tokens and score.usage.scorer_flops for score in found)
    right, wrong = zip(*(score.steps for score in found), strict=True)
    assert fmean(right) > fmean(wrong)


def test_a_config_names_the_model_as_the_judge_of_its_own_samples() -> None:
    config = Config("pocket-skilled", "generative-reward", strategy="best_of_n:n=3,by=comparison", max_tokens=200)
    problem = next(iter(problems("dev", 1)))
    search, answer = asyncio.run(run(config, Problem(problem.id, problem.question)))
    assert answer.value is not None and answer.usage.scorer_tokens > 0
    assert {role for _, role in search.meter.accounts} == {"model main", "scorer main"}
    with pytest.raises(InputError, match="n=5: the judge compares 4 candidates at most"):
        asyncio.run(run(replace(config, strategy="best_of_n:n=5,by=comparison"), Problem("p", "1 + 1")))
    with pytest.raises(InputError, match="scorer='generative-reward': this model does not answer the prompt 'judge'"):
        open_session(Config("pocket", "generative-reward"))


def test_the_self_evaluation_of_the_solver_is_no_process_reward(generator: LocalGenerator) -> None:
    evaluation = ProcessReward(directory("self_evaluation"), dtype="float64")
    assert evaluation.capabilities == {Capability.SCORES, Capability.SELF_EVALUATION}
    search = searches(generator, evaluation)[0]
    answer = asyncio.run(make("adaptive_sampling", {"n": 4, "gamma": 0.9})(search))
    assert answer.value is not None and search.events[-1]["stop"] in ("gamma", "n")
    scores = search.events[-1]["scores"]
    assert len(scores) == search.events[-1]["samples"] and all(0 < score < 1 for score in scores)


def test_a_reward_model_with_step_end_only_offers_no_rewards_in_mid_step(reward: ProcessReward, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(directory("reward"), tmp_path / "reward"))
    config = json.loads((copy / "config.json").read_text()) | {"step_end_only": True}
    (copy / "config.json").write_text(json.dumps(config))
    assert ProcessReward(copy).capabilities == reward.capabilities - {Capability.PARTIAL_REWARD}
