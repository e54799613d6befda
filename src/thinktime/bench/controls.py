"""Control scorers: an oracle that knows every answer, and random scores.

The difference between a method's results with the two is the most that its own scorer can contribute.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from random import Random

from thinktime.bench.tasks import Task
from thinktime.core.errors import InputError
from thinktime.core.types import Capability, Node, Reading, Scorer
from thinktime.core.usage import Usage
from thinktime.generators.text import asked_of, messages_of

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
        self._references = {json.dumps(messages_of(problem.prompt)): problem.reference for problem in task.problems}

    def worst_case(self, node: Node, known: Node | None) -> Usage:
        """One scorer call, without tokens."""
        return Usage(scorer_calls=1)

    async def score(self, nodes: Sequence[Node], known: Sequence[Node | None]) -> list[Reading]:
        """One reading per node; its value is None for an incomplete sample."""
        return [Reading(self._score(node), Usage(scorer_calls=1)) for node in nodes]

    def _score(self, node: Node) -> float | None:
        if not node.done:
            return None
        reference = self._references[json.dumps(asked_of(node.state))]
        return float(self._task.check(self._task.answers.read(node.state), reference))


class Scrambled:
    """Runs a scorer at its normal cost, and replaces each score by a random number.

    The number depends on the node's key, so a run can be repeated. Gains that remain do not come from the scorer.
    """

    def __init__(self, scorer: Scorer) -> None:
        self._scorer = scorer
        self.name = f"random in place of {scorer.name}"

    @property
    def capabilities(self) -> frozenset[Capability]:
        """The scorer's capabilities."""
        return self._scorer.capabilities

    def worst_case(self, node: Node, known: Node | None) -> Usage:
        """The scorer's worst case."""
        return self._scorer.worst_case(node, known)

    async def score(self, nodes: Sequence[Node], known: Sequence[Node | None]) -> list[Reading]:
        """The scorer's readings with uniform values in [0, 1]; missing values stay missing."""
        readings = await self._scorer.score(nodes, known)
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
