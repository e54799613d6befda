"""How far a verifier can be trusted (Brown et al. 2024, arXiv 2407.21787): what it accepts wrongly, rejects wrongly,
and says differently when it is asked again. Coverage is accuracy only as far as its verifier is sound.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from thinktime.bench.statistics import RESAMPLES, Estimate
from thinktime.core.errors import InputError

Verdict = bool | None
"""None is a verifier that ran out of time: a rejection, and counted."""


@dataclass(frozen=True)
class Judged:
    """One sample: what each run of the verifier said of it, and whether it is right in truth."""

    verdicts: tuple[Verdict, ...]
    right: bool

    @property
    def accepted(self) -> bool:
        """By the first run."""
        return self.verdicts[0] is True

    @property
    def flaky(self) -> bool:
        """Whether runs differ; out of time is a rejection."""
        return len({verdict is True for verdict in self.verdicts}) > 1


@dataclass(frozen=True)
class Health:
    """Shares over all samples, their intervals from resampling problems; None where there is nothing to take them of.

    ``false_positives`` are of the wrong samples, ``false_negatives`` of the right ones, ``wrong_accepted`` of those
    that were accepted: what coverage by this verifier claims too much. ``flaky_problems`` are places of problems with
    a sample whose verdict changes, ``out_of_time`` counts runs.
    """

    false_positives: Estimate | None
    false_negatives: Estimate | None
    wrong_accepted: Estimate | None
    flaky: Estimate | None
    flaky_problems: tuple[int, ...]
    out_of_time: int


def health(problems: Sequence[Sequence[Judged]], seed: int = 0) -> Health:
    """Of a verifier that was put to samples whose truth is known: by hand, a better checker, or for being references.

    Raises:
        InputError: there is no sample, or one that the verifier did not look at; names its problem.
    """
    if not any(problems):
        raise InputError("samples", 0, "the health of a verifier takes samples whose truth is known")
    for place, samples in enumerate(problems):
        if not all(sample.verdicts for sample in samples):
            raise InputError("verdicts", (), f"problem {place} has a sample without any; run the verifier on it")

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
    """Sum over sum; resamples without anything to count among say nothing."""
    if not any(among):
        return None
    shares = np.random.default_rng(seed).multinomial(len(among), np.full(len(among), 1 / len(among)), RESAMPLES)
    some = shares @ np.array(among) > 0
    drawn = (shares @ np.array(counted))[some] / (shares @ np.array(among))[some]
    low, high = np.percentile(drawn, [2.5, 97.5])
    return Estimate(sum(counted) / sum(among), float(low), float(high))
