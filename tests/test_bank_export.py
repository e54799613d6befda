"""Exports of banks: a replay from an export gives the result of a replay from the bank, byte for byte."""

from __future__ import annotations

import gzip
import json
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from commands import ran
from postgres_server import PostgresServer

from thinktime.bank.store import Bank
from thinktime.bench.bank_export import LONGEST, exported_bank, exported_pool
from thinktime.bench.samples import banked_pool
from thinktime.bench.tasks import load
from thinktime.core.errors import BankError, InputError
from thinktime.core.types import Sampling
from thinktime.generators.local import LocalGenerator

QUESTIONS = (
    ("Ann has 5 books. Ann buys 3 books. How many books does Ann have now?", 8),
    ("Cal has 58 cards. Cal buys 67 cards. How many cards does Cal have now?", 125),
    ("Ben has 75 keys. Ben sells 46 keys. How many keys does Ben have now?", 29),
)
STRATEGIES = "single,majority,best_of_n,weighted_majority,most_likely,summed_probability,first_finish"
BENCH = ("bench", "questions.jsonl", "--strategies", STRATEGIES, "--n", "4", "--max-tokens", "30")
STOP = ("--stop", "8")
EXPORT = ("bank", "export", "run/bank.db", "export/samples", "--task", "questions.jsonl", "--max-tokens", "30")


@pytest.fixture(scope="module", params=[(), STOP], ids=["plain", "stop strings"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a bench on the shipped models, and an export of its bank."""
    made = tmp_path_factory.mktemp("exported")
    (made / "export").mkdir()
    lines = [json.dumps({"question": question, "answer": str(answer)}) for question, answer in QUESTIONS]
    (made / "questions.jsonl").write_text("\n".join(lines))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(made)
        code, _, errors = ran(*BENCH, *request.param, "--out", "run")
        assert code == 0, errors
        code, out, errors = ran(*EXPORT, *request.param, "--json")
        assert code == 0, errors
    (made / "stop.json").write_text(json.dumps(request.param))
    (made / "header.json").write_text(json.dumps(json.loads(out)["header"]))
    return made


@pytest.fixture(scope="module")
def rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in gzip.open(folder / "export" / "samples", "rt")]


def replayed(folder: Path, source: Path, monkeypatch: pytest.MonkeyPatch) -> bytes:
    """The result of a replay, whose command does not show where the samples come from."""
    monkeypatch.chdir(folder)
    source.rename("samples")
    stop = json.loads((folder / "stop.json").read_text())
    try:
        code, _, errors = ran(*BENCH, *stop, "--replay", "--bank", "samples", "--out", "replayed")
    finally:
        Path("samples").rename(source)
    assert code == 0, errors
    return Path("replayed/result.json").read_bytes()


def test_a_replay_of_the_export_is_a_replay_of_the_bank(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_model(*_: object, **__: object) -> None:
        raise AssertionError("a replay loads no model")

    monkeypatch.setattr(LocalGenerator, "__init__", no_model)
    of_bank = replayed(folder, folder / "run" / "bank.db", monkeypatch)
    of_export = replayed(folder, folder / "export" / "samples", monkeypatch)
    assert of_export == of_bank
    assert [run["strategy"] for run in json.loads(of_bank)["runs"]] == STRATEGIES.split(",")


def test_the_header_says_how_the_samples_were_made(folder: Path, rows: list[dict[str, Any]]) -> None:
    header = rows[0]
    assert header == json.loads((folder / "header.json").read_text())
    assert header["format"] == "thinktime samples" and header["schema"] == 1
    assert header["model"].startswith("solver@") and header["command"].startswith("thinktime bank export run/bank.db")
    assert header["sampling"]["max_length"] == 30 and header["sampling"]["temperature"] == 1.0
    samples = [row for row in rows[1:] if "root" in row]
    whole = [row for row in samples if "cut" not in row]
    assert len(whole) == 12 and {row["index"] for row in whole} == set(range(4))
    assert header["n"] == {
        "problems": 3,
        "samples": len(samples),
        "tokens": sum(row["tokens"] for row in samples),
        "scores": len(rows) - 1 - len(samples),
    }
    assert header["n"]["scores"] >= 12


def test_an_export_goes_into_postgres_and_comes_out_as_it_was(
    folder: Path, rows: list[dict[str, Any]], postgres: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = postgres.bank()
    monkeypatch.chdir(folder)
    code, out, errors = ran("bank", "import", "export/samples", place)
    assert (code, errors) == (0, "") and out.startswith(f"postgresql://owner@127.0.0.1:{postgres.port}/postgres: ")
    stop = json.loads((folder / "stop.json").read_text())
    given = place.replace("owner@", "owner:s3cret@")
    code, _, errors = ran("bank", "export", given, str(tmp_path / "again"), *EXPORT[4:], *stop)
    assert code == 0, errors
    with gzip.open(tmp_path / "again", "rt") as file:
        header, *again = map(json.loads, file)
    assert again == [row for row in rows[1:] if "root" in row]
    kept = ("model", "fingerprint", "provenance", "sampling", "seed", "task")
    assert [header[name] for name in kept] == [rows[0][name] for name in kept]
    assert "s3cret" not in header["command"]


def test_log_probabilities_of_single_tokens_are_kept_in_thousandths(rows: list[dict[str, Any]]) -> None:
    whole = [row for row in rows[1:] if "root" in row and "cut" not in row]
    for row in whole:
        assert len(row["logprobs"]) == row["tokens"]
        assert sum(row["logprobs"]) / -1000 == pytest.approx(row["logprob"], abs=row["tokens"] * 0.0005)
    assert any(number > 0 for row in whole for number in row["logprobs"])


def test_the_bank_of_an_export_has_the_same_samples(folder: Path) -> None:
    with exported_bank(folder / "export" / "samples") as copy, Bank(folder / "run" / "bank.db", read_only=True) as bank:
        assert copy.models() == bank.models() and copy.scorers() == bank.scorers()
        assert copy.roles("model") == bank.roles("model")
        assert len(copy) == len(bank)
        for problem in ("questions-1", "questions-2", "questions-3"):
            for mine, other in zip(copy.samples_of(problem), bank.samples_of(problem), strict=True):
                assert (mine["key"], mine["finish"]) == (other["key"], other["finish"])
                assert mine["state"]["text"] == other["state"]["text"]
                assert mine["state"]["logprobs"] == other["state"].get("logprobs", [])
                assert mine["state"]["tokens"] == len(other["state"]["ids"])


def test_the_same_bank_gives_the_same_bytes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    stop = json.loads((folder / "stop.json").read_text())
    again = [word if word != "export/samples" else "export/samples2" for word in (*EXPORT, *stop, "--json")]
    assert ran(*again)[0] == 0
    one, other = (gzip.decompress((folder / "export" / name).read_bytes()) for name in ("samples", "samples2"))
    (folder / "export" / "samples2").unlink()
    assert one.splitlines()[1:] == other.splitlines()[1:]


def test_wrong_options_name_the_settings_that_the_bank_lacks(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    code, _, errors = ran(*EXPORT[:3], "export/other", *EXPORT[4:], "--temperature", "0.5")
    assert code == 2 and len(errors.splitlines()) == 1
    assert "no samples of questions with temperature 0.5, 30 tokens" in errors
    code, _, errors = ran(*EXPORT)
    assert code == 2 and "export/samples" in errors and "it exists" in errors


def test_an_export_is_refused_where_a_bank_is_written_and_by_the_other_replay(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    code, _, errors = ran(*BENCH, "--bank", "export/samples")
    assert code == 2 and "add --replay" in errors and len(errors.splitlines()) == 1
    code, _, errors = ran("replay", "export/samples")
    assert code == 2 and "bench TASK --replay --bank export/samples" in errors


def test_a_replay_asks_only_the_problems_of_its_export(
    folder: Path, rows: list[dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    stop = json.loads((folder / "stop.json").read_text())
    command = ("bench", "questions.jsonl", "--strategies", "single", "--n", "1", "--max-tokens", "30", *stop, "--json")

    def replay(*missing: str) -> tuple[int, str, str]:
        kept = [row for row in rows if row.get("problem") not in missing]
        kept = changed(kept, 0, n=rows[0]["n"] | {"samples": sum("root" in row for row in kept)})
        path = tmp_path / f"{len(missing)}.jsonl.gz"
        path.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in kept).encode(), 1))
        return ran(*command, "--replay", "--bank", str(path), "--out", str(tmp_path / path.stem))

    code, out, errors = replay("questions-2")
    assert code == 0, errors
    assert [run["n_problems"] for run in json.loads(out)["runs"]] == [2]
    code, _, errors = replay("questions-1", "questions-2", "questions-3")
    assert code == 2 and "no sample of the problems of questions" in errors


# Bad files

Rows = list[dict[str, Any]]


def changed(rows: Rows, place: int, **fields: Any) -> Rows:
    return [{**row, **fields} if index == place else row for index, row in enumerate(rows)]


BAD: dict[str, tuple[Callable[[Rows], Rows], str]] = {
    "another schema": (lambda rows: changed(rows, 0, schema=2), "it has schema 2, and this version reads schema 1"),
    "foreign JSON": (lambda rows: [{"question": "?"}, *rows], "its first line does not say"),
    "no counts": (lambda rows: changed(rows, 0, n=None), "line 1.*n='None' is missing"),
    "roles that are no names": (
        lambda rows: changed(rows, 0, roles={"model": {"main": 1}}),
        "line 1.*roles of 'model'",
    ),
    "a key that is there twice": (lambda rows: [*rows[:3], rows[2], *rows[3:]], "line 4.*is there twice"),
    "a score that is there twice": (lambda rows: [*rows, rows[-1]], "is there twice"),
    "a missing line": (lambda rows: [*rows[:2], *rows[3:]], "take a whole copy"),
    "a text that is none": (lambda rows: changed(rows, 1, text=7), "line 2.*text='7'"),
    "a number that is infinite": (lambda rows: changed(rows, 1, logprob=float("inf")), "line 2.*logprob='inf'"),
    "an unknown finish": (lambda rows: changed(rows, 1, finish="eaten"), "line 2.*'eaten'"),
    "an unknown count": (lambda rows: changed(rows, 1, usage={"apples": 1}), "line 2.*apples"),
    "a negative count": (lambda rows: changed(rows, 1, usage={"seconds": -1.0}), "line 2.*seconds"),
    "log-probabilities that are none": (lambda rows: changed(rows, 1, logprobs=[0.5]), "line 2.*logprobs"),
    "many cuts": (lambda rows: changed(rows, 1, cut=10**12), "line 2.*cut="),
    "an enormous line": (lambda rows: changed(rows, 1, text="x" * LONGEST), "line 2.*more than 4,000,000 characters"),
}


def refusal(path: Path) -> str:
    with pytest.raises(InputError) as raised, exported_bank(path):
        pass
    return str(raised.value)


@pytest.mark.parametrize("name", BAD)
def test_a_bad_export_is_one_line(name: str, rows: Rows, tmp_path: Path) -> None:
    spoil, message = BAD[name]
    path = tmp_path / "bad.jsonl.gz"
    path.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in spoil(rows)).encode(), 1))
    with pytest.raises(InputError, match=message) as raised, exported_bank(path):
        pass
    assert len(str(raised.value).splitlines()) == 1


def test_a_cut_file_is_one_line(folder: Path, tmp_path: Path) -> None:
    whole = (folder / "export" / "samples").read_bytes()
    for size in (3, 200, len(whole) // 2, len(whole) - 4):
        (tmp_path / "cut.jsonl.gz").write_bytes(whole[:size])
        assert "cannot read it" in refusal(tmp_path / "cut.jsonl.gz")
    (tmp_path / "cut.jsonl.gz").write_bytes(whole[:500] + b"\0" * 9 + whole[509:])
    assert len(refusal(tmp_path / "cut.jsonl.gz").splitlines()) == 1


# Reading a bank


def test_a_bank_is_read_while_another_process_writes_it(tmp_path: Path) -> None:
    path = tmp_path / "bank.db"
    writer = (
        "import sys; from thinktime.bank.store import Bank; from thinktime.core.usage import Usage\n"
        "bank = Bank(sys.argv[1]); bank.add_scores('judge', []); bank.bind('toy', 'f'); print('ready', flush=True)\n"
        "sys.stdin.read(); bank.bind('other', 'g'); bank.close()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", writer, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        with Bank(path, read_only=True) as bank:
            assert bank.fingerprint("toy") == "f" and bank.fingerprint("other") is None
            with pytest.raises(BankError, match="readonly"):
                bank.bind("mine", "h")
        process.communicate("")
    assert process.returncode == 0
    with Bank(path, read_only=True) as bank:  # nothing is open, and there is no log
        assert bank.fingerprint("other") == "g"


def test_a_bank_that_is_open_here_is_not_opened_to_read(tmp_path: Path) -> None:
    with Bank(tmp_path / "bank.db"), pytest.raises(BankError, match="this process is using it"):
        Bank(tmp_path / "bank.db", read_only=True)
    assert sqlite3.connect(tmp_path / "bank.db").execute("SELECT count(*) FROM samples").fetchone() == (0,)


def test_samples_are_in_the_order_of_problems_and_indices(rows: list[dict[str, Any]]) -> None:
    places = [(row["problem"], row["index"], row.get("cut", 0)) for row in rows[1:] if "root" in row]
    assert all(one < other for one, other in pairwise(places))


def test_the_pool_of_an_export_is_the_pool_of_its_bank(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    task = load("questions.jsonl")
    stop = tuple(json.loads((folder / "stop.json").read_text())[1:])
    sampling = Sampling(max_length=30, stop=stop)
    found = exported_pool(folder / "export" / "samples", task, 4)
    with Bank(folder / "run" / "bank.db", read_only=True) as bank:
        banked = banked_pool(bank, task, sampling, 4)
    without_rewards = [replace(s, reward=None) for problem in banked.problems for s in problem.samples]
    assert [sample for problem in found.problems for sample in problem.samples] == without_rewards
    assert (found.generator, found.unit) == (banked.generator, banked.unit)
    with pytest.raises(InputError, match="no problem of questions with as many samples"):
        exported_pool(folder / "export" / "samples", task, 5)


# Continuing an export

SETTINGS = ("--max-tokens", "30", "--strategies", "majority,best_of_n")


def continued(folder: Path, out: Path, *options: str) -> tuple[int, str, str]:
    """A bench on the shipped model whose bank has the samples of the export."""
    code, shown, errors = ran("bank", "import", str(folder / "export" / "samples"), str(out / "bank.db"))
    assert code == 0 and "samples of solver@" in shown, errors
    return ran("bench", str(folder / "questions.jsonl"), *options, "--out", str(out), "--json")


def test_a_bench_draws_only_the_samples_that_an_import_lacks(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    stop = json.loads((folder / "stop.json").read_text())
    drawn, extend = list[tuple[int, tuple[int, ...]]](), LocalGenerator.extend

    async def counting(self: LocalGenerator, extensions: Any) -> Any:
        drawn.extend((extension.index, extension.node.state.prompt) for extension in extensions)
        return await extend(self, extensions)

    monkeypatch.setattr(LocalGenerator, "extend", counting)
    code, out, errors = continued(folder, tmp_path / "continued", *SETTINGS, *stop, "--n", "6")
    assert code == 0, errors
    assert sorted(index for index, _ in drawn) == [4, 4, 4, 5, 5, 5]
    code, straight, errors = ran(
        "bench", str(folder / "questions.jsonl"), *SETTINGS, *stop, "--n", "6", "--out", "straight", "--json"
    )
    assert code == 0, errors
    assert json.loads(out)["runs"] == json.loads(straight)["runs"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--temperature", "0.5"), "temperature 1.0 and not 0.5"),
        (("--prompt-template", "{question} {question}"), 'template null and not "{question} {question}"'),
        (("--seed", "3"), "seed 0 and not 3"),
        (("--model", "pocket-skilled"), 'model "solver@'),
    ],
)
def test_an_import_of_other_settings_is_not_continued(
    folder: Path, tmp_path: Path, options: tuple[str, ...], message: str
) -> None:
    stop = json.loads((folder / "stop.json").read_text())
    code, _, errors = continued(folder, tmp_path / "other", *SETTINGS, *stop, "--n", "2", *options)
    assert code == 2 and message in errors and "give their options, or another bank" in errors
    assert len(errors.splitlines()) == 1


def test_an_import_of_other_files_is_not_continued(folder: Path, tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    (tmp_path / "export").mkdir()
    changed_rows = changed(rows, 0, fingerprint="0" * 16)
    text = "".join(json.dumps(row) + "\n" for row in changed_rows)
    (tmp_path / "export" / "samples").write_bytes(gzip.compress(text.encode(), 1))
    code, _, errors = ran("bank", "import", str(tmp_path / "export" / "samples"), str(tmp_path / "bank.db"))
    assert code == 0, errors
    question = str(folder / "questions.jsonl")
    code, _, errors = ran("bench", question, *SETTINGS, "--bank", str(tmp_path / "bank.db"), "--out", str(tmp_path))
    assert code == 1 and "other files" in errors and len(errors.splitlines()) == 1
    code, _, errors = ran("bank", "import", str(folder / "export" / "samples"), str(tmp_path / "bank.db"))
    assert code == 1 and "other files" in errors


def test_what_is_no_export_makes_no_bank(folder: Path, tmp_path: Path) -> None:
    code, _, errors = ran("bank", "import", str(folder / "questions.jsonl"), str(tmp_path / "bank.db"))
    assert code == 2 and "its first line does not say" in errors
    assert not (tmp_path / "bank.db").exists()
