"""Votes without a verifier: do length and marker words tell right from wrong, and do they help a vote (2504.14047)?

    python -m experiments.verifier_free.run [FOLDER]      # recorded samples; about a minute
    python -m experiments.verifier_free.run --bank FILE   # the shipped model's samples

Votes are over 16 samples, 100 random subsets a problem. The marker weights are fitted on a random 30% of the problems
and tested on the others, twenty times over. Writes ``recorded.json`` and ``recorded.png`` (or ``pocket.*``).
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
from thinktime.bench.selectors import Select, candidates, curve, length_vote
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


def marker_vote(problems: Sequence[Sampled], generator: str, seed: int) -> tuple[dict[int, float], dict[str, Any]]:
    """Accuracy of the marker-weighted vote by place of each problem that a split tests, and mean coefficients."""
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
    by_feature = dict(zip(FEATURES, zip(*coefficients, strict=True), strict=True))
    signs = {name: Counter(value > 0 for value in values) for name, values in by_feature.items()}
    fit = {
        "splits": SPLITS,
        "calibration_problems": calibration,
        "mean_coefficients_per_sd": {name: round(fmean(values), 4) for name, values in by_feature.items()},
        "coefficient_signs_agree": {name: max(counts.values()) / SPLITS for name, counts in signs.items()},
    }
    return {place: fmean(found) for place, p in enumerate(problems) if (found := hits[p.id])}, fit


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
    problems = pool.problems
    selectors: dict[str, Select] = {
        "majority": majority,
        "shortest_half": length_vote("short"),
        "longest_half": length_vote("long"),
    }
    votes = {name: curve(problems, [N], select, seed=seed)[N].each for name, select in selectors.items()}
    by_problem = {name: dict(enumerate(each)) for name, each in votes.items()}
    by_problem["single"] = {place: problem.pass_rate for place, problem in enumerate(problems)}
    by_problem["marker_weighted"], fit = marker_vote(problems, pool.generator, seed)
    plain = by_problem["majority"]
    buckets = []
    for low in range(BUCKETS):
        inside = [place for place, p in enumerate(problems) if min(BUCKETS - 1, int(p.pass_rate * BUCKETS)) == low]
        rows = {name: [each[place] for place in inside if place in each] for name, each in by_problem.items()}
        means = {name: mean(row, seed) for name, row in rows.items() if row}
        if inside:
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
        "accuracy": {name: mean(each.values(), seed) for name, each in by_problem.items()},
        "minus_majority": {
            name: difference(each.values(), (plain[place] for place in each), seed)
            for name, each in by_problem.items()
            if each is not plain
        },
        "marker_weights": fit | {"tested_problems": len(by_problem["marker_weighted"])},
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
    left.set_title("features against being right, 95% intervals")
    right.set_xlabel(f"points of accuracy above majority of {N}")
    right.set_title("votes against plain majority, paired, 95% intervals")
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
