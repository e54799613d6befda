"""The experiments on two models: labels of program lines, the constructed judge, and the replayed cascade."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from toy import ANSWERS, PROBLEM, Piece, ToyGenerator, solve

from experiments.cascade.control import pair
from experiments.cascade.replay import Model, Pair, agreement
from experiments.chains import finished
from experiments.speculative_reasoning.control import DRAFT_RIGHT, Judge
from experiments.speculative_reasoning.control import solve as solved
from experiments.speculative_reasoning.real import judge
from experiments.speculative_reasoning.steps import known_numbers, labels, numbers
from thinktime.bench.samples import Sample, Sampled
from thinktime.bench.selectors import candidates
from thinktime.bench.statistics import auc
from thinktime.core.search import Search
from thinktime.core.types import Node, Sampling
from thinktime.generators.text import Text
from thinktime.strategies import parse

KNOWN = numbers("16 eggs, 3 for breakfast, 4 for friends, $2 each; <<16-3-4=9>>9, <<9*2=18>>18")


def test_a_line_is_right_if_its_value_is_a_number_of_question_or_reference() -> None:
    lines = [
        "def solution():",
        "    eggs = 16",
        "    left = eggs - 3 - 4",
        "    half = left / 2",
        "    return left * 2",
    ]
    assert labels(lines, KNOWN, 18.0) == [None, True, True, False, True]
    assert labels(["x = 17", "return x"], KNOWN, 18.0) == [False, False]


@pytest.mark.parametrize(
    "line", ["x = open('f')", "x = 9 ** 9 ** 9", "x = y + 1", "x, y = 1, 2", "x = 1 / 0", "x = (", ""]
)
def test_a_line_that_is_no_plain_arithmetic_has_no_label(line: str) -> None:
    assert labels([line], KNOWN, 18.0) == [None]


def test_known_numbers_are_those_of_question_and_reference_and_percentages_as_shares(tmp_path: Path) -> None:
    row = {
        "question": "A house for $80,000 rose by 150%.",
        "answer": "It rose 80000*1.5=<<80000*1.5=120000>>120000\n#### 120,000",
    }
    (tmp_path / "gsm8k").mkdir()
    (tmp_path / "gsm8k" / "test.jsonl").write_text(json.dumps(row) + "\n")
    known, answer = known_numbers(tmp_path)["gsm8k-test-1"]
    assert answer == 120000.0 and {80000.0, 150.0, 1.5, 120000.0} <= known


def test_rated_drafts_are_labelled_after_the_lines_that_were_kept() -> None:
    def node(key: str, parent: str | None, text: str, digit: int | None = None) -> dict[str, Any]:
        steps = [float(place == digit) for place in range(10)] if digit is not None else []
        return {
            "key": key,
            "parent": parent,
            "text": text,
            "score": None if digit is None else digit / 9,
            "steps": steps,
        }

    trace = [
        node("root", None, ""),
        node("a", "root", "eggs = 16\n", 8),
        node("b", "a", "left = eggs * 3\n", 2),
        node("c", "a", "left = eggs - 7\n"),
        node("d", "c", "return left * 2\n", 9),
    ]
    outcome: Any = SimpleNamespace(problem=SimpleNamespace(id="p"), trace=trace)
    found = judge(
        [outcome], {"greedy": lambda node: 9 * node["score"]}, lambda _, lines: labels(lines, KNOWN, 18.0)[-1]
    )
    assert (found["n_rated"], found["n_labelled"], found["n_right"]) == (3, 3, 2)
    assert found["greedy"]["auc"]["value"] == 1.0
    assert [found["histogram"][label].index(1) for label in ("right", "wrong")] == [8, 2]


@pytest.mark.parametrize("wanted", [0.5, 0.8, 0.9])
def test_the_constructed_judge_has_the_chosen_auc_on_last_steps(wanted: float) -> None:
    steps = [finished([f"{'rw'[index % 2]}.{index}"]) for index in range(4000)]
    scores = [Judge(wanted)(Node("", (0,), Text((), text=" ".join(words)))) for words in steps]
    assert auc(scores, [words[0].startswith("r") for words in steps]) == pytest.approx(wanted, abs=0.02)
    assert min(scores) >= 0 and max(scores) <= 1 and 0.8 < DRAFT_RIGHT < 1


def test_the_arms_without_a_judge_use_one_model_alone() -> None:
    main, draft = solved("first_n_base=999", 0.5, "chain 0"), solved("threshold=0", 0.5, "chain 0")
    assert (main.main, main.draft, draft.main, draft.draft) == (80, 0, 0, 80)


WORDS = ["5", "5", "3", "what"]


@pytest.mark.parametrize(("threshold", "value", "deferred"), [(0.5, "5", 0.0), (0.75, "7", 1.0)])
def test_the_replay_decides_as_the_strategy_does(threshold: float, value: str, deferred: float) -> None:
    models = {
        "draft": ToyGenerator(lambda e: Piece(f"so {WORDS[e.index]}", "eos"), name="small"),
        "main": ToyGenerator(lambda e: Piece("so so 7", "eos"), name="large"),
    }
    search = Search(PROBLEM, models, answers=ANSWERS, sampling=Sampling(max_length=9))
    answer = solve(parse(f"cascade:n=4,threshold={threshold}")[1], search)
    samples = [Sample(2, None if word == "what" else word, word == "7") for word in WORDS]
    small, large = Sampled("p", tuple(samples), "7"), Sampled("p", (Sample(3, "7", True),), "7")
    row = Pair(Model([small]), Model([large], 2.0)).cascade(4, threshold)
    assert (answer.value, row["deferred"]) == (value, deferred)
    assert row["accuracy"]["value"] == float(value == "7")
    assert row["cost"] == 8 + 2 * 3 * deferred
    assert agreement(candidates(samples, lambda sample: None))[1] == 0.5


def test_what_costs_the_same_is_a_coin_between_both_models_or_a_vote_of_the_large_one() -> None:
    both = pair(50, 0.5, 10.0)
    small, large = both.small.cost.mean(), both.large.cost.mean()
    name, right = both.of_equal_cost((small + large) / 2)
    assert name == "the large model on 50 % of the problems"
    assert right.mean() == pytest.approx((both.small.right.mean() + both.large.right.mean()) / 2)
    assert both.of_equal_cost(3.1 * large)[0] == "vote of 3 of the large model"
