"""P(Yes): how likely a model finds it that a solution is right (Kadavath et al. 2022, arXiv 2207.05221).

The model reads the conversation with the solution as its own reply, and one more question. The score is the
probability of Yes as the first token of the answer, normalised to Yes and No. Nothing is generated.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from thinktime.core.errors import InputError
from thinktime.core.types import Node, Problem, Score
from thinktime.core.usage import Usage
from thinktime.generators.local import LocalGenerator
from thinktime.scorers.asked import DIGITS, Asked

WHOLE = "Is this solution right? Answer Yes or No."
PART = "Is this solution right so far? Answer Yes or No."
FORMS = (("Yes", "No"), ("yes", "no"), (" Yes", " No"))


class YesProbability(Asked):
    """Asks a chat model whether a solution is right; an unfinished one is judged so far.

    Args:
        generator: the model that is asked.
        writes: whether it is also the main model of the search, so that reading again what that wrote costs nothing.

    Raises:
        InputError: the model does not answer any prompt, or yes and no are not single tokens of it.
    """

    def __init__(self, generator: LocalGenerator, *, writes: bool = False) -> None:
        super().__init__(generator, WHOLE, PART, writes=writes)
        pairs = [(generator.single_id(yes), generator.single_id(no)) for yes, no in FORMS]
        words = next(((yes, no) for yes, no in pairs if yes is not None and no is not None), None)
        if words is None:
            raise InputError("scorer", generator.name, "yes and no are not single tokens of this model; name another")
        self._words = words
        self.name = f"p-yes:{generator.name}"

    async def score(self, problem: Problem, nodes: Sequence[Node], known: Sequence[Node | None]) -> list[Score]:
        """One score per node."""
        prompts = [self._prompt(problem, node) for node in nodes]
        asked = [ids for ids in prompts if ids is not None for _ in self._words]
        found = await self._generator.logprobs(asked, self._words * (len(asked) // 2))
        pairs = iter(zip(found[::2], found[1::2], strict=True))
        scores = []
        for node, before, ids in zip(nodes, known, prompts, strict=True):
            if ids is None:
                scores.append(Score(None, Usage(), reason=f"the question about it does not fit {self.name}"))
                continue
            yes, no = next(pairs)
            value = round(1 / (1 + math.exp(max(-700.0, min(700.0, no - yes)))), DIGITS)
            scores.append(Score(value, self._usage(problem, node, before, ids)))
        return scores
