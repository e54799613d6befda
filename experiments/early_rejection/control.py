"""Row 17 where the claim's assumption holds by construction: partial rewards of a known correlation with whole ones.

    python -m experiments.early_rejection.control     # 200 problems, a few minutes; writes control.json and control.png

The model is a constructed one (`experiments.chains`): a step has 16 words, and its quality is decided from the first
word on. The reward model's quality is chosen twice: its AUC on whole steps, and the correlation of the reward after 4
words with the reward of the whole step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import sqrt
from pathlib import Path
from typing import Any

from experiments.chains import WORDS, Dial, Solved, arguments, compare, correlation, in_parts, names, row, solve
from experiments.plot import line, panels, save
from experiments.provenance import provenance, write_json

HERE = Path(__file__).parent
TAU = 4
AUCS = (0.6, 0.75, 0.9)
CORRELATIONS = (0.0, 0.25, 0.5, 0.75, 0.9, 1.0)
BEAM, SMALL_BEAM = "beam_search:n=8", "beam_search:n=4"
REJECTING = f"early_rejection:n=8,tau={TAU}"
AT_RANDOM = f"{REJECTING},keep=random"
VOTE = "weighted_majority:n=4"
"""Four whole samples have 1.1 times the words of the rejecting search, as the small beam has."""


def at(auc: float, problems: Sequence[str]) -> dict[str, Any]:
    """All arms with a reward model of this AUC."""
    whole = Dial(auc)
    fixed = {label: [solve(label, name, whole) for name in problems] for label in (BEAM, SMALL_BEAM, AT_RANDOM, VOTE)}
    rejecting = {partial: [solve(REJECTING, name, Dial(auc, partial)) for name in problems] for partial in CORRELATIONS}
    return {
        "arms": {label: row(found) | against(found, fixed) for label, found in fixed.items()},
        "early_rejection": [
            {"correlation": partial, "measured_correlation": correlation(Dial(auc, partial), TAU)}
            | row(found)
            | against(found, fixed)
            for partial, found in rejecting.items()
        ],
    }


def against(found: Sequence[Solved], fixed: Mapping[str, Sequence[Solved]]) -> dict[str, Any]:
    """Differences to the other ways to spend tokens."""
    others = {"beam": BEAM, "small_beam": SMALL_BEAM, "random": AT_RANDOM, "vote": VOTE}
    return {f"against_{name}": compare(found, fixed[label]) for name, label in others.items()}


def main() -> None:
    args = arguments(__doc__)
    problems = names(args.problems)
    by_auc = in_parts(args.parts / f"row17-{args.problems}.json", AUCS, lambda auc: at(auc, problems))
    result = {**provenance(HERE, 0, "control"), "n_problems": args.problems, "tau": TAU, "by_auc": by_auc}
    write_json((args.out or HERE) / "control.json", result)
    plot(result, (args.out or HERE) / "control.png")


def plot(result: Mapping[str, Any], path: Path) -> None:
    """Points lost and won against the correlation, a line an AUC."""
    figure, (lost, won) = panels(2, 11, 4.4)
    for colour, auc in enumerate(AUCS):
        table = result["by_auc"][str(auc)]["early_rejection"]
        for axes, other in ((lost, "against_beam"), (won, "against_small_beam")):
            line(axes, CORRELATIONS, [each[other]["minus"] for each in table], colour, f"AUC {auc}")
    titles = {lost: "against a beam of 8: 2.3 times the words", won: "against a beam of 4: 1.1 times the words"}
    for axes, title in titles.items():
        axes.axhline(0, color="#999999", lw=0.8)
        axes.axvline(sqrt(TAU / WORDS), color="#999999", lw=0.8, ls=":")
        axes.set(xlabel="correlation of partial and whole reward", ylabel="points", title=title)
        axes.legend(fontsize=8)
    save(figure, path)


if __name__ == "__main__":
    main()
