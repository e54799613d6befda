"""Entries of a bench that are refused or stop at an error: the others run, and the result file says so."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import pytest
from rich.console import Console
from toy import ANSWERS, Piece, ToyGenerator, done, drawn

from thinktime import cli
from thinktime.answers import TextAnswers
from thinktime.bank.store import Bank
from thinktime.bench.report import headline
from thinktime.bench.runner import Bench, Entry
from thinktime.bench.table import results_table
from thinktime.bench.tally import warnings
from thinktime.bench.tasks import Task
from thinktime.cli.report import print_table
from thinktime.core.errors import CapabilityError, InputError, ModelError
from thinktime.core.search import Search
from thinktime.core.trace import Answer
from thinktime.core.types import Child, Extension, Problem, Sampling
from thinktime.core.usage import total
from thinktime.session import Session
from thinktime.strategies import make

PROBLEMS = tuple(Problem(str(index), f"question {index}", reference="7") for index in range(3))


ERRORS = {
    "input": InputError("size", "[red]", "give 4"),
    "capability": CapabilityError("no steps"),
    "model": ModelError("not now"),
}


@dataclass(frozen=True)
class FailsLater:
    """Solves the first problem, and raises an error at the others."""

    error: str
    needs: ClassVar[frozenset[str]] = frozenset()

    async def __call__(self, search: Search) -> Answer:
        (node,) = await search.extend([search.root])
        if search.problem != PROBLEMS[0]:
            await asyncio.sleep(0.01)
            raise ERRORS[self.error]
        return search.finish(search.candidates([node])[0])


@dataclass(frozen=True)
class Refused:
    """A strategy that refuses every search."""

    needs: ClassVar[frozenset[str]] = frozenset()

    def validate(self, search: Search) -> None:
        raise InputError("size", 3, "give 4 or more")

    async def __call__(self, search: Search) -> Answer:
        raise AssertionError("it was refused")


def bench(bank: Bank, *entries: Entry) -> Bench:
    task = Task("sums", PROBLEMS, ANSWERS, lambda answer, reference: answer == reference)
    session = Session({"main": ToyGenerator(drawn)}, sampling=Sampling(max_length=8))
    return Bench(task, session, entries, bank)


VOTE = Entry("majority", 4, make("majority", {"n": 4}))


def test_a_refused_entry_is_recorded_and_the_others_run(tmp_path: Path) -> None:
    with Bank(tmp_path / "bank.db") as bank:
        run = bench(bank, Entry("refused", 2, Refused()), Entry("best_of_n", 4, make("best_of_n")), VOTE)
        asyncio.run(run.run())
        result = run.result("thinktime bench", {})
    assert [(each["strategy"], each["n_problems"]) for each in result["runs"]] == [("majority", 3)]
    assert [(each["strategy"], each["n"]) for each in result["failed"]] == [("refused", 2), ("best_of_n", 4)]
    assert result["failed"][0]["error"] == "size=3: give 4 or more"
    assert "a scorer" in result["failed"][1]["error"]
    assert not result["complete"]


def test_if_all_entries_are_refused_the_first_reason_is_raised_and_nothing_is_spent(tmp_path: Path) -> None:
    with Bank(tmp_path / "bank.db") as bank:
        run = bench(bank, Entry("best_of_n", 4, make("best_of_n")), Entry("refused", 2, Refused()))
        with pytest.raises(CapabilityError, match="best_of_n"):
            asyncio.run(run.run())
        assert bank.models() == []


@pytest.mark.parametrize("error", ["input", "capability"])
def test_an_entry_that_stops_keeps_its_outcomes_and_the_next_one_runs(tmp_path: Path, error: str) -> None:
    with Bank(tmp_path / "bank.db") as bank:
        run = bench(bank, Entry("failing", 1, FailsLater(error)), VOTE)
        asyncio.run(run.run())
        result = run.result("thinktime bench", {})
    assert [(each["strategy"], each["n_problems"]) for each in result["runs"]] == [("failing", 1), ("majority", 3)]
    assert result["failed"] == [{"strategy": "failing", "n": 1, "error": str(ERRORS[error])}]


def test_an_error_of_the_model_costs_only_the_problems_that_it_hits(tmp_path: Path) -> None:
    with Bank(tmp_path / "bank.db") as bank:
        run = bench(bank, Entry("failing", 1, FailsLater("model")), VOTE)
        asyncio.run(run.run())
        result = run.result("thinktime bench", {})
    assert run.failures == ["not now"] * 2 and result["failed"] == []
    assert [each["n_problems"] for each in result["runs"]] == [1, 3]


def test_an_entry_whose_problems_all_fail_is_recorded(tmp_path: Path) -> None:
    with Bank(tmp_path / "bank.db") as bank:
        run = bench(bank, Entry("failing", 1, FailsLater("model")), VOTE)
        run.task = Task("sums", PROBLEMS[1:], ANSWERS, run.task.check)
        asyncio.run(run.run())
        result = run.result("thinktime bench", {})
    assert [entry["error"] for entry in result["failed"]] == ["not now"] and run.failures == []
    assert [each["strategy"] for each in result["runs"]] == ["majority"]


def test_the_table_names_failed_entries_and_takes_their_reason_as_plain_text(tmp_path: Path) -> None:
    with Bank(tmp_path / "bank.db") as bank:
        run = bench(bank, Entry("failing", 1, FailsLater("input")), VOTE)
        asyncio.run(run.run())
        result = run.result("thinktime bench", {})
    console = Console(width=140)
    with console.capture() as printed:
        console.print(results_table(result, {}))
    assert "failed: failing@1: size='[red]': give 4" in printed.get()


def test_accounts_by_phase_and_role_are_means_that_sum_to_the_usage(tmp_path: Path) -> None:
    with Bank(tmp_path / "bank.db") as bank:
        run = bench(bank, VOTE)
        asyncio.run(run.run())
        (only,) = run.result("thinktime bench", {})["runs"]
    (account,) = only["accounts"]
    assert (account["phase"], account["role"]) == ("online", "model main")
    assert account["usage"] == only["usage"] and "seconds" not in account["usage"]
    spent = total(outcome.answer.usage for outcome in run.outcomes["majority@4"].values())
    assert account["usage"]["generated_tokens"] == spent.generated_tokens / 3


def test_a_bench_with_a_strategy_that_is_refused_writes_its_result_and_exits_with_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    command = "bench pocket --problems 2 --levels 1 --strategies majority,solve_or_verify,best_of_n --n 2 --out run"
    monkeypatch.setattr(sys, "argv", ["thinktime", *command.split(), "--scorer", "none"])
    with pytest.raises(SystemExit) as left:
        cli.run()
    printed = capsys.readouterr()
    assert left.value.code == 1
    last = printed.err.splitlines()[-1]
    assert last.startswith("error: failed: solve_or_verify@2, best_of_n@2: ")
    result = json.loads((tmp_path / "run/result.json").read_text())
    assert [(each["strategy"], each["n_problems"]) for each in result["runs"]] == [("majority", 2)]
    assert [each["strategy"] for each in result["failed"]] == ["solve_or_verify", "best_of_n"]
    assert "best_of_n" in (tmp_path / "run/report.html").read_text() and "best_of_n@2" in printed.out
    monkeypatch.setattr(sys, "argv", ["thinktime", "report", "run/result.json"])
    with pytest.raises(SystemExit) as left:
        cli.run()
    assert left.value.code == 0 and "failed: best_of_n@2" in capsys.readouterr().out


class LateError(ModelError):
    late = True


class Unreliable(ToyGenerator):
    """Of every eight samples four are good, and one each is unreadable, cut, missing and late."""

    def __init__(self) -> None:
        texts = {4: "so I cannot say", 5: "so 7 " * 9}
        super().__init__(lambda extension: done(texts.get(extension.index % 8, "so 7")))

    async def extend(self, extensions: Sequence[Extension]) -> list[Child]:
        errors = {6: ModelError("it broke"), 7: LateError("it took too long")}
        return [
            replace(child, state=e.node.state, finish="error", error=errors[e.index % 8]) if e.index % 8 > 5 else child
            for e, child in zip(extensions, await super().extend(extensions), strict=True)
        ]


def test_samples_that_do_not_vote_are_columns_and_a_warning_and_their_run_is_not_drawn(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    session = Session({"main": Unreliable()}, sampling=Sampling(max_length=8))
    with Bank(tmp_path / "bank.db") as bank:
        entries = [Entry("majority", n, make("majority", {"n": n})) for n in (4, 8)]
        run = Bench(Task("sums", PROBLEMS, ANSWERS), session, entries, bank)
        asyncio.run(run.run())
        result = run.result("thinktime bench", {})
    whole, lacking = result["runs"]
    assert whole["samples"] == {"total": 12, "unreadable": 0, "missing": 0, "cut": 0, "timed_out": 0}
    assert lacking["samples"] == {"total": 24, "unreadable": 3, "missing": 3, "cut": 3, "timed_out": 3}
    (warning,) = warnings(result)
    assert warning.startswith("majority, n = 8: of 24 samples 3 unreadable, 3 missing, 3 cut, 3 timed out")
    print_table(result, {})
    heads, *rows = (
        line.split() for line in capsys.readouterr().out.splitlines() if "majority" in line or "cut" in line
    )
    assert "unreadable" in heads and rows[0].count("0.0%") == 4 and rows[1].count("12.5%") == 4
    assert headline(result).startswith("At n=4, majority solves")
    assert headline({**result, "plot_missing": True}).startswith("At n=8, majority solves")
    assert headline({**result, "runs": [lacking]}) == "Every run lacks some of its samples."


def test_the_samples_of_a_problem_without_any_answer_are_counted_too(tmp_path: Path) -> None:
    class Broken(Unreliable):
        async def extend(self, extensions: Sequence[Extension]) -> list[Child]:
            broken = [
                replace(e, index=6) if e.node.state.prompt == self.root(PROBLEMS[0]).prompt else e for e in extensions
            ]
            return await super().extend(broken)

    session = Session({"main": Broken()}, sampling=Sampling(max_length=8))
    with Bank(tmp_path / "bank.db") as bank:
        run = Bench(Task("sums", PROBLEMS, ANSWERS), session, [VOTE], bank)
        asyncio.run(run.run())
        (only,) = run.result("thinktime bench", {})["runs"]
    assert only["n_problems"] == 2 and only["samples"]["missing"] == 4 and only["samples"]["total"] == 12


def test_answers_that_take_too_long_are_counted_and_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def odd(extension: Extension) -> Piece:
        return done(r"so \boxed{99999999!}" if extension.index == 0 else "so 7")

    task = Task("sums", PROBLEMS, TextAnswers())
    session = Session({"main": ToyGenerator(odd)}, sampling=Sampling(max_length=8))
    with Bank(tmp_path / "bank.db") as bank:
        run = Bench(task, session, [Entry("single", 1, make("single"))], bank)
        asyncio.run(run.run())
        result = run.result("thinktime bench", {})
    assert [each["undecided"] for each in result["runs"]] == [3]
    print_table(result, {})
    assert "single, n = 1: 3 of 3 answers take too long to compute; only the same text equals them" in (
        capsys.readouterr().out
    )
