"""The reward head on hidden states: its value, its cost, the model that it belongs to, and its training."""

from __future__ import annotations

import asyncio
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from test_meta import last_state
from tiny import tiny_directory_in

from experiments.verifiers.train import Examples, areas_of, cross_fitted, fit, logistic
from thinktime.config import Config
from thinktime.core.errors import InputError
from thinktime.core.types import Finish, Node, Problem, Score
from thinktime.generators.local import LocalGenerator
from thinktime.generators.text import RemoteText, Text
from thinktime.scorers.head import RewardHead, in_ids
from thinktime.session import open_session

HIDDEN = 16
PROBLEM = Problem("p", "3 + 4")
WEIGHT = torch.arange(HIDDEN) / 10


@pytest.fixture(scope="module")
def model_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_directory_in(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def generator(model_directory: Path) -> LocalGenerator:
    return LocalGenerator(model_directory, dtype="float64")


def head(path: Path, weights: str, bias: float = 0.5) -> Path:
    file = path / "head.safetensors"
    save_file({"weight": WEIGHT, "bias": torch.tensor([bias])}, file, {"layer": "1", "weights": weights})
    return file


def node(text: str, finish: Finish = "step") -> Node:
    return Node(text, (0,), RemoteText("", text, step_ends=(len(text),)), finish=finish)


def scores(scorer: RewardHead, nodes: list[Node], known: list[Node | None] | None = None) -> list[Score]:
    return asyncio.run(scorer.score(PROBLEM, nodes, known or [None] * len(nodes)))


def test_a_reward_is_the_logistic_of_the_state_at_the_last_token(
    generator: LocalGenerator, model_directory: Path, tmp_path: Path
) -> None:
    nodes = [node("3 + 4\n"), node("3 + 4\nis 7\n"), node("3 + 4\nis 7", "eos")]
    found = scores(RewardHead(generator, head(tmp_path, generator.weights)), nodes)
    for each, score in zip(nodes, found, strict=True):
        state = in_ids(generator, PROBLEM, each)
        assert (state.ids[-1] == generator.model.tokenizer.eos_id) == each.done
        logit = 0.5 + float(
            WEIGHT.double() @ torch.tensor(last_state(model_directory, state.prompt + state.ids)).double()
        )
        assert score.value == pytest.approx(1 / (1 + math.exp(-logit)), rel=1e-5)
    assert len({score.value for score in found}) == 3


def test_a_node_without_text_has_no_score_and_costs_nothing(generator: LocalGenerator, tmp_path: Path) -> None:
    scorer = RewardHead(generator, head(tmp_path, generator.weights))
    missing, found = scores(scorer, [node(""), node("7\n")])
    assert (missing.value, missing.usage.scorer_tokens) == (None, 0) and found.value is not None


def test_a_score_is_charged_the_ids_that_the_model_has_not_read(generator: LocalGenerator, tmp_path: Path) -> None:
    scorer = RewardHead(generator, head(tmp_path, generator.weights))
    first, second = node("3 + 4\n"), node("3 + 4\nis 7\n")
    whole, rest = (in_ids(generator, PROBLEM, each) for each in (first, second))
    costs = [score.usage for score in scores(scorer, [first, second], [None, first])]
    assert [cost.scorer_tokens for cost in costs] == [len(whole.prompt + whole.ids), len(rest.ids) - len(whole.ids)]
    drawn = Node("d", (0,), Text(rest.prompt, rest.ids, second.state.text, (len(rest.ids),)), finish="step")
    assert scorer.worst_case(PROBLEM, drawn, None).scorer_tokens == 1  # its last id was drawn and not read


def test_a_head_of_another_model_or_no_head_is_refused_in_one_line(
    generator: LocalGenerator, model_directory: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="it was made for the weights abc, and --model has") as error:
        RewardHead(generator, head(tmp_path, "abc"))
    assert "\n" not in str(error.value)
    for name in ("absent.safetensors", "broken.safetensors"):
        (tmp_path / "broken.safetensors").write_bytes(b"no tensors")
        with pytest.raises(InputError, match="cannot read it as a reward head"):
            RewardHead(generator, tmp_path / name)
    config = Config(str(model_directory), f"head:{head(tmp_path, generator.weights)}")
    assert "/head@" in open_session(config).scorers["main"].name


def made(problems: int, signal: float) -> Examples:
    """Two samples of two lines for each problem; one number of the state says which sample is right."""
    generator = torch.Generator().manual_seed(0)
    right = torch.tensor([True, True, False, False]).repeat(problems)
    states = torch.randn(4 * problems, 1, 8, generator=generator)
    states[:, 0, 3] += signal * right.float() + torch.arange(problems).repeat_interleave(4) % 5
    sample = torch.arange(2 * problems).repeat_interleave(2)
    last = torch.tensor([False, True]).repeat(2 * problems)
    return Examples(states, right, sample, torch.arange(problems).repeat_interleave(4), last)


def test_training_finds_what_tells_right_from_wrong_and_nothing_else() -> None:
    found = made(40, signal=4.0)
    trained = fit(found, 0, 1e-2)
    assert int(trained.weight.abs().argmax()) == 3
    assert float(np.mean(areas_of(found, cross_fitted(found, 0, 1e-2))[1])) > 0.9
    by_chance = made(40, signal=0.0)
    assert 0.3 < float(np.mean(areas_of(by_chance, cross_fitted(by_chance, 0, 1e-2))[1])) < 0.7


def test_without_a_signal_the_probability_is_the_share_of_right_samples() -> None:
    found = made(10, signal=0.0)
    scale, offset = logistic(np.zeros((40, 1)), found)
    assert scale == 0 and offset == pytest.approx(0, abs=1e-3)
