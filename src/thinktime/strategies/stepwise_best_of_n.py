"""Step-wise best-of-n: at every step, several candidates and one choice (Wu et al. 2024, arXiv 2410.13639)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from thinktime.core.search import Search
from thinktime.core.selection import ranked
from thinktime.core.trace import Answer
from thinktime.core.types import Capability, Node, Prompt
from thinktime.prompts.common import JUDGE
from thinktime.strategies.generative_reward import SHOWN, judge
from thinktime.strategies.options import at_least


@dataclass(frozen=True)
class StepwiseBestOfN:
    """One path: of ``n`` candidates for its next step the model keeps the one it scores highest.

    A judgement that cannot be read is asked for once more; then the most frequent candidate is taken.

    Args:
        n: candidates a step; of different ones the first four are shown.
        max_steps: after so many the path ends where it is.
    """

    n: int = 4
    max_steps: int = 25
    prompts: ClassVar[tuple[Prompt, ...]] = (JUDGE,)
    needs: ClassVar[frozenset[str]] = frozenset(
        {Capability.STEPS, Capability.PREFIX, Capability.ANSWERS, JUDGE.capability}
    )

    def __post_init__(self) -> None:
        at_least("n", self.n, 1)
        at_least("max_steps", self.max_steps, 1)

    async def __call__(self, search: Search) -> Answer:
        node = search.root
        for _ in range(self.max_steps):
            children = await search.extend([node], self.n, until="step")
            if not children:
                break
            node = await self._choose(search, children)
            search.prune([child for child in children if child is not node])
            if node.finish != "step":
                break
        return search.finish(next((c for c in search.candidates([node]) if c.answer is not None), None))

    async def _choose(self, search: Search, children: list[Node]) -> Node:
        distinct = list({child.state: child for child in reversed(children)}.values())[::-1][:SHOWN]
        if len(distinct) == 1:
            return distinct[0]
        for _ in range(2):
            judgements, _ = await judge(search, distinct, 1)
            for scores in judgements.values():
                return ranked(distinct, scores)[0][0]
        states = [child.state for child in children]
        return max(distinct, key=lambda child: states.count(child.state))
