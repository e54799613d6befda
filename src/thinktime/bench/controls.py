"""Control scorers: an oracle that knows every answer, an oracle that errs as often as you say, and random scores.

The difference between a method's results with the two is the most that its own scorer can contribute.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from math import sqrt
from random import Random
from statistics import NormalDist

from thinktime.bench.tasks import Task
from thinktime.core.errors import InputError
from thinktime.core.protocols import Scorer
from thinktime.core.types import Capability, Node, Problem, Score
from thinktime.core.usage import Usage

_DIAL = "dial:auc="


def is_control(name: str) -> bool:
    """Whether a value of ``--scorer`` names a control of a bench."""
    return name in ("oracle", "random", "dial") or name.startswith("dial:")


class Oracle:
    """Scores a complete sample 1 if the task's check accepts its answer, else 0.

    If the task can check unfinished solutions, one that can still be right scores 1, and others 0.
    The selector is then the evaluator, so results are an upper bound, and their reports carry a stamp.
    """

    def __init__(self, task: Task) -> None:
        self.name = task.evaluator
        kinds = {Capability.SCORES}
        if task.so_far is not None:
            kinds |= {Capability.PROCESS_REWARD, Capability.PARTIAL_REWARD}
        self.capabilities = frozenset(kinds)
        self._task = task

    def worst_case(self, problem: Problem, node: Node, known: Node | None) -> Usage:
        """One scorer call, without tokens."""
        return Usage(scorer_calls=1)

    async def score(self, problem: Problem, nodes: Sequence[Node], known: Sequence[Node | None]) -> list[Score]:
        """One reading per node; its value is None for an incomplete sample that the task cannot check."""
        values = await asyncio.gather(*(self._score(problem, node) for node in nodes))
        return [Score(value, Usage(scorer_calls=1)) for value in values]

    async def _score(self, problem: Problem, node: Node) -> float | None:
        if not node.done:
            so_far = self._task.so_far
            return None if so_far is None else float(so_far(node.state.text, problem))
        return float(await self._task.right(self._task.answers.read(node.state), problem))


class Dial:
    """An oracle degraded to a chosen AUC: the chance that a right sample scores higher than a wrong one.

    A sample that the oracle scores gets a number from N(d, 1) if it is right, and from N(0, 1) if it is wrong, where
    AUC = Phi(d / sqrt(2)) (the binormal model, Green and Swets 1966). The noise depends on the node's key alone: it is
    the same in any order of calls and for any AUC, so a higher AUC only moves the right samples up.

    Args:
        task: knows which answers are right.
        auc: between 0 and 1; 0.5 is chance, and less is worse than chance.

    Raises:
        InputError: ``auc`` is not between 0 and 1.
    """

    def __init__(self, task: Task, auc: float) -> None:
        if not 0 < auc < 1:
            raise InputError("auc", auc, "give a number between 0 and 1, as dial:auc=0.8")
        self.name = f"{task.evaluator}, degraded to an AUC of {auc:g}"
        self._oracle, self._lead = Oracle(task), sqrt(2) * NormalDist().inv_cdf(auc)
        self.capabilities = self._oracle.capabilities

    def worst_case(self, problem: Problem, node: Node, known: Node | None) -> Usage:
        """One scorer call, without tokens."""
        return self._oracle.worst_case(problem, node, known)

    async def score(self, problem: Problem, nodes: Sequence[Node], known: Sequence[Node | None]) -> list[Score]:
        """One reading per node; its value is None where the oracle's is."""
        readings = await self._oracle.score(problem, nodes, known)
        return [
            reading
            if reading.value is None
            else replace(reading, value=Random(f"dial/{node.key}").gauss(0.0, 1.0) + self._lead * reading.value)
            for node, reading in zip(nodes, readings, strict=True)
        ]


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
    """The control scorer ``oracle`` or ``dial:auc=0.8``, or ``random`` in place of ``scorer``.

    Raises:
        InputError: ``random`` has no scorer to replace, or the AUC of a dial is not a number between 0 and 1.
    """
    if name == "oracle":
        return Oracle(task)
    if name.startswith("dial"):
        try:
            return Dial(task, float(name.removeprefix(_DIAL)))
        except ValueError:
            raise InputError("scorer", name, "write it as dial:auc=0.8") from None
    if scorer is None:
        raise InputError("scorer", name, "it replaces a scorer that fits --model, and there is none")
    return Scrambled(scorer)
