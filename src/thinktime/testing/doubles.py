"""Test doubles that need no model: a generator and a scorer over words, and a journal in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate
from random import Random
from typing import Any
from zlib import crc32

from thinktime.answers import TextAnswers
from thinktime.core.types import Capability, Child, Extension, Finish, Node, Problem, Prompt, Score
from thinktime.core.usage import Usage, total
from thinktime.generators.text import Text, pack, shared, steps_of, unpack

PROBLEM = Problem("sum", "what is 3 + 4", "7")
FLOPS = 2.0
"""FLOPs of one generated token."""
DOLLARS = 1 / 64
"""Price of one generated token; a power of two, so sums are exact."""
SECONDS = 0.25
"""Seconds of one generated token."""


@dataclass(frozen=True)
class Piece:
    """The words that a child adds to its parent, its finish, its log-probability, and the confidences of its words.

    A word without a confidence has 1.
    """

    words: str
    finish: Finish
    logprob: float = -1.0
    confidences: tuple[float, ...] = ()


def drawn(extension: Extension) -> Piece:
    """One to five words that end with a digit or an unreadable ``?``; depends on the extension's key alone."""
    rng = Random(extension.key)
    words = ["so"] * rng.randint(0, 4) + [rng.choice("77758?")]
    ends = extension.until == "done" or rng.random() < 0.4
    logprob, confidences = -rng.random(), tuple(rng.random() for _ in words)
    return Piece(" ".join(words), "eos" if ends else "step", logprob, confidences)


def rambling(extension: Extension) -> Piece:
    """As `drawn`, but one child in eight has 99 more words, so that limits cut it."""
    piece = drawn(extension)
    at_length = Random(f"{extension.key}/ramble").random() < 1 / 8
    return replace(piece, words="and " * 99 + piece.words) if at_length else piece


def drawn_score(node: Node) -> float | None:
    """A score from 0 to 1, or None for one node in ten; depends on the node's key alone."""
    rng = Random(node.key)
    return None if rng.random() < 0.1 else rng.random()


def last_number(text: str) -> str | None:
    """The last word, if it is a number."""
    word = text.split()[-1] if text.split() else ""
    return word if word.isdecimal() else None


ANSWERS = TextAnswers(last_number, "last number")


class WordGenerator:
    """Returns the words that ``say`` gives for an extension; a word is a token. Long texts are cut as by an engine."""

    capabilities: frozenset[str] = frozenset(
        {
            *(Capability.STEPS, Capability.PREFIX, Capability.LOGPROBS, Capability.CONFIDENCES),
            *(Capability.CANCEL, Capability.NOISE, Capability.NO_NOISE, Capability.TRANSITIONS),
        }
    )

    unit = "tokens"

    def __init__(
        self, say: Callable[[Extension], Piece] = drawn, *, name: str = "words", price: float | None = DOLLARS
    ) -> None:
        self.name = name
        self.asked: list[list[Extension]] = []
        """Every requested batch."""
        self._say = say
        self._price = price

    def root(self, problem: Problem, known: Sequence[Any] = (), *, quotes: bool = False) -> Text:
        """The empty text."""
        return Text(_ids(str(problem.prompt)))

    def adopt(self, root: Text, state: Any, known: Sequence[Any] = ()) -> Text:
        """The words of another model; equal words have equal ids."""
        ends = tuple(accumulate(len(step.split()) for step in steps_of(state)))
        return replace(root, ids=_ids(state.text), text=state.text, step_ends=ends)

    def length(self, state: Text) -> int:
        """Words generated so far."""
        return len(state.ids)

    def worst_case(self, node: Node, max_length: int) -> Usage:
        """The cost of this many words."""
        return self._usage(node.state, max_length)

    async def extend(self, extensions: Sequence[Extension]) -> list[Child]:
        """All children at once."""
        self.asked.append(list(extensions))
        await asyncio.sleep(0)  # let other searches run, as an engine would
        children = [self._child(extension) for extension in extensions]
        for extension, child in zip(extensions, children, strict=True):
            if extension.race is not None:
                extension.race.arrive(child)
        return [self._raced(e, child) for e, child in zip(extensions, children, strict=True)]

    def cut(self, extension: Extension, child: Child, tokens: int) -> Child:
        """The child's first words."""
        before: Text = extension.node.state
        ids = child.state.ids[: len(before.ids) + tokens]
        text = " ".join(child.state.text.split()[: len(ids)])
        confidences = child.state.confidences[: len(before.confidences) + tokens]
        ends = (*before.step_ends, len(ids))
        state = replace(child.state, ids=ids, text=text, step_ends=ends, confidences=confidences)
        return Child(state, "pruned", self._usage(before, tokens), tokens, length=tokens)

    def pack(self, node_state: Text, state: Text) -> dict[str, Any]:
        """See `thinktime.generators.text.pack`."""
        return pack(node_state, state)

    def unpack(self, node_state: Text, packed: Mapping[str, Any]) -> Text:
        """The state that `pack` described."""
        return unpack(node_state, packed)

    def _raced(self, extension: Extension, child: Child) -> Child:
        limit = extension.race.limit if extension.race else None
        return child if limit is None or child.passes <= limit else self.cut(extension, child, limit)

    def _child(self, extension: Extension) -> Child:
        before: Text = extension.node.state
        piece = self._say(extension)
        if extension.transition is not None:  # words have no noise, so the child is another word
            piece = Piece(piece.words.split()[-1], "step")
        words, finish = piece.words.split(), piece.finish
        if len(words) > extension.max_length:
            words = words[: extension.max_length]
            if len(before.ids) + len(words) == extension.sampling.max_length:
                finish = "length"
            elif extension.max_length == extension.at_most:
                finish = "cut"
            else:
                finish = "budget"
        text = " ".join([before.text, *words]).strip()
        ids = before.ids + _ids(" ".join(words))
        logprob, ends = before.logprob + piece.logprob, (*before.step_ends, len(ids))
        confidences = before.confidences
        if extension.confidences:
            confidences += (*piece.confidences, *(1.0 for _ in words))[: len(words)]
        state = replace(before, ids=ids, text=text, step_ends=ends, logprob=logprob, confidences=confidences)
        return Child(state, finish, self._usage(before, len(words)), passes=len(words), length=len(words))

    def _usage(self, before: Text, tokens: int) -> Usage:
        return Usage(
            prompt_tokens=len(before.prompt) + len(before.ids),
            generated_tokens=tokens,
            model_calls=1,
            flops=FLOPS * tokens,
            seconds=SECONDS * tokens,
            dollars=None if self._price is None else self._price * tokens,
        )


class WordScorer:
    """Scores nodes by a function; each new token of prompt and words costs one FLOP."""

    capabilities: frozenset[str] = frozenset({Capability.SCORES, Capability.PROCESS_REWARD, Capability.PARTIAL_REWARD})

    def __init__(
        self,
        judge: Callable[[Node], float | None] = drawn_score,
        *,
        name: str = "word-scorer",
        price: float | None = 0.0,
    ) -> None:
        self.name = name
        self.asked: list[list[Node]] = []
        """Every requested batch."""
        self._judge = judge
        self._price = price

    def worst_case(self, problem: Problem, node: Node, known: Node | None) -> Usage:
        """The exact cost of the score."""
        ids, before = (each.state.prompt + each.state.ids if each else () for each in (node, known))
        tokens = len(ids) - shared(ids, before)
        return Usage(scorer_tokens=tokens, scorer_calls=1, scorer_flops=float(tokens), dollars=self._price)

    async def score(self, problem: Problem, nodes: Sequence[Node], known: Sequence[Node | None]) -> list[Score]:
        """All scores at once."""
        self.asked.append(list(nodes))
        await asyncio.sleep(0)
        costs = [self.worst_case(problem, node, before) for node, before in zip(nodes, known, strict=True)]
        return [Score(self._judge(node), cost, steps=(0.5,)) for node, cost in zip(nodes, costs, strict=True)]


class WordJudge(WordScorer):
    """A scorer that also compares: side by side, candidates have the scores that they have alone."""

    capabilities = WordScorer.capabilities | {Capability.COMPARE}

    def worst_case_of_comparison(self, problem: Problem, nodes: Sequence[Node]) -> Usage:
        """The exact cost of the comparison: every prompt and all words, in one call."""
        return replace(total(self.worst_case(problem, node, None) for node in nodes), scorer_calls=1)

    async def compare(self, problem: Problem, nodes: Sequence[Node]) -> Score:
        """The scores of all nodes; the comparison is missing if one of them is."""
        await asyncio.sleep(0)
        scores = [score for node in nodes if (score := self._judge(node)) is not None]
        whole = len(scores) == len(nodes)
        cost = self.worst_case_of_comparison(problem, nodes)
        return Score(max(scores) if whole else None, cost, tuple(scores) if whole else ())


_READ: dict[str, Callable[[list[float]], Any]] = {
    **dict.fromkeys(("check", "verdict"), lambda given: given[0]),
    "rank": lambda given: tuple(sorted(range(len(given)), key=lambda place: -given[place])),
    "critique": lambda given: tuple(map(str, given)),
    "write_tests": lambda given: ("it has a number", "the number is small"),
    "evaluate": lambda given: {1: True, 2: given[0] < 0.6},
}
"""The value of a reply, from the scores that its last number gives; scores in other prompts."""


def _word_prompt(name: str, is_answer: bool) -> Prompt:
    """A prompt of the problem, all texts, and its own name. The last number of a reply scores the generations."""

    def render(problem: Problem, about: Sequence[Text], said: Sequence[Text]) -> str:
        return " ".join([str(problem.prompt), *(state.text for state in (*about, *said)), name])

    def read(state: Text, n: int) -> Any:
        """The last number of the reply in tenths; every further generation gets one tenth more, modulo 1."""
        last = last_number(state.text)
        if last is None:
            return None
        return _READ.get(name, list)([(int(last) + i) % 10 / 10 for i in range(max(n, 1))])

    return Prompt(name, render, read, is_answer)


WORD_PROMPTS = {
    name: _word_prompt(name, is_answer)
    for name, is_answer in {
        "check": False,
        "judge": False,
        "plan": False,
        "revise": True,
        "solve": True,
        "aggregate": True,
        "repair": True,
        "retrieve": False,
        "answer_from": True,
        "assemble": True,
        "check_format": True,
        "final": True,
        "fuse": True,
        "rank": False,
        "critique": False,
        "argue": False,
        "verdict": False,
        "write_tests": False,
        "evaluate": False,
    }.items()
}
"""The prompts of all strategies for a `WordGenerator`."""


@dataclass
class MemoryJournal:
    """A journal in memory."""

    samples: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    scores: dict[tuple[str, str], Score] = field(default_factory=dict)

    def find_sample(self, key: str) -> Mapping[str, Any] | None:
        """The recorded sample of this key, or None."""
        return self.samples.get(key)

    def add_samples(self, problem: Problem, model: str, samples: Sequence[tuple[str, Mapping[str, Any]]]) -> None:
        """Record samples."""
        self.samples.update(samples)

    def find_score(self, key: str, scorer: str) -> Score | None:
        """The recorded score of a node by a scorer, or None."""
        return self.scores.get((key, scorer))

    def add_scores(self, scorer: str, scores: Sequence[tuple[str, Score]]) -> None:
        """Record scores."""
        self.scores.update({(key, scorer): score for key, score in scores})


def _ids(text: str) -> tuple[int, ...]:
    return tuple(crc32(word.encode()) for word in text.split())
