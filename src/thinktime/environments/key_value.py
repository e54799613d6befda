"""A key-value store in memory: the smallest environment with a state."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from thinktime.core.context import Start, part
from thinktime.core.environment import FORK, REPLAY, Observation
from thinktime.core.types import Problem

ACTIONS = '{"set": KEY, "value": VALUE}, {"get": KEY} or {"delete": KEY}'


class KeyValueStore:
    """Holds JSON values by key. A problem may give initial values as a `Start` with the id ``key_value``.

    Args:
        copies: whether states can be copied; otherwise they are rebuilt from their actions.
    """

    name = "key_value"

    def __init__(self, *, copies: bool = True) -> None:
        self.capabilities = frozenset({FORK, REPLAY} if copies else {REPLAY})

    async def start(self, problem: Problem) -> dict[str, Any]:
        """The values that the problem gives, or none."""
        given: Start | None = part(problem.context, Start, self.name)
        return {} if given is None else dict(given.state)

    async def fork(self, state: Mapping[str, Any]) -> dict[str, Any]:
        """A copy."""
        return dict(state)

    async def step(self, state: dict[str, Any], action: Any) -> Observation:
        """Set, get or delete a value. An action that fails gives an observation with the error."""
        known = action if isinstance(action, Mapping) else {}
        if "set" in known and "value" in known:
            state[str(known["set"])] = known["value"]
            return Observation("ok", state)
        if "get" in known:
            return Observation(str(state.get(str(known["get"]), "error: no such key")), state)
        if "delete" in known:
            there = state.pop(str(known["delete"]), None) is not None
            return Observation("ok" if there else "error: no such key", state)
        return Observation(f"error: write {ACTIONS}", state)
