"""Plan, then solve by the plan: the shortest agent workflow (Wang et al. 2023, arXiv 2305.04091).

Wu et al. 2024 (arXiv 2410.13639) find such fixed chains of prompts, written for the task, the best scaffold around a
model that does not think by itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from thinktime.core.search import Answer, Search
from thinktime.core.selection import majority
from thinktime.core.types import Capability
from thinktime.strategies.options import at_least


@dataclass(frozen=True)
class PlanThenSolve:
    """``n`` plans, one solution by each; the majority answers."""

    n: int = 1
    needs: ClassVar[frozenset[Capability]] = frozenset({Capability.PLAN, Capability.ANSWERS})

    def __post_init__(self) -> None:
        at_least("n", self.n, 1)

    async def __call__(self, search: Search) -> Answer:
        question = search.ask(Capability.PLAN)
        plans = await search.extend([question], self.n) if question else []
        roots = [search.ask(Capability.PLAN, said=[plan]) for plan in plans if plan.done]
        leaves = await search.extend([root for root in roots if root is not None])
        return search.finish(majority(search.candidates(leaves)))
