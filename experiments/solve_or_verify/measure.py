"""Measurements of a verifier on its bank: its discrimination, its cost, its gain, and the law of the best splits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from experiments.intervals import Estimate, areas, bootstrap, difference, mean, ratio
from experiments.solve_or_verify.collect import Collected
from thinktime.bench.statistics import auc
from thinktime.planning.verification import (
    Floats,
    Law,
    Split,
    Verdicts,
    at_random,
    best_split,
    budgets,
    crossover,
    fit,
    splits,
)
from thinktime.strategies.verification.solve_or_verify import SELECT

UNSEEN = (3 / 16, 3 / 8, 3 / 4)
"""Budgets that the law was not fitted at, in solutions of the bank: between its half octaves."""
NEVER = 1e9
"""A crossover that no budget reaches."""
RESAMPLES = 500


def powers(most: int) -> list[int]:
    """1, 2, 4 and so on, and ``most``."""
    return sorted({2**i for i in range(most.bit_length()) if 2**i <= most} | {most})


def discrimination(bank: Verdicts, checks: int) -> dict[str, Any]:
    """How well mean verdicts tell right solutions from wrong: within problems, and over all of them."""
    kept = [(p.codes >= 0) & ~np.isnan(p.verdicts[:, :checks]).all(1) for p in bank.problems]
    scores = [p.scores(checks)[keep] for p, keep in zip(bank.problems, kept, strict=True)]
    right = [p.correct[keep] for p, keep in zip(bank.problems, kept, strict=True)]
    _, within = areas([s.tolist() for s in scores], [r.tolist() for r in right])

    def overall(picks: Any) -> Any:
        if picks.ndim > 1:
            return np.array([overall(each) for each in picks])
        some, labels = (np.concatenate([part[i] for i in picks]).tolist() for part in (scores, right))
        return auc(some, labels) or 0.5

    return {
        "within_problem": mean(within) if within else None,
        "problems_with_both": len(within),
        "overall": bootstrap(overall, len(scores), resamples=RESAMPLES),
    }


def lambdas(bank: Verdicts) -> dict[str, Any]:
    """Tokens of a check over tokens of a solution, over all problems and by level."""

    def of(some: Sequence[int]) -> Estimate:
        asked = [bank.problems[i] for i in some if bank.problems[i].check_tokens.any()]
        checks = [float(p.check_tokens[p.check_tokens > 0].mean()) for p in asked]
        return ratio(checks, [float(p.solution_tokens.mean()) for p in asked])

    everyone = range(len(bank.problems))
    levels = sorted({p.level for p in bank.problems if p.level is not None})
    by_level = {str(level): of([i for i in everyone if bank.problems[i].level == level]) for level in levels}
    return {"all": of(everyone), "by_level": by_level}


def unchecked(bank: Verdicts) -> float:
    """Share of solutions that did not end, or are too long to be checked within the context."""
    return float(np.mean([~p.check_tokens.any(1) for p in bank.problems]))


class Budgets:
    """Every way to spend each budget on checked solutions, and what each way gives on every problem of a bank."""

    def __init__(self, bank: Verdicts, spent: Sequence[int], lam: float) -> None:
        self.bank, self.spent = bank, spent
        self.options = [splits(bank, budget, lam) for budget in spent]
        self.right = {
            select: [np.array([bank.success(split, select) for split in options]) for options in self.options]
            for select in SELECT
        }
        self.voted = [bank.success((min(budget, bank.solutions), 0)) for budget in spent]

    def law(self, select: str) -> Law:
        """The law of the best splits."""
        return fit(self.spent, self.options, self.right[select])

    def curve(self, select: str) -> tuple[list[Floats], list[dict[str, Any]]]:
        """By budget: success on every problem by the split that was best on the other half of them, and its account."""
        successes, rows = [], []
        for budget, options, table, voted in zip(self.spent, self.options, self.right[select], self.voted, strict=True):
            success, generated, paid = np.empty_like(voted), np.empty_like(voted), np.empty_like(voted)
            picks = []
            for fold in (0, 1):
                pick = int(np.argmax(np.round(table[:, fold::2].mean(1), 9)))
                mine = slice(1 - fold, None, 2)
                success[mine] = table[pick, mine]
                generated[mine] = self.bank.tokens(options[pick], read=False)[mine]
                paid[mine] = self.bank.tokens(options[pick])[mine]
                picks.append(options[pick])
            successes.append(success)
            row = {"budget": budget, "vote": min(budget, self.bank.solutions), "splits": picks}
            row |= {"accuracy": mean(success), "generated_tokens": float(generated.mean())}
            rows.append(row | {"tokens": float(paid.mean()), "minus_vote": difference(success, voted)})
        return successes, rows


def votes(bank: Verdicts) -> list[dict[str, Any]]:
    """Majority votes and coverage by number of solutions, with what they cost."""
    return [
        {
            "budget": n,
            "accuracy": mean(bank.success((n, 0))),
            "coverage": mean(bank.coverage(n)),
            "generated_tokens": float(bank.tokens((n, 0), read=False).mean()),
            "tokens": float(bank.tokens((n, 0)).mean()),
        }
        for n in powers(bank.solutions)
    ]


def grid(bank: Verdicts) -> dict[str, dict[str, float]]:
    """Success at powers of two of solutions and checks, by way to select."""
    pairs = [(n, v) for n in powers(bank.solutions) for v in powers(bank.checks)]
    return {s: {f"{n}x{v}": round(float(bank.success((n, v), s).mean()), 6) for n, v in pairs} for s in SELECT}


def allocation(
    fitted: Verdicts, held_out: Verdicts, law: Law, lam: float, crossing: float | None
) -> list[dict[str, Any]]:
    """On held-out problems: the law below and above its crossover, against the best fixed split of each budget."""
    rows = []
    for share in UNSEEN:
        budget = max(2, round(share * held_out.solutions))
        options = [(budget, 0), *splits(held_out, budget, lam)]
        hindsight, chosen = best_split(held_out, options), best_split(fitted, options)
        chosen_by_rule = law.strategy(budget, lam, crossing or NEVER).split()
        by_law = law.strategy(budget, lam).split()
        ours, alone = (held_out.success(within(held_out, split)) for split in (chosen_by_rule, by_law))
        row = {"budget": budget, "split": chosen_by_rule, "accuracy": mean(ours)}
        row["tokens"] = float(held_out.tokens(within(held_out, chosen_by_rule)).mean())
        row["best_in_hindsight"] = hindsight
        row["minus_best_in_hindsight"] = difference(ours, held_out.success(hindsight))
        row["best_of_the_fitting_problems"] = chosen
        row["minus_best_of_the_fitting_problems"] = difference(ours, held_out.success(chosen))
        row["split_without_crossover"] = by_law
        row["without_crossover_minus_best_in_hindsight"] = difference(alone, held_out.success(hindsight))
        rows.append(row)
    return rows


def within(bank: Verdicts, split: Split) -> Split:
    """As much of a split as the bank holds."""
    return min(split[0], bank.solutions), min(split[1], bank.checks)


def verifier(fitted: Collected, held_out: Collected) -> dict[str, Any]:
    """Everything about one verifier; two halves of the problems, two seeds."""
    bank, other = fitted.verdicts, held_out.verdicts
    lam = bank.ratio
    spent = budgets(bank, lam)
    mine, theirs, chance = (Budgets(some, spent, lam) for some in (bank, other, at_random(bank)))
    found: dict[str, Any] = {
        "missing_verdicts": {"fitted": bank.missing, "held_out": other.missing},
        "solutions_without_check": {"fitted": unchecked(bank), "held_out": unchecked(other)},
        "auc_of_one_check": discrimination(bank, 1),
        "auc_of_all_checks": discrimination(bank, bank.checks),
        "lambda": lambdas(bank),
        "lambda_in_flops": fitted.flops_ratio,
        "grid": grid(bank),
    }
    halves = [{s: half.curve(s) for s in SELECT} for half in (mine, theirs)]
    curves, others = halves
    found["by_select"] = {}
    for select in SELECT:
        law, successes = mine.law(select), curves[select][0]
        by_chance, rows = chance.curve(select)
        found["by_select"][select] = {
            "curve": curves[select][1],
            "curve_of_random_verdicts": rows,
            "minus_random_verdicts": list(map(difference, successes, by_chance)),
            "curve_of_held_out": others[select][1],
            "law": {name: estimate.as_dict() for name, estimate in vars(law).items()},
            "crossover": crossover(spent, successes, mine.voted),
        }
    pairs = {"weighted against best of n": [list(map(difference, h["weighted"][0], h["best_of_n"][0])) for h in halves]}
    found["weighted_minus_best_of_n"] = dict(zip(map(str, spent), pairs["weighted against best of n"][0], strict=True))
    for select in SELECT:
        pairs[f"{select} against the vote"] = [[row["minus_vote"] for row in half[select][1]] for half in halves]
    found["order_flips_with_the_seed"] = [
        f"{name}, budget {budget}"
        for name, both in pairs.items()
        for budget, first, second in zip(spent, *both, strict=True)
        if (first["low"] > 0 > second["high"]) or (second["low"] > 0 > first["high"])
    ]
    crossing = found["by_select"]["weighted"]["crossover"]
    found["allocator"] = allocation(bank, other, mine.law("weighted"), lam, crossing)
    return found
