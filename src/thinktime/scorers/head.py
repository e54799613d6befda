"""A process reward head: a logistic read-out of the generator's own hidden states.

The model is frozen, and the head has one weight for each number of a hidden state. It is trained on the outcomes of
samples: the prefix of a sample has the outcome of the whole sample as its label, which is a Monte Carlo estimate from
one roll-out (Wang et al. 2024, Math-Shepherd, arXiv 2312.08935, take several roll-outs of each prefix).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from thinktime.core.errors import InputError
from thinktime.core.types import Capability, Node, Problem, Score
from thinktime.core.usage import Usage
from thinktime.generators.local import LocalGenerator
from thinktime.generators.text import Text, shared, steps_of
from thinktime.models.engine.costs import forward_flops

if TYPE_CHECKING:
    from torch import Tensor

DIGITS = 9
"""Rewards are rounded to this, so they do not depend on the rest of a batch."""


class RewardHead:
    """Scores a node by the hidden state at its last token: the probability that a sample that goes on from it is right.

    It is trained at the ends of lines and of whole samples, so it offers no rewards inside a step. The hidden states
    come from the generator's engine, which has the keys and values of all tokens that it drew: the score of a node
    that it wrote costs one token.

    Args:
        generator: the model whose hidden states are read.
        path: a safetensors file with ``weight`` ``[hidden]`` and ``bias`` ``[1]``, whose metadata have the ``layer``
            and the ``weights`` digest of the model; ``experiments.verifiers.train`` writes it.

    Raises:
        InputError: the file cannot be read, or was made for other weights.
    """

    capabilities = frozenset({Capability.SCORES, Capability.PROCESS_REWARD})

    def __init__(self, generator: LocalGenerator, path: Path | str) -> None:
        from safetensors import safe_open

        file = Path(path)
        try:
            with safe_open(file, "pt") as tensors:
                about = tensors.metadata() or {}
                self._weight, bias = tensors.get_tensor("weight").double(), tensors.get_tensor("bias").double()
            self._layer, self._bias, made_for = int(about["layer"]), float(bias), about["weights"]
            digest = hashlib.blake2b(file.read_bytes(), digest_size=6).hexdigest()
        except Exception as error:  # the safetensors library has errors of its own
            fix = f"cannot read it as a reward head ({error}); make one with experiments.verifiers.train"
            raise InputError("scorer", str(path), fix) from None
        if made_for != generator.weights:
            fix = f"it was made for the weights {made_for}, and --model has {generator.weights}; make one for them"
            raise InputError("scorer", str(path), fix)
        self._generator = generator
        self.name = f"{generator.name}/head@{digest}"
        self.fingerprint = generator.fingerprint

    def worst_case(self, problem: Problem, node: Node, known: Node | None) -> Usage:
        """One pass over the ids that the model has not read."""
        return self._usage(problem, node, known)

    async def score(self, problem: Problem, nodes: Sequence[Node], known: Sequence[Node | None]) -> list[Score]:
        """One score per node; it is missing for a node without generated text."""
        some = [node for node in nodes if node.state.text]
        states = [in_ids(self._generator, problem, node) for node in some]
        last = [Text(state.prompt, state.ids, state.text, state.step_ends[-1:]) for state in states]
        found = dict(zip(some, await self._generator.step_states(last, (self._layer,)), strict=True))
        return [
            Score(self.value(found[node][0, 0]), self._usage(problem, node, before))
            if node in found
            else Score(None, Usage())
            for node, before in zip(nodes, known, strict=True)
        ]

    def value(self, state: Tensor) -> float:
        """The reward of a hidden state ``[hidden]``."""
        logit = self._bias + float(self._weight @ state.double())
        return round(1 / (1 + math.exp(-max(-700.0, min(700.0, logit)))), DIGITS)

    def _usage(self, problem: Problem, node: Node, known: Node | None) -> Usage:
        if not node.state.text:
            return Usage()
        state = in_ids(self._generator, problem, node)
        ids, read = state.prompt + state.ids, 0
        if isinstance(node.state, Text):
            read = shared(ids, node.state.prompt + node.state.ids[:-1])
        if known is not None:
            before = in_ids(self._generator, problem, known)
            read = max(read, shared(ids, before.prompt + before.ids))
        cached = min(read, len(ids) - 1)
        new = len(ids) - cached
        return Usage(
            scorer_tokens=new, scorer_calls=1, scorer_flops=forward_flops(self._generator.model.shape, new, cached)
        )


def in_ids(generator: LocalGenerator, problem: Problem, node: Node) -> Text:
    """The problem's prompt and the node's text in ids, line by line; a complete sample ends with the end token.

    The ids come from the text, so they are the same for a sample of a bank, which has no ids, and for one that was
    just drawn.
    """
    tokenizer = generator.model.tokenizer
    ids: list[int] = []
    ends: list[int] = []
    for step in steps_of(Text((), text=node.state.text)):
        ids += tokenizer.encode(step)
        ends.append(len(ids))
    if node.done and ends:
        ids.append(tokenizer.eos_id)
        ends[-1] = len(ids)
    return Text(generator.root(problem).prompt, tuple(ids), node.state.text, tuple(ends))
