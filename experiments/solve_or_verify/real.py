"""Solve or verify on samples of a real model: votes against verified choices at the same number of tokens.

    python -m experiments.solve_or_verify.real              # seconds; writes real.json and real.png

The samples are those of the committed bank, and the scores those of `experiments.verifiers.scores`: nothing is
computed by a model. One check is one score of a solution. The problems are the first ones, up to the last one whose
samples are all scored. Where all answers are right, or all wrong, the choice does not matter, and no score is needed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from experiments.banks.judge import judged_pool, known_exports
from experiments.intervals import Floats, difference, mean
from experiments.plot import line, logarithmic, panels, save
from experiments.provenance import begin, write_json
from experiments.verifiers.scores import EXPORT, Verified, covered, header, verified
from thinktime.bench.samples import Sampled
from thinktime.bench.selectors import Select, curve
from thinktime.bench.statistics import pass_at_k
from thinktime.core.selection import best, majority, weighted_majority

HERE = Path(__file__).parent
SIZES = tuple(range(1, 9))
SHOWN = (1, 2, 4, 8)
VERIFIERS = ("p_yes_0.5b", "head")
SELECTS: Mapping[str, Select] = {"best_of_n": best, "weighted": weighted_majority}
HEAD_TOKENS = 1.0
"""What a score by the head costs if the model that wrote the solution has its keys and values."""


def accuracy(problems: Sequence[Sampled], select: Select, seed: int) -> dict[int, Floats]:
    """The chance of a right choice on each problem, by the number of samples."""
    return {k: np.array(point.each) for k, point in curve(problems, SIZES, select, seed=seed).items()}


def at_cost(vote: Mapping[int, Floats], samples: float) -> Floats | None:
    """A vote that costs so many samples: the mix of the two nearest numbers; None beyond all samples."""
    low = int(samples)
    if low + 1 not in vote:
        return vote.get(low) if samples == low else None
    share = samples - low
    mixed: Floats = (1 - share) * vote[low] + share * vote[low + 1]
    return mixed


def shuffled(problem: Sampled) -> Sampled:
    """A control: the scores of a problem in another order."""
    rng = Random(f"shuffled/{problem.id}")
    rewards = rng.sample([sample.reward for sample in problem.samples], len(problem.samples))
    pairs = zip(problem.samples, rewards, strict=True)
    return replace(problem, samples=tuple(replace(sample, reward=reward) for sample, reward in pairs))


def measure(problems: Sequence[Verified], name: str, price: float, seed: int) -> dict[str, Any]:
    """One verifier: choices and weighted votes by number of samples, against votes of equal cost."""
    some = covered(problems, name)
    scored = [each.scored(name) for each in some]
    vote = accuracy(scored, majority, seed)
    found: dict[str, Any] = {
        "n_problems": len(some),
        "n_mixed": sum(each.mixed for each in some),
        "price": price,
        "vote": {str(k): mean(vote[k]) for k in SHOWN},
        "coverage": {str(k): mean(pass_at_k(*problem.counts, k) for problem in scored) for k in SHOWN},
        "by_select": {},
    }
    for label, select in SELECTS.items():
        mine = accuracy(scored, select, seed)
        control = accuracy(list(map(shuffled, scored)), select, seed)
        rows = []
        for k in SHOWN:
            equal = at_cost(vote, k * (1 + price))
            rows.append(
                {
                    "n": k,
                    "cost": k * (1 + price),
                    "accuracy": mean(mine[k]),
                    "minus_vote_of_n": difference(mine[k], vote[k]),
                    "minus_vote_of_equal_cost": None if equal is None else difference(mine[k], equal),
                    "minus_shuffled_scores": difference(mine[k], control[k]),
                }
            )
        found["by_select"][label] = rows
    return found


def greedy(problems: Sequence[Verified], seed: int) -> dict[str, Any] | None:
    """One sample at temperature 0, beside the vote of all samples; None if there is no such export."""
    path = known_exports().get("gsm8k-program-greedy")
    if path is None:
        return None
    right = {problem.id: problem.pass_rate for problem in judged_pool(path).problems}
    some = [each.problem for each in problems if each.problem.id in right]
    mine = [right[problem.id] for problem in some]
    vote = accuracy(some, majority, seed)[SIZES[-1]]
    return {"n_problems": len(some), "accuracy": mean(mine), "vote_of_all_minus_greedy": difference(vote, mine)}


def prices(problems: Sequence[Verified]) -> dict[str, float]:
    """The cost of a check in solutions, by computed tokens."""
    lengths = [sample.length for each in problems for sample in each.problem.samples]
    cost = header()["costs"]["p_yes_0.5b"]
    tokens = {"p_yes_0.5b": cost["computed"] / cost["scores"], "head": HEAD_TOKENS}
    return {name: each / float(np.mean(lengths)) for name, each in tokens.items()}


def main() -> None:
    args, made = begin(HERE, __doc__, "real", "real.json")
    problems = verified()
    price = prices(problems)
    found = {name: measure(problems, name, price[name], args.seed) for name in VERIFIERS}
    beside = greedy(covered(problems, VERIFIERS[0]), args.seed)
    result = {**made, "export": EXPORT.name, "verifiers": found, "greedy": beside}
    write_json(args.out / "real.json", result)
    plot(result, args.out / "real.png")


def plot(result: Mapping[str, Any], path: Path) -> None:
    """Accuracy against the cost in samples."""
    figure, both = panels(len(VERIFIERS), 12, 4.4, sharey=True)
    for axes, name in zip(both, VERIFIERS, strict=True):
        found = result["verifiers"][name]
        line(axes, SHOWN, found["vote"].values(), 0, "vote")
        for colour, (label, rows) in enumerate(found["by_select"].items(), 1):
            line(axes, [row["cost"] for row in rows], [row["accuracy"] for row in rows], colour, label)
        axes.plot(SHOWN, [100 * each["value"] for each in found["coverage"].values()], "--", color="#999999")
        logarithmic(axes, "cost, in samples")
        axes.set(title=f"{name}: {found['n_problems']} problems; dashed: coverage")
    both[0].set_ylabel("right answers, %")
    both[0].legend(fontsize=8)
    save(figure, path)


if __name__ == "__main__":
    main()
