"""Aggregate and synthesise: write one answer from several proposals (Wang et al. 2024, arXiv 2406.04692).

A mixture of agents with one model: a way to use many samples if there is no verifier (2025, arXiv 2504.14047).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from thinktime.core.search import Search
from thinktime.core.selection import majority
from thinktime.core.trace import Answer
from thinktime.core.types import Capability, Problem, Prompt
from thinktime.prompts.turns import Message, conversation, listed, user
from thinktime.strategies.options import at_least

WORDS = """Here are {n} proposed answers to the question above. Some of them may be wrong, as may most of them.

{answers}

Weigh them against each other and against the question, then write one complete answer of your own, in the format the \
question asks for."""


def _aggregate(problem: Problem, about: Sequence[Any], said: Sequence[Any]) -> list[Message]:
    return [*conversation(problem), user(WORDS.format(n=len(about), answers=listed(about)))]


AGGREGATE = Prompt("aggregate", _aggregate, is_answer=True)


@dataclass(frozen=True)
class Aggregate:
    """Sample ``n`` proposals, then one answer that is written from all of them.

    If this answer is incomplete or unreadable, the proposals vote.

    Args:
        n: proposals.
        layers: rounds of writing answers from the previous ones; each round but the last writes ``n``.
    """

    n: int = 4
    layers: int = 1
    prompts: ClassVar[tuple[Prompt, ...]] = (AGGREGATE,)
    needs: ClassVar[frozenset[str]] = frozenset({AGGREGATE.capability, Capability.ANSWERS})

    def __post_init__(self) -> None:
        at_least("n", self.n, 1)
        at_least("layers", self.layers, 1)

    async def __call__(self, search: Search) -> Answer:
        written = [await search.extend([search.root], self.n)]
        for left in reversed(range(self.layers)):
            shown = [leaf for leaf in written[-1] if leaf.done]
            question = search.ask(AGGREGATE, shown) if shown else None
            if question is None:
                break
            written.append(await search.extend([question], self.n if left else 1))
        votes = (majority(search.candidates(leaves)) for leaves in reversed(written))
        return search.finish(next((winner for winner in votes if winner is not None), None))
