"""The probability of a check's verdict (Zhang et al. 2024, arXiv 2408.15240; Singhi et al. 2025, arXiv 2504.01005).

The text of a verdict says only yes or no; the model also has a probability for both words.
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
"""Probabilities are rounded to this, so they do not depend on the rest of a batch."""


class VerdictProbability:
    """The probability of yes at the last verdict of a check, normalised to yes and no; missing without a verdict.

    Args:
        generator: the model that checks.

    Raises:
        InputError: yes and no are not single tokens of this model.
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
            fix = "Yes and No are not single tokens of this model; leave this scorer out to read verdicts from the text"
            raise InputError("scorer", "verdicts", fix)
        self.name = f"{generator.name}/verdict"

    def worst_case(self, problem: Problem, node: Node, known: Node | None) -> Usage:
        """One more forward pass over the token before the verdict."""
        return self._generator.probe_usage(node.state)

    async def score(self, problem: Problem, nodes: Sequence[Node], known: Sequence[Node | None]) -> list[Score]:
        """One score per check."""
        indices = [self._verdict_index(node.state) for node in nodes]
        prefixes: list[tuple[int, ...]] = []
        tokens: list[int] = []
        for node, index in zip(nodes, indices, strict=True):
            if index is not None:
                prefixes += [node.state.prompt + node.state.ids[:index]] * 2
                tokens += self._pairs[node.state.ids[index]]
        logprobs = iter(await self._generator.logprobs(prefixes, tokens))
        scores = []
        for node, index in zip(nodes, indices, strict=True):
            if index is None:
                scores.append(Score(None, Usage()))
                continue
            yes, no = next(logprobs), next(logprobs)
            probability = 1 / (1 + math.exp(max(-700.0, min(700.0, no - yes))))
            scores.append(Score(round(probability, DIGITS), self._generator.probe_usage(node.state)))
        return scores

    def _verdict_index(self, state: Text) -> int | None:
        """The position of the last verdict among the ids; None without a verdict."""
        indices = [index for index, token in enumerate(state.ids) if token in self._pairs]
        return indices[-1] if indices else None
