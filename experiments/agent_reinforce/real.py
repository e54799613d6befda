"""Row 34 on a real model: Qwen2.5-Coder-0.5B improves and merges its own programs for GSM8K.

    python -m experiments.agent_reinforce.real --data FOLDER      # 40 problems; most of an hour on one core

The first answers come from the committed bank; improved and merged answers are drawn live. The graphs are a small grid:
one to three answers side by side, each alone or improved once, and a fuser that merges them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from experiments.intervals import as_percent, as_points
from experiments.live import EXPORT, Live, options, rows
from thinktime.bank.store import Bank
from thinktime.bench.bank_export import import_samples
from thinktime.bench.runner import Outcome

HERE = Path(__file__).parent
SINGLE = "single"
GRAPHS = {
    "1 improved": "assistant;assistant<1",
    "2 merged": "assistant;assistant;fuser<1+2",
    "3 merged": "assistant;assistant;assistant;fuser<1+2+3",
    "2 improved, merged": "assistant;assistant;assistant<1;assistant<2;fuser<3+4",
}


def text(found: Mapping[str, Any]) -> str:
    """A line for each arm: accuracy, tokens, and the difference to the vote of the most similar cost."""
    lines = []
    for label, row in found.items():
        tokens, vote = row["usage"]["generated_tokens"], row["vote_of_equal_tokens"]
        lines.append(
            f"{label:20} {as_percent(row['accuracy'])}  {tokens:.0f} tok  single {as_points(row['minus_baseline'])}  "
            f"greedy {as_points(row['minus_greedy'])}  {vote} {as_points(row['minus_vote'])}  {row['samples']}"
        )
    return "\n".join(lines)


def main() -> None:
    live = Live(HERE, options(__doc__, problems=40).parse_args())
    live.bank.parent.mkdir(parents=True, exist_ok=True)
    with Bank(live.bank) as bank:
        if not bank.imports():
            import_samples(EXPORT, bank)
    graphs = {label: f"agent_graph:nodes={nodes}" for label, nodes in GRAPHS.items()}
    outcomes: dict[str, list[Outcome]] = live.searches([SINGLE, *graphs.values()])
    named = {label: outcomes[strategy] for label, strategy in graphs.items()}
    found = rows({SINGLE: outcomes[SINGLE], **named, **live.beside()}, SINGLE)
    live.finish({"graphs": GRAPHS, "arms": found})
    print(text(found))


if __name__ == "__main__":
    main()
