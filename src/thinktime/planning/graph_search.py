"""Search for a good graph of answers within a budget of FLOPs (Wang et al. 2025, arXiv 2511.00086).

A graph (`thinktime.strategies.composition.agent_graph`) says which models answer, in which roles, and which answers
each of them reads. A searcher proposes graphs and learns from their scores: at random, by REINFORCE on a table of
probabilities, by a tree-structured Parzen estimator (TPE), by rules, or by the advice of a language model. A score is
any number of a graph on a batch of problems: accuracy, or accuracy minus a price for seconds. So the search runs on
live models, on recorded samples, and on constructed surfaces.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import inf
from statistics import fmean
from typing import Any, ClassVar, Protocol
from warnings import catch_warnings, simplefilter

import numpy as np
import numpy.typing as npt

from thinktime.core.errors import InputError, ModelError, check_number
from thinktime.strategies.composition.agent_graph import ASSISTANT, FUSER, Graph, GraphNode
from thinktime.strategies.options import above, at_least, one_of

Floats = npt.NDArray[np.float64]
Edges = npt.NDArray[np.bool_]
"""Which earlier node each node reads, ``[nodes, nodes + 1]``, parent first; the last column is the decision."""
Measure = Callable[[Graph, int], float]
"""The score of a graph on the batch of problems of this number; the same batch for the same number."""
Reply = Callable[[str], str]
"""What a language model replies to a prompt."""

MOST_NODES = 32
"""Of a graph in a search; the table of edges grows with the square."""
ADAM = (0.9, 0.999, 1e-8)
"""The decays and the epsilon of the optimiser (Kingma and Ba 2015, arXiv 1412.6980)."""


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
        likely, fuse = _sigmoid(self.edges), _sigmoid(self.fusers)
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
            for i, j, parent, child in _pairs(n):
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


def parzen_study(seed: int) -> Any:
    """A study of optuna that maximises, by TPE over all variables together, because they interact.

    Raises:
        ModelError: optuna is not installed.
    """
    try:
        import optuna
    except ImportError:
        raise ModelError("TPE needs optuna: pip install 'thinktime[search]'") from None
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with catch_warnings():
        simplefilter("ignore", optuna.exceptions.ExperimentalWarning)  # of the option ``multivariate``
        sampler = optuna.samplers.TPESampler(seed=seed, multivariate=True)
    return optuna.create_study(direction="maximize", sampler=sampler)


@dataclass
class GraphAdvice:
    """What an advisor changes: the nodes of a graph, smallest model first, and the probability of each edge."""

    models: list[str]
    edges: Floats
    fusers: Floats


class RuleBasedAdvisor:
    """The advisor of the paper as fixed rules.

    It first scores every model alone, as many nodes as the budget has room for, and takes the two combinations of
    models whose FLOPs are best spent by these scores. Of each it scores random graphs of the whole combination and of
    variants that lack weak nodes, all on the same batch, and keeps the best. Then it goes on from the kept nodes with a
    table of edges:

    - an edge of a graph that scores above the mean of the earlier ones becomes likelier, that of a worse graph less;
    - the next graph keeps most edges and roles of the best one so far, and draws the others from the table;
    - larger models come later and may read more answers; the smallest ones read two at most;
    - every node of the combination is used: one that nothing reads is read by the decision, or by a later node that
      reads no answer of this model yet;
    - a graph whose first level has half of all nodes gets chains of two at most.

    Args:
        space: the graphs.
        seed: of the draws.
        step: share of the way to 0.001 or 0.999 that the probability of an edge goes.
        variants: most variants of a combination.
        combination: the number of nodes of each model, if it is known; then there are no pretests.
    """

    tried: ClassVar[int] = 2
    """Combinations of models that are tried in pretests."""
    few: ClassVar[int] = 2
    """Answers that the smallest model reads, and the chain of a wide graph."""
    bounds: ClassVar[tuple[float, float]] = (0.001, 0.999)
    kept: ClassVar[float] = 0.7
    """Share of the best graph that the next one keeps."""

    def __init__(
        self,
        space: GraphSpace,
        seed: int = 0,
        step: float = 0.3,
        variants: int = 5,
        combination: Mapping[str, int] | None = None,
    ) -> None:
        if not 0 < step < 1:
            raise InputError("step", step, "give a number between 0 and 1")
        at_least("variants", variants, 1)
        self.space, self.rng = space, np.random.default_rng(seed)
        self.step, self.variants = step, variants
        self.sizes = sorted(space.models, key=lambda name: space.node_flops(name, 0))
        self.alone: dict[str, float] = {}
        self.history: list[tuple[Graph, float]] = []
        self.advice = next(self._variants(combination)) if combination else None
        self.pretests = 1 if combination else len(self._affordable()) + self.tried * variants
        self._variations: list[GraphAdvice] = []
        self._tested: list[float] = []
        self._best: tuple[float, Edges, npt.NDArray[np.bool_]] | None = None

    def ask(self) -> Graph:
        """The next graph: a model alone, a variant, or a draw from the table."""
        if self.advice is not None:
            return self.next_graph(self.advice)
        if len(self.alone) < len(self._affordable()):
            return self._star(self._affordable()[len(self.alone)])
        if not self._variations:
            self._variations = [each for counts in self.chosen() for each in self._variants(counts)]
        return self._draw(self._variations[len(self._tested)])

    def tell(self, graph: Graph, score: float) -> None:
        """Note the score, update the table, and choose the nodes after the last pretest."""
        self.history.append((graph, score))
        if self.advice is not None:
            self.update(score)
        elif len(self.alone) < len(self._affordable()):
            self.alone[self._affordable()[len(self.alone)]] = score
        else:
            self._tested.append(score)
            if len(self._tested) == len(self._variations):
                ties = [place for place, each in enumerate(self._tested) if each == max(self._tested)]
                self.advice = self._variations[int(self.rng.choice(ties))]

    def chosen(self) -> list[dict[str, int]]:
        """The combinations of models whose FLOPs are best spent by the scores of the models alone."""

        def worth(counts: Mapping[str, int]) -> float:
            spent = {name: n * self.space.node_flops(name, 1) for name, n in counts.items()}
            return sum(n * self.alone.get(name, -inf) for name, n in spent.items() if n) / sum(spent.values())

        return sorted(self.space.combinations, key=worth, reverse=True)[: self.tried]

    def next_graph(self, advice: GraphAdvice) -> Graph:
        """The graph of the next round."""
        return self._draw(advice)

    def update(self, score: float) -> None:
        """Move the edges and roles of the last draw by what it scored."""
        assert self.advice is not None
        if self._best is None or score > self._best[0]:
            self._best = score, *self._last
        better = score >= fmean(each for _, each in self.history)
        edges, fusers = self._last
        for table, drawn in ((self.advice.edges, edges), (self.advice.fusers, fusers)):
            goal = self.bounds[1] if better else self.bounds[0]
            table[drawn] += self.step * (goal - table[drawn])

    def _affordable(self) -> list[str]:
        """The models of which one node and the decision are within the limit."""
        decision = self.space.node_flops(self.space.decision, 1)
        return [name for name in self.sizes if self.space.node_flops(name, 0) + decision <= self.space.limit]

    def _star(self, model: str) -> Graph:
        """As many assistants of one model as there is room for, all read by the decision."""
        n = max(each.get(model, 0) for each in self.space.combinations) or 1
        edges = np.zeros((n, n + 1), dtype=bool)
        edges[:, -1] = True
        graph = self.space.legal([model] * n, edges, [False] * n, self.rng)
        assert graph is not None
        return graph

    def _variants(self, counts: Mapping[str, int]) -> Iterator[GraphAdvice]:
        """The combination, then with one more of its weakest nodes left out each time."""
        models = [name for name in self.sizes for _ in range(counts.get(name, 0))]
        for left_out in range(min(self.variants, len(models))):
            some = models[left_out:]
            n = len(some)
            prior = float(_sigmoid(np.array(-2 / self.space.edge_temperature)))
            yield GraphAdvice(some, np.full((n, n + 1), prior), np.full(n, 0.5))

    def _draw(self, advice: GraphAdvice) -> Graph:
        """A graph of the table that keeps the rules."""
        n, models = len(advice.models), advice.models
        edges = np.triu(self.rng.random((n, n + 1)) < advice.edges, 1)
        fusers = self.rng.random(n) < advice.fusers
        if self._best is not None:
            _, best_edges, best_fusers = self._best
            edges = np.where(self.rng.random(edges.shape) < self.kept, best_edges, edges)
            fusers = np.where(self.rng.random(n) < self.kept, best_fusers, fusers)
        wide = 2 * sum(not edges[:, node].any() for node in range(n)) >= n
        longest = self.few if wide else self.space.max_depth
        depth = [1] * n
        for node in range(n):
            most = self.few if models[node] == self.sizes[0] else self.space.max_in_degree
            read = [one for one in range(node) if edges[one, node] and depth[one] < longest][:most]
            edges[:, node] = False
            edges[read, node] = True
            depth[node] = 1 + max((depth[one] for one in read), default=0)
        for node in range(n):
            if not edges[node].any():
                edges[node, self._reader(models, edges, depth, node)] = True
        self._last = edges, fusers
        graph = self.space.legal(models, edges, list(fusers), self.rng)
        assert graph is not None  # only the decision can read the last node
        return graph

    def _reader(self, models: Sequence[str], edges: Edges, depth: Sequence[int], node: int) -> int:
        """Who reads a node that nothing reads: a later node that reads one answer of another model, or the decision."""
        for later in range(len(models) - 1, node, -1):
            read = list(map(int, np.flatnonzero(edges[:, later])))
            if len(read) == 1 and models[read[0]] != models[node] and depth[node] < depth[later]:
                return later
        return len(models)


class LanguageModelAdvisor(RuleBasedAdvisor):
    """The advisor as a language model: it reads the last graph, its score and the table, and writes the next ones.

    The first graphs are those of the rules. Only the latest round is sent. A reply that cannot be used is asked for
    again, with what was wrong.

    Args:
        space: the graphs.
        reply: what the language model replies to a prompt.
        seed: of the draws.
        attempts: most replies of a round.
    """

    def __init__(self, space: GraphSpace, reply: Reply, seed: int = 0, attempts: int = 3) -> None:
        super().__init__(space, seed)
        at_least("attempts", attempts, 1)
        self._reply, self._attempts = reply, attempts
        self.replies: list[str] = []
        """All replies so far."""
        self.unusable: list[str] = []
        """What was wrong with the unusable ones."""

    def next_graph(self, advice: GraphAdvice) -> Graph:
        """The graph that the language model writes.

        Raises:
            ModelError: no reply of this round can be used; the message has the last one.
        """
        prompt = advisor_prompt(self.space, advice, *self.history[-1])
        wrong = ""
        for _ in range(self._attempts):
            self.replies.append(self._reply(prompt + wrong))
            try:
                edges, table, fusers = read_advice(self.replies[-1], len(advice.models))
                graph = self.space.legal(advice.models, edges, list(fusers), self.rng)
            except InputError as error:
                self.unusable.append(str(error))
                wrong = f"\n\nYour last reply cannot be used: {error}. Write all sections again."
                continue
            if graph is not None:
                advice.edges, self._last = np.clip(table, *self.bounds), (edges, fusers)
                return graph
            self.unusable.append("the decision reads no node")
            wrong = "\n\nIn your last reply the decision reads no node. Write all sections again."
        raise ModelError(f"advisor: no usable reply in {self._attempts} attempts; the last one: {self.replies[-1]}")

    def update(self, score: float) -> None:
        """The language model updates the table itself."""


RULES = """- Raise the probability of an edge only if it was in the last graph and the score was good.
- Lower the probabilities of the edges of a poor graph.
- Begin at the decision, and grow the graph backwards from it.
- A small model reads few answers. Larger models read more of them. No chain is long.
- The answers that one node reads come from different models.
- A wide graph has short chains, and a graph with long chains is narrow.
- Use every node, and no others."""

ADVISOR_WORDS = """You improve a graph of language models that answer questions together. A node is an assistant \
(answers alone, or improves the answers that it reads) or a fuser (merges the answers that it reads). A node reads \
only nodes with smaller numbers. The decision reads at least one node.

Nodes and their models:
{nodes}

The last graph, one line for each node:
{graph}
Its score: {score:.3f}

Probabilities of edges:
{table}

Rules:
{rules}

Write the next graph and the new probabilities, in exactly this form, one line for each node and for each edge:
Graph:
1 assistant <
2 fuser < 1
decision < 2
Edges:
1 > 2 0.500
1 > decision 0.100
2 > decision 0.900"""


def advisor_prompt(space: GraphSpace, advice: GraphAdvice, graph: Graph, score: float) -> str:
    """The prompt for the language model: the nodes, the last graph and its score, the table, and the rules."""
    sizes = {name: f"{name}, {space.models[name].parameters:.3g} parameters" for name in space.models}
    nodes = "\n".join(f"{number} {sizes[name]}" for number, name in enumerate(advice.models, 1))
    places = [*range(1, len(graph.nodes)), "decision"]
    drawn = "\n".join(
        f"{place} {node.role} {node.model} < {' '.join(str(parent + 1) for parent in node.parents)}".rstrip()
        for place, node in zip(places, graph.nodes, strict=True)
    )
    n = len(advice.models)
    table = "\n".join(f"{a} > {b} {advice.edges[i, j]:.3f}" for i, j, a, b in _pairs(n))
    return ADVISOR_WORDS.format(nodes=nodes, graph=drawn, score=score, table=table, rules=RULES)


def read_advice(text: str, n: int) -> tuple[Edges, Floats, npt.NDArray[np.bool_]]:
    """The edges of the next graph, the table, and which nodes are fusers, of a reply for ``n`` nodes.

    Raises:
        InputError: a section is missing, a node or an edge is unknown, missing or out of order, or a probability is no
            number from 0 to 1.
    """
    sections = re.split(r"^\W*(Graph|Edges)\W*$", text, flags=re.MULTILINE | re.IGNORECASE)
    found = {name.lower(): part.strip().splitlines() for name, part in zip(sections[1::2], sections[2::2], strict=True)}
    for name in ("graph", "edges"):
        if name not in found:
            raise InputError("reply", name, "this section is missing")
    edges, fusers = np.zeros((n, n + 1), dtype=bool), np.zeros(n, dtype=bool)
    names = [*map(str, range(1, n + 1)), "decision"]
    rows = [line for line in found["graph"] if "<" in line]
    if len(rows) != len(names):
        raise InputError("reply", len(rows), f"write {len(names)} lines in the section Graph: nodes 1 to {n}, decision")
    for place, (name, line) in enumerate(zip(names, rows, strict=True)):
        head, _, read = line.partition("<")
        words = head.split()
        if not words or words[0] != name:
            raise InputError("reply", line, f"this line has to be about node {name}")
        for parent in re.findall(r"\w+", read):
            if not parent.isdecimal() or not 1 <= int(parent) <= place:
                raise InputError("reply", line, f"node {name} reads only nodes 1 to {place}")
            edges[int(parent) - 1, place] = True
        if place < n:
            fusers[place] = FUSER in words
    table = np.zeros((n, n + 1))
    wanted = list(_pairs(n))
    lines = [line for line in found["edges"] if ">" in line]
    if len(lines) != len(wanted):
        raise InputError("reply", len(lines), f"write {len(wanted)} lines in the section Edges, in the order given")
    for (i, j, a, b), line in zip(wanted, lines, strict=True):
        row = re.fullmatch(rf"\W*{a}\s*>\s*{b}\s+([\d.]+)\W*", line)
        try:
            table[i, j] = float(row[1]) if row else inf
        except ValueError:
            table[i, j] = inf
        if not 0 <= table[i, j] <= 1:
            raise InputError("reply", line, f"write {a} > {b} and a probability")
    return edges, table, fusers


def _pairs(n: int) -> Iterator[tuple[int, int, str, str]]:
    """The possible edges of ``n`` nodes in the order of the table: places, and names in a prompt."""
    for i in range(n):
        for j in range(i + 1, n + 1):
            yield i, j, str(i + 1), str(j + 1) if j < n else "decision"


def _sigmoid(logits: Floats) -> Floats:
    return np.asarray(1 / (1 + np.exp(-logits)))
