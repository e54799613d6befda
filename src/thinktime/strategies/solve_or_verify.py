"""When to solve, when to verify (Singhi et al. 2025, arXiv 2504.01005).

A generative verifier writes a check of a solution and ends with a verdict; the mean of several verdicts is the
solution's score. Whether a token is better spent on another solution or on another check is decided by a law whose
exponents the paper publishes and whose factors have to be fitted for the model at hand
(`thinktime.bench.verification`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from thinktime.core.errors import CapabilityError, InputError
from thinktime.core.search import Search
from thinktime.core.selection import best, majority, weighted_majority
from thinktime.core.trace import Answer
from thinktime.core.types import Capability, Node, Prompt
from thinktime.prompts.common import CHECK
from thinktime.strategies.options import above, at_least, not_below, one_of

VERDICTS = ("hybrid", "logprob", "text")
INTEGER: dict[str, Callable[[float], int]] = {"round": round, "floor": math.floor}
SELECT = {"best_of_n": best, "weighted": weighted_majority}


def cost(solutions: float, checks: float, ratio: float) -> float:
    """Of so many solutions with so many checks each, in solutions; ``ratio`` is tokens of a check over a solution's."""
    return solutions * (1 + ratio * checks)


@dataclass(frozen=True)
class GenerativeVerification:
    """``n`` solutions with ``checks`` checks each; without any, a majority vote.

    Args:
        n: solutions.
        checks: checks of each solution, sampled at the search's temperature.
        select: ``best_of_n`` by mean verdict, or ``weighted``: a vote with mean verdicts as weights.
        verdict: what a check says: yes or no as its ``text`` has it, the probability of yes (``logprob``), or
            ``hybrid``: the probability where the scorer gives one, else the text.
    """

    n: int = 16
    checks: int = 4
    select: str = "weighted"
    verdict: str = "hybrid"
    prompts: ClassVar[tuple[Prompt, ...]] = (CHECK,)
    needs: ClassVar[frozenset[str]] = frozenset({CHECK.capability, Capability.ANSWERS})

    def __post_init__(self) -> None:
        at_least("n", self.n, 1)
        at_least("checks", self.checks, 0)
        one_of("select", self.select, SELECT)
        one_of("verdict", self.verdict, VERDICTS)

    async def __call__(self, search: Search) -> Answer:
        offered = Capability.VERDICTS in search.capabilities
        if self.verdict == "logprob" and not offered:
            raise CapabilityError(
                f"generative_verification: verdict='logprob' needs {Capability.VERDICTS}; give verdict=text"
            )
        leaves = await search.extend([search.root], self.n)
        by = self.verdict if offered else "text"
        verdicts = await verify(search, leaves, self.checks, by) if self.checks else []
        if not any(verdicts):
            return search.finish(majority(search.candidates(leaves)))
        means = [sum(found) / len(found) if found else 0.0 for found in verdicts]
        search.log(verdicts=verdicts)
        return search.finish(SELECT[self.select](search.candidates(leaves, means)))


async def verify(search: Search, solutions: Sequence[Node], checks: int, by: str = "text") -> list[list[float]]:
    """The verdicts on each solution, those that could not be read left out; ``by`` is one of `VERDICTS`."""
    roots = [search.ask(CHECK, [leaf]) if leaf.done else None for leaf in solutions]
    replies = await search.extend([root for root in roots if root is not None], checks)
    ended = [reply for reply in replies if reply.done]
    sure = dict(zip(ended, await search.score(ended), strict=True)) if by != "text" else {}
    verdicts: dict[Node | None, list[float]] = {}
    for reply in ended:
        said = sure.get(reply)
        if said is None and by != "logprob":
            said = search.read(CHECK, reply)
        verdicts.setdefault(reply.parent, []).extend([] if said is None else [said])
    search.log(checks=len(replies), missing=len(replies) - sum(map(len, verdicts.values())))
    return [verdicts.get(root, []) if root is not None else [] for root in roots]


@dataclass(frozen=True)
class SolveOrVerify:
    """Turns a budget into solutions and checks by the fitted law, and runs `GenerativeVerification`.

    Args:
        n: the budget, in solutions.
        ratio: tokens of a check over tokens of a solution (lambda).
        alpha_s: factor of the law for solutions, ``alpha_s * n ** a``; 0 is not fitted.
        a: its exponent.
        alpha_v: factor of the law for checks, ``alpha_v * n ** b``; 0 is not fitted.
        b: its exponent.
        crossover: budgets below it are all spent on solutions.
        integer: how the law's numbers become whole ones, ``round`` or ``floor``.
    """

    n: int = 16
    ratio: float = 1.0
    alpha_s: float = 0.0
    a: float = 0.57
    alpha_v: float = 0.0
    b: float = 0.39
    crossover: float = 1.0
    integer: str = "round"
    needs: ClassVar[frozenset[str]] = GenerativeVerification.needs

    def __post_init__(self) -> None:
        at_least("n", self.n, 1)
        if not 0 < self.ratio < math.inf:
            fix = "give a number above 0: lambda must be positive (verification tokens / solution tokens)"
            raise InputError("ratio", self.ratio, fix)
        for name in ("alpha_s", "alpha_v"):
            not_below(name, getattr(self, name), 0)
        for name in ("a", "b"):  # a fit may say that larger budgets want fewer checks
            if not math.isfinite(getattr(self, name)):
                raise InputError(name, getattr(self, name), "give a finite number")
        above("crossover", self.crossover, 0)
        one_of("integer", self.integer, INTEGER)

    async def __call__(self, search: Search) -> Answer:
        solutions, checks = self.split()
        search.log(solutions=solutions, checks=checks)
        return await GenerativeVerification(solutions, checks)(search)

    def split(self) -> tuple[int, int]:
        """Solutions, and checks of each, within the budget.

        Raises:
            InputError: the law's factors are not known.
        """
        if self.n < self.crossover:
            return self.n, 0
        if not (self.alpha_s and self.alpha_v):
            raise InputError("alpha_s", self.alpha_s, "fit the allocator first, or pass alpha_s and alpha_v")
        whole = INTEGER[self.integer]
        solutions, checks = whole(self.alpha_s * self.n**self.a), whole(self.alpha_v * self.n**self.b)
        if checks < 1 or solutions < 1:
            return self.n, 0
        if (spent := cost(solutions, checks, self.ratio)) > self.n:
            shrink = math.sqrt(self.n / spent)
            solutions, checks = int(solutions * shrink), int(checks * shrink)
        if checks < 1 or solutions < 1:
            return self.n, 0
        return max(solutions, int(self.n / cost(1, checks, self.ratio))), checks
