"""First finish search: diagnosed, predicted and replayed on samples that are there already (2505.18149).

    python -m experiments.first_finish.run [FOLDER]      # recorded samples; about a minute
    python -m experiments.first_finish.run --bank FILE   # the shipped model's samples

The shortest of n that ended by itself with an answer is taken, exactly over all subsets; beside it the longest (a
control) and the majority at equal n and at equal total length. Writes ``recorded.json`` and ``recorded.png`` (or
``pocket.*``) beside this file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import fmean
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from experiments.plot import COLOURS, bars, save
from experiments.pools import arguments, describe, pools, run, text, write
from thinktime.bench.lengths import Lengths, diagnose, first_length, first_of, measure, predict
from thinktime.bench.samples import Pool, Sample
from thinktime.bench.selectors import curve
from thinktime.bench.statistics import expected_best, mean_interval, paired_difference
from thinktime.core.errors import InputError
from thinktime.core.selection import majority

HERE = Path(__file__).parent
SIZES = (1, 2, 4, 8, 16, 32, 64)
JUDGED_AT = 8
"""The n of the verdict."""


def lengths(found: Lengths) -> dict[str, Any]:
    return asdict(found) | {"gap": found.gap.as_dict(), "shorter_is_right": found.shorter_is_right.as_dict()}


def longest(samples: Sequence[Sample], n: int) -> float:
    """Expected length of the longest of n: how long a vote of all waits."""
    return expected_best([(-float(s.length), float(s.length)) for s in samples], len(samples), n)


def measured_at(pool: Pool, traces: list[tuple[Sample, ...]], n: int, seed: int) -> dict[str, Any]:
    """Accuracy and cost of the first of n, and of what it has to beat."""
    mean = fmean(sample.length for samples in traces for sample in samples)
    first, wait = first_of(traces, n), first_length(traces, n)
    affordable = max(1, min(pool.fewest, int(n * fmean(wait) / mean)))
    votes = curve(pool.problems, sorted({n, affordable}), majority, seed=seed)
    return {
        "first": mean_interval(first, seed).as_dict(),
        "predicted": round(fmean(predict(traces, n)), 6),
        "last": mean_interval(first_of(traces, n, last=True), seed).as_dict(),
        "majority_of_n": votes[n].accuracy.as_dict(),
        "majority_of_equal_total": votes[affordable].accuracy.as_dict() | {"k": affordable},
        "first_minus_one_sample": paired_difference(first, first_of(traces, 1), seed).as_dict(),
        "first_minus_majority_of_n": paired_difference(first, votes[n].each, seed).as_dict(),
        "first_minus_majority_of_equal_total": paired_difference(first, votes[affordable].each, seed).as_dict(),
        "total_length": {"first": round(n * fmean(wait), 2), "majority_of_n": round(n * mean, 2)},
        "sequential_length": {
            "first": round(fmean(wait), 2),
            "majority_of_n": round(fmean(longest(samples, n) for samples in traces), 2),
            "one_sample": round(mean, 2),
        },
    }


def analyse(pool: Pool, seed: int) -> dict[str, Any]:
    """Everything about one pool; where there are too few problems to diagnose, the refusal is the diagnosis."""
    traces = [problem.samples for problem in pool.problems]
    sizes = [n for n in SIZES if n <= pool.fewest]
    try:
        diagnosis = diagnose(traces, sizes, seed)
        advice: dict[str, Any] = {"advice": diagnosis.advice, "n": diagnosis.n}
    except InputError as error:
        advice = {"advice": "do not use", "refused": str(error)}
    return describe(pool) | {
        "lengths": lengths(measure(traces, seed)),
        "diagnosis": advice,
        "by_n": {str(n): measured_at(pool, traces, n, seed) for n in sizes},
    }


def verdict(measured: Mapping[str, Any]) -> dict[str, Any]:
    """Against the falsifier: a gap without a gain, or a predictor more than 3 points off its replay."""
    gap = measured["lengths"]["gap"]
    gain = measured["by_n"][str(JUDGED_AT)]["first_minus_one_sample"]
    off = {n: round(row["predicted"] - row["first"]["value"], 6) for n, row in measured["by_n"].items()}
    worst = max(off.values(), key=abs)
    if gap["low"] > 0:
        claim = "holds" if gain["low"] > 0 else "falsified"
    else:
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
    figure, panels = plt.subplots(1, count, figsize=(6.4 * count, 4.8), dpi=150, squeeze=False, sharey=True)
    kinds = (
        ("first", "first of n", COLOURS[1], "o-"),
        ("last", "last of n (control)", COLOURS[3], "v-"),
        ("majority_of_n", "majority of n", COLOURS[0], "s-"),
        ("majority_of_equal_total", "majority at the first's total length", COLOURS[2], "D-"),
    )
    for axes, (name, pool) in zip(panels[0], result["pools"].items(), strict=True):
        sizes = [int(n) for n in pool["by_n"]]
        for place, (kind, label, colour, style) in enumerate(kinds):
            rows = [pool["by_n"][str(n)][kind] for n in sizes]
            x = [n * 1.05 ** (place - 1.5) for n in sizes]  # whiskers side by side
            y, whiskers = bars(rows)
            axes.errorbar(x, y, whiskers, fmt=style, color=colour, ms=4, lw=1.6, elinewidth=0.7, label=label)
        predicted = [100 * pool["by_n"][str(n)]["predicted"] for n in sizes]
        axes.plot(sizes, predicted, "--", color=COLOURS[4], lw=1.6, label="first of n, predicted")
        axes.set_xscale("log", base=2)
        axes.set_xticks(sizes, [str(n) for n in sizes])
        axes.set_ylim(0, 102)
        axes.set_xlabel("samples started, n")
        gap = pool["lengths"]["gap"]
        axes.set_title(
            f"{name}: {pool['n_problems']} problems, 95% intervals over problems\n"
            f"wrong longer by {gap['value']:.2f} [{gap['low']:.2f}, {gap['high']:.2f}] sd; advice: "
            f"{pool['diagnosis']['advice']}" + (" (too few problems)" if "refused" in pool["diagnosis"] else ""),
            loc="left",
            fontsize=9,
        )
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0][0].set_ylabel("right answers, %")
    handles, labels = panels[0][0].get_legend_handles_labels()
    columns = 3 if count == 1 else len(labels)
    figure.legend(handles, labels, frameon=False, loc="lower center", ncols=columns, fontsize=9)
    save(figure, path, (0, 0.06 if count > 1 else 0.1, 1, 1))


def main() -> None:
    args = arguments(__doc__)
    measured = {name: analyse(pool, args.seed) for name, pool in pools(args).items()}
    for facts in measured.values():
        facts["verdict"] = verdict(facts)
    result = {"pools": measured}
    plot(result, write(args, HERE, result))
    for name, facts in measured.items():
        print(f"{name}: {facts['n_problems']} problems, length in {facts['length_unit']}")
        print(f"  gap {text(facts['lengths']['gap'])}, shorter is right {text(facts['lengths']['shorter_is_right'])}")
        print(f"  diagnosis: {facts['diagnosis']}")
        for n, row in facts["by_n"].items():
            print(
                f"  n={n:>2} first {text(row['first'])} predicted {row['predicted']:.3f} last {text(row['last'])} "
                f"majority {text(row['majority_of_n'])} at equal total {text(row['majority_of_equal_total'])}"
            )
        print(f"  verdict: {facts['verdict']}")


if __name__ == "__main__":
    run(main)
