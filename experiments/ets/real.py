"""Row 05 on a real model: Qwen2.5-Coder-0.5B writes programs for GSM8K, and a step is a line.

    python -m experiments.ets.real --data FOLDER       # 40 problems; half an hour on one core

The reward is the model's confidence, which costs nothing. REBASE that merges equal siblings is the control: it has the
saving of ETS without an integer program.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from experiments.ets.run import MERGING, labelled, program, tokens_held
from experiments.harness import minus
from experiments.intervals import mean, ratio
from experiments.live import Live, options, rows
from thinktime.bench.runner import Outcome

HERE = Path(__file__).parent
WIDTH = 8
REBASE, ETS, MERGED = (labelled(method, WIDTH) for method in ("rebase", "ets", MERGING))


def repeats(outcomes: Sequence[Outcome]) -> list[float]:
    """Of each problem, the share of the sampled steps that repeat a sibling."""
    shares = []
    for outcome in outcomes:
        steps = [(node["parent"], node["text"]) for node in outcome.trace if node["parent"]]
        shares.append(1 - len(set(steps)) / len(steps))
    return shares


def main() -> None:
    live = Live(HERE, options(__doc__, problems=40).parse_args())
    outcomes = live.searches([REBASE, ETS, MERGED]) | live.beside()
    found = rows(outcomes, REBASE)
    sizes = {label: list(map(fmean, tokens_held(outcomes[label], live.generator))) for label in (REBASE, ETS, MERGED)}
    for label, mine in sizes.items():
        found[label] |= {"held_tokens": mean(mine), "rebase_over_this_held": ratio(sizes[REBASE], mine)}
        found[label] |= {"repeats": mean(repeats(outcomes[label]))}
        if label != REBASE:
            found[label] |= program(outcomes[label])
    found[ETS]["minus_merging"] = minus(outcomes[ETS], outcomes[MERGED])
    found[ETS]["merging_over_this_held"] = ratio(sizes[MERGED], sizes[ETS])
    live.finish({"arms": found})


if __name__ == "__main__":
    main()
