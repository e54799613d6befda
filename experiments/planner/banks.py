"""Calibrations of the committed exports, from their judgements: no model, no sandbox and no data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from math import exp
from pathlib import Path
from random import Random
from statistics import fmean

from experiments.banks.judge import SUFFIX, judged_pool
from experiments.pools import likelihood, reward
from thinktime.bench.samples import Sample, Sampled
from thinktime.bench.selectors import Score, Select, candidates
from thinktime.bench.signals import SIGNALS
from thinktime.core.selection import best, majority
from thinktime.planning.arms import Arm
from thinktime.planning.calibration import Calibration
from thinktime.strategies.sampling.adaptive_consistency import AdaptiveConsistency

SIZES = (2, 3, 4, 6, 8)


def calibration_of(path: Path, order: int = 0, sizes: Sequence[int] = SIZES) -> Calibration:
    """The strategies that only select among independent samples, in a random order of the samples.

    A sample that was cut has no answer. Best-of-n is by the examples of the prompt, where there are any; it is the only
    strategy that knows them.
    """
    pool = judged_pool(path)
    most = pool.fewest
    problems = [
        replace(problem, samples=tuple(Random(f"{order}/{problem.id}").sample(problem.samples, len(problem.samples))))
        for problem in pool.problems
    ]
    has_votes = all(problem.reference is not None for problem in problems)
    has_examples = any(sample.reward is not None for problem in problems for sample in problem.samples)
    chosen: dict[str, tuple[Select, Score]] = {"most_likely": (best, likelihood)}
    chosen |= {"majority": (majority, likelihood)} if has_votes else {}
    chosen |= {"best_of_n": (best, reward)} if has_examples else {}
    arms = [_arm("single", problems, [1] * len(problems), best, likelihood)]
    for n in (n for n in sizes if n <= most):
        for name, (select, score) in chosen.items():
            arms.append(_arm(f"{name}:n={n}", problems, [n] * len(problems), select, score))
        if has_votes and n in (4, 8):
            drawn = [_stops(problem.samples[:n]) for problem in problems]
            arms.append(_arm(f"adaptive_consistency:n={n}", problems, drawn, majority, likelihood))
    arms.sort(key=lambda arm: (fmean(arm.tokens), -fmean(arm.right)))
    ids = tuple(problem.id for problem in problems)
    task = {"name": path.name.removesuffix(SUFFIX)}
    model = {"generator": pool.generator, "scorer": "examples of the prompt" if has_examples else None}
    made = Calibration(task, model, {"setting": pool.setting}, 0, ids, tuple(arms), ({"command": path.name},))
    return replace(made, rates=tuple(fmean(float(sample.correct) for sample in each.samples) for each in problems))


def _arm(name: str, problems: Sequence[Sampled], drawn: Sequence[int], select: Select, score: Score) -> Arm:
    right, tokens, seen = [], [], []
    for problem, n in zip(problems, drawn, strict=True):
        samples = problem.samples[:n]
        winner = select(candidates(samples, score))
        right.append(float(winner is not None and winner.key in problem.right))
        tokens.append(float(sum(sample.length for sample in samples)))
        seen.append(signals(samples))
    usage = {"judge_tokens": 0.0, "model_calls": fmean(drawn), "scorer_calls": 0.0}
    return Arm(name, tuple(right), tuple(tokens), usage, None, {}, by_name(seen))


def signals(samples: Sequence[Sample]) -> tuple[float, float]:
    """Agreement and confidence of recorded samples of a problem, as `thinktime.bench.signals` of a search."""
    votes = Counter(sample.key for sample in samples if sample.answered)
    agreement = max(votes.values(), default=0) / len(samples)
    return agreement, fmean(exp(likelihood(sample) / max(1, sample.length)) for sample in samples)


def by_name(seen: Sequence[tuple[float, float]]) -> dict[str, tuple[float, ...]]:
    """The `signals` of each problem as those of an arm."""
    return dict(zip(SIGNALS, zip(*seen, strict=True), strict=True)) if seen else {}


def _stops(samples: Sequence[Sample]) -> int:
    """How many of the samples the strategy draws."""
    rule = AdaptiveConsistency()
    for drawn in range(1, len(samples)):
        if rule._safe(candidates(samples[:drawn], likelihood)):
            return drawn
    return len(samples)
