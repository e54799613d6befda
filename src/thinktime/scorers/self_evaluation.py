"""A model says of its own sample, whole or not, that no other would be better (Manvi et al. 2024, arXiv 2410.02725).

The score is the probability of No as the next token behind a question that is thrown away again: the sample's keys and
values are the generator's, so a reading costs the question. It is no confidence in being right: where all samples are
wrong, no other would be better.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from thinktime.core.errors import CapabilityError
from thinktime.core.types import Capability, Node, Reading
from thinktime.core.usage import Usage
from thinktime.generators.local import LocalGenerator


class SelfEvaluation:
    """Reads the self-evaluation token of the generator itself.

    Its model directory names the question, the two tokens and the scale that calibrates them, in ``config.json`` under
    ``thinktime.self_evaluation``.

    Raises:
        CapabilityError: it names none.
    """

    capabilities = frozenset({Capability.SCORES, Capability.SELF_EVALUATION})

    def __init__(self, generator: LocalGenerator) -> None:
        skill = generator.described.get("self_evaluation")
        if skill is None:
            raise CapabilityError(
                f"generator={generator.name!r}: it has no self-evaluation skill (no Yes and No tokens in its "
                "config.json); train one as training/skills.py does"
            )
        self._generator, self._question = generator, skill["question"]
        self._words, self._scale = (skill["no"], skill["yes"]), float(skill["scale"])
        self.name = f"{generator.name}/self-evaluation/{self._scale:g}"

    def worst_case(self, node: Node, known: Node | None) -> Usage:
        """The question, and the last token of the sample; the generator has read all else."""
        return self._generator.expecting(node.state, self._question)

    async def score(self, nodes: Sequence[Node], known: Sequence[Node | None]) -> list[Reading]:
        """The probability that no other sample would be better, for each node."""
        found = await self._generator.expect([node.state for node in nodes], self._question, self._words)
        return [Reading(self._share(*logprobs), usage) for logprobs, usage in found]

    def _share(self, no: float, yes: float) -> float:
        return 1 / (1 + math.exp(self._scale * (yes - no)))
