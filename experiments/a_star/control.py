"""Row 45 where the claim's assumption holds by construction: a process reward of known quality.

    python -m experiments.a_star.control     # 100 problems; two minutes on one core; writes control.json

The model is a constructed one (`experiments.chains`). The map is accuracy and tokens against the AUC of the reward. A*
meets selections among independent samples and other searches, all with the same reward.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.chains import Dial, arguments, compare, in_parts, names, row, solve
from experiments.plot import line, panels, save
from experiments.provenance import provenance, write_json

HERE = Path(__file__).parent
AUCS = (0.5, 0.6, 0.7, 0.8, 0.9, 0.97)
BEST = "best_of_n:n=16"
SAMPLED = ("single", "best_of_n:n=4", "best_of_n:n=8", BEST, "weighted_majority:n=16")
SEARCHES = ("beam_search:n=8", "beam_search:n=16", "particle_filter:n=16")
A_STAR = ("a_star:k=4", "a_star:k=4,edge_cost=consistent", "a_star:k=4,edge_cost=zero", "a_star:k=4,n_goals=4")


def at(auc: float, problems: Sequence[str]) -> dict[str, Any]:
    """All arms with a reward of this AUC: costs, and what A* gains over others of as many tokens."""
    dial = Dial(auc)
    found = {label: [solve(label, name, dial) for name in problems] for label in (*SAMPLED, *SEARCHES, *A_STAR)}
    sizes = {label: sum(each.tokens for each in mine) / len(mine) for label, mine in found.items()}

    def nearest(label: str, others: Sequence[str]) -> str:
        return min(others, key=lambda other: abs(sizes[other] / sizes[label] - 1))

    def against(label: str, others: Sequence[str]) -> dict[str, Any]:
        other = nearest(label, others)
        return {"other": other, "other_tokens": sizes[other], **compare(found[label], found[other])}

    selections = [label for label in SAMPLED if label.startswith("best_of_n")]
    beams = [label for label in SEARCHES if label.startswith("beam_search")]
    return {
        label: row(mine)
        | {"against_best_of_16": compare(mine, found[BEST]), "against_selection": against(label, selections)}
        | {"against_beam": against(label, beams)}
        | {"forced": sum("forced" in event for each in mine for event in each.events)}
        for label, mine in found.items()
    }


def reached(table: Mapping[str, Any]) -> str | None:
    """The setting of A* with the fewest tokens that is as accurate as best-of-16."""
    enough = table[BEST]["accuracy"]["value"]
    able = [label for label in A_STAR if table[label]["accuracy"]["value"] >= enough]
    return min(able, key=lambda label: table[label]["tokens"]["value"], default=None)


def main() -> None:
    args = arguments(__doc__, problems=100)
    problems = names(args.problems)
    by_auc = in_parts(args.parts / f"row45-{args.problems}.json", AUCS, lambda auc: at(auc, problems))
    cheapest = {auc: reached(table) for auc, table in by_auc.items()}
    result = {**provenance(HERE, 0, "control"), "n_problems": args.problems}
    result |= {"as_accurate_as_best_of_16": cheapest, "by_auc": by_auc}
    write_json((args.out or HERE) / "control.json", result)
    plot(result, (args.out or HERE) / "control.png")
    for auc, label in cheapest.items():
        print(f"AUC {auc}: {label} is as accurate as best-of-16")


def plot(result: Mapping[str, Any], path: Path) -> None:
    """Accuracy and tokens against the AUC of the reward."""
    figure, (accuracy, tokens) = panels(2, 12, 4.6)
    labels = (BEST, "weighted_majority:n=16", "beam_search:n=16", "particle_filter:n=16", *A_STAR)
    for colour, label in enumerate(labels):
        table = [result["by_auc"][str(auc)][label] for auc in AUCS]
        style = "o-" if label in A_STAR else "s--"
        line(accuracy, AUCS, [each["accuracy"] for each in table], colour, label, style)
        line(tokens, AUCS, [each["tokens"] for each in table], colour, label, style, scale=1)
    accuracy.set(xlabel="AUC of the reward", ylabel="right answers, %")
    tokens.set(xlabel="AUC of the reward", ylabel="words a problem", yscale="log")
    accuracy.legend(fontsize=8)
    save(figure, path)


if __name__ == "__main__":
    main()
