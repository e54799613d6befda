"""The settings of a gateway: upstream, keys, budgets and limits."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, TypeVar

from thinktime.bank.database import is_url
from thinktime.bank.retention import days, size
from thinktime.core.errors import InputError, UnknownNameError
from thinktime.core.types import MAIN
from thinktime.core.usage import Budget
from thinktime.models.remote.client import is_loopback
from thinktime.models.remote.prices import Price
from thinktime.models.remote.protocol import root_and_api

Result = TypeVar("Result")

LEAST_KEY = 16
"""Least characters of a key; a shorter one can be guessed."""
MOST_A_MINUTE, MOST_TOKENS = 100_000, 10**12
"""Largest rate limits, in requests and in tokens a minute."""
LOG_LEVELS, LOG_FORMATS = ("debug", "info", "warning", "error"), ("text", "json")
MOST_WEIGHT = 1e6
"""Largest weight of an upstream."""
MOST = {"port": 65_535, "workers": 256, "max_tokens": 1_000_000, "max_samples": 65_536, "max_body": 2**31}
"""Largest values of settings that are whole numbers."""
MOST_SECONDS = 86_400
"""Longest time of a request that can be set, in seconds."""


@dataclass(frozen=True)
class Key:
    """A client's key. The gateway knows only its SHA-256.

    Args:
        name: of the key in accounts, and of its spending in a bank.
        sha256: the hash of the key; ``thinktime serve --new-key`` prints one.
        budget: limit of all requests with this key since the server started, or since the bank was created if there is
            one; its seconds limit each request.
        requests_per_minute: most requests in any 60 seconds.
        tokens_per_minute: a request is refused while those that ended in the last 60 seconds have written so many.
        sees_all: whether the page shows this key the requests of all keys.
        shadow: whether its requests may be measured in the background, see `thinktime.gateway.shadow`.
    """

    name: str
    sha256: str = field(repr=False)
    budget: Budget = field(default_factory=Budget)
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    sees_all: bool = False
    shadow: bool = False

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[0-9a-f]{64}", self.sha256):
            raise InputError(f"keys.{self.name}.sha256", "…", "give 64 hexadecimal digits; see --new-key")
        if not self.name.strip() or not self.name.isprintable():
            raise InputError("keys", self.name, "give a name of printable characters")
        if self.name.startswith("("):
            raise InputError("keys", self.name, "a name in parentheses is an account of the gateway itself; rename it")
        _refuse_flops(f"keys.{self.name}.budget", self.budget)
        for setting, most in (("requests_per_minute", MOST_A_MINUTE), ("tokens_per_minute", MOST_TOKENS)):
            if (value := getattr(self, setting)) is not None and not 1 <= value <= most:
                raise InputError(f"keys.{self.name}.{setting}", value, f"give 1 or more, up to {most}")


@dataclass(frozen=True)
class Endpoint:
    """Where the model of a role is.

    Args:
        model: its name there.
        base_url: the root of its API, if it is not on the upstream. For a scorer it may end in ``/pooling``,
            ``/classify`` or ``/score``, which are calls of reward models.
        key_variable: the environment variable with its key.
        price: dollars per million tokens, in place of the listed price.
    """

    model: str
    base_url: str | None = None
    key_variable: str | None = None
    price: Price | None = None


@dataclass(frozen=True)
class UpstreamConfig:
    """One of several upstreams.

    Args:
        name: of the upstream in logs and banks, and on the page; clients may see it.
        url: the root of an OpenAI-compatible API.
        key_variable: the environment variable with its key; without it no key is sent.
        price: dollars per million tokens, in place of the listed price.
        models: the upstream's name of a model by the name that clients send; a list if both are the same. Without it,
            the upstream gets every model that no other upstream names.
        weight: its share of the requests for a model; 0 is only asked if the others fail.
        key: the key itself, of the single upstream without a table.

    Raises:
        InputError: a value is out of range.
    """

    name: str
    url: str
    key_variable: str | None = None
    price: Price | None = None
    models: Mapping[str, str] | None = None
    weight: float = 1.0
    key: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        where = f"upstream.{self.name}"
        if not re.fullmatch(r"[A-Za-z0-9_.-]{1,40}", self.name):
            raise InputError("upstream.name", self.name, "name it in at most 40 letters, digits, -, _ and .")
        root_and_api(self.url, f"{where}.url")
        if not 0 <= self.weight <= MOST_WEIGHT:
            raise InputError(f"{where}.weight", self.weight, f"give a number up to {MOST_WEIGHT}")
        if self.models is not None and not (self.models and all(self.models) and all(self.models.values())):
            raise InputError(f"{where}.models", self.models, "name one model or more, or leave it out to take all")

    def find_key(self) -> str | None:
        """The key of the upstream; None if it needs none.

        Raises:
            InputError: its environment variable is not set.
        """
        if self.key_variable is None:
            return self.key
        return secret(f"upstream.{self.name}.key_variable", self.key_variable)


def secret(setting: str, variable: str) -> str:
    """The value of an environment variable that a setting names.

    Raises:
        InputError: it is not set.
    """
    if not (key := os.environ.get(variable)):
        raise InputError(setting, variable, "set this environment variable")
    return key


@dataclass(frozen=True)
class GatewayConfig:
    """A gateway's settings.

    Args:
        upstream: the root of an OpenAI-compatible API; or several tables ``[[upstream]]``.
        host, port: the address to listen on; beyond this machine only with a key.
        workers: processes that serve the port together. Budgets then need a bank in Postgres.
        keys: the clients' keys; without keys everybody on this machine may use the gateway.
        budget: limit of all requests since the server started, or since the bank was created; its seconds limit each
            request.
        price: dollars per million tokens, in place of the listed price.
        max_tokens: length limit of a sample if its request gives none.
        max_samples: most samples of one request.
        max_body: most bytes of a request.
        request_seconds: longest time of a request; a search then gives the best answer so far.
        drain_seconds: how long running requests may go on after a signal to stop; then they get a 503.
        bank: keeps samples and spending: a file, or ``postgresql://USER@HOST/DATABASE``, which several gateways share.
        retention_time: older samples are removed from the bank while the gateway runs: ``12h``, ``30d``, ``8w``.
        retention_size: then the oldest ones, until the others have at most so many bytes: ``500MB``, ``5GB``.
        key_store: keys of `thinktime keys` and rates, for all gateways that share it: a file, or
            ``postgresql://USER@HOST/DATABASE``.
        calibration: file of `thinktime calibrate` that ``auto`` of clients follows where it fits; or a folder of them.
        shadow: the share of the requests that are measured in the background, from 0 to 1.
        shadow_budget: limit of all measurements; it is hard.
        shadow_out: folder of the calibrations that they make.
        models: models by role, for methods that use several; the model of a request is ``main``.
        scorers: scorers by role; ``main`` is the one of methods that use one.
        cors_origins: origins of pages that may send requests, such as ``https://chat.example``; ``*`` is any, and needs
            keys.
        fallbacks: for a model, the models that are asked if all its upstreams fail, in this order.
        prompts: words that replace a prompt's own, by the prompt's name.
        log_level: the least important records in the log: debug, info, warning or error.
        log_format: of the log: text or json.
        access_log: whether each request is a line of the log.
        upstream_key: the key sent to the upstream; several upstreams have their own.

    Raises:
        InputError: a value is out of range, or the address is beyond this machine and there is no key.
    """

    upstream: str | tuple[UpstreamConfig, ...]
    host: str = "127.0.0.1"
    port: int = 8080
    workers: int = 1
    keys: tuple[Key, ...] = ()
    budget: Budget = field(default_factory=Budget)
    price: Price | None = None
    max_tokens: int = 4096
    max_samples: int = 1024
    max_body: int = 32 * 1024 * 1024
    request_seconds: float = 600
    drain_seconds: float = 30
    bank: Path | str | None = None
    retention_time: str | None = None
    retention_size: str | None = None
    key_store: Path | str | None = None
    calibration: Path | None = None
    shadow: float = 0.0
    shadow_budget: Budget = field(default_factory=Budget)
    shadow_out: Path | None = None
    models: Mapping[str, Endpoint] = field(default_factory=dict)
    scorers: Mapping[str, Endpoint] = field(default_factory=dict)
    cors_origins: tuple[str, ...] = ()
    fallbacks: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    prompts: Mapping[str, str] = field(default_factory=dict)
    log_level: str = "warning"
    log_format: str = "text"
    access_log: bool = False
    upstream_key: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        self._check_upstreams()
        self._check_keys()
        _refuse_flops("budget", self.budget)
        for name, most in (
            ("port", 65_535),
            ("max_tokens", 1_000_000),
            ("max_samples", 65_536),
            ("max_body", 2**31),
            ("workers", 256),
        ):
            value = getattr(self, name)
            least = 0 if name == "port" else 1
            if not least <= value <= most:
                raise InputError(name, value, f"give a number from {least} to {most}")
        if not 0 < self.request_seconds <= MOST_SECONDS:
            raise InputError("request_seconds", self.request_seconds, f"give a number up to {MOST_SECONDS}")
        if not 0 <= self.drain_seconds <= MOST_SECONDS:
            raise InputError("drain_seconds", self.drain_seconds, f"give a number up to {MOST_SECONDS}")
        for name, known in (("log_level", LOG_LEVELS), ("log_format", LOG_FORMATS)):
            if (value := getattr(self, name)) not in known:
                raise UnknownNameError(name, str(value), known)
        for kind, roles in (("models", self.models), ("scorers", self.scorers)):
            for role in roles:
                refuse_role(kind, role)
        for origin in self.cors_origins:
            if origin != "*" and not re.fullmatch(r"https?://[^/\s@?#*]+", origin):
                raise InputError("cors_origin", origin, "write https://HOST or http://HOST:PORT without a path, or *")
        if "*" in self.cors_origins and not self.has_keys:
            raise InputError("cors_origin", "*", "without a key any page could use the gateway; add one, see --new-key")
        if self.workers > 1:
            self._check_shared()
        self._check_retention()
        self._check_shadow()
        if not self.has_keys and not is_loopback(self.host):
            raise InputError("host", self.host, "without a key it serves only this machine; add one, see --new-key")

    @property
    def has_keys(self) -> bool:
        """Whether clients need a key."""
        return bool(self.keys) or self.key_store is not None

    @property
    def has_rates(self) -> bool:
        """Whether a key in the configuration has a rate limit."""
        return any(key.requests_per_minute or key.tokens_per_minute for key in self.keys)

    @property
    def upstreams(self) -> tuple[UpstreamConfig, ...]:
        """All upstreams. A single one without a table is named ``upstream`` and takes all models."""
        if isinstance(self.upstream, str):
            return (UpstreamConfig("upstream", self.upstream, price=self.price, key=self.upstream_key),)
        return self.upstream

    def _check_upstreams(self) -> None:
        if isinstance(self.upstream, str):
            root_and_api(self.upstream, "upstream")
        names = [each.name for each in self.upstreams]
        if not names:
            raise InputError("upstream", "none", "write a table [[upstream]] with a name and a url")
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise InputError("upstream.name", twice, "two upstreams have this name; rename one")
        if not isinstance(self.upstream, str) and self.price is not None:
            raise InputError("price", str(self.price), "several upstreams have prices of their own: write them there")
        if all(each.models is not None for each in self.upstreams):
            known = sorted({name for each in self.upstreams for name in each.models or ()})
            for model, others in self.fallbacks.items():
                for name in (model, *others):
                    if name not in known:
                        raise UnknownNameError(f"fallbacks.{model}", name, known)
            for kind, roles in (("models", self.models), ("scorers", self.scorers)):
                for role, endpoint in roles.items():
                    if endpoint.base_url is None and endpoint.model not in known:
                        raise UnknownNameError(f"{kind}.{role}.model", endpoint.model, known)

    def _check_keys(self) -> None:
        """Refuse a key that two accounts have: its requests would count for either."""
        by_hash: dict[str, str] = {}
        for key in self.keys:
            if key.sha256 in by_hash:
                fix = f"the key {by_hash[key.sha256]!r} has this hash too; make a new key, see --new-key"
                raise InputError(f"keys.{key.name}.sha256", "…", fix)
            by_hash[key.sha256] = key.name

    def _check_shared(self) -> None:
        """Refuse what several processes cannot keep together."""
        if self.bank is not None and is_url(self.bank):
            return
        fix = "give --bank postgresql://USER@HOST/DATABASE, or 1"
        if self.bank is not None:
            raise InputError("workers", self.workers, f"a bank in a file has one process; {fix}")
        if self.key_store is not None or any(map(limits_spending, (self.budget, *(key.budget for key in self.keys)))):
            raise InputError("workers", self.workers, f"budgets of keys or of the gateway need a shared bank; {fix}")
        if self.has_rates:
            raise InputError("workers", self.workers, f"rates need a shared bank; {fix}")

    def _check_retention(self) -> None:
        """Refuse limits of samples without a bank, and those that keep none."""
        limits: tuple[tuple[str, str | None, Callable[[str, str], float]], ...] = (
            ("retention_time", self.retention_time, days),
            ("retention_size", self.retention_size, size),
        )
        for name, text, read in limits:
            if text is not None and not read(name, text):
                raise InputError(name, text, "give more than 0, or leave it out to keep all samples")
            if text is not None and self.bank is None:
                raise InputError(name, text, "without a bank no sample is kept; give --bank, or leave it out")

    def _check_shadow(self) -> None:
        """Refuse to measure requests without a hard budget, a folder, or the leave of a key."""
        _refuse_flops("shadow_budget", self.shadow_budget)
        if not 0 <= self.shadow <= 1:
            raise InputError("shadow", self.shadow, "give a share of the requests from 0 to 1: 0.01")
        if not self.shadow:
            return
        if not limits_spending(self.shadow_budget):
            raise InputError("shadow_budget", None, "say how much all measurements may cost: 1e6tok, 5usd")
        if self.shadow_out is None:
            raise InputError("shadow_out", None, "name the folder of the calibrations")
        if self.workers > 1:
            raise InputError("shadow", self.shadow, "several processes cannot write one calibration; take one worker")
        if self.keys and self.key_store is None and not any(key.shadow for key in self.keys):
            raise InputError("shadow", self.shadow, "no key allows it; write shadow = true under [keys.NAME]")

    def shown(self) -> dict[str, Any]:
        """All settings without secrets, for people: limits and prices are objects, unset ones are left out."""
        settings = asdict(self) | {"upstream_key": None if self.upstream_key is None else "…"}
        for key in settings["keys"]:
            key["sha256"] = "…"
        return {name: _set(value) for name, value in settings.items()}


def _set(value: Any) -> Any:
    """A value without the parts of its objects that are not set."""
    if isinstance(value, Mapping):
        return {name: _set(part) for name, part in value.items() if part is not None}
    return [_set(part) for part in value] if isinstance(value, list | tuple) else value


def limits_spending(budget: Budget) -> bool:
    """Whether a budget limits anything but seconds."""
    return replace(budget, seconds=None) != Budget()


def refuse_role(kind: str, role: str) -> None:
    """Raise an `InputError` if this cannot be the name of a role; ``kind`` is the name of the field."""
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,40}", role):
        raise InputError(kind, role[:40], "name a role in at most 40 letters, digits, - and _")
    if kind.endswith("models") and role == MAIN:
        raise InputError(kind, role, "the model of the request has this role; name another role")


def _refuse_flops(field: str, budget: Budget) -> None:
    if budget.flops is not None:
        raise InputError(field, budget.flops, "endpoints report no FLOPs; limit tokens, calls, dollars or seconds")


def digest(key: str) -> str:
    """The hash of a key. Keys are random and long, so one round of SHA-256 is enough."""
    return hashlib.sha256(key.encode()).hexdigest()


def new_key() -> str:
    """A key with 256 random bits."""
    return f"tt-{secrets.token_urlsafe(32)}"


def given_key(text: str) -> Key:
    """The key given on the command line or in the environment.

    Raises:
        InputError: the key is too short.
    """
    if len(text) < LEAST_KEY:
        raise InputError("key", "…", f"give {LEAST_KEY} characters or more; --new-key makes one")
    return Key("default", digest(text))


_NUMBERS = (*MOST, "request_seconds", "drain_seconds")
_TYPES = {"access_log": (bool,), "shadow": (float, int)} | dict.fromkeys(_NUMBERS, (int,))
"""Types of settings that are not text."""
_KINDS = {"requests_per_minute": int, "tokens_per_minute": int, "sees_all": bool, "shadow": bool}
"""Settings of a key that are not text."""


def read_config(path: Path) -> dict[str, Any]:
    """The settings in a TOML file, as arguments of `GatewayConfig`.

    Raises:
        InputError: the file cannot be read, or a setting is unknown, secret or of the wrong type.
    """
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except RecursionError:
        raise InputError("config", str(path), "its lists and tables are nested too deeply") from None
    except (OSError, ValueError) as error:
        raise InputError("config", str(path), f"cannot read it as TOML ({error})") from None
    known = [f.name for f in fields(GatewayConfig) if f.name != "upstream_key"]
    settings: dict[str, Any] = {}
    for name, value in table.items():
        if name == "upstream_key":
            raise InputError(name, "…", "a secret does not belong in this file; put it into THINKTIME_API_KEY")
        if name not in known:
            raise UnknownNameError("config", name, known)
        if name == "keys":
            settings[name] = tuple(_keys(value))
            continue
        if name in ("models", "scorers"):
            settings[name] = dict(_endpoints(name, value))
            continue
        if name == "prompts":
            settings[name] = _prompts(value)
            continue
        if name == "cors_origins":
            settings[name] = _texts(name, value, "origins")
            continue
        if name == "fallbacks":
            settings[name] = _fallbacks(value)
            continue
        if name == "upstream" and not isinstance(value, str):
            if not isinstance(value, list):
                raise InputError(name, value, 'write upstream = "http://host:port/v1", or tables [[upstream]]')
            settings[name] = tuple(map(_upstream, value))
            continue
        _check(name, value, _TYPES.get(name, (str,)))
        settings[name] = _READ[name](value) if name in _READ else value
    return settings


def _keys(table: object) -> Iterable[Key]:
    if not isinstance(table, Mapping):
        raise InputError("keys", table, "write a table for each key: [keys.alice]")
    known = [f.name for f in fields(Key) if f.name != "name"]
    for name, settings in table.items():
        if not isinstance(settings, Mapping) or "sha256" not in settings:
            raise InputError(f"keys.{name}", "…", 'give sha256 = "…"; see --new-key')
        for setting, value in settings.items():
            if setting not in known:
                raise UnknownNameError(f"keys.{name}", setting, known)
            _check(f"keys.{name}.{setting}", value, (_KINDS.get(setting, str),))
        budget = _read(f"keys.{name}.budget", Budget.parse, settings.get("budget")) or Budget()
        yield Key(**{**settings, "name": name, "budget": budget})


def stored_key(name: str, sha256: str, settings: Mapping[str, Any]) -> Key:
    """A key of a store.

    Raises:
        InputError: a setting is unknown or wrong.
    """
    (key,) = _keys({name: {**settings, "sha256": sha256}})
    return key


def _endpoints(kind: str, table: object) -> Iterable[tuple[str, Endpoint]]:
    """Roles with their endpoints. A text is the name of a model of the upstream."""
    if not isinstance(table, Mapping):
        raise InputError(kind, table, f"write a table for each role: [{kind}.NAME]")
    known = [f.name for f in fields(Endpoint)]
    for role, value in table.items():
        settings = {"model": value} if isinstance(value, str) else value
        if not isinstance(settings, Mapping) or "model" not in settings:
            raise InputError(f"{kind}.{role}", value, 'give model = "…", the name of the model')
        for setting, text in settings.items():
            if setting not in known:
                raise UnknownNameError(f"{kind}.{role}", setting, known)
            _check(f"{kind}.{role}.{setting}", text, (str,))
        price = _read(f"{kind}.{role}.price", Price.parse, settings.get("price"))
        yield role, Endpoint(**{**settings, "price": price})


def _upstream(table: object) -> UpstreamConfig:
    if not isinstance(table, Mapping) or not isinstance(name := table.get("name"), str):
        raise InputError("upstream", table, 'write [[upstream]] with name = "…" and url = "…"')
    where = f"upstream.{name}"
    known = [f.name for f in fields(UpstreamConfig) if f.name != "key"]
    for setting, value in table.items():
        if setting == "key":
            raise InputError(f"{where}.key", "…", 'a secret does not belong in this file; write key_variable = "NAME"')
        if setting not in known:
            raise UnknownNameError(where, setting, known)
        kinds = {"weight": (float, int), "models": (list, dict)}
        _check(f"{where}.{setting}", value, kinds.get(setting, (str,)))
    if "url" not in table:
        raise InputError(f"{where}.url", None, 'give url = "http://host:port/v1"')
    settings = dict(table)
    if isinstance(models := settings.get("models"), list):
        _texts(f"{where}.models", models, "models")
        settings["models"] = {model: model for model in models}
    elif models is not None:
        _texts(f"{where}.models", list(models.values()), "models")
    settings["price"] = _read(f"{where}.price", Price.parse, settings.get("price"))
    return UpstreamConfig(**settings)


def _fallbacks(table: object) -> dict[str, tuple[str, ...]]:
    if not isinstance(table, Mapping):
        raise InputError("fallbacks", table, 'write a table: [fallbacks], model = ["other"]')
    return {model: _texts(f"fallbacks.{model}", names, "models") for model, names in table.items()}


def _texts(setting: str, value: object, of: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        raise InputError(setting, value, f'give a list of {of}: ["…", "…"]')
    return tuple(value)


def _prompts(table: object) -> dict[str, str]:
    if not isinstance(table, Mapping):
        raise InputError("prompts", table, 'write a table of texts: [prompts], check = "…{answer}…"')
    for name, words in table.items():
        _check(f"prompts.{name}", words, (str,))
    return dict(table)


def _read(name: str, parse: Callable[[str], Result], text: str | None) -> Result | None:
    """A setting that `parse` reads, named in its errors; None if it is not set."""
    try:
        return None if text is None else parse(text)
    except InputError as error:
        raise InputError(name, error.value, error.fix) from None


def _check(name: str, value: object, types: tuple[type, ...]) -> None:
    if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
        raise InputError(name, value, f"give a value of type {types[0].__name__}")


_READ: Mapping[str, Callable[[Any], Any]] = {
    "budget": Budget.parse,
    "price": Price.parse,
    "calibration": Path,
    "shadow_budget": lambda text: _read("shadow_budget", Budget.parse, text),
    "shadow_out": Path,
}
"""How settings are read that are no plain values."""
