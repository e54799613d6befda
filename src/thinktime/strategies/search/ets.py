"""ETS: efficient tree search (Hooper et al. 2025, arXiv 2502.13575).

REBASE with an integer program that decides at every depth which leaves to keep. The objective rewards leaves in
proportion to their children in REBASE, rewards every cluster of steps with a kept leaf, and charges every node of the
tree that the kept leaves need.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
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
from thinktime.strategies.options import TREE_SEARCH, above, at_least, installed, not_below, one_of

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


Sizes = tuple[Sequence[float], Mapping[Any, float]]
"""Sizes of the leaves in order, and of their ancestors."""
VOTES = {"weighted": weighted_majority, "majority": majority, "best": best}


@dataclass(frozen=True)
class ETS:
    """Every round, choose the leaves to keep by the integer program, then allocate ``n`` steps to them as REBASE does.

    A solution that finishes, or reaches the length limit, keeps occupying a slot, so later rounds have fewer steps.
    Siblings with the same step are merged: the first one is scored and gets the children of all, the others are pruned.
    The answer is the weighted vote of all finished solutions.

    Args:
        n: steps sampled in the first round.
        balance: temperature of REBASE's softmax, for rewards between 0 and 1.
        node_price: price of all nodes of the tree together; the reward of all leaves together is 1.
        coverage: reward for representing every cluster of last steps; 0 needs no embedder.
        cluster_distance: cosine distance below which steps are in one cluster; it depends on the embedder.
        min_children: least children of a kept leaf; 0 allows REBASE to give it none.
        cost_unit: a ``node`` costs an equal share of the price, or with ``token`` a share by its tokens.
        keep: the ``best`` choice, or as a control ``random`` leaves that need no more nodes.
        vote: ``weighted`` by the last reward, a ``majority``, or the ``best`` alone.
        max_step_tokens: a longer step is cut at this length and continues as the next step; 0 is no limit.
        max_rounds: the most rounds; the search then ends with the finished solutions.
        solver_seconds: time limit of one integer program; beyond it, the round is REBASE and logs a warning.
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
        installed("strategy", "ets", "scipy")
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
            times = merged(leaves)
            same = [leaf for leaf in leaves if leaf not in times]
            search.prune(same)
            distinct, leaves = [node for node in children if node not in same], list(times)
            scores = dict(zip(distinct, await search.score(distinct), strict=True))
            finished |= {node: scores[node] for node in distinct if node.done}
            if not leaves or left <= 0:
                break
            given = allotted([scores[leaf] for leaf in leaves], list(times.values()), left, self.balance)
            kept, parts = await self._kept(search, leaves, given)
            given = allotted([scores[leaf] for leaf in kept], [times[leaf] for leaf in kept], left, self.balance)
            counts = [max(self.min_children, count) for count in given]
            expanded = {leaf for leaf, count in zip(kept, counts, strict=True) if count}
            search.prune([leaf for leaf in leaves if leaf not in expanded])
            search.log(leaves=len(leaves), merged=len(same), kept=len(kept), expanded=len(expanded), **parts)
            if any(score is not None and not 0 <= score <= 1 for score in scores.values()):
                search.log(warning=f"scores outside 0 to 1: balance={self.balance} is meant for rewards between these")
        return search.finish(VOTES[self.vote](search.candidates(finished, finished.values())))

    async def _kept(
        self, search: Search, leaves: list[Node], given: Sequence[int]
    ) -> tuple[list[Node], dict[str, float]]:
        """The kept leaves, and fields for the log: ancestors they hold, all ancestors, clusters, and the objective."""
        if len(leaves) == 1:
            return leaves, {}
        ancestors = [list(leaf.lineage())[1:] for leaf in leaves]
        clusters = [0] * len(leaves)
        vectors = [vector for vector in await search.embed(leaves) if vector is not None] if self.coverage else []
        if len(vectors) == len(leaves):
            clusters = clustered(vectors, self.cluster_distance)
        coverage = self.coverage if len(set(clusters)) > 1 else 0.0
        rewards = [count / sum(given) for count in given]
        sizes = None
        if self.cost_unit == "token":
            sizes = (
                [leaf.usage.generated_tokens for leaf in leaves],
                {above: above.usage.generated_tokens for line in ancestors for above in line},
            )
        started = search.ledger.clock()
        chosen = solve(rewards, ancestors, clusters, self.node_price, coverage, sizes, self.solver_seconds)
        search.charge("solver", Usage(seconds=search.ledger.clock() - started))
        if chosen is None:
            search.log(warning="the integer program was not solved; this round is REBASE")
            return leaves, {}
        if self.keep == "random":
            chosen = at_random(search.random(f"keep/{leaves[0].key}"), ancestors, chosen)
        held = {above for line, keep in zip(ancestors, chosen, strict=True) if keep for above in line}
        everything = {above for line in ancestors for above in line}
        counts = {"held": len(held), "ancestors": len(everything), "clusters": len(set(clusters))}
        parts = counts | objective(chosen, rewards, ancestors, clusters, self.node_price, coverage, sizes)
        return [leaf for leaf, keep in zip(leaves, chosen, strict=True) if keep], parts


def merged(leaves: Sequence[Node]) -> dict[Node, int]:
    """The first leaf of each step, and how many siblings have the same one."""
    first: dict[tuple[Node | None, str, Any], Node] = {}
    return Counter(first.setdefault((leaf.parent, leaf.finish, leaf.state), leaf) for leaf in leaves)


def allotted(scores: Sequence[float | None], times: Sequence[int], width: int, balance: float) -> list[int]:
    """REBASE's numbers of children: a leaf that stands for several gets the children of all of them."""
    each = iter(shares([score for score, n in zip(scores, times, strict=True) for _ in range(n)], width, balance))
    return [sum(islice(each, n)) for n in times]


def at_random(rng: Random, ancestors: Sequence[Sequence[object]], chosen: Sequence[bool]) -> list[bool]:
    """Leaves in random order, each kept unless the kept leaves would then need more nodes than the chosen ones."""

    def nodes(leaves: Sequence[int]) -> int:
        return len(leaves) + len({node for leaf in leaves for node in ancestors[leaf]})

    room = nodes([leaf for leaf, keep in enumerate(chosen) if keep])
    kept: list[int] = []
    for leaf in rng.sample(range(len(chosen)), len(chosen)):
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
    """The price of each leaf and of each ancestor: an equal share of ``node_price``, or a share by size."""
    inner = dict.fromkeys(node for line in ancestors for node in line)
    own, above = sizes or ([1] * len(ancestors), dict.fromkeys(inner, 1))
    everything = max(1, sum(own) + sum(above.values()))
    held = {node: above[node] * node_price / everything for node in inner}
    return [size * node_price / everything for size in own], held


def objective(
    kept: Sequence[bool],
    rewards: Sequence[float],
    ancestors: Sequence[Sequence[Any]],
    clusters: Sequence[int],
    node_price: float,
    coverage: float,
    sizes: Sizes | None = None,
) -> dict[str, float]:
    """The parts of the objective that `solve` maximises: ``reward - price + coverage``.

    Args:
        kept: whether each leaf is kept.
        rewards, ancestors, clusters, node_price, coverage, sizes: see `solve`.
    """
    leaves = [leaf for leaf, keep in enumerate(kept) if keep]
    own, above = prices(ancestors, node_price, sizes)
    held = {node for leaf in leaves for node in ancestors[leaf]}
    return {
        "reward": sum(rewards[leaf] for leaf in leaves),
        "price": sum(own[leaf] for leaf in leaves) + sum(above[node] for node in held),
        "coverage": coverage * len({clusters[leaf] for leaf in leaves}) / len(set(clusters)),
    }


def solve(
    rewards: Sequence[float],
    ancestors: Sequence[Sequence[object]],
    clusters: Sequence[int],
    node_price: float,
    coverage: float,
    sizes: Sizes | None = None,
    seconds: float = inf,
) -> list[bool] | None:
    """The leaves to keep, by the integer program.

    It maximises sum(rewards of kept leaves) - node_price / nodes * (kept ancestors and leaves)
    + coverage / clusters * (clusters with a kept leaf), and keeps at least one leaf. Returns None if the solver fails
    or exceeds its time, even with a feasible solution, because that solution would depend on the machine.

    Args:
        rewards: each leaf's share of REBASE's children.
        ancestors: each leaf's ancestors, including the root.
        clusters: the number of each leaf's cluster.
        node_price: price of all nodes together.
        coverage: reward for all clusters together.
        sizes: sizes of leaves and of ancestors, by default 1 each; the price is divided in proportion to them.
        seconds: time limit of the solver.
    """
    import numpy as np
    from scipy.optimize import Bounds, LinearConstraint, milp

    own, above = prices(ancestors, node_price, sizes)
    inner, kinds = list(above), list(dict.fromkeys(clusters))
    n, m, k = len(rewards), len(inner), len(kinds)
    gain = np.array(
        [*(w - price for w, price in zip(rewards, own, strict=True)), *(-price for price in above.values())]
    )
    gain = np.concatenate([gain, np.full(k, coverage / k)])
    rows: list[npt.NDArray[np.float64]] = []
    for leaf, line in enumerate(ancestors):
        for node in line:  # a kept leaf holds its ancestors
            row = np.zeros(n + m + k)
            row[leaf], row[n + inner.index(node)] = 1, -1
            rows.append(row)
    for place, kind in enumerate(kinds):  # only a kept leaf covers its cluster
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
