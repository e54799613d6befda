"""Verifiers that execute programs, and measures of their reliability, worked out by hand."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from toy import ToyGenerator, done
from typer.testing import CliRunner

from experiments.monkeys.health import Judged, health
from thinktime.bank.store import Bank
from thinktime.bench.controls import Oracle
from thinktime.bench.execution import Programs, arithmetic
from thinktime.bench.runner import Bench, Entry
from thinktime.bench.tasks import load
from thinktime.cli import app
from thinktime.cli.report import print_table
from thinktime.core.errors import InputError
from thinktime.core.types import Sampling
from thinktime.generators.text import Text
from thinktime.pocket.problems import problems
from thinktime.sandbox.running import why_not
from thinktime.session import Session
from thinktime.strategies import make

# Arithmetic


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("Then Ann buys 3 figs, 3 + 4 = 7.\nAnswer: 7", True),
        ("3 + 4 = 7.\n7 - 2 = 4.", False),
        ("60*3=<<60*3=180>>180 metres, 9 * $2 = $<<9*2=18>>18", True),
        ("1,000 + 200 = 1,200 and (16 - 3) x 2 = 26 (so 10 - -4 = 14)", True),
        ("1/3 = .33", True),
        ("1/3 = .34", False),
        ("2 + 3 = 6 - 1 = 5", True),
        ("2 + 3 = 6 = 5", False),
        ("5 / 0 = 3", False),
        ("1.05 * 2 = 2.10 and 03 + 4 = 7", True),
        ("He has 5. 3 + 4 = 7. 20% of 50 = 10", True),
        ("The answer is 7, for x = 7", False),
    ],
)
def test_a_solution_is_accepted_if_all_its_equations_hold(text: str, holds: bool) -> None:
    assert arithmetic(text) is holds


def test_reference_solutions_are_accepted() -> None:
    assert all(arithmetic(problem.solution) for problem in problems("dev", 40))


# Programs (test_sandbox.py has what they may do)


def test_the_last_fenced_block_is_the_program_and_is_compared_exactly() -> None:
    answers = Programs()
    assert answers.read(Text((), text="First\n```python\nx = 1\n```\nthen\n```\nif x:\n    y = 2\n```")) == (
        "if x:\n    y = 2\n"
    )
    assert answers.read(Text((), text="x = 1")) == "x = 1"
    assert answers.key("X = 1") != answers.key("x = 1")


WHY_NOT = why_not()
NEEDS_BUBBLEWRAP = pytest.mark.skipif(WHY_NOT is not None, reason=f"bubblewrap: {WHY_NOT}")
PROGRAMS = ("def f(x): return x", "def f(x): return 2 * x", "def f(x): return x + 1", "def f(x) return")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """The third program passes the first problem, the second program the second, and none passes the third."""
    path = tmp_path / "programs.jsonl"
    tests = ("assert f(1) == 2 and f(2) == 3", "assert f(3) == 6", "assert f(1) == 9")
    path.write_text("\n".join(json.dumps({"question": f"f {i}", "tests": test}) for i, test in enumerate(tests)))
    return path


@pytest.mark.parametrize("unsafe", [pytest.param(False, marks=NEEDS_BUBBLEWRAP), True])
def test_with_tests_as_the_verifier_selection_equals_coverage(
    file: Path, tmp_path: Path, unsafe: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    task = load(f"programs:{file}", unsafe=unsafe)
    generator = ToyGenerator({str(i): done(program) for i, program in enumerate(PROGRAMS)})
    with Bank(tmp_path / "bank.db") as bank:
        entries = [Entry(name, 4, make(name, {"n": 4})) for name in ("best_of_n", "majority")]
        session = Session({"main": generator}, {"main": Oracle(task)}, sampling=Sampling(max_length=20))
        bench = Bench(task, session, entries, bank)
        asyncio.run(bench.run())
    selected = [outcome.correct for outcome in bench.outcomes["best_of_n@4"].values()]
    assert selected == [any(outcome.samples) for outcome in bench.outcomes["best_of_n@4"].values()]
    assert selected == [True, True, False]
    assert [outcome.correct for outcome in bench.outcomes["majority@4"].values()] == [False] * 3, "all differ"
    result = bench.result("thinktime bench", {})
    assert result["sandbox"] == ("none" if unsafe else "bubblewrap")
    assert result["verdicts"] == {"failed": 10, "passed": 2}
    print_table(result, {})
    assert f"sandbox: {result['sandbox']}   programs: 10 failed, 2 passed\n" in capsys.readouterr().out


ODD = {
    "a NUL": "x = '\0'",
    "200 KB": f"x = '{'x' * 200_000}'",
    "a deep tree": "import os; [(os.mkdir('d'), os.chdir('d')) for _ in range(1100)]",
}


@NEEDS_BUBBLEWRAP
@pytest.mark.parametrize("odd", ODD)
def test_no_program_ends_a_bench(file: Path, tmp_path: Path, odd: str) -> None:
    task = load(f"programs:{file}")
    generator = ToyGenerator({"0": done(ODD[odd]), "1": done(PROGRAMS[2])})
    for _ in ("live", "from the bank"):
        with Bank(tmp_path / "bank.db") as bank:
            session = Session({"main": generator}, {"main": Oracle(task)}, sampling=Sampling(max_length=20))
            bench = Bench(task, session, [Entry("best_of_n", 2, make("best_of_n", {"n": 2}))], bank)
            asyncio.run(bench.run())
            assert [outcome.correct for outcome in bench.outcomes["best_of_n@2"].values()] == [True, False, False]
            json.dumps(bench.result("thinktime bench", {})).encode()


def test_without_bubblewrap_a_bench_of_programs_needs_unsafe(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    refused = CliRunner().invoke(app, ["bench", f"programs:{file}"]).exception
    assert isinstance(refused, InputError)
    assert str(refused).startswith("sandbox='bubblewrap': it is not installed; install bubblewrap (bwrap)")
    after = CliRunner().invoke(app, ["bench", f"programs:{file}", "--unsafe", "--reader", "x"]).exception
    assert isinstance(after, InputError) and after.field == "reader"


def test_a_file_without_tests_is_refused(tmp_path: Path) -> None:
    (tmp_path / "some.jsonl").write_text('{"question": "f", "answer": "7"}')
    with pytest.raises(InputError, match=r"field='tests': .*line 1 lacks it; its fields are: answer, question"):
        load(f"programs:{tmp_path / 'some.jsonl'}")


# Health


def test_the_health_of_a_verifier_by_hand() -> None:
    """Wrong: accepted, rejected, out of time. Right: accepted, accepted, rejected (by its first run; flaky)."""
    one = [Judged((True, True), False), Judged((False, False), False), Judged((True, True), True)]
    two = [Judged((None, False), False), Judged((True, True), True), Judged((False, True), True)]
    found = health([one, two])
    assert found.false_positives and found.false_negatives and found.wrong_accepted and found.flaky
    assert found.false_positives.value == pytest.approx(1 / 3)
    assert found.false_negatives.value == pytest.approx(1 / 3)
    assert found.wrong_accepted.value == pytest.approx(1 / 3)
    assert found.flaky.value == pytest.approx(1 / 6)
    assert (found.flaky_problems, found.out_of_time) == ((1,), 1)
    # the resamples are both problems, twice the first, or twice the second: 1/3, 1/2 and 0
    assert (found.false_positives.low, found.false_positives.high) == (0.0, 0.5)


def test_a_share_of_nothing_is_unknown() -> None:
    found = health([[Judged((False,), True)], []])
    assert found.false_negatives is not None and found.false_negatives.value == 1.0
    assert (found.false_positives, found.wrong_accepted) == (None, None)


def test_health_needs_verified_samples() -> None:
    with pytest.raises(InputError, match="samples=0: give samples of known correctness"):
        health([[], []])
    with pytest.raises(
        InputError, match=r"verdicts=\(\): problem 1 has a sample without a verdict; run the verifier on it"
    ):
        health([[Judged((True,), True)], [Judged((), True)]])
