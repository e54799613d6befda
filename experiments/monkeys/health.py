"""Measures the errors of a verifier: false positives, false negatives and flaky verdicts.

Coverage equals accuracy only as far as the verifier is sound (Brown et al. 2024, arXiv 2407.21787).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from thinktime.bench.statistics import RESAMPLES, Estimate
from thinktime.core.errors import InputError

Verdict = bool | None
"""None means that the verifier ran out of time. This counts as a rejection."""


@dataclass(frozen=True)
class Judged:
    """One sample: the verdict of each run of the verifier, and whether the sample is right."""

    verdicts: tuple[Verdict, ...]
    right: bool

    @property
    def accepted(self) -> bool:
        """Whether the first run accepts the sample."""
        return self.verdicts[0] is True

    @property
    def flaky(self) -> bool:
        """Whether runs differ; a timeout counts as a rejection."""
        return len({verdict is True for verdict in self.verdicts}) > 1


@dataclass(frozen=True)
class Health:
    """Error rates over all samples, with intervals from resampling problems; None if the denominator is 0.

    ``false_positives`` is the share of wrong samples that are accepted, ``false_negatives`` the share of right samples
    that are rejected. ``wrong_accepted`` is the share of accepted samples that are wrong, by which coverage is too
    high. ``flaky_problems`` are indexes of problems with a flaky sample; ``out_of_time`` counts runs.
    """

    false_positives: Estimate | None
    false_negatives: Estimate | None
    wrong_accepted: Estimate | None
    flaky: Estimate | None
    flaky_problems: tuple[int, ...]
    out_of_time: int


def health(problems: Sequence[Sequence[Judged]], seed: int = 0) -> Health:
    """The error rates of a verifier on samples of known correctness, grouped by problem.

    Raises:
        InputError: there is no sample, or a sample has no verdict.
    """
    if not any(problems):
        raise InputError("samples", 0, "give samples of known correctness")
    for place, samples in enumerate(problems):
        if not all(sample.verdicts for sample in samples):
            raise InputError("verdicts", (), f"problem {place} has a sample without a verdict; run the verifier on it")

    def share(of: Callable[[Judged], bool], among: Callable[[Judged], bool]) -> Estimate | None:
        chosen = [[of(sample) for sample in samples if among(sample)] for samples in problems]
        return _share([sum(row) for row in chosen], [len(row) for row in chosen], seed)

    return Health(
        share(lambda s: s.accepted, lambda s: not s.right),
        share(lambda s: not s.accepted, lambda s: s.right),
        share(lambda s: not s.right, lambda s: s.accepted),
        share(lambda s: s.flaky, lambda s: True),
        tuple(place for place, samples in enumerate(problems) if any(sample.flaky for sample in samples)),
        sum(verdict is None for samples in problems for sample in samples for verdict in sample.verdicts),
    )


def _share(counted: Sequence[int], among: Sequence[int], seed: int) -> Estimate | None:
    """Ratio of the sums; resamples with a denominator of 0 are skipped."""
    if not any(among):
        return None
    shares = np.random.default_rng(seed).multinomial(len(among), np.full(len(among), 1 / len(among)), RESAMPLES)
    some = shares @ np.array(among) > 0
    drawn = (shares @ np.array(counted))[some] / (shares @ np.array(among))[some]
    low, high = np.percentile(drawn, [2.5, 97.5])
    return Estimate(sum(counted) / sum(among), float(low), float(high))
