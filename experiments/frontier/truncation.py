"""Solutions cut short: the first part of a sample's steps, then the answer at once (Wang et al. 2025, 2504.14047).

No model here thinks before it answers. Its steps stand for thoughts, and ``Answer:`` for the mark that ends them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from thinktime.core.search import Search
from thinktime.core.selection import Candidate
from thinktime.core.trace import Answer, Record
from thinktime.core.types import Capability, Node
from thinktime.models.engine.models import ChatTokenizer
from thinktime.pocket import directory
from thinktime.pocket.problems import read_answer
from thinktime.pocket.tokenizer import STEP

MARK = "Answer:"


@dataclass(frozen=True)
class Truncated:
    """A share ``kept`` of the tokens before the answer of one sample, and an answer to that."""

    kept: float
    needs: ClassVar[frozenset[str]] = frozenset({Capability.ANSWERS, Capability.PREFIX})

    async def __call__(self, search: Search) -> Answer:
        """The answer behind the cut; none where the sample never ended."""
        (leaf,) = await search.extend([search.root]) or [search.root]
        if not leaf.done:
            return search.finish(None)
        tokenizer = ChatTokenizer(directory("skilled"))
        (line,) = tokenizer.encode(STEP)
        thought = leaf.state.ids[: ([0, *leaf.state.step_ends])[-2]]
        kept = thought[: round(self.kept * len(thought))]
        mark = tokenizer.encode(MARK)
        begun = search.root.state.prompt + kept + ((line,) if kept and kept[-1] != line else ()) + tuple(mark)
        root = Node(f"{leaf.key}/{self.kept}", (), replace(search.root.state, prompt=begun, known=len(begun)))
        search.trace[root.key] = Record(root)
        (answered,) = await search.extend([root])
        search.log(tokens=len(kept) + len(mark) + answered.usage.generated_tokens)
        value = read_answer(MARK + answered.state.text) if answered.done else None
        return search.finish(Candidate(answered, value))
