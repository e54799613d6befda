"""A constructed pipeline whose accuracy is known for every allocation: decompose, solve, choose.

- A decomposition is good with a chance that rises with its samples and then flattens.
- One solution is right with its model's skill, more often after a good decomposition. With more samples it is likelier
  that any is right. So the more stage 1 gets, the fewer samples stage 2 needs.
- The choice finds a right solution among the samples the better the more checks it has; otherwise it is a random one.

On the task ``chooser`` the choice is the bottleneck, on ``solver`` the model that solves.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from itertools import product

from thinktime.planning.pipeline_space import Allocation, PipelineSpace, Reference, StageChoice, Subtask

SAMPLES = (1, 2, 4, 8, 16, 32)
PARAMETERS = {"1M": 1e6, "3M": 3e6, "10M": 1e7, "30M": 3e7}
REFERENCE = Reference(1e6, 100, 50)
"""One sample of the smallest model."""
SUBTASKS = (
    Subtask("decompose", {name: PARAMETERS[name] for name in ("1M", "3M", "10M")}, 100, 50),
    Subtask("solve", {name: PARAMETERS[name] for name in ("1M", "3M", "10M", "30M")}, 200, 100),
    Subtask("choose", {name: PARAMETERS[name] for name in ("1M", "3M")}, 300, 20),
)
BUDGETS = (40.0, 100.0, 300.0)


@dataclass(frozen=True)
class Skills:
    """What the models can do in each subtask, by model.

    Args:
        decompose: of one sample.
        reach: share of the problems that any number of samples can solve.
        rate: chance that one sample solves a problem within reach.
        choose: chance that one check finds a right solution.
        help: how much of its rate a solution has without a good decomposition.
    """

    decompose: Mapping[str, float]
    reach: Mapping[str, float]
    rate: float
    choose: Mapping[str, float]
    help: float = 0.4


TASKS: Mapping[str, Skills] = {
    "solver": Skills(
        {"1M": 0.5, "3M": 0.6, "10M": 0.7},
        {"1M": 0.30, "3M": 0.45, "10M": 0.70, "30M": 0.90},
        0.30,
        {"1M": 0.4, "3M": 0.5},
    ),
    "chooser": Skills(
        {"1M": 0.5, "3M": 0.6, "10M": 0.7},
        {"1M": 0.70, "3M": 0.75, "10M": 0.80, "30M": 0.82},
        0.30,
        {"1M": 0.04, "3M": 0.12},
    ),
}


def space(budget: float) -> PipelineSpace:
    """The allocations within a budget of samples of the smallest model."""
    return PipelineSpace(SUBTASKS, budget, (SAMPLES[0], SAMPLES[-1]), REFERENCE)


def accuracy(task: str, allocation: Allocation) -> float:
    """The chance that the pipeline's answer is right."""
    skills, (first, second, third) = TASKS[task], allocation
    good = 1 - (1 - skills.decompose[first.model]) ** first.samples
    reach, rate = skills.reach[second.model], skills.rate * (skills.help + (1 - skills.help) * good)
    any_right = reach * (1 - (1 - rate) ** second.samples)
    found = 1 - (1 - skills.choose[third.model]) ** third.samples
    return found * any_right + (1 - found) * reach * rate


@cache
def every(budget: float) -> tuple[Allocation, ...]:
    """All allocations of the grid within the budget."""
    within = space(budget)
    choices = [[StageChoice(model, n) for model in subtask.models for n in SAMPLES] for subtask in SUBTASKS]
    return tuple(allocation for allocation in product(*choices) if within.cost(allocation) <= budget)


@cache
def optimum(task: str, budget: float) -> Allocation:
    """The best allocation of the grid within the budget."""
    return max(every(budget), key=lambda allocation: accuracy(task, allocation))


def uniform(task: str, budget: float) -> Allocation:
    """The best allocation in which every subtask has the same share of the budget or less."""
    within = space(budget)
    some = [
        allocation
        for allocation in every(budget)
        if all(within.units(t, c) <= budget / len(SUBTASKS) for t, c in zip(SUBTASKS, allocation, strict=True))
    ]
    return max(some, key=lambda allocation: sum(within.units(t, c) for t, c in zip(SUBTASKS, allocation, strict=True)))


def last_stage(budget: float) -> Allocation:
    """One sample of the smallest models, and all that is left for the last stage."""
    within = space(budget)
    some = [one for one in every(budget) if one[:2] == within.cheapest()[:2]]
    return max(some, key=within.cost)
