"""The choices of a user in one typed object, which `thinktime.session` loads.

The command line, a bench and `thinktime.solve` all build a `Config`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, is_dataclass, replace
from math import inf
from pathlib import Path
from typing import Any

from thinktime.core.environment import Environment
from thinktime.core.errors import InputError, UnknownNameError, check_number
from thinktime.core.protocols import Answers, Embedder, Generator, Scorer
from thinktime.core.search import Strategy
from thinktime.core.types import MAIN, Prompt, Sampling
from thinktime.core.usage import Budget

POCKET = {"pocket": "solver", "pocket-skilled": "skilled", "pocket-retry": "retry"}
"""The shipped models that can be asked, by the name that a config gives them."""
SHIPPED_SCORERS = {"pocket": "reward", "self": "self_evaluation"}
"""The shipped models that judge, by the name that a config gives them."""
OF_MODEL = (
    *("meta", "verdicts", "untrained-self", "generative-reward", "confidence", "p-yes"),
    *("digit", "expected-digit"),
)
"""Scorers that look into the main model, or ask it."""
HEAD = "head:"
"""Prefix for the path of a reward head on the main model's hidden states."""
CONTROLS = {
    **dict.fromkeys(("oracle", "dial"), "uses the reference answers"),
    "random": "knows nothing",
}
ENGINES = ("auto", "own", "llamacpp")
DTYPES = ("auto", "float64", "float32", "bfloat16", "float16")
ROLE = re.compile(r"[a-z][a-z0-9_-]*")


@dataclass(frozen=True)
class ModelSpec:
    """A model and its settings.

    Args:
        source: a shipped model (`POCKET`), a real model by name (`thinktime.hub.catalogue.CATALOGUE`), a Hugging Face
            directory or a ``.gguf`` file, ``org/repo`` or ``hf:org/repo:file.gguf`` of the hub, the URL of a GGUF file
            or of an endpoint, or a generator of an installed package (see `thinktime.plugins`). Nothing is downloaded:
            `thinktime.hub.pull.pull` does that.
        name: which of an endpoint's models; not needed if it has one.
        price: an endpoint's dollars per million tokens, ``prompt/generated`` or ``prompt/generated/reused``.
        parameters: those that a token of an endpoint's model is multiplied with, for its FLOPs.
        dtype: of a local model; ``auto`` is float64 for the shipped models. For others it is the fastest one of this
            processor that keeps the checkpoint's precision.
        engine: of a local model: ``own``, ``llamacpp`` for a GGUF file, or ``auto``: our own where it computes the
            family, and else llama.cpp if it is installed.
        thinking_tokens: the most that a sample may think.
        concurrency: most rows of a local model at once, or most requests to an endpoint; further ones wait here. By
            default 256 rows, and the slots of a llama.cpp server or 32 requests.
        timeout: of a request to an endpoint, in seconds, without the wait for its turn; by default 600.

    Raises:
        InputError: a value is out of range, or is for an endpoint and this is none.
    """

    source: str
    name: str | None = None
    price: str | None = None
    parameters: float | None = None
    dtype: str = "auto"
    thinking_tokens: int | None = None
    concurrency: int | None = None
    timeout: float | None = None
    engine: str = "auto"

    def __post_init__(self) -> None:
        if not self.source or not isinstance(self.source, str):
            raise InputError("model", self.source, "name one: a shipped model, a directory or a URL")
        if not isinstance(self.name, str | None):
            raise InputError("model_name", self.name, "give a text")
        if self.dtype not in DTYPES:
            raise InputError("dtype", self.dtype, f"give {', '.join(DTYPES[:-1])} or {DTYPES[-1]}")
        if self.engine not in ENGINES:
            raise InputError("engine", self.engine, f"give {', '.join(ENGINES[:-1])} or {ENGINES[-1]}")
        if not is_url(self.source):
            given = {"price": self.price, "parameters": self.parameters, "timeout": self.timeout}
            only_for_endpoints("--model", model_name=self.name, **given)
        if self.parameters is not None:
            check_number("parameters", self.parameters)
            if not self.parameters > 0:
                raise InputError("parameters", self.parameters, "give a number above 0, as 8.2e9")
        if self.thinking_tokens is not None:
            check_number("thinking_tokens", self.thinking_tokens, whole=True)
            if self.thinking_tokens < 0:
                raise InputError("thinking_tokens", self.thinking_tokens, "give 0 or more")
        if self.concurrency is not None:
            check_number("concurrency", self.concurrency, whole=True)
            if self.concurrency < 1:
                raise InputError("concurrency", self.concurrency, "give 1 or more")
        if self.timeout is not None:
            check_number("timeout", self.timeout)
            if not 0 < self.timeout < inf:
                raise InputError("timeout", self.timeout, "give seconds above 0")
        _check_price(self.price)


@dataclass(frozen=True)
class ScorerSpec:
    """A scorer and its settings.

    Args:
        source: a shipped scorer (`SHIPPED_SCORERS`), ``none``, one that uses the main model (`OF_MODEL`), ``head:FILE``
            for a reward head on its hidden states, a reward model's directory, a language model that is asked whether
            a solution is right (a name of the catalogue or the hub, or a ``.gguf`` file), a reward model behind HTTP
            (a URL that ends in ``/pooling``, ``/classify`` or ``/score``), an endpoint that judges by prompt, or a
            scorer of an installed package.
        name: which of an endpoint's models; not needed if it has one.
        price: an endpoint's dollars per million tokens.
        aggregate: how step rewards become one: last, min, mean, product.

    Raises:
        InputError: a value is for an endpoint and this is none; or it is a control, which only a bench can use.
    """

    source: str
    name: str | None = None
    price: str | None = None
    aggregate: str = "last"

    def __post_init__(self) -> None:
        for field_name, text in (
            ("scorer", self.source),
            ("scorer_name", self.name or ""),
            ("aggregate", self.aggregate),
        ):
            if not isinstance(text, str):
                raise InputError(field_name, text, "give a text")
        kind = "dial" if self.source.startswith("dial:") else self.source
        if kind in CONTROLS:
            fix = f"it {CONTROLS[kind]}: a control for `thinktime bench`, no scorer of an answer"
            raise InputError("scorer", self.source, fix)
        if not is_url(self.source):
            only_for_endpoints("--scorer", scorer_name=self.name, scorer_price=self.price)
        _check_price(self.price)


Models = str | ModelSpec | Generator | Mapping[str, str | ModelSpec | Generator]
Scorers = str | ScorerSpec | Scorer | Mapping[str, str | ScorerSpec | Scorer]
Environments = str | Environment | Mapping[str, str | Environment]


@dataclass(frozen=True)
class Config:
    """The models and settings of a search. A single model, scorer or environment has the role ``main``.

    Args:
        models: by role; a text is the source of a `ModelSpec`.
        scorers: by role; a text is the source of a `ScorerSpec`. Without a ``main`` one, the shipped models are judged
            by the shipped reward model and others by none.
        environments: by name; a text is ``calculator``, ``key_value`` or the name of an installed package's.
        prompts: by name, in place of the strategies' own; a text is a template, see `thinktime.prompts.templates`.
        strategy: configured, or a text as ``beam_search:n=16``.
        budget: limits of each search; a text as ``4000tok,30s``.
        temperature: of the samples; 0 is greedy.
        top_p: of the samples.
        max_tokens: length limit of one generation; by default 400 for the shipped models and 1024 for others.
        stop: strings that end a sample; they are cut off its text.
        seed: the same seed gives the same samples.
        bank: keeps all samples, which are found again: a file, or ``postgresql://USER@HOST/DATABASE``.
        answers: reads and compares answers; by default numbers and formulas in texts.
        embedder: for strategies that cluster steps; by default hashed n-grams.

    Raises:
        InputError: a value is out of range; no model has the role ``main``; a role or a name is unknown.
    """

    models: Models = "pocket"
    scorers: Scorers | None = None
    environments: Environments | None = None
    prompts: Mapping[str, str | Prompt] = field(default_factory=dict)
    strategy: str | Strategy = "weighted_majority"
    budget: str | Budget = field(default_factory=Budget)
    temperature: float = 1.0
    top_p: float = 1.0
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    seed: int = 0
    bank: Path | str | None = None
    answers: Answers | None = None
    embedder: Embedder | None = None

    def __post_init__(self) -> None:
        self.named_strategy()
        self.limits()
        if MAIN not in self.model_specs():
            raise InputError(
                "models", sorted(self.model_specs()), f"one of them has to be the role {MAIN!r}: --model NAME"
            )
        check_number("seed", self.seed, whole=True)
        if not isinstance(self.bank, str | Path | None):
            raise InputError("bank", self.bank, "give the path of a file, or postgresql://USER@HOST/DATABASE")
        self.sampling()
        self.scorer_specs()
        self.environments_by_name()
        self.prompts_by_name()

    def model_specs(self) -> dict[str, ModelSpec | Generator]:
        """The models by role."""
        return _by_role(self.models, ModelSpec)

    def scorer_specs(self) -> dict[str, ScorerSpec | Scorer]:
        """The scorers by role, without those that are ``none``."""
        given: dict[str, Any] = _by_role(self.scorers, ScorerSpec)
        found = {MAIN: ScorerSpec(fitting_scorer(self.main)), **given}
        return {role: spec for role, spec in found.items() if getattr(spec, "source", None) != "none"}

    @property
    def main(self) -> str | None:
        """The source of the main model; None for a generator object."""
        spec = self.model_specs()[MAIN]
        return spec.source if isinstance(spec, ModelSpec) else None

    def environments_by_name(self) -> dict[str, Environment]:
        """The environments, made anew."""
        return _by_role(self.environments, environment)

    def named_strategy(self) -> tuple[str, Any]:
        """The strategy's name and the strategy."""
        from thinktime.strategies import parse, spec

        if isinstance(self.strategy, str):
            return parse(self.strategy)
        if not is_dataclass(self.strategy) or isinstance(self.strategy, type):
            raise InputError(
                "strategy", self.strategy, "give a text as 'majority:n=8', or a strategy that is configured"
            )
        return spec(self.strategy), self.strategy

    def limits(self) -> Budget:
        """The budget of each search."""
        if not isinstance(self.budget, str | Budget):
            raise InputError("budget", self.budget, "give a text as '4000tok,30s', or a Budget")
        return Budget.parse(self.budget) if isinstance(self.budget, str) else self.budget

    def sampling(self) -> Sampling:
        """How children are drawn."""
        from thinktime.pocket import MAX_TOKENS

        limit = self.max_tokens if self.max_tokens is not None else MAX_TOKENS if self.main in POCKET else 1024
        check_number("temperature", self.temperature)
        check_number("max_tokens", limit, whole=True)
        if not 0 <= self.temperature <= 5:
            raise InputError("temperature", self.temperature, "give a number from 0 to 5")
        if limit < 1:
            raise InputError("max_tokens", limit, "give 1 or more")
        return Sampling(self.temperature, self.top_p, limit, self.stop)

    def prompts_by_name(self) -> dict[str, Prompt]:
        """The prompts in place of the strategies' own: the user's, then those in the words of the model's training."""
        from thinktime.pocket.prompts import PROMPTS
        from thinktime.prompts.templates import overridden
        from thinktime.strategies import prompts

        trained = PROMPTS if self.main == "pocket-skilled" else {}
        if not self.prompts:
            return dict(trained)
        if not isinstance(self.prompts, Mapping):
            raise InputError("prompts", self.prompts, 'give texts or prompts by name, as {"check": "…{answer}…"}')
        known = {**prompts(), **trained}
        texts = {name: given for name, given in self.prompts.items() if isinstance(given, str)}
        found = {**trained, **overridden(known, texts)}
        for name, given in self.prompts.items():
            if name not in known:
                raise UnknownNameError("prompt", name, known)
            if isinstance(given, Prompt):
                found[name] = replace(known[name], render=given.render, read=given.read)
            elif not isinstance(given, str):
                raise InputError(f"prompt.{name}", given, "give a text or a Prompt")
        return found


def fitting_scorer(model: str | None) -> str:
    """The source of the scorer that fits a model: the shipped reward model for the shipped models, else ``none``."""
    return "pocket" if model in POCKET else "none"


def environment(name: str) -> Environment:
    """A built-in environment, or one of an installed package.

    Raises:
        UnknownNameError: there is none of this name.
    """
    from thinktime.environments.calculator import Calculator
    from thinktime.environments.key_value import KeyValueStore
    from thinktime.plugins import installed, made

    built_in: dict[str, Callable[[], Environment]] = {"calculator": Calculator, "key_value": KeyValueStore}
    if name in built_in:
        return built_in[name]()
    found: Environment | None = made("environments", name)
    if found is None:
        raise UnknownNameError("environment", name, {*built_in, *installed("environments")})
    return found


def is_url(text: str) -> bool:
    """Whether a text names an endpoint. The URL of a GGUF file names a model to pull."""
    if not text.startswith(("http://", "https://")):
        return False
    from thinktime.hub.resolve import is_file_url

    return not is_file_url(text)


def only_for_endpoints(option: str, **given: object) -> None:
    """Raise an `InputError` for the first of these that was given.

    Args:
        option: which would have to be a URL.
        given: by name of a field.
    """
    for name, value in given.items():
        if value is not None:
            raise InputError(name, value, f"this is for an endpoint; give its URL with {option}")


def _check_price(text: str | None) -> None:
    from thinktime.models.remote.prices import Price

    if not isinstance(text, str | None):
        raise InputError("price", text, "give a text of dollars per million tokens, as '0.15/0.60'")
    if text is not None:
        Price.parse(text)


def _by_role(given: Any, kind: Callable[[str], Any]) -> dict[str, Any]:
    """The given values by role, with texts converted by ``kind``. A single value has the role ``main``."""
    if given is None:
        return {}
    roles = given if isinstance(given, Mapping) else {MAIN: given}
    for role, each in roles.items():
        if not isinstance(role, str) or not ROLE.fullmatch(role):
            raise InputError("role", role, "write a word of small letters, digits, - and _")
        if not isinstance(each, str) and not hasattr(each, "name"):
            raise InputError(f"role {role}", each, "give a text, or an object with a name")
    return {role: kind(each) if isinstance(each, str) else each for role, each in roles.items()}
