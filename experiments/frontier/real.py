"""Methods without a verifier on samples of a real model: what is the best use of the same samples (2504.14047)?

    python -m experiments.frontier.real --real gsm8k-program gsm8k

All methods see the same samples, so they generate the same tokens, and none spends any on judging. One sample at
temperature 0 stands beside them where the export ``NAME-greedy`` is there. Writes ``real.json`` and ``real.png``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from math import exp
from pathlib import Path
from statistics import fmean
from typing import Any

from experiments.intervals import as_points, difference, mean
from experiments.plot import legend_below, line, logarithmic, panels, save
from experiments.pools import beside_greedy, confidence, describe, likelihood, run, text
from thinktime.bench.samples import Pool
from thinktime.bench.selectors import Score, Select, curve, length_vote
from thinktime.core.selection import best, majority, weighted_majority

HERE = Path(__file__).parent


METHODS: Mapping[str, tuple[Select, Score]] = {
    "vote": (majority, likelihood),
    "vote of the shortest half": (length_vote("short"), likelihood),
    "vote of the longest half": (length_vote("long"), likelihood),
    "likeliest sample": (best, likelihood),
    "most confident sample": (best, confidence),
    "vote weighted by probability": (weighted_majority, lambda sample: exp(likelihood(sample))),
    "vote weighted by confidence": (weighted_majority, confidence),
}


def measure(pool: Pool, seed: int) -> dict[str, Any]:
    """Every method by the number of samples, minus one sample, and minus the vote."""
    most = pool.fewest
    pool = replace(pool, problems=tuple(replace(p, samples=p.samples[:most]) for p in pool.problems))
    ks = [2**i for i in range(1, most.bit_length()) if 2**i <= most]
    one = [problem.pass_rate for problem in pool.problems]
    points = {
        name: curve(pool.problems, ks, select, score=score, seed=seed) for name, (select, score) in METHODS.items()
    }
    samples = [sample for problem in pool.problems for sample in problem.samples]
    return describe(pool) | {
        "without_answer": sum(sample.key is None for sample in samples),
        "cut": sum(not sample.ended for sample in samples),
        "tokens_of_a_sample": fmean(sample.length for sample in samples),
        "one_sample": mean(one, seed),
        "methods": {
            name: {
                str(k): {
                    "accuracy": of[k].accuracy.as_dict(),
                    "minus_one_sample": difference(of[k].each, one, seed),
                    "minus_vote": difference(of[k].each, points["vote"][k].each, seed),
                }
                for k in ks
            }
            for name, of in points.items()
        },
    }


def verdict(measured: Mapping[str, Any]) -> dict[str, Any]:
    """The vote must be at least as good as every other method at all samples, as far as intervals tell."""
    most = max(map(int, measured["methods"]["vote"]))
    ahead = [name for name, of in measured["methods"].items() if of[str(most)]["minus_vote"]["low"] > 0]
    behind = [name for name, of in measured["methods"].items() if of[str(most)]["minus_vote"]["high"] < 0]
    return {"verdict": "does not hold" if ahead else "holds", "better_than_the_vote": ahead, "worse": behind}


def plot(result: Mapping[str, Any], path: Path) -> None:
    """A panel a task: right answers against generated tokens."""
    figure, each = panels(len(result["pools"]), 6.2 * len(result["pools"]), 4.8)
    for axes, (name, pool) in zip(each, result["pools"].items(), strict=True):
        size = pool["tokens_of_a_sample"]
        for place, (method, of) in enumerate(pool["methods"].items()):
            x = [int(k) * size * 1.02 ** (place - 3) for k in of]  # whiskers side by side
            line(axes, x, [row["accuracy"] for row in of.values()], place, method, "s-" if method == "vote" else "o-")
        axes.axhline(100 * pool["one_sample"]["value"], color="#555555", lw=0.8, label="one sample")
        if name in result["greedy"]:
            greedy = 100 * result["greedy"][name]["accuracy"]["value"]
            axes.axhline(greedy, color="#555555", lw=0.8, ls="--", label="one sample, temperature 0")
        logarithmic(axes, "generated tokens a problem")
        axes.set_title(f"{name}: {pool['n_problems']} problems")
    each[0].set_ylabel("right answers, %")
    legend_below(figure, each[0], 2 if len(each) == 1 else 4)
    save(figure, path, (0, 0.26 if len(each) == 1 else 0.14, 1, 1))


def lines(measured: Mapping[str, Any]) -> Iterator[str]:
    """What is printed of a pool."""
    yield f"one sample {text(measured['one_sample'])}"
    for name, of in measured["methods"].items():
        yield (
            name
            + ": "
            + "; ".join(f"{k}: {text(row['accuracy'])} {as_points(row['minus_vote'])}" for k, row in of.items())
        )


if __name__ == "__main__":
    run(HERE, __doc__, measure, verdict, plot, lines, beside_greedy, module="real")
