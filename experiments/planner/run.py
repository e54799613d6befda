"""Does a calibration choose well? Cross-fitted: it is made on four folds of the problems, and judged on the fifth.

    python -m experiments.planner.run

The samples are the committed exports, with their judgements. Everything is repeated for several random orders of the
samples of each problem, and averaged over them. Writes ``result.json`` and ``plot.png``, and prints the tables.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from random import Random
from statistics import fmean
from typing import Any

import numpy as np
import numpy.typing as npt

from experiments.banks.judge import exports
from experiments.intervals import as_points, difference, mean, ratio
from experiments.planner.banks import calibration_of
from experiments.plot import legend_below, panels, save
from experiments.provenance import begin, write_json
from thinktime.core.usage import Budget
from thinktime.planning.arms import Arm
from thinktime.planning.bins import charged, is_plain
from thinktime.planning.calibration import Advice, Calibration

HERE = Path(__file__).parent
FOLDS, ORDERS = 5, 6
BUDGETS = (1.5, 2.5, 3.5, 5, 7, 10, 14)
"""In multiples of the mean tokens of one sample."""

Floats = npt.NDArray[np.float64]
Choice = Callable[[Calibration, Budget], Advice]


def on(calibration: Calibration, places: Sequence[int]) -> Calibration:
    """The calibration of some of the problems."""
    arms = tuple(arm.on(places) for arm in calibration.arms)
    rates = tuple(calibration.rates[each] for each in places) if calibration.rates else ()
    return replace(calibration, arms=arms, problems=tuple(calibration.problems[each] for each in places), rates=rates)


def within(calibration: Calibration, budget: Budget) -> list[Arm]:
    """The arms whose mean tokens are within the budget, or the cheapest one."""
    return [arm for arm in calibration.arms if arm.fits(budget)] or [calibration.arms[0]]


def fixed(choose: Callable[[Sequence[Arm]], Arm]) -> Choice:
    """One of the arms within the budget for all problems."""
    return lambda calibration, budget: Advice(choose(within(calibration, budget)), "")


def highest(arms: Sequence[Arm]) -> Arm:
    """The most accurate arm as measured, without curves."""
    return max(arms, key=lambda arm: fmean(arm.right))


EQUAL_SHARES = "equal shares"
"""The planner without bins of fixed pass@1."""
CHOICES: Mapping[str, Choice] = {
    "planner": Calibration.choose,
    EQUAL_SHARES: Calibration.choose,
    "one for all": Calibration.one,
    "best point": fixed(highest),
    "spend it all": fixed(lambda arms: arms[-1]),
    "random": fixed(lambda arms: Random(str(arms[0].tokens)).choice(arms)),
}


def folds(count: int, seed: int) -> list[list[int]]:
    """The places of the problems in each fold."""
    places = list(range(count))
    Random(seed).shuffle(places)
    return [sorted(places[number::FOLDS]) for number in range(FOLDS)]


def outcome(advice: Advice, whole: Calibration, places: Sequence[int]) -> tuple[list[float], list[float]]:
    """Whether what is advised solves these problems, and its tokens, those of first samples among them."""
    arms = {arm.strategy: arm for arm in whole.arms}
    if (policy := advice.policy) is None:
        arm = arms[advice.arm.strategy].on(places)
        return list(arm.right), list(arm.tokens)
    first = next(arm for arm in whole.arms if is_plain(arm) and arm.size == policy.bins.samples)
    values = first.signals[policy.bins.signal]
    after = {text: charged(arms[text], first) for text in policy.strategies}
    picks = [after[policy.strategies[policy.bins.place(values[place])]] for place in places]
    pairs = zip(picks, places, strict=True)
    right, tokens = zip(*((arm.right[place], arm.tokens[place]) for arm, place in pairs), strict=True)
    return list(right), list(tokens)


def cross_fitted(
    whole: Calibration, budgets: Sequence[Budget], seed: int
) -> dict[tuple[str, int], tuple[Floats, Floats, float]]:
    """By choice and budget: right answers, tokens, and the share of the folds with a policy by difficulty."""
    count = len(whole.problems)
    found = {(name, b.tokens or 0): (np.zeros(count), np.zeros(count), 0.0) for name in CHOICES for b in budgets}
    for held in folds(count, seed):
        seen = on(whole, sorted(set(range(count)) - set(held))).with_policies()
        plain = replace(seen, rates=()).with_policies()
        for (name, tokens), (right, spent, share) in found.items():
            advice = CHOICES[name](plain if name == EQUAL_SHARES else seen, Budget(tokens=tokens))
            right[held], spent[held] = outcome(advice, whole, held)
            found[name, tokens] = right, spent, share + (advice.policy is not None) / FOLDS
    return found


def measure(path: Path, seed: int) -> dict[str, Any]:
    """Every choice at every budget, beside the best arm with hindsight and an oracle."""
    calibrations = [calibration_of(path, seed + order) for order in range(ORDERS)]
    one_sample = fmean(fmean(each.arms[0].tokens) for each in calibrations)
    budgets = [Budget(tokens=round(share * one_sample)) for share in BUDGETS]
    chosen = [cross_fitted(each, budgets, seed) for each in calibrations]
    by_name = [{arm.strategy: arm for arm in each.arms} for each in calibrations]
    right = {name: np.mean([each[name].right for each in by_name], axis=0) for name in by_name[0]}
    tokens = {name: np.mean([each[name].tokens for each in by_name], axis=0) for name in by_name[0]}
    rows = []
    for budget in budgets:
        limit = budget.tokens or 0
        names = [name for name in right if tokens[name].mean() <= limit] or ["single"]
        best = max(names, key=lambda name: right[name].mean())
        oracle = np.mean([np.max([each[name].right for name in names], axis=0) for each in by_name], axis=0)
        row: dict[str, Any] = {
            "budget": limit,
            "hindsight": {
                "strategy": best,
                "accuracy": mean(right[best].tolist(), seed),
                "tokens": float(tokens[best].mean()),
            },
            "oracle": mean(oracle.tolist(), seed),
        }
        plain = np.mean([each[EQUAL_SHARES, limit][0] for each in chosen], axis=0)
        for name in CHOICES:
            mine = np.mean([each[name, limit][0] for each in chosen], axis=0)
            spent = np.mean([each[name, limit][1] for each in chosen], axis=0)
            equals = [arm for arm in right if right[arm].mean() >= mine.mean() - 1e-9]
            cheapest = min(equals, key=lambda arm: tokens[arm].mean(), default=None)
            row[name] = {
                "accuracy": mean(mine.tolist(), seed),
                "minus_hindsight": difference(mine.tolist(), right[best].tolist(), seed),
                "minus_equal_shares": difference(mine.tolist(), plain.tolist(), seed),
                "tokens": float(spent.mean()),
                "share_by_difficulty": fmean(each[name, limit][2] for each in chosen),
                "cheapest_as_accurate": cheapest,
                "its_tokens_over_mine": None if cheapest is None else ratio(tokens[cheapest], spent, seed),
                "hindsight_tokens_over_mine": ratio(tokens[best], spent, seed),
            }
        rows.append(row)
    return {
        "task": calibrations[0].task["name"],
        "model": calibrations[0].model["generator"],
        "n_problems": len(calibrations[0].problems),
        "arms": {name: {"accuracy": float(right[name].mean()), "tokens": float(tokens[name].mean())} for name in right},
        "rows": rows,
    }


def table(measured: Mapping[str, Any]) -> str:
    """The table of a calibration in Markdown."""
    head = ["budget, tokens", "best fixed, with hindsight", *CHOICES, "oracle"]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for row in measured["rows"]:
        top = row["hindsight"]
        best = f"{100 * top['accuracy']['value']:.1f} (`{top['strategy']}`), {top['tokens']:.0f} tok"
        cells = [f"{as_points(row[name]['minus_hindsight'])}, {row[name]['tokens']:.0f} tok" for name in CHOICES]
        lines.append(f"| {' | '.join([str(row['budget']), best, *cells, f'''{100 * row['oracle']['value']:.1f}'''])} |")
    return "\n".join(lines)


def draw(measured: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Accuracy against the tokens that each choice really spends, one panel for each bank."""
    figure, axes = panels(len(measured), 4.2 * len(measured), 3.6)
    for place, (each, panel) in enumerate(zip(measured, axes, strict=True)):
        arms = each["arms"].values()
        panel.plot([arm["tokens"] for arm in arms], [100 * arm["accuracy"] for arm in arms], "k.", label="fixed")
        for name in CHOICES:
            points = sorted((row[name]["tokens"], row[name]["accuracy"]["value"]) for row in each["rows"])
            panel.plot(*zip(*((x, 100 * y) for x, y in points), strict=True), marker="o", markersize=3, label=name)
        panel.set_title(f"{each['task']}, {each['n_problems']} problems")
        panel.set_xlabel("tokens for a problem")
        panel.set_ylabel("right, %" if not place else "")
    legend_below(figure, axes[0], 3)
    save(figure, path, (0, 0.16, 1, 1))


def main() -> None:
    args, made = begin(HERE, __doc__, "run", "result.json")
    measured = [measure(path, args.seed) for path in exports()]
    write_json(args.out / "result.json", made | {"folds": FOLDS, "orders": ORDERS, "banks": measured})
    draw(measured, args.out / "plot.png")
    for each in measured:
        print(f"{each['task']}, {each['model']}, {each['n_problems']} problems\n\n{table(each)}\n")


if __name__ == "__main__":
    main()
