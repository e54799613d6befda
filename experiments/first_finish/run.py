"""First finish search: diagnosed, predicted and replayed on samples that are there already (2505.18149).

    python -m experiments.first_finish.run [FOLDER]      # recorded samples; about a minute
    python -m experiments.first_finish.run --bank FILE   # the shipped model's samples

Three in ten problems are for the diagnosis and the predictor. On the others the shortest of n that ended by itself with
an answer is taken, exactly over all subsets; beside it the longest (a control), the majority at equal n and at equal
total length, and votes of the first k of eight. Writes ``recorded.json`` and ``recorded.png`` (or ``pocket.*``).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from random import Random
from statistics import fmean
from typing import Any

from experiments.intervals import as_number, difference, mean
from experiments.plot import COLOURS, legend_below, line, logarithmic, panels, save
from experiments.pools import describe, run, text
from thinktime.bench.samples import Pool, Sample
from thinktime.bench.selectors import DRAWS, curve, first_finish
from thinktime.bench.statistics import expected_best
from thinktime.core.errors import InputError
from thinktime.core.selection import majority
from thinktime.planning.lengths import diagnose, first_length, first_of, measure, predict

HERE = Path(__file__).parent
SIZES = (1, 2, 4, 8, 16, 32, 64)
JUDGED_AT = 8
"""The n of the verdict, and of votes of the first k."""
KS = (1, 2, 4, 8)
CALIBRATION = 0.3
"""Share of the problems that the diagnosis is taken on, and nothing else."""


def longest(samples: Sequence[Sample], n: int) -> float:
    """Expected length of the longest of n: how long a vote of all waits."""
    return expected_best([(-float(s.length), float(s.length)) for s in samples], len(samples), n)


def measured_at(pool: Pool, n: int, seed: int) -> dict[str, Any]:
    """Accuracy and cost of the first of n, and of the votes that it has to beat."""
    traces = [problem.samples for problem in pool.problems]
    typical = fmean(sample.length for samples in traces for sample in samples)
    first, wait = first_of(traces, n), first_length(traces, n)
    affordable = max(1, min(pool.fewest, int(n * fmean(wait) / typical)))
    votes = curve(pool.problems, sorted({n, affordable}), majority, seed=seed)
    return {
        "first": mean(first, seed),
        "last": mean(first_of(traces, n, last=True), seed),
        "majority_of_n": votes[n].accuracy.as_dict(),
        "majority_of_equal_total": votes[affordable].accuracy.as_dict() | {"k": affordable},
        "first_minus_one_sample": difference(first, first_of(traces, 1), seed),
        "first_minus_majority_of_n": difference(first, votes[n].each, seed),
        "first_minus_majority_of_equal_total": difference(first, votes[affordable].each, seed),
        "total_length": {"first": round(n * fmean(wait), 2), "majority_of_n": round(n * typical, 2)},
        "sequential_length": {
            "first": round(fmean(wait), 2),
            "majority_of_n": round(fmean(longest(samples, n) for samples in traces), 2),
            "one_sample": round(typical, 2),
        },
    }


def first_k(pool: Pool, k: int, seed: int) -> dict[str, Any]:
    """A vote of the first k of eight, and of the last k: accuracy, and the tokens that the first ones cost."""
    waits, totals = [], []
    for problem in pool.problems:
        rng = Random(f"{seed}/{problem.id}")
        for _ in range(DRAWS):
            drawn = rng.sample(problem.samples, JUDGED_AT)
            ends = sorted(sample.length for sample in drawn if sample.answered)
            waits.append(ends[k - 1] if len(ends) >= k else max(sample.length for sample in drawn))
            totals.append(sum(min(sample.length, waits[-1]) for sample in drawn))
    first, last = (
        curve(pool.problems, [JUDGED_AT], first_finish(k, last=last), seed=seed)[JUDGED_AT] for last in (False, True)
    )
    one = [problem.pass_rate for problem in pool.problems]
    return {
        "first": first.accuracy.as_dict(),
        "last": last.accuracy.as_dict(),
        "first_minus_one_sample": difference(first.each, one, seed),
        "total_length": round(fmean(totals), 2),
        "sequential_length": round(fmean(waits), 2),
    }


def analyse(pool: Pool, seed: int) -> dict[str, Any]:
    """Everything about one pool; where there are too few problems to diagnose, the refusal is the diagnosis."""
    shuffled = Random(seed).sample(pool.problems, len(pool.problems))
    known = max(1, round(CALIBRATION * len(shuffled)))
    kept = [problem.samples for problem in shuffled[:known]]
    tested = replace(pool, problems=tuple(shuffled[known:]))
    sizes = [n for n in SIZES if n <= pool.fewest]
    try:
        diagnosis = diagnose(kept, sizes, seed)
        advice: dict[str, Any] = {"advice": diagnosis.advice, "n": diagnosis.n}
    except InputError as error:
        advice = {"advice": "do not use", "refused": str(error)}
    lengths = measure(kept, seed)
    intervals = {"gap": lengths.gap.as_dict(), "shorter_is_right": lengths.shorter_is_right.as_dict()}
    predicted = {n: (round(fmean(predict(kept, n)), 6), round(fmean(first_of(kept, n)), 6)) for n in sizes}
    return describe(pool) | {
        "calibration_problems": len(kept),
        "tested_problems": len(tested.problems),
        "lengths": asdict(lengths) | intervals,
        "diagnosis": advice,
        "on_calibration": {str(n): {"predicted": p, "replayed": r} for n, (p, r) in predicted.items()},
        "by_n": {str(n): measured_at(tested, n, seed) for n in sizes},
        f"first_k_of_{JUDGED_AT}": {str(k): first_k(tested, k, seed) for k in KS},
    }


def verdict(measured: Mapping[str, Any]) -> dict[str, Any]:
    """Against the falsifier: a gap without a gain, or a predictor more than 3 points off its replay.

    The gap, the predictor and its replay are of the calibration problems, the gain is of the others.
    """
    gap = measured["lengths"]["gap"]
    gain = measured["by_n"][str(JUDGED_AT)]["first_minus_one_sample"]
    off = {n: round(row["predicted"] - row["replayed"], 6) for n, row in measured["on_calibration"].items()}
    worst = max(off.values(), key=abs)
    claim = "holds" if gain["low"] > 0 else "falsified"
    if gap["low"] <= 0:
        claim = "not put to the test: right solutions are not shorter here"
    return {
        "verdict": claim,
        "predictor": "holds" if abs(worst) <= 0.03 else "falsified: more than 3 points off its replay",
        "advice": measured["diagnosis"]["advice"],
        "gap_is_positive": gap["low"] > 0,
        f"first_of_{JUDGED_AT}_beats_one_sample": gain["low"] > 0,
        "predictor_minus_replay": off,
        "predictor_within_3_points_up_to_n": max(
            n for n in map(int, off) if all(abs(off[m]) <= 0.03 for m in off if int(m) <= n)
        ),
    }


def plot(result: Mapping[str, Any], path: Path) -> None:
    """A panel a pool: accuracy of the first, the last and the vote against n."""
    count = len(result["pools"])
    figure, each = panels(count, 6.4 * count, 4.8, sharey=True)
    kinds = (
        ("first", "first of n", 1, "o-"),
        ("last", "last of n (control)", 3, "v-"),
        ("majority_of_n", "majority of n", 0, "s-"),
        ("majority_of_equal_total", "majority at the first's total length", 2, "D-"),
    )
    for axes, (name, pool) in zip(each, result["pools"].items(), strict=True):
        sizes = [int(n) for n in pool["by_n"]]
        for place, (kind, label, colour, style) in enumerate(kinds):
            x = [n * 1.05 ** (place - 1.5) for n in sizes]  # whiskers side by side
            line(axes, x, [row[kind] for row in pool["by_n"].values()], colour, label, style)
        predicted = [100 * pool["on_calibration"][str(n)]["predicted"] for n in sizes]
        axes.plot(sizes, predicted, "--", color=COLOURS[4], lw=1.6, label="first of n, predicted")
        logarithmic(axes, "samples started, n")
        axes.set_xticks(sizes, [str(n) for n in sizes])
        axes.set_ylim(0, 102)
        few = " (too few problems)" if "refused" in pool["diagnosis"] else ""
        axes.set_title(
            f"{name}: {pool['tested_problems']} problems, 95% intervals; advice of "
            f"{pool['calibration_problems']} others\n"
            f"wrong longer by {as_number(pool['lengths']['gap'])} sd; advice: {pool['diagnosis']['advice']}{few}",
            size=9,
        )
    each[0].set_ylabel("right answers, %")
    legend_below(figure, each[0], 3 if count == 1 else 5)
    save(figure, path, (0, 0.06 if count > 1 else 0.1, 1, 1))


def lines(measured: Mapping[str, Any]) -> Iterator[str]:
    """What is printed of a pool."""
    yield f"{measured['tested_problems']} problems, diagnosed on {measured['calibration_problems']} others"
    lengths = measured["lengths"]
    yield f"gap {text(lengths['gap'])}, shorter is right {text(lengths['shorter_is_right'])}"
    yield f"diagnosis: {measured['diagnosis']}"
    for n, row in measured["by_n"].items():
        yield (
            f"n={n:>2} first {text(row['first'])} last {text(row['last'])} "
            f"majority {text(row['majority_of_n'])} at equal total {text(row['majority_of_equal_total'])}"
        )
    for k, row in measured[f"first_k_of_{JUDGED_AT}"].items():
        yield f"first {k} of {JUDGED_AT} {text(row['first'])} last {k} {text(row['last'])}"


if __name__ == "__main__":
    run(HERE, __doc__, analyse, verdict, plot, lines)
