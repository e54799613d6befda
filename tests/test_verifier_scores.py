"""The experiments on verifiers: which samples are scored, the file of scores, and the controls."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from experiments.adaptive_self_eval.control import evaluated
from experiments.adaptive_self_eval.real import voted
from experiments.generative_reward.control import solved
from experiments.intervals import areas
from experiments.solve_or_verify.control import Bank, from_here_on
from experiments.solve_or_verify.measure import discrimination
from experiments.solve_or_verify.real import at_cost
from experiments.verifiers.collect import half, todo
from experiments.verifiers.run import by_name, whole_number
from experiments.verifiers.scores import Verified, covered, verified
from thinktime.bench.samples import Sample, Sampled
from thinktime.core.errors import InputError
from thinktime.core.types import Problem


def sample(key: str | None, right: bool, text: str = "") -> Sample:
    return Sample(10, key, right, text=text)


MIXED = Sampled("m", (sample("7", True, "a\nb\nc\n"), sample("8", False, "d"), sample(None, False), sample("7", True)))
SURE = Sampled("s", (sample("7", True), sample("7", True)))


def test_equal_texts_are_scored_once_and_samples_without_an_answer_never() -> None:
    same = Sampled("p", (sample("7", True, "a"), sample("8", False, "b"), sample("7", True, "a"), sample(None, False)))
    one = todo(Problem("p", "q"), same, None)
    assert one.places == {"a": [0, 2], "b": [1]} and one.mixed
    more = Sampled("p", (*same.samples, sample("7", True, "c"), sample("9", False, "d")))
    assert list(todo(Problem("p", "q"), more, 1).places) == ["a", "b"]
    assert not todo(Problem("s", "q"), SURE, None).mixed


def test_a_half_is_the_first_half_of_the_lines_and_at_least_one() -> None:
    assert [half(text) for text in ("a\nb\nc\nd", "a\nb\nc", "a")] == ["a\nb\n", "a\n", "a"]


def test_problems_are_covered_up_to_the_last_mixed_one_with_all_scores() -> None:
    scored = Verified(MIXED, [{"x": 0.9}, {"x": 0.1}, {}, {"x": 0.8}])
    bare, sure = Verified(MIXED, [{}] * 4), Verified(SURE, [{}, {}])
    assert covered([sure, scored, sure, bare, scored], "x") == [sure, scored]
    assert covered([bare], "x") == []
    assert [each.reward for each in scored.scored("x").samples] == [0.9, 0.1, 0.5, 0.8]
    assert by_name(scored, "x").scores == (0.9, 0.1, 0.8) and by_name(scored, "x").auc == 1.0


def test_scores_of_another_export_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "scores.jsonl.gz"
    file.write_bytes(gzip.compress(json.dumps({"export": "other"}).encode() + b"\n"))
    with pytest.raises(InputError, match="they are of another gsm8k-program"):
        verified(file)


def test_an_answer_of_a_word_problem_is_a_whole_number_above_0() -> None:
    keys = ("7", "7.0", "7.5", "0", "-3", "x", "1e400")
    assert [whole_number(MIXED, sample(key, False)) for key in keys] == [1, 1, 0, 0, 0, 0, 0]


def test_a_vote_of_a_fraction_of_a_sample_is_a_mix_of_its_neighbours() -> None:
    vote = {1: np.array([0.0, 1.0]), 2: np.array([1.0, 1.0])}
    mixed = at_cost(vote, 1.25)
    assert mixed is not None and mixed.tolist() == [0.25, 1.0]
    assert at_cost(vote, 2.0) is vote[2] and at_cost(vote, 2.5) is None


def test_a_crossover_lasts() -> None:
    above, below = {"value": 0.1, "low": 0.05, "high": 0.2}, {"value": 0.1, "low": -0.05, "high": 0.2}
    assert from_here_on([2, 4, 8], [above, below, above]) == 8
    assert from_here_on([2, 4, 8], [above, above, below]) is None


def test_the_control_of_checks_has_the_auc_of_its_dial() -> None:
    names = [f"problem {i}" for i in range(20)]
    found = [discrimination(Bank(names, auc).verdicts, 8)["within_problem"]["value"] for auc in (0.5, 0.9)]
    assert found[0] == pytest.approx(0.5, abs=0.06) and 0.8 < found[1] < 0.92


def test_the_control_of_self_evaluation_has_the_auc_of_its_dial() -> None:
    found = evaluated(300, 0.8, 0.6, seed=0)
    for cut, auc in ((1.0, 0.8), (25, 0.6)):
        _, within = areas(found.scores[cut].tolist(), (found.right > 0).tolist())
        assert np.mean(within) == pytest.approx(auc, abs=0.02)


def test_a_vote_of_kept_samples_goes_to_the_answer_drawn_first_if_tied() -> None:
    found = evaluated(1, 0.8, 0.6, seed=0)
    found.answers[0][:4], found.right[0, :4] = ["8", "7", "7", "8"], [0, 1, 1, 0]
    kept = np.zeros((1, 16), dtype=bool)
    for places, right in (([1, 2], 1.0), ([0, 1], 0.0), ([1, 2, 3, 0], 0.0), ([1], 1.0)):
        kept[:] = False
        kept[0, places] = True
        assert voted(found, kept)[0] == right


def test_a_constructed_judge_that_knows_chooses_the_right_answer_if_it_is_there() -> None:
    answers = [solved("generative_reward:n=4,k=8", f"problem {i}", 0.999, 0.0).value for i in range(20)]
    votes = [solved("majority:n=4", f"problem {i}", 0.999, 0.0).value for i in range(20)]
    assert answers.count("0") > votes.count("0")
