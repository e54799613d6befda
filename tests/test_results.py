"""Results of benches: they are not overwritten, and can be compared and exported."""

from __future__ import annotations

import csv
import importlib
import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from commands import ran

from experiments.harness import Experiment, options
from thinktime.bench.compare import compare
from thinktime.core.errors import InputError

BENCH = ("bench", "pocket", "--levels", "1", "--max-tokens", "120", "--temperature", "0.5")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def bench(*options: str) -> tuple[int, str, str]:
    return ran(*BENCH, "--problems", "3", "--strategies", "single,majority", "--n", "2", "--out", "out", *options)


def test_a_result_is_resumed_by_the_same_run_and_not_overwritten_by_another(here: Path) -> None:
    assert bench()[0] == 0
    before = (here / "out/result.json").read_bytes()
    for option, what in (
        ("--seed=1", "seed"),
        ("--n=3", "strategies"),
        ("--top-p=0.9", "sampling"),
        ("--limit=2", "task"),
    ):
        code, _, errors = bench(option)
        assert (code, errors.count("\n")) == (2, 1) and f"another {what}); give another --out, or --force" in errors
        assert (here / "out/result.json").read_bytes() == before
    again = json.loads((here / "out/result.json").read_text())
    assert bench("--replay")[0] == 0
    assert json.loads((here / "out/result.json").read_text())["runs"] == again["runs"]
    assert bench("--seed=1", "--force")[0] == 0
    assert json.loads((here / "out/result.json").read_text())["seed"] == 1


def test_an_experiment_does_not_overwrite_the_result_of_another_command(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def experiment(*words: str) -> Experiment:
        monkeypatch.setattr(sys, "argv", ["run.py", *words])
        nothing: Any = SimpleNamespace()
        return Experiment(here / "made", options("").parse_args(), nothing, nothing)

    experiment("--problems", "2").finish({})
    experiment("--problems", "2").finish({})
    with pytest.raises(SystemExit, match=r"it has the result of 'python -m experiments.made.run --problems 2'"):
        experiment("--problems", "3")
    experiment("--problems", "3", "--force").finish({})
    assert json.loads((here / "made/result.json").read_text())["command"].endswith("--problems 3")


def test_the_samples_of_a_result_are_exported(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert bench()[0] == 0
    code, out, _ = ran("export", "out/result.json", "--csv", "samples.csv")
    assert (code, out) == (0, "9 samples: samples.csv\n")
    with (here / "samples.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    result = json.loads((here / "out/result.json").read_text())
    for run in result["runs"]:
        mine = [row for row in rows if row["strategy"] == run["strategy"]]
        assert len(mine) == run["samples"]["total"] == 3 * run["n"]
        assert sum(int(row["tokens"]) for row in mine) == 3 * run["usage"]["generated_tokens"]
    single = {row["problem"]: row for row in rows if row["strategy"] == "single"}
    for problem in result["runs"][0]["problems"]:
        row = single[problem["id"]]
        assert (row["answer"], row["correct"]) == (problem["answer"] or "", str(problem["correct"]))
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    code, _, errors = ran("export", "out/result.json", "--parquet", "samples.parquet")
    assert code == 2 and "it needs a package: pip install pyarrow" in errors
    assert "give --csv FILE, --parquet FILE or --figure FILE" in ran("export", "out/result.json")[2]
    (here / "out/samples.jsonl").unlink()
    assert "there is no samples.jsonl beside it" in ran("export", "out/result.json", "--csv", "x.csv")[2]


def test_parquet_gets_the_rows_with_their_types(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert bench()[0] == 0
    arrow, parquet, tables = ModuleType("pyarrow"), ModuleType("pyarrow.parquet"), list[Any]()

    def write_table(rows: Any, file: Any) -> None:
        tables.append(rows)
        file.write(b"PAR1")

    monkeypatch.setattr(arrow, "Table", SimpleNamespace(from_pylist=lambda rows: rows), raising=False)
    monkeypatch.setattr(parquet, "write_table", write_table, raising=False)
    monkeypatch.setitem(sys.modules, "pyarrow", arrow)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", parquet)
    assert ran("export", "out/result.json", "--parquet", "samples.parquet", "--json")[0] == 0
    assert (here / "samples.parquet").read_bytes() == b"PAR1" and importlib.import_module("pyarrow") is arrow
    assert {type(row["correct"]) for row in tables[0]} == {bool} and {type(row["n"]) for row in tables[0]} == {int}


def test_a_result_has_the_trees_of_every_strategy_on_the_same_problems(here: Path) -> None:
    options = ("--problems", "3", "--n", "1,2", "--out", "out", "--strategies", "majority,single,beam_search")
    assert ran(*BENCH, *options)[0] == 0
    traces = json.loads((here / "out/result.json").read_text())["traces"]
    shown = [(trace["strategy"], trace["n"]) for trace in traces]
    assert shown[:3] == [("beam_search", 2), ("majority", 2), ("single", 1)] and shown == shown[:3] * (len(shown) // 3)
    ids = [trace["problem"]["id"] for trace in traces]
    assert ids[::3] == ids[1::3] == ids[2::3] and len(set(ids)) == len(ids) // 3
    votes = [trace for trace in traces if trace["strategy"] == "majority"]
    assert all(len(trace["nodes"]) == 3 and trace["nodes"][1]["text"] for trace in votes)


def test_the_plot_of_a_result_is_a_figure(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert bench()[0] == 0
    (here / "out/samples.jsonl").unlink()  # a figure needs no samples
    names = ("plot.svg", "plot.pdf", "plot.png")
    files = [f"--figure={name}" for name in names]
    code, out, _ = ran("export", "out/result.json", *files, "--json")
    assert (code, json.loads(out)) == (0, {"files": list(names), "samples": 0})
    drawn = [(here / name).read_bytes() for name in names]
    assert [content[:5] for content in drawn] == [b"<?xml", b"%PDF-", b"\x89PNG\r"]
    text = drawn[0].decode()
    assert all(word in text for word in ("generated tokens per problem", "majority", "single", "coverage (pass@k)"))
    assert ran("export", "out/result.json", *files)[0] == 0
    assert [(here / name).read_bytes() for name in names] == drawn, "the same result gives the same file"
    code, _, errors = ran("export", "out/result.json", "--figure", "plot.jpeg")
    assert code == 2 and "figure='plot.jpeg': give a name that ends in .svg, .pdf, .png" in errors
    (here / "bad.json").write_text(json.dumps({"schema": 1, "runs": [{"strategy": "single"}]}))
    code, _, errors = ran("export", "bad.json", "--figure", "plot.svg")
    assert code == 2 and "bad.json': it is no whole result" in errors
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    code, _, errors = ran("export", "out/result.json", "--figure", "plot.svg")
    assert code == 2 and "it needs a package: pip install matplotlib" in errors


def test_a_figure_leaves_out_runs_that_lack_samples(here: Path) -> None:
    assert bench()[0] == 0
    file = here / "out/result.json"
    whole = json.loads(file.read_text())
    next(run for run in whole["runs"] if run["strategy"] == "majority")["samples"]["missing"] = 1
    for plot_missing in (False, True):
        file.write_text(json.dumps(whole | {"plot_missing": plot_missing}))
        assert ran("export", "out/result.json", "--figure", "plot.svg")[0] == 0
        assert (">majority<" in (here / "plot.svg").read_text()) == plot_missing


def result(right: dict[str, bool], strategy: str = "single", n: int = 1, **task: Any) -> dict[str, Any]:
    problems = [{"id": id_, "reference": "7", "correct": each} for id_, each in right.items()]
    return {"task": {"name": "sums", **task}, "runs": [{"strategy": strategy, "n": n, "problems": problems}]}


def test_results_are_compared_over_the_problems_that_both_have() -> None:
    a = result({"1": True, "2": False, "3": False, "x": True})
    b = result({"3": True, "2": True, "1": True, "y": False})
    (row,) = compare(a, b)
    assert (row["n_problems"], row["only_a"], row["only_b"], row["better"], row["worse"]) == (3, 1, 1, 2, 0)
    assert row["difference"]["value"] == pytest.approx(2 / 3, abs=1e-6) and row["accuracy_b"]["low"] > 0
    (same,) = compare(a, a)
    assert same["difference"]["low"] == -same["difference"]["high"] < 0  # equal answers do not prove equal accuracies


def test_runs_are_paired_by_name_or_chosen() -> None:
    a, b = result({"1": True}), result({"1": False}, "majority", 8)
    (row,) = compare(a, b)
    assert (row["a"], row["b"]) == ("single@1", "majority@8")
    both = {**a, "runs": [*a["runs"], *b["runs"]]}
    assert [row["a"] for row in compare(both, both)] == ["single@1", "majority@8"]
    (row,) = compare(both, both, "single@1", "majority@8")
    assert row["difference"]["value"] == -1
    with pytest.raises(InputError, match=r"a='x@1': there are: single@1"):
        compare(a, a, "x@1")
    with pytest.raises(InputError, match="no run is in both; choose with --a and --b"):
        compare({**both, "runs": [*both["runs"], *result({}, "x")["runs"]]}, result({}, "y"))


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (result({"1": True}, split="train"), r"task.split='test and train'"),
        (result({"1": True}, split="test", data={"name": "b"}), r"task.data='a and b'"),
        (result({"1": True}, split="test", data={"name": "a"}, name="x"), r"task.name='sums and x'"),
        (result({"2": True}, split="test", data={"name": "a"}), "they have no problem in common"),
    ],
)
def test_results_of_other_tasks_are_not_compared(other: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        compare(result({"1": True}, split="test", data={"name": "a"}), other)


def test_other_references_are_another_task() -> None:
    a, b = result({"1": True}), result({"1": True})
    b["runs"][0]["problems"][0]["reference"] = "8"
    with pytest.raises(InputError, match="problem='1': the results have other references"):
        compare(a, b)


def test_compare_prints_a_table_and_one_line_for_a_file_that_is_no_result(here: Path) -> None:
    whole = {**result({"1": True, "2": True}), "schema": 1}
    (here / "a.json").write_text(json.dumps(whole))
    code, out, _ = ran("compare", "a.json", "a.json")
    assert code == 0 and "second minus first" in out and "100.0% [15.8, 100.0]" in out
    assert json.loads(ran("compare", "a.json", "a.json", "--json")[1])[0]["n_problems"] == 2
    (here / "b.json").write_text(json.dumps({**whole, "runs": [{"strategy": "single", "n": 1}]}))
    code, _, errors = ran("compare", "a.json", "b.json")
    assert (code, errors.count("\n")) == (2, 1) and "one is no whole result (KeyError: 'problems')" in errors
    assert (
        "it is no result of `thinktime bench`"
        in ran("compare", "a.json", "c.json" if (here / "c.json").write_text("{}") else "")[2]
    )
