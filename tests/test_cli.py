"""The command line: exact exit codes, one line per error, and runs that survive being killed."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import fields
from pathlib import Path
from typing import Any, Protocol

import pytest
from program import Finished, Program
from typer.testing import CliRunner
from waiting import PATIENCE

from thinktime import cli
from thinktime.bank.store import Bank
from thinktime.bench.runner import STAMP
from thinktime.core.usage import Usage
from thinktime.generators.local import LocalGenerator
from thinktime.pocket import directory

QUESTION = "Ann has 5 books. Ann buys 3 books. How many books does Ann have now?"
PROGRAM = Path(sys.executable).with_name("thinktime")
BENCH = (
    *("bench", "questions.jsonl", "--strategies", "single,majority,beam_search"),
    *("--n", "4,8", "--max-tokens", "30", "--seed", "3", "--out", "run"),
)
QUESTIONS = (
    ("Ann has 5 books. Ann buys 3 books. How many books does Ann have now?", 8),
    ("Mia has 31 stamps. Mia sells 18 stamps. How many stamps does Mia have now?", 13),
    ("Leo has 46 pens. Leo buys 27 pens. How many pens does Leo have now?", 73),
    ("Cal has 58 cards. Cal buys 67 cards. How many cards does Cal have now?", 125),
    ("Ben has 75 keys. Ben sells 46 keys. How many keys does Ben have now?", 29),
    ("Eli has 12 rings. Eli buys 39 rings. How many rings does Eli have now?", 51),
)
"""Short, because these tests solve them many times."""
N_QUESTIONS = len(QUESTIONS)


class Command(Protocol):
    """Runs ``thinktime`` with these arguments."""

    def __call__(self, *arguments: str) -> Finished: ...


@pytest.fixture
def thinktime(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Iterator[Command]:
    """The program's entry point in this process, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    before = signal.getsignal(signal.SIGTERM)

    def run(*arguments: str) -> Finished:
        monkeypatch.setattr(sys, "argv", ["thinktime", *arguments])
        capsys.readouterr()
        with pytest.raises(SystemExit) as left:
            cli.run()
        captured = capsys.readouterr()
        code = left.value.code
        return Finished(code if isinstance(code, int) else 0, captured.out, captured.err)

    yield run
    signal.signal(signal.SIGTERM, before)


def write_questions(folder: Path) -> None:
    """GSM8K's format: the answer is a derivation that ends in ``#### number``."""
    rows = [{"question": question, "answer": f"The answer follows.\n#### {answer}"} for question, answer in QUESTIONS]
    (folder / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def banked(bank: Path) -> int:
    """The number of samples in a bank, also of another process; 0 if there is no bank or it is locked.

    A stopped process never releases a lock, so waiting for it is useless.
    """
    if not bank.exists():
        return 0
    with closing(sqlite3.connect(f"file:{bank}?mode=ro", uri=True, timeout=0.1)) as db:
        try:
            return int(db.execute("SELECT count(*) FROM samples").fetchone()[0])
        except sqlite3.OperationalError:
            return 0


def stopped_in_the_middle(folder: Path, undisturbed: Path, *, in_background: bool = False) -> Program:
    """A bench in which at least one strategy, but not all, has ended. It is stopped until it gets a signal to continue.

    On a busy machine it may have passed the middle before we check; then another bench is started.
    """
    write_questions(folder)
    limit, late = time.monotonic() + PATIENCE, banked(undisturbed / "run" / "bank.db") - N_QUESTIONS
    program = Program(folder, *BENCH, in_background=in_background)
    while True:
        program.send(signal.SIGSTOP)  # it does not run while we check
        done = banked(folder / "run" / "bank.db")
        if 2 * N_QUESTIONS < done < late:
            return program
        if done >= late:
            program.send(signal.SIGKILL)
            program.finish()
            shutil.rmtree(folder / "run")
            program = Program(folder, *BENCH, in_background=in_background)
        program.send(signal.SIGCONT)
        assert program.running, program.finish()
        assert time.monotonic() < limit
        time.sleep(0.03)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an uninterrupted bench."""
    folder = tmp_path_factory.mktemp("undisturbed")
    write_questions(folder)
    done = Program(folder, *BENCH).finish()
    assert done.code == 0, done.err
    return folder


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of files and model directories with one defect each, and the questions."""
    folder = tmp_path_factory.mktemp("broken")
    write_questions(folder)
    good = json.dumps({"question": QUESTION, "answer": "#### 8"})
    rows = {
        "line": f'{good}\n{{"question": "Ann has\n{good}\n',
        "list": f"{good}\n[1, 2]\n",
        "number": good + "\n" + json.dumps({"question": 5, "answer": "8"}) + "\n",
        "null": good + "\n" + json.dumps({"question": None, "answer": "8"}) + "\n",
        "empty": "",
        "blank": "\n \n",
        "fieldless": f'{good}\n{{"prompt": "How many books does Ann have?", "answer": "8"}}\n',
        "words": good + "\n" + json.dumps({"question": "Bob has 5 zebras.", "answer": "5"}) + "\n",
        "silent": good + "\n" + json.dumps({"question": "", "answer": "5"}) + "\n",
    }
    for name, text in rows.items():
        (folder / f"{name}.jsonl").write_text(text)
    defects = {
        "weights": ("model.safetensors", "no weights"),
        "tokenizer": ("tokenizer.json", '{"no": "tokenizer"}'),
        "config": ("config.json", "{not json"),
        "fields": ("config.json", '{"architectures": ["LlamaForCausalLM"]}'),
        "eos": ("tokenizer_config.json", "{}"),  # the other two files lose their end token in the test
    }
    for name, (file, text) in defects.items():
        shutil.copytree(directory("solver"), folder / name)
        (folder / name / file).write_text(text)
    (folder / "missing").mkdir()
    (folder / "result.json").write_text('{"schema": 1}')
    return folder


def ask(*options: str) -> list[str]:
    return ["ask", QUESTION, *options]


REFUSED = {
    "an unknown strategy, with the nearest": (
        ask("--strategy", "beamsearch"),
        ("strategy", "beamsearch", "beam_search"),
    ),
    "an unknown option of a strategy": (ask("--strategy", "majority:m=4"), ("majority", "'m'", "there are: n")),
    "an option without a value": (ask("--strategy", "majority:n"), ("strategy", "majority:n", "n=value")),
    "an option of the wrong type": (ask("--strategy", "majority:n=four"), ("majority.n", "four")),
    "no sample at all": (ask("--strategy", "majority:n=0"), ("n=0", "1 or more")),
    "a budget of 0 tokens": (ask("--budget", "0tok"), ("budget", "0")),
    "a budget without a unit": (ask("--budget", "0"), ("budget", "'0'", "unit")),
    "a budget of an unknown unit": (ask("--budget", "5apples"), ("budget", "5apples")),
    "a budget that is no number": (ask("--budget", "1.2.3tok"), ("budget", "1.2.3tok")),
    "a budget that is a dot": (ask("--budget", ".tok"), ("budget", ".tok")),
    "an infinite budget": (ask("--budget", "1e400tok"), ("budget", "1e400tok")),
    "a budget without a limit": (ask("--budget", ","), ("budget",)),
    "an empty budget": (ask("--budget", ""), ("budget", "''")),
    "a budget below one token": (ask("--budget", "0.5tok"), ("budget", "0.5")),
    "a budget below one sample": (ask("--budget", "7tok"), ("budget", "7tok", "one sample", "400 tokens")),
    "a budget of operations below one sample": (ask("--budget", "1e3flops"), ("budget", "1e3flops", "one sample")),
    "a bench budget below one sample": (
        ["bench", "questions.jsonl", "--problems", "2", "--strategies", "single", "--budget", "7tok"],
        ("budget", "7", "one sample"),
    ),
    "a temperature below 0": (ask("--temperature", "-0.1"), ("temperature", "-0.1")),
    "a temperature that is no number": (ask("--temperature", "nan"), ("temperature", "nan")),
    "a temperature that is a word": (ask("--temperature", "warm"), ("--temperature",)),
    "a length of 0": (ask("--max-tokens", "0"), ("max_tokens", "0")),
    "an unknown number format": (ask("--dtype", "int4"), ("dtype", "int4")),
    "an unknown aggregate, with the nearest": (ask("--aggregate", "prod"), ("aggregate", "prod", "product")),
    "an unknown option": (ask("--strateg", "majority"), ("--strateg",)),
    "an unknown command": (["aks", QUESTION], ("aks",)),
    "a model directory that is missing": (ask("--model", "nowhere"), ("model", "nowhere")),
    "a model directory without a model": (ask("--model", "missing"), ("model", "missing", "config.json")),
    "a reward model as the model": (
        ask("--model", str(directory("reward"))),
        ("model", "LlamaForTokenClassification"),
    ),
    "a language model as the reward model": (
        ask("--reward-model", str(directory("solver"))),
        ("reward_model", "LlamaForCausalLM"),
    ),
    "a reward model directory that is missing": (ask("--reward-model", "nowhere"), ("reward_model", "nowhere")),
    "a strategy whose needs are not met": (
        ask("--strategy", "beam_search", "--reward-model", "none"),
        ("beam_search", "process rewards", "majority"),
    ),
    "a bench of such strategies alone": (
        ["bench", "questions.jsonl", "--strategies", "best_of_n,beam_search", "--reward-model", "none"],
        ("best_of_n", "a scorer", "majority"),
    ),
    "words the model does not know": (["ask", "Bob has 5 zebras."], ("prompt", "Bob, zebras")),
    "an empty question": (["ask", "  "], ("question",)),
    "an unknown task": (["bench", "poket"], ("task", "poket", "pocket")),
    "no problem": (["bench", "--problems", "0"], ("problems", "0")),
    "a number of problems that is a word": (["bench", "--problems", "many"], ("--problems",)),
    "an unknown level": (["bench", "--levels", "1,6"], ("levels", "6")),
    "a level that is a word": (["bench", "--levels", "easy"], ("levels", "easy")),
    "an unknown split": (["bench", "--split", "tset"], ("split", "tset")),
    "no strategy": (["bench", "--strategies", ","], ("strategies", "','")),
    "an unknown strategy among known ones": (
        ["bench", "--strategies", "single,majorty"],
        ("strategy", "majorty", "majority"),
    ),
    "a sample budget of 0": (["bench", "--n", "1,0"], ("n=0",)),
    "a sample budget that does not divide": (["bench", "--n", "6", "--strategies", "beam_search"], ("n=6", "width")),
    "a broken line, by its number": (["bench", "line.jsonl"], ("line.jsonl", "line 2", "JSON")),
    "a line that is no object, by its number": (["bench", "list.jsonl"], ("list.jsonl", "line 2")),
    "a question that is a number, by its line": (["bench", "number.jsonl"], ("question", "number", "2")),
    "a question that is null, by its line": (["bench", "null.jsonl"], ("question", "null", "2")),
    "a question without text, by its line": (["bench", "silent.jsonl"], ("silent", "2")),
    "a question in unknown words, by its line": (["bench", "words.jsonl"], ("Bob, zebras", "words", "2")),
    "a line without the field, with those it has": (
        ["bench", "fieldless.jsonl"],
        ("field", "question", "line 2", "answer, prompt"),
    ),
    "an empty file": (["bench", "empty.jsonl"], ("empty.jsonl", "empty")),
    "a file of blank lines": (["bench", "blank.jsonl"], ("blank.jsonl", "empty")),
    "a replay of a missing bank": (["bench", "questions.jsonl", "--replay"], ("bank.db", "no such file to replay")),
    "a report of a file that is no result": (["report", "result.json"], ("result", "result.json")),
    "a report of nothing": (["report", "nothing.json"], ("nothing.json",)),
    "a replay of a missing file": (["replay", "nothing.jsonl"], ("file", "nothing.jsonl")),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_with_one_line_and_exit_code_2(
    case: str, thinktime: Command, broken: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments, names = REFUSED[case]
    monkeypatch.chdir(broken)
    out = ["--out", str(tmp_path / "out")] if arguments[0] == "bench" else []
    done = thinktime(*arguments, *out)
    assert (done.code, done.out) == (2, "")
    (line,) = done.err.splitlines()
    assert line.startswith("error: ")
    assert [name for name in names if name not in line] == []
    assert not (tmp_path / "out" / "result.json").exists()


@pytest.mark.parametrize("defect", ["weights", "tokenizer", "config", "fields"])
def test_a_broken_model_file_is_one_line_that_names_it_and_exit_code_1(
    defect: str, thinktime: Command, broken: Path
) -> None:
    done = thinktime("ask", QUESTION, "--model", str(broken / defect))
    assert (done.code, done.out) == (1, "")
    (line,) = done.err.splitlines()
    assert line.startswith("error: ") and str(broken / defect) in line


def test_a_terminal_without_utf_8_gets_question_marks() -> None:
    plain = {**os.environ, "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    done = subprocess.run([str(PROGRAM), "models"], env=plain, capture_output=True, timeout=PATIENCE)
    assert (done.returncode, done.stderr) == (0, b"") and b"?" in done.stdout


def test_a_tokenizer_without_an_end_token_is_refused(thinktime: Command, broken: Path) -> None:
    for name in ("config.json", "generation_config.json"):
        path = broken / "eos" / name
        path.write_text(json.dumps(json.loads(path.read_text()) | {"eos_token_id": None}))
    done = thinktime("ask", QUESTION, "--model", str(broken / "eos"))
    assert (done.code, len(done.err.splitlines())) == (2, 1)
    assert "eos_token" in done.err


def test_ask_prints_one_json_object_with_the_answer_and_the_whole_account(thinktime: Command) -> None:
    done = thinktime("ask", QUESTION, "--strategy", "majority:n=3", "--json")
    assert len(done.out.splitlines()) == 1 and done.err == ""
    out = done.json()
    assert set(out) == {"answer", "finish", "text", "share", "strategy", "usage", "accounts", "path_tokens", "passes"}
    assert set(out["usage"]) == {field.name for field in fields(Usage)}
    assert (out["strategy"], out["usage"]["model_calls"], out["usage"]["scorer_calls"]) == ("majority", 3, 0)
    assert 0 < out["path_tokens"] <= out["passes"] <= out["usage"]["generated_tokens"]
    assert out["finish"] == "done"
    assert out["text"].splitlines()[-1] == f"Answer: {out['answer']}"
    assert 0 < out["share"] <= 1


def test_the_same_question_and_seed_give_the_same_answer_at_the_same_cost(thinktime: Command) -> None:
    first, second = (
        thinktime("ask", QUESTION, "--strategy", "best_of_n:n=4", "--seed", "5", "--json").json() for _ in range(2)
    )
    for found in (first, second):
        for usage in (found["usage"], *(account["usage"] for account in found["accounts"])):
            del usage["seconds"]
    assert first == second


def test_another_seed_gives_other_samples(thinktime: Command) -> None:
    def texts(seed: str) -> list[str]:
        hot = ("--temperature", "2", "--max-tokens", "20", "--tree", "--json")
        tree = thinktime("ask", QUESTION, "--strategy", "majority:n=4", "--seed", seed, *hot).json()["tree"]
        return [node["text"] for node in tree]

    assert texts("1") != texts("2")


def test_a_stop_string_of_ask_may_name_a_line_end(thinktime: Command) -> None:
    def text(*options: str) -> Any:
        greedy = ("ask", QUESTION, "--strategy", "single", "--temperature", "0", "--tree", "--json")
        return thinktime(*greedy, *options).json()["tree"][-1]["text"]

    assert text("--stop", r"\n") == text().split("\n")[0] != text()


def test_the_tree_of_ask_holds_every_node_and_the_parent_of_each(thinktime: Command) -> None:
    out = thinktime("ask", QUESTION, "--strategy", "beam_search:n=4,width=2", "--tree", "--json").json()
    nodes = {node["key"]: node for node in out["tree"]}
    assert len(nodes) == len(out["tree"]) == out["usage"]["model_calls"] + 1
    assert [node["key"] for node in out["tree"] if node["parent"] is None] == [out["tree"][0]["key"]]
    assert all(node["parent"] in nodes for node in out["tree"][1:])
    assert sum(node["tokens"] for node in out["tree"]) == out["usage"]["generated_tokens"]
    assert max(node["depth"] for node in out["tree"]) > 1


def test_ask_keeps_a_token_budget_and_says_that_it_ended_the_search(thinktime: Command) -> None:
    limits = ("--max-tokens", "30", "--budget", "150tok")
    out = thinktime("ask", QUESTION, "--strategy", "majority:n=64", *limits, "--json").json()
    assert 0 < out["usage"]["generated_tokens"] <= 150
    assert out["usage"]["model_calls"] < 64
    assert out["finish"] == "budget"


def test_the_text_of_an_answer_is_printed_unchanged_in_a_narrow_terminal(
    thinktime: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "24")
    text = thinktime("ask", QUESTION, "--strategy", "single", "--temperature", "0", "--json").json()["text"]
    assert max(map(len, text.splitlines())) > 24
    plain = thinktime("ask", QUESTION, "--strategy", "single", "--temperature", "0")
    assert plain.code == 0 and text in plain.out


def test_ask_works_with_a_model_directory_in_place_of_the_shipped_models(thinktime: Command) -> None:
    models = ("--model", str(directory("solver")), "--reward-model", str(directory("reward")))
    out = thinktime("ask", QUESTION, "--strategy", "best_of_n:n=2", *models, "--json").json()
    assert (out["usage"]["model_calls"], out["usage"]["scorer_calls"]) == (2, 2)


def test_a_bench_takes_strategies_with_and_without_options(thinktime: Command, tmp_path: Path) -> None:
    strategies = "majority,a_star:k=2,n_goals=2,ets:n=4,coverage=0,rebase"
    short = ("--problems", "2", "--levels", "1", "--max-tokens", "30")
    done = thinktime("bench", "pocket", *short, "--strategies", strategies, "--n", "2,4", "--out", "out")
    assert done.code == 0, done.err
    runs = json.loads((tmp_path / "out/result.json").read_text())["runs"]
    assert [(run["strategy"], run["n"]) for run in runs] == [
        ("majority", 2),
        ("majority", 4),
        ("a_star:k=2,n_goals=2", 1),
        ("ets:n=4,coverage=0", 4),
        ("rebase", 2),
        ("rebase", 4),
    ]
    assert runs[2]["options"]["n_goals"] == 2 and runs[3]["options"]["coverage"] == 0


def test_a_bench_finds_tau_on_problems_that_it_does_not_test(
    thinktime: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_questions(tmp_path)
    monkeypatch.setattr("thinktime.planning.rejection.PROBLEMS", 3)
    automatic = "early_rejection:n=4,tau=auto"
    command = ("bench", "questions.jsonl", "--max-tokens", "30", "--strategies", f"single,{automatic}", "--out", "out")
    for tested, kept in (("4", True), (str(N_QUESTIONS), False)):
        done = thinktime(*command, "--n", "1", "--problems", tested, "--force")
        assert done.code == 0, done.err
        _, run = json.loads((tmp_path / "out/result.json").read_text())["runs"]
        found = re.search(rf"{automatic}@4: tau=(\d+) keeps \d+% of the best 1 in 4 steps of 2 problems", done.err)
        assert run["strategy"] == automatic and bool(found) == kept
        assert run["options"]["tau"] == (int(found[1]) if found else "auto")


def test_strategies_lists_every_strategy_with_its_options_and_needs(thinktime: Command) -> None:
    found = thinktime("strategies", "--json").json()
    assert {"single", "best_of_n", "majority", "weighted_majority", "beam_search"} <= set(found)
    assert found["beam_search"]["options"] == {"n": 16, "width": 4, "max_rounds": 40, "lookahead": 0}
    assert "process rewards" in found["beam_search"]["needs"]
    assert all(entry["about"] for entry in found.values())
    assert found["beam_search"]["paper"] == "Snell et al. 2024, arXiv 2408.03314, section 5.2"
    text = thinktime("strategies").out
    assert all(re.search(rf"^{name}\b", text, re.MULTILINE) for name in found)
    assert all(entry["paper"] in text for name, entry in found.items() if name != "auto")


def test_strategies_show_describes_one_with_its_options_explained(thinktime: Command) -> None:
    text = thinktime("strategies", "show", "beam_search").out
    assert text.startswith("beam_search\n\nBeam search over steps with a process reward model (Snell et al. 2024")
    assert "lookahead=0\n        steps of the greedy roll-out that is scored in place of a step" in text
    assert text.endswith("process rewards, step boundaries\n")
    found = thinktime("strategies", "show", "beam_search", "--json").json()
    assert found["name"] == "beam_search"
    about = "children of a kept step; ``sqrt`` is the largest divisor of n that is at most its square root."
    assert found["options"]["width"] == {"default": 4, "about": about}
    assert thinktime("strategies", "--json", "show", "beam_search").json() == found
    assert thinktime("strategies", "show", "single").out.endswith("\nneeds: nothing\n")


def test_strategies_show_of_an_unknown_name_gives_the_nearest(thinktime: Command) -> None:
    done = thinktime("strategies", "show", "beem_search")
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
    assert done.err.startswith("error: strategy='beem_search': unknown; did you mean 'beam_search'?")


def test_models_describes_the_shipped_models_and_gives_a_question_that_works(thinktime: Command) -> None:
    found = thinktime("models", "--json").json()
    assert set(found["pocket"]) == {"solver", "reward", "skilled", "retry", "self_evaluation", "digits"}
    assert all("parameters" in entry["description"] for entry in found["pocket"].values())
    assert thinktime("ask", found["example"], "--strategy", "single", "--json").code == 0


def test_the_question_of_a_help_text_is_answered_by_the_installed_program(tmp_path: Path) -> None:
    command = [str(PROGRAM), "ask", QUESTION, "--strategy", "single", "--json"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["usage"]["model_calls"] == 1
    assert list(tmp_path.iterdir()) == []


def test_a_bench_of_gsm8k_lines_writes_result_timing_report_and_bank(undisturbed: Path) -> None:
    result = json.loads((undisturbed / "run" / "result.json").read_text())
    assert result["command"] == "thinktime " + " ".join(BENCH)
    assert (result["complete"], result["task"]["name"], result["task"]["n"]) == (True, "questions", N_QUESTIONS)
    sizes = [(run["strategy"], run["n"]) for run in result["runs"]]
    assert sizes == [("single", 1), *((name, n) for name in ("majority", "beam_search") for n in (4, 8))]
    references = [str(answer) for _, answer in QUESTIONS]
    for run in result["runs"]:
        assert [p["reference"] for p in run["problems"]] == references
        assert [p["correct"] for p in run["problems"]] == [p["answer"] == p["reference"] for p in run["problems"]]
        right = sum(p["correct"] for p in run["problems"]) / N_QUESTIONS
        assert run["accuracy"]["value"] == pytest.approx(right, abs=1e-6)
        assert run["accuracy"]["low"] <= right <= run["accuracy"]["high"]
    assert set(result["coverage"]) == {"1", "2", "4", "8"}
    timing = json.loads((undisturbed / "run" / "timing.json").read_text())
    assert set(timing) == {f"{name}@{n}" for name, n in sizes} and min(timing.values()) > 0
    assert (undisturbed / "run" / "report.html").stat().st_size > 10_000
    assert banked(undisturbed / "run" / "bank.db") > 8 * N_QUESTIONS


def test_a_larger_vote_reuses_the_samples_of_a_smaller_one(thinktime: Command, tmp_path: Path) -> None:
    write_questions(tmp_path)
    short = ("--problems", "3", "--max-tokens", "30")
    thinktime("bench", "questions.jsonl", "--strategies", "single,majority", "--n", "2,4", *short)
    assert banked(tmp_path / "runs" / "bench" / "bank.db") == 3 * 4


def test_a_killed_bench_that_is_run_again_gives_the_same_result_byte_for_byte(
    undisturbed: Path, tmp_path: Path, thinktime: Command
) -> None:
    program = stopped_in_the_middle(tmp_path, undisturbed)
    program.send(signal.SIGKILL)
    assert program.finish().code == -signal.SIGKILL
    run, reference = tmp_path / "run", undisturbed / "run"
    assert 0 < banked(run / "bank.db") < banked(reference / "bank.db")
    assert not (run / "result.json").exists()
    again = thinktime(*BENCH)
    assert again.code == 0, again.err
    assert (run / "result.json").read_bytes() == (reference / "result.json").read_bytes()
    assert banked(run / "bank.db") == banked(reference / "bank.db")


@pytest.mark.parametrize(
    ("kind", "in_background"),
    [(signal.SIGINT, False), (signal.SIGTERM, False), (signal.SIGTERM, True)],
    ids=["SIGINT", "SIGTERM", "SIGTERM in the background"],
)
def test_an_interrupted_bench_shows_its_results_keeps_its_bank_and_can_be_resumed(
    kind: signal.Signals,
    in_background: bool,
    undisturbed: Path,
    tmp_path: Path,
    thinktime: Command,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    program = stopped_in_the_middle(tmp_path, undisturbed, in_background=in_background)
    program.send(kind, signal.SIGCONT)
    stopped = program.finish()
    assert stopped.code == 130
    assert "single" in stopped.out and "finished problems only" in stopped.out
    assert "run the same command again" in stopped.err and "Traceback" not in stopped.err
    run, reference = tmp_path / "run", undisturbed / "run"
    partial = json.loads((run / "result.json").read_text())
    assert partial["complete"] is False
    assert partial["runs"][0]["n_problems"] == N_QUESTIONS
    kept = banked(run / "bank.db")
    assert 2 * N_QUESTIONS < kept < banked(reference / "bank.db")
    monkeypatch.chdir(tmp_path)
    again = thinktime(*BENCH)
    assert again.code == 0, again.err
    assert (run / "result.json").read_bytes() == (reference / "result.json").read_bytes()


def essence(folder: Path) -> dict[str, Any]:
    """A result without the command that made it."""
    result: dict[str, Any] = json.loads((folder / "result.json").read_text())
    del result["command"]
    return result


def no_model(*_: object, **__: object) -> None:
    raise AssertionError("a replay loads no model")


def test_a_replay_of_the_bank_gives_the_live_result_and_loads_no_model(
    undisturbed: Path, thinktime: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LocalGenerator, "__init__", no_model)
    monkeypatch.chdir(undisturbed)
    live = list(BENCH[:-2])
    done = thinktime(*live, "--replay", "--bank", "run/bank.db", "--out", "replayed")
    assert done.code == 0, done.err
    assert essence(undisturbed / "replayed") == essence(undisturbed / "run")


def test_a_replay_with_missing_samples_fails_with_one_line(
    undisturbed: Path, thinktime: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(undisturbed)
    options = ("--strategies", "majority", "--n", "32", "--max-tokens", "30", "--seed", "3")
    done = thinktime("bench", "questions.jsonl", *options, "--replay", "--bank", "run/bank.db", "--out", "lacking")
    assert done.code == 1
    (line,) = done.err.splitlines()
    assert re.match(r"error: failed: majority@32: replay: the bank lacks \d+ samples of solver@", line)


SMALL = (
    *("bench", "questions.jsonl", "--problems", "4", "--max-tokens", "30"),
    *("--strategies", "single,majority,best_of_n", "--n", "4"),
)


@pytest.mark.parametrize("budget", ["70tok", "2calls"])
def test_a_replay_under_a_budget_gives_the_live_result(budget: str, thinktime: Command, tmp_path: Path) -> None:
    write_questions(tmp_path)
    live = thinktime(*SMALL, "--budget", budget, "--out", "live")
    assert live.code == 0, live.err
    replayed = thinktime(*SMALL, "--budget", budget, "--replay", "--bank", "live/bank.db", "--out", "replayed")
    assert replayed.code == 0, replayed.err
    assert essence(tmp_path / "replayed") == essence(tmp_path / "live")


def test_a_replay_under_a_budget_that_needs_the_model_is_refused(thinktime: Command, tmp_path: Path) -> None:
    write_questions(tmp_path)
    budget = ("--budget", "2e8flops")
    live = thinktime(*SMALL, *budget, "--out", "live")
    assert live.code == 0, live.err
    replayed = thinktime(*SMALL, *budget, "--replay", "--bank", "live/bank.db", "--out", "replayed")
    assert (replayed.code, len(replayed.err.splitlines())) == (2, 1)
    assert replayed.err.startswith("error: budget")


def test_a_result_under_a_budget_does_not_depend_on_other_samples_in_the_bank(
    thinktime: Command, tmp_path: Path
) -> None:
    write_questions(tmp_path)
    assert thinktime(*SMALL, "--bank", "full.db", "--out", "full").code == 0
    for name in ("full", "fresh"):
        done = thinktime(*SMALL, "--budget", "70tok", "--bank", f"{name}.db", "--out", name, "--force")
        assert done.code == 0, done.err
    assert essence(tmp_path / "full") == essence(tmp_path / "fresh")


def test_a_bank_in_use_by_another_process_is_refused_with_its_number(undisturbed: Path, tmp_path: Path) -> None:
    write_questions(tmp_path)
    with Bank(tmp_path / "run" / "bank.db"):
        done = Program(tmp_path, *BENCH).finish()
    assert (done.code, done.out) == (1, "")
    (line,) = done.err.splitlines()
    assert line.startswith("error: bank='run/bank.db'") and f"process {os.getpid()} " in line
    assert not (tmp_path / "run" / "result.json").exists()


def test_report_writes_the_report_of_a_result_again(undisturbed: Path, thinktime: Command, tmp_path: Path) -> None:
    for name in ("result.json", "timing.json"):
        shutil.copy(undisturbed / "run" / name, tmp_path / name)
    (tmp_path / "report.html").write_text("old")
    done = thinktime("report", "result.json")
    assert done.code == 0
    assert "majority" in done.out and "report: report.html" in done.out
    assert (tmp_path / "report.html").read_bytes() == (undisturbed / "run" / "report.html").read_bytes()
    assert thinktime("report", "result.json", "--out", "other.html", "--json").json() == {"report": "other.html"}
    assert (tmp_path / "other.html").read_bytes() == (tmp_path / "report.html").read_bytes()


def test_a_bench_by_the_oracle_is_stamped_and_an_answer_by_it_is_refused(thinktime: Command) -> None:
    command = (
        "bench",
        "--problems",
        "2",
        "--max-tokens",
        "30",
        "--strategies",
        "best_of_n",
        "--n",
        "2",
        "--out",
        "run",
    )
    assert STAMP in " ".join(thinktime(*command, "--scorer", "oracle").out.split())
    assert json.loads(thinktime(*command, "--scorer", "oracle", "--json").out)["stamp"] == STAMP
    refused = thinktime("ask", QUESTION, "--scorer", "oracle")
    assert refused.code == 2
    assert "scorer='oracle': it uses the reference answers: a control for `thinktime bench`" in refused.err


def test_help_names_every_command(thinktime: Command) -> None:
    done = thinktime("--help")
    assert done.code == 0
    for command in ("ask", "bench", "replay", "report", "models", "strategies", "demo"):
        assert re.search(rf"\b{command}\b", done.out)


@pytest.mark.parametrize("command", ["ask", "bench", "serve", "replay", "report", "models", "demo", "strategies"])
def test_every_command_has_a_help_text(command: str) -> None:
    result = CliRunner().invoke(cli.app, [command, "--help"])
    assert result.exit_code == 0 and "--help" in result.output


@pytest.mark.parametrize("room", [30_000, 100_000])
def test_a_bench_on_a_full_disk_ends_in_one_line_and_goes_on_where_there_is_room_again(
    tmp_path: Path, room: int
) -> None:
    bench = ("bench", "pocket", "--problems", "4", "--strategies", "majority", "--n", "8", "--out")
    cut = Program(tmp_path, *bench, "cut", largest_file=room).finish()
    assert cut.code == 1 and "disk I/O error" in cut.err and len(cut.err.splitlines()) == 1
    for folder in ("cut", "whole"):
        assert Program(tmp_path, *bench, folder).finish().code == 0
    result = tmp_path / "whole" / "result.json"
    runs = [json.loads((tmp_path / folder / "result.json").read_text())["runs"] for folder in ("cut", "whole")]
    assert runs[0] == runs[1]
    before = result.read_bytes()
    assert Program(tmp_path, *bench, "whole", largest_file=3_000).finish().code == 1
    assert result.read_bytes() == before
