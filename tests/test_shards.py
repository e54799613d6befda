"""Parts of a bench in several processes: their banks together have the result of one process."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import ray_words
from commands import ran
from hypothesis import given
from hypothesis import strategies as st
from postgres_server import PostgresServer

from thinktime.bank.store import Bank
from thinktime.bench.shards import Shard
from thinktime.core.errors import BankError, InputError
from thinktime.core.types import Problem

BENCH = (
    *("bench", "sums", "--model", "noted", "--scorer", "word_scores", "--max-tokens", "20"),
    *("--strategies", "single,majority,best_of_n", "--n", "4"),
)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The current folder, in which the model is installed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    ray_words.entry_points(tmp_path)


def bench(*options: str) -> dict[str, Any]:
    """The result of a bench that succeeds."""
    code, out, errors = ran(*BENCH, "--json", *options)
    assert code == 0, errors
    result: dict[str, Any] = json.loads(out)
    return result


def whole() -> bytes:
    """The result of one process."""
    bench("--out", "run")
    Path("run").rename("whole")
    Path("drawn").unlink()
    return Path("whole/result.json").read_bytes()


@given(st.integers(1, 20), st.integers(0, 60))
def test_every_item_is_in_one_part_and_the_parts_are_balanced(count: int, size: int) -> None:
    parts = [list(Shard.parse(f"{index}/{count}").of(range(size))) for index in range(1, count + 1)]
    assert sorted(item for part in parts for item in part) == list(range(size))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_merged_banks_of_parts_have_the_result_of_one_process_byte_for_byte() -> None:
    expected = whole()
    for index in (1, 2, 3):
        part = bench("--out", f"part{index}", "--shard", f"{index}/3")
        assert part["complete"] is False and part["task"]["n"] == 8
        assert [run["n_problems"] for run in part["runs"]] == [3 if index < 3 else 2] * 3
    drawn = ray_words.drawn()
    parts = [f"part{index}/bank.db" for index in (1, 2, 3)]
    assert ran("bank", "merge", *parts, "run/bank.db") == (
        0,
        f"run/bank.db: {len(drawn)} samples, {len(drawn)} new\n",
        "",
    )
    bench("--out", "run")
    assert ray_words.drawn() == drawn  # the model is not asked again
    assert Path("run/result.json").read_bytes() == expected
    replayed = bench("--out", "replayed", "--bank", "run/bank.db", "--replay")
    assert replayed["runs"] == json.loads(expected)["runs"]


def test_parts_that_write_one_postgres_bank_need_no_merge(postgres: PostgresServer) -> None:
    url = postgres.bank()
    for index in (1, 2):
        bench("--out", f"part{index}", "--bank", url, "--shard", f"{index}/2")
    drawn = ray_words.drawn()
    joined = bench("--out", "run", "--bank", url)
    assert ray_words.drawn() == drawn and joined["complete"]
    assert ran("bank", "merge", url, "copy.db")[1] == f"copy.db: {len(drawn)} samples, {len(drawn)} new\n"
    assert bench("--out", "copy", "--bank", "copy.db")["runs"] == joined["runs"] and ray_words.drawn() == drawn
    assert joined["runs"] == json.loads(whole())["runs"]


def test_parts_in_one_folder_follow_each_other() -> None:
    expected = whole()
    for index in (1, 2):
        bench("--out", "run", "--shard", f"{index}/2")
    bench("--out", "run")
    assert Path("run/result.json").read_bytes() == expected


@pytest.mark.parametrize(
    ("text", "fix"),
    [
        ("0/4", "the first part is 1/4, the last one is 4/4"),
        ("5/4", "the first part is 1/4, the last one is 4/4"),
        ("1/0", "there is at least one part, as in 1/4"),
        ("a/b", "write it as i/n: 1/4 is the first of four parts"),
        ("-1/4", "write it as i/n: 1/4 is the first of four parts"),
        ("1/4/4", "write it as i/n: 1/4 is the first of four parts"),
        ("", "write it as i/n: 1/4 is the first of four parts"),
        ("9/9", "give at most 8 parts: the task has no more problems"),
    ],
)
def test_a_part_that_does_not_exist_is_refused(text: str, fix: str) -> None:
    assert ran(*BENCH, "--shard", text) == (2, "", f"error: shard={text!r}: {fix}\n")
    assert not Path("runs").exists()


def test_a_merge_keeps_the_first_sample_and_refuses_other_files_of_a_model() -> None:
    for place, fingerprint in (("a.db", "1"), ("b.db", "1"), ("c.db", "2")):
        with Bank(place) as bank:
            bank.bind("m", fingerprint)
            row = {"state": {"in": place, "bytes": b"\0"}, "finish": "eos", "usage": {}, "passes": 1, "log_weight": 0.5}
            bank.add_samples(Problem("p", ""), "m", [("k", row), (place, row)])
            bank.add_verdict("k", "checker", place == "a.db")
            bank.add_provenance("m", {"from": place})
            bank.add_roles("model", {"main": "m"})
    code, out, errors = ran("bank", "merge", "a.db", "b.db", "all.db", "--json")
    assert (code, json.loads(out), errors) == (0, {"bank": "all.db", "samples": 3, "new": 3}, "")
    with Bank("all.db") as bank:
        samples = {sample["key"]: sample["state"]["in"] for sample in bank.samples_of("p")}
        assert samples == {"k": "a.db", "a.db": "a.db", "b.db": "b.db"}
        found = bank.find_sample("b.db")
        assert found is not None and found["state"]["bytes"] == b"\0" and found["log_weight"] == 0.5
        assert bank.verdicts("checker") == {"k": True} and bank.provenance() == {"m": {"from": "a.db"}}
        assert bank.roles("model") == {"main": ["m"]} and bank.fingerprint("m") == "1"
        with Bank("c.db", read_only=True) as other, pytest.raises(BankError, match="other files"):
            bank.add_contents(other.contents())
        assert bank.find_sample("c.db") is None
    assert ran("bank", "merge", "a.db", "b.db", "all.db")[1] == "all.db: 3 samples, 0 new\n"


def test_a_merge_into_one_of_its_banks_or_another_kind_of_database_is_refused() -> None:
    Bank("a.db").close()
    for out, reason in (
        ("./a.db", "this bank gets everything"),
        ("mysql://h/d", "give the path of a file, or postgres"),
    ):
        code, _, errors = ran("bank", "merge", "a.db", out)
        assert (code, len(errors.splitlines())) == (2, 1) and reason in errors, errors
    assert not Path("mysql:").exists()


def test_a_merge_of_what_is_no_bank_makes_none() -> None:
    Path("text.db").write_text("no database")
    code, out, errors = ran("bank", "merge", "text.db", "all.db")
    assert (code, out, len(errors.splitlines())) == (1, "", 1) and errors.startswith("error: bank='text.db': cannot")
    assert not Path("all.db").exists()


@pytest.mark.parametrize("banks", [("nope.db", "all.db"), ("all.db",)])
def test_a_merge_of_nothing_is_refused(banks: tuple[str, ...]) -> None:
    code, out, errors = ran("bank", "merge", *banks)
    assert (code, out, len(errors.splitlines())) == (2, "", 1)
    assert not Path("all.db").exists()


def test_an_input_error_can_be_sent_to_another_process() -> None:
    import pickle

    error = InputError("field", 5, "give another value")
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), str(copy), copy.field, copy.value) == (InputError, str(error), "field", 5)
