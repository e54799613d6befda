"""Step-wise best-of-n: sample several candidates for every step, keep one (Wu et al. 2024, arXiv 2410.13639)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from thinktime.core.search import Search
from thinktime.core.selection import best, ranked
from thinktime.core.trace import Answer
from thinktime.core.types import Capability, Node, Problem, Prompt, missing
from thinktime.prompts.common import JUDGE
from thinktime.prompts.turns import Message, assistant, conversation, question_text, shown, user
from thinktime.strategies.options import at_least
from thinktime.strategies.verification.generative_reward import SHOWN, judge

FINAL_WORDS = """Stop here. Give the final answer alone, based on the steps above, in the format that the question \
asks for. The question was:

{question}"""


def _final(problem: Problem, about: Sequence[Any], said: Sequence[Any]) -> list[Message]:
    steps = [assistant(shown(state)) for state in about]
    return [*conversation(problem), *steps, user(FINAL_WORDS.format(question=question_text(problem)))]


FINAL = Prompt("final", _final, is_answer=True)
"""The prompt is about the path of steps. It repeats the question, because many steps come after the first one."""


@dataclass(frozen=True)
class StepwiseBestOfN:
    """Extend one path: sample ``n`` candidates for its next step, and keep the one that the model scores highest.

    An unreadable judgement is requested once more; if that is unreadable too, the most frequent candidate is kept. If
    the path ends without a readable answer, one more call asks for the final answer alone, if the model answers this
    prompt (the shipped skilled one does not).

    Args:
        n: candidates per step; the judge sees the first four that differ.
        max_steps: the most steps; the path then ends.
        min_steps: before this step, a candidate that ends the path is chosen only if all candidates end it. The paper
            asks for 3 steps in its prompt.
    """

    n: int = 4
    max_steps: int = 25
    min_steps: int = 3
    prompts: ClassVar[tuple[Prompt, ...]] = (JUDGE, FINAL)
    needs: ClassVar[frozenset[str]] = frozenset(
        {Capability.STEPS, Capability.PREFIX, Capability.ANSWERS, JUDGE.capability}
    )

    def __post_init__(self) -> None:
        at_least("n", self.n, 1)
        at_least("max_steps", self.max_steps, 1)
        at_least("min_steps", self.min_steps, 0)

    async def __call__(self, search: Search) -> Answer:
        node = search.root
        for step in range(1, self.max_steps + 1):
            children = [child for child in await search.extend([node], self.n, until="step") if child.finish != "error"]
            if not children:
                break
            going_on = [child for child in children if child.finish == "step"] if step < self.min_steps else []
            node = await self._choose(search, going_on or children, step)
            search.prune([child for child in children if child is not node])
            if node.finish != "step":
                break
        answer = best(search.candidates([node]))
        if answer is None and node is not search.root and not missing({FINAL.capability}, search.capabilities):
            question = search.ask(FINAL, [node])
            answer = best(search.candidates(await search.extend([question]) if question else []))
        return search.finish(answer)

    async def _choose(self, search: Search, children: list[Node], step: int) -> Node:
        distinct = list({child.state: child for child in reversed(children)}.values())[::-1][:SHOWN]
        if len(distinct) == 1:
            return distinct[0]
        for _ in range(2):
            judgements, _ = await judge(search, distinct, 1, order=f"order/{step}")
            for scores in judgements.values():
                return ranked(distinct, scores)[0][0]
        states = [child.state for child in children]
        return max(distinct, key=lambda child: states.count(child.state))
