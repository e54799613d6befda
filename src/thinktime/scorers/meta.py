"""A meta reward model: how likely a judgement is to be right (Liu et al. 2025, DeepSeek-GRM, arXiv 2504.02495).

It is a logistic head on the judge's last hidden state at the end of its own judgement. The generator has the keys and
values of all earlier tokens, so a score costs one token.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from pathlib import Path

from thinktime.core.errors import InputError
from thinktime.core.types import Capability, Node, Problem, Score
from thinktime.core.usage import Usage
from thinktime.generators.local import LocalGenerator


class MetaReward:
    """Scores judgements of one judge, from 0 to 1; a node without generated tokens has no score.

    Args:
        generator: the judge.
        path: a JSON file with ``weights``, ``bias`` and the ``fingerprint`` of the judge's weights;
            ``training.meta`` writes it.

    Raises:
        InputError: the file cannot be read, or was made for another judge.
    """

    capabilities = frozenset({Capability.META_REWARD})

    def __init__(self, generator: LocalGenerator, path: Path | str) -> None:
        self._generator = generator
        try:
            text = Path(path).read_text(encoding="utf-8")
            head = json.loads(text)
            made_for, self._bias = head["fingerprint"], float(head["bias"])
            self._weights = [float(weight) for weight in head["weights"]]
        except (OSError, ValueError, KeyError, TypeError) as error:
            fix = f"cannot read it as a meta reward ({error}); make one with training.meta"
            raise InputError("meta_reward", str(path), fix) from None
        if made_for != generator.weights:
            fix = f"it was made for the judge {made_for}, this is {generator.weights}; make one with training.meta"
            raise InputError("meta_reward", str(path), fix)
        self.name = f"{generator.name}/meta@{hashlib.blake2b(text.encode(), digest_size=6).hexdigest()}"

    def worst_case(self, problem: Problem, node: Node, known: Node | None) -> Usage:
        """One forward pass over the last token of the judgement."""
        return self._generator.probe_usage(node.state)

    async def score(self, problem: Problem, nodes: Sequence[Node], known: Sequence[Node | None]) -> list[Score]:
        """For each judgement, the probability that it scores every right answer above every wrong one."""
        generated = [node for node in nodes if node.state.ids]
        found = dict(zip(generated, await self._generator.hidden([node.state for node in generated]), strict=True))
        return [
            Score(self._probability(found[node][0]), found[node][1]) if node in found else Score(None, Usage())
            for node in nodes
        ]

    def _probability(self, state: Sequence[float]) -> float:
        logit = self._bias + math.fsum(w * x for w, x in zip(self._weights, state, strict=True))
        return 1 / (1 + math.exp(-max(-700.0, min(700.0, logit))))
