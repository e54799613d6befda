"""A process reward model: the probability, step by step, that a solution is right so far."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from thinktime.core.errors import UnknownNameError
from thinktime.core.types import Capability, Node, Problem, Score
from thinktime.core.usage import Usage
from thinktime.generators.text import RemoteText, Text, messages_of, shared, with_context
from thinktime.models.engine.costs import forward_flops
from thinktime.models.engine.worker import Worker

if TYPE_CHECKING:
    from torch import Tensor

    from thinktime.models.engine.models import RewardModel
    from thinktime.models.engine.rows import Output
    from thinktime.models.engine.tokenizer import ChatTokenizer

AGGREGATES: dict[str, Callable[[Sequence[float]], float]] = {
    "last": lambda steps: steps[-1],
    "min": min,
    "mean": lambda steps: sum(steps) / len(steps),
    "product": math.prod,
}


NO_WORSE = "no worse"
"""The second label of a self-evaluation model: it predicts that no other sample would be better."""
PROMPTS_KEPT = 1024
DIGITS = 9
"""Rewards are rounded to this, so nodes with the same text tie, independent of the batches they were scored in."""


class ProcessReward:
    """Scores a node by the rewards of its steps, including an unfinished last step.

    It reads the ids of a local generator, so both have to share a tokenizer. It encodes the text of an endpoint itself,
    step by step. The question is always the problem's own, even if the node was sampled from another prompt.

    A classifier whose second label is "no worse" compares a sample with other possible samples, so it offers
    self-evaluation instead of process rewards. A model with ``"step_end_only": true`` in ``config.json`` offers no
    rewards inside a step.

    Args:
        directory: a token classifier.
        aggregate: how step rewards become one score: ``last``, ``min``, ``mean`` or ``product``.

    Raises:
        InputError: the directory is missing or holds no such model, or the aggregate is unknown.
    """

    def __init__(self, directory: Path | str, *, aggregate: str = "last", dtype: str = "float32") -> None:
        from thinktime.models.engine.models import load_reward_model

        if aggregate not in AGGREGATES:
            raise UnknownNameError("aggregate", aggregate, AGGREGATES)
        self._directory = Path(directory)
        self._model: RewardModel = load_reward_model(Path(directory), dtype)
        self._aggregate = AGGREGATES[aggregate]
        kinds = {Capability.PROCESS_REWARD}
        if self._model.label == NO_WORSE:
            kinds = {Capability.SELF_EVALUATION}
        elif not self._model.step_end_only:
            kinds |= {Capability.PARTIAL_REWARD}
        self.capabilities = frozenset({Capability.SCORES, *kinds})
        self.name = f"{Path(directory).resolve().name}@{self._model.weights}/{aggregate}/{dtype}"
        self.fingerprint = self._model.fingerprint
        self.context = self._model.context
        """The most tokens it can read, including the question."""
        self._worker = Worker(self._model.engine())
        self._prompts: dict[str, tuple[int, ...]] = {}

    def worst_case(self, problem: Problem, node: Node, known: Node | None) -> Usage:
        """The exact cost: the model processes the new ids, which attend to all earlier ones."""
        return self._usage(self._in_ids(problem, node), self._in_ids(problem, known), 0.0)

    async def score(self, problem: Problem, nodes: Sequence[Node], known: Sequence[Node | None]) -> list[Score]:
        """One score per node.

        It is missing for a node without generated tokens, with an unknown token, or longer than the context.
        """
        states = [self._in_ids(problem, node) for node in nodes]
        scores = []
        for state, before, output in zip(states, known, await self._read(states), strict=True):
            if output is None:
                scores.append(Score(None, Usage()))
                continue
            right = self._right(output)
            steps = tuple(round(float(right[end - 1]), DIGITS) for end in state.step_ends)
            usage = self._usage(state, self._in_ids(problem, before), output.seconds)
            scores.append(Score(self._aggregate(steps) if steps else None, usage, steps))
        return scores

    async def token_rewards(self, problem: Problem, nodes: Sequence[Node]) -> list[tuple[float, ...]]:
        """The reward after each token of every node's newest step, for calibration; empty if it cannot be read."""
        states = [self._in_ids(problem, node) for node in nodes]
        starts = [len(self._in_ids(problem, node.parent).ids) for node in nodes]
        return [
            tuple(round(float(reward), DIGITS) for reward in self._right(output)[start:]) if output else ()
            for start, output in zip(starts, await self._read(states), strict=True)
        ]

    async def _read(self, states: Sequence[Text]) -> list[Output | None]:
        from thinktime.models.engine.rows import Read

        fits = [self._fits(state.prompt + state.ids) for state in states]
        reads = [Read(s.prompt + s.ids, len(s.prompt)) for s, fit in zip(states, fits, strict=True) if fit]
        outputs = iter(await self._worker.run(reads))
        return [next(outputs) if fit else None for fit in fits]

    def _right(self, output: Output) -> Tensor:
        assert output.values is not None
        return output.values.double().softmax(-1)[:, 1]

    def _fits(self, ids: tuple[int, ...]) -> bool:
        return max(ids) < self._model.model.config.vocab_size and len(ids) <= self.context

    def _in_ids(self, problem: Problem, node: Node | None) -> Text:
        """The problem's prompt and the node's generation as ids; empty without a node."""
        if node is None:
            return Text(())
        state: Text | RemoteText = node.state
        prompt = self._prompt(problem)
        if isinstance(state, Text):
            return replace(state, prompt=prompt)
        ids: list[int] = []
        ends: list[int] = []
        for start, end in pairwise((0, *state.step_ends)):
            ids += self._tokenizer.encode(state.text[start:end])
            ends.append(len(ids))
        if node.done and ends:
            ids.append(self._tokenizer.eos_id)
            ends[-1] = len(ids)
        return Text(prompt, tuple(ids), state.text, tuple(ends))

    def _prompt(self, problem: Problem) -> tuple[int, ...]:
        """The ids of a problem's prompt, cached for up to `PROMPTS_KEPT` problems."""
        key = json.dumps(messages_of(with_context(problem)))
        if key not in self._prompts:
            if len(self._prompts) >= PROMPTS_KEPT:
                self._prompts.clear()
            self._prompts[key] = tuple(self._tokenizer.encode_chat(json.loads(key)))
        return self._prompts[key]

    @cached_property
    def _tokenizer(self) -> ChatTokenizer:
        from thinktime.models.engine.tokenizer import ChatTokenizer

        return ChatTokenizer(self._directory)

    def _usage(self, state: Text, earlier: Text, seconds: float) -> Usage:
        ids, before = state.prompt + state.ids, earlier.prompt + earlier.ids
        cached = shared(ids, before)  # all ids of an ancestor, unless its longer text is encoded differently
        new = len(ids) - cached
        flops = forward_flops(self._model.shape, new, cached)
        return Usage(scorer_tokens=new, scorer_calls=1, scorer_flops=flops, seconds=seconds)
