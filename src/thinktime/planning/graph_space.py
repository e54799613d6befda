"""The graphs of answers that a search may propose: models, FLOPs, and legal edges (arXiv 2511.00086)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from thinktime.core.errors import InputError, check_number
from thinktime.strategies.composition.agent_graph import ASSISTANT, FUSER, Graph, GraphNode
from thinktime.strategies.options import above, at_least, one_of

Floats = npt.NDArray[np.float64]
Edges = npt.NDArray[np.bool_]
"""Which earlier node each node reads, ``[nodes, nodes + 1]``, parent first; the last column is the decision."""
MOST_NODES = 32
"""Of a graph in a search; the table of edges grows with the square."""


@dataclass(frozen=True)
class GraphModel:
    """A model that nodes of a graph may run on.

    Args:
        parameters: those that a token is multiplied with.
        layers: their number.
        width: of a hidden state.
        seconds: of one answer.
    """

    parameters: float
    layers: int
    width: int
    seconds: float = 0.0

    def __post_init__(self) -> None:
        for name in ("parameters", "layers", "width"):
            above(name, getattr(self, name), 0)
        check_number("seconds", self.seconds)


@dataclass(frozen=True)
class GraphSpace:
    """The graphs within a budget.

    Args:
        models: by the roles that they have in a search.
        prompt_tokens: mean tokens of a question.
        answer_tokens: mean tokens of an answer.
        budget: nodes of the smallest model beside the one that decides. The limit is what a graph of as many costs in
            which each node reads all earlier ones.
        decision: the model of the last node, a fuser.
        flops: the limit in FLOPs, in place of that of the budget.
        max_in_degree: most answers that a node reads; the last node may read more.
        max_depth: most nodes of a chain before the last node.
        edge_temperature: T; before any learning, an edge has the probability ``sigmoid(-2 / T)``.
        tries: draws for one legal graph.

    Raises:
        InputError: a value is out of range, there is no model, or no graph is within the limit.
        UnknownNameError: the decision's model is none of the models.
    """

    models: Mapping[str, GraphModel]
    prompt_tokens: float
    answer_tokens: float
    budget: int
    decision: str
    flops: float | None = None
    max_in_degree: int = 4
    max_depth: int = 4
    edge_temperature: float = 1.0
    tries: int = 2000

    def __post_init__(self) -> None:
        if not self.models:
            raise InputError("models", {}, "name at least one")
        for name in ("budget", "max_in_degree", "max_depth", "tries"):
            at_least(name, getattr(self, name), 1)
        if self.budget > MOST_NODES:
            raise InputError("budget", self.budget, f"give {MOST_NODES} nodes or fewer")
        for name in ("prompt_tokens", "answer_tokens", "edge_temperature"):
            above(name, getattr(self, name), 0)
        one_of("decision", self.decision, self.models)
        cheapest, decision = self.node_flops(self.smallest, 0), self.node_flops(self.decision, 1)
        if self.limit < cheapest + decision:
            fix = f"the cheapest node costs {cheapest:.3g} and the node that decides {decision:.3g}; give their sum"
            raise InputError("flops", self.limit, fix)

    @cached_property
    def smallest(self) -> str:
        """The role of the cheapest model."""
        return min(self.models, key=lambda name: self.node_flops(name, 0))

    @cached_property
    def limit(self) -> float:
        """The most FLOPs of a graph."""
        nodes = (self.node_flops(self.smallest, read) for read in range(self.budget))
        return sum(nodes) + self.node_flops(self.decision, self.budget) if self.flops is None else self.flops

    def node_flops(self, model: str, read: int) -> float:
        """FLOPs of a node that reads so many answers: its prompt at once, then its answer token by token.

        Raises:
            UnknownNameError: there is no such model.
        """
        one_of("model", model, self.models)
        size = self.models[model]
        prompt, answer = self.prompt_tokens + read * self.answer_tokens, self.answer_tokens
        attention = prompt * (prompt + 1) + answer * (2 * prompt + answer + 1)
        return 2 * size.parameters * (prompt + answer) + 2 * size.layers * size.width * attention

    def cost(self, graph: Graph) -> float:
        """FLOPs of the nodes of a graph that run."""
        return sum(self.node_flops(graph.nodes[i].model, len(graph.nodes[i].parents)) for i in graph.used)

    def seconds(self, graph: Graph) -> float:
        """Seconds of a graph whose independent nodes run side by side: those of its slowest chain."""
        ends: dict[int, float] = {}
        for place in (place for level in graph.levels for place in level):
            node = graph.nodes[place]
            start = max((ends[parent] for parent in node.parents), default=0.0)
            ends[place] = start + self.models[node.model].seconds
        return max(ends.values())

    @cached_property
    def combinations(self) -> list[dict[str, int]]:
        """The numbers of nodes of each model to which no further node can be added within the limit.

        Each node is taken to read one answer, and the decision to read all.
        """
        names = sorted(self.models, key=lambda name: self.node_flops(name, 1))
        costs = [self.node_flops(name, 1) for name in names]
        last = [self.node_flops(self.decision, read) for read in range(self.budget + 1)]

        def fits(counts: Sequence[int]) -> bool:
            n, nodes = sum(counts), sum(k * cost for k, cost in zip(counts, costs, strict=False))
            return n <= self.budget and nodes + last[n] <= self.limit

        every: list[tuple[int, ...]] = [()]
        for _ in names:
            every = [(*some, n) for some in every for n in range(self.budget + 1) if fits((*some, n))]
        full = [c for c in every if not any(fits([k + (i == j) for j, k in enumerate(c)]) for i in range(len(c)))]
        return [dict(zip(names, counts, strict=True)) for counts in full if any(counts)]

    def legal(
        self, models: Sequence[str], edges: Edges, fusers: Sequence[bool], rng: np.random.Generator
    ) -> Graph | None:
        """The graph of a draw, made legal; None if the last node reads nothing.

        A chain that is too deep loses its last edge, and a node that reads too much its last parents. Nodes whose
        answers reach no other are left out. While the graph is over the limit, a random node of the cheapest model in
        it is left out.

        Args:
            models: of each node.
            edges: which earlier node each node reads.
            fusers: which nodes are fusers, where both roles are possible: one that reads nothing, or that reads a
                fuser, is an assistant.
            rng: chooses the nodes that are left out.
        """
        kept = list(range(len(models)))
        while True:
            graph, places = self._built(models, edges, fusers, kept)
            if graph is None or self.cost(graph) <= self.limit:
                return graph
            costs = {place: self.node_flops(models[place], 0) for place in places}
            kept.remove(int(rng.choice([place for place in places if costs[place] == min(costs.values())])))

    def _built(
        self, models: Sequence[str], edges: Edges, fusers: Sequence[bool], kept: Sequence[int]
    ) -> tuple[Graph | None, list[int]]:
        """The graph of the kept nodes, and the places in the draw of all its nodes but the last."""
        parents: dict[int, list[int]] = {}
        depth: dict[int, int] = {}
        for place in kept:
            read = [one for one in kept if one < place and edges[one, place] and depth[one] < self.max_depth]
            parents[place] = read[: self.max_in_degree]
            depth[place] = 1 + max((depth[one] for one in parents[place]), default=0)
        last = [one for one in kept if edges[one, -1]]
        used, waiting = set[int](), list(last)
        while waiting:
            place = waiting.pop()
            if place not in used:
                used.add(place)
                waiting += parents[place]
        places = sorted(used)
        new = {place: number for number, place in enumerate(places)}
        nodes: list[GraphNode] = []
        for place in places:
            read = [new[one] for one in parents[place]]
            free = bool(read) and all(nodes[one].role == ASSISTANT for one in read)
            nodes.append(GraphNode(FUSER if free and fusers[place] else ASSISTANT, models[place], tuple(read)))
        decision = GraphNode(FUSER, self.decision, tuple(new[one] for one in last))
        return (Graph((*nodes, decision)) if last else None), places


def pairs(n: int) -> Iterator[tuple[int, int, str, str]]:
    """The possible edges of ``n`` nodes in the order of the table: places, and names in a prompt."""
    for i in range(n):
        for j in range(i + 1, n + 1):
            yield i, j, str(i + 1), str(j + 1) if j < n else "decision"


def sigmoid(logits: Floats) -> Floats:
    """Probabilities of logits."""
    return np.asarray(1 / (1 + np.exp(-logits)))
