"""``auto``: a planner chooses the strategy for each problem and budget.

Another package adds a planner with an entry point, see `thinktime.plugins`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Protocol

from thinktime import plugins
from thinktime.core.errors import UnknownNameError
from thinktime.core.search import Search, Strategy
from thinktime.core.trace import Answer
from thinktime.core.types import missing
from thinktime.strategies import check, find, parse

SAMPLES = 16
"""Most samples of a vote without a calibration; a budget may end it earlier."""


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
    """Run the strategy that a planner chooses, and log the choice.

    Args:
        planner: ``prior``, which uses no measurements, or the name of a planner of an installed package.

    Raises:
        UnknownNameError: there is no such planner.
    """

    planner: str = "prior"
    needs: ClassVar[frozenset[str]] = frozenset()

    def __post_init__(self) -> None:
        self._planner  # noqa: B018  # an unknown name fails here

    @cached_property
    def _planner(self) -> Planner:
        found: Planner | None = BUILT_IN[self.planner]() if self.planner in BUILT_IN else None
        found = found or plugins.made("planners", self.planner)
        if found is None:
            raise UnknownNameError("auto.planner", self.planner, {*BUILT_IN, *plugins.installed("planners")})
        return found

    def validate(self, search: Search) -> None:
        """Refuse a choice that this search cannot run."""
        check(*self._choice(search), search)

    async def __call__(self, search: Search) -> Answer:
        """Choose a strategy, log the choice, and run the strategy."""
        name, strategy = self._choice(search)
        search.log(planner=self.planner, strategy=name)
        return await strategy(search)

    def _choice(self, search: Search) -> tuple[str, Strategy]:
        text = self._planner.choose(search)
        return text, parse(text)[1]
