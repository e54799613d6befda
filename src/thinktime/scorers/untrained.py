"""Self-evaluation by asking, of a model behind HTTP that was never trained in it (Manvi et al. 2024, arXiv 2410.02725).

The trained skill says whether another sample would be better. A model that is merely asked says little more than
chance, so its name says that it is untrained; it is there to be compared with.
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

SHOWN = 20
"""Candidates for the first token that are asked for: what is not among them is taken to have no chance."""
WITHOUT = "self-evaluation needs log-probabilities of the first answer token; this endpoint returned none"


class UntrainedSelfEvaluation(Judge):
    """Scores a sample by the probability that the first token of the reply is no, normalised to yes and no.

    Args:
        generator: the model that is asked, as a rule the one that samples.

    Raises:
        InputError: its endpoint tells no log-probabilities.
    """

    capabilities = Judge.capabilities | {Capability.SELF_EVALUATION}

    def __init__(self, generator: RemoteGenerator) -> None:
        if Capability.LOGPROBS not in generator.capabilities:
            raise InputError("scorer", "untrained-self", WITHOUT)
        fields = {"logprobs": True, "top_logprobs": SHOWN}
        super().__init__(generator.sending(fields), template=QUESTION, grades=("yes", "no"), retries=0, max_tokens=1)
        self.name = f"untrained self-evaluation, {self.name}"

    def place(self, reply: Child) -> float | None:
        """The probability of no against yes, in any spelling; None where neither is among the candidates."""
        told = json.loads(reply.state.choice or "{}").get("logprobs") or {}
        content = told.get("content") or [{}]
        chances = {"yes": 0.0, "no": 0.0}
        for candidate in content[0].get("top_logprobs") or []:
            word = str(candidate.get("token")).strip().casefold()
            if word in chances:
                chances[word] += math.exp(candidate["logprob"])
        both = chances["yes"] + chances["no"]
        return chances["no"] / both if both else None
