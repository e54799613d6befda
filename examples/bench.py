"""Compare two strategies on the same problems, with intervals.

    python examples/bench.py --problems 50

`thinktime bench` does more: it keeps a bank, continues after an interruption, and writes a report.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Sequence

import thinktime
from thinktime import Answer, Problem
from thinktime.bench.statistics import DIFFERENCES, SHARES, mean_interval, paired_difference
from thinktime.bench.tasks import load
from thinktime.strategies import Strategy

STRATEGIES: dict[str, Strategy] = {
    "one sample": thinktime.Single(),
    "a weighted vote of 4": thinktime.WeightedMajority(n=4),
}


async def answers(problems: Sequence[Problem], strategy: Strategy) -> list[Answer]:
    """The answer to each problem. All searches share one running batch."""
    async with thinktime.open_session(thinktime.Config("pocket")) as session:
        searches = [session.search(problem) for problem in problems]
        return await asyncio.gather(*map(strategy, searches))


def main() -> None:
    """Run both strategies, and print their accuracy, their cost and the difference."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", type=int, default=50)
    given = parser.parse_args()

    task = load("pocket", given.problems, levels=(1, 2))
    right = []
    for name, strategy in STRATEGIES.items():
        found = asyncio.run(answers(task.problems, strategy))
        right.append([float(task.check(a.value, p.reference)) for a, p in zip(found, task.problems, strict=True)])
        tokens = sum(answer.usage.generated_tokens for answer in found) / len(found)
        print(f"{name}: right {mean_interval(right[-1], bounds=SHARES)}, {tokens:.0f} tokens a problem")
    print(f"difference: {paired_difference(right[1], right[0], bounds=DIFFERENCES)}")


if __name__ == "__main__":
    main()
