"""Plan, then solve by the plan: the shortest agent workflow (Wang et al. 2023, arXiv 2305.04091).

In Wu et al. 2024 (arXiv 2410.13639), a fixed chain of prompts is the best scaffold for a model that does not reason by
itself. Its four roles plan, solve the parts, assemble the answer, and check its format.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from thinktime.core.errors import CapabilityError
from thinktime.core.search import Search
from thinktime.core.selection import best, majority
from thinktime.core.trace import Answer
from thinktime.core.types import Capability, Node, Problem, Prompt, missing
from thinktime.prompts.turns import Message, assistant, conversation, question_text, shown, user
from thinktime.strategies.options import at_least, one_of

PLAN_WORDS = "Do not solve this yet. Write a short plan: what has to be worked out, in which order."
SOLVE_WORDS = "Now solve the question by this plan: work out its parts one by one, then answer."
ASSEMBLE_WORDS = "Now put the parts together: write one complete answer to the question, in the format it asks for."
CHECK_FORMAT_WORDS = """Compare the answer above with the format that the question asks for. Reply with the same \
answer in exactly that format, and with nothing else. The question was:

{question}"""


def _plan(problem: Problem, about: Sequence[Any], said: Sequence[Any]) -> list[Message]:
    return [*conversation(problem), user(PLAN_WORDS)]


def _solve(problem: Problem, about: Sequence[Any], said: Sequence[Any]) -> list[Message]:
    plans = [assistant(shown(state)) for state in said]
    return [*_plan(problem, (), ()), *plans, user(SOLVE_WORDS)]


def _assemble(problem: Problem, about: Sequence[Any], said: Sequence[Any]) -> list[Message]:
    solutions = [assistant(shown(state)) for state in about]
    return [*_solve(problem, (), said), *solutions, user(ASSEMBLE_WORDS)]


def _check_format(problem: Problem, about: Sequence[Any], said: Sequence[Any]) -> list[Message]:
    answers = [assistant(shown(state)) for state in about]
    return [*conversation(problem), *answers, user(CHECK_FORMAT_WORDS.format(question=question_text(problem)))]


PLAN = Prompt("plan", _plan)
SOLVE = Prompt("solve", _solve, is_answer=True)
"""The earlier reply is the plan."""
ASSEMBLE = Prompt("assemble", _assemble, is_answer=True)
"""About the solution of the parts; the earlier reply is the plan."""
CHECK_FORMAT = Prompt("check_format", _check_format, is_answer=True)
"""About an answer. It repeats the question and does not show the plan."""

FURTHER = (ASSEMBLE, CHECK_FORMAT)
"""The prompts after the solution, in order."""


@dataclass(frozen=True)
class PlanThenSolve:
    """``n`` chains of plan, solution, assembled answer and answer in the right format; the majority answers.

    The newest readable reply of a chain is its answer. An incomplete reply is not passed on.

    Args:
        n: chains.
        roles: the replies of a chain: ``two`` are plan and solution, ``four`` are all. ``auto`` is plan, solution, and
            those of the other two that the model answers: a chat model has all four, the shipped skilled model two.
    """

    n: int = 1
    roles: str = "auto"
    prompts: ClassVar[tuple[Prompt, ...]] = (PLAN, SOLVE, ASSEMBLE, CHECK_FORMAT)
    needs: ClassVar[frozenset[str]] = frozenset({PLAN.capability, SOLVE.capability, Capability.ANSWERS})

    def __post_init__(self) -> None:
        at_least("n", self.n, 1)
        one_of("roles", self.roles, ("auto", "two", "four"))

    def validate(self, search: Search) -> None:
        lacking = missing({prompt.capability for prompt in FURTHER}, search.capabilities)
        if self.roles == "four" and lacking:
            raise CapabilityError(f"plan_then_solve: roles='four' needs {', '.join(sorted(lacking))}; give roles=two")

    async def __call__(self, search: Search) -> Answer:
        question = search.ask(PLAN)
        plans = await search.extend([question], self.n) if question else []
        chains = [[plan] for plan in plans]
        for prompt in (SOLVE, *self._further(search)):
            roots: dict[Node | None, list[Node]] = {}
            for chain in chains:
                root = search.ask(prompt, chain[1:][-1:], chain[:1]) if chain[-1].done else None
                if root is not None:
                    roots[root] = chain
            for reply in await search.extend([root for root in roots if root is not None]):
                roots[reply.parent].append(reply)
        newest = [best(search.candidates(chain[:0:-1])) for chain in chains]
        return search.finish(majority([candidate for candidate in newest if candidate is not None]))

    def _further(self, search: Search) -> list[Prompt]:
        """The prompts after the solution that a chain uses, in order."""
        if self.roles == "two":
            return []
        offered = search.capabilities
        return [prompt for prompt in FURTHER if self.roles == "four" or not missing({prompt.capability}, offered)]
