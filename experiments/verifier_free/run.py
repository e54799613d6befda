"""Votes without a verifier: do length and marker words tell right from wrong, and do they help a vote (2504.14047)?

    python -m experiments.verifier_free.run [FOLDER]      # recorded samples; about a minute
    python -m experiments.verifier_free.run --bank FILE   # the shipped model's samples

Features are compared within problems. Votes are over 16 samples, 100 random subsets a problem. The marker weights are
fitted on a random 30% of the problems and tested on the others, twenty times over. Writes ``recorded.json`` and
``recorded.png`` (or ``pocket.*``) beside this file.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from random import Random
from statistics import fmean
from typing import Any

from experiments.intervals import difference, mean
from experiments.plot import COLOURS, bars, legend_below, panels, save
from experiments.pools import describe, run, text
from experiments.verifier_free.features import association, fit_weights
from thinktime.bench.samples import Pool, Sample, Sampled
from thinktime.bench.selectors import candidates, curve, length_vote
from thinktime.core.selection import majority, weighted_majority
from thinktime.core.selection import tied as leaders
from thinktime.scorers.markers import FEATURES, Markers, Weights

HERE = Path(__file__).parent
N = 16
CALIBRATION = 0.3
SPLITS = 20
DRAWS = 100
BUCKETS = 5
"""Of single-sample pass rate, equally wide."""


def weighed(weights: Weights, sample: Sample) -> float:
    return weights.weight(sample.text)


def marker_vote(problems: Sequence[Sampled], generator: str, seed: int) -> tuple[list[float | None], dict[str, Any]]:
    """Accuracy of the marker-weighted vote on every problem over the splits that test it, and mean coefficients."""
    rng = Random(seed)
    hits: dict[str, list[float]] = {problem.id: [] for problem in problems}
    coefficients = []
    for _ in range(SPLITS):
        order = rng.sample(problems, len(problems))
        calibration = max(1, round(CALIBRATION * len(order)))
        weights = fit_weights(order[:calibration], generator, Markers())
        coefficients.append(weights.coefficients)
        test = order[calibration:]
        score = partial(weighed, weights)
        for problem, hit in zip(test, curve(test, [N], weighted_majority, score=score, seed=seed)[N].each, strict=True):
            hits[problem.id].append(hit)
    means = {name: round(fmean(c[place] for c in coefficients), 4) for place, name in enumerate(FEATURES)}
    fit = {
        "splits": SPLITS,
        "calibration_problems": calibration,
        "mean_coefficients_per_sd": means,
        "coefficient_signs_agree": {
            name: max(Counter(c[place] > 0 for c in coefficients).values()) / SPLITS
            for place, name in enumerate(FEATURES)
        },
    }
    return [fmean(found) if (found := hits[problem.id]) else None for problem in problems], fit


def ties(problems: Sequence[Sampled], seed: int) -> float:
    """Share of subsets in which the leading answers have as many votes."""
    tied = 0
    for problem in problems:
        rng = Random(f"{seed}/{problem.id}/ties")
        everything = candidates(problem.samples, lambda sample: None)
        for _ in range(DRAWS):
            tied += leaders(rng.sample(everything, N)) > 1
    return tied / (DRAWS * len(problems))


def measure(pool: Pool, seed: int) -> dict[str, Any]:
    """Everything about one pool."""
    features: dict[str, dict[str, Any]] = {
        name: {
            "auc_within": of.auc.as_dict(),
            "right_minus_wrong": of.difference.as_dict(),
            "auc_pooled": round(of.pooled, 6) if of.pooled is not None else None,
            "mixed_problems": of.mixed,
        }
        for name, of in association(pool.problems, Markers(), seed).items()
    }
    votes = {
        "majority": list(curve(pool.problems, [N], majority, seed=seed)[N].each),
        "shortest_half": list(curve(pool.problems, [N], length_vote("short"), seed=seed)[N].each),
        "longest_half": list(curve(pool.problems, [N], length_vote("long"), seed=seed)[N].each),
    }
    weighted, fit = marker_vote(pool.problems, pool.generator, seed)
    tested = [place for place, value in enumerate(weighted) if value is not None]
    accuracy = {name: (each, votes["majority"]) for name, each in votes.items()}
    accuracy["single"] = ([problem.pass_rate for problem in pool.problems], votes["majority"])
    accuracy["marker_weighted"] = (
        [value for value in weighted if value is not None],
        [votes["majority"][place] for place in tested],
    )
    buckets = []
    for low in range(BUCKETS):
        inside = [place for place, p in enumerate(pool.problems) if min(BUCKETS - 1, int(p.pass_rate * BUCKETS)) == low]
        if inside:
            rows = {name: [each[place] for place in inside] for name, each in votes.items()}
            rows["single"] = [pool.problems[place].pass_rate for place in inside]
            rows["marker_weighted"] = [value for place in inside if (value := weighted[place]) is not None]
            means = {name: mean(row, seed) for name, row in rows.items() if row}
            buckets.append({"from": low / BUCKETS, "to": (low + 1) / BUCKETS, "n_problems": len(inside)} | means)
    samples = [sample for problem in pool.problems for sample in problem.samples]
    return describe(pool) | {
        "capped_samples_left_out": sum(not sample.ended for sample in samples),
        "unjudged": sum(not sample.judged for sample in samples),
        "markers": asdict(Markers()),
        "features": features,
        "shorter_is_right": {
            side: round(1 - features["length"]["auc_within"][other], 6)
            for side, other in (("value", "value"), ("low", "high"), ("high", "low"))
        },
        "n": N,
        "accuracy": {name: mean(each, seed) for name, (each, _) in accuracy.items()},
        "minus_majority": {
            name: difference(each, base, seed) for name, (each, base) in accuracy.items() if name != "majority"
        },
        "marker_weights": fit | {"tested_problems": len(tested)},
        "majority_ties": round(ties(pool.problems, seed), 4),
        "generated_per_problem": round(N * fmean(sample.length for sample in samples), 1),
        "by_pass_rate": buckets,
    }


def verdict(measured: Mapping[str, Any]) -> dict[str, Any]:
    """Against the falsifier: with 0.5 inside the interval of the paired length AUC the feature vote is off by default.

    The other half of the falsifier, revision against votes, takes a model: ``experiments.frontier.run``.
    """
    length = measured["shorter_is_right"]
    favoured = length["low"] > 0.5
    gain = measured["minus_majority"]["marker_weighted"]
    return {
        "verdict": "holds" if favoured else "falsified",
        "feature_vote": "on" if favoured and gain["low"] > 0 else "off by default",
        "length_auc_interval_includes_half": length["low"] <= 0.5 <= length["high"],
        "expected_auc_0.55_to_0.70": 0.55 <= length["value"] <= 0.70,
        "marker_vote_beats_majority": gain["low"] > 0,
        "revision": "not tested",
    }


def plot(result: Mapping[str, Any], path: Path) -> None:
    """Left the features' AUCs within problems, right what votes gain or lose against plain majority."""
    figure, (left, right) = panels(2, 11.5, 4.4)
    count = len(result["pools"])
    features = ["length", *FEATURES[1:]]
    votes = ["single", "shortest_half", "longest_half", "marker_weighted"]
    for place, (name, pool) in enumerate(result["pools"].items()):
        shift, colour = 0.22 * (place - (count - 1) / 2), COLOURS[1 + 2 * place]
        for axes, names, rows, scale in (
            (left, features, [pool["features"][f]["auc_within"] for f in features], 1),
            (right, votes, [pool["minus_majority"][v] for v in votes], 100),
        ):
            x, whiskers = bars(rows, scale)
            y = [position + shift for position in range(len(names))]
            label = f"{name} ({pool['n_problems']} problems)"
            axes.errorbar(x, y, xerr=whiskers, fmt="o", color=colour, ms=5, lw=1.4, label=label)
            axes.set_yticks(range(len(names)), [f.replace("_", " ") for f in names])
        pooled = [pool["features"][f]["auc_pooled"] for f in features]
        y = [position + shift for position in range(len(features))]
        left.plot(pooled, y, "x", color=colour, ms=7, label=f"{name}, pooled (difficulty)")
    for axes, middle in ((left, 0.5), (right, 0)):
        axes.axvline(middle, color="#999999", lw=1)
        axes.invert_yaxis()
    left.set_xlabel("AUC within problems: right samples have more of it")
    left.set_title("features against being right, 95% intervals", loc="left", fontsize=10)
    right.set_xlabel(f"points of accuracy above majority of {N}")
    right.set_title("votes against plain majority, paired, 95% intervals", loc="left", fontsize=10)
    legend_below(figure, left, 2)
    save(figure, path, (0, 0.03 + 0.04 * count, 1, 1))


def lines(measured: Mapping[str, Any]) -> Iterator[str]:
    """What is printed of a pool."""
    for feature, row in measured["features"].items():
        yield f"{feature:9} AUC within problems {text(row['auc_within'])}, pooled {row['auc_pooled']:.3f}"
    for vote, row in measured["accuracy"].items():
        less = measured["minus_majority"].get(vote)
        yield f"{vote:15} {text(row)}" + (f"  minus majority {text(less)}" if less else "")


if __name__ == "__main__":
    run(HERE, __doc__, measure, verdict, plot, lines)
