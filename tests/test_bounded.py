"""Processes with limits, and keys of answers that are computed in one, outside of the event loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from toy import done, toy_search

import thinktime
from thinktime.answers import TextAnswers, Undecided, canonical, equivalence
from thinktime.answers.process import __file__ as PROCESS
from thinktime.bench.tasks import Task
from thinktime.bounded import BoundedProcess
from thinktime.core.types import Extension, Problem
from thinktime.gateway.answers import SampleAnswers
from thinktime.gateway.searching import Progress
from thinktime.generators.text import RemoteText, pack_remote
from thinktime.strategies import make

SCRIPT = """
import json, os, sys
for line in sys.stdin:
    asked = json.loads(line)["do"]
    if asked == "end": os._exit(3)
    if asked == "half": print('{"half"', end="", flush=True); os._exit(0)
    print(json.dumps({"done": asked, "process": os.getpid()}), flush=True)
"""


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "script.py"
    path.write_text(SCRIPT)
    return path


@pytest.mark.parametrize("fault", ["end", "half"])
def test_a_request_that_ends_the_process_has_no_answer_and_the_next_one_has(script: Path, fault: str) -> None:
    process = BoundedProcess(script)
    first, again = process.ask({"do": "a"}), process.ask({"do": "\ud800\n"})
    assert first is not None and again == {"done": "\ud800\n", "process": first["process"]}
    assert process.ask({"do": fault}) is None
    after = process.ask({"do": "b"})
    assert after is not None and after["done"] == "b" and after["process"] != first["process"]


@pytest.fixture
def impatient(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The process of answers, with hardly any time for an answer."""
    source = Path(PROCESS).read_text().replace("SECONDS, LAST = 0.05, 0.5", "SECONDS, LAST = 1e-6, 5.0")
    path = tmp_path / "process.py"
    path.write_text(source.replace("str(Path(__file__).parents[2])", repr(str(Path(thinktime.__file__).parents[1]))))
    equivalence._known.cache_clear()
    monkeypatch.setattr(equivalence, "_PROCESS", BoundedProcess(path))
    yield
    equivalence._known.cache_clear()


def test_an_answer_beyond_its_processor_time_is_undecided(impatient: None) -> None:
    hard = r"\sum_{k=1}^{700} k^2"
    assert isinstance(canonical(hard), Undecided) and canonical(hard) == canonical(hard)
    assert not isinstance(canonical("1,234 apples"), Undecided)  # a number needs no process


def test_an_answer_within_its_time_has_the_value_of_the_formula() -> None:
    assert canonical(r"\sum_{k=1}^{20} k") == canonical("210") and canonical(r"2\sqrt{2}") == canonical(r"\sqrt{8}")


def test_long_keys_are_computed_outside_of_the_event_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[int] = []

    class Watched(BoundedProcess):
        def ask(self, request: object) -> dict[str, object]:
            threads.append(threading.get_ident())
            return {"key": "seven"}

    def reply(extension: Extension) -> object:
        return done(rf"so \boxed{{1 + {extension.index}}}")

    equivalence._known.cache_clear()
    monkeypatch.setattr(equivalence, "_PROCESS", Watched(Path()))
    search = toy_search(reply, answers=TextAnswers())  # type: ignore[arg-type]
    answer = asyncio.run(make("majority", {"n": 3})(search))
    equivalence._known.cache_clear()
    assert answer.share == 1.0 and len(threads) == 3
    assert threading.get_ident() not in threads


def test_quick_answers_take_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asyncio, "to_thread", None)
    states = [SimpleNamespace(text=rf"\boxed{{{answer}}}") for answer in ("7", "1,234", "A", "seven", r"\frac12")]
    asyncio.run(TextAnswers().prepare([*states, SimpleNamespace(text="nothing")]))


@pytest.mark.parametrize(("answer", "reference"), [(r"2\sqrt{2}", "8"), ("8", r"2\sqrt{2}"), ("8", "7"), (None, "7")])
def test_a_task_compares_formulas_outside_of_the_event_loop(answer: str | None, reference: str) -> None:
    threads: list[int] = []

    def check(answer: str | None, reference: str | None) -> bool:
        threads.append(threading.get_ident())
        return answer == "8"

    task = Task("sums", (), TextAnswers(), check)
    assert asyncio.run(task.right(answer, Problem("p", "how many?", reference))) is (answer == "8")
    (thread,) = threads
    assert (thread == threading.get_ident()) is (not any("sqrt" in each for each in (answer or "", reference)))


def test_progress_is_reported_in_order_and_long_samples_are_read_outside_of_the_event_loop() -> None:
    reported: list[str] = []
    threads: list[bool] = []

    class Watched(SampleAnswers):
        def _answer(self, state: RemoteText) -> str | None:
            threads.append(threading.current_thread() is threading.main_thread())
            return super()._answer(state)

    async def run() -> None:
        progress = Progress(reported.append, Watched(as_json=False, tools=False), None)
        for number in range(4):
            text = f"{'We add. ' * 500 * (number % 2 == 0)}The answer is {number}."
            packed = pack_remote(RemoteText(""), RemoteText("", text=text))
            progress.add_samples(Problem("sum", "?"), "words", [(str(number), {"state": packed})])
        await progress.finish()

    asyncio.run(run())
    assert reported == [f"sample {number + 1}: {number}\n" for number in range(4)]
    assert sorted(threads) == [False, False, True, True]
