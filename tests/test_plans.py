"""Plans by FLOPs and eFLOPs, and solutions in arrays under reward models of known quality."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from experiments.constructed import shift
from experiments.kinetics.frontier import FLOPS, Measured, best_by_budget, cheapest, compared, frontier, savings
from experiments.kinetics.sizes import MODELS, common, runs
from experiments.reward_aware.chains import ATTRACTIVE, PROCEDURES, RIGHT, STEPS, Paths, Reward, run, success
from experiments.reward_aware.control import ARMS, best, cross_fitted
from thinktime.bench.statistics import auc

ONES = np.ones(8)


def plan(name: str, size: float, right: float, flops: float, traffic: float) -> Measured:
    return Measured(name, size, 1, 256, right * ONES, flops * ONES, traffic * ONES)


SMALL, MANY, LARGE = plan("s", 1, 0.3, 1, 1), plan("s8", 1, 0.6, 8, 8), plan("l", 8, 0.6, 10, 2)


def test_memory_traffic_turns_the_choice_from_many_samples_to_a_larger_model() -> None:
    plans, every = [SMALL, MANY, LARGE], np.arange(8)
    assert cheapest(plans, 0.5, FLOPS, every) is MANY
    assert cheapest(plans, 0.5, 1.0, every) is LARGE
    assert cheapest(plans, 0.9, 1.0, every) is None
    found = compared(plans, [0.5, 0.9], 1.0)
    assert list(found["targets"]) == ["0.5"]
    assert found["doublings_of_size"]["value"] == 3.0
    assert found["cost_of_plans_by_flops"]["value"] == pytest.approx(16 / 12)
    assert found["right_minus_plans_by_flops"]["value"] == 0


def test_frontiers_and_budgets() -> None:
    plans = [SMALL, MANY, LARGE]
    assert frontier(plans, FLOPS) == [SMALL, MANY] and frontier(plans, 1.0) == [SMALL, LARGE]
    assert [row["plan"] for row in best_by_budget(plans, 1.0, [1.0, 2.0, 12.0])] == [SMALL.label, LARGE.label]
    assert savings([LARGE], [MANY], [0.5], 1.0)["value"] == pytest.approx(16 / 12)


def test_runs_of_several_models_are_read_with_the_problems_they_share(tmp_path: Path) -> None:
    sample = [60, "7", True, True, -1.5, 0.5]
    rows = [
        {
            "name": name,
            "temperature": 0.7,
            "about": {},
            "problems": [{"id": id, "reference": "7", "prompt": 200, "samples": [sample]} for id in ids],
        }
        for name, ids in zip(reversed(MODELS), ("ab", "bca", "cab"), strict=True)
    ]
    (tmp_path / "sizes.json.gz").write_bytes(gzip.compress(json.dumps(rows).encode()))
    found = common(runs(tmp_path / "sizes.json.gz"))
    assert [run.label for run in found] == ["135M", "0.5B", "1.5B"]
    assert all([problem.id for problem in run.problems] == ["a", "b"] for run in found)
    assert found[0].problems[0].samples[0].correct and found[0].seconds["a"] == [0.5] and found[0].samples == 1


def test_a_reward_has_the_chosen_auc_and_its_errors() -> None:
    rng = np.random.default_rng(3)
    kind = rng.choice([RIGHT, ATTRACTIVE, 5], (400, 20))
    for reward, expected in (
        (Reward(0.8), 0.8),
        (Reward(0.8, fooled=1.0), None),
        (Reward(0.8, flipped=0.5), 0.5),
        (Reward(1.0), 1.0),
    ):
        scores = reward.scores(kind, rng.normal(size=kind.shape), rng)
        measured = auc(scores.ravel().tolist(), (kind == RIGHT).ravel().tolist())
        assert measured is not None
        assert measured == pytest.approx(expected, abs=0.02) if expected is not None else measured < 0.6
    assert shift(0.5) == 0


@pytest.mark.parametrize("procedure", PROCEDURES)
def test_procedures_generate_as_many_steps_and_keep_their_numbers_of_answers(procedure: str) -> None:
    rng, rate = np.random.default_rng(0), np.full(200, 0.8)
    paths, spent = run(procedure, 16, rate, Reward(0.8), rng)
    assert paths.kind.shape == (200, 16 if procedure == "best of n" else 4)
    assert paths.scores.shape == (*paths.kind.shape, STEPS)
    assert spent.mean() == pytest.approx(16 * STEPS * 16, rel=0.02)
    share = float((paths.kind == RIGHT).mean())
    assert share == pytest.approx(0.8**STEPS, abs=0.03) if procedure == "best of n" else share > 0.6


def test_rules_for_the_answer_by_hand() -> None:
    kind = np.array([[RIGHT, ATTRACTIVE, ATTRACTIVE]])
    scores = np.array([[[0.9, 0.8], [0.1, 0.95], [0.7, 0.05]]])
    found = success(Paths(kind, scores, np.zeros(kind.shape)), np.random.default_rng(0))
    assert {rule: value[0] for rule, value in found.items()} == {
        "majority": 0,
        "min max": 1,
        "min vote": 1,
        "last max": 0,
        "last vote": 0,
        "avg max": 1,
        "avg vote": 0,
    }


def test_arms_are_chosen_on_the_other_half() -> None:
    right = {arm: np.zeros(4) for arm in ARMS}
    right[ARMS[0]][::2], right[ARMS[1]][1::2] = 1.0, 1.0
    assert cross_fitted(best(right), right, np.arange(4)).tolist() == [0, 0, 0, 0]
    right[ARMS[0]][:] = 1.0
    assert cross_fitted(best(right), right, np.arange(4)).tolist() == [1, 1, 1, 1]
