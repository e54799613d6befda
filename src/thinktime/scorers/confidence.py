"""The model's own confidence as a process reward: the baseline that every trained reward model has to beat."""

from __future__ import annotations

import math
from collections.abc import Sequence

from thinktime.core.errors import InputError
from thinktime.core.protocols import Generator
from thinktime.core.types import Capability, Node, Problem, Score
from thinktime.core.usage import Usage

DIGITS = 9
"""Scores are rounded to this, so they do not depend on the rest of a batch."""


class Confidence:
    """Scores a text by the geometric mean of the probabilities of its tokens, also in the middle of a step.

    The probabilities are those at temperature 1, and the sampler has computed them, so a score costs nothing. A text
    without tokens, or with unknown probabilities, has no score.

    Args:
        generator: the model that samples.

    Raises:
        InputError: the model gives no log-probabilities.
    """

    capabilities = frozenset({Capability.SCORES, Capability.PROCESS_REWARD, Capability.PARTIAL_REWARD})

    def __init__(self, generator: Generator) -> None:
        if Capability.LOGPROBS not in generator.capabilities:
            raise InputError("scorer", "confidence", "this model gives no log-probabilities; give another scorer")
        self._generator = generator
        self.name = f"{generator.name}/confidence"

    def worst_case(self, problem: Problem, node: Node, known: Node | None) -> Usage:
        """One call without tokens."""
        return Usage(scorer_calls=1)

    async def score(self, problem: Problem, nodes: Sequence[Node], known: Sequence[Node | None]) -> list[Score]:
        """One score a node, between 0 and 1."""
        return [Score(self._of(node), Usage(scorer_calls=1)) for node in nodes]

    def _of(self, node: Node) -> float | None:
        length, logprob = self._generator.length(node.state), node.state.logprob
        return None if not length or math.isnan(logprob) else round(math.exp(logprob / length), DIGITS)
