"""Scoring as work for the meter: each node is scored once, and charged only for what is new to the scorer."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import takewhile

from thinktime.core.journal import Journal
from thinktime.core.meter import Work
from thinktime.core.protocols import Comparer, Embedder, Scorer
from thinktime.core.types import Embedding, Node, Problem, Score
from thinktime.core.usage import Usage


class ScoreCache(Work[Node, Score]):
    """The scores of one search by one scorer.

    A score is charged for the part of the node after its nearest scored ancestor. The ancestor may be scored in an
    earlier call, or earlier in the same call. Under another root, a score is charged for what differs from the first
    scored node.
    """

    in_order = False

    def __init__(self, role: str, scorer: Scorer, problem: Problem, journal: Journal | None, scope: str = "") -> None:
        super().__init__(role)
        self.scorer, self._problem, self._journal, self._scope = scorer, problem, journal, scope
        self.failed: list[str] = []
        """Why scores are missing, one line each."""
        self._found: dict[str, Score] = {}
        self._covered: dict[str, Node] = {}
        """Scored nodes and their ancestors, in the order of scoring."""
        self._known: dict[str, Node | None] = {}
        self._unread: dict[str, list[Node]] = {}
        """For each node about to be scored: it and those of its ancestors that the scorer has not read yet."""

    def unscored(self, nodes: Sequence[Node]) -> list[Node]:
        """The nodes without a score, each once; failed children are skipped."""
        return [node for node in dict.fromkeys(nodes) if node.finish != "error" and node.key not in self._found]

    def of(self, node: Node) -> tuple[float | None, tuple[float, ...]]:
        """A node's score and the parts it was made of; None if it is not a finite number."""
        score = self._found.get(node.key)
        if score is None:
            return None, ()
        value = score.value
        return (value if value is not None and math.isfinite(value) else None), score.steps

    def worst_case(self, item: Node) -> Usage:
        """The most that the node's score can cost now."""
        unread = list(takewhile(lambda above: above.key not in self._covered, item.lineage()))
        known = (unread[-1].parent or next(iter(self._covered.values()), None)) if unread else item
        self._unread[item.key], self._known[item.key] = unread, known
        return self.scorer.worst_case(self._problem, item, known)

    def granted(self, item: Node) -> None:
        """The node and its ancestors count as read from now on."""
        self._covered.update((node.key, node) for node in self._unread.pop(item.key))

    def find(self, items: Sequence[Node]) -> Mapping[int, Score]:
        """Banked scores."""
        found: dict[int, Score] = {}
        if self._journal is not None:
            for place, node in enumerate(items):
                banked = self._journal.find_score(self._key(node), self.scorer.name)
                if banked is not None:
                    found[place] = banked
        self._found.update((items[place].key, score) for place, score in found.items())
        return found

    async def run(self, items: Sequence[Node]) -> Sequence[Score]:
        """Scores from the scorer; failed ones are not banked."""
        fresh = await self.scorer.score(self._problem, items, [self._known[node.key] for node in items])
        pairs = list(zip(items, fresh, strict=True))
        self.failed += [score.reason for score in fresh if score.reason]
        if self._journal is not None:
            kept = [(self._key(node), score) for node, score in pairs if not score.reason]
            self._journal.add_scores(self.scorer.name, kept)
        self._found.update((node.key, score) for node, score in pairs)
        return fresh

    def _key(self, node: Node) -> str:
        return self._scope + score_key(node, self._known[node.key])


class Comparing(Work[tuple[Node, ...], Score]):
    """Comparisons of candidates by one judge; the same candidates in the same order are compared once."""

    def __init__(self, role: str, judge: Comparer, problem: Problem, journal: Journal | None, scope: str = "") -> None:
        super().__init__(role)
        self.judge, self._problem, self._journal, self._scope = judge, problem, journal, scope
        self.failed: list[str] = []
        """Why comparisons are missing, one line each."""
        self._found: dict[str, Score] = {}

    @property
    def succeeded(self) -> bool:
        """Whether at least one comparison succeeded."""
        return bool(self._found)

    def worst_case(self, item: tuple[Node, ...]) -> Usage:
        """The most that one comparison can cost; zero if it was made before."""
        return Usage() if self._key(item) in self._found else self.judge.worst_case_of_comparison(self._problem, item)

    def find(self, items: Sequence[tuple[Node, ...]]) -> Mapping[int, Score]:
        """Comparisons made before, and banked ones."""
        found: dict[int, Score] = {}
        for place, nodes in enumerate(items):
            key = self._key(nodes)
            if key in self._found:
                found[place] = Score(None, Usage(), self._found[key].steps)
            elif self._journal is not None and (banked := self._journal.find_score(key, self.judge.name)) is not None:
                found[place] = self._found[key] = banked
        return found

    async def run(self, items: Sequence[tuple[Node, ...]]) -> Sequence[Score]:
        """Comparisons from the judge, all at once; failed ones are not banked."""
        from asyncio import gather  # costs as much to import as all of the core

        fresh = await gather(*(self.judge.compare(self._problem, nodes) for nodes in items))
        kept = [(self._key(nodes), score) for nodes, score in zip(items, fresh, strict=True) if not score.reason]
        self.failed += [score.reason for score in fresh if score.reason]
        self._found.update(kept)
        if self._journal is not None:
            self._journal.add_scores(self.judge.name, kept)
        return fresh

    def _key(self, nodes: Sequence[Node]) -> str:
        return f"{self._scope}compare:" + ",".join(map(_named, nodes))


class Embeddings(Work[Node, Embedding]):
    """The vectors of one search. They are a function of the node, so a replay computes them again."""

    def __init__(self, embedder: Embedder) -> None:
        super().__init__("embedder")
        self._embedder = embedder
        self._found: dict[str, Embedding] = {}

    def of(self, node: Node) -> tuple[float, ...] | None:
        """The node's vector, if it is known."""
        found = self._found.get(node.key)
        return None if found is None else found.vector

    def missing(self, nodes: Sequence[Node]) -> list[Node]:
        """The nodes without a vector, each once."""
        return [node for node in dict.fromkeys(nodes) if node.key not in self._found]

    def worst_case(self, item: Node) -> Usage:
        """The most that the node's vector can cost."""
        return self._embedder.worst_case(item)

    async def run(self, items: Sequence[Node]) -> Sequence[Embedding]:
        """Vectors from the embedder."""
        fresh = await self._embedder.embed(items)
        self._found.update((node.key, each) for node, each in zip(items, fresh, strict=True))
        return fresh


def score_key(node: Node, known: Node | None) -> str:
    """The key under which a score is banked. It names what was scored before, because the cost depends on that."""
    return "<".join(_named(each) for each in (node, known) if each is not None)


def _named(node: Node) -> str:
    """The node's key, and its length if a budget or a race cut it: the whole sample has the same key."""
    return f"{node.key}+{node.length}" if node.finish in ("budget", "pruned") else node.key
