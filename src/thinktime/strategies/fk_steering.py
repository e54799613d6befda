"""Feynman-Kac steering of diffusion (Singhal et al. 2025, arXiv 2501.06848): the particle filter with its defaults."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from thinktime.core.types import Capability
from thinktime.strategies.options import TREE_SEARCH, at_least
from thinktime.strategies.particle_filter import ParticleFilter


@dataclass(frozen=True)
class FKSteering(ParticleFilter):
    """``n`` pictures on their way, redrawn in proportion to ``exp(factor * reward)`` of their clean estimates.

    A duplicated picture goes two ways by the noise of its steps, so the sampler has to have some. The answer is the one
    with the highest reward at the end.

    Args:
        n: particles, 2 or more.
        potential: what a reward on the way weighs: its rise (``diff``), the highest so far (``max``), all so far
            (``sum``), itself (``rt``), or nothing before the end (``is``). The last potential of a picture makes the
            product the same for all of them. ``bon`` is best-of-n, the baseline: no redraw, no score before the end.
        factor: of the reward in the exponent, above 0.
        ess: share of ``n`` below which the population is redrawn; 1 redraws at every step that is scored.
        anneal: steps over which the factor rises to its full value.
        start: steps at the beginning that are not scored: what is seen there is a blur.
        every: steps from one that is scored to the next; the last is always scored.
        max_rounds: after so many steps the search ends with what has finished.
        reward: the ``score`` as it is, or its ``log_odds``.
        rollouts: pictures that a state on the way is judged by, finished for that; 0 judges its clean estimate.
        resampler: how the population is redrawn: ``systematic`` by one draw for all, ``stratified`` by one in each
            ``n``-th of the weight, ``multinomial`` (the paper's code) by independent ones.
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
