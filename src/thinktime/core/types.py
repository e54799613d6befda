"""The nouns of a search: problems, nodes, and what generators and scorers promise. Nothing here knows text."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from math import inf
from typing import Any, Literal, Protocol

from thinktime.core.errors import InputError, ThinktimeError
from thinktime.core.usage import Usage


@dataclass(frozen=True)
class Problem:
    """What is asked. ``prompt`` is whatever the generator takes: a string, chat messages, a class label."""

    id: str
    prompt: Any
    reference: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)


Finish = Literal["root", "eos", "step", "cut", "length", "pruned", "budget", "error"]
"""Why a node's last extension stopped. ``eos`` alone means the generation is complete; a ``step`` was reached, or the
child was ``cut`` at as many tokens as were asked for."""

Until = Literal["done", "step"]
"""How far to extend: to the end, or to the next step boundary."""


@dataclass(frozen=True)
class Sampling:
    """How children are drawn. ``max_tokens`` bounds a whole generation from the root.

    Raises:
        InputError: a value is out of range.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    max_tokens: int = 512

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < inf:
            raise InputError("temperature", self.temperature, "give 0 (greedy) or a finite number above")
        if not 0 < self.top_p <= 1:
            raise InputError("top_p", self.top_p, "give a number above 0, at most 1")
        if self.max_tokens < 1:
            raise InputError("max_tokens", self.max_tokens, "give 1 or more")


@dataclass(frozen=True, eq=False)
class Node:
    """A partial generation. Its ``key`` names it across runs: the same key is the same sample."""

    key: str
    path: tuple[int, ...]
    state: Any
    parent: Node | None = None
    finish: Finish = "root"
    usage: Usage = field(default_factory=Usage)
    passes: int = 0
    """Sequential forward passes on the chain from the root."""

    @property
    def done(self) -> bool:
        """Whether the generation is complete."""
        return self.finish == "eos"

    @property
    def depth(self) -> int:
        """Extensions from the root."""
        return len(self.path)

    def lineage(self) -> Iterator[Node]:
        """This node and its ancestors, the root last."""
        node: Node | None = self
        while node is not None:
            yield node
            node = node.parent


class Capability(StrEnum):
    """What a strategy may need of its generator or scorer."""

    STEPS = "step boundaries"
    PREFIX = "prefix continuation"
    LOGPROBS = "log-probabilities"
    SCORES = "a scorer"
    CANCEL = "cancelling a sample at once"
    NOISE = "steps that are drawn (for pictures: eta above 0)"
    NO_NOISE = "a sample that its first noise decides (for pictures: eta 0)"
    MOVES = "moves of noise: to a neighbour, or back on the way"
    PARTS = "a score of several parts"
    PROCESS_REWARD = "process rewards"
    PARTIAL_REWARD = "process rewards in mid-step"
    ANSWERS = "answers that can be read and compared"
    CHECK = "a skill: checking a solution"
    JUDGE = "a skill: judging solutions side by side"
    REVISE = "a skill: revising answers"
    PLAN = "a skill: planning, and solving by a plan"
    AGGREGATE = "a skill: one answer out of several"
    SELF_EVALUATION = "a skill: saying whether another sample would be better"
    META_REWARD = "rewards of judgements"
    VERDICTS = "probabilities of verdicts"


@dataclass(eq=False)
class Race:
    """Children of which the first ``k`` to end are wanted: the others are given up as soon as they are as long.

    First means shortest, whatever ran when; with ``at_once``, where children do not run in step, it means whatever came
    first, and the others are given up then. ``counts`` says whether a complete state is an arrival at all.
    """

    k: int
    counts: Callable[[Any], bool]
    lengths: list[int] = field(default_factory=list)
    """Tokens of every arrival so far, from the parent on; the generator adds those of what it samples."""
    at_once: bool = False

    def __post_init__(self) -> None:
        if self.k < 1:
            raise InputError("k", self.k, "a race ends when 1 or more have ended")

    @property
    def limit(self) -> int | None:
        """The length at which the race is over, once it is known."""
        return sorted(self.lengths)[self.k - 1] if len(self.lengths) >= self.k else None


@dataclass(frozen=True)
class Neighbour:
    """To noise of the same length, at this cosine to the noise that the node is."""

    cosine: float

    def __post_init__(self) -> None:
        if not 0 < self.cosine < 1:
            fix = "give a number strictly between 0 and 1; 1 would return the pivot itself"
            raise InputError("cosine", self.cosine, fix)


@dataclass(frozen=True)
class Renoise:
    """Back on the way, by fresh noise, to where ``left`` of the generation (0 to 1) is still to come."""

    left: float

    def __post_init__(self) -> None:
        if not 0 < self.left <= 1:
            raise InputError("left", self.left, "give a share above 0; more than 1 is past pure noise")


@dataclass(frozen=True)
class Redo:
    """All of it again from its first noise to the end, in so many steps."""

    steps: int

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise InputError("steps", self.steps, "give 1 or more")


Move = Neighbour | Renoise | Redo
"""What may happen to a node instead of going on; the child is a state to go on from."""


@dataclass(frozen=True)
class Extension:
    """One child to sample: from where, how far, with which noise, and until when (`time.monotonic`)."""

    node: Node
    index: int
    """Place among the children of ``node``."""
    key: str
    until: Until
    sampling: Sampling
    max_tokens: int
    at_most: int | None = None
    """Where the caller wants it cut, in tokens or denoising steps; ``max_tokens`` is no more than that."""
    deadline: float | None = None
    race: Race | None = None
    move: Move | None = None
    arrived: Callable[[Child], None] | None = None
    """May be called as soon as this child is there: it is then safe, whatever becomes of the others."""


@dataclass(frozen=True)
class Child:
    """One sampled child. ``passes`` are the sequential forward passes it took.

    A child that could not be had has its parent's state, finish ``error``, and the ``error`` that says why.
    """

    state: Any
    finish: Finish
    usage: Usage
    passes: int
    error: ThinktimeError | None = None


@dataclass(frozen=True)
class Reading:
    """One judgement of a node. ``None`` is a missing score, never 0; ``steps`` are the parts it was made of.

    One that could not be had has the ``reason`` in one line; it is not banked, so a later run asks again.
    """

    value: float | None
    usage: Usage
    steps: tuple[float, ...] = ()
    reason: str = ""


class Generator(Protocol):
    """Extends partial generations. ``name`` identifies the weights: samples are banked under it."""

    name: str

    @property
    def capabilities(self) -> frozenset[Capability]:
        """What it can do; this is asked before anything is sampled."""
        ...

    def root(self, problem: Problem, asked: Any = None, known: Sequence[Any] = ()) -> Any:
        """The state before anything is generated.

        Where the prompt is not the problem's own but about it, ``asked`` is the problem's own root. What the prompt
        shares with ``known`` states, which have been read, is not read again.
        """
        ...

    def length(self, state: Any) -> int:
        """Tokens (or denoising steps) generated so far."""
        ...

    def worst_case(self, node: Node, max_tokens: int) -> Usage:
        """The most that a continuation of this many tokens can cost."""
        ...

    async def extend(self, extensions: Sequence[Extension]) -> list[Child]:
        """Sample one child per extension, in order."""
        ...

    def cut(self, extension: Extension, child: Child, tokens: int) -> Child:
        """What is left of a child that is given up after so many tokens; only for those that can `CANCEL`.

        Where nobody tells its tokens apart it is all that came, and was paid for.
        """
        ...

    def pack(self, node_state: Any, state: Any) -> dict[str, Any]:
        """What the bank stores of a child's state: JSON values, relative to its parent's state."""
        ...

    def unpack(self, node_state: Any, packed: Mapping[str, Any]) -> Any:
        """The state that `pack` described."""
        ...


class Scorer(Protocol):
    """Judges nodes: process reward, outcome reward, confidence, tests."""

    name: str

    @property
    def capabilities(self) -> frozenset[Capability]:
        """What it can do; this is asked before anything is sampled."""
        ...

    def worst_case(self, node: Node, known: Node | None) -> Usage:
        """The most that one reading of this node can cost where all of ``known`` has been read before.

        ``known`` is an ancestor of the node, or the node itself. Of a node of another root it is the first that was
        read, with which it may share a beginning; None is nothing, not even the prompt.
        """
        ...

    async def score(self, nodes: Sequence[Node], known: Sequence[Node | None]) -> list[Reading]:
        """One reading per node, in order, each charged only what is new to its ``known``.

        Its value does not depend on ``known``.
        """
        ...


class Skills(Protocol):
    """What else a model can be asked: prompts about generations of a problem, and what the replies say."""

    capabilities: frozenset[Capability]
    """Of those that name a skill."""

    def ask(self, skill: Capability, problem: Problem, about: Sequence[Any], said: Sequence[Any] = ()) -> Any:
        """The prompt.

        Args:
            skill: a capability that is a skill.
            problem: what the generations answer.
            about: states of the generations to check (one), to judge (in this order), to revise (the oldest first), or
                to make one answer of.
            said: states of earlier replies: checks of what is to be revised, or the plan to solve by.
        """
        ...

    def read(self, skill: Capability, reply: Any, n: int = 1) -> list[float] | None:
        """What a complete reply gives each of ``n`` generations, from 0 to 1; None where it gives nothing."""
        ...


class Embedder(Protocol):
    """Says how alike the newest parts of nodes are: near vectors, similar steps."""

    async def embed(self, nodes: Sequence[Node]) -> Sequence[Sequence[float]]:
        """One vector a node, all of one length, none of them zero."""
        ...


class Answers(Protocol):
    """Reads answers off complete generations and says when two are the same."""

    def read(self, state: Any) -> str | None:
        """The final answer, or None where there is none to be read."""
        ...

    def key(self, answer: str) -> Hashable:
        """Equal keys mean equivalent answers."""
        ...
