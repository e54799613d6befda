"""What experiments over samples share: their input is named when it is missing, their output names no machine."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from experiments.pools import arguments, describe, pools, run, write
from thinktime.bench.samples import Pool, Sample, Sampled
from thinktime.core.errors import InputError


def test_a_folder_without_recorded_samples_ends_the_program_with_one_line(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"folder=.*no recorded samples .* are there; give the folder that holds them"):
        pools(arguments("", [str(tmp_path)]))


def test_a_bank_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    file = tmp_path / "bank.db"
    with pytest.raises(SystemExit, match=r"bank=.*it is not there"):
        pools(arguments("", ["--bank", str(file)]))
    assert not file.exists()


def test_every_file_of_the_folder_is_a_pool_of_its_own(tmp_path: Path) -> None:
    for name in ("one", "two"):
        row = {"outputs": [{"response": "so 7", "response_answer": "7", "label": True}]}
        (tmp_path / f"{name}.jsonl").write_text(json.dumps(row) + "\n")
    assert {name: pool.generator for name, pool in pools(arguments("", [str(tmp_path)])).items()} == {
        "one": "one",
        "two": "two",
    }


def test_what_the_data_can_not_give_is_one_line_not_a_traceback() -> None:
    def main() -> None:
        raise InputError("samples", 16, "it takes 32")

    with pytest.raises(SystemExit, match="samples=16: it takes 32"):
        run(main)


def test_few_problems_and_unknown_tokens_are_said() -> None:
    few = Pool("m", "m", "words", (Sampled("p", (Sample(2, "7", True, text="so 7"),)),))
    facts = describe(few)
    assert facts["note"].startswith("only 1 problems")
    assert facts["length_unit"] == "words; tokens are not recorded"
    many = Pool("m", "hot", "tokens", tuple(Sampled(str(i), few.problems[0].samples) for i in range(30)))
    assert "note" not in describe(many)
    assert describe(many)["length_unit"] == "tokens"


def test_the_command_of_a_result_names_no_folder_of_this_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [str(tmp_path), "--seed", "3", "--out", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", ["run.py", *words])
    plot = write(arguments("", words), Path("experiments/monkeys"), {"pools": {}})
    assert plot == tmp_path / "out" / "recorded.png"
    written = (tmp_path / "out" / "recorded.json").read_text()
    assert json.loads(written)["command"] == f"python -m experiments.monkeys.run {tmp_path.name} --seed 3 --out out"
    assert str(tmp_path) not in written
