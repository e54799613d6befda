"""A cascade on samples of two models, beside both models alone. Costs are in tokens of the small model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from statistics import fmean
from typing import Any

import numpy as np

from experiments.intervals import Floats, areas, difference, mean, ratio
from thinktime.bench.samples import Sampled
from thinktime.bench.selectors import candidates
from thinktime.core.selection import Candidate, majority

DRAWS = 20
"""Random subsets of a problem's samples; a figure of a problem is the mean over these."""
SETTINGS = ((2, 1.0), (4, 0.5), (4, 0.75), (4, 1.0))
"""Samples of the small model, and the least agreement at which its answer is kept."""


def agreement(drawn: Sequence[Candidate]) -> tuple[Candidate | None, float]:
    """The answer with the most votes, and the share of all samples that give it, as in the strategy `cascade`."""
    chosen = majority(drawn)
    votes = sum(each.answer is not None and each.key == chosen.key for each in drawn) if chosen else 0
    return chosen, votes / len(drawn)


@dataclass(frozen=True)
class Votes:
    """Votes of a model: whether each is right, its agreement, and its cost; all are ``[problems, draws]``."""

    right: Floats
    agreement: Floats
    cost: Floats


class Model:
    """The samples of a model.

    Args:
        problems: with their samples.
        price: the cost of a token.
    """

    def __init__(self, problems: Sequence[Sampled], price: float = 1.0) -> None:
        self.most = min(len(each.samples) for each in problems)
        self.right = np.array([each.pass_rate for each in problems])
        self.cost = price * np.array([fmean(sample.length for sample in each.samples) for each in problems])
        self._price = price
        self._orders = []
        for problem in problems:
            rng, everything = Random(problem.id), candidates(problem.samples, lambda sample: None)
            self._orders.append([rng.sample(everything, len(everything)) for _ in range(DRAWS)])
        self._votes: dict[int, Votes] = {}

    def votes(self, n: int) -> Votes:
        """Votes over random subsets of ``n`` samples."""
        if n not in self._votes:
            found = np.zeros((3, len(self._orders), DRAWS))
            for place, orders in enumerate(self._orders):
                for draw, order in enumerate(orders):
                    chosen, agreed = agreement(order[:n])
                    right = chosen is not None and chosen.node.state.correct
                    cost = self._price * sum(each.node.state.length for each in order[:n])
                    found[:, place, draw] = right, agreed, cost
            self._votes[n] = Votes(*found)
        return self._votes[n]

    def nearest(self, cost: float) -> int:
        """The size of the vote that costs about as much."""
        return min(range(1, self.most + 1), key=lambda n: abs(n * self.cost.mean() - cost))


class Pair:
    """Two models on the same problems, in the same order; the large one answers with one sample."""

    def __init__(self, small: Model, large: Model) -> None:
        self.small, self.large = small, large

    def cascade(self, n: int, threshold: float) -> dict[str, Any]:
        """The cascade beside the large model, and beside what has the same cost or asks the large model as often."""
        votes, large = self.small.votes(n), self.large
        deferred = votes.agreement < threshold
        right = np.where(deferred, large.right[:, None], votes.right).mean(1)
        costs = (votes.cost + deferred * large.cost[:, None]).mean(1)
        share, cost = float(deferred.mean()), float(costs.mean())
        at_random = share * large.right + (1 - share) * votes.right.mean(1)
        name, other = self.of_equal_cost(cost)
        k = self.small.nearest(cost)
        return {
            "n": n,
            "threshold": threshold,
            "deferred": share,
            "accuracy": mean(right),
            "cost": cost,
            "large_over_this_cost": ratio(large.cost, costs),
            "minus_large": difference(right, large.right),
            "minus_random_deferral": difference(right, at_random),
            "equal_cost": name,
            "minus_equal_cost": difference(right, other),
            "small_vote_of_equal_cost": k,
            "minus_small_vote": difference(right, self.small.votes(k).right.mean(1)),
        }

    def of_equal_cost(self, cost: float) -> tuple[str, Floats]:
        """One sample of either model by a coin whose mean cost is this; from the large one's cost on, its vote."""
        small, large = float(self.small.cost.mean()), float(self.large.cost.mean())
        if cost < large:
            share = float(np.clip((cost - small) / (large - small), 0, 1))
            mixed = share * self.large.right + (1 - share) * self.small.right
            return f"the large model on {100 * share:.0f} % of the problems", mixed
        k = self.large.nearest(cost)
        return f"vote of {k} of the large model", self.large.votes(k).right.mean(1)

    def alone(self) -> dict[str, Any]:
        """Both models alone: one sample of each, and votes."""
        found: dict[str, Any] = {"large_minus_small": difference(self.large.right, self.small.right)}
        for name, model in (("small", self.small), ("large", self.large)):
            found[name] = {"1": {"accuracy": mean(model.right), "cost": float(model.cost.mean())}}
            for n in (size for size in (2, 4, 8) if size <= model.most):
                votes = model.votes(n)
                found[name][str(n)] = {"accuracy": mean(votes.right.mean(1)), "cost": float(votes.cost.mean())}
        return found

    def area(self, n: int) -> float | None:
        """The AUC of the agreement over problems: how well it tells right votes from wrong ones; mean over subsets."""
        votes = self.small.votes(n)
        pairs = ((votes.agreement[:, draw].tolist(), (votes.right[:, draw] > 0).tolist()) for draw in range(DRAWS))
        each = (areas([agreed], [right])[0] for agreed, right in pairs)
        found = [one for one in each if one is not None]
        return fmean(found) if found else None

    def measure(self) -> dict[str, Any]:
        """Both models alone, and the cascade at every setting."""
        return {
            "auc": {str(n): self.area(n) for n in sorted({n for n, _ in SETTINGS})},
            "alone": self.alone(),
            "cascade": {f"n={n}, threshold {threshold:g}": self.cascade(n, threshold) for n, threshold in SETTINGS},
        }
