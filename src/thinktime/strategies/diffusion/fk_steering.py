"""Feynman-Kac steering of diffusion (Singhal et al. 2025, arXiv 2501.06848): the particle filter with its defaults."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from thinktime.core.types import Capability
from thinktime.strategies.options import TREE_SEARCH, at_least
from thinktime.strategies.search.particle_filter import ParticleFilter


@dataclass(frozen=True)
class FKSteering(ParticleFilter):
    """``n`` partial pictures, resampled in proportion to ``exp(factor * reward)`` of their clean estimates.

    Copies of a picture diverge by the noise of their steps, so the sampler must not be deterministic. The answer is the
    picture with the highest reward at the end.

    Args:
        n: particles, 2 or more.
        potential: the potential of a partial picture: the change of its reward (``diff``), the highest reward so far
            (``max``), the sum so far (``sum``), the reward itself (``rt``), or 1 before the end (``is``). The last
            potential of a picture makes the product the same for all of these. ``bon`` is best-of-n, the baseline: no
            resampling, no score before the end.
        factor: multiplies the reward in the exponent, above 0.
        ess: resample if the effective size is below this share of ``n``; 1 resamples at every scored step.
        anneal: steps over which the factor rises to its full value.
        start: initial steps without a score, because their estimates are blurred.
        every: steps from one scored step to the next; the last step is always scored.
        max_rounds: the most steps; the search then ends with the finished pictures.
        reward: the ``score`` as it is, or its ``log_odds``.
        rollouts: roll-outs to the end that are scored for a partial picture; 0 scores its clean estimate.
        resampler: ``systematic`` with one draw for all particles, ``stratified`` with one draw in each ``n``-th of the
            weight, or ``multinomial`` (the paper's code) with independent draws.
    """

    n: int = 4
    potential: str = "max"
    factor: float = 10.0
    start: int = 4
    every: int = 4
    max_rounds: int = 1001
    reward: str = "score"
    needs: ClassVar[frozenset[str]] = TREE_SEARCH | {Capability.NOISE}

    def __post_init__(self) -> None:
        at_least("n", self.n, 2)
        super().__post_init__()
