"""A*-decoding (Chatziveroglou 2025, arXiv 2505.13672): best-first search over partial solutions of all depths.

``h = 1 - reward`` estimates a state's distance to a good solution, and ``g`` is the cost of the path to the state. The
state with the smallest ``f = g + weight * h`` is extended next. The paper describes its edge cost in one sentence that
has two interpretations; both are available. The heuristic is learned, so the first goal need not be the best one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from heapq import heappop, heappush
from itertools import count
from math import exp
from statistics import pstdev
from typing import ClassVar

from thinktime.core.errors import InputError
from thinktime.core.search import Search
from thinktime.core.selection import weighted_majority
from thinktime.core.trace import Answer
from thinktime.core.types import Node, Until
from thinktime.core.usage import Usage
from thinktime.strategies.options import TREE_SEARCH, above, at_least, not_below, one_of

EDGE_COSTS = ("drop", "consistent", "steps", "tokens", "zero")
FLAT = 0.01
"""If siblings' scores have a standard deviation below this, it is logged: age almost decides their order then."""
FORCED = "the search reached no solution; the answer is forced: the most promising state continued to its end"

State = tuple[float, float, int, int, float, Node]
"""f, h, -depth, age, g, node; the heap breaks ties in this order."""


@dataclass(frozen=True)
class AStar:
    """Extend the state with the smallest ``f`` by ``k`` steps, until ``n_goals`` complete solutions have the smallest.

    A solution counts when it has the smallest ``f``, not when it is sampled. A state without a score inherits the
    distance of its parent. When the budget runs low or no state is left to extend, the search forces an answer: it
    continues the most promising state to its end with the reserved budget.

    Args:
        k: steps sampled from each extended state.
        edge_cost: ``drop`` charges each decrease of the reward, ``consistent`` each increase (which makes h
            consistent), ``steps`` and ``tokens`` charge by number, ``zero`` charges nothing (greedy best-first).
        step_cost: cost of a step with ``edge_cost=steps``.
        token_cost: cost of a token with ``edge_cost=tokens``.
        weight: weight of the heuristic; above 1 is greedier.
        n_goals: solutions to reach; several are put to a weighted vote.
        pop_width: states extended at once; 1 is the exact order.
        max_frontier: the most waiting states; beyond this number the worst are dropped.
        max_depth: a state of this depth is not extended by steps, but may be continued to its end.
        segment_tokens: fixed length of a step in tokens; 0 lets the model end its steps.
        reserve_tokens: tokens reserved for forcing a solution; 0 reserves the length of the longest solution so far. Of
            limited calls, evaluations, FLOPs and dollars, the search reserves the most that a solution can cost.
        score_map: ``sigmoid`` for rewards that are not probabilities, or ``none``.
    """

    k: int = 4
    edge_cost: str = "drop"
    step_cost: float = 0.02
    token_cost: float = 0.0005
    weight: float = 1.0
    n_goals: int = 1
    pop_width: int = 1
    max_frontier: int = 256
    max_depth: int = 40
    segment_tokens: int = 0
    reserve_tokens: int = 0
    score_map: str = "none"
    needs: ClassVar[frozenset[str]] = TREE_SEARCH

    def __post_init__(self) -> None:
        for name in ("k", "n_goals", "pop_width", "max_frontier", "max_depth"):
            at_least(name, getattr(self, name), 1)
        for name in ("segment_tokens", "reserve_tokens"):
            at_least(name, getattr(self, name), 0)
        for name in ("step_cost", "token_cost"):
            not_below(name, getattr(self, name), 0)
        one_of("score_map", self.score_map, ("none", "sigmoid"))
        one_of("edge_cost", self.edge_cost, EDGE_COSTS)
        above("weight", self.weight, 0)

    async def __call__(self, search: Search) -> Answer:
        queue: list[State] = [(self.weight * 0.5, 0.5, 0, 0, 0.0, search.root)]
        goals: dict[Node, float | None] = {}
        seen: set[object] = set()
        deep: list[State] = []
        age = count(1)
        longest = 0
        while queue and len(goals) < self.n_goals:
            turns = [heappop(queue) for _ in range(min(self.pop_width, len(queue)))]
            goals |= {node: self._reward(search.trace[node.key].score) for *_, node in turns if node.done}
            partial = [turn for turn in turns if not turn[-1].done]
            deep += [turn for turn in partial if turn[-1].depth >= self.max_depth]
            extended = [turn for turn in partial if turn[-1].depth < self.max_depth]
            states = {node: (h, g) for _, h, _, _, g, node in extended}
            if not states:
                continue
            if not self._affordable(search, list(states), longest):
                search.exhausted = True
                queue += extended
                break
            search.log(
                extended=[node.key for node in states],
                waiting=len(queue),
                depth=[node.depth for node in states],
                f=[turn[0] for turn in extended],
                g=[g for _, g in states.values()],
                h=[h for h, _ in states.values()],
            )
            until: Until = "done" if self.segment_tokens else "step"
            children = await search.extend(list(states), self.k, until=until, at_most=self.segment_tokens or None)
            longest = max([longest, *(search.generator.length(child.state) for child in children if child.done)])
            new = []
            for child in children:
                if child.finish in ("step", "cut", "eos") and child.state not in seen:
                    seen.add(child.state)
                    new.append(child)
            scores = [self._reward(score) for score in await search.score(new)]
            known = [score for score in scores if score is not None]
            if len(known) > 1 and pstdev(known) < FLAT:
                search.log(flat=pstdev(known))
            for child, score in zip(new, scores, strict=True):
                assert child.parent is not None
                h, g = states[child.parent]
                h_next = h if score is None else 1 - score
                g += self.price(h, h_next, child.usage.generated_tokens) if score is not None else 0.0
                heappush(queue, (g + self.weight * h_next, h_next, -child.depth, next(age), g, child))
            if len(queue) > self.max_frontier:
                queue.sort()  # a sorted list is a heap
                search.prune([node for *_, node in queue[self.max_frontier :]])
                del queue[self.max_frontier :]
            if search.exhausted:
                break
        if not goals:
            goals = await self._forced(search, [*queue, *deep])
            if goals:
                search.log(warning=FORCED)
        return search.finish(weighted_majority(search.candidates(goals, goals.values())))

    def price(self, h: float, h_next: float, tokens: int = 0) -> float:
        """The edge cost from a state at distance ``h`` to one at ``h_next``, which adds this many tokens."""
        prices = {
            "drop": max(0.0, h_next - h),
            "consistent": max(0.0, h - h_next),
            "steps": self.step_cost,
            "tokens": self.token_cost * tokens,
            "zero": 0.0,
        }
        return prices[self.edge_cost]

    def _reward(self, score: float | None) -> float | None:
        """A score as a probability.

        Raises:
            InputError: it is not a probability.
        """
        if score is None:
            return None
        if self.score_map == "sigmoid":
            return 1 / (1 + exp(-max(-700.0, min(700.0, score))))
        if not 0 <= score <= 1:
            fix = "A*-decoding needs prefix scores in [0, 1]; take a scorer that gives probabilities, or set "
            raise InputError("score", score, f"{fix}score_map=sigmoid")
        return score

    def _affordable(self, search: Search, nodes: Sequence[Node], longest: int) -> bool:
        """Whether extending these nodes leaves enough of every limited count to continue one state to its end.

        A child is estimated by the mean so far. The solution needs as many tokens as the longest so far, because the
        search shortens it to the tokens left. Of every other count it needs the most it can cost, because the ledger
        reserves that much.
        """
        generator, spent = search.generator, search.ledger.spent
        first = not spent.model_calls
        known, calls = (generator.worst_case(nodes[0], 1), 1) if first else (spent, spent.model_calls)
        expansion = scaled(known, self.k * len(nodes), calls)
        tokens = self.reserve_tokens or longest or search.sampling.max_length // 4
        room = search.ledger.room_for_tokens()
        if room is not None and room < expansion.generated_tokens + tokens:
            return False
        left = search.sampling.max_length - generator.length(nodes[0].state)
        solution = generator.worst_case(nodes[0], left)
        return search.ledger.check(replace(spent + expansion + solution, generated_tokens=0))

    async def _forced(self, search: Search, waiting: Sequence[State]) -> dict[Node, float | None]:
        """Continue the most promising states, one after the other; return the first that ends, with its reward."""
        for _, h, *_, node in sorted(waiting, key=lambda state: state[1]):
            ends = [node] if node.done else await search.extend([node])
            if not ends:  # at the length limit, or too expensive; the budget may still cover a deeper state
                continue
            search.log(forced=node.key)
            if ends[0].done:
                return {ends[0]: 1 - h}
        return {}


def scaled(usage: Usage, times: int, over: int) -> Usage:
    """Every count multiplied by ``times / over``; an unknown count stays unknown."""
    counts = {name: count and count * times / over for name, count in usage.as_dict().items()}
    return Usage(**counts)  # type: ignore[arg-type]  # fractions of calls and tokens too
