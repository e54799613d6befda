"""Does a calibration choose well? Cross-fitted: it is made on four folds of the problems, and judged on the fifth.

    python -m experiments.planner.run CALIBRATION ...

Each file is one of `thinktime calibrate`. No model is loaded. Writes ``result.json`` and ``plot.png`` beside this file,
and prints the tables.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from random import Random
from statistics import fmean
from typing import Any

from experiments.intervals import as_points, difference, mean
from experiments.plot import legend_below, panels, save
from experiments.provenance import provenance, write_json
from thinktime.core.usage import Budget
from thinktime.planning.arms import Arm
from thinktime.planning.calibration import Calibration
from thinktime.planning.calibration_files import read

HERE = Path(__file__).parent
FOLDS = 5
BUDGETS = (1.5, 2.5, 3.5, 5, 7, 10, 14, 20)
"""In multiples of the cheapest strategy's mean tokens."""

Policy = Callable[[Calibration, Budget], Arm]


def on(calibration: Calibration, places: Sequence[int]) -> Calibration:
    """The calibration of some of the problems."""
    arms = tuple(
        replace(arm, right=tuple(arm.right[each] for each in places), tokens=tuple(arm.tokens[each] for each in places))
        for arm in calibration.arms
    )
    return replace(calibration, arms=arms, problems=tuple(calibration.problems[each] for each in places))


def within(calibration: Calibration, budget: Budget) -> list[Arm]:
    """The arms whose mean tokens are within the budget, or the cheapest one."""
    assert budget.tokens is not None
    return [arm for arm in calibration.arms if arm.cost("tokens") <= budget.tokens] or [calibration.arms[0]]


def planner(calibration: Calibration, budget: Budget) -> Arm:
    """The advice of the calibration."""
    return calibration.choose(budget).arm


def if_sure(calibration: Calibration, budget: Budget) -> Arm:
    """The most accurate arm if its paired gain over the cheapest one is above zero within its interval."""
    best, cheapest = highest(calibration, budget), calibration.arms[0]
    return best if best.gain(cheapest).low > 0 else cheapest


def highest(calibration: Calibration, budget: Budget) -> Arm:
    """The most accurate arm within the budget."""
    return max(within(calibration, budget), key=lambda arm: fmean(arm.right))


def dearest(calibration: Calibration, budget: Budget) -> Arm:
    """The most expensive arm within the budget."""
    return within(calibration, budget)[-1]


def at_random(calibration: Calibration, budget: Budget) -> Arm:
    """Any arm within the budget."""
    return Random(f"{budget}/{calibration.problems[0]}").choice(within(calibration, budget))


POLICIES: Mapping[str, Policy] = {
    "planner": planner,
    "only if sure of a gain": if_sure,
    "spend it all": dearest,
    "random": at_random,
}


def folds(count: int, seed: int) -> list[list[int]]:
    """The places of the problems in each fold."""
    places = list(range(count))
    Random(seed).shuffle(places)
    return [sorted(places[number::FOLDS]) for number in range(FOLDS)]


def cross_fitted(calibration: Calibration, policy: Policy, budget: Budget, seed: int) -> list[tuple[Arm, int]]:
    """The arm that a policy takes for each problem, chosen on the other folds; in the order of the problems."""
    chosen: dict[int, tuple[Arm, int]] = {}
    for held in folds(len(calibration.problems), seed):
        seen = [place for place in range(len(calibration.problems)) if place not in set(held)]
        pick = policy(on(calibration, seen), budget).strategy
        whole = next(arm for arm in calibration.arms if arm.strategy == pick)
        chosen |= {place: (whole, place) for place in held}
    return [chosen[place] for place in range(len(calibration.problems))]


def measure(calibration: Calibration, seed: int) -> dict[str, Any]:
    """Every policy at every budget, beside the best arm with hindsight, single, and an oracle."""
    rows = []
    for share in BUDGETS:
        tokens = round(share * calibration.arms[0].cost("tokens"))
        budget = Budget(tokens=tokens)
        hindsight = highest(calibration, budget)
        row: dict[str, Any] = {
            "budget": tokens,
            "hindsight": {"strategy": hindsight.strategy, "accuracy": mean(hindsight.right, seed)},
            "oracle": mean(
                [max(each) for each in zip(*(arm.right for arm in within(calibration, budget)), strict=True)]
            ),
        }
        for name, policy in POLICIES.items():
            picks = cross_fitted(calibration, policy, budget, seed)
            right = [arm.right[place] for arm, place in picks]
            row[name] = {
                "accuracy": mean(right, seed),
                "minus_hindsight": difference(right, hindsight.right, seed),
                "tokens": fmean(arm.tokens[place] for arm, place in picks),
                "strategies": sorted({arm.strategy for arm, _ in picks}),
            }
        rows.append(row)
    return {
        "task": calibration.task["name"],
        "model": calibration.model["generator"],
        "n_problems": len(calibration.problems),
        "sources": calibration.sources,
        "rows": rows,
    }


def table(measured: Mapping[str, Any]) -> str:
    """The table of a calibration in Markdown."""
    head = ["budget, tokens", "best fixed, with hindsight", *POLICIES, "oracle"]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for row in measured["rows"]:
        best = f"{100 * row['hindsight']['accuracy']['value']:.1f} (`{row['hindsight']['strategy']}`)"
        cells = [f"{as_points(row[name]['minus_hindsight'])}, {row[name]['tokens']:.0f} tok" for name in POLICIES]
        lines.append(f"| {' | '.join([str(row['budget']), best, *cells, f'''{100 * row['oracle']['value']:.1f}'''])} |")
    return "\n".join(lines)


def draw(measured: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Accuracy against the tokens that each policy really spends, one panel for each calibration."""
    figure, axes = panels(len(measured), 4.2, 3.2)
    for place, (each, panel) in enumerate(zip(measured, axes, strict=True)):
        for name in POLICIES:
            points = sorted((row[name]["tokens"], row[name]["accuracy"]["value"]) for row in each["rows"])
            panel.plot(*zip(*((x, 100 * y) for x, y in points), strict=True), marker="o", markersize=3, label=name)
        panel.set_title(f"{each['task']}, {each['n_problems']} problems")
        panel.set_xlabel("tokens for a problem")
        panel.set_ylabel("right, %" if not place else "")
    legend_below(figure, axes[0], 2)
    save(figure, path, (0, 0.16, 1, 1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("calibrations", nargs="+", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=HERE)
    args = parser.parse_args()
    measured = [measure(read(path), args.seed) for path in args.calibrations]
    write_json(args.out / "result.json", {**provenance(HERE, args.seed), "folds": FOLDS, "calibrations": measured})
    draw(measured, args.out / "plot.png")
    for each in measured:
        print(f"{each['task']}, {each['model']}, {each['n_problems']} problems\n\n{table(each)}\n")


if __name__ == "__main__":
    main()
