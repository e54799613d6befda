"""Acting: nodes hold observations, states are forked or replayed, and irreversible actions are never repeated."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from toy import MemoryJournal, drawn, extend, toy_search, unhurried

from thinktime.bank.store import Bank
from thinktime.core.context import Document, Start
from thinktime.core.environment import IRREVERSIBLE, REPLAY, Observation, Observed
from thinktime.core.errors import CapabilityError, InputError, ModelError
from thinktime.core.journal import Journal
from thinktime.core.search import Search
from thinktime.core.types import Node, Problem
from thinktime.core.usage import Budget, Usage
from thinktime.environments.calculator import Calculator, evaluate
from thinktime.environments.key_value import KeyValueStore


def searching(environment: Any, journal: Journal | None = None, **options: Any) -> Search:
    search = toy_search(drawn, None, journal=journal, **options)
    search.environments = {"main": environment}
    return search


def act(search: Search, node: Node, action: Any) -> Node | None:
    return asyncio.run(search.act(node, action))


def walk(search: Search, actions: Sequence[Any]) -> list[Node]:
    nodes = [search.root]
    for action in actions:
        node = act(search, nodes[-1], action)
        assert node is not None
        nodes.append(node)
    return nodes[1:]


class Counting(KeyValueStore):
    """Counts the actions that are carried out."""

    def __init__(self, *, copies: bool = True) -> None:
        super().__init__(copies=copies)
        self.carried_out: list[Any] = []

    async def step(self, state: dict[str, Any], action: Any) -> Observation:
        self.carried_out.append(action)
        return await super().step(state, action)


SET, CHANGE, GET = {"set": "a", "value": 1}, {"set": "a", "value": 2}, {"get": "a"}


@pytest.mark.parametrize("copies", [True, False])
def test_branches_of_one_state_do_not_see_each_other(copies: bool) -> None:
    search = searching(Counting(copies=copies))
    (base,) = walk(search, [SET])
    changed, same = act(search, base, CHANGE), act(search, base, GET)
    assert changed is not None and same is not None
    after = act(search, changed, GET)
    assert after is not None
    assert (same.state.text, after.state.text) == ("1", "2")
    assert same.state == Observed("key_value", (SET, GET), "1")
    assert (base.model, base.finish, base.parent, search.is_answer(base)) == (
        "environment main",
        "observed",
        search.root,
        False,
    )


def test_a_second_branch_is_charged_for_the_actions_that_are_carried_out_again() -> None:
    forking, replaying = Counting(), Counting(copies=False)
    for environment, cost in ((forking, 1), (replaying, 3)):
        search = searching(environment)
        *_, base = walk(search, [SET, CHANGE])
        first, second = act(search, base, GET), act(search, base, {"get": "b"})
        assert first is not None and second is not None
        assert (first.usage, second.usage) == (Usage(actions=1), Usage(actions=cost))
        assert search.ledger.spent.actions == len(environment.carried_out) == 3 + cost
    assert search.meter.accounts == {("online", "environment main"): Usage(actions=6)}


def test_a_limit_on_actions_is_kept_and_the_search_is_marked_as_exhausted() -> None:
    search = searching(Counting(), budget=Budget(actions=2))
    nodes = walk(search, [SET, GET])
    assert act(search, nodes[-1], GET) is None
    assert search.exhausted and search.ledger.spent.actions == 2


def test_a_resumed_search_repeats_actions_only_when_a_new_action_needs_the_state() -> None:
    journal, again = MemoryJournal(), Counting(copies=False)
    walk(searching(Counting(), journal), [SET, CHANGE])
    search = searching(again, journal)
    *_, last = walk(search, [SET, CHANGE])
    assert again.carried_out == [] and search.ledger.spent.actions == 2
    read = act(search, last, GET)
    assert read is not None and read.state.text == "2"
    assert again.carried_out == [SET, CHANGE, GET] and search.ledger.spent.actions == 3


@unhurried
@given(st.lists(st.tuples(st.integers(0, 9), st.sampled_from([SET, CHANGE, GET, {"delete": "a"}])), max_size=8))
def test_observations_do_not_depend_on_whether_states_are_copied_or_replayed(steps: list[tuple[int, Any]]) -> None:
    seen = []
    for copies in (True, False):
        search = searching(KeyValueStore(copies=copies))
        nodes = [search.root]
        for index, action in steps:
            node = act(search, nodes[index % len(nodes)], action)
            assert node is not None
            nodes.append(node)
        seen.append([(node.key, node.state) for node in nodes[1:]])
    assert seen[0] == seen[1]


def test_a_problem_may_say_where_an_environment_starts() -> None:
    problem = Problem("p", "read a", context=(Start("key_value", {"a": 5}),))
    assert walk(searching(KeyValueStore(), problem=problem), [GET])[0].state.text == "5"


def test_an_environment_starts_at_its_own_part_of_the_context() -> None:
    context = (Document("key_value", "a text"), Start("another", {"a": 4}), Start("key_value", {"a": 5}))
    problem = Problem("p", "read a", context=context)
    assert walk(searching(KeyValueStore(), problem=problem), [GET])[0].state.text == "5"


class Sending(KeyValueStore):
    """Appends every action to a list that outlives the process; the action cannot be undone."""

    name = "mail"

    def __init__(self, sent: list[Any], fails: bool = False) -> None:
        super().__init__()
        self.capabilities = frozenset({IRREVERSIBLE})
        self.sent, self.fails = sent, fails

    async def step(self, state: dict[str, Any], action: Any) -> Observation:
        self.sent.append(action)
        if self.fails:
            raise KeyboardInterrupt
        return Observation("sent", state)


def test_an_irreversible_action_is_not_repeated_by_a_resume() -> None:
    journal, sent = MemoryJournal(), list[Any]()
    walk(searching(Sending(sent), journal), ["one", "two"])
    search = searching(Sending(sent), journal)
    nodes = walk(search, ["one", "two", "three"])
    assert [node.state.text for node in nodes] == ["sent"] * 3 and sent == ["one", "two", "three"]


def test_an_irreversible_action_that_was_begun_is_an_error_after_a_kill_and_is_not_repeated() -> None:
    journal, sent = MemoryJournal(), list[Any]()
    with pytest.raises(KeyboardInterrupt):
        walk(searching(Sending(sent, fails=True), journal), ["one"])
    search = searching(Sending(sent), journal)
    node = act(search, search.root, "one")
    assert node is not None and node.finish == "error" and sent == ["one"]
    message = "an earlier run began this action and did not see it end; it is not repeated"
    assert str(search.trace[node.key].error) == f"environment='mail': action 'one': {message}"
    with pytest.raises(ModelError, match="not repeated"):
        search.finish(None)


def test_an_irreversible_environment_has_one_branch() -> None:
    search = searching(Sending([]))
    one, _ = walk(search, ["one", "two"])
    other = act(search, one, "another")
    assert other is not None and other.finish == "error"
    assert "act from the newest node" in str(search.trace[other.key].error)


def test_a_resumed_irreversible_environment_still_has_one_branch() -> None:
    journal, sent = MemoryJournal(), list[Any]()
    walk(searching(Sending(sent), journal), ["one"])
    search = searching(Sending(sent), journal)
    walk(search, ["one"])
    other = act(search, search.root, "another")
    assert other is not None and other.finish == "error" and sent == ["one"]
    assert "act from the newest node" in str(search.trace[other.key].error)


class Broken(Counting):
    """Raises an error for actions that are no JSON objects."""

    async def step(self, state: dict[str, Any], action: Any) -> Observation:
        if not isinstance(action, dict):
            raise ModelError("this is no object")
        return await super().step(state, action)


def test_a_failed_action_is_charged_and_not_banked_and_other_actions_continue() -> None:
    journal = MemoryJournal()
    for again in (False, True):
        search = searching(Broken(), journal)
        (base,) = walk(search, [SET])
        failed = act(search, base, "get a")
        assert failed is not None and (failed.finish, failed.usage) == ("error", Usage(actions=1)), again
        assert failed.state == base.state and str(search.trace[failed.key].error) == "this is no object"
        found = act(search, base, GET)
        assert found is not None and found.state.text == "1"
        assert search.ledger.spent.actions == 3


def test_an_environment_without_fork_and_replay_continues_only_from_its_newest_state() -> None:
    environment = Counting()
    environment.capabilities = frozenset()
    search = searching(environment)
    base, _ = walk(search, [SET, CHANGE])
    other = act(search, base, GET)
    assert other is not None and "it can neither fork nor replay" in str(search.trace[other.key].error)


def test_an_unknown_environment_and_a_failed_node_are_refused() -> None:
    search = searching(Sending([], fails=False))
    with pytest.raises(CapabilityError, match="environment='shell': the search has main"):
        asyncio.run(search.act(search.root, "x", env="shell"))
    one, _ = walk(search, ["one", "two"])
    failed = act(search, one, "another")
    assert failed is not None
    with pytest.raises(InputError, match="the action that led here failed"):
        act(search, failed, "more")


def test_an_observation_is_shown_in_prompts_and_no_model_can_continue_it() -> None:
    search = searching(Calculator())
    (node,) = walk(search, ["2 + 3"])
    assert node.state.text == "5"
    with pytest.raises(CapabilityError, match="model='environment main': no model has this role"):
        extend(search, [node])


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("1/3 + 1/6", "1/2"),
        ("-(2 ** 3) * 1.5", "-12"),
        ("0.1 + 0.2", "3/10"),
        ("1 / 0", "error: division by zero"),
        ("9 ** 9 ** 9", "error: this power is too large, or its exponent is no whole number"),
        ("2 ** 0.5", "error: this power is too large, or its exponent is no whole number"),
        ("__import__('os')", "error: write numbers, + - * / ** and brackets"),
        ("True + 1", "error: write numbers, + - * / ** and brackets"),
        ("1 +", "error: invalid syntax (<unknown>, line 1)"),
        ("1+" * 200, "error: the expression has 400 characters; write at most 200"),
    ],
)
def test_a_calculator_is_exact_and_bounded(expression: str, value: str) -> None:
    assert evaluate(expression) == value


SCRIPT = """
import asyncio, os, signal, sys
from pathlib import Path
from thinktime.bank.store import Bank
from thinktime.core.environment import IRREVERSIBLE, Observation
from thinktime.core.search import Search
from thinktime.testing import PROBLEM, WordGenerator

class Mail:
    name, capabilities = "mail", frozenset({IRREVERSIBLE})
    async def start(self, problem): return None
    async def step(self, state, action):
        with open(sys.argv[2], "a") as sent: sent.write(action + "\\n")
        if action == sys.argv[3]: os.kill(os.getpid(), signal.SIGKILL)
        return Observation("sent", None)

async def main(bank):
    search = Search(PROBLEM, WordGenerator(), environments=Mail(), journal=bank)
    node = search.root
    for action in ("one", "two", "three"):
        node = await search.act(node, action)
        print(node.finish)
        if node.finish == "error": break

with Bank(Path(sys.argv[1])) as bank:
    asyncio.run(main(bank))
"""


def test_kill_9_in_the_middle_of_an_irreversible_action(tmp_path: Path) -> None:
    def run(die_at: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", SCRIPT, str(tmp_path / "bank.db"), str(tmp_path / "sent"), die_at]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    assert run("two").returncode == -signal.SIGKILL
    again = run("")
    assert (tmp_path / "sent").read_text().split() == ["one", "two"], "two is not sent twice"
    assert again.stdout.split() == ["observed", "error"]
    assert os.path.getsize(tmp_path / "bank.db") and Bank(tmp_path / "bank.db").models() == ["mail"]


def test_a_replayable_environment_gives_the_same_result_after_a_kill(tmp_path: Path) -> None:
    def observed(journal: Journal, actions: Sequence[Any]) -> list[str]:
        environment = KeyValueStore()
        environment.capabilities = frozenset({REPLAY})
        return [node.state.text for node in walk(searching(environment, journal), actions)]

    with Bank(tmp_path / "bank.db") as bank:
        observed(bank, [SET])
    with Bank(tmp_path / "bank.db") as bank:
        assert observed(bank, [SET, CHANGE, GET]) == observed(MemoryJournal(), [SET, CHANGE, GET]) == ["ok", "ok", "2"]
