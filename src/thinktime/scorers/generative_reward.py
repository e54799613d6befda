"""A generative reward model as a scorer (Liu et al. 2025, DeepSeek-GRM, arXiv 2504.02495).

One judgement writes criteria, an analysis, and a score for each candidate. Several judgements, each with the candidates
in another order, are added up: a finer and more reliable score, without the bias of one order.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from random import Random
from typing import Any

from thinktime.core.context import canonical_json, digest
from thinktime.core.errors import InputError, TooLongError
from thinktime.core.protocols import Generator
from thinktime.core.types import Capability, Child, Extension, Node, Problem, Prompt, Sampling, Score
from thinktime.core.usage import Usage
from thinktime.generators.text import Text
from thinktime.prompts.common import JUDGE
from thinktime.prompts.turns import quoted, shown
from thinktime.scorers.replies import as_score

Order = tuple[int, ...]
"""Indices of candidates, in the order in which one judgement sees them."""

DIGITS = 9
"""Sums that differ only by rounding are equal."""
_log = logging.getLogger("thinktime")


class GenerativeRewardModel:
    """Judges candidates side by side, or one alone, ``k`` times.

    A candidate's score is the sum of its scores over the readable judgements, divided by their number: 0.1 to 1 with
    the prompt `JUDGE`. A judgement counts for all candidates or for none. Candidates with the same text are judged
    once and share the score. The value of a comparison is the best candidate's score.

    Args:
        generator: the model that judges, local or behind HTTP.
        prompt: asks for a judgement; a reply gives one score for each candidate.
        k: judgements; at temperature 0 they would be the same, so one is made and a warning is logged.
        candidates: most candidates of one comparison; the shipped skilled model reads four.
        temperature: of the judgements.
        max_tokens: length limit of a judgement.

    Raises:
        InputError: a value is out of range.
    """

    capabilities = frozenset({Capability.SCORES, Capability.COMPARE})

    def __init__(
        self,
        generator: Generator,
        *,
        prompt: Prompt = JUDGE,
        k: int = 8,
        candidates: int = 4,
        temperature: float = 0.7,
        max_tokens: int = 1024,
    ) -> None:
        for field, value in (("k", k), ("candidates", candidates), ("max_tokens", max_tokens)):
            if value < 1:
                raise InputError(field, value, "give 1 or more")
        if k > 1 and temperature == 0:
            _log.warning(f"k={k}: judgements at temperature 0 would be identical; one is made")
            k = 1
        self.candidates = candidates
        self._generator, self._prompt, self._k = generator, prompt, k
        self._sampling = Sampling(temperature, max_length=max_tokens)
        words = prompt.render(Problem("", "question"), [Text((), text="answer")], [])
        settings = digest(canonical_json([prompt.name, words, k, temperature, max_tokens]))[:12]
        self.name = f"generative-reward:{generator.name}/{settings}"

    def worst_case(self, problem: Problem, node: Node, known: Node | None = None) -> Usage:
        """Every judgement of one candidate at its longest."""
        return self.worst_case_of_comparison(problem, [node])

    def worst_case_of_comparison(self, problem: Problem, nodes: Sequence[Node]) -> Usage:
        """Every judgement at its longest; zero if the candidates do not fit the model's context.

        Raises:
            InputError: there are no candidates, or more than the limit.
        """
        try:
            wanted = self._judgements(problem, self._different(nodes))
        except TooLongError:
            return Usage()
        most = [self._generator.worst_case(extension.node, extension.max_length) for _, extension in wanted]
        return as_score(most, self._most_read(wanted[0][1].node.state))

    async def score(self, problem: Problem, nodes: Sequence[Node], known: Sequence[Node | None] = ()) -> list[Score]:
        """One score per node, each judged alone."""
        return list(await asyncio.gather(*(self.compare(problem, [node]) for node in nodes)))

    async def compare(self, problem: Problem, nodes: Sequence[Node]) -> Score:
        """The candidates' scores as ``steps``, in order.

        If no judgement can be read, or the candidates do not fit the context, the score is missing and has a reason.

        Raises:
            InputError: there are no candidates, or more than the limit.
        """
        different = self._different(nodes)
        try:
            wanted = self._judgements(problem, different)
            replies = await self._generator.extend([extension for _, extension in wanted])
        except TooLongError as error:
            return Score(None, Usage(), reason=str(error))
        judgements = []
        for (order, _), reply in zip(wanted, replies, strict=True):
            scores = self._prompt.read(reply.state, len(order)) if reply.finish == "eos" else None
            if scores is not None:
                judgements.append([score for _, score in sorted(zip(order, scores, strict=True))])
        usage = as_score([reply.usage for reply in replies], self._most_read(wanted[0][1].node.state))
        if not judgements:
            return Score(None, usage, reason=self._why(replies, len(different)))
        means = [round(sum(scores) / len(judgements), DIGITS) for scores in zip(*judgements, strict=True)]
        of_text = {shown(node.state): mean for node, mean in zip(different, means, strict=True)}
        return Score(max(means), usage, tuple(of_text[shown(node.state)] for node in nodes))

    async def close(self) -> None:
        """Close the connections of a model behind HTTP."""
        close = getattr(self._generator, "close", None)
        if close is not None:
            await close()

    def _different(self, nodes: Sequence[Node]) -> list[Node]:
        """The first node of each text."""
        different = list({shown(node.state): node for node in reversed(nodes)}.values())[::-1]
        if not different:
            raise InputError("candidates", 0, "give one or more to judge")
        if len(different) > self.candidates:
            raise InputError("candidates", len(different), f"this judge compares {self.candidates} at most")
        return different

    def _judgements(self, problem: Problem, nodes: Sequence[Node]) -> list[tuple[Order, Extension]]:
        """The judgements to sample, each with its order; equal orders are several samples of one question."""
        key = digest(canonical_json([self.name, *(node.key for node in nodes)]))
        rng = Random(key)
        roots: dict[Order, Node] = {}
        uses: Counter[Order] = Counter()
        wanted = []
        for _ in range(self._k):
            order = tuple(rng.sample(range(len(nodes)), len(nodes)))
            if order not in roots:
                question = self._prompt.render(problem, [nodes[i].state for i in order], [])
                state = self._generator.root(replace(problem, prompt=question), quotes=True)
                roots[order] = Node(digest(f"{key}/{order}"), (), state)
            root, index = roots[order], uses[order]
            uses[order] += 1
            sample = digest(f"{root.key}/{index}")
            wanted.append((order, Extension(root, index, sample, "done", self._sampling, self._sampling.max_length)))
        return wanted

    def _most_read(self, root: Any) -> int:
        """The most tokens of a prompt; 0 for a model that always counts its prompts."""
        most_read = getattr(self._generator, "most_read", None)
        return most_read(root) if most_read is not None else 0

    def _why(self, replies: Sequence[Child], candidates: int) -> str:
        """Why no judgement can be read."""
        failed = next((str(reply.error) for reply in replies if reply.error is not None), None)
        ended = [reply.state for reply in replies if reply.finish == "eos"]
        if not ended:
            return failed or f"no judgement ends within {self._sampling.max_length} tokens; raise max_tokens"
        return (
            f"none of {len(ended)} judgements gives each of {candidates} answers a score; "
            f"they end {quoted(ended[:2])}; take a model that judges"
        )
