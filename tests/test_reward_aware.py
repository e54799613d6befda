"""Tables by policy, reward model, level and budget: look-ups, files, fits and the prior."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from thinktime.bench.statistics import Estimate
from thinktime.core.errors import InputError
from thinktime.planning.reward_aware import RULES, SCORES, Cell, CellChoice, RewardTable, fit, prior

CELL = Cell("0.5B", "confidence", "hard", 16)
CHOICE = CellChoice("beam_search:n=16,width=4", "last vote", Estimate(0.3, 0.2, 0.4), 900.0)


def test_there_are_seven_rules() -> None:
    assert RULES == ("majority", "min max", "min vote", "last max", "last vote", "avg max", "avg vote")
    assert [score([0.2, 0.9, 0.4]) for score in SCORES.values()] == [0.2, 0.4, pytest.approx(0.5)]


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        (("0.5B", "head", "hard", 16), "reward='head': no measured cell has it, only confidence; measure it, or take"),
        (("7B", "confidence", "hard", 16), "policy='7B': no measured cell has it, only 0.5B, 1.5B"),
        (("0.5B", "confidence", "easy", 16), "cell='0.5B / confidence / easy / 16': it is not measured"),
        (("0.5B", "confidence", "hard", 64), "budget=64: no measured cell has it, only 16"),
    ],
)
def test_a_cell_that_is_not_measured_is_refused(cell: tuple[str, str, str, int], message: str) -> None:
    table = RewardTable({CELL: CHOICE, Cell("1.5B", "confidence", "easy", 16): CHOICE})
    assert table.choose("0.5B", "confidence", "hard", 16) == CHOICE
    with pytest.raises(InputError, match=message):
        table.choose(*cell)


def test_a_file_gives_the_same_table(tmp_path: Path) -> None:
    table, file = RewardTable({CELL: CHOICE, Cell("7B", "none", "easy", 4): prior(7e9, "easy", 4)}), tmp_path / "t.json"
    file.write_text(table.text())
    assert RewardTable.read(file) == table


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"strategy": "beam:n=4"}, "unknown"),
        ({"strategy": "beam_search:n=6,width=4"}, "width"),
        ({"rule": "median vote"}, "rule 'median vote' is none of"),
        ({"level": "odd"}, "level 'odd' is none of hard, medium, easy"),
        ({"budget": "many"}, "invalid literal"),
    ],
)
def test_a_file_that_is_edited_into_nonsense_is_refused(change: dict[str, str], reason: str, tmp_path: Path) -> None:
    file = tmp_path / "t.json"
    found = json.loads(RewardTable({CELL: CHOICE}).text())
    found["cells"][0] |= change
    file.write_text(json.dumps(found))
    with pytest.raises(InputError, match=f"it is no reward-aware table .*{reason}"):
        RewardTable.read(file)
    file.write_text('{"schema": 1}')
    with pytest.raises(InputError, match="it has no kind 'reward-aware' of schema 1"):
        RewardTable.read(file)


def test_a_cell_is_chosen_on_one_half_and_measured_on_the_other() -> None:
    one, two = ("majority:n=4", "majority"), ("dvts:n=4,width=4", "last vote")
    arms = {one: [1.0, 1.0, 0.0, 0.0], two: [0.0, 1.0, 1.0, 1.0]}
    found = fit({CELL: arms}, {"majority:n=4": 100, "dvts:n=4,width=4": 120}).cells[CELL]
    assert (found.strategy, found.rule, found.tokens) == (*one, 100)
    assert found.accuracy is not None and found.accuracy.value == 0.0


def test_the_cheaper_one_of_equal_arms_is_taken_and_a_small_bin_is_named() -> None:
    arms = {("majority:n=8", "majority"): [1.0] * 4, ("majority:n=4", "majority"): [1.0] * 4}
    tokens = {"majority:n=8": 8.0, "majority:n=4": 4.0}
    assert fit({CELL: arms}, tokens).cells[CELL].strategy == "majority:n=4"
    with pytest.raises(InputError, match=r"level='hard': 3 problems of 0\.5B are hard; it takes 4 or more"):
        fit({CELL: {("majority:n=4", "majority"): [1.0] * 3}}, tokens)


@pytest.mark.parametrize(
    ("parameters", "level", "weak", "strategy"),
    [
        (0.5e9, "easy", False, "weighted_majority:n=16"),
        (0.5e9, "medium", False, "beam_search:n=16,width=4"),
        (0.5e9, "hard", False, "beam_search:n=16,width=4"),
        (7e9, "easy", False, "dvts:n=16,width=4"),
        (32e9, "medium", False, "dvts:n=16,width=4"),
        (7e9, "hard", False, "beam_search:n=16,width=4"),
        (72e9, "hard", False, "weighted_majority:n=16"),
        (0.5e9, "hard", True, "weighted_majority:n=16"),
    ],
)
def test_the_prior_is_the_field_guide_of_the_paper(parameters: float, level: str, weak: bool, strategy: str) -> None:
    found = prior(parameters, level, 16, weak=weak)
    assert (found.strategy, found.accuracy) == (strategy, None)


def test_the_prior_refuses_unknown_levels_and_budgets_that_the_width_does_not_divide() -> None:
    with pytest.raises(InputError, match="level='odd': give one of hard, medium, easy"):
        prior(1e9, "odd", 16)
    with pytest.raises(InputError, match="width"):
        prior(1e9, "hard", 6)
