"""The endpoint behind a gateway: its models, and a generator for each that was asked for."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from thinktime.core.ledger import Ledger
from thinktime.core.usage import Usage
from thinktime.gateway.config import Config
from thinktime.gateway.door import obtain
from thinktime.generators.openai import RemoteGenerator
from thinktime.remote.client import Client, RemoteError
from thinktime.remote.prices import Price, listed
from thinktime.remote.protocol import Api, root_and_api
from thinktime.remote.refusals import models

FRESH = 60.0
"""Seconds for which a list of models is believed."""
CONNECTIONS = 1024
"""To the upstream at once, for each model; what is beyond waits."""
PATIENCE = 10.0
"""Seconds that a refused sample waits for another try; a longer wait is the client's, who is told how long."""
LOOK = (1000, 64)
"""Prompt and generated tokens that a look at a model takes at the most."""


class Upstream:
    """Connections to one endpoint.

    Args:
        config: its address, key and price.
        ledger: what a look at a model is charged to.
    """

    def __init__(self, config: Config, ledger: Ledger) -> None:
        self.url, _ = root_and_api(config.upstream)
        self.client = Client(self.url, config.upstream_key, connections=CONNECTIONS)
        self._config, self._ledger = config, ledger
        self._generators: dict[tuple[Api, str], asyncio.Task[RemoteGenerator]] = {}
        self._names: Sequence[str] = ()
        self._listed = -FRESH

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

    async def generator(self, model: str, api: Api) -> RemoteGenerator:
        """A generator that has looked at its model; whoever asks while it looks waits for the same look.

        Raises:
            InputError: there is no such model, or the key is not taken.
            RemoteError: there is no answer.
            HttpError: the gateway's budget is spent.
        """
        looking = self._generators.get((api, model))
        if looking is None:
            looking = self._generators[api, model] = asyncio.create_task(self._look(model, api))
            looking.add_done_callback(lambda task: self._keep(api, model, task))
        return await asyncio.shield(looking)

    async def close(self) -> None:
        """Close all connections."""
        for task in self._generators.values():
            task.cancel()
        made = await asyncio.gather(*self._generators.values(), return_exceptions=True)
        for generator in made:
            if isinstance(generator, RemoteGenerator):
                await generator.close()
        await self.client.close()

    def _keep(self, api: Api, model: str, looked: asyncio.Task[RemoteGenerator]) -> None:
        if looked.cancelled() or looked.exception() is not None:
            self._generators.pop((api, model), None)

    async def _look(self, model: str, api: Api) -> RemoteGenerator:
        price, (prompt, new) = self.price(model), LOOK
        worst = Usage(prompt, 0, new, model_calls=6, dollars=price.dollars(prompt, 0, new) if price else None)
        await obtain(self._ledger, worst)
        spent = worst
        try:
            generator = RemoteGenerator(
                f"{self.url}/{api}",
                model,
                self._config.upstream_key,
                price=price,
                connections=CONNECTIONS,
                patience=PATIENCE,
            )
            told = (await generator.look()).spent
            money = price.dollars(told.prompt, 0, told.generated) if price else None
            spent = Usage(told.prompt, 0, told.generated, dollars=money)
            return generator
        finally:
            self._ledger.settle(worst, spent)
