"""Environments: what a search can act on. Tools, executors, games, browsers and proof kernels are environments."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

from thinktime.core.errors import ModelError
from thinktime.core.types import Problem
from thinktime.core.usage import Usage

FORK, REPLAY, IRREVERSIBLE = "fork", "replay", "irreversible"
"""Capabilities of environments. ``fork``: a state can be copied. ``replay``: the same actions from the start lead to
the same state. ``irreversible``: actions have outside effects that cannot be undone."""


@dataclass(frozen=True)
class Observation:
    """What an environment answers to an action."""

    text: str
    state: Any
    """The environment's state after the action; it stays in this process and is never banked."""
    reward: float | None = None
    done: bool = False
    usage: Usage = field(default_factory=Usage)


class Environment(Protocol):
    """Something that has a state and changes it by actions. An action is a JSON value that the environment reads."""

    name: str
    capabilities: frozenset[str]
    """Of ``fork``, ``replay`` and ``irreversible``."""

    async def start(self, problem: Problem) -> Any:
        """The state at the beginning of a problem. An irreversible environment connects to the world as it is."""
        ...

    async def step(self, state: Any, action: Any) -> Observation:
        """Carry out the action; this may change ``state`` or use it up."""
        ...

    async def fork(self, state: Any) -> Any:
        """A copy of the state. The search calls this only if the environment can ``fork``."""
        ...


@dataclass(frozen=True)
class Observed:
    """The state of a node that `Search.act` made: what the environment said, and the actions that led there."""

    environment: str
    actions: tuple[Any, ...]
    text: str
    reward: float | None = None
    done: bool = False


class Places:
    """The states of one environment in one search. A state that is gone is rebuilt from its actions.

    After a resume the observations come from the bank, and no state exists until the first new action needs one.
    """

    def __init__(self, environment: Environment, problem: Problem) -> None:
        self.environment, self._problem = environment, problem
        self._states: dict[str, Any] = {}
        self._newest: str | None = None

    def arrive(self, key: str, state: Any) -> None:
        """Store the state that an action led to, under the key of the new node."""
        self.pass_by(key)
        self._states[key] = state

    def pass_by(self, key: str) -> None:
        """Note that the observation of this node comes from the bank, so no state exists."""
        self._newest = key

    async def state(self, key: str, actions: tuple[Any, ...]) -> Any:
        """The environment's state at a node. The next step may use it up.

        Args:
            key: of the node to act from.
            actions: those that led to this node.

        Raises:
            ModelError: the state is gone and cannot be rebuilt.
        """
        name, can = self.environment.name, self.environment.capabilities
        if FORK in can and key in self._states:
            return await self.environment.fork(self._states[key])
        if IRREVERSIBLE in can and self._newest not in (None, key):
            fix = "its actions cannot be undone, and a later one was carried out; act from the newest node"
            raise ModelError(f"environment={name!r}: {fix}")
        if key in self._states:
            return self._states.pop(key)
        state = await self.environment.start(self._problem)
        if IRREVERSIBLE in can:
            return state
        if actions and REPLAY not in can:
            raise ModelError(f"environment={name!r}: it can neither fork nor replay; act from the newest node")
        for action in actions:
            state = (await self.environment.step(state, action)).state
        return state
