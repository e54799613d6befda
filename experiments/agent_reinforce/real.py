"""Row 34 on a real model: Qwen2.5-Coder-0.5B improves and merges its own programs for GSM8K.

    python -m experiments.agent_reinforce.real --data FOLDER --fill     # draws samples; can be interrupted
    python -m experiments.agent_reinforce.real --data FOLDER            # analyses what there is

All samples are drawn live, into the bank of ``--bank``. The graphs are a small grid: one to three answers side by side,
each alone or improved once, and a fuser that merges them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from experiments.banks.judge import judged_pool, known_exports
from experiments.intervals import as_percent, as_points, difference, mean
from experiments.live import TASK, Live, options
from experiments.partial import Run, fill, recorded
from experiments.plot import line, panels, save
from thinktime.bank.store import Bank

HERE = Path(__file__).parent
SINGLE = "one sample"
GRAPHS = {
    SINGLE: "assistant",
    "1 improved": "assistant;assistant<1",
    "2 merged": "assistant;assistant;fuser<1+2",
    "3 merged": "assistant;assistant;assistant;fuser<1+2+3",
    "2 improved, merged": "assistant;assistant;assistant<1;assistant<2;fuser<3+4",
}
VOTES = {f"vote of {n}": f"majority:n={n}" for n in range(2, 9)}
LARGEST = "vote of 8"
Cost = Callable[[Run], float]
COSTS: Mapping[str, Cost] = {"tokens": lambda run: run.generated, "flops": lambda run: run.flops}


def vote_of_equal_cost(runs: Mapping[str, Mapping[str, Run]], arm: str, cost: Cost) -> dict[str, Any]:
    """One sample or the vote that costs as much, the mix of the two nearest ones; and the arm's difference to it."""
    ids = list(runs[arm])
    known = [(fmean(cost(runs[label][one]) for one in ids), label) for label in (SINGLE, *VOTES)]
    mine = fmean(cost(runs[arm][one]) for one in ids)
    below = max((pair for pair in known if pair[0] <= mine), default=known[0])
    above = min((pair for pair in known if pair[0] > mine), default=known[-1])
    share = (mine - below[0]) / (above[0] - below[0]) if above[0] > below[0] else 0.0
    share = min(max(share, 0.0), 1.0)
    mixed = [(1 - share) * runs[below[1]][one].right + share * runs[above[1]][one].right for one in ids]
    minus = difference([float(runs[arm][one].right) for one in ids], mixed)
    return {"between": [below[1], above[1]], "share_of_second": share, "minus": minus}


def table(runs: Mapping[str, Mapping[str, Run]], greedy: Mapping[str, float]) -> dict[str, Any]:
    """Every arm: accuracy, costs, lost samples; against one sample, greedy, and votes of equal tokens and FLOPs."""
    rows = {}
    for label, by_problem in runs.items():
        mine = list(by_problem.values())
        right = [float(run.right) for run in mine]
        rows[label] = {
            "accuracy": mean(right),
            "generated_tokens": fmean(run.generated for run in mine),
            "prompt_tokens": fmean(run.prompts for run in mine),
            "flops": fmean(run.flops for run in mine),
            "calls": fmean(run.calls for run in mine),
            "cut": sum(run.cut for run in mine),
            "unreadable": sum(run.unreadable for run in mine),
            "minus_one_sample": difference(right, [float(run.right) for run in runs[SINGLE].values()]),
            "minus_greedy": difference(right, [greedy[one] for one in by_problem]),
        }
        if label not in (SINGLE, *VOTES):
            rows[label] |= {f"vote_of_equal_{name}": vote_of_equal_cost(runs, label, COSTS[name]) for name in COSTS}
    return rows


def plot(rows: Mapping[str, Any], path: Path, unit: str = "GFLOPs a problem") -> None:
    """Accuracy against FLOPs: votes as a line, other arms as points."""
    figure, (axes,) = panels(1, 6.5, 4)
    votes = [rows[label] for label in (SINGLE, *VOTES) if label in rows]
    line(axes, [row["flops"] / 1e9 for row in votes], [row["accuracy"] for row in votes], 0, "votes")
    others = [label for label in rows if label not in (SINGLE, *VOTES)]
    for colour, label in enumerate(others, 1):
        line(axes, [rows[label]["flops"] / 1e9], [rows[label]["accuracy"]], colour, label, "s")
    axes.set(xlabel=unit, ylabel="right, %")
    axes.legend(fontsize=8)
    save(figure, path)


def text(rows: Mapping[str, Any]) -> str:
    """A line for each arm."""
    lines = []
    for label, row in rows.items():
        equal = " ".join(
            as_points(row[f"vote_of_equal_{name}"]["minus"]) for name in COSTS if f"vote_of_equal_{name}" in row
        )
        lines.append(
            f"{label:20} {as_percent(row['accuracy'])}  {row['generated_tokens']:.0f}+{row['prompt_tokens']:.0f} tok "
            f"{row['flops'] / 1e9:.0f} GFLOPs {row['calls']:.1f} calls, {row['cut']} cut {row['unreadable']} lost; "
            f"single {as_points(row['minus_one_sample'])} greedy {as_points(row['minus_greedy'])} equal {equal}"
        )
    return "\n".join(lines)


def main() -> None:
    parser = options(__doc__, problems=40)
    parser.add_argument("--fill", action="store_true", help="draw the samples")
    args = parser.parse_args()
    live = Live(HERE, args)
    graphs = {label: f"agent_graph:nodes={nodes}" for label, nodes in GRAPHS.items()}
    with Bank(live.bank) as bank:
        if args.fill:
            fill({LARGEST: VOTES[LARGEST], **graphs}, live.task, live.session, bank)
            return
        runs = recorded({**graphs, **VOTES}, live.task, live.settings, bank)
    greedy = {problem.id: problem.pass_rate for problem in judged_pool(known_exports()[f"{TASK}-greedy"]).problems}
    ids: Sequence[str] = list(runs[SINGLE])
    rows = table(runs, greedy)
    greedy_right = mean(greedy[one] for one in ids)
    live.finish({"n_problems": len(ids), "graphs": GRAPHS, "greedy": greedy_right, "arms": rows})
    plot(rows, live.folder / "real.png")
    print(f"{len(ids)} problems, greedy {as_percent(greedy_right)}")
    print(text(rows))


if __name__ == "__main__":
    main()
