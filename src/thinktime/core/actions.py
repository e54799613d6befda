"""Actions as work for the meter: observations come from the bank or from an environment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from thinktime.core.environment import FORK, IRREVERSIBLE, Observed, Places
from thinktime.core.errors import ModelError, ThinktimeError
from thinktime.core.journal import Journal, readable
from thinktime.core.meter import Work
from thinktime.core.types import Child, Node, Problem
from thinktime.core.usage import Usage


@dataclass(frozen=True)
class Action:
    """One action to carry out: the node it starts from, its key, and how many actions this node had before it."""

    node: Node
    key: str
    value: Any
    index: int

    @property
    def before(self) -> tuple[Any, ...]:
        """The actions that led to the node."""
        return self.node.state.actions if isinstance(self.node.state, Observed) else ()


class Acting(Work[Action, Child]):
    """Actions in one environment.

    An irreversible action is banked as an intent before it is carried out. A resume that finds the intent without an
    observation does not repeat the action: the child is an error that says so.
    """

    def __init__(self, role: str, places: Places, problem: Problem, journal: Journal | None) -> None:
        super().__init__(role)
        self._places, self._problem, self._journal = places, problem, journal
        self._environment = places.environment

    def worst_case(self, item: Action) -> Usage:
        """One action; if states cannot be copied, a second action from a node also repeats those that led there."""
        again = len(item.before) if item.index and FORK not in self._environment.capabilities else 0
        return Usage(actions=1 + again)

    def find(self, items: Sequence[Action]) -> Mapping[int, Child]:
        """Banked observations, and errors for intents without one."""
        found: dict[int, Child] = {}
        for place, action in enumerate(items):
            if self._journal is None:
                break
            row = self._journal.find_sample(action.key)
            if row is not None:
                with readable(action.key):
                    state, usage = self._observed(action, **row["state"]), Usage.from_dict(row["usage"])
                found[place] = Child(state, "observed", usage, 0)
                self._places.pass_by(action.key)
            elif self._journal.find_sample(_intent(action)) is not None:
                said = "an earlier run began this action and did not see it end; it is not repeated"
                found[place] = self._failed(action, ModelError(f"{self._named(action)}: {said}"))
        return found

    async def run(self, items: Sequence[Action]) -> Sequence[Child]:
        """Carry the actions out, one after the other."""
        return [await self._one(action) for action in items]

    async def _one(self, action: Action) -> Child:
        try:
            state = await self._places.state(action.node.key, action.before)
        except ThinktimeError as error:
            return Child(action.node.state, "error", Usage(), 0, error)
        if IRREVERSIBLE in self._environment.capabilities:
            self._write(_intent(action), {"action": action.value}, "intent", Usage())
        try:
            observation = await self._environment.step(state, action.value)
        except ThinktimeError as error:
            return self._failed(action, error)
        said = {"text": observation.text, "reward": observation.reward, "done": observation.done}
        usage = self.worst_case(action) + observation.usage
        self._write(action.key, said, "observed", usage)
        self._places.arrive(action.key, observation.state)
        return Child(self._observed(action, **said), "observed", usage, 0)

    def _observed(self, action: Action, **said: Any) -> Observed:
        return Observed(self._environment.name, (*action.before, action.value), **said)

    def _failed(self, action: Action, error: ThinktimeError) -> Child:
        return Child(action.node.state, "error", self.worst_case(action), 0, error)

    def _named(self, action: Action) -> str:
        return f"environment={self._environment.name!r}: action {action.value!r}"

    def _write(self, key: str, state: Mapping[str, Any], finish: str, usage: Usage) -> None:
        if self._journal is not None:
            row = {"state": state, "finish": finish, "usage": usage.as_dict(), "passes": 0}
            self._journal.add_samples(self._problem, self._environment.name, [(key, row)])


def _intent(action: Action) -> str:
    return f"{action.key}/intent"
