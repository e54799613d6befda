"""The nouns of a search: problems, nodes, children, prompts. Nothing here knows text."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from enum import StrEnum
from math import inf
from typing import Any, Literal

from thinktime.core.clock import Deadline
from thinktime.core.context import Part
from thinktime.core.errors import InputError, ThinktimeError, check_number
from thinktime.core.transitions import Race, Transition
from thinktime.core.usage import Usage

MAIN = "main"
"""The role that a verb of a search uses unless it names another one."""


@dataclass(frozen=True)
class Problem:
    """A question. The type of ``prompt`` depends on the model: a string, chat messages, a class label, bytes.

    ``context`` holds what the question is about, as typed parts (see `thinktime.core.context`).
    """

    id: str
    prompt: Any
    reference: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    context: tuple[Part, ...] = ()


Finish = Literal["root", "eos", "step", "cut", "length", "pruned", "budget", "observed", "error"]
"""Why a node's last extension stopped. ``eos`` alone means that the generation is complete. ``step``: a step boundary.
``cut``: the length that the caller asked for. ``length``: the length limit. ``pruned``: another child won the race.
``budget``: the budget ended it. ``observed``: an environment answered an action. ``error``: the call failed."""

Until = Literal["done", "step"]
"""How far to extend: to the end, or to the next step boundary."""


@dataclass(frozen=True)
class Sampling:
    """How children are drawn. ``max_length`` bounds a whole generation from the root, in the model's own unit
    (`Generator.unit`): tokens, denoising steps.

    A text that contains one of the ``stop`` strings is complete. Its state ends before that string, but the tokens of
    the string are paid.

    Raises:
        InputError: a value is out of range.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    max_length: int = 512
    stop: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("temperature", "top_p"):
            check_number(name, getattr(self, name))
        check_number("max_length", self.max_length, whole=True)
        if not 0 <= self.temperature < inf:
            raise InputError("temperature", self.temperature, "give 0 (greedy) or a finite number above")
        if not 0 < self.top_p <= 1:
            raise InputError("top_p", self.top_p, "give a number above 0, at most 1")
        if self.max_length < 1:
            raise InputError("max_length", self.max_length, "give 1 or more")
        if not isinstance(self.stop, tuple) or not all(isinstance(text, str) and text for text in self.stop):
            raise InputError("stop", self.stop, "give a tuple of texts that are not empty")


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
    model: str = MAIN
    """The role that made it: a model's, or an environment's if the node is an observation."""
    length: int = 0
    """What its last extension added, in the model's unit."""
    log_weight: float = 0.0
    """Log target minus log proposal of its last extension, see `Child`."""

    @property
    def done(self) -> bool:
        """Whether the generation is complete."""
        return self.finish == "eos"

    @property
    def depth(self) -> int:
        """Extensions from the root."""
        return len(self.path)

    @property
    def root(self) -> Node:
        """The node without a parent that this one grows from."""
        node = self
        while node.parent is not None:
            node = node.parent
        return node

    def lineage(self) -> Iterator[Node]:
        """This node and its ancestors, the root last."""
        node: Node | None = self
        while node is not None:
            yield node
            node = node.parent


class Capability(StrEnum):
    """What a strategy may need of models and scorers. Capabilities are strings; packages may add their own."""

    STEPS = "step boundaries"
    PREFIX = "prefix continuation"
    LOGPROBS = "log-probabilities"
    CONFIDENCES = "token confidences"
    SCORES = "a scorer"
    CANCEL = "cancelling a sample at once"
    NOISE = "steps that are drawn (for pictures: eta above 0)"
    NO_NOISE = "a sample that its first noise decides (for pictures: eta 0)"
    TRANSITIONS = "transitions of noise: to a neighbour, or back to an earlier noise level"
    PARTS = "a score of several parts"
    PROCESS_REWARD = "process rewards"
    PARTIAL_REWARD = "process rewards in mid-step"
    ANSWERS = "answers that can be read and compared"
    CHAT = "a chat model, which answers any prompt"
    COMPARE = "a judge that compares several candidates"
    SELF_EVALUATION = "self-evaluation: whether another sample would be better"
    META_REWARD = "rewards of judgements"
    VERDICTS = "probabilities of verdicts"


_ASKS = "the prompt "


def asks(prompt: str) -> str:
    """The capability of answering the prompt of this name."""
    return f"{_ASKS}{prompt!r}"


def model_of(role: str) -> str:
    """The capability of having a model of this role."""
    return f"a model of the role {role!r} (--model {role}=NAME)"


def missing(needs: Set[str], offered: Set[str]) -> frozenset[str]:
    """The needs that are not offered. A chat model answers any prompt."""
    lacking = frozenset(needs) - offered
    return frozenset(need for need in lacking if not (need.startswith(_ASKS) and Capability.CHAT in offered))


@dataclass(frozen=True)
class Prompt:
    """A question about generations of a problem, as data. A strategy owns its prompts; a user replaces one by name.

    Args:
        name: a prompt of the same name in `Search.prompts` replaces this one.
        render: the prompt for the model, from the problem, the states it is about, and the states of earlier replies.
            It returns the problem's own prompt if there is nothing to add to it.
        read: the value of a complete reply's state, given how many generations the prompt is about; None if the
            reply cannot be read.
        is_answer: whether a reply answers the problem itself.
    """

    name: str
    render: Callable[[Problem, Sequence[Any], Sequence[Any]], Any]
    read: Callable[[Any, int], Any] = lambda state, n: None
    is_answer: bool = False

    @property
    def capability(self) -> str:
        """What a strategy with this prompt needs of the model."""
        return asks(self.name)


@dataclass(frozen=True)
class Extension:
    """One child to sample: its parent, length limit, seed of the noise, and deadline."""

    node: Node
    index: int
    """Index among the children that this model makes of ``node``."""
    key: str
    until: Until
    sampling: Sampling
    max_length: int
    at_most: int | None = None
    """The length at which the caller wants it cut; ``max_length`` is never above that."""
    deadline: Deadline | None = None
    race: Race | None = None
    transition: Transition | None = None
    confidences: bool = False
    """Whether the child's state has to have the confidence of each token that it draws."""
    arrived: Callable[[Child], None] | None = None
    """A generator may call this when the child is complete; the child is then banked, even if its siblings fail."""


@dataclass(frozen=True)
class Child:
    """One sampled child.

    A failed child has its parent's state, the finish ``error``, and the ``error`` itself.
    """

    state: Any
    finish: Finish
    usage: Usage
    passes: int
    """Sequential forward passes it took."""
    error: ThinktimeError | None = None
    length: int = 0
    """What this extension added, in the model's unit."""
    log_weight: float = 0.0
    """Log target minus log proposal; 0 if the child is drawn from the model's own distribution."""


@dataclass(frozen=True)
class Score:
    """One judgement of a node, or of several nodes side by side.

    A failed score has a one-line ``reason``. It is not banked, so a later run asks again.
    """

    value: float | None
    """None is a missing score, never 0."""
    usage: Usage
    steps: tuple[float, ...] = ()
    """The parts that ``value`` is made of; for a comparison, one score per candidate."""
    reason: str = ""


@dataclass(frozen=True)
class Embedding:
    """The vector of one node, and what it cost."""

    vector: tuple[float, ...]
    usage: Usage
