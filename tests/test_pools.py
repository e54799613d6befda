"""Experiments over recorded samples: errors name a missing input, and results contain no path of this machine."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from experiments.pools import arguments, describe, pools, run
from thinktime.bench.samples import Pool, Sample, Sampled
from thinktime.core.errors import InputError


def test_a_folder_without_recorded_samples_ends_the_program_with_one_line(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"folder=.*no recorded samples .* are there; give the folder that holds them"):
        pools(arguments("", [str(tmp_path)]))


def test_a_missing_bank_is_an_error_and_is_not_created(tmp_path: Path) -> None:
    file = tmp_path / "bank.db"
    with pytest.raises(SystemExit, match=r"bank=.*it is not there"):
        pools(arguments("", ["--bank", str(file)]))
    assert not file.exists()


def recorded(folder: Path, *names: str) -> Path:
    """A folder with a file of recorded samples for each name."""
    row = {"outputs": [{"response": "so 7", "response_answer": "7", "label": True}]}
    for name in names:
        (folder / f"{name}.jsonl").write_text(json.dumps(row) + "\n")
    return folder


def test_every_file_of_the_folder_is_a_pool_of_its_own(tmp_path: Path) -> None:
    args = arguments("", [str(recorded(tmp_path, "one", "two"))])
    assert {name: pool.generator for name, pool in pools(args).items()} == {"one": "one", "two": "two"}


def test_unsuitable_data_gives_one_line_and_no_traceback(tmp_path: Path) -> None:
    def analyse(pool: Pool, seed: int) -> dict[str, Any]:
        raise InputError("samples", 16, "it takes 32")

    argv = [str(recorded(tmp_path, "one"))]
    with pytest.raises(SystemExit, match="samples=16: it takes 32"):
        run(tmp_path, "", analyse, dict, lambda result, path: None, lambda measured: [], argv=argv)


def test_few_problems_and_unknown_tokens_are_reported() -> None:
    few = Pool("m", "m", "words", (Sampled("p", (Sample(2, "7", True, text="so 7"),)),))
    described = describe(few)
    assert described["note"].startswith("only 1 problems")
    assert described["length_unit"] == "words; tokens are not recorded"
    many = Pool("m", "hot", "tokens", tuple(Sampled(str(i), few.problems[0].samples) for i in range(30)))
    assert "note" not in describe(many)
    assert describe(many)["length_unit"] == "tokens"


def test_a_result_has_measurements_and_verdict_of_every_pool_and_names_no_folder_of_this_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [str(recorded(tmp_path, "one")), "--seed", "3", "--out", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", ["run.py", *words])
    plotted: list[Path] = []
    run(
        Path("experiments/monkeys"),
        "",
        lambda pool, seed: describe(pool) | {"seed": seed},
        lambda measured: {"verdict": "holds"},
        lambda result, path: plotted.append(path),
        lambda measured: [f"seed {measured['seed']}"],
        lambda found, measured: {"pools_in_all": len(found)},
    )
    assert plotted == [tmp_path / "out" / "recorded.png"]
    written = (tmp_path / "out" / "recorded.json").read_text()
    result = json.loads(written)
    assert result["command"] == f"python -m experiments.monkeys.run {tmp_path.name} --seed 3 --out out"
    assert str(tmp_path) not in written
    assert result["pools"]["one"] | {"seed": 3, "verdict": {"verdict": "holds"}} == result["pools"]["one"]
    assert result["pools_in_all"] == 1
    assert capsys.readouterr().out.splitlines()[1:] == ["  seed 3", "  verdict: {'verdict': 'holds'}"]
