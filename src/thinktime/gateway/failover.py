"""A model that several upstreams serve: what one of them cannot answer, the next one is asked for."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from copy import copy
from dataclasses import replace
from typing import Any, TypeGuard

from thinktime.core.errors import InputError, ThinktimeError
from thinktime.core.types import Capability, Child, Extension, Node, Problem
from thinktime.core.usage import Usage
from thinktime.gateway.proxy import TEMPLATE
from thinktime.gateway.upstream import Target, in_turn
from thinktime.generators.openai import RemoteGenerator
from thinktime.generators.text import RemoteText
from thinktime.models.remote.client import TRIES, OnEvent, RefusedError, UnreachableError, UnreadableError

OF_UPSTREAM = ("api_key", "base_url", "model_name")
"""Fields of errors that say that the settings of one upstream are wrong."""


def moves_on(error: Exception | None) -> TypeGuard[Exception]:
    """Whether the next upstream is asked: this one cannot be reached, is too busy or fails, and bills nothing."""
    if isinstance(error, RefusedError):
        return not error.billed and (error.status == 429 or error.status >= 500)
    return isinstance(error, UnreachableError) or (isinstance(error, InputError) and error.field in OF_UPSTREAM)


class FailoverGenerator:
    """Samples from the first of several targets that answers; each state says which one it was.

    A failure that may be billed is charged and is not moved to the next target: the search pays for another sample, as
    with a single upstream, and that one goes to the next target. A target that fails is asked last for a while.

    Args:
        name: the same for every order of the targets, so that a request finds its samples in a bank.
        targets: in the order in which they are asked.
        first: the probed generator of the first target. It decides what a search can do.
        probed: probes another target when it is needed.
    """

    unit = "tokens"

    def __init__(
        self,
        name: str,
        targets: Sequence[Target],
        first: RemoteGenerator,
        probed: Callable[[Target], Awaitable[RemoteGenerator]],
    ) -> None:
        self.name, self._targets, self._first, self._probed = name, targets, first, probed
        self._fields: dict[str, Any] | None = None
        self._limit: int | None = None

    @property
    def capabilities(self) -> frozenset[str]:
        """As `RemoteGenerator.capabilities`, of the first target."""
        return self._first.capabilities

    def sending(
        self,
        fields: Mapping[str, Any],
        on_event: OnEvent | None = None,
        thinking_tokens: int | None = None,
        *,
        logprobs: bool = True,
    ) -> FailoverGenerator:
        """As `RemoteGenerator.sending`."""
        one = copy(self)
        one._fields = {"fields": fields, "on_event": on_event, "logprobs": logprobs}
        one._limit = thinking_tokens
        one._first = self._first.sending(**one._fields, thinking_tokens=thinking_tokens)
        one.name += one._first.name.removeprefix(self._first.name)
        return one

    def root(self, problem: Problem, known: Sequence[Any] = (), *, quotes: bool = False) -> RemoteText:
        """As `RemoteGenerator.root`."""
        return self._first.root(problem, known, quotes=quotes)

    def adopt(self, root: RemoteText, state: Any, known: Sequence[Any] = ()) -> RemoteText:
        """As `RemoteGenerator.adopt`."""
        return self._first.adopt(root, state, known)

    def length(self, state: RemoteText) -> int:
        """As `RemoteGenerator.length`."""
        return self._first.length(state)

    def worst_case(self, node: Node, max_length: int) -> Usage:
        """The most that a child can cost at any of the targets; dollars are unknown if any of the prices is."""
        worst = self._first.worst_case(node, max_length)
        prices = [target.upstream.price(target.model) for target in self._targets[1:]]
        if worst.dollars is None or None in prices:
            return replace(worst, dollars=None)
        # another template may be longer, and a thought that is closed at the cap is read again
        prompt = (1 if self._limit is None else 2) * (self.most_read(node.state) + TEMPLATE + max_length)
        most = [price.most(prompt, max_length) for price in prices if price is not None]
        return replace(worst, dollars=max(worst.dollars, *most))

    def most_read(self, state: RemoteText) -> int:
        """As `RemoteGenerator.most_read`."""
        return self._first.most_read(state)

    async def extend(self, extensions: Sequence[Extension]) -> list[Child]:
        """As `RemoteGenerator.extend`. Only the last target is tried several times.

        Raises:
            InputError: all failed because the request is invalid.
        """
        made: dict[str, Child] = {}
        left = list(extensions)
        for place, target in enumerate(in_turn(self._targets)):
            last = place == len(self._targets) - 1
            try:
                generator = await self._of(target, left, tries=TRIES if last else 1)
                children = await generator.extend(left)
            except ThinktimeError as error:
                if last or not moves_on(error):
                    if made:  # some of them have failed before in another way
                        return [made[each.key] for each in extensions]
                    raise
                target.pause(error)
                continue
            made |= dict(zip((each.key for each in left), children, strict=True))
            for child in children:
                if moves_on(child.error) or isinstance(child.error, UnreadableError):
                    target.pause(child.error)
                    break
            left = [each for each in left if moves_on(made[each.key].error)]
            if not left:
                break
        return [made[each.key] for each in extensions]

    def cut(self, extension: Extension, child: Child, tokens: int) -> Child:
        """As `RemoteGenerator.cut`."""
        return self._first.cut(extension, child, tokens)

    def pack(self, node_state: RemoteText, state: RemoteText) -> dict[str, Any]:
        """As `RemoteGenerator.pack`."""
        return self._first.pack(node_state, state)

    def unpack(self, node_state: RemoteText, packed: Mapping[str, Any]) -> RemoteText:
        """As `RemoteGenerator.unpack`."""
        return self._first.unpack(node_state, packed)

    async def close(self) -> None:
        """Do nothing: the upstreams close their connections."""

    async def _of(self, target: Target, extensions: Sequence[Extension], tries: int) -> RemoteGenerator:
        """The generator of a target, for the request of this one.

        Raises:
            InputError: it lacks what these extensions need.
        """
        generator = self._first
        if target is not self._targets[0]:
            generator = await self._probed(target)
            capped = self._limit is None or generator.cap.by is not None
            if not capped or not _needed(extensions) <= generator.capabilities:
                raise InputError("base_url", target.name, "this upstream lacks what the method needs")
            if self._fields is not None:
                generator = generator.sending(**self._fields, thinking_tokens=self._limit)
        return generator.named(target.name, tries)


def _needed(extensions: Sequence[Extension]) -> set[str]:
    """The capabilities without which these extensions cannot be made."""
    needed: set[str] = set()
    for each in extensions:
        needed |= {Capability.PREFIX} if each.node.state.text else set()
        needed |= {Capability.STEPS} if each.until == "step" else set()
        needed |= {Capability.CANCEL} if each.race is not None else set()
        needed |= {Capability.CONFIDENCES} if each.confidences else set()
    return needed
