"""Verifier-free methods whose judge and reviser have a known quality (2504.14047).

    python -m experiments.frontier.control       # a minute; writes control.json and control.png

The judge: it scores samples with a chosen AUC, and the best-scored one answers (self-scored best-of-n). Where does it
beat the vote of the same samples? The reviser: it turns right answers wrong, and wrong ones right, with chosen chances.
Where does the last of n revisions beat the vote of n samples? Judgements cost nothing here, so the vote has it harder
than with a real judge.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any

from experiments.constructed import RIGHT, answer, shift, solved
from experiments.intervals import as_points, difference, mean
from experiments.plot import line, panels, save
from experiments.provenance import begin, write_json
from thinktime.core.types import Node
from thinktime.testing import WordScorer

HERE = Path(__file__).parent
AUCS = (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.9)
SIZES = (4, 8, 16)
REVISED = 8
BROKEN = (0.05, 0.15, 0.25)
"""The chance that a revision turns a right answer wrong."""
REPAIRED = (0.05, 0.1, 0.2, 0.3, 0.4)
"""The chance that a revision turns a wrong answer right."""


def judge(auc: float) -> WordScorer:
    """Scores a sample by its answer, with noise that does not depend on the AUC."""

    def value(node: Node) -> float:
        right = str(node.state.text).split()[-1] == RIGHT
        return Random(f"{node.key}/judge").gauss(0, 1) + (shift(auc) if right else 0.0)

    return WordScorer(value)


def right_of(strategy: str, problem: str, scorer: WordScorer | None = None) -> float:
    """1 if a strategy solves the problem, else 0."""
    answered = solved(strategy, problem, lambda name, index: (f"so {answer(name, index)}", ()), scorer)
    return float(answered.value == RIGHT)


def revised(name: str, broken: float, repaired: float) -> float:
    """Whether the last of a chain of revisions is right; the first answer is that of the first sample."""
    right, rng = answer(name, 0) == RIGHT, Random(f"{name}/revisions")
    for _ in range(REVISED - 1):
        turned = rng.random() < (broken if right else repaired)
        right ^= turned
    return float(right)


def mapped(names: Sequence[str]) -> dict[str, Any]:
    """The judge by size and AUC, and the reviser by both of its chances, each minus a vote of as many samples."""
    votes = {n: [right_of(f"majority:n={n}", name) for name in names] for n in SIZES}
    one = [right_of("single", name) for name in names]
    judged = {
        str(n): {
            str(auc): _row([right_of(f"best_of_n:n={n}", name, judge(auc)) for name in names], votes[n], one)
            for auc in AUCS
        }
        for n in SIZES
    }
    chains = {
        str(broken): {
            str(repaired): _row([revised(name, broken, repaired) for name in names], votes[REVISED], one)
            for repaired in REPAIRED
        }
        for broken in BROKEN
    }
    return {
        "one_sample": mean(one),
        "majority": {str(n): mean(vote) for n, vote in votes.items()},
        "self_scored": judged,
        "revision": {"n": REVISED, "by_broken": chains},
    }


def _row(right: Sequence[float], vote: Sequence[float], one: Sequence[float]) -> dict[str, Any]:
    return {
        "accuracy": mean(right),
        "minus_majority": difference(right, vote),
        "minus_one_sample": difference(right, one),
    }


def plot(result: Mapping[str, Any], path: Path) -> None:
    """Points over the vote, against the quality of the judge and of the reviser."""
    figure, (left, right) = panels(2, 11.5, 4.4, sharey=True)
    for colour, (n, row) in enumerate(result["self_scored"].items(), 1):
        line(left, map(float, row), [each["minus_majority"] for each in row.values()], colour, f"best of {n}")
    left.set(xlabel="AUC of the judge", ylabel="points over a vote of as many samples", title="self-scored best-of-n")
    for colour, (broken, row) in enumerate(result["revision"]["by_broken"].items(), 1):
        label = f"turns {100 * float(broken):.0f} % of the right ones wrong"
        line(right, [100 * float(r) for r in row], [each["minus_majority"] for each in row.values()], colour, label)
    right.set(xlabel="wrong answers that a revision turns right, %", title=f"the last of {REVISED} revisions")
    for axes in (left, right):
        axes.axhline(0, color="#555555", lw=0.8)
        axes.legend(fontsize=8)
    save(figure, path)


def main() -> None:
    args, made = begin(HERE, __doc__, "control", "control.json", problems=300)
    names = [f"problem {i}" for i in range(args.problems)]
    result = made | {"n_problems": len(names)} | mapped(names)
    write_json(args.out / "control.json", result)
    plot(result, args.out / "control.png")
    for n, row in result["self_scored"].items():
        print(f"best of {n}:", {auc: as_points(each["minus_majority"]) for auc, each in row.items()})
    for broken, row in result["revision"]["by_broken"].items():
        print(f"revision, {broken}:", {r: as_points(each["minus_majority"]) for r, each in row.items()})


if __name__ == "__main__":
    main()
