"""Choose by difficulty on samples of a real model (2408.03314).

    python -m experiments.compute_optimal.real --real gsm8k-program humaneval

The first half of the samples of a problem is for the methods, the other half for its difficulty by success (oracle).
The predicted difficulty is the agreement of the first half (for functions, its confidence), which costs nothing. A
policy picks the best method for each bin on one half of the problems and is measured on the other half, averaged over
50 random halves. Beside the methods that need no reference stands best-of-n by a dial, an oracle with errors, as a
control. Writes ``real.json`` and ``real.png``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from math import exp
from pathlib import Path
from random import Random
from statistics import fmean
from typing import Any

from experiments.constructed import shift
from experiments.intervals import as_points, difference, mean
from experiments.plot import line, panels, save
from experiments.pools import beside_greedy, confidence, describe, likelihood, reward, run, selectors
from thinktime.bench.samples import Pool, Sample, Sampled
from thinktime.bench.selectors import Score, Select, candidates
from thinktime.core.selection import best, weighted_majority
from thinktime.planning.difficulty import BINS, binned, cross_validated

HERE = Path(__file__).parent
AUCS = (0.6, 0.7, 0.8, 0.9)
ONE = "one sample"
SPLITS = 50
"""Random halves of the problems."""


def dialled(auc: float, problem: Sampled, n: int) -> list[Sample]:
    """The first ``n`` samples of a problem with rewards of this AUC; their noise does not depend on it."""
    noise = (Random(f"dial/{problem.id}/{place}").gauss(0, 1) for place in range(n))
    return [
        replace(s, reward=x + (shift(auc) if s.correct else 0.0)) for s, x in zip(problem.samples, noise, strict=False)
    ]


def methods(pool: Pool) -> dict[str, tuple[Select, Score]]:
    """What chooses without a reference."""
    found = selectors(pool) | {"most confident sample": (best, confidence)}
    if "vote" in found:
        found["vote weighted by probability"] = (weighted_majority, lambda sample: exp(likelihood(sample)))
    return found


def solved(problem: Sampled, samples: Sequence[Sample], select: Select, score: Score) -> float:
    """1 if the chosen one of these samples is right, else 0."""
    winner = select(candidates(samples, score))
    return float(winner is not None and winner.key in problem.right)


def agreement(problem: Sampled, half: int) -> float:
    """The share of the most frequent answer; of functions, the mean confidence."""
    samples = problem.samples[:half]
    if problem.reference is None:
        return fmean(map(confidence, samples))
    votes = Counter(sample.key for sample in samples if sample.answered)
    return max(votes.values(), default=0) / half


def chosen(right: Mapping[str, Sequence[float]], difficulty: Sequence[float], seed: int = 0) -> dict[str, Any]:
    """The policy over these methods beside the best one for all problems, averaged over random halves.

    Of methods that are equally good on one half of a bin, the policy takes the first.
    """
    single, rng = max(right, key=lambda name: fmean(right[name])), Random(seed)
    gained = [0.0] * len(difficulty)
    picks: Counter[str] = Counter()
    for _ in range(SPLITS):
        order = rng.sample(range(len(difficulty)), len(difficulty))
        shuffled = {name: [values[place] for place in order] for name, values in right.items()}
        found, picked = cross_validated(shuffled, binned([difficulty[place] for place in order]))
        picks.update(picked)
        for place, value in zip(order, found, strict=True):
            gained[place] += value / SPLITS
    return {
        "accuracy": mean(gained, seed),
        "best_single": single,
        "minus_best_single": difference(gained, right[single], seed),
        "picks": dict(picks.most_common()),
    }


def measure(pool: Pool, seed: int) -> dict[str, Any]:
    """The methods by bin, and the policies over them."""
    half = pool.fewest // 2
    right = {
        name: [solved(problem, problem.samples[:half], select, score) for problem in pool.problems]
        for name, (select, score) in methods(pool).items()
    }
    right[ONE] = [float(problem.samples[0].correct) for problem in pool.problems]
    main = "vote" if "vote" in right else "likeliest sample"
    dials = {
        str(auc): [solved(problem, dialled(auc, problem, half), best, reward) for problem in pool.problems]
        for auc in AUCS
    }
    difficulty = {
        "oracle": [fmean(s.correct for s in problem.samples[half : 2 * half]) for problem in pool.problems],
        "predicted": [agreement(problem, half) for problem in pool.problems],
    }
    bins = binned(difficulty["oracle"])
    members = [[place for place, mine in enumerate(bins) if mine == number] for number in range(BINS)]

    def by_bin(values: Sequence[float]) -> list[dict[str, float]]:
        return [difference([values[i] for i in some], [right[main][i] for i in some], seed) for some in members]

    control = {
        auc: {source: chosen({main: right[main], "dial": found}, values, seed) for source, values in difficulty.items()}
        for auc, found in dials.items()
    }
    return describe(pool) | {
        "n": half,
        "baseline": main,
        "methods": {
            name: {
                "accuracy": mean(found, seed),
                "minus_baseline": difference(found, right[main], seed),
                "minus_baseline_by_bin": by_bin(found),
            }
            for name, found in right.items()
        },
        "right_by_bin": [fmean(difficulty["oracle"][i] for i in some) for some in members],
        "policies": {source: chosen(right, values, seed) for source, values in difficulty.items()},
        "dial": {
            auc: {"accuracy": mean(found, seed), "minus_baseline": difference(found, right[main], seed)}
            | {"minus_baseline_by_bin": by_bin(found), "policies": control[auc]}
            for auc, found in dials.items()
        },
    }


def verdict(measured: Mapping[str, Any]) -> dict[str, Any]:
    """A policy must be better than the best single method, on held-out problems."""
    gains = {source: policy["minus_best_single"] for source, policy in measured["policies"].items()}
    holds = any(gain["low"] > 0 for gain in gains.values())
    return {"verdict": "holds" if holds else "does not hold: no gain from choosing by difficulty"}


def plot(result: Mapping[str, Any], path: Path) -> None:
    """A panel a task: methods and dials minus the baseline, bin by bin."""
    figure, each = panels(len(result["pools"]), 5.6 * len(result["pools"]), 4.6)
    for axes, (name, pool) in zip(each, result["pools"].items(), strict=True):
        places = range(1, 6)
        shown = {key: row for key, row in pool["methods"].items() if key not in (ONE, pool["baseline"])}
        shown |= {f"dial, AUC {auc}": row for auc, row in pool["dial"].items() if auc in ("0.7", "0.9")}
        for place, (label, row) in enumerate(shown.items(), 1):
            x = [bin + 0.05 * (place - 3) for bin in places]  # whiskers side by side
            line(axes, x, row["minus_baseline_by_bin"], place, label, "s--" if "dial" in label else "o-")
        axes.axhline(0, color="#555555", lw=0.8)
        axes.set_xticks(list(places), [f"{100 * share:.0f} %" for share in pool["right_by_bin"]])
        axes.set(
            xlabel="bins of problems by success",
            ylabel=f"points over the {pool['baseline']}",
            title=f"{name}, n = {pool['n']}",
        )
        axes.legend(fontsize=7)
    save(figure, path)


def lines(measured: Mapping[str, Any]) -> Iterator[str]:
    """What is printed of a pool."""
    for name, row in measured["methods"].items():
        yield f"{name}: {as_points(row['accuracy'])}, minus baseline {as_points(row['minus_baseline'])}"
    for source, policy in measured["policies"].items():
        yield f"{source}: {as_points(policy['minus_best_single'])} over {policy['best_single']}; {policy['picks']}"
    for auc, row in measured["dial"].items():
        gains = {source: as_points(policy["minus_best_single"]) for source, policy in row["policies"].items()}
        yield f"dial {auc}: {as_points(row['minus_baseline'])}; {gains}"


if __name__ == "__main__":
    run(HERE, __doc__, measure, verdict, plot, lines, beside_greedy, module="real")
