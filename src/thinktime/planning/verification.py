"""Fits how to split a budget between solutions and checks (Singhi et al. 2025, arXiv 2504.01005).

The input has S solutions of every problem and V verdicts on each. Subsets show the accuracy of fewer solutions and
checks, so the law of the best split, and the budget at which checks pay off, follow without new samples.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from thinktime.bench.statistics import Estimate, expected_best, paired_difference, pass_at_k
from thinktime.core.errors import InputError
from thinktime.strategies.options import one_of
from thinktime.strategies.verification.solve_or_verify import SELECT, SolveOrVerify, cost

Floats = npt.NDArray[np.float64]
Split = tuple[int, int]
"""Number of solutions, and of checks of each; 0 checks is a vote."""

SUBSETS = 25
RESAMPLES = 1000


@dataclass(frozen=True)
class Checked:
    """The solutions of one problem and their verdicts; arrays are by solution, or by solution and check.

    ``answers`` are keys, None if unreadable. ``verdicts`` lie in 0..1, NaN if missing. ``solution_tokens`` and
    ``check_tokens`` are generated tokens, 0 for a check that was not run. ``solution_read`` are the prompt tokens read
    once for all solutions; ``check_read`` are those that all checks of a solution read once.
    """

    id: str
    answers: tuple[Hashable, ...]
    correct: npt.NDArray[np.bool_]
    verdicts: Floats
    solution_tokens: Floats
    check_tokens: Floats
    check_read: Floats
    solution_read: float = 0.0
    level: int | None = None

    @cached_property
    def codes(self) -> npt.NDArray[np.int64]:
        """Answers as numbers, -1 if unreadable."""
        numbers = {key: place for place, key in enumerate(dict.fromkeys(k for k in self.answers if k is not None))}
        return np.array([-1 if key is None else numbers[key] for key in self.answers], dtype=np.int64)

    def scores(self, checks: int) -> Floats:
        """Mean of the first ``checks`` verdicts of each solution; 0 if all are missing, or the answer is unreadable.

        A missing verdict does not enter the mean, but was paid, so it uses up one of the checks.
        """
        seen = self.verdicts[:, :checks]
        known = ~np.isnan(seen)
        means = np.where(known, seen, 0.0).sum(1) / np.maximum(known.sum(1), 1)
        return np.where(self.codes >= 0, means, 0.0)


@dataclass(frozen=True)
class Verdicts:
    """Equally many checked solutions of each problem. ``tails`` are the ends of checks without a verdict.

    Raises:
        InputError: there is no problem, problems differ in size, or all verdicts are missing.
    """

    problems: tuple[Checked, ...]
    tails: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.problems:
            raise InputError("problems", 0, "a bank of verdicts needs at least one problem")
        sizes = {problem.verdicts.shape for problem in self.problems}
        if len(sizes) > 1:
            raise InputError("verdicts", sorted(sizes), "every problem needs the same number of solutions and checks")
        if self.checks and all(np.isnan(problem.verdicts).all() for problem in self.problems):
            ends = "; ".join(repr(tail) for tail in self.tails[:3])
            raise InputError("verdicts", "all missing", f"no check ends with a readable verdict; they end: {ends}")

    @property
    def solutions(self) -> int:
        """Number of solutions of each problem."""
        return int(self.problems[0].verdicts.shape[0])

    @property
    def checks(self) -> int:
        """Number of checks of each solution."""
        return int(self.problems[0].verdicts.shape[1])

    @property
    def missing(self) -> float:
        """Share of the checks without a readable verdict."""
        checks = sum(int((p.check_tokens > 0).sum()) for p in self.problems)
        without = sum(int(np.isnan(p.verdicts[p.check_tokens > 0]).sum()) for p in self.problems)
        return without / checks if checks else 0.0

    @property
    def ratio(self) -> float:
        """Mean tokens of a check over mean tokens of a solution (lambda)."""
        checks = np.concatenate([p.check_tokens[p.check_tokens > 0] for p in self.problems])
        return float(checks.mean() / np.concatenate([p.solution_tokens for p in self.problems]).mean())

    def success(self, split: Split, select: str = "weighted", seed: int = 0) -> Floats:
        """The chance per problem that the chosen answer is right, over subsets of its solutions.

        Best-of-n is exact: the mean over all subsets and orders of ties. A vote is the mean over 25 random subsets, the
        same for any number of checks. Ties go to the answer drawn first, and an unreadable answer never wins.

        Raises:
            InputError: there are fewer solutions or checks.
            UnknownNameError: ``select`` is neither ``best_of_n`` nor ``weighted``.
        """
        one_of("select", select, SELECT)
        n, checks = self._within(split)
        if checks and select == "best_of_n":
            return np.array([_best(problem, n, checks) for problem in self.problems])
        weights = [p.scores(checks) if checks else np.ones(self.solutions) for p in self.problems]
        pairs = enumerate(zip(self.problems, weights, strict=True))
        return np.array([_vote(p, w, n, np.random.default_rng([seed, place])) for place, (p, w) in pairs])

    def coverage(self, n: int) -> Floats:
        """The chance per problem that one of ``n`` solutions is right, the accuracy of an oracle."""
        n, _ = self._within((n, 0))
        return np.array([pass_at_k(self.solutions, int(p.correct.sum()), n) for p in self.problems])

    def tokens(self, split: Split, *, read: bool = True) -> Floats:
        """Mean tokens of each problem's subsets: generated ones, and with ``read`` also uncached prompt tokens."""
        n, checks = self._within(split)
        per_solution = [p.solution_tokens.mean() + p.check_tokens[:, :checks].sum(1).mean() for p in self.problems]
        found: Floats = n * np.array(per_solution)
        if read:
            found += np.array([p.solution_read + (n * p.check_read.mean() if checks else 0) for p in self.problems])
        return found

    def _within(self, split: Split) -> Split:
        n, checks = split
        if not (1 <= n <= self.solutions and 0 <= checks <= self.checks):
            limits = f"1 to {self.solutions} solutions with 0 to {self.checks} checks of each"
            raise InputError("split", split, f"the bank holds {limits}")
        return split


def at_random(bank: Verdicts, seed: int = 0) -> Verdicts:
    """A control that permutes the verdicts among the checked solutions of each problem.

    It keeps the verdicts' values, number and cost, and breaks only their relation to the solutions.
    """
    rng = np.random.default_rng(seed)

    def shuffled(problem: Checked) -> Checked:
        checked = np.flatnonzero(problem.check_tokens.any(1))
        verdicts = problem.verdicts.copy()
        verdicts[checked] = problem.verdicts[rng.permutation(checked)]
        return replace(problem, verdicts=verdicts)

    return replace(bank, problems=tuple(map(shuffled, bank.problems)))


def _best(problem: Checked, n: int, checks: int) -> float:
    scores = np.round(problem.scores(checks), 9)
    can_win = [(-float(scores[i]), float(problem.correct[i])) for i in np.flatnonzero(problem.codes >= 0)]
    return expected_best(can_win, len(scores), n)


def _vote(problem: Checked, weights: Floats, n: int, rng: np.random.Generator) -> float:
    draws = 1 if n == len(weights) else SUBSETS
    hits = 0
    for _ in range(draws):
        drawn = rng.permutation(len(weights))[:n]
        drawn = drawn[problem.codes[drawn] >= 0]
        if len(drawn):
            codes = problem.codes[drawn]
            sums = np.round(np.bincount(codes, weights[drawn]), 9)
            hits += bool(problem.correct[drawn[np.argmax(sums[codes])]])
    return hits / draws


def splits(bank: Verdicts, budget: float, ratio: float) -> list[Split]:
    """For each number of checks, the most solutions within a budget, if the bank has as many.

    Args:
        bank: solutions with verdicts.
        budget: the budget in units of one solution.
        ratio: cost of a check over that of a solution (lambda).

    Raises:
        InputError: the budget is below one solution, or the ratio is not positive.
    """
    _positive(ratio)
    if budget < 1:
        raise InputError("budget", budget, "it buys less than one solution")
    found = [(int(budget / cost(1, checks, ratio) + 1e-9), checks) for checks in range(1, bank.checks + 1)]
    return [(n, checks) for n, checks in found if 1 <= n <= bank.solutions]


def budgets(bank: Verdicts, ratio: float) -> list[int]:
    """Budgets in half octaves that the bank covers: from two checked solutions to all solutions, checked once."""
    _positive(ratio)
    least, most = cost(2, 1, ratio), cost(bank.solutions, 1, ratio)
    return [n for n in (round(2 ** (i / 2)) for i in range(2, 64)) if least <= n <= most]


def _positive(ratio: float) -> None:
    if not ratio > 0:
        raise InputError("lambda", ratio, "it must be positive (verification tokens / solution tokens)")


def best_split(bank: Verdicts, options: Sequence[Split], select: str = "weighted") -> Split:
    """The split that is right most often, the first of ties."""
    return max(options, key=lambda split: float(bank.success(split, select).mean()))


@dataclass(frozen=True)
class Law:
    """The best split as power laws of the budget, which is in units of one solution.

    There are ``alpha_s * budget**a`` solutions with ``alpha_v * budget**b`` checks of each.
    """

    alpha_s: Estimate
    a: Estimate
    alpha_v: Estimate
    b: Estimate

    def strategy(self, budget: int, ratio: float, crossover: float = 1.0) -> SolveOrVerify:
        """The strategy that spends a budget by this law."""
        alpha_s, a, alpha_v, b = (each.value for each in (self.alpha_s, self.a, self.alpha_v, self.b))
        return SolveOrVerify(budget, ratio, alpha_s=alpha_s, a=a, alpha_v=alpha_v, b=b, crossover=crossover)


def fit(spent: Sequence[float], options: Sequence[Sequence[Split]], right: Sequence[Floats], seed: int = 0) -> Law:
    """Fit the law of the best splits by least squares in logarithms, with percentiles over resampled problems.

    Args:
        spent: budgets.
        options: the splits with checks at each budget.
        right: by budget, the success of each split (rows) on every problem.
        seed: seed of the resampling.

    Raises:
        InputError: fewer than three budgets have several splits.
    """
    if sum(len(found) > 1 for found in options) < 3:
        raise InputError("budgets", list(spent), "a law needs 3 or more with several splits; enlarge the bank")
    n = right[0].shape[1]
    shares = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), RESAMPLES) / n
    logs = np.empty((2, len(spent), RESAMPLES))
    for place, (found, table) in enumerate(zip(options, right, strict=True)):
        winners = np.argmax(np.round(shares @ table.T, 9), axis=1)
        logs[:, place] = np.log(np.array(found))[winners].T
    x = np.column_stack([np.ones(len(spent)), np.log(spent)])
    (factor_s, a), (factor_v, b) = (np.linalg.lstsq(x, y, rcond=None)[0] for y in logs)
    return Law(_over(factor_s, log=True), _over(a), _over(factor_v, log=True), _over(b))


def _over(draws: Floats, log: bool = False) -> Estimate:
    numbers = np.array([draws.mean(), *np.percentile(draws, [2.5, 97.5])])
    return Estimate(*map(float, np.exp(numbers) if log else numbers))


def crossover(spent: Sequence[float], checked: Sequence[Floats], voted: Sequence[Floats]) -> float | None:
    """The least budget at which the paired interval of checks minus votes is not below 0; None if there is none."""
    for budget, mine, theirs in zip(spent, checked, voted, strict=True):
        if paired_difference(list(mine), list(theirs)).low >= 0:
            return budget
    return None
