"""Row 33 on a real model: Qwen2.5-Coder-0.5B writes programs for GSM8K, and judges its own answers side by side.

    python -m experiments.generative_reward.real --data FOLDER       # 40 problems; half an hour on one core

Four samples a problem; the judge sees the different answers in random orders, and writes criteria and scores. If no
judgement can be read, the plurality answers. Votes and selections by confidence are on the committed samples.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from experiments.harness import minus
from experiments.intervals import areas, mean
from experiments.live import Live, options, rows
from thinktime.bench.runner import Outcome
from thinktime.bench.tasks import Task

HERE = Path(__file__).parent
SAMPLES, JUDGEMENTS = 4, (1, 2, 4)
VOTE = f"majority:n={SAMPLES}"


def arm(k: int) -> str:
    """The strategy with so many judgements."""
    return f"generative_reward:n={SAMPLES},k={k},unreadable=plurality"


def judge(outcomes: Sequence[Outcome], task: Task) -> dict[str, Any]:
    """How well one judgement, and the sum of all, tell right answers from wrong ones of the same problem."""
    one, summed = list[float](), list[float]()
    asked = invalid = decided = 0
    for outcome in outcomes:
        events = {name: value for event in outcome.events for name, value in event.items()}
        asked, invalid = asked + events.get("judgements", 0), invalid + events.get("invalid", 0)
        if not events.get("scores"):
            continue
        decided += 1
        right = [asyncio.run(task.right(answer, outcome.problem)) for answer in events["shown"]]
        scores = np.array(events["scores"])
        each = areas(scores.tolist(), [right] * len(scores))[1]
        one += [fmean(each)] if each else []
        summed += areas([scores.sum(0).tolist()], [right])[1]
    return {
        "judgements": asked,
        "unreadable": invalid,
        "problems_judged": decided,
        "problems_with_both": len(summed),
        "auc_of_one": mean(one) if one else None,
        "auc_of_sum": mean(summed) if summed else None,
    }


def main() -> None:
    live = Live(HERE, options(__doc__, problems=40).parse_args())
    arms = [arm(k) for k in JUDGEMENTS]
    outcomes = live.searches([VOTE, *arms])
    own_vote = outcomes.pop(VOTE)
    found = rows(outcomes | live.beside(), arms[0])
    for label in arms:
        found[label]["judge"] = judge(outcomes[label], live.task)
        found[label]["minus_vote_of_its_samples"] = minus(outcomes[label], own_vote)
    live.finish({"arms": found})


if __name__ == "__main__":
    main()
