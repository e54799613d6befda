"""ETS: efficient tree search (Hooper et al. 2025, arXiv 2502.13575).

REBASE, but at every depth an integer program decides which leaves to keep: it is paid for leaves that REBASE would give
children, and for every kind of step that stays represented, and pays for every node of the tree that has to be held.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf
from random import Random
from typing import TYPE_CHECKING, Any, ClassVar

from thinktime.core.allocation import shares
from thinktime.core.errors import InputError
from thinktime.core.search import Search
from thinktime.core.selection import best, majority, weighted_majority
from thinktime.core.trace import Answer
from thinktime.core.types import Node
from thinktime.core.usage import Usage
from thinktime.strategies.options import TREE_SEARCH, above, at_least, not_below, one_of

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


Sizes = tuple[Sequence[float], Mapping[Any, float]]
"""Of leaves in their order, and of their ancestors."""
VOTES = {"weighted": weighted_majority, "majority": majority, "best": best}


@dataclass(frozen=True)
class ETS:
    """Every round, keep the leaves that are worth the nodes they hold, then share ``n`` steps out as REBASE does.

    A solution that finishes, or reaches the length limit, keeps its place, so less is left to share out. Siblings that
    are the same step are one leaf: the first of them is scored, the others are pruned. The answer is the weighted vote
    of all that finished.

    Args:
        n: steps sampled in the first round.
        balance: temperature of REBASE's softmax, for rewards between 0 and 1.
        node_price: of all nodes of the tree together, against 1 for all children REBASE gives.
        coverage: worth of having every cluster of last steps represented; 0 needs no embedder.
        cluster_distance: cosine distance below which steps are the same kind; it belongs to the embedder.
        min_children: of a leaf that was kept; 0 lets REBASE give it none.
        cost_unit: a ``node`` has its share of the price whatever it says, or by its share of all ``token``s.
        keep: the ``best`` choice, or ``random`` leaves that hold no more nodes: a control for what it is worth.
        vote: ``weighted`` by the last reward, a ``majority``, or the ``best`` alone.
        max_step_tokens: a longer step is cut there and goes on as the next; 0 leaves its end to the model.
        max_rounds: after so many steps the search ends with what has finished.
        solver_seconds: of one integer program; a round whose program takes longer is REBASE, and says so.
    """

    n: int = 16
    balance: float = 0.2
    node_price: float = 1.0
    coverage: float = 1.5
    cluster_distance: float = 0.05
    min_children: int = 0
    cost_unit: str = "node"
    keep: str = "best"
    vote: str = "weighted"
    max_step_tokens: int = 0
    max_rounds: int = 25
    solver_seconds: float = 10.0
    needs: ClassVar[frozenset[str]] = TREE_SEARCH

    def __post_init__(self) -> None:
        at_least("n", self.n, 1)
        above("balance", self.balance, 0)
        not_below("node_price", self.node_price, 0)
        not_below("coverage", self.coverage, 0)
        above("cluster_distance", self.cluster_distance, 0)
        at_least("min_children", self.min_children, 0)
        one_of("cost_unit", self.cost_unit, ("node", "token"))
        one_of("keep", self.keep, ("best", "random"))
        one_of("vote", self.vote, VOTES)
        at_least("max_step_tokens", self.max_step_tokens, 0)
        at_least("max_rounds", self.max_rounds, 1)
        above("solver_seconds", self.solver_seconds, 0)

    def validate(self, search: Search) -> None:
        if self.coverage and search.embedder is None:
            raise InputError("coverage", self.coverage, "the term needs an embedder of steps; give coverage=0 or one")

    async def __call__(self, search: Search) -> Answer:
        finished: dict[Node, float | None] = {}
        kept, counts, left = [search.root], [self.n], self.n
        for _ in range(self.max_rounds):
            children = await search.extend(kept, counts, until="step", at_most=self.max_step_tokens or None)
            leaves = [node for node in children if node.finish in ("step", "cut")]
            left -= len(children) - len(leaves)
            same = copies(leaves)
            search.prune(same)
            distinct = [node for node in children if node not in same]
            leaves = [leaf for leaf in leaves if leaf not in same]
            scores = dict(zip(distinct, await search.score(distinct), strict=True))
            finished |= {node: scores[node] for node in distinct if node.done}
            if not leaves or left <= 0:
                break
            kept, facts = await self._worth_keeping(search, leaves, [scores[leaf] for leaf in leaves], left)
            counts = [max(self.min_children, c) for c in shares([scores[leaf] for leaf in kept], left, self.balance)]
            expanded = {leaf for leaf, count in zip(kept, counts, strict=True) if count}
            search.prune([leaf for leaf in leaves if leaf not in expanded])
            search.log(leaves=len(leaves), merged=len(same), kept=len(kept), expanded=len(expanded), **facts)
            if any(score is not None and not 0 <= score <= 1 for score in scores.values()):
                search.log(warning=f"scores outside 0 to 1: balance={self.balance} is meant for rewards between these")
        return search.finish(VOTES[self.vote](search.candidates(finished, finished.values())))

    async def _worth_keeping(
        self, search: Search, leaves: list[Node], scores: list[float | None], width: int
    ) -> tuple[list[Node], dict[str, float]]:
        """The leaves that are kept; and for the log how many ancestors they hold of how many, how many clusters there
        are, and the parts of the objective.
        """
        if len(leaves) == 1:
            return leaves, {}
        given = shares(scores, width, self.balance)
        ancestors = [list(leaf.lineage())[1:] for leaf in leaves]
        clusters = [0] * len(leaves)
        vectors = [vector for vector in await search.embed(leaves) if vector is not None] if self.coverage else []
        if len(vectors) == len(leaves):
            clusters = clustered(vectors, self.cluster_distance)
        coverage = self.coverage if len(set(clusters)) > 1 else 0.0
        worth = [count / sum(given) for count in given]
        sizes = None
        if self.cost_unit == "token":
            sizes = (
                [leaf.usage.generated_tokens for leaf in leaves],
                {above: above.usage.generated_tokens for line in ancestors for above in line},
            )
        started = search.ledger.clock()
        chosen = solve(worth, ancestors, clusters, self.node_price, coverage, sizes, self.solver_seconds)
        search.charge("solver", Usage(seconds=search.ledger.clock() - started))
        if chosen is None:
            search.log(warning="the integer program was not solved; this round is REBASE")
            return leaves, {}
        if self.keep == "random":
            chosen = at_random(search.random(f"keep/{leaves[0].key}"), ancestors, chosen)
        held = {above for line, keep in zip(ancestors, chosen, strict=True) if keep for above in line}
        everything = {above for line in ancestors for above in line}
        counts = {"held": len(held), "ancestors": len(everything), "clusters": len(set(clusters))}
        facts = counts | objective(chosen, worth, ancestors, clusters, self.node_price, coverage, sizes)
        return [leaf for leaf, keep in zip(leaves, chosen, strict=True) if keep], facts


def copies(leaves: Sequence[Node]) -> list[Node]:
    """The leaves that are the same step as an earlier sibling."""
    first: dict[tuple[Node | None, str, Any], Node] = {}
    return [leaf for leaf in leaves if first.setdefault((leaf.parent, leaf.finish, leaf.state), leaf) is not leaf]


def at_random(dice: Random, ancestors: Sequence[Sequence[object]], chosen: Sequence[bool]) -> list[bool]:
    """Leaves in random order, each kept unless they would then hold more nodes than the chosen ones do."""

    def nodes(leaves: Sequence[int]) -> int:
        return len(leaves) + len({node for leaf in leaves for node in ancestors[leaf]})

    room = nodes([leaf for leaf, keep in enumerate(chosen) if keep])
    kept: list[int] = []
    for leaf in dice.sample(range(len(chosen)), len(chosen)):
        if nodes([*kept, leaf]) <= room:
            kept.append(leaf)
    return [leaf in kept for leaf in range(len(chosen))]


def clustered(vectors: Sequence[Sequence[float]], distance: float) -> list[int]:
    """Cluster numbers: average linkage of cosine distances, cut at ``distance``."""
    from scipy.cluster.hierarchy import fcluster, linkage

    tree = linkage(vectors, method="average", metric="cosine")
    return [int(number) for number in fcluster(tree.clip(min=0), distance, criterion="distance")]


def prices(
    ancestors: Sequence[Sequence[Any]], node_price: float, sizes: Sizes | None = None
) -> tuple[list[float], dict[Any, float]]:
    """What each leaf costs, and each ancestor: the price of all nodes shared out evenly, or by their sizes."""
    inner = dict.fromkeys(node for line in ancestors for node in line)
    own, above = sizes or ([1] * len(ancestors), dict.fromkeys(inner, 1))
    everything = max(1, sum(own) + sum(above.values()))
    held = {node: above[node] * node_price / everything for node in inner}
    return [size * node_price / everything for size in own], held


def objective(
    kept: Sequence[bool],
    worth: Sequence[float],
    ancestors: Sequence[Sequence[Any]],
    clusters: Sequence[int],
    node_price: float,
    coverage: float,
    sizes: Sizes | None = None,
) -> dict[str, float]:
    """The parts of the value that `solve` makes as high as it can: ``reward - price + coverage``.

    Args:
        kept: whether a leaf is.
        worth, ancestors, clusters, node_price, coverage, sizes: see `solve`.
    """
    leaves = [leaf for leaf, keep in enumerate(kept) if keep]
    own, above = prices(ancestors, node_price, sizes)
    held = {node for leaf in leaves for node in ancestors[leaf]}
    return {
        "reward": sum(worth[leaf] for leaf in leaves),
        "price": sum(own[leaf] for leaf in leaves) + sum(above[node] for node in held),
        "coverage": coverage * len({clusters[leaf] for leaf in leaves}) / len(set(clusters)),
    }


def solve(
    worth: Sequence[float],
    ancestors: Sequence[Sequence[object]],
    clusters: Sequence[int],
    node_price: float,
    coverage: float,
    sizes: Sizes | None = None,
    seconds: float = inf,
) -> list[bool] | None:
    """Which leaves to keep, by the integer program.

    The best value of sum(worth of kept leaves) - node_price / nodes * (ancestors and leaves kept)
    + coverage / clusters * (clusters with a kept leaf), at least one leaf being kept. None where the solver fails or
    its time is over, also where it has found a choice by then: which one would depend on the machine.

    Args:
        worth: of a leaf, its share of REBASE's children.
        ancestors: of a leaf, the root included.
        clusters: the number of a leaf's cluster.
        node_price: of all nodes together.
        coverage: worth of all clusters together.
        sizes: of leaves, and of ancestors, in place of 1 each; the price is shared out by them.
        seconds: the most that the solver may take.
    """
    import numpy as np
    from scipy.optimize import Bounds, LinearConstraint, milp

    own, above = prices(ancestors, node_price, sizes)
    inner, kinds = list(above), list(dict.fromkeys(clusters))
    n, m, k = len(worth), len(inner), len(kinds)
    gain = np.array([*(w - price for w, price in zip(worth, own, strict=True)), *(-price for price in above.values())])
    gain = np.concatenate([gain, np.full(k, coverage / k)])
    rows: list[npt.NDArray[np.float64]] = []
    for leaf, line in enumerate(ancestors):
        for node in line:  # an ancestor is held if the leaf is
            row = np.zeros(n + m + k)
            row[leaf], row[n + inner.index(node)] = 1, -1
            rows.append(row)
    for place, kind in enumerate(kinds):  # a cluster is covered only by a leaf that is kept
        row = np.zeros(n + m + k)
        row[[leaf for leaf in range(n) if clusters[leaf] == kind]] = -1
        row[n + m + place] = 1
        rows.append(row)
    some = np.zeros(n + m + k)
    some[:n] = -1
    limits = np.concatenate([np.zeros(len(rows)), [-1.0]])
    constraint = LinearConstraint(np.array([*rows, some]), ub=limits)
    whole, limit = np.ones(n + m + k), {"time_limit": seconds}
    found = milp(-gain, integrality=whole, bounds=Bounds(0, 1), constraints=constraint, options=limit)
    return [bool(x > 0.5) for x in found.x[:n]] if found.success else None
