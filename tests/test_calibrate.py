"""``thinktime calibrate TASK``: what it runs, what it says before, and what it refuses."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from commands import ran

from thinktime.cli.calibrate import sizes_of
from thinktime.planning.calibration_files import read

COUNT = 20


@pytest.mark.parametrize(
    ("budgets", "tokens", "most", "sizes"),
    [
        ([500, 1000, 4000], 100.0, 16, [2, 4, 5, 8, 10, 16]),
        ([500, 1000, 4000], 100.0, 64, [2, 4, 5, 8, 10, 16, 32, 40]),
        ([300], 100.0, 16, [2, 3]),
        ([150], 100.0, 16, []),
    ],
)
def test_sizes_fill_the_budgets(budgets: list[int], tokens: float, most: int, sizes: list[int]) -> None:
    assert sizes_of(budgets, tokens, most) == sizes


def run(strategy: str, n: int) -> dict[str, Any]:
    problems = [
        {"id": str(place), "correct": place < 8 + n, "generated_tokens": 100 * n, "signals": {}}
        for place in range(COUNT)
    ]
    usage = {"generated_tokens": 100.0 * n, "judge_tokens": 0.0, "prompt_tokens": 50.0, "cached_tokens": 0.0}
    samples = {"total": n * COUNT, "unreadable": 0, "missing": 0, "cut": 0, "timed_out": 0}
    row = {"strategy": strategy, "n": n, "n_problems": COUNT, "usage": usage | {"dollars": 0.0}, "samples": samples}
    return row | {"problems": problems}


@pytest.fixture
def benches(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The options of each bench; its result has a majority that gets better with its size."""
    called: list[dict[str, Any]] = []

    def bench(out: Path, **options: Any) -> None:
        called.append(options)
        sizes = [int(size) for size in options["n"].split(",")]
        names = [name for name in options["strategies"].split(",") if name in ("single", "majority")]
        runs = [run(name, n) for name in names for n in (sizes if name == "majority" else [1])]
        made = {"schema": 1, "command": "thinktime calibrate", "environment": {"thinktime": "0"}, "stamp": None}
        made |= {"task": {"name": options["task"], "n": COUNT}, "sampling": {"temperature": 0.7}, "seed": 0}
        made |= {"model": {"generator": "made", "scorer": None}, "runs": runs}
        (out / "result.json").write_text(json.dumps(made))
        (out / "timing.json").write_text(json.dumps({f"{each['strategy']}@{each['n']}": each["n"] for each in runs}))
        print("the table of the bench")
        if len(names) < len(options["strategies"].split(",")):
            raise typer.Exit(1)  # this model cannot run the others

    monkeypatch.setattr(sys.modules["thinktime.cli.bench"], "bench", bench)
    return called


def test_a_task_is_measured_at_the_budgets(benches: list[dict[str, Any]], tmp_path: Path) -> None:
    out = tmp_path / "made.json"
    given = ("--model", "pocket", "--budgets", "250,400", "--problems", "20", "--temperature", "0.7")
    code, shown, errors = ran("calibrate", "gsm8k", *given, "--out", str(out))
    assert code == 0 and "the table of the bench" not in shown, errors
    assert "at most 20 problems of 400 tokens, 8,000 in all" in errors
    assert [call["n"] for call in benches] == ["1", "2,4"]
    assert {call["budget"] for call in benches} == {"400tok"} and benches[0]["bank"] == benches[1]["bank"]
    assert benches[1]["split"] == "train" and benches[1]["scorer"] == ["none"]
    found = read(out)
    assert [each.strategy for each in found.arms] == ["single", "majority:n=2", "majority:n=4"]


def test_a_price_gives_costs_in_dollars_and_timing_gives_seconds(benches: list[dict[str, Any]], tmp_path: Path) -> None:
    out = str(tmp_path / "made.json")
    assert ran("calibrate", "gsm8k", "--budgets", "400", "--price", "10/100", "--out", out)[0] == 0
    assert read(Path(out)).arms[1].cost("dollars") == pytest.approx((10 * 50 + 100 * 200) / 1e6)
    for budget, chosen in (("0.011usd", "single"), ("0.03usd", "majority:n=2"), ("3s", "majority:n=2")):
        code, shown, errors = ran("plan", "gsm8k", "--calibration", out, "--budget", budget)
        assert code == 0 and f"take:    {chosen}: " in shown, errors


def test_a_budget_in_dollars_without_a_price_is_refused(benches: list[dict[str, Any]], tmp_path: Path) -> None:
    out = str(tmp_path / "made.json")
    assert ran("calibrate", "gsm8k", "--budgets", "400", "--out", out)[0] == 0
    code, _, errors = ran("plan", "gsm8k", "--calibration", out, "--budget", "0.01usd")
    assert (code, errors.count("\n")) == (2, 1) and "no measured strategy has known dollars" in errors
    code, shown, _ = ran("plan", "gsm8k", "--calibration", out, "--budget", "0.03usd", "--price", "10/100")
    assert code == 0 and "take:    majority:n=2" in shown


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("gsm8k", "--budgets", "150"), "one sample has 100 tokens; give room for two or more"),
        (("gsm8k", "math500", "--budgets", "400"), "measure one task at a time"),
        (("gsm8k", "--budgets", "a lot"), "give whole numbers separated by commas"),
        (("result.json", "--model", "pocket"), "give the tokens for a problem to measure a task"),
        (("gsm8k", "--budgets", "400", "--price", "cheap"), "price"),
    ],
)
def test_what_cannot_be_measured_is_refused_in_one_line(
    benches: list[dict[str, Any]], tmp_path: Path, words: tuple[str, ...], reason: str
) -> None:
    code, _, errors = ran("calibrate", *words, "--out", str(tmp_path / "made.json"))
    assert code == 2 and reason in errors.splitlines()[-1]
