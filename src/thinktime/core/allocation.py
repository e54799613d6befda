"""How many children each of several scored nodes gets (REBASE, Wu et al. 2024, arXiv 2408.00724)."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, exp


def shares(scores: Sequence[float | None], width: int, temperature: float) -> list[int]:
    """Spread ``width`` children over nodes by the softmax of their scores.

    From the best node to the worst, each takes its share of the children that are left, rounded up. A node without a
    score gets none; if no node has a score, all weights are equal.

    Args:
        scores: one per node.
        width: total number of children, 0 or more.
        temperature: of the softmax, above 0; a lower one gives more children to the best node.
    """
    known = [score for score in scores if score is not None]
    top = max(known, default=0.0)
    weights = [exp((score - top) / temperature) if score is not None else 0.0 if known else 1.0 for score in scores]
    left, total = width, sum(weights)
    counts = [0] * len(weights)
    for place in sorted(range(len(weights)), key=lambda i: -weights[i]):
        if left > 0 and total > 0:
            counts[place] = min(left, ceil(left * weights[place] / total - 1e-9))
        left -= counts[place]
        total -= weights[place]
    return counts
