"""Advisors that improve a graph of answers step by step, by rules or by a language model (arXiv 2511.00086)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from statistics import fmean
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from thinktime.core.errors import InputError, ModelError
from thinktime.planning.graph_space import Edges, Floats, GraphSpace, pairs, sigmoid
from thinktime.strategies.composition.agent_graph import FUSER, Graph
from thinktime.strategies.options import at_least

Reply = Callable[[str], str]
"""What a language model replies to a prompt."""


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
            prior = float(sigmoid(np.array(-2 / self.space.edge_temperature)))
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
    table = "\n".join(f"{a} > {b} {advice.edges[i, j]:.3f}" for i, j, a, b in pairs(n))
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
    wanted = list(pairs(n))
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
