"""The endpoint behind a gateway: its models, and a generator for each model in use."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Sequence

from thinktime.core.ledger import Ledger
from thinktime.core.usage import Usage
from thinktime.gateway.auth import reserve
from thinktime.gateway.config import GatewayConfig
from thinktime.gateway.connections import shares
from thinktime.gateway.limits import GENERATORS, GRACE_SECONDS
from thinktime.generators.openai import RemoteGenerator
from thinktime.models.remote.client import Client, RefusedError, RemoteError
from thinktime.models.remote.observers import Observer
from thinktime.models.remote.prices import Price, listed
from thinktime.models.remote.probe import Traits
from thinktime.models.remote.protocol import Api, root_and_api
from thinktime.models.remote.refusals import models
from thinktime.models.remote.thoughts import Cap

FRESH = 60.0
"""Seconds for which the list of models is cached."""
CONNECTIONS = 1024
"""Most connections to the upstream for each model, if there are descriptors for them; further requests wait."""
PATIENCE = 10.0
"""Most seconds that a refused sample waits for another try; for a longer wait the client gets Retry-After."""
PROBE, CAP_PROBE = (1000, 64), (2000, 2000)
"""Most prompt and generated tokens of a probe of a model, and of a probe of its thoughts."""


class Upstream:
    """Connections to one endpoint.

    Args:
        config: address, key and price.
        ledger: pays for probes.
        observer: called around every request for samples.
    """

    def __init__(self, config: GatewayConfig, ledger: Ledger, observer: Observer) -> None:
        self.url, _ = root_and_api(config.upstream)
        self._connections = min(CONNECTIONS, shares()[1])
        self.client = Client(self.url, config.upstream_key, connections=self._connections)
        self._config, self._ledger, self.observer = config, ledger, observer
        self._generators: dict[tuple[Api, str, bool], asyncio.Task[RemoteGenerator]] = {}
        self._names: Sequence[str] = ()
        self._listed = -FRESH
        self._responds: bool | None = None

    def price(self, model: str) -> Price | None:
        """The configured or listed price of a model; None if it is unknown."""
        return self._config.price or listed(self.url, model)

    async def names(self) -> Sequence[str]:
        """The names of the upstream's models; empty if it does not list them."""
        if time.monotonic() - self._listed >= FRESH:
            try:
                self._names = await models(self.client)
            except RemoteError:
                self._names = ()
            self._listed = time.monotonic()
        return self._names

    async def responds(self) -> bool:
        """Whether the upstream has the Responses API. An empty request finds out once.

        Raises:
            RemoteError: the upstream does not answer.
        """
        if self._responds is None:
            try:
                await self.client.post("responses", {}, tries=1)
            except RefusedError as error:
                self._responds = error.status not in (404, 405, 501)
                if error.status == 429 or error.status >= 500:
                    self._responds = None
                    raise
            else:
                self._responds = True
        return self._responds

    async def generator(self, model: str, api: Api, *, capped: bool = False) -> RemoteGenerator:
        """A generator that has probed its model. Concurrent callers share one probe.

        Args:
            model: the upstream's name of the model.
            api: the endpoint's call.
            capped: whether to probe how thoughts can be capped, too.

        Raises:
            InputError: the model is unknown, or the key is rejected.
            RemoteError: the upstream does not answer.
            HttpError: the gateway's budget is spent.
        """
        name = (api, model, capped)
        probing = self._generators.get(name)
        if probing is None:
            probe = self._probe_cap(model, api) if capped else self._probe(model, api)
            probing = self._generators[name] = asyncio.create_task(probe)
            probing.add_done_callback(lambda task: self._keep(name, task))
        return await asyncio.shield(probing)

    async def close(self) -> None:
        """Close all connections."""
        for task in self._generators.values():
            task.cancel()
        made = await asyncio.gather(*self._generators.values(), return_exceptions=True)
        for generator in made:
            if isinstance(generator, RemoteGenerator):
                await generator.close()
        await self.client.close()

    def _keep(self, name: tuple[Api, str, bool], probed: asyncio.Task[RemoteGenerator]) -> None:
        if probed.cancelled() or probed.exception() is not None:
            self._generators.pop(name, None)
        elif len(self._generators) > GENERATORS:
            oldest = next(name for name, task in self._generators.items() if task.done())
            unused = self._generators.pop(oldest).result()
            seconds = self._config.request_seconds + GRACE_SECONDS  # until then, requests may still use it
            asyncio.get_running_loop().call_later(seconds, lambda: asyncio.ensure_future(unused.close()))

    async def _probe(self, model: str, api: Api) -> RemoteGenerator:
        price = self.price(model)
        generator = RemoteGenerator(
            f"{self.url}/{api}",
            model,
            self._config.upstream_key,
            price=price,
            connections=self._connections,
            patience=PATIENCE,
            observer=self.observer,
        )
        await self._charged(price, PROBE, generator.probe())
        return generator

    async def _probe_cap(self, model: str, api: Api) -> RemoteGenerator:
        generator = await self.generator(model, api)
        await self._charged(self.price(model), CAP_PROBE, generator.probe_cap())
        return generator

    async def _charged(self, price: Price | None, most: tuple[int, int], probe: Awaitable[Traits | Cap]) -> None:
        """Await a probe, and charge the usage that it reports, or ``most`` tokens if it fails."""
        prompt, new = most
        worst = Usage(prompt, 0, new, model_calls=6, dollars=price.dollars(prompt, 0, new) if price else None)
        await reserve(self._ledger, worst)
        spent = worst
        try:
            reported = (await probe).spent
            money = price.dollars(reported.prompt, 0, reported.generated) if price else None
            spent = Usage(reported.prompt, 0, reported.generated, dollars=money)
        finally:
            self._ledger.settle(worst, spent)
