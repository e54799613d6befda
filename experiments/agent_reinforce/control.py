"""Row 34 on constructed tasks: do searches over graphs find the known optimum, and with how many evaluations?

    python -m experiments.agent_reinforce.control        # some minutes; needs optuna: pip install 'thinktime[search]'

Writes ``control.json`` and ``control.png``, and prints the tables. An evaluation scores one graph on a batch of
problems, so it has the noise of that many coins. See `experiments.agent_reinforce.surface` for the tasks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from experiments.agent_reinforce.surface import MODELS, TASKS, accuracy, grid, optimum, space
from experiments.intervals import as_number, as_points, difference, mean, ratio
from experiments.plot import legend_below, line, logarithmic, panels, save
from experiments.provenance import begin, write_json
from thinktime.planning.graph_advisors import RuleBasedAdvisor
from thinktime.planning.graph_search import (
    FoundGraph,
    GraphSearcher,
    Measure,
    ParzenGraphs,
    RandomGraphs,
    Reinforce,
    search_graphs,
)
from thinktime.planning.graph_space import GraphSpace
from thinktime.strategies.composition.agent_graph import Graph

HERE = Path(__file__).parent
SEEDS = range(20)
FEW_SEEDS = range(10)
"""For the map, which takes longest."""
BUDGETS = (5, 8)
EVALUATIONS, BATCH = 40, 32
SIZES = (20, 40)
OF_MAP = ("random", "random, dense", "REINFORCE", "rules")
"""Searchers of the map; TPE would take too long."""
EVERY = range(4, EVALUATIONS, 5)
"""Evaluations whose incumbents are kept."""
BATCHES = (8, 32, 128)
PRICES = (0.0, 0.01, 0.03)
"""Of a second, in accuracy."""
KNOWN = "rules, models known"
SEARCHERS: Mapping[str, Callable[[GraphSpace, int], GraphSearcher]] = {
    "random": RandomGraphs,
    "random, dense": lambda within, seed: RandomGraphs(dense(within), seed),
    "REINFORCE": Reinforce,
    "REINFORCE, dense, lr 0.5": lambda within, seed: Reinforce(dense(within), seed, lr=0.5),
    "TPE": ParzenGraphs,
    "rules": RuleBasedAdvisor,
    KNOWN: RuleBasedAdvisor,
}
"""`KNOWN` gets the models of the best known graph, so only roles and edges are searched for."""


def dense(within: GraphSpace) -> GraphSpace:
    """The same graphs, with half of all edges before any learning, as TPE begins."""
    return replace(within, edge_temperature=1e9)


def noisy(task: str, batch: int, seed: int, price: float = 0.0, within: GraphSpace | None = None) -> Measure:
    """The accuracy of a graph on a batch of problems, minus a price for its seconds."""

    def measure(graph: Graph, number: int) -> float:
        rng = np.random.default_rng([seed, number, hash_of(graph)])
        seconds = within.seconds(graph) if within is not None else 0.0
        return float(rng.binomial(batch, accuracy(task, graph)) / batch) - price * seconds

    return measure


def hash_of(graph: Graph) -> int:
    """A number of a graph that is the same in every process."""
    return int.from_bytes(str(graph).encode()) % 2**63


def run(
    name: str,
    task: str,
    budget: int,
    evaluations: int,
    batch: int,
    seed: int,
    price: float = 0.0,
    best: Graph | None = None,
) -> FoundGraph:
    """One search; `KNOWN` needs the best known graph."""
    within = space(budget)
    searcher = SEARCHERS[name](within, seed)
    if name == KNOWN:
        assert best is not None
        models = Counter(node.model for node in best.nodes[:-1])
        searcher = RuleBasedAdvisor(within, seed, combination=models)
    return search_graphs(searcher, noisy(task, batch, seed, price, within), evaluations)


def incumbents(task: str, found: FoundGraph) -> list[float]:
    """The true accuracy of the graph with the highest mean score, after each evaluation."""
    scores: dict[Graph, list[float]] = {}
    values = []
    for each in found.history:
        scores.setdefault(each.graph, []).append(each.score)
        values.append(accuracy(task, max(scores, key=lambda graph: fmean(scores[graph]))))
    values = [*values[:-1], accuracy(task, found.graph)]
    return values + values[-1:] * (EVALUATIONS - len(values))  # fewer graphs than `top` need fewer evaluations


def reached(path: Sequence[float], level: float) -> int:
    """The evaluation after which a search is at this level; one more than it has if it never is."""
    return next((number for number, value in enumerate(path, 1) if value >= level), len(path) + 1)


def equal_flops(task: str, within: GraphSpace) -> dict[str, float]:
    """The best graphs of the usual shapes within the limit: one answer, merged answers, a chain."""
    found: dict[str, float] = {}
    for model in MODELS:
        for width in range(1, within.budget + 1):
            for depth in range(1, within.max_depth + 1):
                shape = "one answer" if width * depth == 1 else "merged answers" if depth == 1 else "chain"
                if min(width, depth) == 1 and shape_cost(within, model, width, depth) <= within.limit:
                    found[shape] = max(found.get(shape, 0.0), grid(task, model, width, depth))
    return found


def shape_cost(within: GraphSpace, model: str, width: int, depth: int) -> float:
    """FLOPs of so many chains side by side and the decision."""
    chain = within.node_flops(model, 0) + (depth - 1) * within.node_flops(model, 1)
    return width * chain + within.node_flops(within.decision, width)


def compared(task: str, budget: int) -> dict[str, Any]:
    """All searchers on one task: regret, evaluations to the level of random search, and the returned graphs."""
    within = space(budget)
    names = [name for name in SEARCHERS if name != KNOWN]
    found = {name: [run(name, task, budget, EVALUATIONS, BATCH, seed) for seed in SEEDS] for name in names}
    exact = budget <= min(BUDGETS)
    every = {each.graph for some in found.values() for one in some for each in one.history}
    graph = optimum(task, within)[1] if exact else max(every, key=lambda one: accuracy(task, one))
    known = accuracy(task, graph)
    found[KNOWN] = [run(KNOWN, task, budget, EVALUATIONS, BATCH, seed, best=graph) for seed in SEEDS]
    paths = {name: [incumbents(task, each) for each in some] for name, some in found.items()}
    final = {name: [path[-1] for path in some] for name, some in paths.items()}
    level = fmean(final["random"])
    to_level = {name: [reached(path, level) for path in some] for name, some in paths.items()}
    usual = equal_flops(task, within)
    rows = {}
    for name in SEARCHERS:
        rows[name] = {
            "regret": mean(known - value for value in final[name]),
            "regret_minus_random": difference(final["random"], final[name]),
            "evaluations_to_level": mean(to_level[name]),
            "evaluations_over_random": ratio(np.array(to_level[name], float), np.array(to_level["random"], float)),
            "minus_best_usual_shape": mean(value - max(usual.values()) for value in final[name]),
            "path": {str(number + 1): mean(path[number] for path in paths[name]) for number in EVERY},
            "graphs": [str(each.graph) for each in found[name][:3]],
        }
    return {
        "optimum": known,
        "exact": exact,
        "optimal_graph": str(graph),
        "level_of_random": level,
        "equal_flops": usual,
        "by_search": rows,
    }


def mapped(task: str, budget: int, best: Graph) -> list[dict[str, Any]]:
    """Regret by search, number of evaluations, and problems of a batch."""
    rows, known = [], accuracy(task, best)
    for name in OF_MAP:
        for batch in BATCHES:
            for evaluations in SIZES:
                found = [run(name, task, budget, evaluations, batch, seed, best=best) for seed in FEW_SEEDS]
                regret = mean(known - accuracy(task, each.graph) for each in found)
                rows.append({"search": name, "batch": batch, "evaluations": evaluations, "regret": regret})
    return rows


def latency(task: str, budget: int) -> list[dict[str, Any]]:
    """Accuracy and seconds of the returned graphs, by the price of a second: at random and by rules."""
    within, rows = space(budget), []
    for name in ("random", "rules"):
        for price in PRICES:
            found = [run(name, task, budget, EVALUATIONS, BATCH, seed, price).graph for seed in SEEDS]
            accurate = mean(accuracy(task, graph) for graph in found)
            seconds = mean(within.seconds(graph) for graph in found)
            rows.append({"search": name, "price": price, "accuracy": accurate, "seconds": seconds})
    return rows


def main() -> None:
    args, made = begin(HERE, __doc__, "control", "control.json")
    results = {f"{task}, budget {budget}": compared(task, budget) for budget in BUDGETS for task in TASKS}
    for key, result in results.items():
        print(f"{key}: optimum {result['optimum']:.3f} {result['optimal_graph']}, {result['equal_flops']}")
        for name, row in result["by_search"].items():
            print(
                f"  {name:18} regret {as_points(row['regret'])}, minus random {as_points(row['regret_minus_random'])}, "
                f"evaluations {as_number(row['evaluations_to_level'], 1)}, over random "
                f"{as_number(row['evaluations_over_random'])}, usual {as_points(row['minus_best_usual_shape'])}",
                flush=True,
            )
    small = min(BUDGETS)
    maps = {
        task: mapped(task, small, Graph.parse(results[f"{task}, budget {small}"]["optimal_graph"])) for task in TASKS
    }
    widths = range(1, 7)
    shapes = {
        task: {model: [[grid(task, model, w, d) for d in range(1, 5)] for w in widths] for model in MODELS}
        for task in TASKS
    }
    seconds = {task: latency(task, max(BUDGETS)) for task in TASKS}
    setting = {"evaluations": EVALUATIONS, "batch": BATCH, "seeds": len(SEEDS), "seeds_of_map": len(FEW_SEEDS)}
    whole = {**made, **setting, "tasks": results, "map": maps, "width_by_depth": shapes, "latency": seconds}
    write_json(args.out / "control.json", whole)
    for task in TASKS:
        for row in maps[task]:
            print(task, row["search"], row["batch"], row["evaluations"], as_points(row["regret"]))
        for row in seconds[task]:
            print(task, row["search"], row["price"], as_points(row["accuracy"]), as_number(row["seconds"]))
    plot(whole, args.out / "control.png")


def plot(result: Mapping[str, Any], path: Path) -> None:
    """Regret against evaluations on both tasks, and against the problems of a batch."""
    figure, axes = panels(4, 13.5, 3.8)
    budget = max(BUDGETS)
    for place, task in enumerate(TASKS):
        of_task = result["tasks"][f"{task}, budget {budget}"]
        for colour, (name, row) in enumerate(of_task["by_search"].items()):
            top = of_task["optimum"]
            regret = [
                {"value": top - each["value"], "low": top - each["high"], "high": top - each["low"]}
                for each in row["path"].values()
            ]
            line(axes[place], map(float, row["path"]), regret, colour, name)
        axes[place].set(title=f"task {task!r}, budget {budget}", xlabel="evaluations", ylabel="regret, points")
        for colour, name in ((list(SEARCHERS).index(name), name) for name in OF_MAP):
            rows = [row for row in result["map"][task] if row["search"] == name and row["evaluations"] == 40]
            line(axes[place + 2], [row["batch"] for row in rows], [row["regret"] for row in rows], colour, name)
        axes[place + 2].set(title=f"task {task!r}, budget {min(BUDGETS)}, 40 evaluations", ylabel="regret, points")
        logarithmic(axes[place + 2], "problems of a batch")
    legend_below(figure, axes[0], 7)
    save(figure, path, (0, 0.09, 1, 1))


if __name__ == "__main__":
    main()
