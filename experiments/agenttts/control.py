"""Row 39 on a constructed pipeline: which search finds a good allocation with the fewest evaluations?

    python -m experiments.agenttts.control        # two minutes; needs optuna: pip install 'thinktime[search]'

Writes ``control.json`` and ``control.png``, and prints the tables. See `experiments.agenttts.surface` for the pipeline,
whose optimum is found by trying all allocations.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from experiments.agenttts.surface import (
    BUDGETS,
    SAMPLES,
    SUBTASKS,
    TASKS,
    accuracy,
    every,
    last_stage,
    optimum,
    space,
    uniform,
)
from experiments.intervals import as_number, as_points, difference, mean, ratio
from experiments.plot import legend_below, line, logarithmic, panels, save
from experiments.provenance import begin, write_json
from thinktime.planning.pipeline_advisors import BuiltInRules
from thinktime.planning.pipeline_search import (
    AllocationSearcher,
    Archive,
    Evolution,
    ParzenAllocations,
    RandomAllocations,
    ResultTable,
    search_allocations,
)
from thinktime.planning.pipeline_space import Allocation, PipelineSpace, StageChoice

HERE = Path(__file__).parent
SEEDS = range(10)
EVALUATIONS = 40
CLOSE = 0.01
"""A search is at the optimum once its best allocation is at most this far below."""
PROBLEMS = (50, 200)
"""Of an evaluation in the map."""
SHOWN = (10, 20, 40)
OF_MAP = ("random", "evolution", "rules")
"""Searchers of the map; TPE would take too long."""
SEARCHERS: Mapping[str, Callable[[PipelineSpace, int], AllocationSearcher]] = {
    "random": RandomAllocations,
    "evolution": Evolution,
    "TPE": ParzenAllocations,
    "rules": BuiltInRules,
}


@cache
def table(task: str, budget: float, problems: int | None, seed: int) -> ResultTable:
    """The results of all allocations on so many problems; None is exact."""
    rng, found = np.random.default_rng(seed), {}
    for allocation in every(budget):
        exact = accuracy(task, allocation)
        found[allocation] = {"accuracy": exact if problems is None else float(rng.binomial(problems, exact) / problems)}
    return ResultTable(found)


def path(name: str, task: str, budget: float, problems: int | None, seed: int) -> list[float]:
    """The true accuracy of the best allocation so far, after each evaluation."""
    within = space(budget)
    archive = Archive(within, table(task, budget, problems, seed if problems else 0), EVALUATIONS)
    search_allocations(SEARCHERS[name](within, seed), archive)
    values, best = list[float](), -1.0
    for trial in archive.trials:
        assert trial.score is not None
        if trial.score > best:
            best, value = trial.score, accuracy(task, trial.allocation)
        values.append(value)
    return values + values[-1:] * (EVALUATIONS - len(values))


def compared(task: str, budget: float) -> dict[str, Any]:
    """All searches on exact results: evaluations until close to the optimum, and the accuracy at the end."""
    best = accuracy(task, optimum(task, budget))
    paths = {name: [path(name, task, budget, None, seed) for seed in SEEDS] for name in SEARCHERS}
    needed = {
        name: [next((n for n, v in enumerate(some, 1) if v >= best - CLOSE), EVALUATIONS + 1) for some in mine]
        for name, mine in paths.items()
    }
    at_random = np.array(needed["random"], float)
    fixed = {"uniform": uniform(task, budget), "last stage": last_stage(budget)}
    print(f"{task}, budget {budget:g} done", flush=True)
    return {
        "optimum": best,
        "allocation": words(optimum(task, budget)),
        "allocations": len(every(budget)),
        "close": sum(accuracy(task, each) >= best - CLOSE for each in every(budget)),
        "fixed": {name: {"accuracy": accuracy(task, one), "allocation": words(one)} for name, one in fixed.items()},
        "by_search": {
            name: {
                "evaluations": mean(needed[name]),
                "over_random": ratio(np.array(needed[name], float), at_random),
                "not_reached": sum(n > EVALUATIONS for n in needed[name]),
                "regret": mean(best - some[-1] for some in paths[name]),
                "regret_after": {str(n): mean(best - some[n - 1] for some in paths[name]) for n in SHOWN},
                "minus_uniform": difference(
                    [some[-1] for some in paths[name]], [accuracy(task, fixed["uniform"])] * len(SEEDS)
                ),
            }
            for name in SEARCHERS
        },
    }


def mapped(task: str, budget: float) -> list[dict[str, Any]]:
    """Regret by search, evaluations, and problems of an evaluation."""
    best, rows = accuracy(task, optimum(task, budget)), []
    for name in OF_MAP:
        for problems in PROBLEMS:
            paths = [path(name, task, budget, problems, seed) for seed in SEEDS]
            for n in SHOWN:
                regret = mean(best - some[n - 1] for some in paths)
                rows.append({"search": name, "problems": problems, "evaluations": n, "regret": regret})
    return rows


def insights(task: str) -> dict[str, Any]:
    """The paper's three observations on this pipeline.

    The accuracy by the model of each subtask at about equal cost; by samples of the solver; and the number of solver
    samples at which a doubling gains less than a point, with few and with many samples of the first stage.
    """
    within, rest = space(BUDGETS[-1]), (StageChoice("1M", 4), StageChoice("3M", 8), StageChoice("3M", 16))
    by_model: dict[str, dict[str, float]] = {}
    for place, subtask in enumerate(SUBTASKS):
        units = within.units(subtask, StageChoice(within.sizes(subtask)[-1], 1))
        for model in within.sizes(subtask):
            n = max(1, int(within.most_samples(subtask, model, units)))
            allocation = (*rest[:place], StageChoice(model, n), *rest[place + 1 :])
            by_model.setdefault(subtask.name, {})[f"{model}*{n}"] = accuracy(task, allocation)
    curves = {
        str(first): [accuracy(task, (StageChoice("1M", first), StageChoice("3M", n), rest[2])) for n in SAMPLES]
        for first in (1, 32)
    }
    knees = {}
    for first, values in curves.items():
        steps = zip(SAMPLES, np.diff(values), strict=False)
        knees[first] = next((n for n, gain in steps if gain < 0.01), SAMPLES[-1])
    return {"by_model_at_equal_cost": by_model, "solver_curve": curves, "solver_knee": knees}


def words(allocation: Allocation) -> str:
    return ", ".join(f"{choice.model}*{choice.samples}" for choice in allocation)


def main() -> None:
    args, made = begin(HERE, __doc__, "control", "control.json")
    results = {f"{task}, budget {budget:g}": compared(task, budget) for task in TASKS for budget in BUDGETS}
    for key, result in results.items():
        fixed = {name: round(one["accuracy"], 3) for name, one in result["fixed"].items()}
        print(f"{key}: optimum {result['optimum']:.3f} {result['allocation']}, {fixed}, {result['close']} close")
        for name, row in result["by_search"].items():
            print(
                f"  {name:10} evaluations {as_number(row['evaluations'], 1)}, over random "
                f"{as_number(row['over_random'])}, {row['not_reached']} not reached, regret "
                f"{as_points(row['regret'])}, uniform {as_points(row['minus_uniform'])}",
                flush=True,
            )
    maps = {task: mapped(task, BUDGETS[1]) for task in TASKS}
    seen = {task: insights(task) for task in TASKS}
    setting = {"evaluations": EVALUATIONS, "seeds": len(SEEDS), "budget_of_map": BUDGETS[1]}
    whole = {**made, **setting, "tasks": results, "map": maps, "insights": seen}
    write_json(args.out / "control.json", whole)
    for task in TASKS:
        print(task, seen[task])
        for row in maps[task]:
            print(f"  {row['search']:10} {row['problems']} problems, {row['evaluations']}: {as_points(row['regret'])}")
    plot(whole, args.out / "control.png")


def plot(result: Mapping[str, Any], file: Path) -> None:
    """Regret against evaluations on exact results, and against the problems of an evaluation."""
    figure, axes = panels(4, 13.5, 3.6)
    for place, task in enumerate(TASKS):
        for colour, name in enumerate(SEARCHERS):
            exact = result["tasks"][f"{task}, budget {BUDGETS[1]:g}"]["by_search"][name]["regret_after"]
            line(axes[place], map(float, exact), exact.values(), colour, name)
            mine = [row for row in result["map"][task] if row["search"] == name]
            noisy = [row for row in mine if row["evaluations"] == EVALUATIONS]
            line(axes[place + 2], [row["problems"] for row in noisy], [row["regret"] for row in noisy], colour, name)
        axes[place].set(title=f"task {task!r}, exact results", xlabel="evaluations", ylabel="regret, points")
        axes[place + 2].set(title=f"task {task!r}, {EVALUATIONS} evaluations", ylabel="regret, points")
        logarithmic(axes[place + 2], "problems of an evaluation")
    legend_below(figure, axes[0], 4)
    save(figure, file, (0, 0.09, 1, 1))


if __name__ == "__main__":
    main()
