"""The models of roles that a strategy names in its options."""

from __future__ import annotations

from thinktime.core.errors import CapabilityError
from thinktime.core.protocols import Generator
from thinktime.core.search import Search, Strategy
from thinktime.core.types import MAIN, Capability, missing


def generator_of(search: Search, role: str) -> Generator:
    """The model of a role, in an inner search too."""
    return search.generator if role == MAIN else search.models[role]


def named_generator(search: Search, role: str, where: str) -> Generator:
    """The model of a role that an option names.

    Args:
        search: has the models.
        role: the name of one of them.
        where: the beginning of the message: the option and its value.

    Raises:
        CapabilityError: no model has this role.
    """
    if role not in {MAIN, *search.models}:
        raise CapabilityError(f"{where}; the search has {', '.join(sorted(search.models))}")
    return generator_of(search, role)


def offered_by(search: Search, model: Generator) -> frozenset[str]:
    """What the model can do, with the prompts that the search brings."""
    return model.capabilities | {prompt.capability for prompt in search.prompts.values()}


def refuse_inner(search: Search, model: Generator, inner: Strategy, where: str) -> None:
    """Refuse an inner strategy that this model cannot run with the scorer of the search.

    Raises:
        CapabilityError: names what is missing.
    """
    offered = offered_by(search, model) | {Capability.ANSWERS}
    offered |= search.scorer.capabilities if search.scorer is not None else frozenset()
    if lacking := missing(inner.needs, offered):
        raise CapabilityError(f"{where}: its strategy needs {', '.join(sorted(lacking))}")
