"""The probability of a verdict: its value, its cost, and checks without a verdict."""

from __future__ import annotations

import asyncio
import math
from pathlib import Path

import pytest
import torch

from thinktime.core.errors import InputError
from thinktime.core.types import Node, Problem, Score
from thinktime.generators.local import LocalGenerator
from thinktime.generators.text import Text
from thinktime.models.engine.costs import forward_flops
from thinktime.models.engine.llama import Llama
from thinktime.models.engine.models import load_language_model
from thinktime.pocket import directory
from thinktime.scorers.verdict import VerdictProbability

PROBLEM = Problem("p", "what is 3 + 4")


@pytest.fixture(scope="module")
def skilled() -> LocalGenerator:
    return LocalGenerator(directory("skilled"), dtype="float64")


def read(scorer: VerdictProbability, node: Node) -> Score:
    (score,) = asyncio.run(scorer.score(PROBLEM, [node], [None]))
    return score


def check(said: str) -> Node:
    tokenizer = load_language_model(directory("skilled"), "float64").tokenizer
    prompt = tokenizer.encode_chat([{"role": "user", "content": "Check"}])
    ids = (*tokenizer.encode(said), tokenizer.eos_id)
    return Node("c", (0,), Text(tuple(prompt), ids, said), finish="eos")


def test_it_is_the_probability_of_yes_normalised_to_yes_and_no_at_the_last_verdict(skilled: LocalGenerator) -> None:
    node = check("so 3 Yes\nso 4 No\nVerdict: No")
    tokenizer = load_language_model(directory("skilled"), "float64").tokenizer
    (yes,), (no,) = tokenizer.encode(" Yes"), tokenizer.encode(" No")
    model = Llama.load(directory("skilled"), torch.float64)
    behind = node.state.prompt + node.state.ids[:-2]
    with torch.inference_mode():
        logits = model.head(model.model(torch.tensor(behind)))[-1].softmax(-1)
    expected = float(logits[yes] / (logits[yes] + logits[no]))
    assert read(VerdictProbability(skilled), node).value == pytest.approx(expected, abs=1e-8)


def test_a_score_is_charged_one_token(skilled: LocalGenerator) -> None:
    node, scorer = check("Verdict: Yes"), VerdictProbability(skilled)
    usage = read(scorer, node).usage
    assert (usage.scorer_tokens, usage.scorer_calls, usage.generated_tokens) == (1, 1, 0)
    length = len(node.state.prompt + node.state.ids)
    assert usage.scorer_flops == forward_flops(skilled.model.shape, 1, length - 1)
    assert scorer.worst_case(PROBLEM, node, None).scorer_flops == usage.scorer_flops


def test_a_check_without_a_verdict_has_no_probability(skilled: LocalGenerator) -> None:
    score = read(VerdictProbability(skilled), check("so 3 and so 4"))
    assert score.value is None and score.usage.scorer_tokens == 0


def test_a_model_without_a_single_token_for_yes_is_refused(generator: LocalGenerator) -> None:
    with pytest.raises(InputError, match="scorer='verdicts': Yes and No are not single tokens of this model"):
        VerdictProbability(generator)


def test_a_nearly_certain_verdict_does_not_overflow(skilled: LocalGenerator, tmp_path: Path) -> None:
    value = read(VerdictProbability(skilled), check("Verdict: Yes")).value
    assert value is not None and 0 <= value <= 1 and math.isfinite(value)
