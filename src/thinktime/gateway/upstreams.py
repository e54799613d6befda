"""All upstreams of a gateway: which of them serve a model, and in which order they are asked."""

from __future__ import annotations

import asyncio
import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from thinktime.core.errors import ThinktimeError, UnknownNameError
from thinktime.core.ledger import Ledger
from thinktime.gateway.config import UpstreamConfig
from thinktime.gateway.failover import FailoverGenerator, moves_on
from thinktime.gateway.upstream import Target, Upstream, in_turn, models_in, room
from thinktime.generators.openai import ProbeKind, RemoteGenerator
from thinktime.models.remote.client import RemoteError
from thinktime.models.remote.observers import Observer
from thinktime.models.remote.protocol import Api

Observing = Callable[[str], Observer]
"""Makes the observer of the upstream at an address."""
ServedGenerator = RemoteGenerator | FailoverGenerator


class Upstreams:
    """The upstreams of a gateway, or the one of a role.

    Each request for a model has an order of the upstreams that serve it: a random one by their weights, which depends
    only on the key of the request; then those of its fallback models. Upstreams that have just failed come last.

    Args:
        configs: the upstreams.
        fallbacks: for a model, the models that are asked if all its upstreams fail.
        observing: makes the observer of each upstream.
        seconds: longest time of a probe.
        within: limits the requests of all upstreams of the gateway together; by default of these.

    Raises:
        InputError: the environment variable of a key is not set.
    """

    def __init__(
        self,
        configs: Sequence[UpstreamConfig],
        fallbacks: Mapping[str, Sequence[str]],
        observing: Observing,
        seconds: float,
        within: asyncio.Semaphore | None = None,
    ) -> None:
        self.within = within or room()
        self.all = tuple(Upstream(each, observing(each.url), self.within, seconds) for each in configs)
        self._fallbacks = fallbacks

    @property
    def addresses(self) -> tuple[str, ...]:
        """The addresses, which clients may not see."""
        return tuple(each.url for each in self.all)

    def targets(self, model: str, key: str) -> list[Target]:
        """Where to ask for a model, in this order; one or more.

        Args:
            model: the client's name of it.
            key: of the request. Requests with the same key have the same order, unless upstreams fail.

        Raises:
            UnknownNameError: no upstream has the model.
        """
        found: list[Target] = []
        for name in (model, *self._fallbacks.get(model, ())):
            for target in sorted(self._serving(name), key=lambda target: _place(target, key)):
                if target not in found:
                    found.append(target)
        if not found:
            raise UnknownNameError("model_name", model, self._named())
        return in_turn(found)

    async def names(self) -> Sequence[str]:
        """The names of all models; empty if an upstream that takes all models does not list its own."""
        lists = await asyncio.gather(*(each.names() for each in self.all if each.config.models is None))
        return [*self._named(), *(name for names in lists for name in names)] if all(lists) else ()

    async def listing(self) -> dict[str, Any]:
        """The list of models, each once. Upstreams that do not answer are left out as long as any answers.

        Raises:
            RemoteError: no upstream answers, and none has models in its settings.
        """
        open_ended = [each for each in self.all if each.config.models is None]
        lists = await asyncio.gather(*(each.listing() for each in open_ended), return_exceptions=True)
        about = {"object": "model", "created": 0, "owned_by": "thinktime"}
        models = {name: {"id": name, **about} for name in self._named()}
        whole: dict[str, Any] = {"object": "list"}
        for found in lists:
            if isinstance(found, RemoteError):
                if len(lists) == len(self.all) and all(isinstance(each, RemoteError) for each in lists):
                    raise found
            elif isinstance(found, BaseException):
                raise found
            else:
                whole |= found
                for entry in models_in(found):
                    models.setdefault(entry["id"], entry)
        return whole | {"data": list(models.values())}

    async def reachable(self) -> dict[str, bool]:
        """Whether each upstream answers, by its name."""
        answers = await asyncio.gather(*(each.reachable() for each in self.all))
        return {each.config.name: answer for each, answer in zip(self.all, answers, strict=True)}

    async def generator(
        self, model: str, api: Api, payer: Ledger, kind: ProbeKind = "traits", key: str = ""
    ) -> ServedGenerator:
        """A generator for a model. With several targets, it asks the next one if one fails.

        Args:
            model: the client's name of it.
            api: the call.
            payer: the account of the probes.
            kind: the probe that the caller needs.
            key: as in `targets`.

        Raises:
            UnknownNameError: no upstream has the model.
            InputError, RemoteError, HttpError: as `Upstream.generator`, of the last target.
        """
        targets = self.targets(model, key)
        if len(targets) == 1:
            return await targets[0].upstream.generator(targets[0].model, api, payer, kind)

        async def probed(target: Target) -> RemoteGenerator:
            return await target.upstream.generator(target.model, api, payer, kind)

        # one name for every order, so that a request finds its samples in the bank
        names = "|".join(sorted({f"{target.model}@{target.name}" for target in targets}))
        for place, target in enumerate(targets):
            try:
                first = await probed(target)
            except ThinktimeError as error:
                if place == len(targets) - 1 or not moves_on(error):
                    raise
                target.pause(error)
            else:
                return FailoverGenerator(f"{model}@({names})/{api}", targets[place:], first, probed)
        raise AssertionError("the last target returns or raises")

    async def close(self) -> None:
        """Close all connections."""
        for each in self.all:
            await each.close()

    def _named(self) -> list[str]:
        return sorted({name for each in self.all for name in each.config.models or ()})

    def _serving(self, model: str) -> list[Target]:
        """The upstreams that name a model, or else those that take all models."""
        named = [
            Target(each, each.config.models[model])
            for each in self.all
            if each.config.models is not None and model in each.config.models
        ]
        return named or [Target(each, model) for each in self.all if each.config.models is None]


def _place(target: Target, key: str) -> float:
    """A number by which targets are sorted. Each comes first with a probability in proportion to its weight.

    It is an exponential variable of that rate, drawn by a hash: weighted rendezvous hashing. So the order of the others
    does not change if one is added or left out.
    """
    weight = target.upstream.config.weight
    hashed = hashlib.blake2b(f"{key}/{target.name}/{target.model}".encode(), digest_size=8).digest()
    uniform = (int.from_bytes(hashed) + 1) / (2**64 + 1)
    return -math.log(uniform) / weight if weight else math.inf
