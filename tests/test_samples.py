"""Pools of samples from files and banks; each pool has one setting."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from toy import ANSWERS, CAP, PROBLEM, ToyGenerator, ToyScorer, done, drawn, drawn_score, extend, score, toy_search

from thinktime.bank.store import Bank
from thinktime.bench.samples import Pool, Sample, Sampled, banked_pool, merge, recorded_pool
from thinktime.bench.tasks import Task
from thinktime.core.errors import InputError
from thinktime.core.types import Sampling

TASK = Task("toy", (PROBLEM,), ANSWERS)
SAMPLING = Sampling(max_length=CAP)


def pool(generator: str = "m", setting: str = "s", id: str = "p") -> Pool:
    return Pool(generator, setting, "words", (Sampled(id, (Sample(3, "7", True),)),))


def test_an_answer_is_right_if_most_of_its_samples_were_judged_right() -> None:
    keys = [("7", True), ("7", True), ("7", False), ("8", False), ("9", True), ("9", False), (None, True)]
    samples = tuple(Sample(1, key, correct) for key, correct in keys)
    unjudged = (Sample(1, "6", False, judged=False), Sample(1, "7", False, judged=False))
    problem = Sampled("p", (*samples, *unjudged, Sample(1, "5", True)))
    assert problem.right == {"7", "5"}, "an unjudged sample does not count against its answer"
    assert problem.counts == (10, 5), "an unjudged sample does not count as right"
    assert problem.pass_rate == 0.5


def test_samples_of_two_models_or_settings_are_not_pooled() -> None:
    with pytest.raises(InputError, match=r"m, s, words \| n, s, words.*cannot be pooled"):
        merge([pool(), pool("n")])
    with pytest.raises(InputError, match=r"m, hot, words \| m, s, words.*cannot be pooled"):
        merge([pool(), pool(setting="hot", id="q")])


def test_problems_of_one_setting_are_pooled_and_a_duplicate_is_refused() -> None:
    assert [problem.id for problem in merge([pool(), pool(id="q")]).problems] == ["p", "q"]
    with pytest.raises(InputError, match="problem='p': it is in two pools"):
        merge([pool(), pool()])
    with pytest.raises(InputError, match="at least one"):
        merge([])


def test_a_problem_without_samples_or_verdicts_is_named() -> None:
    with pytest.raises(InputError, match="problem='p': it has no samples"):
        Pool("m", "s", "words", (Sampled("p", ()),))
    with pytest.raises(InputError, match="problem='p': none of its samples was judged"):
        Pool("m", "s", "words", (Sampled("p", (Sample(1, "7", False, judged=False),)),))
    with pytest.raises(InputError, match="at least one problem"):
        Pool("m", "s", "words", ())


# Files


def test_recorded_samples_are_measured_in_words_and_unreadable_ones_count_as_cut(tmp_path: Path) -> None:
    outputs: list[dict[str, Any]] = [
        {"response": "so it is 7", "response_answer": "7.0", "label": True},
        {"response": "2*b=2*b=", "response_answer": "[invalid]", "label": "[invalid]"},
    ]
    file = tmp_path / "some-model.jsonl"
    file.write_text(json.dumps({"idx": 3, "ground_truth": "7", "outputs": outputs}) + "\n")
    found = recorded_pool(file)
    assert (found.generator, found.unit, found.fewest) == ("some-model", "words", 2)
    (problem,) = found.problems
    assert problem.reference == "7"
    assert problem.samples == (
        Sample(4, "7", True, True, "so it is 7"),
        Sample(1, None, False, False, "2*b=2*b=", judged=False),
    )


# Banks


@pytest.fixture
def bank(tmp_path: Path) -> Any:
    with Bank(tmp_path / "bank.db") as opened:
        yield opened


def test_the_pool_has_the_banked_samples_that_a_search_would_find(bank: Bank) -> None:
    search = toy_search(drawn, None, journal=bank)
    leaves = extend(search, [search.root], 6)
    (problem,) = banked_pool(bank, TASK, SAMPLING, 6).problems
    assert [sample.text for sample in problem.samples] == [leaf.state.text for leaf in leaves]
    assert [sample.length for sample in problem.samples] == [len(leaf.state.ids) for leaf in leaves]
    answers = [ANSWERS.read(leaf.state) for leaf in leaves]
    assert [sample.correct for sample in problem.samples] == [answer == "7" for answer in answers]
    assert [sample.key is None for sample in problem.samples] == [answer is None for answer in answers]


def test_the_pool_ignores_steps_and_other_seeds_in_the_bank(bank: Bank) -> None:
    search = toy_search(drawn, None, journal=bank)
    whole = extend(search, [search.root], 4)
    extend(search, [search.root], 4, until="step")
    other = toy_search(drawn, None, journal=bank, seed=1)
    extend(other, [other.root], 4)
    (problem,) = banked_pool(bank, TASK, SAMPLING, 4).problems
    assert [sample.text for sample in problem.samples] == [leaf.state.text for leaf in whole]


def test_a_sample_cut_at_the_limit_has_not_ended_and_has_no_answer(bank: Bank) -> None:
    search = toy_search({"0": done("7 " * (CAP + 1))}, None, journal=bank)
    extend(search, [search.root], 1)
    (problem,) = banked_pool(bank, TASK, SAMPLING, 1).problems
    text = ("7 " * CAP).strip()
    assert problem.samples == (Sample(CAP, None, False, ended=False, text=text, logprob=-1.0),)


def test_the_pool_has_the_banked_rewards(bank: Bank) -> None:
    search = toy_search(drawn, ToyScorer(drawn_score), journal=bank)
    scores = score(search, extend(search, [search.root], 4))
    (problem,) = banked_pool(bank, TASK, SAMPLING, 4).problems
    assert [sample.reward for sample in problem.samples] == scores


def test_missing_samples_are_named_with_their_setting(bank: Bank) -> None:
    search = toy_search(drawn, None, journal=bank)
    extend(search, [search.root], 2)
    with pytest.raises(InputError, match="n=3: the bank lacks some of these samples of sum at temperature 1"):
        banked_pool(bank, TASK, SAMPLING, 3)
    with pytest.raises(InputError, match=r"n=2: the bank lacks .* temperature 0\.5"):
        banked_pool(bank, TASK, replace(SAMPLING, temperature=0.5), 2)


def test_a_pool_from_a_bank_of_two_models_needs_a_model_name(bank: Bank) -> None:
    for name in ("one", "two"):
        search = toy_search(ToyGenerator(drawn, name=name), None, journal=bank)
        extend(search, [search.root], 2)
    with pytest.raises(InputError, match=r"one \| two.*cannot be pooled; name one"):
        banked_pool(bank, TASK, SAMPLING, 2)
    assert banked_pool(bank, TASK, SAMPLING, 2, model="two").generator == "two"
    with pytest.raises(InputError, match="the bank has samples of: one, two"):
        banked_pool(bank, TASK, SAMPLING, 2, model="three")
