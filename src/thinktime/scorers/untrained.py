"""Self-evaluation by prompting a model behind HTTP that was not trained for it (Manvi et al. 2024, arXiv 2410.02725).

A trained model predicts whether another sample would be better. A prompted model is hardly better than chance. It is a
baseline for comparison, and its name says that it is untrained.
"""

from __future__ import annotations

import json
import math

from thinktime.core.errors import InputError
from thinktime.core.types import Capability, Child
from thinktime.generators.openai import RemoteGenerator
from thinktime.scorers.judge import Judge

QUESTION = """\
Here is a problem and an answer to it.

Problem:
{question}

Answer:
{solution}

Would starting over give a better answer? Reply with one word, Yes or No."""

CANDIDATES = 20
"""Requested candidates for the first token; a word outside them has probability 0."""
NO_LOGPROBS = "self-evaluation needs log-probabilities of the first answer token; this endpoint returned none"


class UntrainedSelfEvaluation(Judge):
    """Scores a sample by the probability that the first token of the reply is no, normalised to yes and no.

    Args:
        generator: the model that evaluates, usually the one that samples.

    Raises:
        InputError: its endpoint returns no log-probabilities.
    """

    capabilities = Judge.capabilities | {Capability.SELF_EVALUATION}

    def __init__(self, generator: RemoteGenerator) -> None:
        if Capability.LOGPROBS not in generator.capabilities:
            raise InputError("scorer", "untrained-self", NO_LOGPROBS)
        fields = {"logprobs": True, "top_logprobs": CANDIDATES}
        super().__init__(generator.sending(fields), template=QUESTION, grades=("yes", "no"), retries=0, max_tokens=1)
        self.name = f"untrained self-evaluation, {self.name}"

    def place(self, reply: Child) -> float | None:
        """The probability of no, normalised to yes and no in any spelling; None if neither is among the candidates."""
        choice = json.loads(reply.state.choice or "{}").get("logprobs") or {}
        content = choice.get("content") or [{}]
        probabilities = {"yes": 0.0, "no": 0.0}
        for candidate in content[0].get("top_logprobs") or []:
            word = str(candidate.get("token")).strip().casefold()
            if word in probabilities:
                probabilities[word] += math.exp(candidate["logprob"])
        both = probabilities["yes"] + probabilities["no"]
        return probabilities["no"] / both if both else None
