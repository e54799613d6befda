"""Solve or verify with checks whose quality is known by construction (Singhi et al. 2025, arXiv 2504.01005).

    python -m experiments.solve_or_verify.control            # half a minute; writes control.json and control.png

The solutions are those of `experiments.constructed`. A solution has a hidden plausibility, from N(d, 1) if it is right
and from N(0, 1) if it is wrong. A check says yes with a probability that grows with it. So the mean of very many checks
has the AUC on the dial, and a single check has a lower one: checks of a solution repeat its errors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from experiments.constructed import NORMAL, RIGHT, answer, shift
from experiments.intervals import Estimate, Floats, difference, mean
from experiments.plot import COLOURS, line, panels, save
from experiments.provenance import begin, write_json
from experiments.solve_or_verify.measure import discrimination, powers
from thinktime.planning.verification import Checked, Law, Split, Verdicts, fit, splits

HERE = Path(__file__).parent
AUCS = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
PRICES = (0.25, 1.0, 4.0)
"""Of a check, in solutions."""
SOLUTIONS, CHECKS = 32, 8
SELECTS = ("weighted", "best_of_n")


def checked(problem: str, auc: float) -> Checked:
    """The solutions of a problem, and their checks."""
    given = [answer(problem, index) for index in range(SOLUTIONS)]
    lead = shift(auc)
    verdicts = np.empty((SOLUTIONS, CHECKS))
    for place, each in enumerate(given):
        rng = Random(f"{problem}/{place}/checks")
        plausible = rng.gauss(0, 1) + (lead if each == RIGHT else 0.0)
        yes = NORMAL.cdf(plausible - lead / 2)
        verdicts[place] = [float(rng.random() < yes) for _ in range(CHECKS)]
    ones = np.ones(SOLUTIONS)
    correct = np.array([each == RIGHT for each in given])
    return Checked(problem, tuple(given), correct, verdicts, ones, np.ones((SOLUTIONS, CHECKS)), 0 * ones)


class Bank:
    """A bank of verdicts that computes the success of a split once."""

    def __init__(self, names: Sequence[str], auc: float) -> None:
        self.verdicts = Verdicts(tuple(checked(name, auc) for name in names))
        self.success = lru_cache(maxsize=None)(self.verdicts.success)

    def options(self, budget: int, price: float) -> list[Split]:
        """The splits of a budget with 1, 2, 4, … checks."""
        return [(n, v) for n, v in splits(self.verdicts, budget, price) if v in powers(CHECKS)]

    def best(self, budget: int, price: float, select: str) -> Floats:
        """Success by the split that is best on the other half of the problems."""
        options = self.options(budget, price)
        table = np.array([self.success(split, select) for split in options])
        found = np.empty(table.shape[1])
        for half in (0, 1):
            pick = int(np.argmax(np.round(table[:, half::2].mean(1), 9)))
            found[1 - half :: 2] = table[pick, 1 - half :: 2]
        return found

    def law(self, spent: Sequence[int], price: float, select: str) -> Law | None:
        """The law of the best splits; None if too few budgets have several."""
        options = [self.options(budget, price) for budget in spent]
        if sum(len(found) > 1 for found in options) < 3:
            return None
        right = [np.array([self.success(split, select) for split in found]) for found in options]
        return fit(spent, options, right)


def from_here_on(spent: Sequence[int], minus_vote: Sequence[Estimate]) -> int | None:
    """The least budget from which on checks are above votes of equal cost; None if they never are.

    With two solutions' worth a check cannot lose: a vote of two is the first of them.
    """
    gains = [estimate["low"] > 0 for estimate in minus_vote]
    return next((budget for place, budget in enumerate(spent) if all(gains[place:])), None)


def at(auc: float, names: Sequence[str]) -> dict[str, Any]:
    """Checks against votes at one place of the dial, by price and budget."""
    bank = Bank(names, auc)
    by_price = {}
    for price in PRICES:
        spent = [n for n in powers(SOLUTIONS) if n > 1 and bank.options(n, price)]
        votes = [bank.success((n, 0)) for n in spent]
        by_select = {}
        for select in SELECTS:
            found = [bank.best(n, price, select) for n in spent]
            law = bank.law(spent, price, select)
            minus_vote = [difference(mine, theirs) for mine, theirs in zip(found, votes, strict=True)]
            by_select[select] = {
                "accuracy": list(map(mean, found)),
                "minus_vote": minus_vote,
                "crossover": from_here_on(spent, minus_vote),
                "law": None if law is None else {name: each.as_dict() for name, each in vars(law).items()},
            }
        by_price[str(price)] = {"budgets": spent, "by_select": by_select}
    areas = {str(n): discrimination(bank.verdicts, n)["within_problem"] for n in (1, CHECKS)}
    return {"auc_within_by_checks": areas, "by_price": by_price}


def main() -> None:
    args, made = begin(HERE, __doc__, "control", "control.json", problems=100)
    names = [f"problem {i}" for i in range(args.problems)]
    result = {**made, "n_problems": len(names), "by_auc": {str(auc): at(auc, names) for auc in AUCS}}
    write_json(args.out / "control.json", result)
    plot(result, args.out / "control.png")


def plot(result: Mapping[str, Any], path: Path) -> None:
    """The gain over a vote of equal cost against the dial at the largest budget, and the crossover."""
    figure, (gain, crossing) = panels(2, 12, 4.4)
    for colour, price in enumerate(PRICES):
        for select, style in (("weighted", "o-"), ("best_of_n", "o--")):
            found = [result["by_auc"][str(auc)]["by_price"][str(price)]["by_select"][select] for auc in AUCS]
            line(gain, AUCS, [each["minus_vote"][-1] for each in found], colour, f"{select}, price {price:g}", style)
            reached = [(auc, each["crossover"]) for auc, each in zip(AUCS, found, strict=True) if each["crossover"]]
            if reached:
                xs, ys = zip(*reached, strict=True)
                crossing.plot(xs, ys, style, color=COLOURS[colour], label=f"{select}, price {price:g}")
    gain.axhline(0, color="#999999", lw=0.8)
    gain.set(xlabel="AUC of very many checks", ylabel=f"points over a vote at {SOLUTIONS} solutions", title="gain")
    crossing.set_yscale("log", base=2)
    crossing.set(xlabel="AUC of very many checks", ylabel="budget, in solutions", title="crossover, where there is one")
    gain.legend(fontsize=7)
    save(figure, path)


if __name__ == "__main__":
    main()
