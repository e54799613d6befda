"""Published methods, one file each, and the registry that finds them by name.

A strategy is written as ``name``, ``name:option=value,option=value``, or with another strategy inside it:
``name(inner:option=value):option=value``. Another package adds one with an entry point, see `thinktime.plugins`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from inspect import iscoroutinefunction
from typing import Any, get_args, get_type_hints

from thinktime.core.errors import CapabilityError, InputError, UnknownNameError
from thinktime.core.search import Search
from thinktime.core.search import Strategy as Strategy
from thinktime.core.types import Prompt, missing
from thinktime.plugins import installed
from thinktime.strategies.composition.agent_graph import AgentGraph
from thinktime.strategies.composition.aggregate import Aggregate
from thinktime.strategies.composition.archon import Archon
from thinktime.strategies.composition.cascade import Cascade
from thinktime.strategies.composition.delegate import Delegate
from thinktime.strategies.composition.pipeline import Pipeline
from thinktime.strategies.composition.plan_then_solve import PlanThenSolve
from thinktime.strategies.composition.restarts import Restarts
from thinktime.strategies.composition.speculative_reasoning import SpeculativeReasoning
from thinktime.strategies.diffusion.dts import DTS
from thinktime.strategies.diffusion.fk_steering import FKSteering
from thinktime.strategies.diffusion.noise_search import SearchOverPaths, ZeroOrder
from thinktime.strategies.revision.revision import Revision
from thinktime.strategies.revision.self_refine import SelfRefine
from thinktime.strategies.sampling.adaptive_consistency import AdaptiveConsistency
from thinktime.strategies.sampling.adaptive_sampling import AdaptiveSampling
from thinktime.strategies.sampling.best_of_n import BestOfN
from thinktime.strategies.sampling.deepconf import DeepConf, DeepConfOnline
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
from thinktime.strategies.verification.pairwise_tournament import PairwiseTournament
from thinktime.strategies.verification.solve_or_verify import GenerativeVerification, SolveOrVerify

BUILT_IN: dict[str, type[Any]] = {
    "single": Single,
    "best_of_n": BestOfN,
    "majority": Majority,
    "weighted_majority": WeightedMajority,
    "most_likely": MostLikely,
    "summed_probability": SummedProbability,
    "adaptive_consistency": AdaptiveConsistency,
    "length_vote": LengthVote,
    "deepconf": DeepConf,
    "deepconf_online": DeepConfOnline,
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
    "pairwise_tournament": PairwiseTournament,
    "self_refine": SelfRefine,
    "stepwise_best_of_n": StepwiseBestOfN,
    "plan_then_solve": PlanThenSolve,
    "aggregate": Aggregate,
    "speculative_reasoning": SpeculativeReasoning,
    "cascade": Cascade,
    "delegate": Delegate,
    "archon": Archon,
    "agent_graph": AgentGraph,
    "pipeline": Pipeline,
    "restarts": Restarts,
}

DEEPEST = 20
"""Most opening brackets in the text of a strategy, so most strategies inside each other."""
INNER = "inner"
"""The option that holds another strategy; its value is written in brackets after the name."""


def fault(kind: Any) -> str:
    """What makes a class of a package no strategy, in a few words; empty if it is one."""
    if not isinstance(kind, type) or not is_dataclass(kind) or not kind.__dataclass_params__.frozen:  # type: ignore[attr-defined]
        return "it is no frozen dataclass"
    needs = getattr(kind, "needs", None)
    if not isinstance(needs, frozenset) or not all(isinstance(need, str) for need in needs):
        return "it has no needs: a class variable with a frozenset of capabilities"
    if "needs" in (field.name for field in fields(kind)):
        return "its needs are an option; annotate them as ClassVar[frozenset[str]]"
    if not iscoroutinefunction(getattr(kind, "__call__", None)):  # noqa: B004  # what it is, not whether it is
        return "it has no method: async def __call__(self, search)"
    prompts = getattr(kind, "prompts", ())
    if not isinstance(prompts, tuple) or not all(isinstance(prompt, Prompt) for prompt in prompts):
        return "its prompts are no tuple of Prompt"
    return ""


def known() -> dict[str, type[Any]]:
    """Every strategy by name: the built-in ones, and those of installed packages under other names."""
    of_packages = installed("strategies", fault=fault)
    return BUILT_IN | {name: kind for name, kind in of_packages.items() if name not in BUILT_IN}


def find(name: str) -> type[Any]:
    """The strategy of this name.

    Raises:
        UnknownNameError: there is none.
        InputError: the one of an installed package cannot be used.
    """
    if name in BUILT_IN:
        return BUILT_IN[name]
    of_package: dict[str, type[Any]] = installed("strategies", name, fault)
    if not of_package:
        raise UnknownNameError("strategy", name, known())
    return of_package[name]


def options(strategy: type[Any]) -> dict[str, Any]:
    """The options of a strategy with their defaults; a strategy among them is written as text."""
    return {field.name: None if field.default is MISSING else _written(field.default) for field in fields(strategy)}


def settings(strategy: Strategy) -> dict[str, Any]:
    """The options of a configured strategy as JSON values; a strategy among them is written as text."""
    return {name: _written(getattr(strategy, name)) for name in options(type(strategy))}


def spec(strategy: Any) -> str:
    """The text that `parse` reads as this strategy, with the options that differ from their defaults."""
    names = {kind: name for name, kind in BUILT_IN.items()}
    if type(strategy) not in names:
        names = {kind: name for name, kind in known().items()}
    name = names.get(type(strategy), type(strategy).__name__)
    usual = options(type(strategy))
    given = {option: value for option, value in settings(strategy).items() if value != usual[option]}
    inner = f"({given.pop(INNER)})" if INNER in given else ""
    values = ",".join(f"{option}={value}" for option, value in given.items())
    return f"{name}{inner}{':' if values else ''}{values}"


def _written(value: Any) -> Any:
    if isinstance(value, tuple | list):
        return [_written(each) for each in value]
    return spec(value) if is_dataclass(value) else value


def make(name: str, values: Mapping[str, Any] | None = None) -> Strategy:
    """Configure a strategy by name.

    Args:
        name: of a built-in strategy or an installed one.
        values: options; a strategy among them is a configured one or a text that `parse` reads.

    Raises:
        UnknownNameError: there is no such strategy, or it has no such option.
        InputError: an option's value has the wrong type or is out of range.
    """
    kind = find(name)
    types = get_type_hints(kind)
    arguments: dict[str, Any] = {}
    for option, value in (values or {}).items():
        if option == INNER and INNER not in options(kind):
            nesting = ", ".join(sorted(other for other, each in known().items() if INNER in options(each)))
            raise InputError("strategy", f"{name}({value})", f"{name} runs no other strategy; these do: {nesting}")
        if option not in options(kind):
            raise UnknownNameError(f"{name} option", option, options(kind))
        if types[option] is Strategy:
            arguments[option] = parse(value)[1] if isinstance(value, str) else value
            continue
        usual, *others = get_args(types[option]) or (types[option],)
        words = [word for other in others for word in get_args(other)]
        if value in words:
            arguments[option] = value
            continue
        try:
            arguments[option] = usual(value)
            if isinstance(value, int | float) and arguments[option] != value:
                raise ValueError
        except (TypeError, ValueError, OverflowError):
            fix = " or ".join([f"give a value of type {usual.__name__}", *words])
            raise InputError(f"{name}.{option}", value, fix) from None
    strategy: Strategy = kind(**arguments)
    return strategy


def parse(text: str) -> tuple[str, Strategy]:
    """Read ``name``, ``name:option=value,option=value`` or ``name(inner):option=value``.

    The returned name includes the brackets and their content.

    Raises:
        UnknownNameError: there is no such strategy, or it has no such option.
        InputError: a bracket has no partner, an option has no value or a wrong one, the strategy runs no other one, or
            the text has more than `DEEPEST` opening brackets.
    """
    if text.count("(") > DEEPEST:
        raise InputError("strategy", text[:80], f"nest at most {DEEPEST} strategies")
    name, values = split(text)
    strategy = make(name, values)
    return (f"{name}({values[INNER]})" if INNER in values else name), strategy


def split(text: str) -> tuple[str, dict[str, str]]:
    """The name and the options as texts; only the syntax is checked.

    What is in brackets is the option ``inner``.
    """
    name, bracket, rest = text.partition("(") if "(" in text.partition(":")[0] else (text, "", "")
    values: dict[str, str] = {}
    if bracket:
        end = _partner(rest)
        if end is None:
            raise InputError("strategy", text, "close every bracket, as in restarts(beam_search:n=4):n=2")
        inner, rest = rest[:end].strip(), rest[end + 1 :].strip()
        if not inner or (rest and not rest.startswith(":")):
            raise InputError("strategy", text, "write it as name(inner):option=value")
        values[INNER], rest = inner, rest[1:]
    else:
        name, _, rest = text.partition(":")
    if "(" in rest or ")" in name + rest:
        raise InputError("strategy", text, "write brackets after a name, as in restarts(beam_search:n=4):n=2")
    pairs = [pair.partition("=") for pair in rest.split(",") if pair]
    for option, sign, value in pairs:
        if not sign or not value:
            raise InputError("strategy", text, f"write {name}:{option or 'option'}=value")
    return name.strip(), values | {option.strip(): value.strip() for option, _, value in pairs}


def _partner(text: str) -> int | None:
    """The index of the bracket that closes a bracket opened just before this text; None if there is none."""
    depth = 1
    for place, sign in enumerate(text):
        depth += (sign == "(") - (sign == ")")
        if not depth:
            return place
    return None


def listed(text: str) -> list[str]:
    """Strategies separated by commas, options with them: ``majority,a_star:k=2,n_goals=4,ets`` are three.

    Raises:
        InputError: there is none.
    """
    found: list[str] = []
    depth = 0
    for part in text.split(","):
        goes_on = depth or (found and "=" in part and ":" not in part)
        depth += part.count("(") - part.count(")")
        if goes_on:
            found[-1] += f",{part.strip()}"
        elif part.strip():
            found.append(part.strip())
    if not found:
        raise InputError("strategies", text, "name at least one; see `thinktime strategies`")
    return list(dict.fromkeys(found))


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
