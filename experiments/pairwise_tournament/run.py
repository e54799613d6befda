"""Tournaments before a judge of known quality: the effect against how often it prefers the right answer.

    python -m experiments.pairwise_tournament.run            # two minutes; writes result.json and plot.png

The gap between the grades of a right and a wrong solution is normal, and has the right sign with the probability on the
dial. Between two wrong solutions it is noise. Each order of a pair has its own noise. Graded alone, two solutions
differ by the same gap. The second set of runs adds a preference for the solution that is shown first.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

from experiments.constructed import NORMAL, RIGHT, answer, rows, solved
from experiments.plot import line, panels, save
from experiments.provenance import provenance, write_json
from thinktime.core.types import Node, Problem, Score
from thinktime.testing import WordJudge

HERE = Path(__file__).parent
QUALITIES = (0.5, 0.6, 0.7, 0.8, 0.9)
BIASES = (0.0, 1.0)
UNIT = 0.15
"""What a deviation of the gap is in grades, which go from 0.1 to 1."""
CONTROL = "majority:n=16"
ARMS = {
    CONTROL: "vote of 16",
    "best_of_n:n=16": "each graded alone",
    "pairwise_tournament:n=16,pairs=2": "swiss, both orders",
    "pairwise_tournament:n=16,pairs=2,orders=one": "swiss, one order",
    "pairwise_tournament:n=16,schedule=pivot": "pivots, both orders",
    "pairwise_tournament:n=16,schedule=pivot,orders=one": "pivots, one order",
}


class ConstructedJudge(WordJudge):
    """Prefers a right solution to a wrong one with probability ``quality``, and adds ``bias`` to the first's gap."""

    def __init__(self, quality: float, bias: float) -> None:
        super().__init__(self._alone)
        self._gap, self._bias = NORMAL.inv_cdf(quality), bias

    def _alone(self, node: Node) -> float:
        """A grade such that the gap between two of them has a deviation of 1."""
        noise = Random(f"{node.key}/alone").gauss(0, 0.5**0.5)
        return 0.55 + UNIT * (self._gap * (self._right(node) - 0.5) + noise)

    async def compare(self, problem: Problem, nodes: Sequence[Node]) -> Score:
        """Grades of two solutions, around 0.55."""
        first, second = nodes
        gap = Random(f"{first.key}/{second.key}").gauss(0, 1) + self._bias
        gap += self._gap * (self._right(first) - self._right(second))
        grades = [min(1.0, max(0.1, 0.55 + sign * UNIT * gap / 2)) for sign in (1, -1)]
        return Score(max(grades), self.worst_case_of_comparison(problem, nodes), tuple(grades))

    def _right(self, node: Node) -> bool:
        return str(node.state.text).split()[-1] == RIGHT


def at(bias: float, quality: float, names: Sequence[str]) -> dict[str, Any]:
    """All arms before one judge."""
    judge = ConstructedJudge(quality, bias)
    found = {arm: [solved(arm, name, lambda p, i: (answer(p, i), ()), judge) for name in names] for arm in ARMS}
    return rows(found, CONTROL)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", type=int, default=100)
    parser.add_argument("--out", type=Path, default=HERE)
    args = parser.parse_args()
    names = [f"problem {i}" for i in range(args.problems)]
    by_bias = {str(bias): {str(quality): at(bias, quality, names) for quality in QUALITIES} for bias in BIASES}
    result = {**provenance(HERE, 0), "n_problems": len(names), "by_bias": by_bias}
    write_json(args.out / "result.json", result)
    plot(result, args.out / "plot.png")


def plot(result: dict[str, Any], path: Path) -> None:
    """The gain over a vote against the judge's quality, without and with a preference for the first place."""
    figure, both = panels(2, 11, 4.4, sharey=True)
    for axes, (bias, table) in zip(both, result["by_bias"].items(), strict=True):
        for colour, (arm, label) in enumerate(ARMS.items()):
            if arm != CONTROL:
                line(axes, QUALITIES, [table[str(q)][arm]["minus_control"] for q in QUALITIES], colour, label)
        title = "no preference for a place" if bias == "0.0" else "the first place gains a deviation"
        axes.set(xlabel="how often the judge prefers the right of two", title=title)
    both[0].set_ylabel("points over a vote of 16")
    both[0].legend(fontsize=8)
    save(figure, path)


if __name__ == "__main__":
    main()
