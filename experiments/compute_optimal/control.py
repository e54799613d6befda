"""Choose by difficulty where the best method of every problem is known by construction (2408.03314).

    python -m experiments.compute_optimal.control       # two minutes; writes control.json and control.png

A vote of 16 is right if a sample is right more often than the attractive wrong answer, so it wins on easy problems.
Best-of-16 by a judge of a chosen AUC wins on hard ones. So the two cross, and a choice by difficulty has to gain. It is
made on half of the problems of a bin, and measured on the other half. Difficulty is the share of right samples among 16
others (oracle), or the mean score of the 16 samples themselves (predicted; it costs nothing more).
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from experiments.constructed import RIGHT, answer, success
from experiments.frontier.control import judge, right_of
from experiments.intervals import as_points, difference, mean
from experiments.plot import line, panels, save
from experiments.provenance import FORCE, provenance, refuse_another, write_json
from thinktime.planning.difficulty import binned, cross_validated

HERE = Path(__file__).parent
AUCS = (0.5, 0.6, 0.65, 0.7, 0.75, 0.8, 0.9)
N = 16
VOTE, BEST = f"majority:n={N}", f"best_of_n:n={N}"
CROSSING = 0.375
"""Success rate above which the vote is right in the long run: 0.6 of the wrong samples agree."""


def at(auc: float, names: Sequence[str], vote: Sequence[float]) -> dict[str, Any]:
    """Both methods before a judge of this AUC, and the policies that choose between them."""
    noted: list[float] = []
    found = [(right_of(BEST, name, judge(auc, noted)), fmean(noted[-N:])) for name in names]
    best = [right for right, _ in found]
    right = {VOTE: list(vote), BEST: best}
    difficulty = {
        "oracle": [fmean(answer(name, N + i) == RIGHT for i in range(N)) for name in names],
        "predicted": [score for _, score in found],
    }
    single = max(right, key=lambda arm: fmean(right[arm]))
    known = [right[VOTE if success(name) > CROSSING else BEST][place] for place, name in enumerate(names)]
    row: dict[str, Any] = {
        "best_of_n": mean(best),
        "best_single": single,
        "known_best_minus_best_single": difference(known, right[single]),
    }
    for source, values in difficulty.items():
        bins = binned(values)
        gained, picks = cross_validated(right, bins)
        members = [[place for place, mine in enumerate(bins) if mine == number] for number in range(max(bins) + 1)]
        row[source] = {
            "accuracy": mean(gained),
            "minus_best_single": difference(gained, right[single]),
            "picks": picks,
            "best_of_n_minus_vote_by_bin": [difference([best[i] for i in m], [vote[i] for i in m]) for m in members],
        }
    return row


def plot(result: Mapping[str, Any], path: Path) -> None:
    """The gain of the choice against the AUC, and what crosses, bin by bin."""
    figure, (left, right) = panels(2, 11.5, 4.4)
    table = result["by_auc"]
    aucs = list(map(float, table))
    line(
        left, aucs, [row["known_best_minus_best_single"] for row in table.values()], 0, "the known best of each problem"
    )
    for colour, source in enumerate(("oracle", "predicted"), 1):
        line(
            left, aucs, [row[source]["minus_best_single"] for row in table.values()], colour, f"by {source} difficulty"
        )
    left.axhline(0, color="#555555", lw=0.8)
    left.set(xlabel="AUC of the judge", ylabel="points over the better method for all", title="choice by difficulty")
    left.legend(fontsize=8)
    for colour, auc in enumerate(("0.6", "0.7", "0.8"), 1):
        bins = table[auc]["oracle"]["best_of_n_minus_vote_by_bin"]
        line(right, range(1, len(bins) + 1), bins, colour, f"AUC {auc}")
    right.axhline(0, color="#555555", lw=0.8)
    right.set(
        xlabel="bin, from the easiest to the hardest", ylabel="points over the vote", title=f"best of {N} minus vote"
    )
    right.legend(fontsize=8)
    save(figure, path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", type=int, default=500)
    parser.add_argument("--out", type=Path, default=HERE)
    parser.add_argument(FORCE, action="store_true", help="overwrite the result of another command")
    args = parser.parse_args()
    made = provenance(HERE, 0, "control")
    refuse_another(args.out / "control.json", made["command"], force=args.force)
    names = [f"problem {i}" for i in range(args.problems)]
    vote = [right_of(VOTE, name) for name in names]
    by_auc = {str(auc): at(auc, names, vote) for auc in AUCS}
    result = made | {"n_problems": len(names), "n": N, "vote": mean(vote), "by_auc": by_auc}
    write_json(args.out / "control.json", result)
    plot(result, args.out / "control.png")
    for auc, row in by_auc.items():
        gains = {source: as_points(row[source]["minus_best_single"]) for source in ("oracle", "predicted")}
        print(auc, as_points(row["known_best_minus_best_single"]), gains, row["best_single"])


if __name__ == "__main__":
    main()
