"""The models and scorers of a search by role: those of the configuration, and those that a request names."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import TypeVar
from urllib.parse import urlsplit

from thinktime.core.errors import InputError, ThinktimeError, UnknownNameError
from thinktime.core.ledger import Ledger
from thinktime.core.protocols import Scorer
from thinktime.gateway.config import Endpoint, GatewayConfig, UpstreamConfig, secret
from thinktime.gateway.errors import HttpError
from thinktime.gateway.upstreams import Observing, ServedGenerator, Upstreams
from thinktime.generators.openai import ProbeKind
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
        upstreams: of the gateway. They serve roles without an address of their own.
        probes: the account of probes of configured roles.
        observing: makes the observer of an upstream.

    Raises:
        InputError: the environment variable of a key is not set, or an address is invalid.
    """

    def __init__(self, config: GatewayConfig, upstreams: Upstreams, probes: Ledger, observing: Observing) -> None:
        self._config, self._upstreams, self._probes, self._observing = config, upstreams, probes, observing
        self._own: list[Upstreams] = []
        self._rewards: dict[str, RemoteReward] = {}
        self._paused: dict[str, float] = {}
        self._models = {role: self._target(f"models.{role}", found) for role, found in config.models.items()}
        self._judges: dict[str, tuple[Upstreams, str]] = {}
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
        served = [address for each in (self._upstreams, *self._own) for address in each.addresses]
        return (*served, *(url.rpartition("/")[0] for url in rewards))

    async def models(
        self, named: Mapping[str, str], api: Api, payer: Ledger, kind: ProbeKind, key: str
    ) -> dict[str, ServedGenerator]:
        """Generators by role, without ``main``.

        Args:
            named: models of the gateway by role, in place of the configured ones.
            api: the call of the request.
            payer: the account of the probes of named models.
            kind: the probe that the request needs.
            key: of the request, which selects among several upstreams.

        Raises:
            InputError: no upstream has a named model.
            RemoteError, HttpError: as `Upstreams.generator`, for a named model.
        """

        def probed(target: tuple[Upstreams, str], payer: Ledger) -> Awaitable[ServedGenerator]:
            return target[0].generator(target[1], api, payer, kind, key)

        return await self._found("models", self._models, named, payer, probed)

    async def scorers(self, named: Mapping[str, str], payer: Ledger, key: str) -> dict[str, Scorer]:
        """Scorers by role. A named model, one of the gateway, judges by prompt.

        Raises:
            InputError, RemoteError, HttpError: as `models`.
        """

        async def judge(target: tuple[Upstreams, str], payer: Ledger) -> Scorer:
            return Judge(await target[0].generator(target[1], "chat/completions", payer, key=key))

        async def reward(scorer: RemoteReward) -> Scorer:
            await asyncio.to_thread(lambda: scorer.style)  # the first access probes the endpoint and blocks
            return scorer

        rewards = {role: scorer for role, scorer in self._rewards.items() if role not in named}
        found = await self._found("scorers", self._judges, named, payer, judge)
        return found | await self._configured("scorers", rewards, reward)

    async def close(self) -> None:
        """Close all connections but those of the gateway's upstreams."""
        for own in self._own:
            await own.close()
        for reward in self._rewards.values():
            await reward.close()

    async def _found(
        self,
        kind: str,
        configured: Mapping[str, tuple[Upstreams, str]],
        named: Mapping[str, str],
        payer: Ledger,
        probe: Callable[[tuple[Upstreams, str], Ledger], Awaitable[Result]],
    ) -> dict[str, Result]:
        found = await self._configured(
            kind,
            {role: target for role, target in configured.items() if role not in named},
            lambda target: probe(target, self._probes),
        )
        listed = await self._upstreams.names() if named else ()
        for role, model in named.items():
            if listed and model not in listed:
                raise UnknownNameError(f"thinktime.{kind}.{role}", model, listed)
            try:
                found[role] = await probe((self._upstreams, model), payer)
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

    def _target(self, name: str, endpoint: Endpoint) -> tuple[Upstreams, str]:
        """The upstream and the model of an endpoint."""
        if endpoint.base_url is None and endpoint.key_variable is None and endpoint.price is None:
            return self._upstreams, endpoint.model
        url = endpoint.base_url or self._config.upstream
        if not isinstance(url, str):
            raise InputError(f"{name}.base_url", None, "give the address that the key or the price belongs to")
        config = UpstreamConfig(name.rpartition(".")[2], url, price=endpoint.price, key=self._key(name, endpoint))
        own = Upstreams([config], {}, self._observing, self._config.request_seconds, self._upstreams.within)
        self._own.append(own)
        return own, endpoint.model

    def _key(self, name: str, endpoint: Endpoint) -> str | None:
        """The key of an endpoint; the main upstream's key is never sent to another host."""
        if endpoint.key_variable is not None:
            return secret(f"{name}.key_variable", endpoint.key_variable)
        main = self._config.upstream
        if not isinstance(main, str):
            return None
        here = endpoint.base_url is None or urlsplit(endpoint.base_url).netloc == urlsplit(main).netloc
        return self._config.upstream_key if here else None
