"""Archon: layers of inference-time components, described as data (Saad-Falcon et al. 2024, arXiv 2409.15254).

An architecture is a list of layers. The components of a layer have one type and run side by side on the same
candidates. Generators and fusers write candidates; rankers, verifiers, votes and tests keep some of them; critics and
writers of tests add to what later layers read. The first candidate of the last layer is the answer.

`thinktime.planning.architectures` searches for a good architecture.

Ours: a ranker may be a scorer (``score``), and a ``vote`` is a layer; neither calls a model. Critiques are moved and
dropped together with their candidates. Candidates that are not named in a ranking come last.
"""

from __future__ import annotations

import logging
import os
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from thinktime.core.errors import CapabilityError, InputError, UnknownNameError, check_number
from thinktime.core.search import Search, refuse_copies
from thinktime.core.selection import Candidate, majority
from thinktime.core.trace import Answer
from thinktime.core.types import MAIN, Capability, Prompt, missing
from thinktime.prompts.layers import CRITIQUE, FUSE, RANK
from thinktime.strategies.composition.layers import (
    KINDS,
    WRITERS,
    Component,
    Critique,
    Fuse,
    Generate,
    Layers,
    Rank,
    Run,
    State,
    UnreadLayerError,
    calls,
    flows,
    together,
)
from thinktime.strategies.composition.roles import named_generator, offered_by, refuse_inner
from thinktime.strategies.options import UNREADABLE, at_least, one_of

_log = logging.getLogger("thinktime")

GENERIC: Layers = ((Generate(samples=8),), (Critique(),), (Rank(),), (Fuse(),))
"""The best stack for all tasks in the paper's ablations: a ranker and a critic before a fuser."""
MOST_INPUTS = 24
"""The most candidates that one fuser reads in the paper's search."""


@dataclass(frozen=True)
class Archon:
    """Run the layers of an architecture; the first candidate of the last layer answers.

    If this candidate is unreadable, or the budget ends, the candidates of the newest layer with readable answers vote.

    Args:
        file: a TOML file with ``layers``, a list of layers; each is a list of components, such as ``{ type =
            "generate", model = "main", samples = 8 }``.
        layers: the same in Python. Without both: 8 samples, a critic, a ranker and a fuser.
        max_fuser_inputs: the most candidates that one fuser may read.
        retries: how often a critic, ranker, verifier or test is asked again if its reply is unreadable.
        unreadable: if no reply of a layer can be read, ``raise`` a `ModelError` that quotes two, or answer by
            ``plurality`` of the candidates.
    """

    file: str = ""
    layers: Layers | None = None
    max_fuser_inputs: int = MOST_INPUTS
    retries: int = 3
    unreadable: str = "raise"
    prompts: ClassVar[tuple[Prompt, ...]] = tuple(prompt for kind in KINDS.values() for prompt in kind.prompts)
    needs: ClassVar[frozenset[str]] = frozenset({Capability.ANSWERS, *(p.capability for p in (CRITIQUE, RANK, FUSE))})

    def __post_init__(self) -> None:
        at_least("max_fuser_inputs", self.max_fuser_inputs, 1)
        at_least("retries", self.retries, 0)
        one_of("unreadable", self.unreadable, UNREADABLE)
        if self.file and self.layers is not None:
            raise InputError("archon.file", self.file, "give a file or layers, not both")
        check_layers(self.architecture, self.max_fuser_inputs)
        for place, (layer, flow) in enumerate(zip(self.architecture, flows(self.architecture), strict=True)):
            if (most := getattr(layer[0], "top_k", 0)) > flow.candidates:
                _log.warning(f"layer {place}: top_k={most}, but it gets {flow.candidates} candidates; all are kept")
        own = [component for _, component in _components(self.architecture)]
        needs = {prompt.capability for each in own if getattr(each, "model", "") == MAIN for prompt in each.prompts}
        needs |= {Capability.SCORES} if any(getattr(each, "scorer", "") == MAIN for each in own) else set()
        object.__setattr__(self, "needs", frozenset(needs) | {Capability.ANSWERS})  # those of this architecture

    @cached_property
    def architecture(self) -> Layers:
        """The layers that run."""
        if self.file:
            return load(self.file)
        return GENERIC if self.layers is None else read_layers(self.layers)

    @property
    def calls(self) -> int:
        """The most calls of models for a question, without retries; a strategy inside counts as its option ``n``."""
        return sum(call.count for call in calls(self.architecture))

    def validate(self, search: Search) -> None:
        for place, component in _components(self.architecture):
            _check_roles(f"layer {place} {component.kind}", component, search)
            if isinstance(component, WRITERS) and search.sampling.temperature == 0:
                refuse_copies(component.samples)

    async def __call__(self, search: Search) -> Answer:
        states = [State()]
        for place, layer in enumerate(self.architecture):
            run = Run(search, place, self.retries)
            try:
                parts = await together([component(run, states[-1]) for component in layer])
            except UnreadLayerError:
                if self.unreadable == "raise":
                    raise
                return search.finish(_plurality(search, states))
            candidates = tuple(node for part in parts for node in part.candidates if node.done)
            if candidates:
                states.append(replace(parts[0], candidates=candidates))
            if search.exhausted or not candidates:
                return search.finish(_plurality(search, states))
        readable = [c for c in search.candidates(states[-1].candidates) if c.answer is not None]
        return search.finish(readable[0] if readable else _plurality(search, states))


def load(file: str) -> Layers:
    """The layers of a TOML file.

    Raises:
        InputError: the file cannot be read as TOML, has no ``layers``, or something else, or an invalid component.
    """
    try:
        found = tomllib.loads(Path(os.path.expanduser(file)).read_text(encoding="utf-8"))
    except (OSError, TypeError, ValueError, RecursionError) as error:
        reason = error.strerror if isinstance(error, OSError) else error  # without the path once more
        raise InputError("archon.file", file, f"cannot read it as TOML ({reason})") from None
    if unknown := sorted(found.keys() - {"layers"}):
        raise UnknownNameError("archon.file key", unknown[0], ["layers"])
    if "layers" not in found:
        raise InputError("archon.file", file, 'it has no layers; write layers = [[{ type = "generate" }], …]')
    return read_layers(found["layers"])


def read_layers(given: Any) -> Layers:
    """The components of layers, each given as a component or as a mapping with its ``type`` and its options.

    Raises:
        InputError: something is no list or no component, or an option is unknown or out of range.
    """
    for place, layer in enumerate([given, *given] if isinstance(given, list | tuple) else [given]):
        if not isinstance(layer, list | tuple) or not layer:
            where = f"layer {place - 1}" if place else "layers"
            raise InputError(where, layer, 'give a list of one component or more, as [{ type = "generate" }]')
    return tuple(tuple(_component(f"layer {place}", each) for each in layer) for place, layer in enumerate(given))


def _component(where: str, given: Any) -> Component:
    if isinstance(given, Component):
        kind, options = type(given), {field.name: getattr(given, field.name) for field in fields(given)}
    elif isinstance(given, Mapping) and isinstance(given.get("type"), str):
        if given["type"] not in KINDS:
            raise UnknownNameError(f"{where} type", given["type"], KINDS)
        kind, options = KINDS[given["type"]], {name: value for name, value in given.items() if name != "type"}
    else:
        raise InputError(where, given, f'write a component as {{ type = "generate" }}; types: {", ".join(KINDS)}')
    known = {field.name: field.default for field in fields(kind)}
    for name, value in options.items():
        named = f"{where} {kind.kind}.{name}"
        if name not in known:
            raise UnknownNameError(f"{where} {kind.kind} option", name, known)
        if isinstance(known[name], str):
            if not isinstance(value, str):
                raise InputError(named, value, "give a text")
        else:
            check_number(named, value, whole=True)
            at_least(named, value, 0 if name == "first_k" else 1)
    component = kind(**options)
    if isinstance(component, Generate):
        if "archon" in component.strategy:  # a file could name itself
            raise InputError(
                f"{where} generate.strategy", component.strategy, "write its layers into this architecture"
            )
        component.inner  # noqa: B018  # an unknown strategy fails here
    return component


def check_layers(layers: Layers, max_fuser_inputs: int = MOST_INPUTS) -> None:
    """Refuse layers in an order that makes no sense, and fusers that read too many candidates.

    Raises:
        InputError: names the layer and the rule.
    """
    for place, layer in enumerate(layers):
        kind, before = layer[0].kind, [earlier[0].kind for earlier in layers[:place]]
        after = [later[0].kind for later in layers[place + 1 :]]
        until_fuse = after[: after.index("fuse") + 1] if "fuse" in after else after
        writes = isinstance(layer[0], WRITERS)
        rules = {
            "all components of a layer have one type": len({each.kind for each in layer}) == 1,
            "generate is only allowed in layer 0": kind != "generate" or place == 0,
            "layer 0 has to be generate": place > 0 or kind == "generate",
            f"{kind} has to be alone in its layer": len(layer) == 1 or writes,
            "the last layer of fuse has one component": kind != "fuse" or "fuse" in after or len(layer) == 1,
            "a critique needs a rank or fuse after it that reads it": kind != "critique"
            or any(each in ("rank", "fuse") for each in _until(until_fuse, "critique")),
            "write_tests has to be followed by evaluate": kind != "write_tests" or after[:1] == ["evaluate"],
            "evaluate needs write_tests before it": kind != "evaluate" or "write_tests" in before,
        }
        for rule, holds in rules.items():
            if not holds:
                raise InputError(f"layer {place}", "+".join(each.kind for each in layer), rule)
    for place, (layer, flow) in enumerate(zip(layers, flows(layers), strict=True)):
        if layer[0].kind == "fuse" and flow.candidates > max_fuser_inputs:
            fix = f"a fuser reads at most max_fuser_inputs={max_fuser_inputs} candidates; put a rank or score before it"
            raise InputError(f"layer {place} fuse", f"{flow.candidates} candidates", fix)


def _until(kinds: Sequence[str], end: str) -> Sequence[str]:
    return kinds[: kinds.index(end)] if end in kinds else kinds


def _components(layers: Layers) -> Iterator[tuple[int, Component]]:
    """Every component with the place of its layer."""
    return ((place, component) for place, layer in enumerate(layers) for component in layer)


def _check_roles(where: str, component: Component, search: Search) -> None:
    """Refuse a component whose model or scorer is missing or lacks something."""
    if scorer := getattr(component, "scorer", ""):
        if scorer not in search.scorers:
            names = ", ".join(sorted(search.scorers)) or "none"
            raise CapabilityError(f"{where}.scorer={scorer!r}: no scorer has this role; the search has {names}")
        return
    role = getattr(component, "model", MAIN)
    model = named_generator(search, role, f"{where}.model={role!r}: no model has this role")
    offered = offered_by(search, model)
    if lacking := missing({prompt.capability for prompt in component.prompts}, offered):
        raise CapabilityError(
            f"{where}: model {model.name!r} does not answer {', '.join(sorted(lacking))}; use vote or score, or a "
            f"model that does"
        )
    if isinstance(component, Generate) and component.inner is not None:
        refuse_inner(search, model, component.inner, where)


def _plurality(search: Search, states: Sequence[State]) -> Candidate | None:
    """The most frequent answer of the newest candidates with a readable one."""
    votes = (majority(search.candidates(state.candidates)) for state in reversed(states))
    return next((winner for winner in votes if winner is not None), None)
