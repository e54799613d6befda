"""Choose by difficulty where the methods cross by construction (2408.03314).

    python -m experiments.compute_optimal.control       # half a minute; writes control.json and control.png

Problems have all success rates from 0.02 to 0.98. A vote of 16 is right in the long run if a sample is right in more
than 0.375, so it wins on easy problems. Best-of-16 by a judge of a chosen AUC wins on hard ones. A choice is made on
half of the problems of a bin, and measured on the other half. Difficulty is the share of right samples among 16 others
(oracle); or, at no cost, the mean score of the 16 samples themselves (predicted) or the share of their most frequent
answer (agreement).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random
from statistics import fmean
from typing import Any

from experiments.compute_optimal.real import agreement, chosen, dialled, solved
from experiments.constructed import RIGHT, answer
from experiments.intervals import as_points, difference, mean
from experiments.plot import line, panels, save
from experiments.pools import reward
from experiments.provenance import begin, write_json
from thinktime.bench.samples import Sample, Sampled
from thinktime.core.selection import best, majority
from thinktime.planning.difficulty import BINS, binned

HERE = Path(__file__).parent
AUCS = (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.9)
N = 16
VOTE, BEST = "vote", "best of n"
NAMES = {"oracle": "success (oracle)", "predicted": "mean score", "agreement": "agreement"}
"""The measures of difficulty, as the plot calls them."""


def problem(name: str) -> Sampled:
    """A problem with 32 samples; the first half is for the methods, the other one for the oracle difficulty."""
    rate = Random(f"{name}/rate").uniform(0.02, 0.98)
    answers = [answer(name, index, rate) for index in range(2 * N)]
    return Sampled(name, tuple(Sample(1, key, key == RIGHT) for key in answers), RIGHT)


def at(auc: float, problems: Sequence[Sampled], vote: Sequence[float]) -> dict[str, Any]:
    """Both methods before a judge of this AUC, and the policies that choose between them."""
    scored = [dialled(auc, each, N) for each in problems]
    found = [solved(each, samples, best, reward) for each, samples in zip(problems, scored, strict=True)]
    right = {VOTE: list(vote), BEST: found}
    difficulty = {
        "oracle": [fmean(sample.correct for sample in each.samples[N:]) for each in problems],
        "predicted": [fmean(sample.reward or 0.0 for sample in samples) for samples in scored],
        "agreement": [agreement(each, N) for each in problems],
    }
    bins = binned(difficulty["oracle"])
    members = [[place for place, mine in enumerate(bins) if mine == number] for number in range(BINS)]
    return {
        "best_of_n": mean(found),
        "best_minus_vote": difference(found, vote),
        "best_minus_vote_by_bin": [difference([found[i] for i in m], [vote[i] for i in m]) for m in members],
        "policies": {source: chosen(right, values) for source, values in difficulty.items()},
    }


def plot(result: Mapping[str, Any], path: Path) -> None:
    """The gain of the choice against the AUC, and what crosses, bin by bin."""
    figure, (left, right) = panels(2, 11.5, 4.4)
    table = result["by_auc"]
    aucs = list(map(float, table))
    line(left, aucs, [row["best_minus_vote"] for row in table.values()], 0, f"best of {N} for all, minus the vote")
    for colour, source in enumerate(NAMES, 1):
        line(
            left,
            aucs,
            [row["policies"][source]["minus_best_single"] for row in table.values()],
            colour,
            f"choice by {NAMES[source]}",
        )
    left.axhline(0, color="#555555", lw=0.8)
    left.set(xlabel="AUC of the judge", ylabel="points over the better method for all", title="choice by difficulty")
    left.legend(fontsize=8)
    for colour, auc in enumerate(("0.6", "0.7", "0.8"), 1):
        bins = table[auc]["best_minus_vote_by_bin"]
        line(right, range(1, len(bins) + 1), bins, colour, f"AUC {auc}")
    right.axhline(0, color="#555555", lw=0.8)
    right.set(
        xlabel="bin, from the easiest to the hardest", ylabel="points over the vote", title=f"best of {N} minus vote"
    )
    right.legend(fontsize=8)
    save(figure, path)


def main() -> None:
    args, made = begin(HERE, __doc__, "control", "control.json", problems=1000)
    problems = [problem(f"problem {i}") for i in range(args.problems)]
    vote = [solved(each, each.samples[:N], majority, reward) for each in problems]
    by_auc = {str(auc): at(auc, problems, vote) for auc in AUCS}
    result = made | {"n_problems": len(problems), "n": N, "vote": mean(vote), "by_auc": by_auc}
    write_json(args.out / "control.json", result)
    plot(result, args.out / "control.png")
    for auc, row in by_auc.items():
        gains = {source: as_points(policy["minus_best_single"]) for source, policy in row["policies"].items()}
        print(auc, as_points(row["best_minus_vote"]), gains)


if __name__ == "__main__":
    main()
