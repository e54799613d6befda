"""Plan, then solve by the plan: the shortest agent workflow (Wang et al. 2023, arXiv 2305.04091).

Wu et al. 2024 (arXiv 2410.13639) find such fixed chains of prompts, written for the task, the best scaffold around a
model that does not think by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from thinktime.core.search import Search
from thinktime.core.selection import majority
from thinktime.core.trace import Answer
from thinktime.core.types import Capability, Problem, Prompt
from thinktime.prompts.turns import Message, assistant, conversation, shown, user
from thinktime.strategies.options import at_least

PLAN_WORDS = "Do not solve this yet. Write a short plan: what has to be worked out, in which order."
SOLVE_WORDS = "Now solve the question by this plan, in the format it asks for."


def _solve(problem: Problem, about: Sequence[Any], said: Sequence[Any]) -> list[Message]:
    plans = [assistant(shown(state)) for state in said]
    return [*conversation(problem), user(PLAN_WORDS), *plans, user(SOLVE_WORDS)]


PLAN = Prompt("plan", lambda problem, about, said: [*conversation(problem), user(PLAN_WORDS)])
SOLVE = Prompt("solve", _solve, is_answer=True)
"""The earlier reply is the plan."""


@dataclass(frozen=True)
class PlanThenSolve:
    """``n`` plans, one solution by each; the majority answers."""

    n: int = 1
    prompts: ClassVar[tuple[Prompt, ...]] = (PLAN, SOLVE)
    needs: ClassVar[frozenset[str]] = frozenset({PLAN.capability, SOLVE.capability, Capability.ANSWERS})

    def __post_init__(self) -> None:
        at_least("n", self.n, 1)

    async def __call__(self, search: Search) -> Answer:
        question = search.ask(PLAN)
        plans = await search.extend([question], self.n) if question else []
        roots = [search.ask(SOLVE, said=[plan]) for plan in plans if plan.done]
        leaves = await search.extend([root for root in roots if root is not None])
        return search.finish(majority(search.candidates(leaves)))
