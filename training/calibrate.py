"""Scale the self-evaluation so that its probabilities hold on dev problems.

One number multiplies the difference of the two logits; it is the one with the least cross entropy against the share of
a sample's siblings that are no better. Samples read to a quarter, a half, three quarters and the end count alike.

    python -m training.calibrate runs/skills/self/final    # prints what training.ship takes as --scale
"""

from __future__ import annotations

import argparse
import asyncio
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize_scalar

from experiments.harness import new_search
from thinktime import pocket
from thinktime.bench.tasks import Task, load
from thinktime.core.journal import Journal
from thinktime.core.types import Node
from thinktime.generators.local import LocalGenerator
from thinktime.scorers.prm import ProcessReward

FRACTIONS = (0.25, 0.5, 0.75, 1.0)
Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Evaluated:
    """Samples that the model has evaluated itself; arrays are ``[problems, samples]``."""

    nodes: list[list[Node]]
    answers: list[list[str | None]]
    right: Array
    tokens: Array
    value: Array
    """The share of a sample's siblings that are no better, by right and wrong."""
    scores: Mapping[float | int, Array]
    """By where a sample was cut: a share of its length, or a number of tokens."""


async def collect(
    task: Task,
    generator: LocalGenerator,
    scorer: ProcessReward,
    n: int,
    cuts: Sequence[float | int],
    journal: Journal | None = None,
) -> Evaluated:
    """``n`` samples of each problem, evaluated whole or cut."""
    searches = [new_search(problem, task, generator, journal=journal) for problem in task.problems]
    nodes = list(await asyncio.gather(*(search.extend([search.root], n) for search in searches)))
    answers = [[task.answers.read(node.state) if node.done else None for node in group] for group in nodes]
    references = [problem.reference for problem in task.problems]
    right = np.array([[float(task.check(a, ref)) for a in row] for row, ref in zip(answers, references, strict=True)])
    value = np.where(right == 1, 1.0, 1 - (right.sum(1, keepdims=True) - right) / (n - 1))
    lengths = np.array([[float(len(node.state.ids)) for node in group] for group in nodes])
    scores = {}
    for cut in cuts:
        shown = [[first(node, cut) for node in group] for group in nodes]
        found = [await scorer.score(p, group, [None] * n) for p, group in zip(task.problems, shown, strict=True)]
        scores[cut] = np.array([[score.value or 0.0 for score in group] for group in found])
    return Evaluated(nodes, answers, right, lengths, value, scores)


def first(node: Node, cut: float | int) -> Node:
    """A sample's first tokens: a share of them, or so many."""
    ids = node.state.ids
    kept = cut if isinstance(cut, int) else max(1, math.ceil(cut * len(ids)))
    ends = [end for end in node.state.step_ends if end < kept] + [min(kept, len(ids))]
    return replace(node, state=replace(node.state, ids=ids[:kept], step_ends=tuple(ends)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path, help="a checkpoint of training.self_evaluation")
    parser.add_argument("--problems", type=int, default=300)
    parser.add_argument("--samples", type=int, default=16)
    args = parser.parse_args()
    task, solver = load("pocket", args.problems, split="dev"), LocalGenerator(pocket.directory("solver"))
    found = asyncio.run(collect(task, solver, ProcessReward(args.model), args.samples, FRACTIONS))
    scores = np.concatenate(list(found.scores.values())).clip(1e-9, 1 - 1e-9)
    margins, values = np.log(scores / (1 - scores)), np.concatenate([found.value] * len(FRACTIONS))

    def loss(scale: float) -> float:
        return float(np.mean(np.logaddexp(0, scale * margins) - values * scale * margins))

    scale = round(float(minimize_scalar(loss, bounds=(0.05, 5), method="bounded").x), 3)
    print(f"scale {scale}, cross entropy {loss(1.0):.4f} -> {loss(scale):.4f}")


if __name__ == "__main__":
    main()
