"""Row 05: does ETS hold fewer keys and values than REBASE, and lose nothing (Hooper et al. 2025, arXiv 2502.13575)?

    python -m experiments.ets.run --problems 834    # 500 problems of 4 to 8 computations; an hour on one core

Three controls: ETS that keeps leaves at random, as many nodes as the integer program would; REBASE of the width that
holds as many tokens as ETS; and REBASE that merges identical siblings as ETS does.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from experiments.harness import Experiment, minus, options, summary
from experiments.intervals import as_number, as_points, mean, ratio
from experiments.plot import grouped, lines, panels, save
from thinktime.bench.runner import Outcome
from thinktime.generators.local import LocalGenerator

HERE = Path(__file__).parent
LEVELS = (3, 4, 5)
MERGING = "ets:coverage=0,node_price=0"
"""REBASE that merges siblings with the same step: the integer program keeps all leaves that get children."""
METHODS = ("beam_search", "dvts", "rebase", "ets", "ets:coverage=0", "ets:keep=random", MERGING)
PRICES = (0.5, 2, 4)


def labelled(method: str, n: int) -> str:
    """The strategy as it is typed."""
    name, _, options = method.partition(":")
    return f"{name}:n={n}" + (f",{options}" if options else "")


def width_of(label: str) -> int:
    """The width of a labelled strategy."""
    return int(label.partition("n=")[2].partition(",")[0])


def final_answers(outcome: Outcome) -> float:
    """How many solutions finished with something different to say at the end."""
    return float(len({node["text"].strip() for node in outcome.trace if node["finish"] == "eos"}))


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[8, 16])
    args = parser.parse_args()
    experiment = Experiment(HERE, args, levels=LEVELS)
    labels = [labelled(method, n) for n in args.sizes for method in METHODS]
    labels += [labelled(f"ets:node_price={price}", max(args.sizes)) for price in PRICES]
    labels += [labelled("rebase", max(1, min(args.sizes) // 2))]
    outcomes = experiment.run(labels)
    held = {label: tokens_held(found, experiment.generator) for label, found in outcomes.items()}
    sizes = means(held)
    equals = {n: labelled("rebase", width_that_holds(fmean(sizes[labelled("ets", n)]), sizes)) for n in args.sizes}
    more = experiment.run(label for label in equals.values() if label not in outcomes)
    outcomes |= more
    held |= {label: tokens_held(found, experiment.generator) for label, found in more.items()}
    sizes = means(held)
    rows: dict[str, Any] = {}
    for label, found in outcomes.items():
        rebase = labelled("rebase", width_of(label))
        rows[label] = summary(found) | {
            "held_tokens": mean(sizes[label]),
            "held_tokens_at_most": fmean(map(max, held[label])),
            "rebase_over_this_held": ratio(sizes[rebase], sizes[label]),
            "minus_rebase": minus(found, outcomes[rebase]),
            "final_answers": mean(map(final_answers, found)),
        }
        if label.startswith("ets"):
            rows[label] |= program(found)
    ablation, controls = {}, {}
    for n in args.sizes:
        label = labelled("ets", n)
        ets, without = outcomes[label], outcomes[labelled("ets:coverage=0", n)]
        ablation[str(n)] = {"final_answers": minus(ets, without, of=final_answers), "accuracy": minus(ets, without)}
        controls[str(n)] = {
            other: {"held_over_ets": ratio(sizes[other], sizes[label]), "ets_minus_this": minus(ets, outcomes[other])}
            for other in (labelled("ets:keep=random", n), equals[n], labelled(MERGING, n))
        }
    plot(rows, experiment.out)
    result = {"levels": LEVELS, "arms": rows, "coverage_term": ablation, "controls": controls}
    experiment.finish(result, verdict(rows, ablation, controls))


def tokens_held(found: Sequence[Outcome], generator: LocalGenerator) -> list[list[int]]:
    """Tokens that a search holds, problem by problem and depth by depth."""
    return [held(outcome.trace, len(generator.root(outcome.problem).prompt)) for outcome in found]


def held(trace: Sequence[Mapping[str, Any]], prompt: int) -> list[int]:
    """Tokens that a search holds at every depth: the prompt, the nodes of that depth and their ancestors.

    As in the published measurements of tree search, before that depth is pruned. For searches that go step by step.
    """
    nodes = {node["key"]: node for node in trace}
    on_paths: dict[int, set[str]] = {}
    for node in trace:
        on_path, key = on_paths.setdefault(node["depth"], set()), node["key"]
        while key and key not in on_path:
            on_path.add(key)
            key = nodes[key]["parent"]
    on_paths.pop(0, None)
    return [prompt + sum(nodes[key]["tokens"] for key in keys) for keys in on_paths.values()]


def means(held: Mapping[str, Sequence[Sequence[int]]]) -> dict[str, list[float]]:
    """Tokens held by every arm, problem by problem, the mean over depths."""
    return {label: list(map(fmean, mine)) for label, mine in held.items()}


def width_that_holds(tokens: float, sizes: Mapping[str, Sequence[float]]) -> int:
    """The width at which REBASE holds about so many, between the widths that were run."""
    known = sorted((width_of(label), fmean(mine)) for label, mine in sizes.items() if label.startswith("rebase"))
    return round(np.interp(tokens, [holds for _, holds in known], [width for width, _ in known]))


def program(found: Sequence[Outcome]) -> dict[str, float]:
    """How often the integer program gives up a leaf, and how many of those it keeps REBASE gives no children."""
    rounds = [event for outcome in found for event in outcome.events if "kept" in event]
    kept = sum(event["kept"] for event in rounds)
    return {
        "rounds_with_a_leaf_given_up": fmean(event["kept"] < event["leaves"] for event in rounds),
        "kept_without_children": 1 - sum(event["expanded"] for event in rounds) / kept,
    }


def verdict(rows: Mapping[str, Any], ablation: Mapping[str, Any], controls: Mapping[str, Any]) -> list[str]:
    """Against the card: under 1.1 times fewer tokens held at matched accuracy, or a coverage term without effect."""
    sentences = []
    for n, others in controls.items():
        row, term = rows[labelled("ets", int(n))], ablation[n]["final_answers"]
        saved, lost = row["rebase_over_this_held"], row["minus_rebase"]
        holds = saved["value"] >= 1.1 and lost["value"] >= -0.02 and not term["low"] <= 0 <= term["high"]
        sentences.append(
            f"width {n}: {'holds' if holds else 'falsified'}: REBASE holds {as_number(saved)} times as many tokens; "
            f"accuracy {as_points(lost)} points; the coverage term makes {as_number(term)} more different final answers"
        )
        for control, found in others.items():
            sentences.append(
                f"width {n}: {as_points(found['ets_minus_this'])} points against {control}, which holds "
                f"{as_number(found['held_over_ets'])} times as many tokens"
            )
    return sentences


def line_of(label: str) -> str:
    """Arms of one line: all widths of a method, and all prices of a node."""
    method = re.sub(r":n=\d+", "", label).replace(",", ", ").replace("_", " ")
    return method.partition("price=")[0] + "price" if "price" in method else method


def plot(rows: Mapping[str, Any], out: Path) -> None:
    """Accuracy against what is held; a line joins the sizes of a method."""
    figure, (axes,) = panels(1, 8, 4.8)
    families = grouped((line_of(label), row) for label, row in rows.items())
    lines(axes, families, lambda row: float(row["held_tokens"]["value"]))
    axes.set(xlabel="tokens of keys and values held, mean over depths", ylabel="right answers, %")
    widths = sorted(map(width_of, rows))
    axes.set_title(f"Tree searches of width {widths[0]} to {widths[-1]}, problems of 4 to 8 computations")
    axes.legend(fontsize=8)
    save(figure, out / "plot.png")


if __name__ == "__main__":
    main()
