"""What the scorers share that ask a chat model one question about a solution and read one token of its reply."""

from __future__ import annotations

from typing import Any

from thinktime.core.errors import InputError, TooLongError
from thinktime.core.types import MAIN, Capability, Node, Problem
from thinktime.core.usage import Usage
from thinktime.generators.local import LocalGenerator
from thinktime.generators.text import Text, messages_of, shared, with_context
from thinktime.models.engine.costs import forward_flops
from thinktime.prompts.turns import assistant, shown, user

DIGITS = 9
"""Scores are rounded to this, so they do not depend on the rest of a batch."""


class Asked:
    """A chat model that is asked about solutions; the conversation has the solution as the model's own reply.

    The question comes last, so solutions of a problem share all that comes before it. The score of a solution that does
    not fit the context is missing.

    Args:
        generator: the model that is asked.
        whole: the question about a whole solution.
        part: the question about an unfinished one.
        writes: whether it is also the main model of the search, so that reading again what that wrote costs nothing.

    Raises:
        InputError: the model does not answer any prompt.
    """

    capabilities = frozenset({Capability.SCORES, Capability.PROCESS_REWARD, Capability.PARTIAL_REWARD})

    def __init__(self, generator: LocalGenerator, whole: str, part: str, *, writes: bool) -> None:
        if Capability.CHAT not in generator.capabilities:
            raise InputError("scorer", generator.name, "it is no chat model, so it cannot be asked; name one that is")
        self._generator, self._whole, self._part, self._writes = generator, whole, part, writes
        self.fingerprint = generator.fingerprint

    def worst_case(self, problem: Problem, node: Node, known: Node | None) -> Usage:
        """One pass over the ids that the prompt about ``known`` does not share; zero if it does not fit."""
        ids = self._prompt(problem, node)
        return Usage() if ids is None else self._usage(problem, node, known, ids)

    def _shown(self, state: Any) -> str:
        """The solution as the model sees it."""
        return shown(state)

    def _prompt(self, problem: Problem, node: Node) -> tuple[int, ...] | None:
        """The ids of the conversation with the question about a node; None if they do not fit the context."""
        turns = messages_of(with_context(problem))
        question = self._whole if node.done else self._part
        asked = [*turns, assistant(self._shown(node.state)), user(question)]
        try:
            return self._generator.root(Problem(problem.id, asked), quotes=True).prompt
        except TooLongError:
            return None

    def _usage(self, problem: Problem, node: Node, known: Node | None, ids: tuple[int, ...]) -> Usage:
        """The cost of a score: the ids that the model has not read."""
        read = shared(ids, self._prompt(problem, known) or ()) if known is not None else 0
        own = (each.state for each in node.lineage() if each.model == MAIN and each.finish != "root")
        written = next(own, None) if self._writes else None
        if isinstance(written, Text):
            read = max(read, shared(ids, written.prompt + written.ids[:-1]))
        cached = min(read, len(ids) - 1)
        new = len(ids) - cached
        flops = forward_flops(self._generator.model.shape, new, cached)
        return Usage(scorer_tokens=new, scorer_calls=1, scorer_flops=flops)
