"""Sampled judgements of a judge whose quality is known by construction (Liu et al. 2025, arXiv 2504.02495).

    python -m experiments.generative_reward.control          # half a minute; writes control.json and control.png

The samples are those of `experiments.constructed`. The judge sees the different answers side by side and gives each a
whole score from 1 to 10. An answer's score has a part that is the same in all judgements of a problem, and noise that
is new in each. The AUC on the dial is that of one judgement, before rounding. ``shared`` is the share of the variance
that all judgements have in common: the judge's own errors, which no number of judgements removes.

The meta reward of a judgement is higher if it puts the right answer alone on top: a right one exceeds a wrong one in 8
of 10 pairs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any

from experiments.constructed import RIGHT, answer, rows, shift
from experiments.intervals import difference
from experiments.plot import line, panels, save
from experiments.provenance import begin, write_json
from thinktime.core.search import Search
from thinktime.core.trace import Answer
from thinktime.core.types import Capability, Extension, Node, Problem, Prompt, Sampling, Score
from thinktime.core.usage import Usage
from thinktime.generators.text import Text
from thinktime.prompts.common import JUDGE
from thinktime.strategies import parse
from thinktime.testing import ANSWERS, Piece, WordGenerator

HERE = Path(__file__).parent
AUCS = (0.5, 0.6, 0.7, 0.8, 0.9)
SHARED = (0.0, 0.5)
META = 0.8
N = 4
VOTES = (1, 4, 8, 32)
SINGLE, PLURALITY = "single", f"majority:n={N}"
CONTROL = f"generative_reward:n={N},k=1,unreadable=plurality"
ALONE = (SINGLE, PLURALITY, "majority:n=12")
"""Arms without a judge. The last costs as much as four samples and eight judgements of the same length."""
FILTERED, BY_CHANCE = (f"generative_reward:n={N},k=8,keep=4,by={by},unreadable=plurality" for by in ("meta", "random"))
JUDGED = (
    *(f"generative_reward:n={N},k={k},unreadable=plurality" for k in VOTES),
    FILTERED,
    BY_CHANCE,
)


class Judge(WordGenerator):
    """Samples answers, and judges them when it is asked."""

    def __init__(self, problem: str, auc: float, shared: float) -> None:
        super().__init__(self._words)
        self._problem, self._lead, self._shared = problem, shift(auc), shared
        self.asked_about: dict[tuple[int, ...], list[str]] = {}
        """The answers of each prompt that asks for a judgement."""

    def root(self, problem: Problem, known: Sequence[Any] = (), *, quotes: bool = False) -> Text:
        """The prompt; of a judgement the answers are noted."""
        state = super().root(problem, known, quotes=quotes)
        name, *answers = str(problem.prompt).split()
        if name == JUDGE.name:
            self.asked_about[state.prompt] = answers
        return state

    def _words(self, extension: Extension) -> Piece:
        answers = self.asked_about.get(extension.node.state.prompt)
        if answers is None:
            return Piece(answer(self._problem, extension.index), "eos")
        scores = ", ".join(str(self._score(each, extension.key)) for each in answers)
        return Piece(f"Scores: [{scores}]", "eos")

    def _score(self, given: str, judgement: str) -> int:
        """A whole score from 1 to 10."""
        own = Random(f"{self._problem}/{given}/judge").gauss(0, self._shared**0.5)
        noise = Random(f"{judgement}/{given}").gauss(0, (1 - self._shared) ** 0.5)
        return min(
            10, max(1, round(5.5 + 2 * (own + noise + (self._lead if given == RIGHT else 0.0) - self._lead / 2)))
        )


class Meta:
    """The meta reward of judgements of a judge."""

    name = "meta"
    capabilities = frozenset({Capability.META_REWARD})

    def __init__(self, judge: Judge) -> None:
        self._judge = judge

    def worst_case(self, problem: Problem, node: Node, known: Node | None) -> Usage:
        """Nothing."""
        return Usage()

    async def score(self, problem: Problem, nodes: Sequence[Node], known: Sequence[Node | None]) -> list[Score]:
        """One number for each judgement."""
        return [Score(self._score(node), Usage()) for node in nodes]

    def _score(self, node: Node) -> float:
        answers = self._judge.asked_about[node.state.prompt]
        scores = JUDGE.read(node.state, len(answers))
        top = [each for each, score in zip(answers, scores, strict=True) if score == max(scores)]
        return Random(f"{node.key}/meta").gauss(0, 1) + (shift(META) if top == [RIGHT] else 0.0)


def _ask(problem: Problem, about: Sequence[Any], said: Sequence[Any]) -> str:
    return " ".join([JUDGE.name, *(state.text for state in about)])


PROMPT = Prompt(JUDGE.name, _ask, JUDGE.read)
"""The name and the answers are all that this judge reads."""


def solved(arm: str, problem: str, auc: float, shared: float) -> Answer:
    """A strategy on a problem."""
    judge = Judge(problem, auc, shared)
    search = Search(
        Problem(problem, "constructed"),
        judge,
        scorers=Meta(judge),
        answers=ANSWERS,
        prompts={PROMPT.name: PROMPT},
        sampling=Sampling(max_length=512),
    )
    return asyncio.run(parse(arm)[1](search))


def at(auc: float, shared: float, names: Sequence[str], alone: Mapping[str, Sequence[Answer]]) -> dict[str, Any]:
    """All arms at one place of the map; those without a judge are the same everywhere."""
    judged = {arm: [solved(arm, name, auc, shared) for name in names] for arm in JUDGED}
    meta, chance = ([float(each.value == RIGHT) for each in judged[arm]] for arm in (FILTERED, BY_CHANCE))
    return {"arms": rows({**alone, **judged}, CONTROL), "meta_minus_random": difference(meta, chance)}


def main() -> None:
    args, made = begin(HERE, __doc__, "control", "control.json", problems=100)
    names = [f"problem {i}" for i in range(args.problems)]
    alone = {arm: [solved(arm, name, 0.5, 0.0) for name in names] for arm in ALONE}
    by_shared = {str(shared): {str(auc): at(auc, shared, names, alone) for auc in AUCS} for shared in SHARED}
    result = {**made, "n_problems": len(names), "control": CONTROL, "by_shared": by_shared}
    write_json(args.out / "control.json", result)
    plot(result, args.out / "control.png")


def plot(result: Mapping[str, Any], path: Path) -> None:
    """The gain over one judgement against the dial, for judges without and with errors of their own."""
    figure, both = panels(2, 12, 4.4, sharey=True)
    for axes, shared in zip(both, SHARED, strict=True):
        for colour, arm in enumerate(each for each in (*ALONE, *JUDGED) if each not in (CONTROL, SINGLE)):
            found = [result["by_shared"][str(shared)][str(auc)]["arms"][arm]["minus_control"] for auc in AUCS]
            line(axes, AUCS, found, colour, arm.replace(",unreadable=plurality", ""))
        axes.axhline(0, color="#999999", lw=0.8)
        axes.set(xlabel="AUC of one judgement", title=f"{100 * shared:.0f} % of the variance in all judgements")
    both[0].set_ylabel("points over one judgement")
    both[1].legend(fontsize=7)
    save(figure, path)


if __name__ == "__main__":
    main()
