"""Doubles for tests: a generator over words that costs one token a word, a scorer, and an in-memory journal.

What the generator says is either a tree written out by hand, ``{"0": done("so 7"), "1": step("well"), "1/0": …}``, in
which ``1/0`` is the first child of the root's second, or `drawn`, which draws from the extension's key alone, as a
real sampler does.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any
from zlib import crc32

from hypothesis import settings

from thinktime.answers import TextAnswers
from thinktime.core.search import Answer, Journal, Search
from thinktime.core.types import (
    Answers,
    Capability,
    Child,
    Extension,
    Finish,
    Generator,
    Node,
    Problem,
    Reading,
    Sampling,
    Scorer,
)
from thinktime.core.usage import Budget, Usage
from thinktime.generators.text import Text, pack, unpack
from thinktime.scorers.embedding import HashedNgrams
from thinktime.strategies import Strategy

unhurried = settings(deadline=None)
"""For properties: a busy machine is no failure."""

PROBLEM = Problem("sum", "what is 3 + 4", "7")
CAP = 8
"""Tokens that one whole generation of the toy may have: what the ledger must reserve for a sample."""
FLOPS = 2.0
"""Of one generated token."""
DOLLARS = 1 / 64
"""Of one generated token; a power of two, so sums are exact."""
SECONDS = 0.25
"""Of one generated token."""


@dataclass(frozen=True)
class Piece:
    """What one child says beyond its parent, why it stops, and the log-probability of saying it."""

    words: str
    finish: Finish
    logprob: float = -1.0


def step(words: str) -> Piece:
    """A step after which more is to come."""
    return Piece(words, "step")


def done(words: str, logprob: float = -1.0) -> Piece:
    """The end of a generation."""
    return Piece(words, "eos", logprob)


Script = Callable[[Extension], Piece] | Mapping[str, Piece]
Scores = Callable[[Node], float | None] | Mapping[str, float | None]


def drawn(extension: Extension) -> Piece:
    """One to five words ending in a digit or, unreadably, in ``?``; a function of the extension's key alone."""
    rng = Random(extension.key)
    words = ["so"] * rng.randint(0, 4) + [rng.choice("77758?")]
    ends = extension.until == "done" or rng.random() < 0.4
    return Piece(" ".join(words), "eos" if ends else "step", logprob=-rng.random())


def drawn_score(node: Node) -> float | None:
    """A score in 0..1 for most nodes, none for some; a function of the node's key alone."""
    rng = Random(node.key)
    return None if rng.random() < 0.1 else rng.random()


def last_number(text: str) -> str | None:
    """The last word, if it is a number."""
    word = text.split()[-1] if text.split() else ""
    return word if word.isdecimal() else None


@dataclass
class Clock:
    """Time that passes only when a test, or the generator, says so. Stands in for the module ``time``."""

    now: float = 100.0

    def monotonic(self) -> float:
        """The time."""
        return self.now


class ToyGenerator:
    """Says what its script says. A row that would be too long is cut, as a real engine cuts it."""

    capabilities = frozenset({Capability.STEPS, Capability.PREFIX, Capability.LOGPROBS, Capability.CANCEL})

    def __init__(
        self,
        script: Script,
        *,
        name: str = "toy",
        price: float | None = DOLLARS,
        clock: Clock | None = None,
    ) -> None:
        self.name = name
        self.asked: list[list[Extension]] = []
        """Every batch asked for."""
        self._script = script
        self._price = price
        self._clock = clock

    def root(self, problem: Problem) -> Text:
        return Text(_ids(str(problem.prompt)))

    def length(self, state: Text) -> int:
        return len(state.ids)

    def worst_case(self, node: Node, max_tokens: int) -> Usage:
        return self._usage(node.state, max_tokens)

    async def extend(self, extensions: Sequence[Extension]) -> list[Child]:
        """All rows at once; a token takes a second on the clock, if there is one."""
        self.asked.append(list(extensions))
        await asyncio.sleep(0)  # let other searches run, as a real engine would
        children = [self._child(extension) for extension in extensions]
        for extension, child in zip(extensions, children, strict=True):
            if extension.race and child.finish == "eos" and extension.race.counts(child.state):
                extension.race.lengths.append(child.passes)
        children = [self._raced(e, child) for e, child in zip(extensions, children, strict=True)]
        if self._clock:
            self._clock.now += max(child.passes for child in children)
        return children

    def pack(self, node_state: Text, state: Text) -> dict[str, Any]:
        return pack(node_state, state)

    def unpack(self, node_state: Text, packed: Mapping[str, Any]) -> Text:
        return unpack(node_state, packed)

    def cut(self, extension: Extension, child: Child, tokens: int) -> Child:
        before: Text = extension.node.state
        ids = child.state.ids[: len(before.ids) + tokens]
        text = " ".join(child.state.text.split()[: len(ids)])
        return Child(replace(child.state, ids=ids, text=text), "pruned", self._usage(before, tokens), tokens)

    def _raced(self, extension: Extension, child: Child) -> Child:
        limit = extension.race.limit if extension.race else None
        return child if limit is None or child.passes <= limit else self.cut(extension, child, limit)

    def _child(self, extension: Extension) -> Child:
        before: Text = extension.node.state
        piece = self._piece(extension)
        words, finish = piece.words.split(), piece.finish
        if len(words) > extension.max_tokens:
            words = words[: extension.max_tokens]
            if len(before.ids) + len(words) == extension.sampling.max_tokens:
                finish = "length"
            elif extension.max_tokens == extension.at_most:
                finish = "cut"
            else:
                finish = "budget"
        if self._clock and extension.deadline is not None:
            in_time = max(1, math.ceil(extension.deadline - self._clock.now))
            if len(words) > in_time:
                words, finish = words[:in_time], "budget"
        text = " ".join([before.text, *words]).strip()
        ids = before.ids + _ids(" ".join(words))
        state = Text(before.prompt, ids, text, (*before.step_ends, len(ids)), before.logprob + piece.logprob)
        return Child(state, finish, self._usage(before, len(words)), passes=len(words))

    def _piece(self, extension: Extension) -> Piece:
        if callable(self._script):
            return self._script(extension)
        return self._script[_place((*extension.node.path, extension.index))]

    def _usage(self, before: Text, tokens: int) -> Usage:
        return Usage(
            prompt_tokens=len(before.prompt) + len(before.ids),
            generated_tokens=tokens,
            model_calls=1,
            flops=FLOPS * tokens,
            seconds=SECONDS * tokens,
            dollars=None if self._price is None else self._price * tokens,
        )


class ToyScorer:
    """Scores a node by its path, or by a function; one FLOP a token read."""

    capabilities = frozenset({Capability.SCORES, Capability.PROCESS_REWARD})

    def __init__(
        self,
        scores: Scores,
        *,
        name: str = "toy-scorer",
        price: float | None = 0.0,
    ) -> None:
        self.name = name
        self.asked: list[list[Node]] = []
        """Every batch asked for."""
        self._scores = scores
        self._price = price

    def worst_case(self, node: Node) -> Usage:
        tokens = len(node.state.ids)
        return Usage(scorer_tokens=tokens, scorer_calls=1, scorer_flops=float(tokens), dollars=self._price)

    async def score(self, nodes: Sequence[Node]) -> list[Reading]:
        self.asked.append(list(nodes))
        await asyncio.sleep(0)
        return [Reading(self._read(node), self.worst_case(node), steps=(0.5,)) for node in nodes]

    def _read(self, node: Node) -> float | None:
        return self._scores(node) if callable(self._scores) else self._scores[_place(node.path)]


@dataclass
class Notebook:
    """A journal in memory."""

    samples: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    readings: dict[tuple[str, str], Reading] = field(default_factory=dict)

    def find_sample(self, key: str) -> Mapping[str, Any] | None:
        return self.samples.get(key)

    def add_samples(self, problem: Problem, model: str, samples: Sequence[tuple[str, Mapping[str, Any]]]) -> None:
        self.samples.update(samples)

    def find_reading(self, key: str, scorer: str) -> Reading | None:
        return self.readings.get((key, scorer))

    def add_readings(self, scorer: str, readings: Sequence[tuple[str, Reading]]) -> None:
        self.readings.update({(key, scorer): reading for key, reading in readings})


ANSWERS = TextAnswers(last_number)


def toy_search(
    generator: Generator | Script = drawn,
    scorer: Scorer | Scores | None = drawn_score,
    *,
    answers: Answers | None = ANSWERS,
    problem: Problem = PROBLEM,
    budget: Budget | None = None,
    seed: int = 0,
    journal: Journal | None = None,
    cap: int = CAP,
) -> Search:
    """A search on the toy; scripts and scores may be given bare."""
    return Search(
        problem,
        ToyGenerator(generator) if callable(generator) or isinstance(generator, Mapping) else generator,
        scorer=ToyScorer(scorer) if callable(scorer) or isinstance(scorer, Mapping) else scorer,
        answers=answers,
        embedder=HashedNgrams(),
        sampling=Sampling(max_tokens=cap),
        budget=budget,
        seed=seed,
        journal=journal,
    )


def solve(strategy: Strategy, search: Search) -> Answer:
    """Run a strategy to its end."""

    async def run() -> Answer:
        return await strategy(search)

    return asyncio.run(run())


def extend(search: Search, nodes: Sequence[Node], n: int | Sequence[int] = 1, **options: Any) -> list[Node]:
    """`Search.extend`, waited for."""
    return asyncio.run(search.extend(nodes, n, **options))


def score(search: Search, nodes: Sequence[Node]) -> list[float | None]:
    """`Search.score`, waited for."""
    return asyncio.run(search.score(nodes))


def texts(nodes: Sequence[Node]) -> list[str]:
    """What each node's generation says so far."""
    return [node.state.text for node in nodes]


def _place(path: tuple[int, ...]) -> str:
    return "/".join(map(str, path))


def _ids(text: str) -> tuple[int, ...]:
    return tuple(crc32(word.encode()) for word in text.split())
