"""Constructed tasks: the accuracy of any graph of answers is known, so a search can be measured against the optimum.

- An assistant that reads nothing is right with its model's skill.
- One that reads answers keeps their mean quality, spoils some right ones (more of them the longer the chain) and
  repairs some wrong ones. So chains help at first, and then hurt.
- A fuser moves from the mean quality towards the chance that any answer is right. Errors of one model are alike, so
  answers of different models help it more. Each answer beyond those that its model can weigh costs accuracy. So width
  helps at first, and then hurts; and it hurts earlier if the answers come from long chains, which spoil more.

On the task ``many``, three small models know more than a large one of their price; on ``big`` it is the other way.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product

import numpy as np
import numpy.typing as npt

from experiments.intervals import Floats
from thinktime.planning.graph_space import GraphModel, GraphSpace
from thinktime.strategies.composition.agent_graph import ASSISTANT, FUSER, Graph, GraphNode

Bools = npt.NDArray[np.bool_]
SPOILED = 0.06
"""Share of right answers that an assistant spoils, for each node of the chain behind it."""
TOO_MANY = 0.05
"""What each answer costs that a model cannot weigh."""


@dataclass(frozen=True)
class Skill:
    """What a constructed model can do.

    Args:
        skill: chance that an answer alone is right.
        repair: share of wrong answers that it repairs.
        merge: share of the way from the mean to the best that it goes as a fuser.
        weighs: answers that it can weigh.
    """

    skill: float
    repair: float
    merge: float
    weighs: int


MODELS = {
    "small": GraphModel(1e6, 4, 128, seconds=1.0),
    "medium": GraphModel(3e6, 6, 192, seconds=2.0),
    "large": GraphModel(1e7, 8, 256, seconds=5.0),
}
"""Three sizes of about 1, 3 and 10 million parameters."""
DECISION = "medium"
TASKS: Mapping[str, Mapping[str, Skill]] = {
    "many": {
        "small": Skill(0.40, 0.15, 0.5, 2),
        "medium": Skill(0.45, 0.20, 0.7, 4),
        "large": Skill(0.50, 0.25, 0.8, 5),
    },
    "big": {
        "small": Skill(0.10, 0.04, 0.1, 1),
        "medium": Skill(0.30, 0.10, 0.3, 3),
        "large": Skill(0.70, 0.30, 0.8, 5),
    },
}
PROMPT, ANSWER = 200.0, 100.0
"""Mean tokens of a question and an answer."""


def space(budget: int) -> GraphSpace:
    """The graphs within a budget of nodes of the small model."""
    return GraphSpace(MODELS, PROMPT, ANSWER, budget, DECISION)


def accuracies(task: str, models: Sequence[str], edges: Bools, fusers: Bools) -> Floats:
    """The accuracy of many graphs at once.

    Args:
        task: of `TASKS`.
        models: of each node, the decision last.
        edges: which earlier nodes each node reads, ``[graphs, nodes, nodes]``, parent first.
        fusers: which nodes merge, ``[graphs, nodes]``; a node that reads nothing answers alone.

    Returns:
        ``[graphs]``.
    """
    skills = [TASKS[task][name] for name in models]
    n = len(models)
    quality, depth = np.zeros((len(edges), n)), np.zeros((len(edges), n))
    for node, model in enumerate(skills):
        read = edges[:, :node, node]
        count = read.sum(1)
        depth[:, node] = 1 + np.where(read, depth[:, :node], 0).max(1, initial=0)
        average = np.where(read, quality[:, :node], 0).sum(1) / np.maximum(count, 1)
        missed = np.ones(len(edges))
        for name in sorted(set(models[:node])):
            mine = read & np.array([each == name for each in models[:node]])
            logs = np.where(mine, np.log1p(-np.minimum(quality[:, :node], 0.999)), 0).sum(1)
            missed *= np.exp(logs / np.sqrt(np.maximum(mine.sum(1), 1)))
        merged = average + model.merge * (1 - missed - average)
        improved = average * (1 - SPOILED * (depth[:, node] - 1)) + (1 - average) * model.repair
        better = np.where(fusers[:, node], merged, improved) - TOO_MANY * np.maximum(count - model.weighs, 0)
        quality[:, node] = np.where(count > 0, np.clip(better, 0, 1), model.skill)
    return quality[:, -1]


@cache
def accuracy(task: str, graph: Graph) -> float:
    """The accuracy of one graph; its parents are numbered before their readers."""
    places = sorted(graph.used)
    edges = np.zeros((1, len(places), len(places)), dtype=bool)
    for new, place in enumerate(places):
        edges[0, [places.index(parent) for parent in graph.nodes[place].parents], new] = True
    fusers = np.array([[graph.nodes[place].role == FUSER for place in places]])
    return float(accuracies(task, [graph.nodes[place].model for place in places], edges, fusers)[0])


def optimum(task: str, within: GraphSpace) -> tuple[float, Graph]:
    """The best legal graph, by trying all of them; for budgets of up to five nodes."""
    best: tuple[float, Graph] | None = None
    for models, edges, fusers in _every(within):
        found = accuracies(task, (*models, DECISION), edges, fusers)
        for place in np.argsort(-found)[:50]:
            if best is not None and found[place] <= best[0]:
                break
            graph = within.legal(models, edges[place, :-1], list(fusers[place, :-1]), np.random.default_rng(0))
            if graph is not None and _same(graph, models, edges[place]) and within.cost(graph) <= within.limit:
                value = accuracy(task, graph)
                if best is None or value > best[0]:
                    best = value, graph
    assert best is not None
    return best


def _every(within: GraphSpace) -> Iterator[tuple[tuple[str, ...], Bools, Bools]]:
    """Models of nodes, with all their edges and roles that are within the limits, and whose nodes are all used."""
    for n in range(1, within.budget + 1):
        pairs = [(i, j) for j in range(1, n + 1) for i in range(j)]
        bits = np.array(list(product((False, True), repeat=len(pairs))), dtype=bool)
        edges = np.zeros((len(bits), n + 1, n + 1), dtype=bool)
        for place, (i, j) in enumerate(pairs):
            edges[:, i, j] = bits[:, place]
        counts = edges.sum(1)
        depth = np.zeros((len(edges), n + 1))
        for node in range(n):
            depth[:, node] = 1 + np.where(edges[:, :node, node], depth[:, :node], 0).max(1, initial=0)
        fits = np.all(np.any(edges[:, :n], axis=2), axis=1) & (counts[:, :n] <= within.max_in_degree).all(1)
        edges = edges[fits & (depth[:, :n] <= within.max_depth).all(1)]
        for models in product(within.models, repeat=n):
            cost = np.zeros(len(edges))
            for node, name in enumerate((*models, within.decision)):
                table = np.array([within.node_flops(name, read) for read in range(n + 1)])
                cost += table[edges[:, :, node].sum(1)]
            affordable = edges[cost <= within.limit]
            for roles in product((False, True), repeat=n) if len(affordable) else ():
                fusers = np.zeros((len(affordable), n + 1), dtype=bool)
                fusers[:, -1] = True
                for node in range(n):  # as in `GraphSpace.legal`: a node that reads a fuser or nothing is no fuser
                    read = affordable[:, :node, node]
                    fusers[:, node] = roles[node] & read.any(1) & ~(read & fusers[:, :node]).any(1)
                yield models, affordable, fusers


def _same(graph: Graph, models: Sequence[str], edges: Bools) -> bool:
    """Whether a graph has exactly these nodes and edges."""
    mine = [(parent, place) for place, node in enumerate(graph.nodes) for parent in node.parents]
    return len(graph.nodes) == len(models) + 1 and sorted(mine) == sorted(zip(*map(list, edges.nonzero()), strict=True))


def grid(task: str, model: str, width: int, depth: int) -> float:
    """The accuracy of so many chains side by side, merged by the decision."""
    nodes: list[GraphNode] = []
    for _ in range(width):
        for link in range(depth):
            nodes.append(GraphNode(ASSISTANT, model, (len(nodes) - 1,) if link else ()))
    ends = tuple(depth * (chain + 1) - 1 for chain in range(width))
    return accuracy(task, Graph((*nodes, GraphNode(FUSER, DECISION, ends))))
