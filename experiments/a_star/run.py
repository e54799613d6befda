"""Row 45: does A*-decoding reach best-of-n with fewer tokens (Chatziveroglou 2025, arXiv 2505.13672)?

    python -m experiments.a_star.run         # 500 problems of 4 to 8 computations; 80 minutes on one core

Both readings of the edge cost, greedy best-first, several goals, against best-of-n, the weighted vote, beam search and
particle filtering with the same model, rewards and steps. Two controls: rewards shuffled among the nodes, with which
nothing may be gained, and an oracle that knows whether every step is right, with which much should be.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from random import Random
from statistics import fmean
from typing import Any

import matplotlib.pyplot as plt

from experiments.arms import Arm, minus, models, points, ratio, run_arms, summary, times, tokens, write
from experiments.plot import COLOURS, bars, save
from thinktime.bench.runner import Outcome
from thinktime.bench.tasks import load
from thinktime.core.types import Capability, Node, Score
from thinktime.core.usage import Usage
from thinktime.pocket.problems import WordProblem, check_steps, problems
from thinktime.strategies import parse

HERE = Path(__file__).parent
LEVELS = (3, 4, 5)
SAMPLED = [f"{name}:n={n}" for name in ("best_of_n", "weighted_majority") for n in (2, 4, 8, 16)]
SEARCHES = [f"{name}:n={n}" for name in ("beam_search", "particle_filter") for n in (4, 8, 16)]
A_STAR = [f"a_star:k={k}" for k in (2, 4, 8)]
A_STAR += [f"a_star:k=4,edge_cost={cost}" for cost in ("consistent", "zero")]
A_STAR += ["a_star:k=4,n_goals=4", "a_star:k=4,n_goals=4,edge_cost=zero"]


@dataclass
class Control:
    """Rewards that know nothing, or everything; what a real reading costs."""

    name: str
    truths: dict[str, WordProblem] = field(default_factory=dict)
    capabilities = frozenset({Capability.SCORES, Capability.PROCESS_REWARD})

    def worst_case(self, node: Node, known: Node | None) -> Usage:
        """A reading of what is new."""
        whole, before = ((len(n.state.prompt) + len(n.state.ids) if n else 0) for n in (node, known))
        return Usage(scorer_tokens=whole - before, scorer_calls=1)

    async def score(self, nodes: Sequence[Node], known: Sequence[Node | None]) -> list[Score]:
        """One number a node."""
        costs = map(self.worst_case, nodes, known)
        return [Score(self._score(node), cost) for node, cost in zip(nodes, costs, strict=True)]

    def _score(self, node: Node) -> float:
        noise = Random(f"{self.name}/{node.key}").random()
        if not self.truths:
            return noise
        truth = self.truths[" ".join(map(str, node.state.prompt))]
        return 0.99 + noise / 100 if all(check_steps(truth, node.state.text)) else noise / 100


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--problems", type=int, default=834, help="of all levels; levels 3 to 5 are used")
    parser.add_argument("--bank", type=Path, default=Path("runs/experiments/bank.db"))
    args = parser.parse_args()
    task = load("pocket", args.problems, seed=0)
    task = replace(task, problems=tuple(p for p in task.problems if p.metadata["level"] in LEVELS))
    generator, scorer = models()
    texts = {problem.question: problem for problem in problems("test", args.problems, seed=0)}
    truths = {" ".join(map(str, generator.root(p).prompt)): texts[str(p.prompt)] for p in task.problems}
    arms = [Arm(label, parse(label)[1]) for label in SAMPLED + A_STAR + SEARCHES]
    arms += [Arm("oracle, a_star:k=4", parse("a_star:k=4")[1], scorer=Control("oracle", truths))]
    arms += [Arm("shuffled, a_star:k=4", parse("a_star:k=4")[1], scorer=Control("shuffled"))]
    arms += [Arm("single", parse("single")[1])]
    outcomes = run_arms(arms, task, generator, scorer, args.bank)
    rows: dict[str, Any] = {}
    for label, found in outcomes.items():
        peer = nearest(found, outcomes, "best_of_n")
        rows[label] = summary(found) | {
            "against": peer,
            "minus_nearest_best_of_n": minus(found, outcomes[peer]),
            "minus_best_of_16": minus(found, outcomes["best_of_n:n=16"]),
            "tokens_over_best_of_16": ratio(list(map(tokens, found)), list(map(tokens, outcomes["best_of_n:n=16"]))),
            "readings_over_best_of_16": ratio(readings(found), readings(outcomes["best_of_n:n=16"])),
            "went_back": went_back(found),
        }
    lines = verdict(rows, outcomes)
    write(HERE, 0, task, {"levels": LEVELS, "arms": rows, "verdict": lines})
    plot(rows)
    print("\n".join(lines))


def nearest(found: Sequence[Outcome], outcomes: dict[str, list[Outcome]], name: str) -> str:
    """The size of a method that generates about as many tokens."""
    cost = fmean(map(tokens, found))
    sizes = [label for label in outcomes if label.startswith(f"{name}:")]
    return min(sizes, key=lambda label: abs(fmean(map(tokens, outcomes[label])) / cost - 1))


def readings(found: Sequence[Outcome]) -> list[float]:
    """Passes of the reward model."""
    return [float(outcome.answer.usage.scorer_calls) for outcome in found]


def went_back(found: Sequence[Outcome]) -> float:
    """Share of the expansions whose parent is not a child of the expansion before."""
    jumps = total = 0
    for outcome in found:
        parents = list(dict.fromkeys(node["parent"] for node in outcome.trace if node["depth"]))
        above = {node["key"]: node["parent"] for node in outcome.trace}
        total += max(0, len(parents) - 1)
        jumps += sum(above[later] != earlier for earlier, later in pairwise(parents))
    return jumps / total if total else 0.0


def verdict(rows: dict[str, Any], outcomes: dict[str, list[Outcome]]) -> list[str]:
    """Against the card: as many tokens as best-of-n at equal accuracy, or gains that survive shuffled rewards."""
    best = rows["best_of_n:n=16"]["accuracy"]["value"]
    reached = [label for label in A_STAR if rows[label]["accuracy"]["value"] >= best]
    cheapest = min(reached, key=lambda label: rows[label]["usage"]["generated_tokens"], default=None)
    lines = []
    if cheapest is None:
        lines.append("falsified: no setting of A* reaches the accuracy of best-of-16")
    else:
        cost = rows[cheapest]["tokens_over_best_of_16"]
        held = "holds" if cost["high"] < 1 else "falsified"
        lines.append(f"{held}: {cheapest} reaches best-of-16 with {times(cost)} of its tokens")
    for label in A_STAR:
        row = rows[label]
        lines.append(
            f"{label}: {points(row['minus_nearest_best_of_n'])} against {row['against']} of as many tokens; "
            f"{points(row['minus_best_of_16'])} against best-of-16, tokens {times(row['tokens_over_best_of_16'])}"
        )
    for control in ("oracle", "shuffled"):
        gain = minus(outcomes[f"{control}, a_star:k=4"], outcomes["single"])
        lines.append(f"{control} rewards: {points(gain)} against one sample")
    return lines


def plot(rows: dict[str, Any]) -> None:
    """Accuracy against tokens, a line a method."""
    figure, axes = plt.subplots(figsize=(8, 4.8), dpi=150)
    lines = {
        "best of n": SAMPLED[:4],
        "weighted vote": SAMPLED[4:],
        "beam search": SEARCHES[:3],
        "particle filter": SEARCHES[3:],
        "A*, one goal, k = 2, 4, 8": A_STAR[:3],
        "A*, four goals": A_STAR[5:6],
        "best-first, one and four goals": [A_STAR[4], A_STAR[6]],
    }
    for place, (name, labels) in enumerate(lines.items()):
        x = [rows[label]["usage"]["generated_tokens"] for label in labels]
        y, whiskers = bars(rows[label]["accuracy"] for label in labels)
        axes.errorbar(x, y, whiskers, label=name, color=COLOURS[place], marker="o", ms=4, elinewidth=0.7)
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.set_xlabel("generated tokens per problem")
    axes.set_ylabel("right answers, %")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    axes.legend(frameon=False, fontsize=8)
    save(figure, HERE / "plot.png")


if __name__ == "__main__":
    main()
