"""P(Yes): how likely a model finds it that a solution is right (Kadavath et al. 2022, arXiv 2207.05221).

The model reads the conversation with the solution as its own reply, and one more question. The score is the
probability of Yes as the first token of the answer, normalised to Yes and No. Nothing is generated.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from thinktime.core.errors import InputError, TooLongError
from thinktime.core.types import Capability, Node, Problem, Score
from thinktime.core.usage import Usage
from thinktime.generators.local import LocalGenerator
from thinktime.generators.text import Text, messages_of, shared, with_context
from thinktime.models.engine.costs import forward_flops
from thinktime.prompts.turns import assistant, shown, user

WHOLE = "Is this solution right? Answer Yes or No."
PART = "Is this solution right so far? Answer Yes or No."
FORMS = (("Yes", "No"), ("yes", "no"), (" Yes", " No"))
DIGITS = 9
"""Probabilities are rounded to this, so they do not depend on the rest of a batch."""


class YesProbability:
    """Asks a chat model whether a solution is right; an unfinished one is judged so far.

    The question comes last, so solutions of a problem share all that comes before them. If the model also writes the
    solutions, it has read all but the question. The score of a solution that does not fit the context is missing.

    Args:
        generator: the model that is asked.
        writes: whether it also writes the solutions, so that reading them again costs nothing.

    Raises:
        InputError: the model does not answer any prompt, or yes and no are not single tokens of it.
    """

    capabilities = frozenset({Capability.SCORES, Capability.PROCESS_REWARD, Capability.PARTIAL_REWARD})

    def __init__(self, generator: LocalGenerator, *, writes: bool = False) -> None:
        if Capability.CHAT not in generator.capabilities:
            raise InputError("scorer", generator.name, "it is no chat model, so it cannot be asked; name one that is")
        pairs = [(generator.single_id(yes), generator.single_id(no)) for yes, no in FORMS]
        words = next(((yes, no) for yes, no in pairs if yes is not None and no is not None), None)
        if words is None:
            raise InputError("scorer", generator.name, "yes and no are not single tokens of this model; name another")
        self._generator, self._words, self._writes = generator, words, writes
        self.name = f"p-yes:{generator.name}"
        self.fingerprint = generator.fingerprint

    def worst_case(self, problem: Problem, node: Node, known: Node | None) -> Usage:
        """One pass over the ids that the prompt about ``known`` does not share; zero if it does not fit."""
        ids = self._prompt(problem, node)
        return Usage() if ids is None else self._usage(problem, node, known, ids)

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

    def _prompt(self, problem: Problem, node: Node) -> tuple[int, ...] | None:
        """The ids of the conversation with the question about a node; None if they do not fit the context."""
        turns = messages_of(with_context(problem))
        asked = [*turns, assistant(shown(node.state)), user(WHOLE if node.done else PART)]
        try:
            return self._generator.root(Problem(problem.id, asked), quotes=True).prompt
        except TooLongError:
            return None

    def _usage(self, problem: Problem, node: Node, known: Node | None, ids: tuple[int, ...]) -> Usage:
        """The cost of a score: the ids that the model has not read."""
        read = shared(ids, self._prompt(problem, known) or ()) if known is not None else 0
        if self._writes and isinstance(node.state, Text):
            read = max(read, shared(ids, node.state.prompt + node.state.ids[:-1]))
        cached = min(read, len(ids) - 1)
        new = len(ids) - cached
        flops = forward_flops(self._generator.model.shape, new, cached)
        return Usage(scorer_tokens=new, scorer_calls=1, scorer_flops=flops)
