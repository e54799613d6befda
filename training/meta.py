"""Train the meta reward model: which judgements of the skilled model are right, by its own last hidden state.

Problems of the train split get four samples each; where right and wrong answers are among them, the model judges them
several times. A judgement is right where every right answer scores above every wrong one; a tie is wrong. The head is
a logistic regression, and ``meta.json`` beside the judge's weights. What it is worth is measured on dev problems, over
all judgements and within problems, next to the same for the length of a judgement alone.

    python -m training.meta src/thinktime/pocket/models/skilled        # 1500 problems; ten minutes on two cores
"""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize

from experiments.harness import new_search
from experiments.intervals import areas
from thinktime.bench.tasks import Task, load
from thinktime.core.errors import InputError
from thinktime.core.types import Problem
from thinktime.generators.local import LocalGenerator
from thinktime.strategies.verification.generative_reward import judge, most_frequent

SAMPLES = 4
PENALTY = 1e-3
"""Of the squared weights of standardized states, beside the mean loss."""
IN_FLIGHT = 128
SEED = 29
"""Of problems and samples: none that the skills were trained on."""

Vector = npt.NDArray[np.float64]


@dataclass(frozen=True)
class JudgedProblem:
    """Judgements of one problem: the judge's states, whether they are right, and their lengths in tokens."""

    states: list[list[float]]
    right: list[bool]
    lengths: list[float]


def is_right(scores: Sequence[float], right: Sequence[bool]) -> bool:
    """Whether every right answer scores above every wrong one."""
    pairs = list(zip(scores, right, strict=True))
    return min(score for score, mine in pairs if mine) > max(score for score, mine in pairs if not mine)


async def judged(problem: Problem, task: Task, generator: LocalGenerator, k: int) -> JudgedProblem | None:
    """Judgements of a problem's samples, or None where not both right and wrong answers are among them."""
    search = new_search(problem, task, generator, seed=SEED)
    shown = most_frequent(search.candidates(await search.extend([search.root], SAMPLES)))
    right = [task.check(candidate.answer, problem.reference) for candidate in shown]
    if len(set(right)) < 2:
        return None
    found, _ = await judge(search, [candidate.node for candidate in shown], k)
    states = [state for state, _ in await generator.hidden([node.state for node in found])]
    lengths = [float(generator.length(node.state)) for node in found]
    return JudgedProblem(states, [is_right(scores, right) for scores in found.values()], lengths)


async def collect(task: Task, generator: LocalGenerator, k: int) -> list[JudgedProblem]:
    """Of every problem that has both right and wrong answers."""
    free = asyncio.Semaphore(IN_FLIGHT)

    async def one(problem: Problem) -> JudgedProblem | None:
        async with free:
            return await judged(problem, task, generator, k)

    found = await asyncio.gather(*map(one, task.problems))
    return [of_problem for of_problem in found if of_problem is not None and of_problem.states]


def fit(states: Vector, right: Vector, penalty: float = PENALTY) -> tuple[Vector, float]:
    """Weights and bias of the logistic regression.

    Raises:
        InputError: there are not both right and wrong judgements to learn from.
    """
    if len(set(right.tolist())) < 2:
        raise InputError("problems", f"{len(right)} judgements", "give more: there must be right and wrong judgements")
    mean, scale = states.mean(0), states.std(0) + 1e-6
    x, sign = (states - mean) / scale, 2 * right - 1

    def loss(parameters: Vector) -> tuple[float, Vector]:
        weights, bias = parameters[:-1], parameters[-1]
        margin = sign * (x @ weights + bias)
        slope = -sign / (1 + np.exp(np.clip(margin, -500, 500)))
        gradient = np.append(x.T @ slope / len(x) + 2 * penalty * weights, slope.mean())
        return float(np.logaddexp(0, -margin).mean() + penalty * weights @ weights), gradient

    found = minimize(loss, np.zeros(x.shape[1] + 1), jac=True, method="L-BFGS-B", options={"maxiter": 1000})
    weights = found.x[:-1] / scale
    return weights, float(found.x[-1] - weights @ mean)


def measure(held_out: Sequence[JudgedProblem], weights: Vector, bias: float) -> dict[str, float | int | None]:
    """AUC of the head and of length alone, over all judgements and as the mean within problems that have both."""
    right = [problem.right for problem in held_out]
    area, within = areas([(np.array(problem.states) @ weights + bias).tolist() for problem in held_out], right)
    length_area, length_within = areas([problem.lengths for problem in held_out], right)
    return {
        "problems": len(held_out),
        "judgements": sum(map(len, right)),
        "right": fmean(label for labels in right for label in labels),
        "auc": area,
        "auc_of_length": length_area,
        "auc_within": fmean(within) if within else None,
        "auc_of_length_within": fmean(length_within) if length_within else None,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="the judge; meta.json is written into its directory")
    parser.add_argument("--problems", type=int, default=1500)
    parser.add_argument("--dev", type=int, default=300)
    parser.add_argument("--judgements", type=int, default=8, help="of each problem")
    args = parser.parse_args()
    generator = LocalGenerator(args.model)
    sets = {
        split: asyncio.run(collect(load("pocket", count, split=split, seed=SEED), generator, args.judgements))
        for split, count in (("train", args.problems), ("dev", args.dev))
    }
    states = np.array([state for problem in sets["train"] for state in problem.states])
    right = np.array([float(r) for problem in sets["train"] for r in problem.right])
    weights, bias = fit(states, right)
    figures = {name: measure(found, weights, bias) for name, found in sets.items()}
    head = {"fingerprint": generator.weights, "bias": bias, "weights": [float(f"{w:.7g}") for w in weights]}
    (args.model / "meta.json").write_text(json.dumps(head | {"measured": figures}, indent=1) + "\n")
    print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
