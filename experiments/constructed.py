"""Problems and samples without a model, so that the assumption of a paper can be true by construction.

A sample answers right (0) with the problem's own probability, from 0.1 to 0.6. Otherwise it gives the attractive wrong
answer (1) in six of ten cases, and one of eight rare wrong answers (2 to 9) in the others. So a vote is right if the
probability is above 0.375. All arms get the same samples of a problem.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from random import Random
from statistics import NormalDist
from typing import Any

from experiments.intervals import difference, mean, ratio
from thinktime.core.protocols import Scorer
from thinktime.core.search import Search
from thinktime.core.trace import Answer
from thinktime.core.types import Extension, Problem, Sampling
from thinktime.strategies import parse
from thinktime.testing import ANSWERS, Piece, WordGenerator

RIGHT = "0"
NORMAL = NormalDist()
Say = Callable[[str, int], tuple[str, Sequence[float]]]
"""The words of a problem's sample of this index, and their confidences."""


def shift(auc: float) -> float:
    """How far apart two normal distributions of deviation 1 are if a draw of the upper one is larger this often."""
    return 2**0.5 * NORMAL.inv_cdf(auc)


def success(problem: str) -> float:
    """The chance that a sample of the problem is right."""
    return Random(f"{problem}/right").uniform(0.1, 0.6)


def answer(problem: str, index: int, rate: float | None = None) -> str:
    """The answer of a sample, which is right with probability ``rate``, or `success` if it is not given."""
    rng = Random(f"{problem}/{index}/answer")
    if rng.random() < (success(problem) if rate is None else rate):
        return RIGHT
    return "1" if rng.random() < 0.6 else str(rng.randint(2, 9))


def solved(strategy: str, problem: str, say: Say, scorer: Scorer | None = None) -> Answer:
    """A strategy on a problem; a sample says the same also if it is extended in parts."""

    def words(extension: Extension) -> Piece:
        text, confidences = say(problem, (*extension.node.path, extension.index)[0])
        said = len(extension.node.state.ids)
        return Piece(" ".join(text.split()[said:]), "eos", confidences=tuple(confidences[said:]))

    search = Search(
        Problem(problem, "constructed"),
        WordGenerator(words),
        scorers=scorer,
        answers=ANSWERS,
        sampling=Sampling(max_length=512),
    )
    return asyncio.run(parse(strategy)[1](search))


def rows(answers: Mapping[str, Sequence[Answer]], control: str) -> dict[str, Any]:
    """Accuracy and costs of each arm, and its difference to the control on the same problems."""
    right = {arm: [float(each.value == RIGHT) for each in found] for arm, found in answers.items()}
    tokens = {arm: [float(each.usage.generated_tokens) for each in found] for arm, found in answers.items()}
    return {
        arm: {
            "accuracy": mean(right[arm]),
            "minus_control": difference(right[arm], right[control]),
            "tokens_over_control": ratio(tokens[arm], tokens[control]),
            "comparisons": mean(each.usage.scorer_calls for each in found),
        }
        for arm, found in answers.items()
    }
