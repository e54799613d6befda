"""Row 05 where the claim's assumptions hold by construction: a reward model of known quality, repeats of known share.

    python -m experiments.ets.control     # 60 problems; two minutes on one core; writes control.json

The model is a constructed one (`experiments.chains`). Two maps: tokens held and accuracy against the price of a node,
where siblings hardly ever repeat each other, and against the number of wordings of a step, which says how often they
do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from experiments.chains import WORDINGS, Dial, Solved, arguments, compare, in_parts, names, row, solve
from experiments.ets.run import held
from experiments.intervals import mean, ratio
from experiments.plot import line, panels, save
from experiments.provenance import provenance, write_json

HERE = Path(__file__).parent
WIDTH = 8
AUCS = (0.6, 0.75, 0.9)
PRICES = (1, 2, 4, 8)
REPEATS = (1, 2, 8, WORDINGS)
"""Numbers of wordings."""
REBASE, ETS = f"rebase:n={WIDTH}", f"ets:n={WIDTH}"
MERGING = f"{ETS},coverage=0,node_price=0"
"""REBASE that merges equal siblings: the integer program keeps all leaves that get children."""
AT_RANDOM = f"{ETS},coverage=0,node_price=4,keep=random"
NARROW = "rebase:n=4"


def priced(price: float) -> str:
    """ETS without the coverage term, at this price of a node."""
    return f"{ETS},coverage=0,node_price={price:g}"


def arms(labels: Sequence[str], auc: float, wordings: int, problems: Sequence[str]) -> dict[str, Any]:
    """Each arm against REBASE of the same width, with what both hold."""
    found = {label: [solve(label, name, Dial(auc), wordings) for name in problems] for label in labels}
    rebase = found[REBASE]
    return {
        label: row(mine)
        | {
            "held_tokens": mean(map(held_tokens, mine)),
            "rebase_over_this_held": ratio(list(map(held_tokens, rebase)), list(map(held_tokens, mine))),
            "against_rebase": compare(mine, rebase),
            "rounds_with_a_leaf_given_up": given_up(mine),
        }
        for label, mine in found.items()
    }


def held_tokens(solved: Solved) -> float:
    """Tokens held, the mean over depths; the prompt has none."""
    return fmean(held(solved.trace, 0))


def given_up(solved: Sequence[Solved]) -> float | None:
    """Share of the rounds in which the integer program gives up a leaf; None without such rounds."""
    rounds = [event["kept"] < event["leaves"] for each in solved for event in each.events if "kept" in event]
    return fmean(rounds) if rounds else None


def main() -> None:
    args = arguments(__doc__, problems=60)
    problems, parts = names(args.problems), f"row05-{args.problems}.json"
    labels = [REBASE, NARROW, ETS, MERGING, AT_RANDOM, *map(priced, PRICES)]
    by_auc = in_parts(args.parts / f"auc-{parts}", AUCS, lambda auc: arms(labels, auc, WORDINGS, problems))
    some = [REBASE, ETS, MERGING, priced(4)]
    by_wordings = in_parts(args.parts / f"wordings-{parts}", REPEATS, lambda n: arms(some, AUCS[1], n, problems))
    result = {**provenance(HERE, 0, "control"), "n_problems": args.problems}
    result |= {"by_auc": by_auc, "by_wordings": by_wordings}
    write_json((args.out or HERE) / "control.json", result)
    plot(result, (args.out or HERE) / "control.png")


def plot(result: Mapping[str, Any], path: Path) -> None:
    """Tokens held and points against REBASE: by the price of a node, and by the number of wordings."""
    figure, (saved, lost, repeats) = panels(3, 15, 4.4)
    for colour, auc in enumerate(AUCS):
        table = [result["by_auc"][str(auc)][priced(price)] for price in PRICES]
        line(saved, PRICES, [each["rebase_over_this_held"] for each in table], colour, f"AUC {auc}", scale=1)
        line(lost, PRICES, [each["against_rebase"]["minus"] for each in table], colour, f"AUC {auc}")
    labels = {ETS: "ETS, as published", MERGING: "merging alone", priced(4): "price 4, no coverage term"}
    for colour, (label, name) in enumerate(labels.items()):
        table = [result["by_wordings"][str(wordings)][label] for wordings in REPEATS]
        line(repeats, REPEATS, [each["rebase_over_this_held"] for each in table], colour, name, scale=1)
    saved.set(xlabel="price of all nodes", ylabel="tokens held by REBASE, times", title="saving, no coverage term")
    lost.set(xlabel="price of all nodes", ylabel="points against REBASE", title="accuracy, no coverage term")
    repeats.set(xlabel="wordings of a step", ylabel="tokens held by REBASE, times", title="saving by repeats, AUC 0.75")
    for axes in (saved, lost, repeats):
        axes.set_xscale("log", base=2)
        axes.legend(fontsize=8)
    lost.axhline(0, color="#999999", lw=0.8)
    save(figure, path)


if __name__ == "__main__":
    main()
