"""A model and a reward model of known quality, so that what a paper on tree search assumes is true by construction.

A solution is a chain of `STEPS` steps of `WORDS` words. A step is right with the problem's own probability, from 0.3 to
0.8, and a wrong step is never repaired: a solution is right (0) if all of its steps are. A wrong solution gives the
attractive wrong answer (1) in six of ten cases, and one of eight rare ones in the others. There is one right meaning of
a step, and there are `MISTAKES` wrong ones. Each meaning has several wordings, so siblings repeat each other as often
as the number of wordings says. The first word of a step decides its meaning and its wording.

The reward of a prefix is a process dial: a right prefix scores higher than a wrong one with a chosen probability, the
AUC. The reward of an unfinished step has a chosen correlation with the reward of the whole one.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import exp, sqrt
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from experiments.constructed import RIGHT, shift
from experiments.intervals import difference, mean, ratio
from experiments.provenance import write_json
from thinktime.bench.trace import records
from thinktime.core.search import Search
from thinktime.core.trace import Answer
from thinktime.core.types import Extension, Node, Problem, Sampling
from thinktime.generators.text import Text
from thinktime.scorers.embedding import HashedNgrams
from thinktime.strategies import parse
from thinktime.testing import ANSWERS, Piece, WordGenerator, WordScorer

STEPS, WORDS = 5, 16
CHANCES = (0.3, 0.8)
"""The range of a problem's probability of a right step."""
MISTAKES = 4
WORDINGS = 1000
"""Wordings of a meaning; with so many, siblings hardly ever repeat each other."""


@dataclass(frozen=True)
class Solved:
    """The outcome of a strategy on a problem."""

    answer: Answer
    trace: tuple[dict[str, Any], ...]
    events: tuple[dict[str, Any], ...]

    @property
    def right(self) -> float:
        """1 if the answer is right, else 0."""
        return float(self.answer.value == RIGHT)

    @property
    def tokens(self) -> float:
        """Words generated."""
        return float(self.answer.usage.generated_tokens)


def say(extension: Extension, wordings: int = WORDINGS, chances: tuple[float, float] = CHANCES) -> Piece:
    """The rest of the current step, or of the whole solution, whose last word is its answer."""
    rng = Random(extension.key)
    before: list[str] = extension.node.state.text.split()
    words = finished(before) if before else []
    chance = Random(f"{extension.node.state.prompt}/right").uniform(*chances)
    while len(words) < STEPS * WORDS and not (extension.until == "step" and len(words) > len(before)):
        meaning = "r" if rng.random() < chance else f"w{rng.randrange(MISTAKES)}"
        words = finished([*words, f"{meaning}.{rng.randrange(wordings)}"])
    return Piece(" ".join(words[len(before) :]), "eos" if len(words) == STEPS * WORDS else "step")


def right(words: Sequence[str]) -> bool:
    """Whether all steps are right, also the unfinished one."""
    return not any(word.startswith("w") for word in words[::WORDS])


def finished(words: Sequence[str]) -> list[str]:
    """The words with the rest of their last step: its meaning, and in the last step the answer."""
    missing = -len(words) % WORDS
    whole = [*words, *[words[-1].partition(".")[0]] * missing]
    if missing and len(whole) == STEPS * WORDS:
        rng = Random(f"{words[::WORDS]}/answer")
        whole[-1] = RIGHT if right(words) else "1" if rng.random() < 0.6 else str(rng.randint(2, 9))
    return whole


@dataclass(frozen=True)
class Dial:
    """The reward of a prefix: how likely it is right, as a verifier of this quality sees it.

    A right prefix draws a number from N(d, 1), a wrong one from N(0, 1), where AUC = Phi(d / sqrt(2)). The reward is
    the probability of being right after this number, if both are equally frequent. An unfinished step draws a number
    that has the correlation ``partial`` with that of the whole step. The noise is a function of the wordings.

    Args:
        auc: from 0.5 to below 1.
        partial: from 0 to 1.
    """

    auc: float
    partial: float = 1.0

    def __call__(self, node: Node) -> float:
        """The reward of a node."""
        prompt, words = node.state.prompt, node.state.text.split()
        whole, missing = finished(words), -len(words) % WORDS
        seed, lead = f"{prompt}/{whole[::WORDS]}", shift(self.auc)
        drawn = lead * right(whole) + Random(seed).gauss(0, 1)
        if missing:
            drawn = self._early(drawn, lead, Random(f"{seed}/{missing}").gauss(0, 1))
        return 1 / (1 + exp(-(lead * drawn - lead**2 / 2)))

    def _early(self, whole: float, lead: float, noise: float) -> float:
        centre, spread = lead / 2, sqrt(1 + lead**2 / 4)  # of the numbers, if half of the prefixes are right
        standard = self.partial * (whole - centre) / spread + sqrt(1 - self.partial**2) * noise
        return centre + spread * standard


def solve(strategy: str, problem: str, dial: Dial, wordings: int = WORDINGS) -> Solved:
    """A strategy on a problem. It gets the same samples as the others where it extends the same nodes."""
    search = Search(
        Problem(problem, problem),
        WordGenerator(lambda extension: say(extension, wordings)),
        scorers=WordScorer(dial),
        answers=ANSWERS,
        embedder=HashedNgrams(),
        sampling=Sampling(max_length=STEPS * WORDS),
    )
    answer = asyncio.run(parse(strategy)[1](search))
    return Solved(answer, tuple(records(search)), tuple(search.events))


def in_parts(file: Path, settings: Iterable[Any], part: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
    """The result of each setting, by its text. A file keeps finished parts, so a killed run goes on from there."""
    found: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    for setting in settings:
        if str(setting) not in found:
            found[str(setting)] = part(setting)
            write_json(file, found)
            print(f"{file.stem}, {setting}: done", flush=True)
    return found


def arguments(doc: str | None, problems: int = 200) -> argparse.Namespace:
    """The options of a control on chains."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", type=int, default=problems)
    parser.add_argument("--parts", type=Path, default=Path("runs/experiments"), help="folder of finished parts")
    parser.add_argument("--out", type=Path, help="folder of the result; beside the script unless given")
    return parser.parse_args()


def names(n: int) -> list[str]:
    """The problems."""
    return [f"chain {index}" for index in range(n)]


def compare(a: Sequence[Solved], b: Sequence[Solved]) -> dict[str, Any]:
    """What ``a`` gains over ``b`` on the same problems, and how many tokens ``b`` takes, times those of ``a``."""
    return {
        "minus": difference((each.right for each in a), (each.right for each in b)),
        "tokens_over": ratio([each.tokens for each in b], [each.tokens for each in a]),
    }


def row(solved: Sequence[Solved]) -> dict[str, Any]:
    """Accuracy, tokens and what the reward model reads, a problem."""
    return {
        "accuracy": mean(each.right for each in solved),
        "tokens": mean(each.tokens for each in solved),
        "scorer_tokens": mean(each.answer.usage.scorer_tokens for each in solved),
        "scorer_calls": mean(each.answer.usage.scorer_calls for each in solved),
        "without_answer": sum(each.answer.value is None for each in solved),
    }


def correlation(dial: Dial, tau: int, n: int = 2000) -> float:
    """The correlation of rewards of first steps after ``tau`` words with those of the whole steps, half of them right.

    It is that of probabilities, so it differs a little from the correlation of the numbers that the dial draws.
    """
    pairs = []
    for index in range(n):
        words = finished([f"{'rw'[index % 2]}.{index}"])
        pairs.append([dial(Node("", (0,), Text((), text=" ".join(words[:length])))) for length in (tau, WORDS)])
    return float(np.corrcoef(np.array(pairs).T)[0, 1])
