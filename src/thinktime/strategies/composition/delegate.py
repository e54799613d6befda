"""A strategy with another model, so that a plan can choose between models (Chen et al. 2023, arXiv 2305.05176)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from thinktime.core.errors import InputError
from thinktime.core.search import Search, Strategy
from thinktime.core.selection import best
from thinktime.core.trace import Answer
from thinktime.core.types import MAIN, Capability, model_of
from thinktime.strategies.composition.roles import named_generator, refuse_inner
from thinktime.strategies.options import DRAFT
from thinktime.strategies.sampling.single import Single

ONE_SAMPLE = Single()


@dataclass(frozen=True)
class Delegate:
    """Run another strategy with the model of a role in place of the main model.

    Args:
        inner: the strategy that runs; in brackets after the name, as in ``delegate(majority:n=8):model=draft``.
        model: the role.
    """

    inner: Strategy = ONE_SAMPLE
    model: str = DRAFT
    needs: ClassVar[frozenset[str]] = frozenset({Capability.ANSWERS, model_of(DRAFT)})

    def __post_init__(self) -> None:
        if not isinstance(self.model, str):
            raise InputError("delegate.model", self.model, "give the name of a role")
        role: frozenset[str] = frozenset() if self.model == MAIN else frozenset({model_of(self.model)})
        object.__setattr__(self, "needs", role | {Capability.ANSWERS})

    def validate(self, search: Search) -> None:
        """Refuse a strategy that the model of the role cannot run."""
        from thinktime.strategies import spec  # which imports this module

        model = named_generator(search, self.model, f"delegate.model={self.model!r}: no model has this role")
        refuse_inner(search, model, self.inner, f"delegate.inner={spec(self.inner)!r}")

    async def __call__(self, search: Search) -> Answer:
        return answered(search, await search.run(self.inner, model=self.model))


def answered(search: Search, answer: Answer) -> Answer:
    """The answer of an inner search as the answer of the search around it."""
    chosen = best(search.candidates([answer.node] if answer.node is not None else []))
    return search.finish(replace(chosen, share=answer.share) if chosen is not None else None)
