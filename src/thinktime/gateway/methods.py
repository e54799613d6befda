"""Reads the method that a request names: in the model's name, in a field of the body, or in a header.

``majority:n=8@4000tok/qwen3-8b`` is a vote of 8 samples of ``qwen3-8b`` within 4,000 tokens. The header ``X-Thinktime``
takes the same without the model, and the body takes ``{"strategy": "majority", "n": 8, "budget": "4000tok"}``.
Every method accepts the option ``thinking_tokens=500``, which limits the thinking of each sample.
Names of optillm (``bon-qwen3-8b``, ``optillm_approach``) work for the methods that this package has.
"""

from __future__ import annotations

import math
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cache, lru_cache
from string import Formatter
from typing import Any, cast

from thinktime import strategies
from thinktime.core.errors import InputError, UnknownNameError
from thinktime.core.types import Prompt
from thinktime.core.usage import Budget
from thinktime.gateway.config import refuse_role
from thinktime.gateway.limits import NAME
from thinktime.planning.auto import SAMPLES, Auto
from thinktime.prompts.templates import overridden
from thinktime.strategies import Strategy
from thinktime.strategies.composition.archon import Archon
from thinktime.strategies.sampling.single import Single

HEADER = "x-thinktime"
ROLES = 8
"""Most roles that a request may name, of models and of scorers each."""
LONGEST = 1_000
"""Most characters of a method."""
WORDS, FIELDS = 10_000, 8
"""Most characters of a prompt in a client's words, and most fields in it; a field may hold a whole request."""
EXAMPLE = '{"strategy": "majority", "n": 8, "budget": {"tokens": 4000}}'
OPTILLM = {
    "none": "single",
    "bon": "best_of_n:n=3",
    "self_consistency": "majority:n=5",
    "majority_voting": "majority:n=8",
}
"""Approaches of optillm that this package has, with optillm's defaults."""
ELSEWHERE = (
    *("mcts", "moa", "rto", "z3", "cot_reflection", "plansearch", "leap", "rstar", "re2", "cepo", "pvg", "mars"),
    *("autothink", "deepthink", "deepconf", "genselect", "thinkdeeper", "spl", "router", "proxy"),
)
"""Approaches of optillm that this package lacks."""

Listing = Callable[[], Awaitable[Sequence[str]]]


@dataclass(frozen=True)
class Method:
    """A strategy with its options and its budget."""

    name: str
    strategy: Strategy
    budget: Budget
    thinking_tokens: int | None = None
    """Most tokens that a sample may think; None is no limit."""
    models: Mapping[str, str] = field(default_factory=dict)
    """Models of the upstream by role, beside ``main``, which is the model of the request."""
    scorers: Mapping[str, str] = field(default_factory=dict)
    """Models of the upstream that judge, by role."""
    prompts: Mapping[str, Prompt] = field(default_factory=dict)
    """Prompts by name in the client's words."""

    @property
    def options(self) -> dict[str, Any]:
        """The strategy's options by name."""
        return strategies.settings(self.strategy)

    @property
    def one_sample(self) -> bool:
        """Whether it draws exactly one sample, whose tokens can be streamed as they come."""
        return isinstance(self.strategy, Single) or (
            self.options.get("n") == 1 and strategies.INNER not in self.options
        )

    @property
    def samples(self) -> int:
        """The option ``n`` (1 where there is none, and the most of ``auto``), times that of the strategy inside."""
        return samples_of(self.strategy)


def samples_of(strategy: Any) -> int:
    """As `Method.samples`."""
    samples = 1
    while strategy is not None:
        samples *= _most_samples(strategy)
        strategy = getattr(strategy, strategies.INNER, None)
    return samples


async def method_of(body: Mapping[str, Any], header: str | None, listing: Listing) -> tuple[Method | None, str]:
    """The method that a request names (None if it names none), and the upstream's model.

    Args:
        body: the JSON body.
        header: the value of ``X-Thinktime``.
        listing: returns the names of the upstream's models; called only if a name is ambiguous.

    Raises:
        InputError: the method, option or limit is unknown, or the request names two methods.
    """
    model = body.get("model")
    if not isinstance(model, str) or not model:
        fix = "name a model of the upstream, or a method and a model: majority/NAME"
        raise InputError("model", model, fix)
    in_name, rest = await _in_name(model, listing)
    if len(rest) > NAME:
        raise InputError("model", rest, f"write at most {NAME} characters")
    found = [
        in_name,
        None if header is None else parse(header),
        _in_field(body["thinktime"]) if body.get("thinktime") is not None else None,
        _approach(body["optillm_approach"]) if body.get("optillm_approach") is not None else None,
    ]
    named = [method for method in found if method is not None]
    if len(named) > 1:
        raise InputError("thinktime", named[1].name, "name the method once: in the model, a header or the body")
    return (named[0] if named else None), rest


@lru_cache(maxsize=1024)  # the search for installed strategies is the slowest part of a request
def parse(text: str) -> Method:
    """Parse ``name``, ``name:option=value``, ``name@budget``, or ``name:option=value@budget``.

    Raises:
        InputError: the strategy, option or limit is unknown.
    """
    if len(text) > LONGEST:
        raise InputError("strategy", text, f"write at most {LONGEST} characters")
    head, at, limits = text.strip().partition("@")
    name, values = strategies.split(head)
    thinking = _thinking(values)
    return Method(name, _of_client(name, values), Budget.parse(limits) if at else Budget(), thinking)


async def _in_name(model: str, listing: Listing) -> tuple[Method | None, str]:
    head, _, rest = model.partition("/")
    if rest:
        name = re.split("[:@(]", head)[0]
        if name in _names() and head.endswith("="):
            fix = "an option has no / here; files are not read, and other values go into the field thinktime"
            raise InputError("model", model, fix)
        if "@" in head or name in _names():
            return parse(head), rest
        models = await listing()
        if rest in models and model not in models:
            raise UnknownNameError("strategy", name, _names())
        return None, model
    if re.split("[:@(]", model)[0] in _names() and model not in await listing():
        raise InputError("model", model, f"name the model after the method: {model}/NAME")
    for approach in (*OPTILLM, *ELSEWHERE):
        rest = model.removeprefix(f"{approach}-")
        if rest not in ("", model) and model not in await listing():
            return _approach(approach), rest
    return None, model


def _approach(name: object) -> Method:
    """A method by its name in optillm."""
    if not isinstance(name, str) or name not in OPTILLM:
        raise InputError(
            "optillm_approach", name, f"optillm's names: {', '.join(OPTILLM)}; ours: {', '.join(_names())}"
        )
    return parse(OPTILLM[name])


def _in_field(value: object) -> Method:
    if not isinstance(value, Mapping):
        raise InputError("thinktime", value, f"give an object: {EXAMPLE}")
    options = dict(value)
    name, limits = options.pop("strategy", None), options.pop("budget", None)
    models, scorers = _roles("models", options.pop("models", {})), _roles("scorers", options.pop("scorers", {}))
    prompts = _prompts(options.pop("prompts", {}))
    if not isinstance(name, str):
        raise InputError("thinktime.strategy", name, f"name one of: {', '.join(_names())}")
    method = parse(name)
    for option, setting in options.items():
        if isinstance(setting, bool) or not isinstance(setting, str | int | float):
            raise InputError(f"thinktime.{option}", setting, "give a number or a word")
        if len(option) + len(str(setting)) > LONGEST:
            raise InputError(f"thinktime.{option}", setting, f"write at most {LONGEST} characters")
    _, written = strategies.split(name.partition("@")[0])
    options = written | options
    thinking = _thinking(options)
    strategy = _made(method.name, tuple(options.items()))
    budget = method.budget if limits is None else _budget(limits)
    return Method(method.name, strategy, budget, thinking, models, scorers, prompts)


def _roles(kind: str, value: object) -> Mapping[str, str]:
    where = f"thinktime.{kind}"
    if not isinstance(value, Mapping) or len(value) > ROLES:
        raise InputError(where, value, f'give an object of at most {ROLES} roles: {{"draft": "MODEL"}}')
    for role, model in value.items():
        refuse_role(where, role)
        if not isinstance(model, str) or not 0 < len(model) <= NAME:
            raise InputError(f"{where}.{role}", model, f"name a model of the upstream, in {NAME} characters")
    return value


def _prompts(value: object) -> dict[str, Prompt]:
    if not isinstance(value, Mapping):
        raise InputError("thinktime.prompts", value, 'give an object of texts: {"check": "…{answer}…"}')
    known = _known_prompts()
    found: dict[str, Prompt] = {}
    for name, words in value.items():
        if name not in known:
            raise UnknownNameError("thinktime.prompts", name, known)
        where = f"thinktime.prompts.{name}"
        if not isinstance(words, str) or not 0 < len(words) <= WORDS:
            raise InputError(where, words, f"give a text of at most {WORDS} characters")
        try:
            found |= overridden(known, {name: words})
        except InputError as error:
            raise InputError(where, error.value, error.fix) from None
        if sum(name is not None for _, name, _, _ in Formatter().parse(words)) > FIELDS:
            raise InputError(where, words, f"write at most {FIELDS} fields in it")
    return found


def _thinking(options: dict[str, Any]) -> int | None:
    """Remove the cap on thinking from a method's options, and return it."""
    value = options.pop("thinking_tokens", None)
    if value is None:
        return None
    try:
        tokens = int(value)
        if tokens < 0 or (isinstance(value, float) and tokens != value):
            raise ValueError
    except (ValueError, OverflowError):
        raise InputError("thinking_tokens", value, "give a whole number, 0 or more") from None
    return tokens


def _most_samples(strategy: Any) -> int:
    """The option ``n`` or what stands for it, without that of the strategy inside."""
    if isinstance(strategy, Archon):
        return strategy.calls
    return SAMPLES if isinstance(strategy, Auto) else getattr(strategy, "n", 1)


@lru_cache(maxsize=1024)
def _made(name: str, options: tuple[tuple[str, Any], ...]) -> Strategy:
    return _of_client(name, dict(options))


def _of_client(name: str, values: Mapping[str, Any]) -> Strategy:
    """A strategy by name, which must not read a file of this machine."""
    made: Any = strategies.make(name, values)
    inside = made
    while inside is not None:
        if isinstance(inside, Auto) and inside.policy:
            from thinktime.planning.calibration_files import is_shipped

            if not is_shipped(inside.policy):
                raise InputError("auto.policy", inside.policy, "name a calibration that is shipped; files are not read")
        if isinstance(inside, Archon) and inside.file:
            raise InputError("archon.file", inside.file, "files are not read; leave it out for the usual layers")
        inside = getattr(inside, strategies.INNER, None)
    return cast(Strategy, made)


def _budget(limits: object) -> Budget:
    if isinstance(limits, str):
        return Budget.parse(limits)
    known = [field.name for field in fields(Budget)]
    if not isinstance(limits, Mapping):
        raise InputError("thinktime.budget", limits, f'write "4000tok", or an object of: {", ".join(known)}')
    for name, value in limits.items():
        if name not in known:
            raise UnknownNameError("thinktime.budget", name, known)
        whole = name in ("tokens", "calls")
        if isinstance(value, bool) or not isinstance(value, int if whole else int | float) or not abs(value) < math.inf:
            raise InputError(f"thinktime.budget.{name}", value, f"give a {'whole ' if whole else ''}number above 0")
    return Budget(**limits)


@cache
def _names() -> list[str]:
    return sorted(strategies.known())


@cache
def _known_prompts() -> dict[str, Prompt]:
    return strategies.prompts()
