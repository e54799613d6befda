"""The number of tokens after which a step can be judged: by hand, and with the shipped reward model."""

from __future__ import annotations

import asyncio

import pytest
from toy import extend

from thinktime.bench.tasks import load
from thinktime.core.search import Search
from thinktime.core.types import Node, Sampling
from thinktime.generators.local import LocalGenerator
from thinktime.planning.rejection import Steps, least_tau, partial, read_along, recall
from thinktime.scorers.prm import ProcessReward
from thinktime.session import Session

SAMPLING = Sampling(max_length=300)


def steps(*rewards: tuple[float, ...]) -> Steps:
    return {Node(str(index), (index,), None): row for index, row in enumerate(rewards)}


FOUR = steps((0.1, 0.2, 0.9, 0.9), (0.9, 0.1, 0.1), (0.5, 0.5, 0.5, 0.8), (0.2, 0.3))
"""The best two are the first and the third. After one token, the second and the third have the best rewards."""


def test_a_step_shorter_than_tau_is_judged_whole() -> None:
    assert partial(FOUR, 1) == [0.1, 0.9, 0.5, 0.2]
    assert partial(FOUR, 3) == [0.9, 0.1, 0.5, 0.3]


def test_recall_is_the_kept_share_of_the_best_steps_and_ties_go_to_the_first() -> None:
    assert recall(partial(FOUR, 1), partial(FOUR, 4), 0.5) == 0.5
    assert recall([0.5, 0.5, 0.1], [0.1, 0.5, 0.5], 1 / 3) == 0
    assert recall([0.5, 0.5, 0.1], [0.5, 0.5, 0.5], 1 / 3) == 1


def test_tau_is_the_least_that_keeps_nine_tenths_of_the_best() -> None:
    """After 2 tokens the third and the fourth have the best rewards; after 4 tokens all steps are whole."""
    longer = steps(*[(*row, row[-1]) for row in FOUR.values()])
    assert least_tau([longer], 0.5) == (4, 1)
    tau, kept = least_tau([longer] + [steps((0.5, 0.5, 0.5))] * 9, 0.5)
    assert tau == 2 and kept == pytest.approx(0.95)


def test_if_early_rewards_carry_no_information_no_step_is_rejected_early() -> None:
    late = [steps(*[(1 - index / 4, 0.5, 0.5, 0.5, index / 4) for index in range(4)])]
    assert least_tau(late, 0.25) == (5, 1)


def test_the_reward_inside_a_step_equals_that_of_the_step_cut_at_this_token(
    generator: LocalGenerator, reward: ProcessReward
) -> None:
    problem = load("pocket", 1, levels=[3], split="dev").problems[0]
    search = Search(problem, generator, scorers=reward, sampling=SAMPLING)
    (first,) = extend(search, [search.root], until="step")
    (second,) = extend(search, [first], until="step")
    (cut,) = extend(search, [first], until="step", at_most=3)
    along, along_cut = asyncio.run(reward.token_rewards(problem, [second, cut]))
    whole, short = (score.value for score in asyncio.run(reward.score(problem, [second, cut], [None, None])))
    assert len(along) == second.usage.generated_tokens and along[-1] == pytest.approx(whole, abs=1e-8)
    assert len(along_cut) == 3 and along_cut[-1] == pytest.approx(short, abs=1e-8)


def test_a_calibration_reads_steps_of_each_problem_at_several_depths(
    generator: LocalGenerator, reward: ProcessReward
) -> None:
    found = asyncio.run(
        read_along(load("pocket", 3, split="dev"), Session({"main": generator}, sampling=SAMPLING), reward)
    )
    assert [{node.depth for node in steps} for steps in found] == [{1}, {2}, {3}]
    assert all(len(steps) == 16 for steps in found)
    assert 1 <= least_tau(found, 0.25)[0] < 60
