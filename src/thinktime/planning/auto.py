"""``auto``: a planner or a calibration chooses the strategy for each problem and budget.

Another package adds a planner with an entry point, see `thinktime.plugins`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from thinktime import plugins
from thinktime.core.errors import UnknownNameError
from thinktime.core.search import Search
from thinktime.core.trace import Answer
from thinktime.core.types import MAIN, missing
from thinktime.strategies import check, find, parse
from thinktime.strategies.composition.delegate import answered
from thinktime.strategies.options import installed

if TYPE_CHECKING:
    from thinktime.planning.bins import Policy
    from thinktime.planning.calibration import Advice

SAMPLES = 16
"""Most samples of a vote without a calibration, and of shipped calibrations; a budget may end it earlier."""


class Planner(Protocol):
    """Chooses a strategy for a search that has not begun."""

    def choose(self, search: Search) -> str:
        """The strategy as text, such as ``majority:n=8``, from the problem, the budget and the capabilities."""
        ...


class Prior:
    """The planner without a calibration: the best-known rule that this model and scorer can run.

    It is a vote weighted by scores. Without a scorer it is a plain vote, without readable answers the sample with the
    best score, and without both a single sample. At temperature 0 all samples are the same, so it is a single sample.
    """

    def choose(self, search: Search) -> str:
        """The first of these strategies that the search can run."""
        if search.sampling.temperature > 0:
            for name in ("weighted_majority", "majority", "best_of_n"):
                if not missing(find(name).needs, search.capabilities):
                    return f"{name}:n={SAMPLES}"
        return "single"


BUILT_IN = {"prior": Prior}


@dataclass(frozen=True)
class Auto:
    """Run the strategy that a planner or a calibration chooses, and log the choice.

    Args:
        planner: ``prior``, which uses no measurements, or the name of a planner of an installed package.
        policy: the calibration that chooses in place of the planner: a file of ``thinktime calibrate``, or the name of
            a shipped one.
    """

    planner: str = "prior"
    policy: str = ""
    needs: ClassVar[frozenset[str]] = frozenset()

    def __post_init__(self) -> None:
        if self.policy:
            installed("auto.policy", self.policy, "numpy")
        self._planner  # noqa: B018  # an unknown name fails here

    @cached_property
    def _planner(self) -> Planner:
        found: Planner | None = BUILT_IN[self.planner]() if self.planner in BUILT_IN else None
        found = found or plugins.made("planners", self.planner)
        if found is None:
            raise UnknownNameError("auto.planner", self.planner, {*BUILT_IN, *plugins.installed("planners")})
        return found

    def validate(self, search: Search) -> None:
        """Refuse a calibration of another model, and a choice that this search cannot run."""
        texts = self._advice(search).strategies if self.policy else (self._planner.choose(search),)
        for text in texts:
            check(*parse(text), search)

    async def __call__(self, search: Search) -> Answer:
        """Choose a strategy, log the choice and its reason, and run the strategy.

        A policy by difficulty first draws some samples. A strategy of independent samples begins with them.
        """
        if not self.policy:
            text = self._planner.choose(search)
            search.log(planner=self.planner, strategy=text)
            return await parse(text)[1](search)
        advice = self._advice(search)
        if advice.policy is not None:
            return await self._by_first_samples(search, advice.policy, advice.reason)
        search.log(planner=self.policy, strategy=advice.arm.strategy, reason=advice.reason)
        return await parse(advice.arm.strategy)[1](search)

    async def _by_first_samples(self, search: Search, policy: Policy, reason: str) -> Answer:
        """Draw the first samples, log the strategy of their bin, and run it.

        A delegated strategy samples in a search inside this one, so the first samples of another model are drawn there.
        """
        from thinktime.planning.arms import begins_with, own_of

        role = policy.bins.model
        text = ""

        async def first(inner: Search) -> Answer:
            nonlocal text
            text, seen = await _bin_of(inner, policy)
            search.log(planner=self.policy, strategy=text, reason=reason, **seen)
            if not begins_with(text, role):
                return Answer(None, "incomplete", inner.ledger.spent)
            inner.rewind()
            return await parse(own_of(text))[1](inner)

        if role == MAIN:
            answer = await first(search)
        else:
            answer = await search.run(_Inside(first), model=role)
        if not begins_with(text, role):
            return await parse(text)[1](search)
        return answer if role == MAIN else answered(search, answer)

    def _advice(self, search: Search) -> Advice:
        from thinktime.planning.calibration_files import advise, policy  # they need numpy

        policy(self.policy).refuse_other(search)
        return advise(self.policy, search.ledger.budget, search.capabilities)


@dataclass(frozen=True)
class _Inside:
    """A function as a strategy."""

    work: Callable[[Search], Awaitable[Answer]]
    needs: ClassVar[frozenset[str]] = frozenset()

    async def __call__(self, search: Search) -> Answer:
        return await self.work(search)


async def _bin_of(search: Search, policy: Policy) -> tuple[str, dict[str, Any]]:
    """The strategy of the bin of this problem, and what is logged of the choice.

    Without the signal, or without any sample within the budget, the problem counts as hard.
    """
    from thinktime.bench.signals import signals

    bins = policy.bins
    first = await search.extend([search.root], bins.samples)
    value = signals(search, first).get(bins.signal, 0.0)
    number = bins.place(value)
    drawn_by = {} if bins.model == MAIN else {"first_model": bins.model}
    seen = {"bin": bins.name(number), bins.signal: value, "first_samples": len(first), **drawn_by}
    return policy.strategies[number], seen
