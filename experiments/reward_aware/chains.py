"""Step-by-step solutions of many problems at once, in arrays: best-of-n, beam search and diverse trees.

The model is that of `experiments.chains`: a solution has `STEPS` steps, a step is right with the problem's own
probability, a wrong step is never repaired, and the first one decides the answer: six in ten wrong solutions agree on
the attractive one. The reward of a prefix has a chosen AUC, and errors of three kinds that a search may exploit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from experiments.constructed import shift
from thinktime.planning.reward_aware import RULES

Floats = npt.NDArray[np.float64]
Kinds = npt.NDArray[np.int64]
RIGHT, ATTRACTIVE = 0, 1
STEPS, WIDTH = 5, 4
RARE = 8
"""Rare wrong answers."""
STEP_TOKENS, TOKEN_SPREAD = 16.0, 0.4
"""The mean tokens of a step, and the deviation of their logarithm."""
PROCEDURES = ("best of n", "beam", "trees")


@dataclass(frozen=True)
class Reward:
    """A reward model of a known quality.

    Args:
        auc: how often a right prefix scores higher than a wrong one; 1 is an oracle.
        length: deviations that the score rises with each deviation of the length of a step.
        flipped: the share of prefixes that it takes for the opposite, as with wrong labels.
        fooled: the share of problems in which the attractive mistake looks twice as good to it as a right step, as to a
            reward model that has not seen the mistakes of this policy.
    """

    auc: float
    length: float = 0.0
    flipped: float = 0.0
    fooled: float = 0.0

    def scores(self, kind: Kinds, size: Floats, rng: np.random.Generator) -> Floats:
        """The chance of being right, as the reward model sees it, of prefixes; ``size`` is that of their last steps."""
        right = kind == RIGHT
        found: Floats = right.astype(float)
        if self.auc == 1:
            return found
        lead = shift(self.auc)
        seen = (right ^ (rng.random(kind.shape) < self.flipped)).astype(float)
        deceived = np.random.default_rng(1).random(len(kind)) < self.fooled  # the same problems in every step
        seen[deceived[:, None] & (kind == ATTRACTIVE)] = 2.0
        drawn = lead * seen + rng.normal(size=kind.shape) + self.length * size
        found = 1 / (1 + np.exp(-(max(lead, 1e-9) * drawn - lead**2 / 2)))
        return found


@dataclass(frozen=True)
class Paths:
    """Prefixes or solutions, ``[problems, paths]``: the answers they lead to, scores of all steps, tokens so far."""

    kind: Kinds
    scores: Floats
    tokens: Floats

    def pick(self, places: npt.NDArray[np.int64]) -> Paths:
        """The paths at these places, ``[problems, kept]``."""
        return Paths(
            np.take_along_axis(self.kind, places, 1),
            np.take_along_axis(self.scores, places[..., None], 1),
            np.take_along_axis(self.tokens, places, 1),
        )


def grown(paths: Paths, times: int, rate: Floats, reward: Reward, rng: np.random.Generator) -> tuple[Paths, Floats]:
    """Each path with ``times`` next steps, and the tokens of the new steps of each problem."""
    kind, tokens = np.repeat(paths.kind, times, axis=1), np.repeat(paths.tokens, times, axis=1)
    size = rng.normal(size=kind.shape)
    mistake = np.where(rng.random(kind.shape) < 0.6, ATTRACTIVE, rng.integers(2, 2 + RARE, kind.shape))
    kind = np.where((kind == RIGHT) & (rng.random(kind.shape) >= rate[:, None]), mistake, kind)
    new = STEP_TOKENS * np.exp(TOKEN_SPREAD * size - TOKEN_SPREAD**2 / 2)
    scores = np.repeat(paths.scores, times, axis=1)
    scores = np.concatenate([scores, reward.scores(kind, size, rng)[..., None]], axis=-1)
    return Paths(kind, scores, tokens + new), new.sum(1)


def root(problems: int) -> Paths:
    """An empty path of each problem."""
    return Paths(np.full((problems, 1), RIGHT), np.zeros((problems, 1, 0)), np.zeros((problems, 1)))


def run(procedure: str, n: int, rate: Floats, reward: Reward, rng: np.random.Generator) -> tuple[Paths, Floats]:
    """The solutions of a procedure with ``n`` steps a round, and the tokens that it generates for each problem.

    Args:
        procedure: one of `PROCEDURES`. A beam keeps the best ``n / WIDTH`` of all steps. Of diverse trees, ``n /
            WIDTH`` in number, each keeps its best step.
        n: a multiple of `WIDTH`.
        rate: the chance of a right step, of each problem.
        reward: scores the prefixes.
        rng: of the steps and the scores.
    """
    paths, spent = grown(root(len(rate)), n, rate, reward, rng)
    for step in range(1, STEPS + 1):
        if procedure != "best of n":
            last = paths.scores[..., -1] + 1e-9 * rng.random(paths.kind.shape)  # ties are broken at random
            if procedure == "beam":
                places = np.argsort(-last, axis=1)[:, : n // WIDTH]
            else:
                trees = last.reshape(len(rate), n // WIDTH, WIDTH)
                places = trees.argmax(-1) + WIDTH * np.arange(n // WIDTH)
            paths = paths.pick(places)
        if step == STEPS:
            break
        times = 1 if procedure == "best of n" else WIDTH
        paths, new = grown(paths, times, rate, reward, rng)
        spent = spent + new
    return paths, spent


def success(paths: Paths, rng: np.random.Generator) -> dict[str, Floats]:
    """Whether the answer by each rule is right, of each problem."""
    keys = paths.kind
    weights = {"min": paths.scores.min(-1), "last": paths.scores[..., -1], "avg": paths.scores.mean(-1)}
    found = {"majority": _vote(keys, np.ones(keys.shape), rng)}
    for name, score in weights.items():
        best = (score + 1e-9 * rng.random(score.shape)).argmax(1)
        found[f"{name} max"] = (np.take_along_axis(keys, best[:, None], 1)[:, 0] == RIGHT).astype(float)
        found[f"{name} vote"] = _vote(keys, score, rng)
    assert set(found) == set(RULES)
    return found


def _vote(keys: npt.NDArray[np.int64], weights: Floats, rng: np.random.Generator) -> Floats:
    sums = np.stack([(weights * (keys == key)).sum(1) for key in range(2 + RARE)], axis=1)
    present = np.stack([(keys == key).any(1) for key in range(2 + RARE)], axis=1)
    tied = np.where(present, sums + 1e-9 * rng.random(sums.shape), -np.inf)
    found: Floats = (tied.argmax(1) == RIGHT).astype(float)
    return found


def measured(
    rate: Floats, reward: Reward, budgets: tuple[int, ...], seed: int
) -> dict[tuple[str, int], dict[str, Any]]:
    """Of every procedure and budget, the success by rule, the generated tokens, and the tokens of a solution.

    Equal seeds give the same steps to all rewards wherever they choose alike.
    """
    found = {}
    for place, procedure in enumerate(PROCEDURES):
        for n in budgets:
            rng = np.random.default_rng([seed, place, n])
            paths, spent = run(procedure, n, rate, reward, rng)
            length = float(paths.tokens.mean())
            found[procedure, n] = {"right": success(paths, rng), "tokens": float(spent.mean()), "length": length}
    return found
