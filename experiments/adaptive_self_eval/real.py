"""P(Yes) asked in the middle and at the end of samples of a real model: pruning and stopping (2410.02725).

    python -m experiments.adaptive_self_eval.real           # seconds; writes real.json and real.png

The samples are those of the committed bank, and the scores those of `experiments.verifiers.scores`: nothing is
computed by a model. P(Yes) is the untrained version of a self-evaluation: the model is asked whether its own solution
is right so far. The reward head is the trained version. A sample is half read after half of its lines.

Only problems with right and wrong samples count. Where all are right, or all wrong, no rule changes the answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.adaptive_self_eval.run import (
    Array,
    Policy,
    after,
    at_tokens,
    good_enough,
    orders,
    play,
)
from experiments.intervals import difference, mean, ratio
from experiments.plot import line, panels, save
from experiments.provenance import begin, write_json
from experiments.verifiers.scores import EXPORT, Verified, header, verified
from thinktime.bench.statistics import auc
from training.calibrate import Evaluated

HERE = Path(__file__).parent
N, KEPT = 8, (0.25, 0.5, 0.75)
EVALUATIONS = ("p_yes_0.5b", "head")
DRAWS = 32
TARGET = 3.0
"""Samples that the threshold may use on the problems that choose it."""


def evaluated(problems: Sequence[Verified], name: str) -> Evaluated:
    """The samples of problems; one without an answer has the lowest scores, because every rule sees that."""

    def scores(key: str) -> Array:
        return np.array([[each.get(key, 0.0) for each in problem.scores] for problem in problems])

    samples = [problem.problem.samples for problem in problems]
    right = np.array([[float(sample.correct) for sample in row] for row in samples])
    tokens = np.array([[float(sample.length) for sample in row] for row in samples])
    answers = [[None if sample.key is None else str(sample.key) for sample in row] for row in samples]
    value = np.where(right == 1, 1.0, 1 - (right.sum(1, keepdims=True) - right) / (N - 1))
    return Evaluated([], answers, right, tokens, value, {1.0: scores(name), 0.5: scores(f"{name}_half")})


def discrimination(found: Evaluated) -> dict[str, Any]:
    """The AUC within a problem at the half and at the end, over the samples with an answer."""
    result = {}
    for cut, scores in found.scores.items():
        areas = []
        for answers, row, right in zip(found.answers, scores, found.right, strict=True):
            kept = [place for place, answer in enumerate(answers) if answer is not None]
            area = auc([float(row[i]) for i in kept], [bool(right[i]) for i in kept])
            areas += [] if area is None else [area]
        result[str(cut)] = mean(areas)
    return result


def voted(found: Evaluated, kept: Array) -> Array:
    """Whether the plurality of the kept samples is right, ``[problems]``; ties go to the answer drawn first."""
    result = np.zeros(len(kept))
    for problem, (answers, right) in enumerate(zip(found.answers, found.right, strict=True)):
        counts: dict[str, int] = {}
        for place, answer in enumerate(answers):
            if kept[problem, place] and answer is not None:
                counts[answer] = counts.get(answer, 0) + 1
        if counts:
            winner = max(counts, key=lambda answer: counts[answer])
            result[problem] = right[answers.index(winner)]
    return result


def pruned(found: Evaluated, worth: Array, keep: float, asked: float) -> tuple[Array, Array]:
    """Keep the best share after half of each sample: right answers of a vote of these, and tokens, ``[problems]``."""
    places = int(np.ceil(keep * N))
    kept = np.zeros_like(found.right, dtype=bool)
    np.put_along_axis(kept, np.argsort(-worth, 1, kind="stable")[:, :places], True, 1)
    tokens = np.where(kept, found.tokens, found.tokens / 2).sum(1) + asked * N
    return voted(found, kept), tokens


def pruning(found: Evaluated, asked: float, seed: int) -> dict[str, Any]:
    """Pruning by the half score, against random pruning and against the vote of all samples."""
    rng = np.random.default_rng(seed)
    every = voted(found, np.ones_like(found.right, dtype=bool))
    whole = found.tokens.sum(1)
    rows = {}
    for keep in KEPT:
        mine, tokens = pruned(found, found.scores[0.5], keep, asked)
        chance = np.mean([pruned(found, rng.random(found.right.shape), keep, 0.0)[0] for _ in range(DRAWS)], axis=0)
        rows[str(keep)] = {
            "accuracy": mean(mine),
            "minus_vote_of_all": difference(mine, every),
            "minus_random_pruning": difference(mine, chance),
            "tokens_over_vote_of_all": ratio(tokens, whole),
        }
    return rows


def stopping(found: Evaluated, asked: float) -> dict[str, Any]:
    """Drawing until a sample is good enough, with the threshold from the other half of the problems."""
    problems = len(found.right)
    right, tokens, samples = np.empty(problems), np.empty(problems), np.empty(problems)
    chosen = []
    for fold in (0, 1):
        mine, other = (slice(start, None, 2) for start in (fold, 1 - fold))
        thresholds = np.unique(np.quantile(_part(found, other).scores[1.0], np.linspace(0.05, 0.99, 25)))
        used = {float(t): _played(_part(found, other), good_enough(t)).samples.mean() for t in thresholds}
        gamma = max((t for t, n in used.items() if n <= TARGET), default=min(used))
        policy = _played(_part(found, mine), good_enough(gamma))
        right[mine], samples[mine] = policy.right, policy.samples
        tokens[mine] = policy.tokens + asked * policy.samples
        chosen.append(gamma)
    policy = Policy(right, tokens, samples)
    fixed = [_played(found, after(n)) for n in range(1, N + 1)]
    votes = [_votes(found, n) for n in range(1, N + 1)]
    free = [Policy(one.right, one.tokens + asked * one.samples, one.samples) for one in fixed]
    return {
        "thresholds": chosen,
        "adaptive": policy.as_row(),
        "best_of_n": {str(n): free[n - 1].as_row() for n in (1, 2, 4, 8)},
        "minus_best_of_n_equal_tokens": difference(policy.right, at_tokens(free, policy.cost)),
        "minus_vote_equal_tokens": difference(policy.right, at_tokens(votes, policy.cost)),
    }


def _part(found: Evaluated, rows: slice) -> Evaluated:
    scores = {cut: each[rows] for cut, each in found.scores.items()}
    return Evaluated([], found.answers[rows], found.right[rows], found.tokens[rows], found.value[rows], scores)


def _played(found: Evaluated, stops: Any) -> Policy:
    return play(found, orders(len(found.right), 0, N), stops)


def _votes(found: Evaluated, n: int) -> Policy:
    """The vote of ``n`` samples over the same orders."""
    order = orders(len(found.right), 0, N)
    right, tokens = np.zeros(len(found.right)), np.zeros(len(found.right))
    for each in order:
        kept = np.zeros_like(found.right, dtype=bool)
        np.put_along_axis(kept, each[:, :n], True, 1)
        right += voted(found, kept) / len(order)
        tokens += (found.tokens * kept).sum(1) / len(order)
    return Policy(right, tokens, np.full(len(found.right), float(n)))


def main() -> None:
    args, made = begin(HERE, __doc__, "real", "real.json")
    problems, costs = verified(), header()["costs"]
    asked = {"head": 1.0, "p_yes_0.5b": costs["p_yes_0.5b"]["computed"] / costs["p_yes_0.5b"]["scores"]}
    result: dict[str, Any] = {**made, "export": EXPORT.name, "tokens_of_a_question": asked, "evaluations": {}}
    for name in EVALUATIONS:
        some = [each for each in problems if each.mixed and each.has(name) and each.has(f"{name}_half")]
        found = evaluated(some, name)
        result["evaluations"][name] = {
            "n_problems": len(some),
            "auc_within_problem": discrimination(found),
            "pruning": pruning(found, asked[name], args.seed),
            "stopping": stopping(found, asked[name]),
        }
    write_json(args.out / "real.json", result)
    plot(result, args.out / "real.png")


def plot(result: Mapping[str, Any], path: Path) -> None:
    """Pruning by each evaluation: accuracy against the vote of all, by the share that is kept."""
    figure, (against_all, against_chance) = panels(2, 11, 4.2, sharey=True)
    for colour, (name, found) in enumerate(result["evaluations"].items(), 1):
        rows = [found["pruning"][str(keep)] for keep in KEPT]
        line(against_all, KEPT, [row["minus_vote_of_all"] for row in rows], colour, name)
        line(against_chance, KEPT, [row["minus_random_pruning"] for row in rows], colour, name)
    against_all.set(ylabel="points", title="over the vote of all eight samples")
    against_chance.set(title="over random pruning")
    for axes in (against_all, against_chance):
        axes.axhline(0, color="#999999", lw=0.8)
        axes.set_xlabel("share kept after half of each sample")
    against_all.legend(fontsize=8)
    save(figure, path)


if __name__ == "__main__":
    main()
