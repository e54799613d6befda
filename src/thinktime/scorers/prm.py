"""A process reward model: the probability, step by step, that a solution is right so far."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from thinktime.core.errors import UnknownNameError
from thinktime.core.types import Capability, Node, Reading
from thinktime.core.usage import Usage
from thinktime.engine.batcher import Batcher
from thinktime.engine.costs import forward_flops
from thinktime.generators.text import Text

if TYPE_CHECKING:
    from thinktime.engine.models import RewardModel

AGGREGATES: dict[str, Callable[[Sequence[float]], float]] = {
    "last": lambda steps: steps[-1],
    "min": min,
    "mean": lambda steps: sum(steps) / len(steps),
    "product": math.prod,
}


class ProcessReward:
    """Scores a node by the rewards of its steps, an unfinished last step included.

    Args:
        directory: a token classifier that shares the generator's tokenizer.
        aggregate: how step rewards become one score: ``last``, ``min``, ``mean`` or ``product``.
        max_rows: solutions of one batch.

    Raises:
        InputError: the directory is missing or holds no such model, or the aggregate is unknown.
    """

    capabilities = frozenset({Capability.SCORES, Capability.PROCESS_REWARD})

    def __init__(
        self, directory: Path | str, *, aggregate: str = "last", max_rows: int = 64, dtype: str = "float32"
    ) -> None:
        from thinktime.engine.models import load_reward_model

        if aggregate not in AGGREGATES:
            raise UnknownNameError("aggregate", aggregate, AGGREGATES)
        self._model: RewardModel = load_reward_model(Path(directory), dtype)
        self._aggregate = AGGREGATES[aggregate]
        self.name = f"{Path(directory).name}@{self._model.fingerprint}/{aggregate}/{dtype}"
        self._batcher: Batcher[Text, Reading] = Batcher(self._read, max_rows)

    def worst_case(self, node: Node) -> Usage:
        """The whole prefix is read."""
        return self._usage(len(node.state.prompt) + len(node.state.ids), 0.0)

    async def score(self, nodes: Sequence[Node]) -> list[Reading]:
        """One reading per node; a node without any generated token has none."""
        return await self._batcher.submit([node.state for node in nodes])

    def _read(self, states: list[Text]) -> list[Reading]:
        started = time.perf_counter()
        rows = [state.prompt + state.ids for state in states]
        probabilities = self._model.probabilities(rows)
        share = (time.perf_counter() - started) / sum(map(len, rows))
        readings = []
        for state, row, right in zip(states, rows, probabilities, strict=True):
            steps = tuple(float(right[len(state.prompt) + end - 1]) for end in state.step_ends)
            usage = self._usage(len(row), share * len(row))
            readings.append(Reading(self._aggregate(steps) if steps else None, usage, steps))
        return readings

    def _usage(self, tokens: int, seconds: float) -> Usage:
        flops = forward_flops(self._model.model.config, self._model.parameters, tokens, 0)
        return Usage(scorer_tokens=tokens, scorer_calls=1, scorer_flops=flops, seconds=seconds)
