"""Published methods, one file each, and the registry that finds them by name.

Another package adds a strategy with an entry point in the group ``thinktime.strategies``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, fields
from importlib.metadata import entry_points
from typing import Any, ClassVar, Protocol, get_args, get_type_hints

from thinktime.core.errors import CapabilityError, InputError, UnknownNameError
from thinktime.core.search import Search
from thinktime.core.trace import Answer
from thinktime.core.types import Prompt, missing
from thinktime.strategies.composition.aggregate import Aggregate
from thinktime.strategies.composition.plan_then_solve import PlanThenSolve
from thinktime.strategies.diffusion.dts import DTS
from thinktime.strategies.diffusion.fk_steering import FKSteering
from thinktime.strategies.diffusion.noise_search import SearchOverPaths, ZeroOrder
from thinktime.strategies.revision.revision import Revision
from thinktime.strategies.revision.self_refine import SelfRefine
from thinktime.strategies.sampling.adaptive_consistency import AdaptiveConsistency
from thinktime.strategies.sampling.adaptive_sampling import AdaptiveSampling
from thinktime.strategies.sampling.best_of_n import BestOfN
from thinktime.strategies.sampling.early_pruning import EarlyPruning
from thinktime.strategies.sampling.first_finish import FirstFinish
from thinktime.strategies.sampling.length_vote import LengthVote
from thinktime.strategies.sampling.likelihood import MostLikely, SummedProbability
from thinktime.strategies.sampling.majority import Majority
from thinktime.strategies.sampling.single import Single
from thinktime.strategies.sampling.weighted_majority import WeightedMajority
from thinktime.strategies.search.a_star import AStar
from thinktime.strategies.search.beam_search import BeamSearch
from thinktime.strategies.search.best_first import BestFirst
from thinktime.strategies.search.dvts import DVTS
from thinktime.strategies.search.early_rejection import EarlyRejection
from thinktime.strategies.search.ets import ETS
from thinktime.strategies.search.mcts import MCTS
from thinktime.strategies.search.particle_filter import ParticleFilter
from thinktime.strategies.search.rebase import Rebase
from thinktime.strategies.search.stepwise_best_of_n import StepwiseBestOfN
from thinktime.strategies.verification.generative_reward import GenerativeReward
from thinktime.strategies.verification.solve_or_verify import GenerativeVerification, SolveOrVerify


class Strategy(Protocol):
    """A configured method: a frozen dataclass of its options that runs on a search."""

    needs: ClassVar[frozenset[str]]

    async def __call__(self, search: Search) -> Answer:
        """Spend the search's budget and answer."""
        ...


BUILT_IN: dict[str, type[Any]] = {
    "single": Single,
    "best_of_n": BestOfN,
    "majority": Majority,
    "weighted_majority": WeightedMajority,
    "most_likely": MostLikely,
    "summed_probability": SummedProbability,
    "adaptive_consistency": AdaptiveConsistency,
    "length_vote": LengthVote,
    "first_finish": FirstFinish,
    "beam_search": BeamSearch,
    "dvts": DVTS,
    "rebase": Rebase,
    "ets": ETS,
    "best_first": BestFirst,
    "a_star": AStar,
    "mcts": MCTS,
    "particle_filter": ParticleFilter,
    "fk_steering": FKSteering,
    "dts": DTS,
    "zero_order": ZeroOrder,
    "search_over_paths": SearchOverPaths,
    "early_rejection": EarlyRejection,
    "adaptive_sampling": AdaptiveSampling,
    "early_pruning": EarlyPruning,
    "revision": Revision,
    "generative_verification": GenerativeVerification,
    "solve_or_verify": SolveOrVerify,
    "generative_reward": GenerativeReward,
    "self_refine": SelfRefine,
    "stepwise_best_of_n": StepwiseBestOfN,
    "plan_then_solve": PlanThenSolve,
    "aggregate": Aggregate,
}


def known() -> dict[str, type[Any]]:
    """Every strategy by name: the built-in ones and those of installed packages."""
    return BUILT_IN | {point.name: point.load() for point in entry_points(group="thinktime.strategies")}


def find(name: str) -> type[Any]:
    """The strategy of this name.

    Raises:
        UnknownNameError: there is none.
    """
    strategies = known()
    if name not in strategies:
        raise UnknownNameError("strategy", name, strategies)
    return strategies[name]


def options(strategy: type[Any]) -> dict[str, Any]:
    """The options of a strategy with their defaults."""
    return {field.name: None if field.default is MISSING else field.default for field in fields(strategy)}


def make(name: str, values: Mapping[str, str | int | float] | None = None) -> Strategy:
    """Configure a strategy by name.

    Raises:
        UnknownNameError: there is no such strategy, or it has no such option.
        InputError: an option's value has the wrong type or is out of range.
    """
    kind = find(name)
    types = get_type_hints(kind)
    arguments: dict[str, Any] = {}
    for option, value in (values or {}).items():
        if option not in options(kind):
            raise UnknownNameError(f"{name} option", option, options(kind))
        usual, *others = get_args(types[option]) or (types[option],)
        words = [word for other in others for word in get_args(other)]
        if value in words:
            arguments[option] = value
            continue
        try:
            arguments[option] = usual(value)
            if isinstance(value, int | float) and arguments[option] != value:
                raise ValueError
        except (ValueError, OverflowError):
            fix = " or ".join([f"give a value of type {usual.__name__}", *words])
            raise InputError(f"{name}.{option}", value, fix) from None
    strategy: Strategy = kind(**arguments)
    return strategy


def parse(text: str) -> tuple[str, Strategy]:
    """Read ``name`` or ``name:option=value,option=value``."""
    name, values = split(text)
    return name, make(name, values)


def split(text: str) -> tuple[str, dict[str, str]]:
    """The name and the options that `parse` reads, nothing of them checked but how they are written."""
    name, _, rest = text.partition(":")
    pairs = [pair.partition("=") for pair in rest.split(",") if pair]
    for option, sign, value in pairs:
        if not sign or not value:
            raise InputError("strategy", text, f"write {name}:{option or 'option'}=value")
    return name, {option.strip(): value.strip() for option, _, value in pairs}


def prompts() -> dict[str, Prompt]:
    """The prompts of all strategies by name."""
    owned = (getattr(kind, "prompts", ()) for kind in known().values())
    return {prompt.name: prompt for some in owned for prompt in some}


def check(name: str, strategy: Strategy, search: Search) -> None:
    """Refuse a strategy that this search cannot run, before anything is spent.

    Its needs are compared with what the search offers (see `require`); then its own ``validate(search)`` runs, if it
    has one.

    Raises:
        CapabilityError: a need is not met.
        InputError: an option does not fit this search.
    """
    require(name, strategy, search.capabilities)
    validate = getattr(strategy, "validate", None)
    if validate is not None:
        validate(search)


def require(name: str, strategy: Strategy, offered: frozenset[str]) -> None:
    """Refuse a strategy whose needs are not offered.

    Raises:
        CapabilityError: names what is missing and the strategies that would work, first those that share most of
            this one's needs.
    """
    lacking = missing(strategy.needs, offered)
    if lacking:
        runnable = {other: kind.needs for other, kind in known().items() if not missing(kind.needs, offered)}
        nearest = sorted(runnable, key=lambda other: (-len(runnable[other] & strategy.needs), other))
        raise CapabilityError(
            f"strategy={name!r}: it needs {', '.join(sorted(lacking))}, which this model or scorer does not have; "
            f"what would work, the nearest first: {', '.join(nearest)}"
        )
