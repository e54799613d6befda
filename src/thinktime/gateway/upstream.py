"""One endpoint behind a gateway: its models, and a generator for each model in use."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from weakref import WeakValueDictionary

from thinktime.core.clock import Deadline
from thinktime.core.errors import ThinktimeError
from thinktime.core.ledger import Ledger, Reservation
from thinktime.core.usage import Usage, uncounted
from thinktime.gateway.auth import reserve
from thinktime.gateway.config import UpstreamConfig
from thinktime.gateway.connections import shares
from thinktime.gateway.limits import GENERATORS, GRACE_SECONDS, MODELS
from thinktime.generators.openai import ProbeKind, RemoteGenerator
from thinktime.models.remote.client import Client, RefusedError, RemoteError, Reply, TooLateError
from thinktime.models.remote.limits import LISTING_SECONDS
from thinktime.models.remote.observers import Observer
from thinktime.models.remote.prices import Price, listed
from thinktime.models.remote.protocol import Api, root_and_api
from thinktime.models.remote.refusals import listed_in

_log = logging.getLogger("thinktime")

FRESH = 60.0
"""Seconds for which the list of models is cached."""
CONNECTIONS = 1024
"""Most connections to the upstream for each model, at most half of the descriptors; further requests wait."""
PAUSE, LONGEST_PAUSE = 10.0, 60.0
"""Seconds for which a failed upstream of a model is asked last, and the most if it asks for more by Retry-After."""
READY_SECONDS = 5.0
"""Seconds for which the answer to "is the upstream reachable" is kept."""
LISTINGS = 8
"""Connections for the list of models and the like, which are not limited by those for samples."""
PATIENCE = 10.0
"""Most seconds that a refused sample waits for another try; for a longer wait the client gets Retry-After."""
PROBES: dict[ProbeKind, tuple[int, int, int]] = {"traits": (2000, 80, 12), "cap": (2000, 2000, 9), "obeys": (500, 3, 1)}
"""Most prompt tokens, generated tokens and samples of each probe."""


class Upstream:
    """Connections to one endpoint.

    Args:
        config: address, key, price and models.
        observer: called around every request for samples.
        within: limits the requests of all upstreams of the gateway together.
        seconds: longest time of a probe.

    Raises:
        InputError: the environment variable of its key is not set.
    """

    def __init__(self, config: UpstreamConfig, observer: Observer, within: asyncio.Semaphore, seconds: float) -> None:
        self.url, _ = root_and_api(config.url)
        free = shares()[1]
        self._within, self._seconds = within, seconds
        self._connections = min(CONNECTIONS, max(1, free // 2))
        self._key = config.find_key()
        self.client = Client(self.url, self._key, connections=free, within=within)
        self._proxied: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()
        self._lists = Client(self.url, self._key, connections=LISTINGS)
        self._listing: asyncio.Task[Reply] | None = None
        self.config, self.observer = config, observer
        self._paused: dict[str, float] = {}
        self._generators: dict[tuple[Api, str, ProbeKind], asyncio.Task[RemoteGenerator]] = {}
        self._names: Sequence[str] = ()
        self._listed = -FRESH
        self._asked, self._answers = -READY_SECONDS, False
        self._responds: bool | None = None

    def price(self, model: str) -> Price | None:
        """The configured or listed price of a model; None if it is unknown."""
        return self.config.price or listed(self.url, model)

    def pause(self, model: str, error: Exception) -> None:
        """Ask the other upstreams of a model first for a while, because this one has failed."""
        now = time.monotonic()
        self._paused = {name: until for name, until in self._paused.items() if until > now}
        wanted = error.retry_after if isinstance(error, RefusedError) else None
        seconds = min(max(PAUSE, wanted or 0.0), LONGEST_PAUSE)
        if model not in self._paused:
            _log.warning("upstream %s: %s is asked last for %.0f s: %s", self.config.name, model, seconds, error)
        self._paused[model] = now + seconds

    def paused(self, model: str) -> bool:
        """Whether `pause` has put a model off, and the time is not over."""
        return time.monotonic() < self._paused.get(model, 0.0)

    def proxied(self, model: str) -> asyncio.Semaphore:
        """Limits the requests for a model that are passed through. A silent model leaves connections for others."""
        return self._proxied.setdefault(model, asyncio.Semaphore(self._connections))

    async def listing(self) -> Mapping[str, Any]:
        """The upstream's list of models. Concurrent callers share one request.

        Raises:
            RemoteError: the upstream does not answer, or not in time.
        """
        if self._listing is None or self._listing.done():
            self._listing = asyncio.create_task(self._lists.get("models"))
        return (await asyncio.shield(self._listing)).body

    async def names(self) -> Sequence[str]:
        """The names of the upstream's models; empty if it does not list them."""
        if time.monotonic() - self._listed >= FRESH:
            try:
                self._names = listed_in(await self.listing())
            except RemoteError:
                self._names = ()
            self._listed = time.monotonic()
        return self._names

    async def reachable(self) -> bool:
        """Whether the upstream answered a request for its models in the last seconds, if only by a refusal."""
        if time.monotonic() - self._asked >= READY_SECONDS:
            self._asked = time.monotonic()
            try:
                await self.listing()
            except RefusedError as error:
                self._answers = error.status < 500
            except ThinktimeError:
                self._answers = False
            else:
                self._answers = True
        return self._answers

    async def responds(self) -> bool:
        """Whether the upstream has the Responses API. An empty request finds out once.

        Raises:
            RemoteError: the upstream does not answer.
        """
        if self._responds is None:
            try:
                deadline = Deadline(time.monotonic() + LISTING_SECONDS)
                await self._lists.post("responses", {}, tries=1, deadline=deadline)
            except RefusedError as error:
                self._responds = error.status not in (404, 405, 501)
                if error.status == 429 or error.status >= 500:
                    self._responds = None
                    raise
            else:
                self._responds = True
        return self._responds

    async def generator(self, model: str, api: Api, payer: Ledger, kind: ProbeKind = "traits") -> RemoteGenerator:
        """A generator that has probed its model. Concurrent callers share one probe, and the first one pays for it.

        Args:
            model: the upstream's name of the model.
            api: the endpoint's call.
            payer: the account of the caller.
            kind: the probe that the caller needs; every kind includes the probe of the traits.

        Raises:
            InputError: the model is unknown, or the key is rejected.
            RemoteError: the upstream does not answer.
            HttpError: too little of the payer's budget is left.
        """
        probed = None if kind == "traits" else await self.generator(model, api, payer)
        name = (api, model, kind)
        if name not in self._generators:
            prompt, new, samples = PROBES[kind]
            price = self.price(model)
            money = price.most(prompt, new) if price else None
            worst = Usage(prompt, 0, new, model_calls=samples, dollars=money)
            reservation = await reserve(payer, worst, f"a probe of the model ({new} tokens, {samples} calls); raise it")
            if name in self._generators:  # another caller was faster
                payer.settle([reservation], Usage())
            else:
                probe = asyncio.create_task(self._probe(probed or self._made(model, api), payer, reservation, kind))
                probe.add_done_callback(lambda task: self._keep(name, task))
                self._generators[name] = probe
        return await asyncio.shield(self._generators[name])

    def probed(self, model: str, api: Api) -> RemoteGenerator | None:
        """The generator of a model that was probed before; None for all others."""
        task = self._generators.get((api, model, "traits"))
        return None if task is None or not task.done() or task.cancelled() or task.exception() else task.result()

    async def close(self) -> None:
        """Close all connections."""
        for task in self._generators.values():
            task.cancel()
        made = await asyncio.gather(*self._generators.values(), return_exceptions=True)
        for generator in made:
            if isinstance(generator, RemoteGenerator):
                await generator.close()
        await self.client.close()
        await self._lists.close()

    def _keep(self, name: tuple[Api, str, ProbeKind], probed: asyncio.Task[RemoteGenerator]) -> None:
        if probed.cancelled() or probed.exception() is not None:
            self._generators.pop(name, None)
        elif len(self._generators) > GENERATORS:
            oldest = next(name for name, task in self._generators.items() if task.done())
            unused = self._generators.pop(oldest).result()
            seconds = self._seconds + GRACE_SECONDS  # until then, requests may still use it
            asyncio.get_running_loop().call_later(seconds, lambda: asyncio.ensure_future(unused.close()))

    def _made(self, model: str, api: Api) -> RemoteGenerator:
        return RemoteGenerator(
            f"{self.url}/{api}",
            model,
            self._key,
            price=self.price(model),
            connections=self._connections,
            patience=PATIENCE,
            observer=self.observer,
            within=self._within,
        )

    async def _probe(
        self, generator: RemoteGenerator, payer: Ledger, reservation: Reservation, kind: ProbeKind
    ) -> RemoteGenerator:
        """Probe, and charge the cost in place of the reservation. An immediate refusal costs one call."""
        before = generator.probed
        spent = uncounted(reservation.worst)
        seconds = self._seconds
        try:
            async with asyncio.timeout(seconds):
                await generator.probe(kind)
        except TimeoutError:
            raise TooLateError(self.url, seconds, billed=True) from None
        except ThinktimeError:
            spent = generator.probed - before
            if not spent.model_calls:
                spent = replace(spent, model_calls=1)
            raise
        else:
            spent = generator.probed - before
        finally:
            payer.settle([reservation], spent)
        return generator


@dataclass(frozen=True)
class Target:
    """A model on one upstream, by the upstream's name of it."""

    upstream: Upstream
    model: str

    @property
    def name(self) -> str:
        """The name of the upstream."""
        return self.upstream.config.name

    def pause(self, error: Exception) -> None:
        """As `Upstream.pause`."""
        self.upstream.pause(self.model, error)


def in_turn(targets: Sequence[Target]) -> list[Target]:
    """The targets in this order, but those that have just failed come last."""
    return sorted(targets, key=lambda target: target.upstream.paused(target.model))


def room() -> asyncio.Semaphore:
    """What limits the connections to all upstreams together."""
    return asyncio.Semaphore(shares()[1])


def models_in(listing: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The first models of an upstream's list, with what it says about them."""
    models = [model for model in listing.get("data") or () if isinstance(model, dict) and "id" in model]
    return models[:MODELS]
