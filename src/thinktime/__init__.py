"""Inference-time compute: spend a budget on sampling, search and verification, and say exactly what it cost.

    answer = thinktime.solve("How many …?", model="models/qwen3", strategy="majority:n=8", budget="4000tok")
    print(answer.value, answer.usage)

Every strategy is here by its class too, as `thinktime.Majority`.
"""

from typing import TYPE_CHECKING, Any

from thinktime.core.environment import Environment
from thinktime.core.errors import BankError, CapabilityError, InputError, ModelError, ThinktimeError, UnknownNameError
from thinktime.core.ledger import Ledger
from thinktime.core.protocols import Answers, Generator, Scorer
from thinktime.core.search import Search
from thinktime.core.selection import Candidate, best, majority, weighted_majority
from thinktime.core.trace import Answer
from thinktime.core.types import Capability, Child, Extension, Node, Problem, Prompt, Sampling, Score
from thinktime.core.usage import Budget, Usage

if TYPE_CHECKING:
    from thinktime.config import Config, ModelSpec, ScorerSpec
    from thinktime.session import Session, asolve, open_session, solve

__version__ = "0.2.0"

__all__ = [
    "Answer",
    "Answers",
    "BankError",
    "Budget",
    "Candidate",
    "Capability",
    "CapabilityError",
    "Child",
    "Config",
    "Environment",
    "Extension",
    "Generator",
    "InputError",
    "Ledger",
    "ModelError",
    "ModelSpec",
    "Node",
    "Problem",
    "Prompt",
    "Sampling",
    "Score",
    "Scorer",
    "ScorerSpec",
    "Search",
    "Session",
    "ThinktimeError",
    "UnknownNameError",
    "Usage",
    "asolve",
    "best",
    "majority",
    "open_session",
    "solve",
    "weighted_majority",
]


def __getattr__(name: str) -> Any:
    """`Config`, `Session`, `solve` and the strategies' classes, which are loaded at their first use."""
    if name in ("Config", "ModelSpec", "ScorerSpec"):
        from thinktime import config

        return getattr(config, name)
    if name in ("Session", "asolve", "open_session", "solve"):
        from thinktime import session

        return getattr(session, name)
    if not name.startswith("_"):
        from thinktime.strategies import BUILT_IN

        for kind in BUILT_IN.values():
            if kind.__name__ == name:
                return kind
    raise AttributeError(f"module 'thinktime' has no attribute {name!r}")
