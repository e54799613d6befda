"""Tournaments before a real judge: Qwen2.5-Coder-0.5B compares its own programs for GSM8K.

    python -m experiments.pairwise_tournament.real

Reads the committed samples and the committed judgements of `experiments.pairwise_tournament.ask`. First the quality of
the judge: how often it prefers the right one of a right and a wrong program, and how often the one that is shown first.
Then the strategies before this judge. Writes ``real.json`` and ``real.png``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from math import exp
from pathlib import Path
from typing import Any

from experiments.banks.judge import exports, judged_pool
from experiments.banks.words import saying
from experiments.constructed import RIGHT, rows, solved
from experiments.intervals import as_number, as_points, share
from experiments.pairwise_tournament.ask import FILE, SAMPLES, TASK
from experiments.plot import COLOURS, bars, panels, save
from experiments.pools import beside_greedy
from experiments.provenance import begin, write_json
from thinktime.core.types import Node, Problem, Score
from thinktime.testing import WordJudge

HERE = Path(__file__).parent
CONTROL = f"majority:n={SAMPLES}"
ARMS = {
    "single": "one sample",
    CONTROL: f"vote of {SAMPLES}",
    f"pairwise_tournament:n={SAMPLES},pairs=2": "Swiss, both orders",
    f"pairwise_tournament:n={SAMPLES},pairs=2,orders=one": "Swiss, one order",
    f"pairwise_tournament:n={SAMPLES},schedule=pivot": "pivots, both orders",
}
Judgements = Mapping[str, Mapping[tuple[str, str], float]]
"""By problem, the log-odds for the first of two answers."""


def grade(log_odds: float) -> float:
    """A grade from 0.1 to 1 for the solution that is shown first."""
    return 0.1 + 0.9 / (1 + exp(-log_odds))


class RecordedJudge(WordJudge):
    """Answers comparisons from a table."""

    def __init__(self, table: Judgements) -> None:
        super().__init__()
        self._table = table

    async def compare(self, problem: Problem, nodes: Sequence[Node]) -> Score:
        """The grades of two solutions."""
        first, second = (str(node.state.text).split()[-1] for node in nodes)
        odds = self._table[problem.id][first, second]
        grades = grade(odds), grade(-odds)
        return Score(max(grades), self.worst_case_of_comparison(problem, nodes), grades)


def quality(table: Judgements, seed: int) -> dict[str, Any]:
    """How often the judge prefers the right one of a right and a wrong answer: once, in both orders; and the first."""
    once: list[list[float]] = []
    both: list[list[float]] = []
    first: list[list[float]] = []
    for pairs in table.values():
        mixed = [(b, odds) for (a, b), odds in pairs.items() if a == RIGHT]
        once.append([float(odds > 0) for _, odds in mixed] + [float(pairs[b, RIGHT] < 0) for b, _ in mixed])
        both.append([float(odds > pairs[b, RIGHT]) for b, odds in mixed])
        first.append([float(odds > 0) for odds in pairs.values()])

    def of(values: Sequence[Sequence[float]]) -> dict[str, float] | None:
        return share(list(map(sum, values)), list(map(len, values)))

    return {
        "prefers_right": of(once),
        "prefers_right_of_both_orders": of(both),
        "prefers_first": of(first),
        "mixed_pairs": sum(map(len, both)),
        "problems_with_mixed_pairs": sum(map(bool, both)),
    }


def plot(result: Mapping[str, Any], path: Path) -> None:
    """The arms, with their intervals."""
    figure, (axes,) = panels(1, 7.5, 3.4)
    table = [result["arms"][arm] for arm in ARMS]
    x, whiskers = bars([row["accuracy"] for row in table])
    axes.errorbar(x, range(len(table), 0, -1), xerr=whiskers, fmt="o", color=COLOURS[1])
    axes.set_yticks(range(len(table), 0, -1), list(ARMS.values()))
    axes.set(xlabel="right, %", title=f"{result['n_problems']} problems with several answers")
    save(figure, path)


def main() -> None:
    args, made = begin(HERE, __doc__, "real", "real.json")
    asked = json.loads(FILE.read_text())
    table = {name: {(a, b): odds for a, b, odds in pairs} for name, pairs in asked["problems"].items()}
    (path,) = exports([TASK])
    pool = judged_pool(path)
    pool = type(pool)(pool.generator, pool.setting, pool.unit, tuple(p for p in pool.problems if p.id in table))
    say, judge = saying(pool), RecordedJudge(table)
    found = {arm: [solved(arm, problem.id, say, judge) for problem in pool.problems] for arm in ARMS}
    result = made | {
        "judge": asked["model"],
        "n_problems": len(pool.problems),
        "samples_each": SAMPLES,
        "judge_quality": quality(table, args.seed),
        "arms": rows(found, CONTROL),
    }
    result |= beside_greedy({TASK: pool}, {})
    write_json(args.out / "real.json", result)
    plot(result, args.out / "real.png")
    for name, value in result["judge_quality"].items():
        print(name, as_number(value) if isinstance(value, dict) else value)
    for arm, row in result["arms"].items():
        print(f"{ARMS[arm]}: {as_points(row['accuracy'])}, {as_points(row['minus_control'])}, {row['comparisons']}")
    print(result["greedy"])


if __name__ == "__main__":
    main()
