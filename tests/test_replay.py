"""Recorded samples: both layouts, broken labels, and published curves, which are reproduced to four digits."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from thinktime.bench.replay import Fields, RecordedProblem, read_recorded, replay
from thinktime.bench.tasks import load
from thinktime.core.errors import InputError
from thinktime.generators.recorded import RecordedSample

RECORDED = Path(__file__).parents[2] / "shared" / "data" / "recorded"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "recorded.jsonl"


def write(file: Path, *rows: Any) -> Path:
    file.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return file


def outputs(*samples: tuple[Any, Any], **more: Any) -> dict[str, Any]:
    """A problem in the layout of a list of objects."""
    return {"outputs": [{"response": "…", "response_answer": a, "label": label} for a, label in samples], **more}


def read_one(file: Path, row: dict[str, Any], fields: Fields | None = None, **options: bool) -> RecordedProblem:
    (problem,) = read_recorded(write(file, row), fields or Fields(), **options)
    return problem


# Layouts

EXPECTED = (RecordedSample("so 7", "7", True, 0.9), RecordedSample("so 8", "8", False, 0.2))
REWARDED = Fields(reward="score")


def test_samples_can_be_a_list_of_objects(file: Path) -> None:
    row = {
        "question": "3 + 4?",
        "outputs": [
            {"response": "so 7", "response_answer": "7", "label": True, "score": 0.9, "unused": [1, 2]},
            {"response": "so 8", "response_answer": "8", "label": False, "score": 0.2},
        ],
    }
    problem = read_one(file, row, REWARDED)
    assert problem.samples == EXPECTED
    assert problem.problem.prompt == "3 + 4?"


def test_samples_can_be_parallel_lists(file: Path) -> None:
    row = {
        "question": "3 + 4?",
        "response": ["so 7", "so 8"],
        "response_answer": ["7", "8"],
        "label": [True, False],
        "score": [0.9, 0.2],
        "unused": [1, 2, 3],
    }
    problem = read_one(file, row, REWARDED)
    assert problem.samples == EXPECTED
    assert problem.problem.prompt == "3 + 4?"


def test_values_can_be_lists_of_one_element_in_both_layouts(file: Path) -> None:
    sample = {"response": ["so 7"], "response_answer": ["7"], "label": [True], "score": [0.9]}
    parallel = {name: [value, value] for name, value in sample.items()}
    assert read_one(file, {"outputs": [sample]}, REWARDED).samples == EXPECTED[:1]
    assert read_one(file, parallel, REWARDED).samples == EXPECTED[:1] * 2


def test_fields_can_have_any_name(file: Path) -> None:
    fields = Fields(samples="tries", text="said", answer="got", correct="ok", reward="r")
    objects = {"tries": [{"said": "so 7", "got": 7, "ok": True, "r": 1}]}
    parallel = {"said": ["so 7"], "got": [7], "ok": [True], "r": [1]}
    for row in (objects, parallel):
        assert read_one(file, row, fields).samples == (RecordedSample("so 7", "7", True, 1.0),)


def test_problems_keep_their_order_and_get_unique_ids(file: Path) -> None:
    rows = [outputs(("1", True), idx=5), outputs(("2", True), idx=5), outputs(("3", True))]
    problems = read_recorded(write(file, rows[0], "", rows[1], rows[2]), Fields())
    assert [problem.samples[0].answer for problem in problems] == ["1", "2", "3"]
    assert len({problem.problem.id for problem in problems}) == 3, "the id of the file is not unique; ours are"


def test_the_right_answer_is_kept_if_the_file_has_it(file: Path) -> None:
    assert read_one(file, outputs(("7", True), ground_truth=7)).problem.reference == "7"
    assert read_one(file, outputs(("7", True), reference="7")).problem.reference == "7"
    assert read_one(file, outputs(("7", True))).problem.reference is None


# Missing values


@pytest.mark.parametrize("broken", ["maybe", "", None, "[invalid]", [], [True, False], {"ok": True}])
def test_a_sample_with_a_broken_label_is_unjudged(file: Path, broken: Any) -> None:
    problem = read_one(file, outputs(("7", True), ("8", broken), ("9", False)))
    assert [sample.correct for sample in problem.samples] == [True, None, False]
    result = replay([problem], [1], rewards=False)
    assert (result["unjudged"], result["n_samples"]) == (1, 3)
    assert result["pass_at_k"]["1"]["value"] == pytest.approx(1 / 3, abs=1e-6), "it counts as a sample, not as right"


@pytest.mark.parametrize(
    ("label", "right"),
    [
        (1, True),
        (0, False),
        ("1", True),
        (1.0, True),
        ("True", True),
        ("FALSE", False),
        ("correct", True),
        ("incorrect", False),
        (" yes ", True),
        (["wrong"], False),
    ],
)
def test_a_label_may_be_a_number_or_a_word(file: Path, label: Any, right: bool) -> None:
    (sample,) = read_one(file, outputs(("7", label))).samples
    assert sample.correct is right


@pytest.mark.parametrize(("reward", "number"), [("0.5", 0.5), (1, 1.0), ("-2e1", -20.0), (["0.25"], 0.25)])
def test_a_reward_may_be_text(file: Path, reward: Any, number: float) -> None:
    row = {"outputs": [{"response_answer": "7", "label": True, "score": reward}]}
    assert read_one(file, row, REWARDED).samples[0].reward == number


@pytest.mark.parametrize("kind", ["plain", "marked", "UTF-16", "gzip", "marked gzip"])
def test_a_file_may_have_a_byte_order_mark_and_be_compressed(tmp_path: Path, kind: str) -> None:
    text = json.dumps({"question": "Où ?", "response_answer": ["né"]}, ensure_ascii=False) + "\n"
    raw = text.encode({"plain": "utf-8", "UTF-16": "utf-16", "gzip": "utf-8"}.get(kind, "utf-8-sig"))
    path = tmp_path / "samples.jsonl.gz"
    path.write_bytes(gzip.compress(raw) if "gzip" in kind else raw)
    (problem,) = read_recorded(path, Fields())
    assert (problem.problem.prompt, problem.samples[0].answer) == ("Où ?", "né")


def test_a_reference_of_null_is_no_reference(file: Path) -> None:
    assert read_one(file, outputs(("7", True), ground_truth=None)).problem.reference is None


def test_a_sample_without_a_label_is_unjudged(file: Path) -> None:
    problem = read_one(file, {"outputs": [{"response_answer": "7"}, {"response_answer": "8", "label": True}]})
    assert [sample.correct for sample in problem.samples] == [None, True]
    assert [sample.correct for sample in read_one(file, {"response_answer": ["7", "8"]}).samples] == [None, None]


def test_unjudged_samples_can_be_dropped(file: Path) -> None:
    row = outputs(("7", True), ("8", "?"), ("9", False))
    problem = read_one(file, row, drop_unjudged=True)
    assert [sample.answer for sample in problem.samples] == ["7", "9"]
    assert replay([problem], [1], rewards=False)["pass_at_k"]["1"]["value"] == 0.5


def test_dropping_every_sample_is_an_error(file: Path) -> None:
    with pytest.raises(InputError, match="no sample is left; all of them may be unjudged"):
        read_recorded(write(file, outputs(("7", "?"))), Fields(), drop_unjudged=True)


@pytest.mark.parametrize("nothing", [None, "", "  ", [""], [None], "[invalid]"])
def test_an_empty_answer_is_no_answer(file: Path, nothing: Any) -> None:
    problem = read_one(file, outputs((nothing, False), (nothing, False), ("7", True)))
    assert [sample.answer for sample in problem.samples] == [None, None, "7"]
    assert replay([problem], [1], rewards=False)["majority"]["value"] == 1.0, "an empty answer has no vote"


@pytest.mark.parametrize("nothing", [None, "high", True, float("nan"), "inf", [1, 2]])
def test_a_reward_that_is_no_number_is_missing(file: Path, nothing: Any) -> None:
    row = {
        "outputs": [
            {"response_answer": "8", "label": False, "score": nothing},
            {"response_answer": "7", "label": True, "score": -5.0},
        ]
    }
    result = replay([read_one(file, row, REWARDED)], [1], rewards=True)
    assert result["best_of_n"]["value"] == 1.0


# Errors


def test_a_line_that_is_not_json_is_named(file: Path) -> None:
    with pytest.raises(InputError, match=r"recorded\.jsonl, line 3'?: not JSON"):
        read_recorded(write(file, outputs(("7", True)), "", "{broken"), Fields())


def test_a_line_that_is_no_object_is_named(file: Path) -> None:
    with pytest.raises(InputError, match=r"line 2'?: give one JSON object per line"):
        read_recorded(write(file, outputs(("7", True)), [1, 2]), Fields())


def test_the_error_for_a_missing_list_of_samples_names_the_line_and_its_fields(file: Path) -> None:
    row = {"question": "?", "completions": [{"response_answer": "7"}]}
    with pytest.raises(InputError, match=r"samples='outputs': .*line 2 has .* fields are: completions, question"):
        read_recorded(write(file, outputs(("7", True)), row), Fields())


def test_the_error_for_a_sample_without_an_answer_names_the_line_and_its_fields(file: Path) -> None:
    row = {"outputs": [{"response_answer": "7"}, {"text": "so 7", "label": True}]}
    with pytest.raises(InputError, match=r"field='response_answer': sample 1 of .*line 1 .* fields are: label, text"):
        read_recorded(write(file, row), Fields())


def test_the_error_for_a_missing_reward_names_the_line_and_its_fields(file: Path) -> None:
    with pytest.raises(InputError, match=r"field='score': sample 0 of .*line 1 .*: label, response, response_answer"):
        read_recorded(write(file, outputs(("7", True))), REWARDED)
    with pytest.raises(InputError, match=r"field='score': .*line 1 "):
        read_recorded(write(file, {"response_answer": ["7"], "label": [True]}), REWARDED)


def test_parallel_lists_of_different_length_are_refused(file: Path) -> None:
    row = {"response_answer": ["7", "8"], "label": [True]}
    with pytest.raises(InputError, match=r"'response_answer': 2, 'label': 1.*line 1 differ in length"):
        read_recorded(write(file, row), Fields())


@pytest.mark.parametrize("samples", [["7", "8"], "7", {"response_answer": "7"}, None])
def test_samples_that_are_no_list_of_objects_are_refused(file: Path, samples: Any) -> None:
    with pytest.raises(InputError, match=r"line 1.*not a list of objects"):
        read_recorded(write(file, {"outputs": samples}), Fields())


@pytest.mark.parametrize("content", ["", "\n\n"])
def test_an_empty_file_is_refused(file: Path, content: str) -> None:
    file.write_text(content)
    with pytest.raises(InputError, match=r"recorded\.jsonl'?: it is empty"):
        read_recorded(file, Fields())


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / "latin.jsonl").write_bytes(b'{"question": "\xe9"}\n')
    (tmp_path / "cut.jsonl").write_bytes(gzip.compress(b'{"response_answer": ["7"]}\n' * 99)[:-20])
    for name in ("nothing.jsonl", "", "cut.jsonl"):
        with pytest.raises(InputError, match="cannot read it"):
            read_recorded(tmp_path / name, Fields())
    with pytest.raises(InputError, match=r"it is not UTF-8 .* convert it with iconv"):
        read_recorded(tmp_path / "latin.jsonl", Fields())


@pytest.mark.parametrize("answer", [None, ["7"], {"value": 7}])
def test_a_task_refuses_an_answer_that_is_no_text_or_number(file: Path, answer: Any) -> None:
    write(file, {"question": "3 + 4?", "answer": 7}, {"question": "3 + 4?", "answer": answer})
    assert load(str(file), 1).problems[0].reference == "7"
    with pytest.raises(InputError, match=r"answer=.*line 2: give a text or a number"):
        load(str(file))


def test_a_line_that_is_nested_too_deeply_is_named(file: Path) -> None:
    with pytest.raises(InputError, match=r"line 1'?: .* nested too deeply"):
        read_recorded(write(file, '{"a": ' + "[" * 100_000), Fields())


@pytest.mark.parametrize("k", [0, 3])
def test_a_k_beyond_the_samples_of_any_problem_is_refused(file: Path, k: int) -> None:
    rows = outputs(("7", True), ("8", False), ("9", False)), outputs(("7", True), ("8", False))
    problems = read_recorded(write(file, *rows), Fields())
    with pytest.raises(InputError, match=f"k={k}: some problem has 2 samples; give values from 1 to 2"):
        replay(problems, [1, k], rewards=False)


# Results, by hand


def rewarded(*samples: tuple[str | None, bool, float]) -> dict[str, Any]:
    return {"outputs": [{"response_answer": a, "label": ok, "score": score} for a, ok, score in samples]}


def test_coverage_votes_and_selection_of_two_problems(file: Path) -> None:
    """1 and 3 of 4 samples are right: pass@1 (1/4 + 3/4) / 2, pass@2 (1 - 3/6 + 1 - 0/6) / 2.

    First problem: 8 wins the vote and is wrong; 7 has the highest reward (0.9), above the sum of both 8 (0.8).
    Second problem: 5 wins the vote in three spellings; 6 has the highest reward, but less than the sum of all 5.
    """
    first = rewarded(("7", True, 0.9), ("8", False, 0.4), ("8.0", False, 0.4), (None, False, 1.0))
    second = rewarded(("5", True, 0.3), ("5.0", True, 0.3), ("10/2", True, 0.3), ("6", False, 0.7))
    result = replay(read_recorded(write(file, first, second), REWARDED), [1, 2], rewards=True)
    assert (result["n_problems"], result["n_samples"], result["unjudged"]) == (2, 8, 0)
    assert {k: estimate["value"] for k, estimate in result["pass_at_k"].items()} == {"1": 0.5, "2": 0.75}
    assert (result["pass_at_k"]["1"]["low"], result["pass_at_k"]["1"]["high"]) == (0.25, 0.75)
    assert result["majority"]["value"] == 0.5
    assert result["best_of_n"]["value"] == 0.5
    assert result["weighted_majority"]["value"] == 1.0


def test_without_rewards_there_is_only_the_vote(file: Path) -> None:
    result = replay([read_one(file, outputs(("7", True)))], [1], rewards=False)
    assert "majority" in result
    assert not {"best_of_n", "weighted_majority"} & set(result)


def test_an_answer_is_right_if_most_of_its_samples_were_judged_right(file: Path) -> None:
    """Equivalent answers with different labels, or without labels."""
    mostly_right = outputs(("7", False), ("7", True), ("7.0", True), ("7", None))
    mostly_wrong = outputs(("7", True), ("7", False), ("7.0", False), ("8", True))
    undecided = outputs(("7", True), ("7", False))
    for row, value in ((mostly_right, 1.0), (mostly_wrong, 0.0), (undecided, 0.0)):
        assert replay([read_one(file, row)], [1], rewards=False)["majority"]["value"] == value


def test_a_problem_without_a_readable_answer_counts_as_wrong(file: Path) -> None:
    problems = read_recorded(write(file, outputs(("7", True)), outputs((None, False))), Fields())
    assert replay(problems, [1], rewards=False)["majority"]["value"] == 0.5


# Real samples of real models


@pytest.mark.parametrize(
    ("name", "samples", "curve"),
    [
        ("gsm8k-llama2-7b-n500", 500, {1: 0.3188, 4: 0.5255, 16: 0.7419, 64: 0.8916, 256: 0.9512}),
        ("gsm8k-mistral-7b-n300", 300, {1: 0.5167, 4: 0.7182, 16: 0.8440, 64: 0.9160, 256: 0.9853}),
    ],
)
def test_the_coverage_of_recorded_runs_is_reproduced_to_four_digits(
    name: str, samples: int, curve: dict[int, float]
) -> None:
    path = RECORDED / f"{name}.jsonl"
    if not path.exists():
        pytest.skip(f"{path} is not here; it may be measured with but not copied into the project")
    problems = read_recorded(path, Fields())
    assert [len(problem.samples) for problem in problems] == [samples] * 10
    result = replay(problems, list(curve), rewards=False)
    found = {int(k): estimate["value"] for k, estimate in result["pass_at_k"].items()}
    assert found == pytest.approx(curve, abs=5e-5)
    assert result["unjudged"] > 0, "these files have broken labels"
    assert 0 < result["majority"]["value"] <= 1
