"""The large model rates the last step of a solution from 0 to 9 by one token (Pan et al. 2025, arXiv 2504.07891)."""

from __future__ import annotations

from collections.abc import Sequence
from math import exp
from typing import Any

from thinktime.core.errors import InputError
from thinktime.core.types import Capability, Child, Node, Problem, Score
from thinktime.core.usage import Usage
from thinktime.generators.local import LocalGenerator
from thinktime.generators.openai import RemoteGenerator
from thinktime.scorers.asked import DIGITS, Asked
from thinktime.scorers.judge import Judge

RATE = """Rate only the last step above: is it correct, and does it follow from what comes before? Ignore its style \
and its usefulness. Reply with one digit from 0 (certainly wrong) to 9 (certainly right)."""
SCALE = tuple("0123456789")
TOP = 10
"""The most likely tokens in which digits are looked for, as in the published code."""
MARKERS = ("<think>", "</think>")


class DigitRating(Asked):
    """Asks a chat model for a digit as the first token of its reply; the score is the digit divided by 9.

    The ten parts of a score (`Score.steps`) are the probabilities of the digits among the ten most likely tokens. A
    digit with and without a space is the same. What is missing to 1 is the probability of everything else.

    Args:
        generator: the model that is asked.
        expected: the mean digit, weighted by probability, in place of the most likely token. A most likely token that
            is no digit counts as 0.
        writes: whether it is also the main model of the search, so that reading again what that wrote costs nothing.

    Raises:
        InputError: the model does not answer any prompt.
    """

    def __init__(self, generator: LocalGenerator, *, expected: bool = False, writes: bool = False) -> None:
        super().__init__(generator, RATE, RATE, writes=writes)
        self._expected = expected
        self.name = f"{'expected-' if expected else ''}digit:{generator.name}"

    async def score(self, problem: Problem, nodes: Sequence[Node], known: Sequence[Node | None]) -> list[Score]:
        """One score per node.

        Raises:
            InputError: the chat template removes the step that is rated.
        """
        prompts = [self._prompt(problem, node) for node in nodes]
        for node, ids in zip(nodes, prompts, strict=True):
            if ids is not None:
                self._require_step(self._shown(node.state), ids)
        found = iter(await self._generator.likeliest([ids for ids in prompts if ids is not None], TOP))
        scores = []
        for node, before, ids in zip(nodes, known, prompts, strict=True):
            if ids is None:
                scores.append(Score(None, Usage(), reason=f"the question about it does not fit {self.name}"))
                continue
            usage, tokens = self._usage(problem, node, before, ids), next(found)
            digits = probabilities(tokens)
            rating = expected_digit(digits) if self._expected else greedy_digit(tokens)
            scores.append(Score(round(rating / 9, DIGITS), usage, tuple(round(each, DIGITS) for each in digits)))
        return scores

    def _shown(self, state: Any) -> str:
        """The whole text: templates remove a thought that is closed, and with it the steps that are rated."""
        text = state.text
        for marker in MARKERS:
            text = text.replace(marker, "")
        return str(text).strip()

    def _require_step(self, solution: str, ids: tuple[int, ...]) -> None:
        """Raise an `InputError` unless the last line of the solution is in the prompt."""
        step = solution.rpartition("\n")[2]
        read = self._generator.model.tokenizer.decode(ids)
        if "".join(step.split()) not in "".join(read.split()):
            fix = f"its chat template removes the step {step[:40]!r} from the conversation; take another scorer"
            raise InputError("scorer", self.name, fix)


class WrittenDigit(Judge):
    """The same question to a model behind HTTP, which writes the digit; a reply without a digit has no score.

    Args:
        generator: the model that is asked.
    """

    capabilities = frozenset({Capability.SCORES, Capability.PROCESS_REWARD})

    def __init__(self, generator: RemoteGenerator) -> None:
        template = f"{{question}}\n\nA solution so far:\n\n{{solution}}\n\n{RATE}"
        super().__init__(generator, template=template, grades=SCALE, retries=0, max_tokens=4)

    def place(self, reply: Child) -> float | None:
        """The digit that the reply begins with, divided by 9; None if it begins with something else."""
        first = reply.state.text.strip()[:1]
        return int(first) / 9 if first in SCALE else None


def probabilities(tokens: Sequence[tuple[str, float]]) -> list[float]:
    """The probability of each digit from 0 to 9, summed over its tokens.

    Args:
        tokens: texts with their log-probabilities.
    """
    digits = [0.0] * len(SCALE)
    for text, logprob in tokens:
        if text.strip() in SCALE:
            digits[int(text)] += exp(logprob)
    return digits


def greedy_digit(tokens: Sequence[tuple[str, float]]) -> int:
    """The first token as a digit; 0 if it is none.

    Args:
        tokens: texts with their log-probabilities, the most likely one first.
    """
    first = tokens[0][0].strip() if tokens else ""
    return int(first) if first in SCALE else 0


def expected_digit(digits: Sequence[float]) -> float:
    """The mean digit under probabilities that need not sum to 1; 0 if all are 0."""
    mass = sum(digits)
    return sum(digit * share for digit, share in enumerate(digits)) / mass if mass else 0.0
