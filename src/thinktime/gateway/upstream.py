"""The endpoint behind a gateway: its models, and a generator for each that was asked for."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Sequence

from thinktime.core.ledger import Ledger
from thinktime.core.usage import Usage
from thinktime.gateway.config import Config
from thinktime.gateway.door import obtain
from thinktime.generators.openai import RemoteGenerator
from thinktime.remote.client import Client, RefusedError, RemoteError
from thinktime.remote.observers import Observer
from thinktime.remote.prices import Price, listed
from thinktime.remote.probe import Traits
from thinktime.remote.protocol import Api, root_and_api
from thinktime.remote.refusals import models
from thinktime.remote.thoughts import Cap

FRESH = 60.0
"""Seconds for which a list of models is believed."""
CONNECTIONS = 1024
"""To the upstream at once, for each model; what is beyond waits."""
PATIENCE = 10.0
"""Seconds that a refused sample waits for another try; a longer wait is the client's, who is told how long."""
PROBE, CAP_PROBE = (1000, 64), (2000, 2000)
"""Prompt and generated tokens that a probe at a model, and one at its thoughts, takes at the most."""


class Upstream:
    """Connections to one endpoint.

    Args:
        config: its address, key and price.
        ledger: what a probe at a model is charged to.
        observer: goes around every request for samples.
    """

    def __init__(self, config: Config, ledger: Ledger, observer: Observer) -> None:
        self.url, _ = root_and_api(config.upstream)
        self.client = Client(self.url, config.upstream_key, connections=CONNECTIONS)
        self._config, self._ledger, self.observer = config, ledger, observer
        self._generators: dict[tuple[Api, str, bool], asyncio.Task[RemoteGenerator]] = {}
        self._names: Sequence[str] = ()
        self._listed = -FRESH
        self._responds: bool | None = None

    def price(self, model: str) -> Price | None:
        """What a model costs, where somebody said so."""
        return self._config.price or listed(self.url, model)

    async def names(self) -> Sequence[str]:
        """The names of its models; none where it does not list them."""
        if time.monotonic() - self._listed >= FRESH:
            try:
                self._names = await models(self.client)
            except RemoteError:
                self._names = ()
            self._listed = time.monotonic()
        return self._names

    async def responds(self) -> bool:
        """Whether it has the Responses API; seen once, by a request of nothing.

        Raises:
            RemoteError: there is no answer.
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
        """A generator that has probed at its model; whoever asks while it looks waits for the same probe.

        Args:
            model: its name.
            api: which call of it.
            capped: whether it has also to have probed how thoughts can be capped.

        Raises:
            InputError: there is no such model, or the key is not taken.
            RemoteError: there is no answer.
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

    async def _probe(self, model: str, api: Api) -> RemoteGenerator:
        price = self.price(model)
        generator = RemoteGenerator(
            f"{self.url}/{api}",
            model,
            self._config.upstream_key,
            price=price,
            connections=CONNECTIONS,
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
        """Take a probe, charged what it says that it cost, or the most that it can have."""
        prompt, new = most
        worst = Usage(prompt, 0, new, model_calls=6, dollars=price.dollars(prompt, 0, new) if price else None)
        await obtain(self._ledger, worst)
        spent = worst
        try:
            told = (await probe).spent
            money = price.dollars(told.prompt, 0, told.generated) if price else None
            spent = Usage(told.prompt, 0, told.generated, dollars=money)
        finally:
            self._ledger.settle(worst, spent)
