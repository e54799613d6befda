"""Plans over three real models by FLOPs, by eFLOPs and by measured seconds (2506.05333).

    python -m experiments.kinetics.real        # seconds; the samples are in the repository

Programs for problems of GSM8K that all models have samples of (`experiments.kinetics.sizes`). A plan is a model, a
number of samples and a cap of their length; a sample that is longer is wrong. Success is coverage: one of the samples
is right. Beside it stands a vote, which needs no reference. Writes ``real.json`` and ``real.png``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from operator import attrgetter
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from experiments.intervals import as_number, as_points, difference, mean
from experiments.kinetics.frontier import FLOPS, Measured, compared, flops_of, frontier
from experiments.kinetics.sizes import MODELS, Run, common, runs
from experiments.plot import COLOURS, panels, save
from experiments.pools import likelihood
from experiments.provenance import begin, write_json
from thinktime.bench.samples import Sample
from thinktime.bench.selectors import curve
from thinktime.bench.statistics import pass_at_k
from thinktime.core.selection import majority
from thinktime.planning.kinetics import DEVICES, KineticsCost, kinetics, recorded

HERE = Path(__file__).parent
CAPS = (48, 64, 96, 256)
PAPER = DEVICES["b200"]
REFERENCE = "0.5B"
"""The model whose lengths the costs of all shapes are compared at."""
TARGETS = (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6)


def numbers(run: Run) -> list[int]:
    """Numbers of samples: the powers of two that the run has."""
    return [2**i for i in range(run.samples.bit_length()) if 2**i <= run.samples]


def cut(sample: Sample, cap: int) -> Sample:
    """The sample as it is with a cap of its length."""
    return sample if sample.length <= cap else replace(sample, length=cap, correct=False, ended=False, key=None)


def costs(run: Run, samples: int, cap: int, of: Callable[[KineticsCost], float]) -> Any:
    """A term of the cost of each problem: the mean over its recorded lengths."""
    return np.array(
        [
            fmean(of(kinetics(run.shape, samples, run.prompts[p.id], min(s.length, cap))) for s in p.samples)
            for p in run.problems
        ]
    )


def plans(run: Run, success: Callable[[Run], Mapping[int, Sequence[float]]], caps: Sequence[int]) -> list[Measured]:
    """The plans of a run; ``success`` is that on each problem, by the number of samples. The prompt is charged."""
    found = []
    for cap in caps:
        capped = tuple(replace(p, samples=tuple(cut(s, cap) for s in p.samples)) for p in run.problems)
        for n, right in success(replace(run, problems=capped)).items():
            flops, traffic = (costs(run, n, cap, of) for of in (flops_of, attrgetter("kv_bytes")))
            size = float(run.shape.parameters)
            found.append(Measured(called(run), size, n, cap, np.array(right), flops, traffic))
    return found


def without_prompt(plan: Measured, run: Run) -> Measured:
    """The plan as the paper charges it, without the reading of the prompt."""
    prompt = [kinetics(run.shape, 1, run.prompts[problem.id], 0).prefill for problem in run.problems]
    return replace(plan, flops=plan.flops - np.array(prompt))


def called(run: Run) -> str:
    """The run in words."""
    return run.label if run.temperature else f"{run.label} at temperature 0"


def coverage(run: Run) -> dict[int, list[float]]:
    """The chance that one of n samples is right, by n."""
    return {n: [pass_at_k(*problem.counts, n) for problem in run.problems] for n in numbers(run)}


def vote(run: Run) -> dict[int, list[float]]:
    """The chance that a vote of n samples is right, by n; equal answers are decided by probability."""
    found = curve(run.problems, numbers(run), majority, score=likelihood, draws=25)
    return {n: list(point.each) for n, point in found.items()}


def per_problem(run: Run, n: int) -> dict[str, Any]:
    """What ``n`` samples of a run cost: all terms of the law, and the measured seconds."""
    terms = {
        name: float(costs(run, n, max(CAPS), attrgetter(name)).mean())
        for name in ("linear", "attention", "prefill", "kv_bytes", "weight_bytes")
    }
    flops = terms["linear"] + terms["attention"] + terms["prefill"]
    return terms | {
        "tokens": n * fmean(s.length for p in run.problems for s in p.samples),
        "prompt": fmean(run.prompts[p.id] for p in run.problems),
        "flops": flops,
        "eflops": flops + PAPER * terms["kv_bytes"],
        "eflops_with_weights": flops + PAPER * (terms["kv_bytes"] + terms["weight_bytes"]),
        "seconds": mean(n * fmean(run.seconds[p.id][: run.samples]) for p in run.problems),
    }


def described(run: Run, votes: Mapping[int, Sequence[float]]) -> dict[str, Any]:
    """The samples of a run, those that are lost, and what they cost."""
    samples = [sample for problem in run.problems for sample in problem.samples]
    return {
        "model": run.about["model"],
        "sampling": run.about["sampling"],
        "samples_each": run.samples,
        "without_answer": sum(sample.key is None for sample in samples),
        "cut": sum(not sample.ended for sample in samples),
        "one_sample": mean(problem.pass_rate for problem in run.problems),
        "by_n": {str(n): per_problem(run, n) for n in numbers(run)},
        "coverage": {str(n): mean(right) for n, right in coverage(run).items()},
        "vote": {str(n): mean(right) for n, right in votes.items()},
    }


def plot(result: Mapping[str, Any], points: Mapping[str, Sequence[Measured]], path: Path) -> None:
    """The coverage of all plans without a cap, against FLOPs, eFLOPs and seconds."""
    figure, each = panels(3, 16, 4.6, sharey=True)
    for colour, (name, of) in enumerate(points.items()):
        whole = [plan for plan in of if plan.cap == max(CAPS)]
        heights = [100 * plan.right.mean() for plan in whole]
        seconds = [row["seconds"]["value"] for row in result["runs"][name]["by_n"].values()]
        xs = ([plan.cost(FLOPS).mean() for plan in whole], [plan.cost(PAPER).mean() for plan in whole], seconds)
        for axes, x in zip(each, xs, strict=True):
            axes.plot(
                x, heights, "o-" if len(x) > 1 else "*", ms=5 if len(x) > 1 else 11, color=COLOURS[colour], label=name
            )
    titles = ("FLOPs", f"eFLOPs at {PAPER:g} FLOPs a byte", "measured seconds of one thread")
    for axes, title in zip(each, titles, strict=True):
        axes.set_xscale("log")
        axes.set(xlabel=f"{title} per problem", title=f"coverage against {title.split(' at ')[0]}")
    each[0].set_ylabel("problems solved by one of the samples, %")
    each[0].legend(fontsize=8)
    save(figure, path)


def main() -> None:
    args, made = begin(HERE, __doc__, "real", "real.json")
    found = common(runs())
    drawn = [run for run in found if run.temperature]
    measured = json.loads((HERE / "device.json").read_text())["intensity"]
    points = {called(run): plans(run, coverage, CAPS) for run in found}
    whole = [plan for run in drawn for plan in points[called(run)]]
    decoding = [without_prompt(plan, run) for run in drawn for plan in points[called(run)]]
    voted = {called(run): vote(run) for run in found}
    votes = [plan for run in found for plan in plans(run, lambda run: voted[called(run)], [max(CAPS)])]
    intensities = {"this machine": measured, "100": 100.0, **DEVICES}
    result: dict[str, Any] = made | {
        "n_problems": len(found[0].problems),
        "intensities": intensities,
        "runs": {called(run): described(run, voted[called(run)]) for run in found},
        "cost_of_one_sample": by_shape(next(run for run in drawn if run.label == REFERENCE), intensities),
        "coverage": {name: compared(whole, TARGETS, each) for name, each in intensities.items()},
        "coverage_without_prompt": {name: compared(decoding, TARGETS, each) for name, each in intensities.items()},
        "vote_and_greedy": {name: compared(votes, TARGETS, each) for name, each in intensities.items()},
        "frontiers": {
            kind: {
                name: [
                    {"plan": p.label, "right": mean(p.right), "cost": float(p.cost(i).mean())} for p in frontier(of, i)
                ]
                for name, i in {"FLOPs": FLOPS, **intensities}.items()
            }
            for kind, of in (("coverage", whole), ("vote_and_greedy", votes))
        },
        "votes_minus_greedy": beside_greedy(found, voted),
    }
    write_json(args.out / "real.json", result)
    plot(result, points, args.out / "real.png")
    for name, row in (*result["coverage"].items(), *result["coverage_without_prompt"].items()):
        sizes, dearer = as_number(row["doublings_of_size"]), as_number(row["cost_of_plans_by_flops"])
        print(name, sizes, dearer, as_points(row["right_minus_plans_by_flops"]))
    for name, row in result["cost_of_one_sample"].items():
        for what, of in row.items():
            print(name, what, {label: f"{value:.3g}" for label, value in of.items()})


def by_shape(run: Run, intensities: Mapping[str, float]) -> dict[str, dict[str, dict[str, float]]]:
    """What one sample of every model costs at the recorded lengths of a run, with and without the prompt."""
    pairs = [(run.prompts[problem.id], sample.length) for problem in run.problems for sample in problem.samples]
    prompts, lengths = ([pair[place] for pair in pairs] for place in (0, 1))
    each = {label: recorded(shape, prompts, lengths) for label, shape in MODELS.values()}
    return {
        name: {
            "with the prompt": {label: flops_of(cost) + i * cost.kv_bytes for label, cost in each.items()},
            "decoding": {label: cost.flops + i * cost.kv_bytes for label, cost in each.items()},
        }
        for name, i in {"FLOPs": FLOPS, **intensities}.items()
    }


def beside_greedy(found: Sequence[Run], voted: Mapping[str, Mapping[int, Sequence[float]]]) -> dict[str, Any]:
    """Every vote minus one sample at temperature 0 of every model."""
    return {
        f"vote of {n} of {run.label} minus {called(greedy)}": difference(right, (p.pass_rate for p in greedy.problems))
        for greedy in found
        if not greedy.temperature
        for run in found
        if run.temperature
        for n, right in voted[called(run)].items()
    }


if __name__ == "__main__":
    main()
