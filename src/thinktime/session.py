"""Loads the models of a `Config` once, and opens searches with them for any number of problems."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from thinktime.config import (
    HEAD,
    OF_MODEL,
    POCKET,
    SHIPPED_SCORERS,
    Config,
    Models,
    ModelSpec,
    Scorers,
    ScorerSpec,
    is_url,
)
from thinktime.core.environment import Environment
from thinktime.core.errors import BankError, InputError
from thinktime.core.journal import Journal
from thinktime.core.ledger import Ledger
from thinktime.core.protocols import Answers, Embedder, Generator, Scorer
from thinktime.core.search import Search
from thinktime.core.trace import Answer
from thinktime.core.types import MAIN, Capability, Problem, Prompt, Sampling
from thinktime.core.usage import Budget
from thinktime.files import cache_folder, user_path
from thinktime.scorers.embedding import HashedNgrams

if TYPE_CHECKING:
    from thinktime.bank.store import Bank
    from thinktime.models.remote.probe_cache import ProbeCache

ROWS = 256
"""Most rows of a local model at once."""
CONNECTIONS = 32
"""Most requests at once to an endpoint that does not say how many samples it computes at once."""
TIMEOUT = 600.0
"""Seconds for one request to an endpoint."""
CANDIDATES = 16
"""Most candidates that a chat model compares side by side."""


@dataclass(frozen=True)
class Session:
    """Loaded models, scorers and environments, and the settings of the searches that use them.

    Use it as an asynchronous context manager, or await `close`, if a model is behind HTTP or there is a bank. Its
    fields are the arguments of `thinktime.core.search.Search`; models, scorers and environments are by role.
    """

    models: Mapping[str, Generator]
    scorers: Mapping[str, Scorer] = field(default_factory=dict)
    environments: Mapping[str, Environment] = field(default_factory=dict)
    prompts: Mapping[str, Prompt] = field(default_factory=dict)
    answers: Answers | None = None
    embedder: Embedder = field(default_factory=HashedNgrams)
    sampling: Sampling = field(default_factory=Sampling)
    budget: Budget = field(default_factory=Budget)
    seed: int = 0
    journal: Journal | None = None

    def search(self, problem: Problem, within: Ledger | None = None) -> Search:
        """A search for this problem. It is charged to ``within`` as well.

        Raises:
            InputError: the prompt does not fit, or a limit cannot be kept for these models.
        """
        return Search(problem, **vars(self), within=within)

    def with_bank(self, bank: Bank) -> Session:
        """This session with a bank, in which it notes the role of each model and scorer.

        Raises:
            BankError: its samples or scores under one of these names come from other files.
        """
        loaded: list[Generator | Scorer] = [*self.models.values(), *self.scorers.values()]
        for each in loaded:
            if (fingerprint := getattr(each, "fingerprint", None)) is not None:
                bank.bind(each.name, fingerprint)
        for model in self.models.values():
            if (origin := getattr(model, "origin", None)) is not None:
                bank.add_provenance(model.name, origin.provenance.short())
        bank.add_roles("model", {role: model.name for role, model in self.models.items()})
        bank.add_roles("scorer", {role: scorer.name for role, scorer in self.scorers.items()})
        return replace(self, journal=bank)

    async def disconnect(self) -> None:
        """Close the connections of models and scorers. A later call opens new ones."""
        for each in (*self.models.values(), *self.scorers.values()):
            close = getattr(each, "close", None)
            if close is not None:
                await close()

    async def close(self) -> None:
        """Close the connections of models and scorers, and the bank."""
        await self.disconnect()
        if self.journal is not None and hasattr(self.journal, "close"):
            self.journal.close()

    async def __aenter__(self) -> Session:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.close()


def open_session(config: Config) -> Session:
    """Load everything that a config names.

    Raises:
        InputError: a model or scorer does not exist, or cannot be used together with the others.
        BankError: the bank cannot be opened.
    """
    from thinktime.bank.store import Bank

    specs = config.model_specs()
    models = {role: _model(role, spec, config) if isinstance(spec, ModelSpec) else spec for role, spec in specs.items()}
    judges = config.scorer_specs()
    scorers = {
        role: _scorer(role, spec, config, models[MAIN]) if isinstance(spec, ScorerSpec) else spec
        for role, spec in judges.items()
    }
    session = _session(config, models, scorers)
    if config.bank is None:
        return session
    bank = Bank(config.bank)
    try:
        return session.with_bank(bank)
    except BankError:
        bank.close()
        raise


def _session(config: Config, models: Mapping[str, Generator], scorers: Mapping[str, Scorer]) -> Session:
    """A session with these models and scorers, and all other settings from the config."""
    from thinktime.answers import TextAnswers
    from thinktime.pocket.problems import read_answer

    return Session(
        models,
        scorers,
        config.environments_by_name(),
        config.prompts_by_name(),
        config.answers or (TextAnswers(read_answer, "pocket") if config.main in POCKET else TextAnswers()),
        config.embedder or HashedNgrams(),
        config.sampling(),
        config.limits(),
        config.seed,
    )


def solve(question: str | Problem, model: Models = "pocket", scorer: Scorers | None = None, **options: Any) -> Answer:
    """Answer one question better.

    Args:
        question: what is asked.
        model: a generator or the source of one (see `thinktime.config.ModelSpec`), or several by role.
        scorer: a scorer or the source of one (see `thinktime.config.ScorerSpec`), or several by role.
        options: the other fields of `thinktime.config.Config`: ``strategy``, ``budget``, ``temperature``, ….

    Raises:
        InputError: an option cannot work, or an event loop is running, as in a notebook; nothing is spent.
        CapabilityError: the strategy needs something that this model or scorer does not have.
        ModelError: a model failed.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(asolve(question, model, scorer, **options))
    raise InputError("solve", "in an event loop", "write await thinktime.asolve(…), with the same arguments")


async def asolve(
    question: str | Problem, model: Models = "pocket", scorer: Scorers | None = None, **options: Any
) -> Answer:
    """`solve` as a coroutine."""
    config = Config(model, scorer, **options)
    problem = question if isinstance(question, Problem) else Problem("ask", question)
    _, answer = await run(config, problem)
    return answer


async def run(config: Config, problem: Problem) -> tuple[Search, Answer]:
    """Load the models of a config, and run its strategy on one problem.

    Raises:
        CapabilityError: the strategy needs something that these models and scorers do not have.
    """
    from thinktime.strategies import check

    name, strategy = config.named_strategy()
    async with open_session(config) as session:
        search = session.search(problem)
        check(name, strategy, search)
        return search, await strategy(search)


def open_replay(config: Config, bank: Bank) -> Session:
    """A session whose models and scorers replay a bank. No model is loaded.

    The bank knows the roles of the searches that wrote it. A config may name another model or scorer of the bank for a
    role. Of a bank without roles, a single one that is left takes the role that is left.

    Raises:
        InputError: it is not clear which model or scorer of the bank has a role.
    """
    from thinktime.generators.recorded import BankedGenerator
    from thinktime.scorers.recorded import BankedScorer

    if not bank.models():
        raise InputError("bank", bank.place, "it has no samples to replay; give the bank of a run")
    names = _roles_in_bank("model", bank.models(), config.model_specs(), bank)
    judges = _roles_in_bank("scorer", bank.scorers(), {MAIN: ScorerSpec("none"), **config.scorer_specs()}, bank)
    if config.main in POCKET and names[MAIN].partition("@")[0] not in POCKET.values():
        config = replace(config, models={**config.model_specs(), MAIN: names[MAIN]})  # its defaults are others
    verdicts = {f"{name}/verdict" for name in names.values()}
    models = {role: BankedGenerator(name) for role, name in names.items()}
    scorers = {
        role: BankedScorer(name, frozenset({Capability.VERDICTS})) if name in verdicts else BankedScorer(name)
        for role, name in judges.items()
    }
    return replace(_session(config, models, scorers), journal=bank)


def _roles_in_bank(kind: str, names: Sequence[str], wanted: Mapping[str, Any], bank: Bank) -> dict[str, str]:
    """The name in the bank of each role."""
    sources = {role: str(getattr(spec, "source", "")) for role, spec in wanted.items()}
    found = {role: source for role, source in sources.items() if source in names}
    for role, noted in bank.roles(kind).items():
        if role in wanted and role not in found and len(noted) == 1 and noted[0] in names:
            found[role] = noted[0]
    missing = [role for role in wanted if role not in found]
    left = [name for name in names if name not in found.values()]
    if len(missing) == len(left) == 1:
        found[missing[0]] = left[0]
    elif missing and (kind == "model" or left or missing != [MAIN]):
        one = "" if missing[0] == MAIN else f"{missing[0]}="
        fix = f"it has the {kind}s {names}; say which one is {missing[0]!r}: --{kind} {one}NAME"
        raise InputError("bank", bank.place, f"a replay needs the {kind}s by role, {fix}")
    return found


def _model(role: str, spec: ModelSpec, config: Config) -> Generator:
    """The generator of a role."""
    from thinktime import plugins, pocket
    from thinktime.hub.resolve import Found, find_elsewhere, find_known

    source = spec.source
    if is_url(source):
        return _endpoint(spec, _key(role, source, "model", config))
    found = Found(pocket.directory(POCKET[source])) if source in POCKET else find_known(source)
    if found is None:
        made: Generator | None = plugins.made("generators", source)
        if made is not None:
            return made
        found = find_elsewhere(source)
    if found.kind == "embedder":
        raise InputError("model", source, "it turns texts into vectors and writes none; name a model that writes")
    from thinktime.generators.local import LocalGenerator

    chat = source not in POCKET and found.kind != "base"
    rows, thinking = spec.concurrency or ROWS, spec.thinking_tokens
    generator = LocalGenerator(
        found.path, dtype=_dtype(spec), thinking_tokens=thinking, chat=chat, max_rows=rows, engine=spec.engine
    )
    if source not in POCKET:
        generator.origin = found
    return generator


def model_path(source: str) -> Path:
    """The directory or the ``.gguf`` file of a model that is no shipped one.

    Raises:
        InputError: it is not on this machine.
    """
    from thinktime.hub.resolve import find_elsewhere, find_known

    return (find_known(source) or find_elsewhere(source)).path


def _scorer(role: str, spec: ScorerSpec, config: Config, generator: Generator) -> Scorer:
    """The scorer of a role, which may use the main model."""
    from thinktime import plugins, pocket
    from thinktime.hub.resolve import reference
    from thinktime.scorers.prm import ProcessReward

    source = spec.source
    if is_url(source):
        return remote_scorer(
            source, _key(role, source, "scorer", config), name=spec.name, price=spec.price, aggregate=spec.aggregate
        )
    if source in OF_MODEL or source.startswith(HEAD):
        return _of_model(source, config, generator)
    shipped = source in SHIPPED_SCORERS
    directory = pocket.directory(SHIPPED_SCORERS[source]) if shipped else user_path("scorer", source)
    if not directory.exists():
        made: Scorer | None = plugins.made("scorers", source)
        if made is not None:
            return made
    main = config.model_specs()[MAIN]
    if directory.suffix == ".gguf" or (not directory.exists() and reference(source) is not None):
        return _asked(source, role, config, generator)
    dtype = _dtype(main) if isinstance(main, ModelSpec) else "auto"
    return ProcessReward(directory, aggregate=spec.aggregate, dtype="float32" if dtype == "auto" else dtype)


def _of_model(source: str, config: Config, generator: Generator) -> Scorer:
    """A scorer that looks into the main model, or asks it."""
    from thinktime import pocket
    from thinktime.generators.local import LocalGenerator
    from thinktime.generators.openai import RemoteGenerator

    if source == "untrained-self":
        from thinktime.scorers.untrained import UntrainedSelfEvaluation

        if not isinstance(generator, RemoteGenerator):
            raise InputError("scorer", source, "it asks a model behind HTTP; give the URL of one with --model")
        return UntrainedSelfEvaluation(generator)
    if source == "generative-reward":
        return _generative_reward(config, generator)
    if source == "confidence":
        from thinktime.scorers.confidence import Confidence

        return Confidence(generator)
    if source in ("digit", "expected-digit"):
        return _digit(source, generator)
    main = config.main
    if not isinstance(generator, LocalGenerator) or main is None:
        raise InputError("scorer", source, "an endpoint does not show its inside; give a local --model")
    if source == "verdicts":
        from thinktime.scorers.verdict import VerdictProbability

        return VerdictProbability(generator)
    if source == "p-yes":
        from thinktime.scorers.p_yes import YesProbability

        return YesProbability(generator, writes=True)
    if source.startswith(HEAD):
        from thinktime.scorers.head import RewardHead

        return RewardHead(generator, user_path("scorer", source.removeprefix(HEAD)))
    from thinktime.scorers.meta import MetaReward

    directory = pocket.directory(POCKET[main]) if main in POCKET else model_path(main)
    return MetaReward(generator, directory / "meta.json")


def _digit(source: str, generator: Generator) -> Scorer:
    """The main model as a judge that rates the last step by one digit."""
    from thinktime.generators.local import LocalGenerator
    from thinktime.generators.openai import RemoteGenerator
    from thinktime.scorers.digit import DigitRating, WrittenDigit

    if isinstance(generator, LocalGenerator):
        return DigitRating(generator, expected=source == "expected-digit", writes=True)
    if source == "digit" and isinstance(generator, RemoteGenerator):
        return WrittenDigit(generator)
    fix = "it needs the probabilities of the digits, which an endpoint does not list here; take digit or another scorer"
    raise InputError("scorer", source, fix)


def _asked(source: str, role: str, config: Config, generator: Generator) -> Scorer:
    """A language model that is asked whether a solution is right. It is not loaded twice."""
    from thinktime.generators.local import LocalGenerator
    from thinktime.scorers.p_yes import YesProbability

    main = config.model_specs()[MAIN]
    writes = isinstance(main, ModelSpec) and main.source == source
    given = main.dtype if isinstance(main, ModelSpec) else "auto"
    asked = generator if writes else _model(role, ModelSpec(source, dtype=given), config)
    assert isinstance(asked, LocalGenerator)
    return YesProbability(asked, writes=writes)


def _generative_reward(config: Config, generator: Generator) -> Scorer:
    """The main model as a judge of its own candidates, side by side or one alone."""
    from thinktime.generators.local import LocalGenerator
    from thinktime.pocket.prompts import LETTERS
    from thinktime.prompts.common import JUDGE
    from thinktime.scorers.generative_reward import GenerativeRewardModel

    judge = config.prompts_by_name().get(JUDGE.name)
    if judge is None and isinstance(generator, LocalGenerator) and Capability.CHAT not in generator.capabilities:
        fix = f"this model does not answer the prompt {JUDGE.name!r}; give a chat model, or pocket-skilled"
        raise InputError("scorer", "generative-reward", fix)
    most = len(LETTERS) if config.main in POCKET else CANDIDATES
    limit = config.sampling().max_length
    return GenerativeRewardModel(generator, prompt=judge or JUDGE, candidates=most, max_tokens=limit)


def _dtype(spec: ModelSpec) -> str:
    """The number type of a local model; the shipped models are exact by default."""
    return "float64" if spec.dtype == "auto" and spec.source in POCKET else spec.dtype


def _endpoint(spec: ModelSpec, key: str | None) -> Generator:
    from thinktime.generators.openai import RemoteGenerator
    from thinktime.models.remote.prices import Price
    from thinktime.models.remote.slots import slots

    return RemoteGenerator(
        spec.source,
        spec.name or _only_model(spec.source, key),
        key,
        price=None if spec.price is None else Price.parse(spec.price),
        parameters=spec.parameters,
        connections=spec.concurrency or slots(spec.source, key) or CONNECTIONS,
        timeout=TIMEOUT if spec.timeout is None else spec.timeout,
        probe_cache=user_probe_cache(),
        thinking_tokens=spec.thinking_tokens,
    )


def _only_model(url: str, key: str | None) -> str:
    """The name of an endpoint's only model. It is asked on a thread, since the caller may run in an event loop."""
    from thinktime.models.remote.refusals import only_model

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(only_model, url, key).result()


def remote_scorer(url: str, key: str | None, *, name: str | None, price: str | None, aggregate: str = "last") -> Scorer:
    """A reward model, if the URL names its call; else a judge.

    Args:
        url: of the scorer.
        key: sent to it.
        name: which of the scorer's models.
        price: of the scorer, in dollars per million tokens.
        aggregate: how step rewards become one.
    """
    from thinktime.generators.openai import RemoteGenerator
    from thinktime.models.remote.prices import Price
    from thinktime.scorers.judge import Judge
    from thinktime.scorers.pooling import RemoteReward

    cost = None if price is None else Price.parse(price)
    root, _, call = url.rstrip("/").rpartition("/")
    if call in ("pooling", "classify", "score"):
        return RemoteReward(url, name or _only_model(f"{root}/v1", key), key, aggregate=aggregate, price=cost)
    return Judge(RemoteGenerator(url, name or _only_model(url, key), key, price=cost, probe_cache=user_probe_cache()))


def _key(role: str, url: str, kind: str, config: Config) -> str | None:
    """The key for a role's endpoint, from the environment.

    A role has a variable of its own, as ``THINKTIME_DRAFT_API_KEY``. Without it the key of the main model, or of the
    main scorer, is taken, but only if that is at the same host or at none: a key for one host is never sent to another.
    """
    main = config.main
    if role == MAIN and kind == "model":
        return model_key(url)
    if role != MAIN and (own := os.environ.get(f"THINKTIME_{role.upper().replace('-', '_')}_API_KEY")):
        return own
    if kind == "scorer":
        judge = config.scorer_specs().get(MAIN, ScorerSpec("none"))
        shared = role == MAIN or (isinstance(judge, ScorerSpec) and may_share_key(url, judge.source))
        if shared and (key := scorer_key()):
            return key
    return model_key(url) if main is not None and may_share_key(url, main) else None


def may_share_key(url: str, source: str) -> bool:
    """Whether the key for this source may be sent to a URL: it is at the same host, or it needs no key itself."""
    return not is_url(source) or urlsplit(source).netloc == urlsplit(url).netloc


def model_key(url: str) -> str | None:
    """The key for the main model's endpoint, from the environment.

    ``OPENAI_API_KEY`` is only for hosts of openai.com and for the host of ``OPENAI_BASE_URL``.
    """
    if key := os.environ.get("THINKTIME_API_KEY"):
        return key
    asked, usual = urlsplit(url), urlsplit(os.environ.get("OPENAI_BASE_URL", ""))
    openai = f".{asked.hostname}".endswith(".openai.com") or (asked.netloc and asked.netloc == usual.netloc)
    return os.environ.get("OPENAI_API_KEY") if openai else None


def scorer_key() -> str | None:
    """The key for the main scorer's endpoint, from the environment."""
    return os.environ.get("THINKTIME_SCORER_API_KEY")


def user_probe_cache() -> ProbeCache:
    """The results of probing endpoints, in the user's cache folder."""
    from thinktime.models.remote.probe_cache import ProbeCache

    return ProbeCache(cache_folder() / "endpoints.json")
