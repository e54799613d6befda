"""Self-refine: draft, feedback, another draft, by one model (Madaan et al. 2023, arXiv 2303.17651)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from thinktime.core.search import Search
from thinktime.core.trace import Answer
from thinktime.core.types import Prompt
from thinktime.prompts.common import CHECK, REVISE
from thinktime.strategies.options import at_least


@dataclass(frozen=True)
class SelfRefine:
    """Answer by the last of ``rounds`` revisions; each revision sees the draft before it and a check of that draft.

    Args:
        rounds: revisions; an incomplete reply ends them early.
    """

    rounds: int = 3
    prompts: ClassVar[tuple[Prompt, ...]] = (CHECK, REVISE)
    needs: ClassVar[frozenset[str]] = frozenset({CHECK.capability, REVISE.capability})

    def __post_init__(self) -> None:
        at_least("rounds", self.rounds, 0)

    async def __call__(self, search: Search) -> Answer:
        drafts = await search.extend([search.root])
        for _ in range(self.rounds):
            question = search.ask(CHECK, drafts[-1:]) if drafts and drafts[-1].done else None
            feedback = await search.extend([question]) if question else []
            again = search.ask(REVISE, drafts[-1:], feedback) if feedback and feedback[0].done else None
            revised = await search.extend([again]) if again else []
            if not revised:
                break
            drafts += revised
        readable = [c for c in search.candidates(drafts) if c.answer is not None]
        return search.finish(readable[-1] if readable else None)
