"""How many problems must a calibration have? A control with constructed strategies, whose true accuracies are known.

    python -m experiments.planner.control

Writes ``control.json`` and ``control.png`` beside this file, and prints the tables. It takes two minutes.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import numpy.typing as npt

from experiments.constructed import shift
from experiments.intervals import as_number, mean
from experiments.plot import legend_below, line, panels, save
from experiments.provenance import provenance, write_json
from thinktime.core.usage import Budget
from thinktime.planning.arms import Arm
from thinktime.planning.calibration import Calibration

HERE = Path(__file__).parent
POPULATION = 20_000
SIZES = (1, 2, 4, 8, 16, 32)
"""Samples of the strategies; a sample costs one token."""
PROBLEMS = (25, 100, 300)
AREAS = (0.5, 0.6, 0.8)
TRAPS = (0.0, 0.03)
"""Chance that a wrong sample gets the highest score. With traps, best-of-n gets worse beyond some size."""
REPEATS = 20

Floats = npt.NDArray[np.float64]


def population(area: float, traps: float, rng: np.random.Generator) -> dict[str, Floats]:
    """Whether each strategy solves each problem. The samples are those of `experiments.constructed`."""
    most = SIZES[-1]
    rates = rng.uniform(0.1, 0.6, (POPULATION, 1))
    right = rng.random((POPULATION, most)) < rates
    wrong = np.where(rng.random((POPULATION, most)) < 0.6, 1, rng.integers(2, 10, (POPULATION, most)))
    answers = np.where(right, 0, wrong)
    scores = rng.normal(size=(POPULATION, most)) + shift(area) * right
    if traps:
        scores = np.where(~right & (rng.random((POPULATION, most)) < traps), 10.0, scores)
    solved = {}
    for n in SIZES:
        votes = (answers[:, :n, None] == np.arange(10)).sum(1)
        tied = votes == votes.max(1, keepdims=True)
        solved[f"majority:n={n}"] = tied[:, 0] / tied.sum(1)  # ties go to any of the leaders
        picked = scores[:, :n].argmax(1)
        solved[f"best_of_n:n={n}"] = right[np.arange(POPULATION), picked].astype(float)
    solved["single"] = solved.pop("best_of_n:n=1")
    del solved["majority:n=1"], solved["majority:n=2"]  # they are as good as single
    return solved


def calibration(solved: Mapping[str, Floats], places: npt.NDArray[np.int64]) -> Calibration:
    """A calibration of some of the problems, the cheapest strategy first."""
    arms = []
    for strategy, right in solved.items():
        tokens = float(strategy.rpartition("=")[2]) if "=" in strategy else 1.0
        arms.append(Arm(strategy, tuple(right[places]), (tokens,) * len(places), {"judge_tokens": 0.0}, None, {}))
    arms.sort(key=lambda arm: (arm.tokens[0], -fmean(arm.right)))
    return Calibration({}, {}, {}, 0, tuple(map(str, places)), tuple(arms), ())


def within(found: Calibration, budget: int) -> list[Arm]:
    return [arm for arm in found.arms if arm.tokens[0] <= budget]


def planner(found: Calibration, budget: int) -> Arm:
    """The advice of `thinktime plan`."""
    return found.choose(Budget(tokens=budget)).arm


def highest(found: Calibration, budget: int) -> Arm:
    """The most accurate arm within the budget as measured, without curves."""
    return max(within(found, budget), key=lambda arm: fmean(arm.right))


def one_error(found: Calibration, budget: int) -> Arm:
    """The cheapest arm within one standard error of the most accurate one (Breiman et al. 1984)."""
    best = highest(found, budget)

    def is_near(arm: Arm) -> bool:
        gaps = np.subtract(best.right, arm.right)
        return bool(gaps.mean() <= gaps.std(ddof=1) / len(gaps) ** 0.5)

    return next(arm for arm in within(found, budget) if is_near(arm))


def dearest(found: Calibration, budget: int) -> Arm:
    """The most expensive arm within the budget; of two, the one that looks better."""
    return max(within(found, budget), key=lambda arm: (arm.tokens[0], fmean(arm.right)))


POLICIES: Mapping[str, Callable[[Calibration, int], Arm]] = {
    "planner": planner,
    "best point": highest,
    "one standard error": one_error,
    "spend it all": dearest,
}


def measure(area: float, traps: float, seed: int) -> list[dict[str, Any]]:
    """For each number of problems and each policy: the accuracy it loses, and the tokens it spends."""
    rng = np.random.default_rng([seed, round(100 * area)])
    solved = population(area, traps, rng)
    true = {strategy: float(right.mean()) for strategy, right in solved.items()}
    rows = []
    for count in PROBLEMS:
        lost: dict[str, list[float]] = {name: [] for name in POLICIES}
        spent: dict[str, list[float]] = {name: [] for name in POLICIES}
        for _ in range(REPEATS):
            found = calibration(solved, rng.choice(POPULATION, count, replace=False))
            for name, policy in POLICIES.items():
                picks = [(policy(found, budget), budget) for budget in SIZES]
                gaps = [
                    max(true[arm.strategy] for arm in within(found, at)) - true[pick.strategy] for pick, at in picks
                ]
                lost[name].append(100 * fmean(gaps))
                spent[name].append(fmean(pick.tokens[0] / at for pick, at in picks))
        for name in POLICIES:
            row = {"policy": name, "problems": count, "lost_points": mean(lost[name], seed)}
            rows.append(row | {"share_of_budget": mean(spent[name], seed)})
    return rows


def draw(found: Mapping[str, Sequence[Mapping[str, Any]]], path: Path) -> None:
    """The points lost against the problems of the calibration, one panel for each scorer."""
    figure, axes = panels(len(found), 15, 3, sharey=True)
    for panel, (area, rows) in zip(axes, found.items(), strict=True):
        for colour, name in enumerate(POLICIES):
            mine = [row for row in rows if row["policy"] == name]
            line(panel, PROBLEMS, [row["lost_points"] for row in mine], colour, name, scale=1)
        panel.set_xscale("log")
        panel.set_xticks(PROBLEMS, [str(count) for count in PROBLEMS])
        panel.minorticks_off()
        panel.set_title(f"AUC {area}")
        panel.set_xlabel("problems")
    axes[0].set_ylabel("points lost")
    legend_below(figure, axes[0], 4)
    save(figure, path, (0, 0.1, 1, 1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=HERE)
    args = parser.parse_args()
    found = {
        f"{area}{', traps' if traps else ''}": measure(area, traps, args.seed) for traps in TRAPS for area in AREAS
    }
    settings = {"population": POPULATION, "budgets": SIZES, "repeats": REPEATS}
    write_json(args.out / "control.json", {**provenance(HERE, args.seed, "control"), **settings, "areas": found})
    draw(found, args.out / "control.png")
    for area, rows in found.items():
        print(f"\nAUC {area}\n\n| policy | {' | '.join(map(str, PROBLEMS))} | share of the budget at 300 |")
        print("|---" * (len(PROBLEMS) + 2) + "|")
        for name in POLICIES:
            of_policy = {row["problems"]: row for row in rows if row["policy"] == name}
            cells = [as_number(of_policy[count]["lost_points"], 1) for count in PROBLEMS]
            print(f"| {name} | {' | '.join(cells)} | {of_policy[300]['share_of_budget']['value']:.2f} |")


if __name__ == "__main__":
    main()
