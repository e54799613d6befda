"""Sequential Monte Carlo in logarithms: potentials, effective sample size, resampling.

Text and images steer with the same functions (Singhal et al. 2025, arXiv 2501.06848; Chopin and Papaspiliopoulos 2020).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import exp, inf, isfinite, log
from random import Random

POTENTIALS: dict[str, Callable[[Sequence[float]], float]] = {
    "diff": lambda rewards: rewards[-1] - (rewards[-2] if len(rewards) > 1 else 0.0),
    "max": max,
    "sum": sum,
    "rt": lambda rewards: rewards[-1],
    "is": lambda _: 0.0,
}
"""Each maps the rewards of a lineage so far to a log-potential, for a factor of 1."""


def log_potential(kind: str, rewards: Sequence[float], spent: float, last: bool) -> float:
    """The log-potential of the newest reward. The rewards are already multiplied by the factor.

    The last potential makes the product over the lineage ``exp(reward of the result)`` for every kind.

    Args:
        kind: one of `POTENTIALS`.
        rewards: of the lineage, the newest last.
        spent: the sum of this lineage's log-potentials so far.
        last: whether the generation is complete.
    """
    return rewards[-1] - spent if last else POTENTIALS[kind](rewards)


def normalised(log_weights: Sequence[float]) -> list[float]:
    """Weights that sum to 1; uniform if none is finite."""
    top = max(log_weights, default=-inf)
    if not isfinite(top):
        return [1 / len(log_weights) for _ in log_weights]
    weights = [exp(weight - top) for weight in log_weights]
    total = sum(weights)
    return [weight / total for weight in weights]


def log_mean_exp(values: Sequence[float]) -> float:
    """The logarithm of the mean of the exponentials; it subtracts the highest value first, so nothing overflows."""
    top = max(values)
    return top + log(sum(exp(value - top) for value in values) / len(values))


def effective_size(log_weights: Sequence[float]) -> float:
    """1 over the sum of squared weights: from 1 (one particle has all the weight) to the number of particles."""
    return 1 / sum(weight * weight for weight in normalised(log_weights))


def systematic(log_weights: Sequence[float], n: int, offset: float) -> list[int]:
    """The ancestors of ``n`` new particles: an evenly spaced comb over the weights, shifted by ``offset`` in 0..1.

    A particle of weight w gets n·w descendants, rounded down or up.
    """
    return combed(log_weights, [(tooth + offset) / n for tooth in range(n)])


def combed(log_weights: Sequence[float], teeth: Sequence[float]) -> list[int]:
    """For each tooth (sorted, from 0 to below 1), the index of the particle at that point of the cumulative weights."""
    weights = normalised(log_weights)
    ancestors: list[int] = []
    passed, place = weights[0], 0
    for tooth in teeth:
        while passed <= tooth and place < len(weights) - 1:
            place += 1
            passed += weights[place]
        ancestors.append(place)
    return ancestors


RESAMPLERS: dict[str, Callable[[Sequence[float], int, Random], list[int]]] = {
    "systematic": lambda weights, n, rng: systematic(weights, n, rng.random()),
    "stratified": lambda weights, n, rng: combed(weights, [(tooth + rng.random()) / n for tooth in range(n)]),
    "multinomial": lambda weights, n, rng: combed(weights, sorted(rng.random() for _ in range(n))),
}
"""The ancestors of ``n`` new particles from log-weights, all unbiased: by one draw for all of them, by one in each of
``n`` equal strata, or by ``n`` independent draws (Douc, Cappé and Moulines 2005, arXiv cs/0507025)."""


def log_odds(probability: float, edge: float = 1e-9) -> float:
    """log p/(1-p); p is kept at least ``edge`` away from 0 and 1."""
    inside = min(1 - edge, max(edge, probability))
    return log(inside / (1 - inside))
