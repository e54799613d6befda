"""Row 45: does A*-decoding reach best-of-n with fewer tokens (Chatziveroglou 2025, arXiv 2505.13672)?

    python -m experiments.a_star.run         # 500 problems of 4 to 8 computations; 80 minutes on one core

Two controls: one random reward a node, with which nothing may be gained, and an oracle that knows whether every step
is right, with which much should be.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any

from experiments.harness import Arm, Experiment, arm, minus, nearest_cost, options, over, summary, tokens
from experiments.intervals import as_number, as_points
from experiments.plot import generated, lines, logarithmic, panels, save
from thinktime.bench.runner import Outcome
from thinktime.core.types import Capability, Node, Problem, Score
from thinktime.core.usage import Usage
from thinktime.pocket.problems import WordProblem, check_steps, problems

HERE = Path(__file__).parent
LEVELS = (3, 4, 5)
SAMPLED = [f"{name}:n={n}" for name in ("best_of_n", "weighted_majority") for n in (2, 4, 8, 16)]
SEARCHES = [f"{name}:n={n}" for name in ("beam_search", "particle_filter") for n in (4, 8, 16)]
A_STAR = [f"a_star:k={k}" for k in (2, 4, 8)]
A_STAR += [f"a_star:k=4,edge_cost={cost}" for cost in ("consistent", "zero")]
A_STAR += ["a_star:k=4,n_goals=4", "a_star:k=4,n_goals=4,edge_cost=zero"]


@dataclass
class Control:
    """Random rewards, or with the problems by question the true ones; both cost what a real score costs."""

    name: str
    truths: dict[str, WordProblem] = field(default_factory=dict)
    capabilities = frozenset({Capability.SCORES, Capability.PROCESS_REWARD})

    def worst_case(self, problem: Problem, node: Node, known: Node | None) -> Usage:
        """A reading of what is new."""
        whole, before = ((len(n.state.prompt) + len(n.state.ids) if n else 0) for n in (node, known))
        return Usage(scorer_tokens=whole - before, scorer_calls=1)

    async def score(self, problem: Problem, nodes: Sequence[Node], known: Sequence[Node | None]) -> list[Score]:
        """One number a node."""
        pairs = zip(nodes, known, strict=True)
        return [Score(self._score(problem, node), self.worst_case(problem, node, before)) for node, before in pairs]

    def _score(self, problem: Problem, node: Node) -> float:
        noise = Random(f"{self.name}/{node.key}").random()
        if not self.truths:
            return noise
        truth = self.truths[str(problem.prompt)]
        return 0.99 + noise / 100 if all(check_steps(truth, node.state.text)) else noise / 100


def main() -> None:
    args = options(__doc__, problems=834).parse_args()
    experiment = Experiment(HERE, args, levels=LEVELS)
    truths = {problem.question: problem for problem in problems("test", args.problems, seed=0)}
    strategy = arm("a_star:k=4").strategy
    controls = {"oracle": Control("oracle", truths), "random": Control("random")}
    arms = [Arm(f"{name}, a_star:k=4", strategy, scorer) for name, scorer in controls.items()]
    outcomes = experiment.run([*SAMPLED, *A_STAR, *SEARCHES, *arms, "single"])
    rows: dict[str, Any] = {}
    best = outcomes["best_of_n:n=16"]
    for label, found in outcomes.items():
        peer = nearest_cost(found, outcomes, SAMPLED[:4])
        rows[label] = summary(found) | {
            "against": peer,
            "minus_nearest_best_of_n": minus(found, outcomes[peer]),
            "minus_best_of_16": minus(found, best),
            "tokens_over_best_of_16": over(found, best, tokens),
            "readings_over_best_of_16": over(found, best, lambda outcome: outcome.answer.usage.scorer_calls),
            "went_back": went_back(found),
        }
    plot(rows, experiment.out)
    experiment.finish({"levels": LEVELS, "arms": rows}, verdict(rows, outcomes))


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
    """Against the card: as many tokens as best-of-n at equal accuracy, or gains that survive random rewards."""
    best = rows["best_of_n:n=16"]["accuracy"]["value"]
    reached = [label for label in A_STAR if rows[label]["accuracy"]["value"] >= best]
    cheapest = min(reached, key=lambda label: rows[label]["usage"]["generated_tokens"], default=None)
    found = ["falsified: no setting of A* reaches the accuracy of best-of-16"]
    if cheapest is not None:
        cost = rows[cheapest]["tokens_over_best_of_16"]
        claim = "holds" if cost["high"] < 1 else "falsified"
        found = [f"{claim}: {cheapest} reaches best-of-16 with {as_number(cost)} of its tokens"]
    for label in A_STAR:
        row = rows[label]
        found.append(
            f"{label}: {as_points(row['minus_nearest_best_of_n'])} against {row['against']} of as many tokens; "
            f"{as_points(row['minus_best_of_16'])} against best-of-16, "
            f"tokens {as_number(row['tokens_over_best_of_16'])}"
        )
    for control in ("oracle", "random"):
        gain = minus(outcomes[f"{control}, a_star:k=4"], outcomes["single"])
        found.append(f"{control} rewards: {as_points(gain)} against one sample")
    return found


def plot(rows: dict[str, Any], out: Path) -> None:
    """Accuracy against tokens, a line a method."""
    figure, (axes,) = panels(1, 8, 4.8)
    families = {
        "best of n": SAMPLED[:4],
        "weighted vote": SAMPLED[4:],
        "beam search": SEARCHES[:3],
        "particle filter": SEARCHES[3:],
        "A*, one goal, k = 2, 4, 8": A_STAR[:3],
        "A*, four goals": A_STAR[5:6],
        "best-first, one and four goals": [A_STAR[4], A_STAR[6]],
    }
    lines(axes, {name: [rows[label] for label in labels] for name, labels in families.items()}, generated)
    logarithmic(axes, "generated tokens per problem")
    axes.set_ylabel("right answers, %")
    axes.legend(fontsize=8)
    save(figure, out / "plot.png")


if __name__ == "__main__":
    main()
