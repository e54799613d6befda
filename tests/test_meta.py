"""The meta reward of judgements: its value, its cost, the judge that it belongs to, and its training."""

from __future__ import annotations

import asyncio
import json
import math
import shutil
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
import torch

from thinktime.core.errors import InputError
from thinktime.core.search import Search
from thinktime.core.types import Capability, Node, Problem, Sampling
from thinktime.core.usage import Budget
from thinktime.generators.local import LocalGenerator
from thinktime.generators.text import Text
from thinktime.models.engine.costs import forward_flops
from thinktime.models.engine.llama import Llama, LlamaConfig
from thinktime.pocket.prompts import PROMPTS
from thinktime.prompts.common import JUDGE
from thinktime.scorers.meta import MetaReward
from thinktime.scorers.prm import ProcessReward
from training.meta import JudgedProblem, fit, is_right, measure

HIDDEN = 16
PROBLEM = Problem("p", "what is 3 + 4")
Result = TypeVar("Result")


def run(coroutine: Coroutine[Any, Any, Result]) -> Result:
    return asyncio.run(coroutine)


@pytest.fixture(scope="module")
def judge_directory(tmp_path_factory: pytest.TempPathFactory, solver_directory: Path) -> Path:
    """A random model of two layers with the pocket tokenizer."""
    path = tmp_path_factory.mktemp("judge")
    torch.manual_seed(0)
    config = LlamaConfig(500, HIDDEN, 16, 2, 2, 2, 8, max_position_embeddings=512, tie_word_embeddings=False)
    Llama(config).save(path, torch.float32)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(solver_directory / name, path / name)
    return path


@pytest.fixture(scope="module")
def judge(judge_directory: Path) -> LocalGenerator:
    return LocalGenerator(judge_directory, dtype="float64")


def head(path: Path, judge: LocalGenerator, **changes: Any) -> Path:
    """A ``meta.json`` whose weights count up from 0."""
    content = {"fingerprint": judge.weights, "weights": [i / 10 for i in range(HIDDEN)], "bias": 0.5} | changes
    file = path / "meta.json"
    file.write_text(json.dumps({name: value for name, value in content.items() if value is not None}))
    return file


def placed(prompt: tuple[int, ...], ids: tuple[int, ...], key: str = "f") -> Node:
    return Node(key, (0,), Text(prompt, ids), finish="eos")


JUDGEMENTS = [placed((7, 8, 9), (20, 21, 22), "a"), placed((7, 8, 9), (30,), "b"), placed((5, 6), (40, 41, 42), "c")]


def last_state(directory: Path, ids: tuple[int, ...]) -> list[float]:
    """The state after the last layer and before the last norm, by a plain forward pass."""
    from thinktime.models.engine.llama import causal

    model = Llama.load(directory, torch.float64).model
    with torch.inference_mode():
        x = model.embed_tokens(torch.tensor(ids))
        cos, sin = model.rotations(torch.arange(len(ids)), x.dtype)
        for index, layer in enumerate(model.layers):
            x = layer(x, cos, sin, causal, index)
    return [float(value) for value in x[-1]]


def test_a_reward_is_the_logistic_of_the_last_layer_at_the_last_token(
    judge: LocalGenerator, judge_directory: Path, tmp_path: Path
) -> None:
    scores = run(MetaReward(judge, head(tmp_path, judge)).score(PROBLEM, JUDGEMENTS, [None] * len(JUDGEMENTS)))
    for node, score in zip(JUDGEMENTS, scores, strict=True):
        state = last_state(judge_directory, node.state.prompt + node.state.ids)
        logit = 0.5 + sum(i / 10 * x for i, x in enumerate(state))
        assert score.value == pytest.approx(1 / (1 + math.exp(-logit)), rel=1e-5)
    assert len({score.value for score in scores}) == 3


def test_extreme_values_give_0_or_1_without_overflow(judge: LocalGenerator, tmp_path: Path) -> None:
    values = [
        run(MetaReward(judge, head(tmp_path, judge, bias=bias)).score(PROBLEM, JUDGEMENTS[:1], [None]))[0].value
        for bias in (-1e6, 1e6)
    ]
    assert values == pytest.approx([0, 1])


def test_a_score_is_charged_its_one_new_token_to_the_scorer(judge: LocalGenerator, tmp_path: Path) -> None:
    meta = MetaReward(judge, head(tmp_path, judge))
    (score,) = run(meta.score(PROBLEM, JUDGEMENTS[:1], [None]))
    usage = score.usage
    assert usage.scorer_flops == forward_flops(judge.model.shape, 1, 5)
    assert (usage.scorer_tokens, usage.scorer_calls, usage.generated_tokens, usage.flops) == (1, 1, 0, 0.0)
    assert meta.worst_case(PROBLEM, JUDGEMENTS[0], None).scorer_flops == usage.scorer_flops


def test_an_empty_judgement_has_no_reward(judge: LocalGenerator, tmp_path: Path) -> None:
    scores = run(
        MetaReward(judge, head(tmp_path, judge)).score(PROBLEM, [placed((7, 8), ()), JUDGEMENTS[1]], [None, None])
    )
    assert [score.value is None for score in scores] == [True, False]


def test_a_search_offers_it_beside_its_prompts(
    judge: LocalGenerator, tmp_path: Path, questions: tuple[str, ...]
) -> None:
    search = Search(
        Problem("p", questions[0]),
        judge,
        scorers=MetaReward(judge, head(tmp_path, judge)),
        prompts=PROMPTS,
        sampling=Sampling(max_length=8),
        budget=Budget(flops=1e12),
    )
    assert search.capabilities >= {Capability.META_REWARD, JUDGE.capability}
    assert Capability.SCORES not in search.capabilities  # it judges judgements, and no solution


def test_another_judge_is_refused_by_name(judge: LocalGenerator, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=rf"made for the judge 0123, this is {judge.weights}; make one"):
        MetaReward(judge, head(tmp_path, judge, fingerprint="0123"))


@pytest.mark.parametrize("missing", ["fingerprint", "weights", "bias"])
def test_a_head_that_lacks_a_part_is_refused_in_one_line(judge: LocalGenerator, tmp_path: Path, missing: str) -> None:
    with pytest.raises(InputError, match=rf"^meta_reward=.*cannot read it.*{missing}.*training\.meta$"):
        MetaReward(judge, head(tmp_path, judge, **{missing: None}))


def test_a_head_that_is_not_there_is_refused_in_one_line(judge: LocalGenerator, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot read it as a meta reward"):
        MetaReward(judge, tmp_path / "nowhere.json")
    (tmp_path / "list.json").write_text("[1]")
    with pytest.raises(InputError, match="cannot read it as a meta reward"):
        MetaReward(judge, tmp_path / "list.json")


def test_another_head_is_banked_under_another_name(judge: LocalGenerator, tmp_path: Path) -> None:
    names = {MetaReward(judge, head(tmp_path, judge, bias=bias)).name for bias in (0.1, 0.2, 0.1)}
    assert len(names) == 2


# Training


def test_a_judgement_is_right_if_every_right_answer_is_above_every_wrong_one() -> None:
    assert is_right([9, 3, 4], [True, False, False])
    assert is_right([5, 9, 4], [True, True, False])
    assert not is_right([9, 3, 9], [True, False, False])
    assert not is_right([9, 3, 4], [True, True, False])


def test_the_regression_finds_the_direction_and_the_threshold() -> None:
    rng = np.random.default_rng(0)
    states = rng.normal(3.0, 2.0, (400, 5))
    right = (states[:, 2] > 4).astype(np.float64)
    weights, bias = fit(states, right)
    assert abs(weights[2]) > 10 * np.abs(np.delete(weights, 2)).max()
    assert -bias / weights[2] == pytest.approx(4, abs=0.3)


def test_the_regression_balances_evidence_and_penalty() -> None:
    # standardized states are -1 and 1; at weight w the loss is log(1 + exp(-w)) + penalty * w ** 2
    weights, bias = fit(np.array([[0.0], [4.0]]), np.array([0.0, 1.0]), penalty=0.1)
    w = float(weights[0]) * 2
    assert 1 / (1 + math.exp(w)) == pytest.approx(2 * 0.1 * w, abs=1e-4)
    assert bias == pytest.approx(-2 * float(weights[0]), abs=1e-4)


def test_labels_of_one_class_are_refused() -> None:
    with pytest.raises(InputError, match=r"3 judgements.*give more: there must be right and wrong judgements"):
        fit(np.zeros((3, 2)), np.ones(3))


def test_it_is_compared_with_length_over_all_judgements_and_within_problems() -> None:
    # length separates right from wrong between problems, but not within the first one; the second has no wrong one
    held_out = [
        JudgedProblem([[1.0], [2.0], [0.0]], [True, True, False], [5, 7, 6]),
        JudgedProblem([[9.0]], [True], [20]),
    ]
    assert measure(held_out, np.array([1.0]), 0.0) == {
        "problems": 2,
        "judgements": 4,
        "right": 0.75,
        "auc": 1.0,
        "auc_of_length": pytest.approx(2 / 3),
        "auc_within": 1.0,
        "auc_of_length_within": 0.5,
    }


# A reward model with a smaller vocabulary than the judge


def test_a_reward_model_gives_no_score_to_words_it_does_not_know(
    generator: LocalGenerator, reward: ProcessReward, questions: tuple[str, ...]
) -> None:
    problem = Problem("q", questions[0])
    known, unknown = (Node(str(ids), (0,), Text((4, 5), ids, "", (2,)), finish="eos") for ids in ((30, 31), (30, 500)))
    scores = run(reward.score(problem, [unknown, known, unknown], [None] * 3))
    assert [score.value is None for score in scores] == [True, False, True]
    read = len(generator.root(problem).prompt) + 2
    assert [score.usage.scorer_tokens for score in scores] == [0, read, 0]
