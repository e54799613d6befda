"""Control scorers: an oracle that knows every answer, and random scores.

The difference between a method's results with the two is the most that its own scorer can contribute.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from random import Random

from thinktime.bench.tasks import Task
from thinktime.core.errors import InputError
from thinktime.core.protocols import Scorer
from thinktime.core.types import Capability, Node, Problem, Score
from thinktime.core.usage import Usage

NAMES = ("oracle", "random")
"""Values of ``--scorer`` in a bench."""


class Oracle:
    """Scores a complete sample 1 if the task's check accepts its answer, else 0.

    The selector is then the evaluator, so results are an upper bound, and their reports carry a stamp.
    """

    capabilities = frozenset({Capability.SCORES})

    def __init__(self, task: Task) -> None:
        self.name = task.evaluator
        self._task = task

    def worst_case(self, problem: Problem, node: Node, known: Node | None) -> Usage:
        """One scorer call, without tokens."""
        return Usage(scorer_calls=1)

    async def score(self, problem: Problem, nodes: Sequence[Node], known: Sequence[Node | None]) -> list[Score]:
        """One reading per node; its value is None for an incomplete sample."""
        values = await asyncio.gather(*(self._score(problem, node) for node in nodes))
        return [Score(value, Usage(scorer_calls=1)) for value in values]

    async def _score(self, problem: Problem, node: Node) -> float | None:
        if not node.done:
            return None
        return float(await self._task.right(self._task.answers.read(node.state), problem))


class Scrambled:
    """Runs a scorer at its normal cost, and replaces each score by a random number.

    The number depends on the node's key, so a run can be repeated. Gains that remain do not come from the scorer.
    """

    def __init__(self, scorer: Scorer) -> None:
        self._scorer = scorer
        self.name = f"random in place of {scorer.name}"

    @property
    def capabilities(self) -> frozenset[str]:
        """The scorer's capabilities."""
        return self._scorer.capabilities

    def worst_case(self, problem: Problem, node: Node, known: Node | None) -> Usage:
        """The scorer's worst case."""
        return self._scorer.worst_case(problem, node, known)

    async def score(self, problem: Problem, nodes: Sequence[Node], known: Sequence[Node | None]) -> list[Score]:
        """The scorer's readings with uniform values in [0, 1]; missing values stay missing."""
        readings = await self._scorer.score(problem, nodes, known)
        return [
            reading if reading.value is None else replace(reading, value=Random(f"{self.name}/{node.key}").random())
            for node, reading in zip(nodes, readings, strict=True)
        ]


def control(name: str, task: Task, scorer: Scorer | None) -> Scorer:
    """The control scorer ``oracle``, or ``random`` in place of ``scorer``.

    Raises:
        InputError: ``random`` has no scorer to replace.
    """
    if name == "oracle":
        return Oracle(task)
    if scorer is None:
        raise InputError("scorer", name, "it replaces a scorer that fits --model, and there is none")
    return Scrambled(scorer)
