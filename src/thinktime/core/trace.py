"""The results of a search: its answer, and a record of every node."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from thinktime.core.errors import ThinktimeError
from thinktime.core.meter import Account
from thinktime.core.types import Node, Problem
from thinktime.core.usage import Usage


@dataclass(frozen=True)
class Answer:
    """The result of a strategy.

    ``finish`` is ``done``, ``budget`` (the budget ended the search; this is the best so far) or ``incomplete``
    (no complete generation with a readable answer; ``value`` is None).
    """

    value: str | None
    finish: Literal["done", "budget", "incomplete"]
    usage: Usage
    node: Node | None = None
    share: float | None = None
    path_tokens: int = 0
    """Length of the returned path; ``usage.generated_tokens`` counts the whole tree."""
    passes: int = 0
    """Sequential forward passes on the longest chain of the tree."""
    accounts: Mapping[Account, Usage] = field(default_factory=dict)
    """What each role spent in each phase; together they are ``usage``."""


@dataclass
class Record:
    """One node of the trace."""

    node: Node
    turn: int = 0
    """The number of the verb's call that made it. Calls are numbered when they begin, also if they are concurrent."""
    score: float | None = None
    steps: tuple[float, ...] = ()
    pruned: bool = False
    prompt: str | None = None
    """The name of the prompt that this root asks; None if it asks the problem itself."""
    about: tuple[Node, ...] = ()
    """The generations that the prompt is about."""
    said: tuple[Node, ...] = ()
    """The earlier replies that the prompt quotes."""
    question: Problem | None = None
    """The problem that the root stands for."""
    is_answer: bool = True
    """Whether the children of this root answer the problem; False for checks, judgements and plans."""
    error: ThinktimeError | None = None
    """Why the child failed."""
