"""Calibrates the number of tokens after which a step can be judged (Cheshmi et al. 2025, arXiv 2508.01969).

A reward model scores every prefix of sampled steps, which shows the steps that each cut would keep. The steps come from
calibration problems, and the calibration needs no reference answers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import ceil
from statistics import fmean

from thinktime.bench.tasks import Task
from thinktime.core.types import Node, Problem
from thinktime.core.usage import Budget
from thinktime.scorers.prm import ProcessReward
from thinktime.session import Session

TAUS = (2, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128)
RECALL = 0.9
PROBLEMS, STEPS = 100, 16
"""Number of calibration problems, and of next steps for each."""

Steps = Mapping[Node, Sequence[float]]
"""Next steps after one prefix, each with the reward after every token."""


async def read_along(task: Task, session: Session, scorer: ProcessReward) -> list[Steps]:
    """Sample 16 next steps for every problem, after prefixes of 0 to 3 steps in turn, and score their prefixes."""
    drawn = replace(session, seed=1, budget=Budget())

    async def behind(prefix: int, problem: Problem) -> Steps:
        search = drawn.search(problem)
        node = search.root
        for _ in range(prefix):
            further = await search.extend([node], until="step")
            node = further[0] if further and further[0].finish == "step" else node
        children = await search.extend([node], STEPS, until="step")
        return {
            node: rewards
            for node, rewards in zip(children, await scorer.token_rewards(problem, children), strict=True)
            if rewards
        }

    prefixes = (place % 4 for place in range(len(task.problems)))
    found = await asyncio.gather(*map(behind, prefixes, task.problems))
    return [steps for steps in found if steps]


def partial(steps: Steps, tau: int) -> list[float]:
    """The reward of every step after its first ``tau`` tokens, or of the whole step if it is shorter."""
    return [rewards[min(tau, len(rewards)) - 1] for rewards in steps.values()]


def recall(early: Sequence[float], whole: Sequence[float], share: float) -> float:
    """Share of the best ``share`` of steps by whole scores that early scores keep; ties go to the first."""
    keep = ceil(share * len(whole))
    best, kept = (set(sorted(range(len(side)), key=lambda i: -side[i])[:keep]) for side in (whole, early))
    return len(best & kept) / keep


def least_tau(found: Sequence[Steps], share: float) -> tuple[int, float]:
    """The least tau at which at least 90% of the best ``share`` of steps are kept, and the kept share.

    If no candidate suffices, tau is the length of the longest step, so nothing is rejected early.
    """
    longest = max(len(rewards) for steps in found for rewards in steps.values())
    for tau in (tau for tau in TAUS if tau < longest):
        kept = fmean(recall(partial(steps, tau), partial(steps, longest), share) for steps in found)
        if kept >= RECALL:
            return tau, kept
    return longest, 1.0
