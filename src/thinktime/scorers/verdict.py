"""How sure a check is of its verdict (Zhang et al. 2024, arXiv 2408.15240; Singhi et al. 2025, arXiv 2504.01005).

A verdict that was read off the text is yes or no; the model that wrote it knows how nearly it wrote the other word.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from thinktime.core.errors import InputError
from thinktime.core.types import Capability, Node, Problem, Score
from thinktime.core.usage import Usage
from thinktime.generators.local import LocalGenerator
from thinktime.generators.text import Text

FORMS = ((" Yes", " No"), ("Yes", "No"), (" yes", " no"), ("yes", "no"))
DIGITS = 9
"""As of all rewards: what shared the batch of a reading is not to be seen in it."""


class VerdictProbability:
    """The probability of yes at the last verdict of a check, normalised to yes and no; none where there is no verdict.

    Args:
        generator: the model that checks.

    Raises:
        InputError: yes and no are no single tokens of this model.
    """

    capabilities = frozenset({Capability.VERDICTS})

    def __init__(self, generator: LocalGenerator) -> None:
        self._generator = generator
        self._pairs: dict[int, tuple[int, int]] = {}
        for form in FORMS:
            yes, no = (generator.single_id(word) for word in form)
            if yes is not None and no is not None:
                self._pairs |= {yes: (yes, no), no: (yes, no)}
        if not self._pairs:
            fix = "Yes and No are no single tokens of this model; leave it out and read verdicts off the text"
            raise InputError("scorer", "verdicts", fix)
        self.name = f"{generator.name}/verdict"

    def worst_case(self, problem: Problem, node: Node, known: Node | None) -> Usage:
        """The token before the verdict, read once more for what may follow it."""
        return self._generator.looking(node.state)

    async def score(self, problem: Problem, nodes: Sequence[Node], known: Sequence[Node | None]) -> list[Score]:
        """One reading per check."""
        places = [self._place(node.state) for node in nodes]
        behind: list[tuple[int, ...]] = []
        tokens: list[int] = []
        for node, place in zip(nodes, places, strict=True):
            if place is not None:
                behind += [node.state.prompt + node.state.ids[:place]] * 2
                tokens += self._pairs[node.state.ids[place]]
        chances = iter(await self._generator.chances(behind, tokens))
        readings = []
        for node, place in zip(nodes, places, strict=True):
            if place is None:
                readings.append(Score(None, Usage()))
                continue
            yes, no = next(chances), next(chances)
            probability = 1 / (1 + math.exp(max(-700.0, min(700.0, no - yes))))
            readings.append(Score(round(probability, DIGITS), self._generator.looking(node.state)))
        return readings

    def _place(self, state: Text) -> int | None:
        """Where the last verdict is, whatever stands behind it."""
        places = [place for place, token in enumerate(state.ids) if token in self._pairs]
        return places[-1] if places else None
