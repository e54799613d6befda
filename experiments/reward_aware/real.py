"""What picks best among samples of real models, by model, reward and difficulty; and small models against larger ones.

    python -m experiments.reward_aware.real        # a minute; the samples are in the repository

The samples are those of `experiments.kinetics.sizes`: programs for GSM8K. The first half of a problem's samples is to
choose from, the other half gives its level. Rewards: the model's confidence, P(Yes) where it is scored
(`experiments.verifiers`), and dials, which are oracles with errors. Writes ``real.json`` and ``real.png``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from math import exp
from pathlib import Path
from statistics import fmean
from typing import Any

from experiments.compute_optimal.real import dialled, solved
from experiments.constructed import shift
from experiments.intervals import as_points, difference, mean, ratio
from experiments.kinetics.real import called, vote
from experiments.kinetics.sizes import Run, common, runs
from experiments.plot import COLOURS, bars, panels, save
from experiments.pools import confidence, reward
from experiments.provenance import begin, write_json
from experiments.verifiers.scores import verified
from thinktime.bench.samples import Sample, Sampled
from thinktime.core.selection import best, majority, weighted_majority
from thinktime.planning.difficulty import LEVELS, absolute_bins
from thinktime.planning.kinetics import kinetics

HERE = Path(__file__).parent
DIALS = (0.6, 0.7, 0.8, 0.9)
P_YES = "p_yes_0.5b"
RULES = {"majority": majority, "max": best, "vote": weighted_majority}
Rewarded = Callable[[Sampled, int], list[Sample]]
"""The first samples of a problem with their rewards."""


def confident(problem: Sampled, n: int) -> list[Sample]:
    """Samples with their confidence as the reward."""
    return [replace(sample, reward=confidence(sample)) for sample in problem.samples[:n]]


def probable(auc: float, problem: Sampled, n: int) -> list[Sample]:
    """Samples with a dial's chance of being right as the reward, if half of them were; so a vote can weigh them."""
    lead = shift(auc)
    return [
        replace(sample, reward=1 / (1 + exp(lead**2 / 2 - lead * (sample.reward or 0.0))))
        for sample in dialled(auc, problem, n)
    ]


def rewards(run: Run) -> dict[str, tuple[Rewarded, list[Sampled]]]:
    """The reward models of a run, each with the problems that it scores."""
    every = list(run.problems)
    found: dict[str, tuple[Rewarded, list[Sampled]]] = {"confidence": (confident, every)}
    if run.label == "0.5B":
        scores = {each.problem.id: each for each in verified()}
        kept = [problem for problem in every if problem.id in scores and scores[problem.id].has(P_YES)]
        some = [problem for problem in kept if scores[problem.id].mixed]

        def asked(problem: Sampled, n: int) -> list[Sample]:
            pairs = zip(problem.samples[:n], scores[problem.id].scores, strict=False)
            return [replace(sample, reward=of.get(P_YES)) for sample, of in pairs]

        found["P(Yes), mixed problems"] = (asked, some)
        found["confidence, the same problems"] = (confident, some)
    for auc in DIALS:
        found[f"dial {auc}"] = (lambda problem, n, auc=auc: probable(auc, problem, n), every)  # type: ignore[misc]
    return found


def cells(run: Run, seed: int) -> dict[str, Any]:
    """The rules for the answer of every reward and level, on half of the samples, minus the plurality."""
    half = run.samples // 2
    rows: dict[str, Any] = {}
    for name, (score, problems) in rewards(run).items():
        rates = [fmean(s.correct for s in p.samples[half : 2 * half]) for p in problems]
        levels = absolute_bins(rates)
        right = {rule: [solved(p, score(p, half), select, reward) for p in problems] for rule, select in RULES.items()}
        right["one sample"] = [fmean(s.correct for s in p.samples[:half]) for p in problems]
        rows[name] = {"n": half, "n_problems": len(problems), "by_level": {}}
        for level in ("all", *LEVELS):
            places = [place for place, mine in enumerate(levels) if level in ("all", mine)]
            if not places:
                rows[name]["by_level"][level] = {"n_problems": 0}
                continue
            of = {rule: [values[place] for place in places] for rule, values in right.items()}
            rows[name]["by_level"][level] = {
                "n_problems": len(places),
                "best": max(of, key=lambda rule: fmean(of[rule])),
                "majority": mean(of["majority"], seed),
                **{
                    f"{rule}_minus_majority": difference(of[rule], of["majority"], seed)
                    for rule in of
                    if rule != "majority"
                },
            }
    return rows


def spent(run: Run, n: int) -> dict[str, list[float]]:
    """FLOPs with the prompt, seconds, and bytes of weights, keys and values, of ``n`` samples of every problem.

    The samples of one problem run together, so their weights are read once for each of the tokens of the longest one,
    and once for the prompt.
    """
    found: dict[str, list[float]] = {"FLOPs": [], "seconds": [], "bytes": [], "tokens": []}
    for problem in run.problems:
        lengths = [sample.length for sample in problem.samples[:n]]
        each = [kinetics(run.shape, n, run.prompts[problem.id], length) for length in lengths]
        weights = run.shape.parameters * run.shape.bytes_per_value * (max(lengths) + 1)
        found["FLOPs"].append(fmean(cost.flops + cost.prefill for cost in each))
        found["bytes"].append(fmean(cost.kv_bytes for cost in each) + weights)
        found["seconds"].append(sum(run.seconds[problem.id][:n]))
        found["tokens"].append(float(sum(lengths)))
    return found


def small_against_large(found: Sequence[Run], seed: int) -> dict[str, Any]:
    """A smaller model with several samples minus one sample at temperature 0 of a larger one, and the costs of both."""
    rows: dict[str, Any] = {}
    for large in (run for run in found if not run.temperature):
        alone, price = [float(p.samples[0].correct) for p in large.problems], spent(large, 1)
        for small in (run for run in found if run.shape.parameters < large.shape.parameters):
            n = small.samples
            ways = {"vote": vote(small)[n]} if n > 1 else {"one sample": [p.pass_rate for p in small.problems]}
            if n > 1:
                ways["vote weighted by confidence"] = [
                    solved(p, confident(p, n), weighted_majority, reward) for p in small.problems
                ]
                ways |= {
                    f"best by a dial of {a}": [solved(p, dialled(a, p, n), best, reward) for p in small.problems]
                    for a in DIALS
                }
                ways["one of them is right"] = [float(any(s.correct for s in p.samples)) for p in small.problems]
            mine = spent(small, n)
            rows[f"{n} of {called(small)} against {called(large)}"] = {
                "n_problems": len(alone),
                "large": mean(alone, seed),
                "minus_large": {way: difference(right, alone, seed) for way, right in ways.items()},
                "cost_over_large": {unit: ratio(mine[unit], price[unit], seed) for unit in mine},
            }
    return rows


def plot(result: Mapping[str, Any], path: Path) -> None:
    """By model, the choice by each reward minus the plurality; and small models minus larger ones."""
    compared = result["small_against_large"]
    figure, (left, *others) = panels(1 + bool(compared), 7 * (1 + bool(compared)), 5)
    for colour, (name, rows) in enumerate(result["cells"].items()):
        labels = [key for key in rows if key.startswith(("confidence", "dial")) and "same" not in key]
        values, whiskers = bars([rows[key]["by_level"]["all"]["max_minus_majority"] for key in labels])
        at = [place + 0.15 * (colour - 1) for place in range(len(labels))]
        left.errorbar(at, values, whiskers, fmt="o", color=COLOURS[colour], label=name)
        left.set_xticks(range(len(labels)), labels)
    left.set(ylabel="points over the plurality", title="the sample of the highest reward")
    left.axhline(0, color="#555555", lw=0.8)
    for right in others:
        for colour, (name, row) in enumerate(compared.items()):
            values, whiskers = bars(row["minus_large"].values())
            at = [place + 0.12 * colour for place in range(len(values))]
            shade = COLOURS[colour % len(COLOURS)]
            right.errorbar(values, at, xerr=whiskers, fmt="o", color=shade, label=name)
        ways = max((row["minus_large"] for row in compared.values()), key=len)
        right.set_yticks(range(len(ways)), ways)
        right.axvline(0, color="#555555", lw=0.8)
        right.set(xlabel="points over the larger model alone", title="a smaller model with samples")
    left.legend(fontsize=7, loc="upper left")
    for right in others:
        right.legend(fontsize=7, loc="upper left", bbox_to_anchor=(0, -0.12), ncols=2)
    save(figure, path)


def main() -> None:
    args, made = begin(HERE, __doc__, "real", "real.json")
    every = runs()
    found = common(every)
    result = made | {
        "runs": {called(run): run.about for run in every},
        "cells": {called(run): cells(run, args.seed) for run in every if run.samples > 1},
        "small_against_large": small_against_large(found, args.seed),
    }
    write_json(args.out / "real.json", result)
    plot(result, args.out / "real.png")
    for name, rows in result["cells"].items():
        for key, row in rows.items():
            levels = {k: v.get("max_minus_majority") for k, v in row["by_level"].items()}
            print(name, key, {k: as_points(v) if v else None for k, v in levels.items()})
    for name, row in result["small_against_large"].items():
        print(name, {way: as_points(value) for way, value in row["minus_large"].items()})


if __name__ == "__main__":
    main()
