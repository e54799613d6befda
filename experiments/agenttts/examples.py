"""A scorer for functions: the examples of the prompt are run as tests, in the sandbox."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence

from experiments.banks.examples import visible_tests
from thinktime.bench.execution import program_of
from thinktime.bench.tasks import Task
from thinktime.core.types import Capability, Node, Problem, Score
from thinktime.core.usage import Usage


class Examples:
    """Scores a complete program 1 if it passes the examples of its prompt, else 0; None if the prompt has none.

    Args:
        task: of programs, such as ``humaneval``.
    """

    name = "examples of the prompt"
    capabilities = frozenset({Capability.SCORES})

    def __init__(self, task: Task) -> None:
        assert task.programs is not None
        self._checks = task.programs
        self._preambles = {problem.id: problem.metadata["preamble"] for problem in task.problems}

    def worst_case(self, problem: Problem, node: Node, known: Node | None) -> Usage:
        """One scorer call, without tokens."""
        return Usage(scorer_calls=1)

    async def score(self, problem: Problem, nodes: Sequence[Node], known: Sequence[Node | None]) -> list[Score]:
        """One score per node."""
        values = await asyncio.gather(*(self._score(problem, node) for node in nodes))
        return [Score(value, Usage(scorer_calls=1)) for value in values]

    async def _score(self, problem: Problem, node: Node) -> float | None:
        preamble = self._preambles[problem.id]
        tests = visible_tests(preamble, re.findall(r"^def (\w+)\(", preamble, re.MULTILINE)[-1])
        if not node.done or not tests:
            return None
        return float(await self._checks.passes(program_of(node.state.text), tests, preamble))
