"""Doubles for tests: those of `thinktime.testing`, hand-written trees, a clock, and shorthands.

A tree or a function gives the text of a generator. In the tree ``{"0": done("so 7"), "1": step("well"), "1/0": …}``,
``1/0`` is the first child of the root's second child. A function takes the extension, like `drawn`.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from hypothesis import settings

from thinktime.core.clock import Clock
from thinktime.core.journal import Journal
from thinktime.core.ledger import Ledger
from thinktime.core.protocols import Answers, Embedder, Generator, Scorer
from thinktime.core.search import Search
from thinktime.core.trace import Answer
from thinktime.core.types import Capability, Child, Extension, Node, Problem, Prompt, Sampling
from thinktime.core.usage import Budget, Usage
from thinktime.scorers.embedding import HashedNgrams
from thinktime.strategies import Strategy, make
from thinktime.testing import ANSWERS as ANSWERS
from thinktime.testing import DOLLARS as DOLLARS
from thinktime.testing import FLOPS as FLOPS
from thinktime.testing import PROBLEM as PROBLEM
from thinktime.testing import WORD_PROMPTS, WordGenerator, WordJudge, WordScorer
from thinktime.testing import MemoryJournal as MemoryJournal
from thinktime.testing import Piece as Piece
from thinktime.testing import drawn as drawn
from thinktime.testing import drawn_score as drawn_score

unhurried = settings(deadline=None)
"""Settings of property tests: they have no deadline, because the machine may be busy."""

NGRAMS = HashedNgrams()

CAP = 8
"""The most tokens of one generation of the toy; the ledger reserves this many for a sample."""


def step(words: str) -> Piece:
    """A step that is not the end."""
    return Piece(words, "step")


def done(words: str, logprob: float = -1.0) -> Piece:
    """The end of a generation."""
    return Piece(words, "eos", logprob)


Script = Callable[[Extension], Piece] | Mapping[str, Piece]
Scores = Callable[[Node], float | None] | Mapping[str, float | None]


@dataclass
class FakeClock:
    """A clock that only a test or the generator moves; it replaces the module ``time``."""

    now: float = 100.0

    def monotonic(self) -> float:
        """The time."""
        return self.now


class ToyGenerator(WordGenerator):
    """Generates the texts of its script; a token takes a second on the clock, if there is one."""

    def __init__(
        self,
        script: Script,
        *,
        name: str = "toy",
        price: float | None = DOLLARS,
        clock: FakeClock | None = None,
    ) -> None:
        super().__init__(
            script if callable(script) else lambda e: script[_path_name((*e.node.path, e.index))],
            name=name,
            price=price,
        )
        self._clock = clock

    async def extend(self, extensions: Sequence[Extension]) -> list[Child]:
        children = await super().extend(extensions)
        if self._clock:
            now = self._clock.now
            children = [self._in_time(e, child, now) for e, child in zip(extensions, children, strict=True)]
            self._clock.now += max(child.passes for child in children)
        return children

    def _in_time(self, extension: Extension, child: Child, now: float) -> Child:
        """What a row had said by its deadline; one word at least."""
        left = math.inf if extension.deadline is None else max(1, math.ceil(extension.deadline.at - now))
        return child if child.passes <= left else replace(self.cut(extension, child, int(left)), finish="budget")


class ToyScorer(WordJudge):
    """Scores a node by its path, or by a function; it offers the capabilities of every kind of scorer."""

    capabilities = WordJudge.capabilities | {Capability.SELF_EVALUATION, Capability.META_REWARD, Capability.VERDICTS}

    def __init__(self, scores: Scores, *, name: str = "toy-scorer", price: float | None = 0.0) -> None:
        super().__init__(
            scores if callable(scores) else lambda node: scores[_path_name(node.path)], name=name, price=price
        )


class LengthScorer(WordScorer):
    """Prefers the longest text."""

    def __init__(self) -> None:
        super().__init__(lambda node: len(node.state.text) / 999)

    def worst_case(self, problem: Problem, node: Node, known: Node | None) -> Usage:
        return Usage(scorer_calls=1)


def toy_search(
    generator: Generator | Script = drawn,
    scorer: Scorer | Scores | None = drawn_score,
    *,
    answers: Answers | None = ANSWERS,
    embedder: Embedder | None = NGRAMS,
    prompts: Mapping[str, Prompt] | None = WORD_PROMPTS,
    problem: Problem = PROBLEM,
    budget: Budget | None = None,
    seed: int = 0,
    journal: Journal | None = None,
    cap: int = CAP,
    temperature: float = 1.0,
    within: Ledger | None = None,
    clock: Clock | None = None,
) -> Search:
    """A search on the toy; scripts and scores can be given without their classes. The draft has the same script."""
    script = generator if callable(generator) or isinstance(generator, Mapping) else drawn
    main = ToyGenerator(script) if script is generator else generator
    return Search(
        problem,
        {"main": main, "draft": ToyGenerator(script, name="draft")},  # type: ignore[dict-item]
        scorers=ToyScorer(scorer) if callable(scorer) or isinstance(scorer, Mapping) else scorer,
        answers=answers,
        embedder=embedder,
        prompts=prompts,
        sampling=Sampling(temperature, max_length=cap),
        budget=budget,
        seed=seed,
        journal=journal,
        within=within,
        clock=clock,
    )


def solve(strategy: Strategy, search: Search) -> Answer:
    """Run a strategy to its end."""

    async def run() -> Answer:
        return await strategy(search)

    return asyncio.run(run())


def configured(name: str, **options: Any) -> Strategy:
    """A strategy with options for short random texts: fitted factors, early checks, no error for unreadable replies."""
    fitting: dict[str, dict[str, Any]] = {
        "solve_or_verify": {"alpha_s": 0.7, "alpha_v": 0.6, "unreadable": "plurality"},
        "generative_verification": {"unreadable": "plurality"},
        "early_pruning": {"t_check": 3},
        "archon": {"unreadable": "plurality"},
    }
    return make(name, fitting.get(name, {}) | options)


def extend(search: Search, nodes: Sequence[Node], n: int | Sequence[int] = 1, **options: Any) -> list[Node]:
    """Run `Search.extend` to its end."""
    return asyncio.run(search.extend(nodes, n, **options))


def score(search: Search, nodes: Sequence[Node]) -> list[float | None]:
    """Run `Search.score` to its end."""
    return asyncio.run(search.score(nodes))


def texts(nodes: Sequence[Node]) -> list[str]:
    """The text of each node's generation so far."""
    return [node.state.text for node in nodes]


def _path_name(path: tuple[int, ...]) -> str:
    return "/".join(map(str, path))
