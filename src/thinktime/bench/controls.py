"""Scorers that no method could have: one that knows every answer, and one that knows nothing.

Between what a method gains with the first and with the second lies all that its own scorer can be worth to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from random import Random

from thinktime.bench.tasks import Task
from thinktime.core.errors import InputError
from thinktime.core.protocols import Scorer
from thinktime.core.types import Capability, Node, Problem, Score
from thinktime.core.usage import Usage

NAMES = ("oracle", "random")
"""As ``--scorer`` of a bench."""


class Oracle:
    """Scores a complete sample 1 if the task's own check says it is right, else 0: the selector is the evaluator.

    What is selected by it is an upper bound, and a report of it is stamped.
    """

    capabilities = frozenset({Capability.SCORES})

    def __init__(self, task: Task) -> None:
        self.name = task.evaluator
        self._task = task

    def worst_case(self, problem: Problem, node: Node, known: Node | None) -> Usage:
        """A look at the reference costs nothing."""
        return Usage(scorer_calls=1)

    async def score(self, problem: Problem, nodes: Sequence[Node], known: Sequence[Node | None]) -> list[Score]:
        """One reading per node; none of an incomplete one."""
        return [Score(self._score(problem, node), Usage(scorer_calls=1)) for node in nodes]

    def _score(self, problem: Problem, node: Node) -> float | None:
        if not node.done:
            return None
        return float(self._task.check(self._task.answers.read(node.state), problem.reference))


class Scrambled:
    """A scorer whose readings cost what they cost and say nothing: in place of each number another at random.

    The random number is the node's own, so a run can be repeated. What a method gains with it is not the scorer's.
    """

    def __init__(self, scorer: Scorer) -> None:
        self._scorer = scorer
        self.name = f"random in place of {scorer.name}"

    @property
    def capabilities(self) -> frozenset[str]:
        """Those of the scorer."""
        return self._scorer.capabilities

    def worst_case(self, problem: Problem, node: Node, known: Node | None) -> Usage:
        """As the scorer's."""
        return self._scorer.worst_case(problem, node, known)

    async def score(self, problem: Problem, nodes: Sequence[Node], known: Sequence[Node | None]) -> list[Score]:
        """The scorer's readings, their numbers drawn from 0 to 1; a missing one stays missing."""
        readings = await self._scorer.score(problem, nodes, known)
        return [
            reading if reading.value is None else replace(reading, value=Random(f"{self.name}/{node.key}").random())
            for node, reading in zip(nodes, readings, strict=True)
        ]


def control(name: str, task: Task, scorer: Scorer | None) -> Scorer:
    """``oracle``, or ``random`` numbers at the cost of the scorer they stand for.

    Raises:
        InputError: there is no scorer to stand for.
    """
    if name == "oracle":
        return Oracle(task)
    if scorer is None:
        raise InputError("scorer", name, "it stands for a scorer that fits --model, and there is none")
    return Scrambled(scorer)
