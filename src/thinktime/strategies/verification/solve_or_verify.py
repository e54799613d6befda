"""When to solve, when to verify (Singhi et al. 2025, arXiv 2504.01005).

A generative verifier writes a check of a solution and ends with a verdict; the mean of several verdicts is the
solution's score. A law says how to split a budget between solutions and checks. The paper publishes its exponents; its
factors have to be fitted for each model (`thinktime.planning.verification`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from thinktime.core.errors import CapabilityError, InputError, ModelError, check_number
from thinktime.core.search import Search, refuse_copies
from thinktime.core.selection import best, majority, weighted_majority
from thinktime.core.trace import Answer
from thinktime.core.types import Capability, Node, Prompt
from thinktime.prompts.common import CHECK
from thinktime.prompts.turns import quoted
from thinktime.strategies.options import UNREADABLE, above, at_least, not_below, one_of

VERDICTS = ("hybrid", "logprob", "text")
INTEGER: dict[str, Callable[[float], int]] = {"round": round, "floor": math.floor}
SELECT = {"best_of_n": best, "weighted": weighted_majority}


def cost(solutions: float, checks: float, ratio: float) -> float:
    """The cost of a split, in units of one solution; ``ratio`` is tokens per check over tokens per solution."""
    return solutions * (1 + ratio * checks)


@dataclass(frozen=True)
class GenerativeVerification:
    """``n`` solutions with ``checks`` checks each; a majority vote if there are no checks, or if all verdicts are 0.

    Args:
        n: solutions.
        checks: checks of each solution, sampled at the search's temperature.
        select: ``best_of_n`` by mean verdict, or ``weighted``: a vote with mean verdicts as weights.
        verdict: how a check is read: yes or no in its ``text``, the probability of yes (``logprob``), or ``hybrid``:
            the probability if the scorer gives one, else the text.
        unreadable: if checks ended and none can be read, ``raise`` a `ModelError` that quotes three, or answer by
            ``plurality``.
    """

    n: int = 16
    checks: int = 4
    select: str = "weighted"
    verdict: str = "hybrid"
    unreadable: str = "raise"
    prompts: ClassVar[tuple[Prompt, ...]] = (CHECK,)
    needs: ClassVar[frozenset[str]] = frozenset({CHECK.capability, Capability.ANSWERS})

    def __post_init__(self) -> None:
        at_least("n", self.n, 1)
        at_least("checks", self.checks, 0)
        one_of("select", self.select, SELECT)
        one_of("verdict", self.verdict, VERDICTS)
        one_of("unreadable", self.unreadable, UNREADABLE)

    def validate(self, search: Search) -> None:
        if self.verdict == "logprob" and Capability.VERDICTS not in search.capabilities:
            raise CapabilityError(
                f"generative_verification: verdict='logprob' needs {Capability.VERDICTS}; give verdict=text"
            )
        if search.sampling.temperature == 0:
            refuse_copies(max(self.n, self.checks))

    async def __call__(self, search: Search) -> Answer:
        leaves = await search.extend([search.root], self.n)
        if not self.checks:
            return search.finish(majority(search.candidates(leaves)))
        offered = Capability.VERDICTS in search.capabilities
        by = "text" if self.verdict == "hybrid" and not offered else self.verdict
        verdicts, unreadable = await verify(search, leaves, self.checks, by)
        if unreadable and not any(verdicts) and not search.exhausted and self.unreadable == "raise":
            raise ModelError(
                f"generative_verification: none of {len(unreadable)} checks ends with a verdict; "
                f"they end {quoted([reply.state for reply in unreadable[:3]])}; take a model that checks, or "
                f"unreadable=plurality"
            )
        search.log(verdicts=verdicts)
        candidates = search.candidates(leaves, [sum(found) / len(found) if found else 0.0 for found in verdicts])
        approved = any(candidate.score for candidate in candidates if candidate.answer is not None)
        select = SELECT[self.select] if approved else majority
        return search.finish(select(candidates))


async def verify(
    search: Search, solutions: Sequence[Node], checks: int, by: str = "text"
) -> tuple[list[list[float]], list[Node]]:
    """The readable verdicts on each solution, and the checks that ended without one; ``by`` is one of `VERDICTS`."""
    roots = [search.ask(CHECK, [leaf]) if leaf.done else None for leaf in solutions]
    replies = await search.extend([root for root in roots if root is not None], checks)
    ended = [reply for reply in replies if reply.done]
    probabilities = dict(zip(ended, await search.score(ended), strict=True)) if by != "text" else {}
    verdicts: dict[Node | None, list[float]] = {}
    unreadable = []
    for reply in ended:
        verdict = probabilities.get(reply)
        if verdict is None and by != "logprob":
            verdict = search.read(CHECK, reply)
        if verdict is None:
            unreadable.append(reply)
        else:
            verdicts.setdefault(reply.parent, []).append(verdict)
    search.log(checks=len(replies), missing=len(replies) - sum(map(len, verdicts.values())))
    return [verdicts.get(root, []) if root is not None else [] for root in roots], unreadable


@dataclass(frozen=True)
class SolveOrVerify:
    """Turns a budget into solutions and checks by the fitted law, and runs `GenerativeVerification`.

    Args:
        n: the budget, in units of one solution.
        ratio: tokens per check over tokens per solution (lambda).
        alpha_s: factor of the law for solutions, ``alpha_s * n ** a``; 0 is not fitted.
        a: its exponent.
        alpha_v: factor of the law for checks, ``alpha_v * n ** b``; 0 is not fitted.
        b: its exponent.
        crossover: smaller budgets are spent on solutions alone.
        integer: how the law's numbers become whole ones, ``round`` or ``floor``.
        unreadable: as in `GenerativeVerification`.
    """

    n: int = 16
    ratio: float = 1.0
    alpha_s: float = 0.0
    a: float = 0.57
    alpha_v: float = 0.0
    b: float = 0.39
    crossover: float = 1.0
    integer: str = "round"
    unreadable: str = "raise"
    prompts: ClassVar[tuple[Prompt, ...]] = GenerativeVerification.prompts
    needs: ClassVar[frozenset[str]] = GenerativeVerification.needs

    def __post_init__(self) -> None:
        at_least("n", self.n, 1)
        check_number("ratio", self.ratio)
        if not 0 < self.ratio < math.inf:
            fix = "give a number above 0: lambda must be positive (verification tokens / solution tokens)"
            raise InputError("ratio", self.ratio, fix)
        for name in ("alpha_s", "alpha_v"):
            not_below(name, getattr(self, name), 0)
        for name in ("a", "b"):  # a fit may say that larger budgets want fewer checks
            check_number(name, getattr(self, name))
            if not math.isfinite(getattr(self, name)):
                raise InputError(name, getattr(self, name), "give a finite number")
        above("crossover", self.crossover, 0)
        one_of("integer", self.integer, INTEGER)
        one_of("unreadable", self.unreadable, UNREADABLE)

    def validate(self, search: Search) -> None:
        self._verification().validate(search)

    async def __call__(self, search: Search) -> Answer:
        verification = self._verification()
        search.log(solutions=verification.n, checks=verification.checks)
        return await verification(search)

    def _verification(self) -> GenerativeVerification:
        solutions, checks = self.split()
        return GenerativeVerification(solutions, checks, unreadable=self.unreadable)

    def split(self) -> tuple[int, int]:
        """Number of solutions, and of checks of each, within the budget.

        Raises:
            InputError: the law's factors are not known.
        """
        if self.n < self.crossover:
            return self.n, 0
        if not (self.alpha_s and self.alpha_v):
            raise InputError("alpha_s", self.alpha_s, "fit the allocator first, or pass alpha_s and alpha_v")
        whole = INTEGER[self.integer]
        solutions, checks = whole(self.alpha_s * self.n**self.a), whole(self.alpha_v * self.n**self.b)
        if (spent := cost(solutions, checks, self.ratio)) > self.n:
            shrink = math.sqrt(self.n / spent)
            solutions, checks = int(solutions * shrink), int(checks * shrink)
        if checks < 1 or solutions < 1:
            return self.n, 0
        return max(solutions, int(self.n / cost(1, checks, self.ratio))), checks
