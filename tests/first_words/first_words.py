"""First words (our own example): begin often, finish only the beginning that is scored best."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from thinktime import Answer, Capability, Search, best


@dataclass(frozen=True)
class FirstWords:
    """Begin ``n`` solutions and finish the most promising one.

    Args:
        n: solutions begun.
        words: how many tokens each is begun with.
    """

    n: int = 4
    words: int = 3
    needs: ClassVar[frozenset[str]] = frozenset({Capability.PREFIX, Capability.SCORES})

    async def __call__(self, search: Search) -> Answer:
        """Begin, score, finish."""
        begun = await search.extend([search.root], self.n, at_most=self.words)
        scores = await search.score(begun)
        ranked = sorted(zip(begun, scores, strict=True), key=lambda pair: -(pair[1] or 0.0))
        finished = await search.extend([node for node, _ in ranked if not node.done][:1])
        search.prune([node for node, _ in ranked[1:] if not node.done])
        return search.finish(best(search.candidates([*finished, *begun])))
