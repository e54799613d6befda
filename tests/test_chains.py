"""The constructed model and its reward: chosen quality, equal samples for all searches, and parts that are kept."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from experiments.chains import STEPS, WORDS, Dial, correlation, finished, in_parts, right, say, solve
from experiments.constructed import RIGHT
from experiments.early_rejection.real import calibration, confidence
from experiments.ets.repeats import DEPTHS, counts
from experiments.ets.run import held
from thinktime.bench.statistics import auc
from thinktime.core.types import Extension, Node, Sampling
from thinktime.generators.text import Text


def at(words: list[str], prompt: int = 0) -> Node:
    return Node("", (0,), Text((prompt,), text=" ".join(words)))


def said(words: list[str], key: str, until: str = "step") -> list[str]:
    extension = Extension(at(words), 0, key, until, Sampling(max_length=STEPS * WORDS), STEPS * WORDS)  # type: ignore[arg-type]
    return [*words, *say(extension).words.split()]


def test_a_step_says_the_same_if_it_is_cut_and_finished_later() -> None:
    whole = said([], "a")
    assert len(whole) == WORDS
    assert said(whole[:4], "b") == whole and finished(whole[:1]) == whole


def test_a_solution_is_right_if_all_of_its_steps_are() -> None:
    solutions = [said([], str(seed), "done") for seed in range(200)]
    assert all(len(words) == STEPS * WORDS for words in solutions)
    assert all((words[-1] == RIGHT) == right(words) for words in solutions)
    assert 0 < sum(map(right, solutions)) < 100


@pytest.mark.parametrize("wanted", [0.5, 0.75, 0.9])
def test_the_reward_has_the_chosen_auc(wanted: float) -> None:
    prefixes = [finished([f"{'rw'[index % 2]}.{index}"]) for index in range(4000)]
    measured = auc([Dial(wanted)(at(words)) for words in prefixes], [right(words) for words in prefixes])
    assert measured == pytest.approx(wanted, abs=0.025)


@pytest.mark.parametrize("wanted", [0.0, 0.5, 0.9, 1.0])
def test_the_reward_of_an_unfinished_step_has_the_chosen_correlation(wanted: float) -> None:
    assert correlation(Dial(0.75, wanted), 4) == pytest.approx(wanted, abs=0.04)


def test_equal_steps_after_equal_steps_have_one_reward() -> None:
    words = finished(["r.1"])
    assert Dial(0.7)(at(words)) == Dial(0.7)(at(words)) != Dial(0.7)(at(words, prompt=1))


def test_rejection_saves_words_of_the_same_steps() -> None:
    beam, rejecting = (
        solve(label, "chain 0", Dial(0.75)) for label in ("beam_search:n=8", "early_rejection:n=8,tau=4")
    )
    assert beam.tokens == STEPS * 8 * WORDS
    assert rejecting.tokens == STEPS * (8 * 4 + 2 * (WORDS - 4))


def test_parts_that_are_done_are_not_done_again(tmp_path: Path) -> None:
    file = tmp_path / "parts.json"
    assert in_parts(file, (1, 2), lambda n: {"square": n * n}) == {"1": {"square": 1}, "2": {"square": 4}}
    assert json.loads(file.read_text())["2"] == {"square": 4}
    assert in_parts(file, (2, 3), lambda n: {"square": -1})["2"] == {"square": 4}


def test_a_search_holds_the_nodes_of_a_depth_and_their_ancestors() -> None:
    parents = {"root": None, "a": "root", "b": "root", "aa": "a", "ab": "a"}
    depths = {"root": 0, "a": 1, "b": 1, "aa": 2, "ab": 2}
    trace = [{"key": key, "parent": above, "depth": depths[key], "tokens": 3} for key, above in parents.items()]
    trace[0]["tokens"] = 0
    assert held(trace, 10) == [16, 19]


def test_partial_confidence_is_that_of_the_prefix_and_the_tokens_read() -> None:
    assert confidence([-1.0, -3.0], 1, -2.0, 3) == pytest.approx(2.718281828 ** (-3 / 4))
    same = [([[-0.1, -0.2], [-0.4, -0.1]], 0.0, 0), ([[-0.3, -0.3, -0.3], [-0.5, -0.9, -0.1]], -1.0, 2)]
    of_one = calibration(same)["by_tau"]["1"]
    assert of_one["n_steps"] == 4 and of_one["n_prefixes"] == 2
    assert of_one["kendall_within"]["value"] == 1 and of_one["recall_of_different"]["value"] == 1


def test_a_line_repeats_another_sample_only_after_the_same_lines() -> None:
    lines, repeats, whole, different = counts(["a\nb\nc", "a\nx\nc", "a\nb\nd"])
    assert lines == [3, 3, 3] + [0] * (DEPTHS - 3)
    assert repeats == [2, 1, 0] + [0] * (DEPTHS - 3)
    assert (whole, different) == (15, 15 - 2 * 2 - 2)
