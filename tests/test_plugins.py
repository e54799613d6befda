"""An installed package can add generators, scorers, environments, prompts, tasks and planners by name.

The package is tests/first_words. It is on the path with its entry points, as if pip had installed it.
"""

from __future__ import annotations

import asyncio
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from commands import ran as run_command
from hypothesis import given
from hypothesis import strategies as st
from toy import PROBLEM

from thinktime.bench.tasks import load
from thinktime.cli.common import prompts_in
from thinktime.config import Config, environment
from thinktime.core.errors import InputError, ModelError, UnknownNameError
from thinktime.core.types import Prompt
from thinktime.core.usage import Budget
from thinktime.plugins import GROUPS, installed, made
from thinktime.session import open_session, run, solve
from thinktime.strategies import BUILT_IN, fault, known, make
from thinktime.testing import WordGenerator, WordScorer

SOURCE = Path(__file__).with_name("first_words")


WRONG = """
from dataclasses import dataclass
from typing import ClassVar

from thinktime import Majority
from thinktime.core.errors import ModelError


@dataclass(frozen=True)
class Fine:
    needs: ClassVar[frozenset[str]] = frozenset()

    async def __call__(self, search):
        return search.finish(None)


class Plain:
    needs = frozenset()


@dataclass(frozen=True)
class Needless:
    async def __call__(self, search):
        return search.finish(None)


def fails(text):
    raise ValueError("two\\nlines")


def is_down(text):
    raise ModelError("the model is down")
"""
POINTS = """
[thinktime.strategies]
fine = wrong_parts:Fine
majority = wrong_parts:Fine
plain = wrong_parts:Plain
needless = wrong_parts:Needless
gone = wrong_parts:Gone
leaves = wrong_exit:Leaves
[thinktime.scorers]
fails = wrong_parts:fails
is_down = wrong_parts:is_down
no_function = wrong_parts:__name__
gone = wrong_missing:scorer
[thinktime.prompts]
gone = wrong_missing:prompt
"""


@pytest.fixture
def wrong_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An installed package whose parts are wrong in every way, but one."""
    (tmp_path / "wrong_parts.py").write_text(WRONG)
    (tmp_path / "wrong_exit.py").write_text("import sys\nsys.exit('needs a terminal')")
    about = tmp_path / "wrong_parts-1.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: wrong-parts\nVersion: 1\n")
    (about / "entry_points.txt").write_text(POINTS)
    monkeypatch.syspath_prepend(str(tmp_path))


@pytest.fixture
def first_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The package on the path, with the entry points of its project file."""
    points = tomllib.loads((SOURCE / "pyproject.toml").read_text())["project"]["entry-points"]
    (tmp_path / "first_words.py").write_text((SOURCE / "first_words.py").read_text())
    about = tmp_path / "first_words-1.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: first-words\nVersion: 1\n")
    lines = [f"[{group}]\n" + "".join(f"{n} = {v}\n" for n, v in some.items()) for group, some in points.items()]
    (about / "entry_points.txt").write_text("\n".join(lines))
    monkeypatch.syspath_prepend(str(tmp_path))


@pytest.mark.usefixtures("first_words")
def test_every_group_has_an_entry_of_the_example_package() -> None:
    assert [group for group in GROUPS if not installed(group)] == []
    assert installed("environments", "nothing") == {} and made("environments", "nothing:7") is None


@pytest.mark.usefixtures("first_words")
def test_an_environment_of_a_package_is_found_by_name_and_acts() -> None:
    config = Config(WordGenerator(), environments={"count": "word_count:3"}, strategy="single")

    async def act() -> str:
        async with open_session(config) as session:
            search = session.search(PROBLEM)
            node = await search.act(search.root, "two words", env="count")
            assert node is not None
            again = await search.act(node, "and three more", env="count")
            return f"{node.state.text}, {again.state.text}" if again else ""

    assert asyncio.run(act()) == "5 words, 8 words"


@pytest.mark.usefixtures("first_words")
def test_a_prompt_of_a_package_replaces_a_strategys() -> None:
    given = prompts_in(["check=short_check"])
    assert isinstance(given["check"], Prompt)
    prompts = Config(WordGenerator(), strategy="single", prompts=given).prompts_by_name()
    assert (prompts["check"].name, prompts["check"].is_answer) == ("check", False)
    both = {**given, "revise": "{question} again"}
    answer = solve("what is 3 + 4", WordGenerator(), strategy="self_refine:rounds=1", prompts=both, max_tokens=20)
    assert answer.usage.model_calls >= 2


@pytest.mark.usefixtures("first_words")
def test_a_task_a_generator_and_a_scorer_of_a_package_are_found_by_name() -> None:
    task = load("sums", 2)
    assert [problem.id for problem in task.problems] == ["sum-1", "sum-2"] and len(load("sums").problems) == 3
    session = open_session(Config("words:mine", "word_scores", strategy="best_of_n"))
    assert session.models["main"].name == "mine" and session.scorers["main"].name == "word-scorer"
    answer = solve(task.problems[0], "words", "word_scores", strategy="best_of_n:n=2", max_tokens=20)
    assert answer.usage.scorer_calls > 0


@pytest.mark.usefixtures("first_words")
def test_a_planner_of_a_package_chooses_for_auto() -> None:
    chosen = {}
    for budget in ("", "4000tok"):
        config = Config(WordGenerator(), WordScorer(), strategy="auto:planner=few_words:3", budget=budget or Budget())
        search, _ = asyncio.run(run(config, PROBLEM))
        chosen[budget] = search.events[0]
    assert chosen == {
        "": {"planner": "few_words:3", "strategy": "single"},
        "4000tok": {"planner": "few_words:3", "strategy": "first_words:n=3"},
    }


def test_without_the_package_its_names_are_unknown_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(
        UnknownNameError, match=r"environment='word_count': unknown; .*there are: calculator, key_value"
    ):
        environment("word_count")
    with pytest.raises(
        InputError, match=r"task='sums': give 'pocket', a benchmark .*, the path of a JSONL file or the task of an"
    ):
        load("sums")
    with pytest.raises(UnknownNameError, match=r"auto.planner='few_words': unknown; .*there are: prior"):
        Config(WordGenerator(), strategy="auto:planner=few_words")
    with pytest.raises(InputError, match="cannot read the file"):
        prompts_in(["check=short_check"])
    with pytest.raises(InputError, match="model='words"):
        open_session(Config("words:mine", strategy="single"))


@pytest.mark.usefixtures("first_words")
def test_packages_are_looked_up_once_per_path(monkeypatch: pytest.MonkeyPatch) -> None:
    found = installed("strategies")
    monkeypatch.setattr("importlib.metadata.entry_points", None)
    assert installed("strategies") == found != {}


def test_a_built_in_name_or_a_file_is_found_without_reading_installed_packages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.metadata.entry_points", None)
    file = tmp_path / "check.txt"
    file.write_text("Is it right?")
    assert prompts_in([f"check={file}"]) == {"check": "Is it right?"}
    config = Config(environments={"sums": "calculator"}, strategy="restarts(majority:n=2)")
    assert config.environments_by_name()["sums"].name == "calculator"


@pytest.mark.usefixtures("wrong_parts")
def test_a_wrong_part_is_left_out_with_one_warning_and_the_others_stay(caplog: pytest.LogCaptureFixture) -> None:
    found = known()
    assert set(found) - {*BUILT_IN, "auto"} == {"fine"} and found["majority"] is BUILT_IN["majority"]
    assert known() == found and run_command("strategies")[0] == 0
    lines = sorted(record.getMessage() for record in caplog.records)
    start = "thinktime.strategies: {} of the package wrong-parts is left out: "
    assert [line.partition("out: ")[0] + "out: " for line in lines] == [
        start.format(repr(name)) for name in ("gone", "leaves", "needless", "plain")
    ]
    assert all("\n" not in line for line in lines)
    assert "AttributeError" in lines[0] and "SystemExit: needs a terminal" in lines[1]
    assert "it has no needs" in lines[2] and "it is no frozen dataclass" in lines[3]


@pytest.mark.usefixtures("wrong_parts")
def test_a_wrong_part_that_is_asked_for_is_an_error_of_one_line() -> None:
    says = "is of the package wrong-parts, and cannot be used: "
    assert make("fine") is not None
    for name, reason in {
        "plain": "it is no frozen dataclass",
        "gone": "AttributeError",
        "leaves": "SystemExit",
    }.items():
        with pytest.raises(InputError, match=f"thinktime.strategies='{name}': it {says}{reason}"):
            make(name)
    for name, reason in {"gone": f"it {says}ModuleNotFoundError", "no_function": f"it {says}it is no function"}.items():
        with pytest.raises(InputError, match=f"thinktime.scorers='{name}': {reason}"):
            made("scorers", f"{name}:7")
    with pytest.raises(InputError, match=r"thinktime.scorers='fails:7': its function fails: ValueError: two lines$"):
        made("scorers", "fails:7")
    with pytest.raises(ModelError, match=r"^the model is down$"):
        made("scorers", "is_down")
    with pytest.raises(InputError, match="ModuleNotFoundError"):
        prompts_in(["check=gone"])


@pytest.mark.usefixtures("wrong_parts")
def test_a_command_names_the_wrong_part_and_runs_the_others() -> None:
    code, _, errors = run_command("ask", "what is 3 + 4", "--strategy", "needless")
    assert (code, errors.count("\n")) == (
        2,
        1,
    ) and "'needless': it is of the package wrong-parts, and cannot be used" in errors
    code, out, errors = run_command("strategies", "show", "fine")
    assert code == 0 and "fine" in out


_plain = st.sampled_from(
    [
        *(None, 7, "text", len, object, dataclass(type("Thawed", (), {}))),
        dataclass(frozen=True)(type("Frozen", (), {})),
        type("NotData", (), {"needs": frozenset()}),
    ]
)


@given(_plain, st.one_of(st.none(), st.text(), st.sets(st.text()), st.frozensets(st.integers(), min_size=1)))
def test_nothing_is_a_strategy_but_a_frozen_dataclass_with_needs_and_a_coroutine(kind: Any, needs: Any) -> None:
    assert fault(kind)
    namespace = {"needs": needs, "__call__": BUILT_IN["single"].__call__}
    assert "needs" in fault(dataclass(frozen=True)(type("Odd", (), namespace)))
    assert fault(dataclass(frozen=True)(type("Fine", (), {**namespace, "needs": frozenset({"anything"})}))) == ""


def test_every_built_in_strategy_is_one() -> None:
    assert [name for name, kind in BUILT_IN.items() if fault(kind)] == []
