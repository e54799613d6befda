"""What a search asks of models, scorers, judges, embedders and readers of answers."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any, Protocol

from thinktime.core.types import Child, Embedding, Extension, Node, Problem, Score
from thinktime.core.usage import Usage


class Generator(Protocol):
    """Extends partial generations. ``name`` identifies the weights: samples are banked under it.

    ``unit`` names what lengths count: ``tokens``, ``steps``.
    """

    name: str
    unit: str

    @property
    def capabilities(self) -> frozenset[str]:
        """What it can do. Searches ask this before anything is sampled."""
        ...

    def root(self, problem: Problem, known: Sequence[Any] = (), *, quotes: bool = False) -> Any:
        """The state before anything is generated.

        Args:
            problem: the question.
            known: states that the model has read; what the prompt shares with them is not charged again.
            quotes: whether the prompt quotes what a model wrote, so that words outside a closed vocabulary are spelled
                and not refused.

        Raises:
            InputError: the model cannot take this prompt, or a part of its context.
            TooLongError: the prompt does not fit.
        """
        ...

    def adopt(self, root: Any, state: Any, known: Sequence[Any] = ()) -> Any:
        """The state that continues what another model wrote.

        Args:
            root: this model's root state for the same prompt.
            state: the other model's state.
            known: states that this model has read.

        Raises:
            CapabilityError: it cannot read states of that kind.
        """
        ...

    def length(self, state: Any) -> int:
        """Length of the generation so far, in `unit`."""
        ...

    def worst_case(self, node: Node, max_length: int) -> Usage:
        """The most that a continuation of this length can cost."""
        ...

    async def extend(self, extensions: Sequence[Extension]) -> list[Child]:
        """Sample one child per extension, in order."""
        ...

    def cut(self, extension: Extension, child: Child, tokens: int) -> Child:
        """The first ``tokens`` of a child that loses a race; only for models that can `CANCEL`.

        A model behind HTTP that does not count its tokens keeps the whole child, since all of it was paid.
        """
        ...

    def pack(self, node_state: Any, state: Any) -> dict[str, Any]:
        """What the bank stores of a child's state, relative to its parent's: JSON values, and bytes."""
        ...

    def unpack(self, node_state: Any, packed: Mapping[str, Any]) -> Any:
        """The state that `pack` described."""
        ...


class Scorer(Protocol):
    """Judges nodes: process reward, outcome reward, confidence, tests."""

    name: str

    @property
    def capabilities(self) -> frozenset[str]:
        """What it can do. Searches ask this before anything is sampled."""
        ...

    def worst_case(self, problem: Problem, node: Node, known: Node | None) -> Usage:
        """The most that one score of this node can cost if the scorer has read all of ``known`` before.

        ``known`` is an ancestor of the node, or the node itself. Under another root it is the first scored node,
        which may begin with the same text. None means that nothing was read, not even the prompt.
        """
        ...

    async def score(self, problem: Problem, nodes: Sequence[Node], known: Sequence[Node | None]) -> list[Score]:
        """One score per node, in order; each is charged only for what its ``known`` does not contain.

        Args:
            problem: the question that the nodes answer, also if they were sampled from another prompt.
            nodes: the nodes to score.
            known: see `worst_case`; a value does not depend on it.
        """
        ...


class Comparer(Protocol):
    """Judges several candidates side by side; a scorer that offers `Capability.COMPARE` is one."""

    name: str

    @property
    def capabilities(self) -> frozenset[str]:
        """What it can do."""
        ...

    def worst_case_of_comparison(self, problem: Problem, nodes: Sequence[Node]) -> Usage:
        """The most that one comparison of these nodes can cost."""
        ...

    async def compare(self, problem: Problem, nodes: Sequence[Node]) -> Score:
        """One score whose ``steps`` are the candidates' scores, in order; they rank the nodes of this call only."""
        ...


class Embedder(Protocol):
    """Maps the newest step of a node to a vector; similar steps are near each other."""

    name: str

    def worst_case(self, node: Node) -> Usage:
        """The most that embedding this node can cost."""
        ...

    async def embed(self, nodes: Sequence[Node]) -> Sequence[Embedding]:
        """One embedding per node, in order; all vectors have the same length, and none is zero."""
        ...


class Answers(Protocol):
    """Reads the answers of complete generations, and says whether two of them are the same.

    If keys can take long, it also has ``async def prepare(states)``. A search awaits it for complete generations,
    before a strategy asks for their keys.
    """

    def read(self, state: Any) -> str | None:
        """The final answer, or None if none can be read."""
        ...

    def key(self, answer: str) -> Hashable:
        """Equal keys mean equivalent answers."""
        ...
