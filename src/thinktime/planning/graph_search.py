"""Search for a good graph of answers within a budget of FLOPs (Wang et al. 2025, arXiv 2511.00086).

A graph (`thinktime.strategies.composition.agent_graph`) says which models answer, in which roles, and which answers
each of them reads. A searcher proposes graphs and learns from their scores: at random, by REINFORCE on a table of
probabilities, or by a tree-structured Parzen estimator (TPE); `thinktime.planning.graph_advisors` has rules and a
language model. A score is any number of a graph on a batch of problems: accuracy, or accuracy minus a price for
seconds. So the search runs on live models, on recorded samples, and on constructed surfaces.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from statistics import fmean
from typing import Protocol

import numpy as np

from thinktime.core.errors import InputError
from thinktime.planning.graph_space import Floats, GraphSpace, pairs, sigmoid
from thinktime.planning.parzen import parzen_study
from thinktime.strategies.composition.agent_graph import Graph
from thinktime.strategies.options import above, at_least

Measure = Callable[[Graph, int], float]
"""The score of a graph on the batch of problems of this number; the same batch for the same number."""
ADAM = (0.9, 0.999, 1e-8)
"""The decays and the epsilon of the optimiser (Kingma and Ba 2015, arXiv 1412.6980)."""


class GraphSearcher(Protocol):
    """Proposes graphs and learns from their scores."""

    pretests: int
    """Most proposals that are scored on the first batch of problems, because they are compared with each other."""

    def ask(self) -> Graph:
        """The next graph to score."""
        ...

    def tell(self, graph: Graph, score: float) -> None:
        """The score of the graph that was asked for last."""
        ...


@dataclass(frozen=True)
class ScoredGraph:
    """A graph, its score, and the batch of problems that it was scored on."""

    graph: Graph
    score: float
    batch: int


@dataclass(frozen=True)
class FoundGraph:
    """The result of a search: the graph, its mean score, and all evaluations in order."""

    graph: Graph
    score: float
    history: tuple[ScoredGraph, ...]


def search_graphs(searcher: GraphSearcher, measure: Measure, evaluations: int, *, top: int = 3) -> FoundGraph:
    """Score ``evaluations`` graphs, and return the best.

    The last ``top`` evaluations score the graphs with the highest mean scores once more, all on one fresh batch: of
    many noisy scores the highest is mostly luck.

    Raises:
        InputError: ``evaluations`` is not above ``top``.
    """
    at_least("top", top, 1)
    if evaluations <= top:
        raise InputError("evaluations", evaluations, f"give more than top={top}, which are scored again at the end")
    history: list[ScoredGraph] = []

    def score(graph: Graph, batch: int) -> float:
        history.append(ScoredGraph(graph, measure(graph, batch), batch))
        return history[-1].score

    for number in range(evaluations - top):
        graph = searcher.ask()
        searcher.tell(graph, score(graph, max(0, number + 1 - searcher.pretests)))
    scores: dict[Graph, list[float]] = {}
    for each in history:
        scores.setdefault(each.graph, []).append(each.score)
    best = sorted(scores, key=lambda graph: -fmean(scores[graph]))[:top]
    for graph in best:
        scores[graph].append(score(graph, evaluations))
    # the graphs were chosen for their first scores, so the fresh one decides
    chosen = max(best, key=lambda graph: (scores[graph][-1], fmean(scores[graph])))
    return FoundGraph(chosen, scores[chosen][-1], tuple(history))


@dataclass
class GraphTable:
    """Independent probabilities of the parts of a graph, in logits.

    ``edges`` is ``[nodes, nodes + 1]`` for edges from earlier to later nodes and to the decision, ``fusers`` is
    ``[nodes]``, and ``models`` is ``[nodes, models]``.
    """

    edges: Floats
    fusers: Floats
    models: Floats

    @classmethod
    def of(cls, space: GraphSpace) -> GraphTable:
        """The table before any learning: sparse edges, both roles and all models equally likely."""
        n = space.budget
        return cls(np.full((n, n + 1), -2 / space.edge_temperature), np.zeros(n), np.zeros((n, len(space.models))))

    def draw(self, space: GraphSpace, rng: np.random.Generator) -> tuple[Graph, GraphTable]:
        """A legal graph, and the gradient of the log-probability of its draw. Illegal draws are dropped.

        Raises:
            InputError: no draw was legal.
        """
        names = list(space.models)
        shares = np.exp(self.models - self.models.max(1, keepdims=True))
        shares /= shares.sum(1, keepdims=True)
        likely, fuse = sigmoid(self.edges), sigmoid(self.fusers)
        possible = np.triu(np.ones_like(likely, dtype=bool), 1)
        for _ in range(space.tries):
            edges = possible & (rng.random(likely.shape) < likely)
            fusers = rng.random(fuse.shape) < fuse
            picks = (rng.random((len(shares), 1)) > shares.cumsum(1)[:, :-1]).sum(1)
            graph = space.legal([names[pick] for pick in picks], edges, list(fusers), rng)
            if graph is not None:
                of_models = np.eye(len(names))[picks] - shares
                return graph, GraphTable((edges - likely) * possible, fusers - fuse, of_models)
        raise InputError("tries", space.tries, "no graph was legal; give more tries or a higher edge_temperature")


class RandomGraphs:
    """Graphs from the table before any learning."""

    pretests = 1

    def __init__(self, space: GraphSpace, seed: int = 0) -> None:
        self.space, self.rng = space, np.random.default_rng(seed)
        self.table = GraphTable.of(space)

    def ask(self) -> Graph:
        """A random legal graph."""
        graph, self._gradient = self.table.draw(self.space, self.rng)
        return graph

    def tell(self, graph: Graph, score: float) -> None:
        """Learn nothing."""


class Reinforce(RandomGraphs):
    """Policy gradient on the table (Williams 1992), with Adam and the mean of earlier scores as the baseline.

    Args:
        space: the graphs.
        seed: of the draws.
        lr: step of the optimiser.
        batch: graphs of one step.
    """

    def __init__(self, space: GraphSpace, seed: int = 0, lr: float = 0.1, batch: int = 3) -> None:
        super().__init__(space, seed)
        above("lr", lr, 0)
        at_least("batch", batch, 1)
        self._lr, self._batch = lr, batch
        self._scores: list[float] = []
        self._gradients: list[list[Floats]] = []
        self._moments = [(np.zeros_like(part), np.zeros_like(part)) for part in self._parts(self.table)]

    def tell(self, graph: Graph, score: float) -> None:
        """Add to the gradient, and take a step after each ``batch`` graphs."""
        gain = score - (fmean(self._scores) if self._scores else score)
        self._scores.append(score)
        self._gradients.append([gain * part for part in self._parts(self._gradient)])
        if len(self._gradients) < self._batch:
            return
        step, (decay, square_decay, tiny) = len(self._scores) // self._batch, ADAM
        for place, part in enumerate(self._parts(self.table)):
            mean = sum(gradient[place] for gradient in self._gradients) / self._batch
            first, second = self._moments[place]
            first += (1 - decay) * (mean - first)
            second += (1 - square_decay) * (mean**2 - second)
            part += self._lr * (first / (1 - decay**step)) / (np.sqrt(second / (1 - square_decay**step)) + tiny)
        self._gradients = []

    @staticmethod
    def _parts(table: GraphTable) -> list[Floats]:
        return [table.edges, table.fusers, table.models]


class ParzenGraphs:
    """TPE (Bergstra et al. 2011) over the model, the role and the edges of each node.

    It needs optuna: ``pip install 'thinktime[search]'``.

    Raises:
        ModelError: optuna is not installed.
    """

    pretests = 1

    def __init__(self, space: GraphSpace, seed: int = 0) -> None:
        self.space, self.rng = space, np.random.default_rng(seed)
        self._study = parzen_study(seed)

    def ask(self) -> Graph:
        """The next legal proposal. Optuna records illegal ones as failed.

        Raises:
            InputError: no proposal was legal.
        """
        import optuna

        n, names = self.space.budget, list(self.space.models)
        for _ in range(self.space.tries):
            self._trial = self._study.ask()
            edges = np.zeros((n, n + 1), dtype=bool)
            for i, j, parent, child in pairs(n):
                edges[i, j] = self._trial.suggest_categorical(f"edge {parent} > {child}", [False, True])
            models = [self._trial.suggest_categorical(f"model {node}", names) for node in range(n)]
            fusers = [self._trial.suggest_categorical(f"fuser {node}", [False, True]) for node in range(n)]
            graph = self.space.legal(models, edges, fusers, self.rng)
            if graph is not None:
                return graph
            self._study.tell(self._trial, state=optuna.trial.TrialState.FAIL)
        raise InputError("tries", self.space.tries, "no graph was legal; give more tries")

    def tell(self, graph: Graph, score: float) -> None:
        """Add the score to the study."""
        self._study.tell(self._trial, score)
