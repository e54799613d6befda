"""Tasks of reasoning-gym: asked, read, and judged by the package. Needs ``pip install 'thinktime[reasoning-gym]'``."""

from __future__ import annotations

import asyncio
import sys

import pytest
from commands import ran

from thinktime.bench.benchmarks import read_gym
from thinktime.bench.tasks import Task, load
from thinktime.core.errors import InputError, UnknownNameError
from thinktime.core.types import Problem
from thinktime.generators.text import Text

try:
    import reasoning_gym

    WHY_NOT = ""
except ModuleNotFoundError:
    reasoning_gym = None
    WHY_NOT = "pip install 'thinktime[reasoning-gym]'"
NEEDS_PACKAGE = pytest.mark.skipif(reasoning_gym is None, reason=WHY_NOT)


def right(task: Task, text: str, problem: Problem) -> bool:
    return asyncio.run(task.right(task.answers.read(Text((), text=text)), problem))


@NEEDS_PACKAGE
@pytest.mark.parametrize(
    "name", ["basic_arithmetic", "countdown", "word_sorting", "syllogism", "simple_equations", "modulo_grid"]
)
def test_the_answer_of_the_package_is_right_and_another_one_is_wrong(name: str) -> None:
    task = load(f"reasoning-gym:{name}", 3)
    assert len(task.problems) == 3
    for problem in task.problems:
        assert right(task, f"So this is it.\n\n\\boxed{{{problem.reference}}}", problem)
        assert not right(task, r"So it is \boxed{no such thing}.", problem)
        assert not right(task, "I do not know.", problem)


@NEEDS_PACKAGE
def test_any_right_answer_is_accepted_if_a_problem_has_several() -> None:
    task = load("reasoning-gym:propositional_logic", 20)
    assert {problem.reference for problem in task.problems} == {None}
    assert not right(task, r"\boxed{nothing}", task.problems[0])


@NEEDS_PACKAGE
def test_a_seed_decides_the_problems_and_the_result_names_the_package() -> None:
    first, again, other = (load("reasoning-gym:chain_sum", 2, seed=seed) for seed in (0, 0, 1))
    assert first.problems == again.problems != other.problems
    code, out, _ = ran("bench", "reasoning-gym:chain_sum", "--limit", "1", "--show-task")
    assert code == 0 and "reasoning-gym 0." in out and "statement or long box" in out and r"\boxed{}" in out


@NEEDS_PACKAGE
def test_a_data_set_that_cannot_be_made_is_refused_in_one_line() -> None:
    with pytest.raises(InputError, match=r"task='reasoning-gym:composite': the package cannot make it \(.*\)"):
        load("reasoning-gym:composite")
    with pytest.raises(UnknownNameError, match="chain_sum"):
        load("reasoning-gym:chain_sums")


def test_without_the_package_the_message_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "reasoning_gym", None)
    with pytest.raises(InputError, match=r"it needs a package: pip install 'thinktime\[reasoning-gym\]'"):
        load("reasoning-gym:chain_sum")


def test_a_long_box_is_an_answer_as_it_stands() -> None:
    grid = "\n".join(["0 1 2 " * 10] * 20)
    assert (
        read_gym(f"<think>\\boxed{{1}}</think>First \\boxed{{{'1' * 500}}}, then \\boxed{{\n{grid}\n}}.")
        == grid.strip()
    )
    assert read_gym("The answer is 7.\n\nSo \\boxed{" + grid) == "7"
    assert read_gym(r"\boxed{" + grid) is None and read_gym("nothing") is None and read_gym(r"\boxed{}") is None
