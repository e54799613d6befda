"""Several scorers as one: their weighted sum, product or minimum. The score is missing if any part is missing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from math import prod

from thinktime.core.errors import InputError, UnknownNameError
from thinktime.core.protocols import Scorer
from thinktime.core.types import Capability, Node, Problem, Score
from thinktime.core.usage import Usage, total

HOW: dict[str, Callable[[Sequence[float]], float]] = {"sum": sum, "product": prod, "min": min}


class Composed:
    """One score composed of several; ``Score.steps`` holds the parts.

    Args:
        parts: scorers with their weights.
        how: ``sum`` or ``min`` of weight times score, or ``product`` of the scores; a product needs weights of 1.

    Raises:
        InputError: there are no parts, or a product has weights.
    """

    def __init__(self, parts: Sequence[tuple[Scorer, float]], how: str = "sum") -> None:
        if how not in HOW:
            raise UnknownNameError("how", how, HOW)
        if not parts:
            raise InputError("scorer", "", "name at least one")
        if how == "product" and any(weight != 1 for _, weight in parts):
            raise InputError("how", how, "a product of weighted scores ranks as one without weights; leave them out")
        self._parts, self._how = list(parts), HOW[how]
        names = [scorer.name if weight == 1 else f"{weight:g}*{scorer.name}" for scorer, weight in parts]
        self.name = f"{how}({','.join(names)})"
        self.capabilities: frozenset[str] = frozenset.intersection(*(scorer.capabilities for scorer, _ in parts))
        self.capabilities |= {Capability.PARTS} if len(parts) > 1 else frozenset()

    def worst_case(self, problem: Problem, node: Node, known: Node | None) -> Usage:
        """The worst cases of all parts added up."""
        return total(scorer.worst_case(problem, node, known) for scorer, _ in self._parts)

    async def score(self, problem: Problem, nodes: Sequence[Node], known: Sequence[Node | None]) -> list[Score]:
        """One score per node."""
        found = await asyncio.gather(*(scorer.score(problem, nodes, known) for scorer, _ in self._parts))
        return [self._whole(scores) for scores in zip(*found, strict=True)]

    def _whole(self, scores: Sequence[Score]) -> Score:
        usage = total(score.usage for score in scores)
        reasons = [score.reason for score in scores if score.reason]
        values = [w * r.value for (_, w), r in zip(self._parts, scores, strict=True) if r.value is not None]
        if len(values) < len(scores):
            return Score(None, usage, reason=reasons[0] if reasons else "")
        return Score(self._how(values), usage, steps=tuple(values))
