"""The harness of the experiments: commands of rows, intervals as in the bench, results that name their command."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from experiments.__main__ import LIVE, ROWS, main
from experiments.harness import Experiment, arm, options, run_arms
from experiments.intervals import (
    areas,
    as_number,
    as_percent,
    as_points,
    bootstrap,
    difference,
    mean,
    ratio,
    share,
    unpaired_difference,
)
from thinktime.bench.statistics import mean_interval
from thinktime.strategies.verification.generative_reward import GenerativeReward

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize("words", [[], ["44"], ["forty-five"]])
def test_a_row_without_an_experiment_is_one_line_and_exit_2(words: list[str]) -> None:
    ran = subprocess.run([sys.executable, "-m", "experiments", *words], cwd=ROOT, capture_output=True, text=True)
    assert ran.returncode == 2 and ran.stdout == ""
    (line,) = ran.stderr.splitlines()
    assert (
        line.startswith(f"row={words[0] if words else ''!r}: no experiment") and "01, 02, 05" in line and "45" in line
    )


def test_help_says_what_to_write(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["experiments", "--help"])
    main()
    assert "python -m experiments 45 run --problems 20" in (out := capsys.readouterr().out) and "rows: 01, 02" in out


def test_options_go_to_the_experiment_of_the_row() -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "experiments", "45", "run", "--help"], cwd=ROOT, capture_output=True, text=True
    )
    assert ran.returncode == 0 and "Row 45" in ran.stdout and "--problems" in ran.stdout


def test_options_without_a_part_are_refused_with_the_parts_of_the_row() -> None:
    words = [sys.executable, "-m", "experiments", "06", "--problems", "3"]
    ran = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr == "options='--problems 3': first name a part of row 06: control, run, images.run\n"


def test_every_command_of_the_catalogue_is_run_by_its_row() -> None:
    rows = re.findall(r"^\| (\d\d) \|(.*)$", (ROOT / "docs" / "catalogue.md").read_text(), re.MULTILINE)
    named = {row: set(re.findall(r"experiments\.(\w+\.\w+)", text)) for row, text in rows}
    assert {row for row, modules in named.items() if modules} <= set(ROWS)
    assert all(named[row] <= {*modules, *LIVE.get(row, ())} for row, modules in ROWS.items()), (
        "the cell has the first command of a row"
    )
    pages = "".join(page.read_text() for page in (ROOT / "experiments").glob("*/README.md"))
    assert all(f"experiments.{module}" in pages for modules in ROWS.values() for module in modules)
    every = [module for some in (ROWS, LIVE) for modules in some.values() for module in modules]
    assert all(find_spec(f"experiments.{module}") for module in every)


def test_the_bootstrap_of_a_mean_is_the_interval_of_the_bench() -> None:
    values = np.random.default_rng(1).random(40)
    found = bootstrap(lambda picks: values[picks].mean(-1), len(values), seed=7)
    assert found == pytest.approx(mean_interval(values.tolist(), seed=7).as_dict(), abs=1e-6)
    assert mean(values, seed=7) == mean_interval(values.tolist(), seed=7).as_dict()


def test_a_ratio_divides_sums_over_the_same_problems() -> None:
    a, b = [2.0, 4.0, 6.0, 8.0], [1.0, 2.0, 3.0, 4.0]
    assert ratio(a, b) == {"value": 2.0, "low": 2.0, "high": 2.0}
    assert ratio([1.0, 9.0], [1.0, 1.0]) == {"value": 5.0, "low": 1.0, "high": 9.0}


def test_a_paired_difference_is_narrower_than_an_unpaired_one() -> None:
    easy = np.random.default_rng(0).random(50)
    paired, unpaired = difference(easy + 0.1, easy), unpaired_difference(easy + 0.1, easy)
    assert paired["value"] == pytest.approx(0.1) and unpaired["value"] == pytest.approx(0.1)
    assert paired["high"] - paired["low"] < 1e-6 < unpaired["high"] - unpaired["low"]


def test_estimates_as_text() -> None:
    estimate = {"value": 0.1234, "low": -0.05, "high": 0.2}
    assert as_points(estimate) == "+12.3 [-5.0, +20.0]"
    assert as_percent(estimate) == "12.3 [-5.0, 20.0]" and as_percent(estimate, "+") == as_points(estimate)
    assert as_number(estimate) == "0.12 [-0.05, 0.20]" and as_number(estimate, digits=3) == "0.123 [-0.050, 0.200]"


def test_an_unreadable_judge_never_drops_a_problem() -> None:
    judge = arm("generative_reward:n=4,k=2").strategy
    assert isinstance(judge, GenerativeReward) and judge.unreadable == "plurality"


def test_an_experiment_keeps_its_levels_shares_its_bank_and_records_its_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--problems", "12", "--bank", str(tmp_path / "bank.db"), "--out", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", ["run.py", *words])
    experiment = Experiment(ROOT / "experiments" / "a_star", options("").parse_args(), levels=(1,))
    assert {problem.metadata["level"] for problem in experiment.task.problems} == {1}
    found = experiment.run(["single", "majority:n=2"])
    again = run_arms(["majority:n=2"], experiment.task, experiment.generator, experiment.scorer, experiment.bank)
    assert [o.answer.value for o in again["majority:n=2"]] == [o.answer.value for o in found["majority:n=2"]]
    experiment.finish({"levels": [1]}, ["it holds"])
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    assert result["command"] == "python -m experiments.a_star.run --problems 12 --bank bank.db --out out"
    assert result["n_problems"] == len(experiment.task.problems) and result["verdict"] == ["it holds"]
    assert capsys.readouterr().out.endswith("it holds\n")


def test_a_share_skips_problems_without_samples_and_is_none_without_problems() -> None:
    assert share([1, 0, 2], [2, 0, 2]) == ratio([1.0, 2.0], [2.0, 2.0])
    assert share([0, 0], [0, 0]) is None


def test_areas_over_all_samples_and_within_the_problems_that_have_both() -> None:
    pooled, within = areas([[1.0, 2.0], [5.0, 6.0], [0.0]], [[False, True], [True, False], [True]])
    assert within == [1.0, 0.0] and pooled == pytest.approx(2 / 6)
