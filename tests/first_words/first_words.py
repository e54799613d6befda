"""First words (our own example): begin several solutions, finish only the one with the best score.

The package also has an environment, a prompt, a task, a generator, a scorer and a planner, each with its entry point.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from thinktime import Answer, Capability, Generator, Problem, Prompt, Scorer, Search, best
from thinktime.answers import TextAnswers
from thinktime.bench.tasks import Task
from thinktime.core.environment import FORK, REPLAY, Observation
from thinktime.testing import ANSWERS, WordGenerator, WordScorer


@dataclass(frozen=True)
class FirstWords:
    """Begin ``n`` solutions and finish the most promising one.

    Args:
        n: solutions begun.
        words: tokens of each beginning.
    """

    n: int = 4
    words: int = 3
    needs: ClassVar[frozenset[str]] = frozenset({Capability.PREFIX, Capability.SCORES})

    async def __call__(self, search: Search) -> Answer:
        """Begin the solutions, score them, and finish the best one."""
        begun = await search.extend([search.root], self.n, at_most=self.words)
        scores = await search.score(begun)
        ranked = sorted(zip(begun, scores, strict=True), key=lambda pair: -(pair[1] or 0.0))
        finished = await search.extend([node for node, _ in ranked if not node.done][:1])
        search.prune([node for node, _ in ranked[1:] if not node.done])
        return search.finish(best(search.candidates([*finished, *begun])))


class WordCount:
    """An environment that counts the words of its actions. Its name is ``word_count`` or ``word_count:FIRST``."""

    name = "word_count"
    capabilities = frozenset({FORK, REPLAY})

    def __init__(self, text: str) -> None:
        self._first = int(text.partition(":")[2] or 0)

    async def start(self, problem: Problem) -> int:
        """The first count."""
        return self._first

    async def step(self, state: int, action: Any) -> Observation:
        """Count the action's words."""
        count = state + len(str(action).split())
        return Observation(f"{count} words", count)

    async def fork(self, state: int) -> int:
        """The same number."""
        return state


short_check = Prompt(
    "short_check",
    lambda problem, about, said: f"{problem.prompt} {about[-1].text} right or wrong",
    lambda state, n: float("right" in state.text),
)
"""A short check."""


def sums(text: str) -> Task:
    """Three sums of single digits."""
    problems = [Problem(f"sum-{n}", f"what is {n} + 4", str(n + 4)) for n in (1, 2, 3)]
    return Task("sums", tuple(problems), TextAnswers(ANSWERS.read))


def words(text: str) -> Generator:
    """A generator of random words; the text after the colon is its name."""
    return WordGenerator(name=text.partition(":")[2] or "words")


def word_scores(text: str) -> Scorer:
    """Random scores."""
    return WordScorer()


class FewWords:
    """A planner: N beginnings if there is a budget, else one sample. Its name is ``few_words`` or ``few_words:N``."""

    def __init__(self, text: str) -> None:
        self._n = int(text.partition(":")[2] or 2)

    def choose(self, search: Search) -> str:
        """The strategy of this package if there is a budget of tokens."""
        return "single" if search.ledger.budget.tokens is None else f"first_words:n={self._n}"
