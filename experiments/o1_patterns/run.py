"""Row 51: ways to spend tokens around one model, side by side (Wu et al. 2024, arXiv 2410.13639).

    python -m experiments.o1_patterns.run        # 500 problems

The skilled model by itself, with votes, with its own judgement of whole samples or of steps, with its own feedback,
and with its own plans; then four selectors on the same pool of samples, and how far each goes with the size of the
pool. Of the paper's three families of tasks there is one here, word problems; constrained writing and programs have
no model and no checker in this repository, so what the paper says of free against fixed formats is not tested. The
filter of hard items wants four different models; four samples of the shipped solver, which is no part of the
comparison, stand in for them. A judgement that cannot be read falls back on plurality, and of a pool with more than
four answers it sees the four most frequent. A model that was trained to think is no part of it either. Patterns
(``thinktime.bench.patterns``) are not counted: the skilled model writes in a fixed format, its traces show none.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from experiments.arms import Arm, forgiving, minus, models, points, run_arms, skilled, summary, tokens, write
from experiments.o1_patterns.figure import plot
from thinktime.bench.runner import Outcome
from thinktime.bench.statistics import mean_interval, paired_difference
from thinktime.bench.tasks import load
from thinktime.core.types import Capability
from thinktime.pocket import skills
from thinktime.strategies import parse

HERE = Path(__file__).parent
SIZES = (4, 8, 16)
SELECTORS = {"self": "generative_reward:n={n},k=1", "reward model": "best_of_n:n={n}", "plurality": "majority:n={n}"}
SCAFFOLDS = (
    "single",
    "generative_reward:n=4,k=1",
    "generative_reward:n=8,k=1",
    "stepwise_best_of_n:n=1",
    "stepwise_best_of_n:n=4",
    "self_refine:rounds=1",
    "self_refine:rounds=2",
    "self_refine:rounds=3",
    "plan_then_solve:n=1",
    "plan_then_solve:n=4",
)
POOL = 4
FILTER_SAMPLES, FILTER_MOST = 4, 2
"""A problem is hard if the solver gets at most so many of its samples right."""
CLEARLY = 0.05
"""A pool with an oracle cannot be worse than one sample, so the falsifier asks for more than chance: five points."""
RESAMPLES = 2000


def paid(outcome: Outcome) -> float:
    """Tokens generated, prompt tokens read for the first time, and what a reward model reads, every token once."""
    prompt = outcome.answer.usage.prompt_tokens or 0
    scored = [node["tokens"] for node in outcome.trace if node["score"] is not None]
    return tokens(outcome) + prompt + (prompt + sum(scored) if scored else 0)


def parts(outcomes: Sequence[Outcome]) -> dict[str, float]:
    """Mean tokens generated in reply to what was asked: the problem, or a skill."""
    found: dict[str, float] = {}
    for outcome in outcomes:
        asked: dict[str, str] = {}
        for node in outcome.trace:
            skill = node.get("skill")
            asked[node["key"]] = asked.get(node["parent"], Capability(skill).name.lower() if skill else "solve")
            found[asked[node["key"]]] = found.get(asked[node["key"]], 0.0) + node["tokens"] / len(outcomes)
    return found


def unreadable(outcomes: Sequence[Outcome]) -> float | None:
    """Share of judgements that did not give every answer a score; None without any."""
    valid = []
    for outcome in outcomes:
        shown = {node["key"]: len(node["about"]) for node in outcome.trace if node.get("skill") == Capability.JUDGE}
        for node in outcome.trace:
            if node["parent"] in shown:
                read = node["finish"] == "eos" and skills.scores(node["text"], shown[node["parent"]]) is not None
                valid.append(read)
    return 1 - fmean(valid) if valid else None


def lengths(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Tokens behind right and behind wrong answers; the difference also among problems of one level."""
    x, right = np.array([tokens(o) for o in outcomes]), np.array([o.correct for o in outcomes])
    levels = np.array([o.problem.metadata["level"] for o in outcomes])
    typical = {level: x[levels == level].mean() for level in set(levels.tolist())}
    same = x - np.array([typical[level] for level in levels.tolist()])
    if right.all() or not right.any():
        return {"right": mean_interval(list(x)).as_dict() if right.all() else None}
    return {
        "right": mean_interval(list(x[right])).as_dict(),
        "wrong": mean_interval(list(x[~right])).as_dict(),
        "right_minus_wrong": _groups(x, right),
        "right_minus_wrong_within_level": _groups(same, right),
    }


def _groups(x: np.ndarray, right: np.ndarray) -> dict[str, float]:
    """Difference of two groups' means, the interval from resampling each."""
    rng = np.random.default_rng(0)
    a, b = (side[rng.integers(0, len(side), (RESAMPLES, len(side)))].mean(1) for side in (x[right], x[~right]))
    low, high = np.percentile(a - b, [2.5, 97.5])
    return {"value": float(x[right].mean() - x[~right].mean()), "low": float(low), "high": float(high)}


def by_level(outcomes: Sequence[Outcome]) -> dict[str, dict[str, float]]:
    """Accuracy by level."""
    levels = sorted({o.problem.metadata["level"] for o in outcomes})
    of = {level: [float(o.correct) for o in outcomes if o.problem.metadata["level"] == level] for level in levels}
    return {str(level): mean_interval(values).as_dict() for level, values in of.items()}


def share(values: Sequence[bool]) -> dict[str, float]:
    """A mean with its interval."""
    return mean_interval([float(value) for value in values]).as_dict()


def sweep(outcomes: Mapping[str, Sequence[Outcome]], sizes: Sequence[int]) -> dict[str, Any]:
    """Selectors by size of the pool, the same samples for all; the oracle reads the reference: an upper bound."""
    single = [o.correct for o in outcomes["single"]]
    found: dict[str, Any] = {}
    for n in sizes:
        chosen = {name: [o.correct for o in outcomes[text.format(n=n)]] for name, text in SELECTORS.items()}
        chosen["oracle (upper bound)"] = [any(o.samples) for o in outcomes[f"majority:n={n}"]]
        found[str(n)] = {
            name: {"accuracy": share(right), "minus_single": _minus(right, single)} for name, right in chosen.items()
        }
        for better, worse in (
            ("oracle (upper bound)", "reward model"),
            ("reward model", "self"),
            ("self", "plurality"),
            ("oracle (upper bound)", "self"),
        ):
            found[str(n)][better][f"minus {worse}"] = _minus(chosen[better], chosen[worse])
    return found


def _minus(a: Sequence[bool], b: Sequence[bool]) -> dict[str, float]:
    return paired_difference([float(x) for x in a], [float(x) for x in b]).as_dict()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--problems", type=int, default=500)
    parser.add_argument("--bank", type=Path, default=Path("runs/experiments/skilled.db"))
    args = parser.parse_args()
    task, model = load("pocket", args.problems, seed=0), skilled()
    solver, scorer = models()
    pooled = [text.format(n=n) for n in SIZES for text in SELECTORS.values()]

    def run(labels: Sequence[str]) -> dict[str, list[Outcome]]:
        arms = [Arm(label, forgiving(label)) for label in labels]
        return run_arms(arms, task, model, scorer, args.bank, skills=skills.PROMPTS)

    outcomes = run(list(dict.fromkeys([*SCAFFOLDS, *pooled])))
    once = fmean(map(paid, outcomes["single"]))
    equal = {label: max(1, round(fmean(map(paid, found)) / once)) for label, found in outcomes.items()}
    outcomes |= run(sorted({f"majority:n={n}" for n in equal.values()} - set(outcomes)))
    filter_arm = Arm(f"the solver, {FILTER_SAMPLES} samples", parse(f"majority:n={FILTER_SAMPLES}")[1])
    filtered = run_arms([filter_arm], task, solver, scorer, args.bank, seed=1)[filter_arm.label]
    hard = [place for place, o in enumerate(filtered) if sum(o.samples) <= FILTER_MOST]
    rows = {}
    for label, found in outcomes.items():
        rows[label] = summary(found) | {
            "tokens": fmean(map(paid, found)),
            "minus_single": minus(found, outcomes["single"]),
            "by_level": by_level(found),
            "hard": share([found[place].correct for place in hard]) if hard else None,
            "tokens_by_part": parts(found),
            "tokens_of_right_and_wrong": lengths(found),
            "unreadable_judgements": unreadable(found),
        }
        if label in equal:
            peer = f"majority:n={equal[label]}"
            rows[label]["vote_of_equal_tokens"] = {
                "n": equal[label],
                "tokens": fmean(map(paid, outcomes[peer])),
                "minus_vote": minus(found, outcomes[peer]),
                "minus_vote_hard": minus([found[i] for i in hard], [outcomes[peer][i] for i in hard]) if hard else None,
            }
    swept = sweep(outcomes, SIZES)
    lines = verdict(rows, swept, len(hard))
    result = {"hard_problems": len(hard), "arms": rows, "selectors": swept, "verdict": lines}
    write(HERE, 0, task, result)
    plot(rows, swept, HERE / "plot.png")
    print("\n".join(lines))


def verdict(rows: Mapping[str, Any], swept: Mapping[str, Any], hard: int) -> list[str]:
    """Against the card: a pool that an oracle cannot make clearly better than one sample."""
    pool = swept[str(POOL)]
    oracle = pool["oracle (upper bound)"]
    holds = oracle["minus_single"]["low"] > CLEARLY
    lines = [
        f"{'holds' if holds else 'falsified: the sampler lacks diversity'}: with an oracle (upper bound) a pool of "
        f"{POOL} is {points(oracle['minus_single'])} points over one sample",
        f"pool of {POOL}: oracle minus reward model {points(oracle['minus reward model'])}, "
        f"reward model minus self {points(pool['reward model']['minus self'])}, "
        f"self minus plurality {points(pool['self']['minus plurality'])}",
        f"hard problems: {hard}",
    ]
    for label, row in rows.items():
        if label != "single" and not label.startswith("majority"):
            peer = row["vote_of_equal_tokens"]
            lines.append(
                f"{label}: {points(row['minus_single'])} over one sample, {points(peer['minus_vote'])} over "
                f"a vote of {peer['n']}, at {row['tokens']:,.0f} tokens"
            )
    return lines


if __name__ == "__main__":
    main()
