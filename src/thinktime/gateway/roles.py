"""The models and scorers of a search by role: those of the configuration, and those that a request names."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import TypeVar
from urllib.parse import urlsplit

from thinktime.core.errors import InputError, ThinktimeError, UnknownNameError
from thinktime.core.ledger import Ledger
from thinktime.core.protocols import Scorer
from thinktime.gateway.config import Endpoint, GatewayConfig
from thinktime.gateway.errors import HttpError
from thinktime.gateway.upstream import Upstream
from thinktime.generators.openai import ProbeKind, RemoteGenerator
from thinktime.models.remote.observers import Observer
from thinktime.models.remote.protocol import Api
from thinktime.scorers.judge import Judge
from thinktime.scorers.pooling import RemoteReward

PAUSE = 60.0
"""Seconds for which a configured role is left out after its endpoint failed."""
PATIENCE = 10.0
"""Most seconds that a search waits for the probe of a configured role."""
REWARD_CALLS = ("pooling", "classify", "score")
"""Last parts of a scorer's address that name a reward model; at any other address a model judges by prompt."""

Target = TypeVar("Target")
Result = TypeVar("Result")
_log = logging.getLogger("thinktime")


class Roles:
    """Finds the models and scorers of a search.

    A role of the configuration whose endpoint fails is left out of searches for a minute, so that methods which do not
    use it still work. A role that a request names has to work.

    Args:
        config: its ``models`` and ``scorers``.
        upstream: the main upstream, which serves roles without an address of their own.
        probes: the account of probes of configured roles.
        observer: called around every request for samples.

    Raises:
        InputError: the environment variable of a key is not set, or an address is invalid.
    """

    def __init__(self, config: GatewayConfig, upstream: Upstream, probes: Ledger, observer: Observer) -> None:
        self._config, self._upstream, self._probes, self._observer = config, upstream, probes, observer
        self._own: list[Upstream] = []
        self._rewards: dict[str, RemoteReward] = {}
        self._paused: dict[str, float] = {}
        self._models = {role: self._target(f"models.{role}", found) for role, found in config.models.items()}
        self._judges: dict[str, tuple[Upstream, str]] = {}
        for role, found in config.scorers.items():
            name = f"scorers.{role}"
            if found.base_url is not None and found.base_url.rstrip("/").rpartition("/")[2] in REWARD_CALLS:
                self._rewards[role] = RemoteReward(
                    found.base_url, found.model, self._key(name, found), price=found.price
                )
            else:
                self._judges[role] = self._target(name, found)

    @property
    def addresses(self) -> tuple[str, ...]:
        """Addresses of upstreams and reward models, which clients may not see."""
        rewards = [found.base_url for found in self._config.scorers.values() if found.base_url is not None]
        return (self._upstream.url, *(own.url for own in self._own), *(url.rpartition("/")[0] for url in rewards))

    async def models(
        self, named: Mapping[str, str], api: Api, payer: Ledger, kind: ProbeKind
    ) -> dict[str, RemoteGenerator]:
        """Generators by role, without ``main``.

        Args:
            named: models of the main upstream by role, in place of the configured ones.
            api: the call of the request.
            payer: the account of the probes of named models.
            kind: the probe that the request needs.

        Raises:
            InputError: the main upstream does not have a named model.
            RemoteError, HttpError: as `Upstream.generator`, for a named model.
        """

        def probed(target: tuple[Upstream, str], payer: Ledger) -> Awaitable[RemoteGenerator]:
            return target[0].generator(target[1], api, payer, kind)

        return await self._found("models", self._models, named, payer, probed)

    async def scorers(self, named: Mapping[str, str], payer: Ledger) -> dict[str, Scorer]:
        """Scorers by role. A named model, one of the main upstream, judges by prompt.

        Raises:
            InputError, RemoteError, HttpError: as `models`.
        """

        async def judge(target: tuple[Upstream, str], payer: Ledger) -> Scorer:
            return Judge(await target[0].generator(target[1], "chat/completions", payer))

        async def reward(scorer: RemoteReward) -> Scorer:
            await asyncio.to_thread(lambda: scorer.style)  # the first access probes the endpoint and blocks
            return scorer

        rewards = {role: scorer for role, scorer in self._rewards.items() if role not in named}
        found = await self._found("scorers", self._judges, named, payer, judge)
        return found | await self._configured("scorers", rewards, reward)

    async def close(self) -> None:
        """Close all connections but those of the main upstream."""
        for own in self._own:
            await own.close()
        for reward in self._rewards.values():
            await reward.close()

    async def _found(
        self,
        kind: str,
        configured: Mapping[str, tuple[Upstream, str]],
        named: Mapping[str, str],
        payer: Ledger,
        probe: Callable[[tuple[Upstream, str], Ledger], Awaitable[Result]],
    ) -> dict[str, Result]:
        found = await self._configured(
            kind,
            {role: target for role, target in configured.items() if role not in named},
            lambda target: probe(target, self._probes),
        )
        listed = await self._upstream.names() if named else ()
        for role, model in named.items():
            if listed and model not in listed:
                raise UnknownNameError(f"thinktime.{kind}.{role}", model, listed)
            try:
                found[role] = await probe((self._upstream, model), payer)
            except InputError as error:
                if error.field not in ("model_name", "base_url"):
                    raise
                raise InputError(f"thinktime.{kind}.{role}", model, "the upstream does not have it") from None
        return found

    async def _configured(
        self, kind: str, targets: Mapping[str, Target], probe: Callable[[Target], Awaitable[Result]]
    ) -> dict[str, Result]:
        found: dict[str, Result] = {}
        for role, target in targets.items():
            name = f"{kind}.{role}"
            if time.monotonic() < self._paused.get(name, 0.0):
                continue
            try:
                found[role] = await asyncio.wait_for(probe(target), PATIENCE)
            except (ThinktimeError, HttpError, TimeoutError) as error:
                self._paused[name] = time.monotonic() + PAUSE
                _log.error("%s is left out for %.0f s: %s", name, PAUSE, str(error) or "no answer in time")
        return found

    def _target(self, name: str, endpoint: Endpoint) -> tuple[Upstream, str]:
        """The upstream and the model of an endpoint."""
        if endpoint.base_url is None and endpoint.key_variable is None and endpoint.price is None:
            return self._upstream, endpoint.model
        config = replace(
            self._config,
            upstream=endpoint.base_url or self._config.upstream,
            upstream_key=self._key(name, endpoint),
            price=endpoint.price,
        )
        own = Upstream(config, self._observer, self._upstream.within)
        self._own.append(own)
        return own, endpoint.model

    def _key(self, name: str, endpoint: Endpoint) -> str | None:
        """The key of an endpoint; the main upstream's key is never sent to another host."""
        if endpoint.key_variable is not None:
            key = os.environ.get(endpoint.key_variable)
            if not key:
                raise InputError(f"{name}.key_variable", endpoint.key_variable, "set this environment variable")
            return key
        here = endpoint.base_url is None or urlsplit(endpoint.base_url).netloc == urlsplit(self._config.upstream).netloc
        return self._config.upstream_key if here else None
