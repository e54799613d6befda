"""Row 51: ways to spend tokens around one model, side by side (Wu et al. 2024, arXiv 2410.13639).

    python -m experiments.o1_patterns.run        # 500 problems

Of the paper's three families of tasks there is one here, word problems; constrained writing and programs have no model
and no checker in this repository, so what the paper says of free against fixed formats is not tested. The filter of
hard items wants four different models; four samples of the shipped solver, which is no part of the comparison, stand in
for them. Patterns (`patterns.py`) are not counted: the skilled model writes in a fixed format, its traces show none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from experiments.harness import (
    SKILLED_BANK,
    Experiment,
    by_level,
    correct,
    language_model,
    minus,
    options,
    replies,
    run_arms,
    skilled,
    summary,
    tokens,
)
from experiments.intervals import as_points, difference, mean, unpaired_difference
from experiments.plot import COLOURS, line, logarithmic, panels, save
from thinktime.bench.runner import Outcome
from thinktime.pocket import prompts

HERE = Path(__file__).parent
LABELS = {
    "single": "direct",
    "generative_reward": "best of n, own judgement",
    "stepwise_best_of_n": "step-wise best of n",
    "self_refine": "self-refine",
    "plan_then_solve": "plan, then solve",
    "best_of_n": "best of n, reward model",
}
SHAPES = "os^Dvp"
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


def paid_tokens(outcome: Outcome) -> float:
    """Tokens generated, prompt tokens read for the first time, and what a reward model reads, every token once."""
    prompt = outcome.answer.usage.prompt_tokens or 0
    scored = [node["tokens"] for node in outcome.trace if node["score"] is not None]
    return tokens(outcome) + prompt + (prompt + sum(scored) if scored else 0)


def parts(outcomes: Sequence[Outcome]) -> dict[str, float]:
    """Mean generated tokens by question: the problem, or the name of a prompt."""
    found: dict[str, float] = {}
    for outcome in outcomes:
        asked: dict[str, str] = {}
        for node in outcome.trace:
            part = asked[node["key"]] = asked.get(node["parent"], node.get("prompt", "solve"))
            found[part] = found.get(part, 0.0) + node["tokens"] / len(outcomes)
    return found


def unreadable(outcomes: Sequence[Outcome]) -> float | None:
    """Share of judgements that did not give every answer a score; None without any."""
    valid = [
        reply["finish"] == "eos" and prompts.scores(reply["text"], len(asked["about"])) is not None
        for outcome in outcomes
        for asked, reply in replies(outcome, "judge")
    ]
    return 1 - fmean(valid) if valid else None


def lengths(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Tokens behind right and behind wrong answers; the difference also among problems of one level."""
    x, right = np.array([tokens(o) for o in outcomes]), np.array([o.correct for o in outcomes])
    levels = np.array([o.problem.metadata["level"] for o in outcomes])
    typical = {level: x[levels == level].mean() for level in set(levels.tolist())}
    same = x - np.array([typical[level] for level in levels.tolist()])
    if right.all() or not right.any():
        return {"right": mean(x) if right.all() else None}
    return {
        "right": mean(x[right]),
        "wrong": mean(x[~right]),
        "right_minus_wrong": unpaired_difference(x[right], x[~right], resamples=RESAMPLES),
        "right_minus_wrong_within_level": unpaired_difference(same[right], same[~right], resamples=RESAMPLES),
    }


def sweep(outcomes: Mapping[str, Sequence[Outcome]], sizes: Sequence[int]) -> dict[str, Any]:
    """Selectors by size of the pool, the same samples for all; the oracle reads the reference: an upper bound."""
    single = [o.correct for o in outcomes["single"]]
    found: dict[str, Any] = {}
    for n in sizes:
        chosen = {name: [o.correct for o in outcomes[text.format(n=n)]] for name, text in SELECTORS.items()}
        chosen["oracle (upper bound)"] = [any(o.samples) for o in outcomes[f"majority:n={n}"]]
        found[str(n)] = {
            name: {"accuracy": mean(right), "minus_single": difference(right, single)} for name, right in chosen.items()
        }
        for better, worse in (
            ("oracle (upper bound)", "reward model"),
            ("reward model", "self"),
            ("self", "plurality"),
            ("oracle (upper bound)", "self"),
        ):
            found[str(n)][better][f"minus {worse}"] = difference(chosen[better], chosen[worse])
    return found


def main() -> None:
    experiment = Experiment(HERE, options(__doc__, bank=SKILLED_BANK).parse_args(), skilled())
    pooled = [text.format(n=n) for n in SIZES for text in SELECTORS.values()]
    outcomes = experiment.run(dict.fromkeys([*SCAFFOLDS, *pooled]))
    paid = {label: fmean(map(paid_tokens, found)) for label, found in outcomes.items()}
    equal = {label: max(1, round(cost / paid["single"])) for label, cost in paid.items()}
    votes = experiment.run(sorted({f"majority:n={n}" for n in equal.values()} - set(outcomes)))
    outcomes |= votes
    paid |= {label: fmean(map(paid_tokens, found)) for label, found in votes.items()}
    filtering = f"majority:n={FILTER_SAMPLES}"
    others = run_arms([filtering], experiment.task, language_model(), experiment.scorer, experiment.bank, seed=1)
    hard = [place for place, o in enumerate(others[filtering]) if sum(o.samples) <= FILTER_MOST]
    rows: dict[str, Any] = {}
    for label, found in outcomes.items():
        of_hard = [found[place] for place in hard]
        rows[label] = summary(found) | {
            "tokens": paid[label],
            "minus_single": minus(found, outcomes["single"]),
            "by_level": {level: mean(map(correct, some)) for level, some in by_level(found).items()},
            "hard": mean(map(correct, of_hard)) if hard else None,
            "tokens_by_part": parts(found),
            "tokens_of_right_and_wrong": lengths(found),
            "unreadable_judgements": unreadable(found),
        }
        if label in equal:
            vote = f"majority:n={equal[label]}"
            rows[label]["vote_of_equal_tokens"] = {
                "n": equal[label],
                "tokens": paid[vote],
                "minus_vote": minus(found, outcomes[vote]),
                "minus_vote_hard": minus(of_hard, [outcomes[vote][i] for i in hard]) if hard else None,
            }
    swept = sweep(outcomes, SIZES)
    plot(rows, swept, experiment.out / "plot.png")
    result = {"hard_problems": len(hard), "arms": rows, "selectors": swept}
    experiment.finish(result, verdict(rows, swept, len(hard)))


def verdict(rows: Mapping[str, Any], swept: Mapping[str, Any], hard: int) -> list[str]:
    """Against the card: a pool that an oracle cannot make clearly better than one sample."""
    pool = swept[str(POOL)]
    oracle = pool["oracle (upper bound)"]
    holds = oracle["minus_single"]["low"] > CLEARLY
    lines = [
        f"{'holds' if holds else 'falsified: the sampler lacks diversity'}: with an oracle (upper bound) a pool of "
        f"{POOL} is {as_points(oracle['minus_single'])} points over one sample",
        f"pool of {POOL}: oracle minus reward model {as_points(oracle['minus reward model'])}, "
        f"reward model minus self {as_points(pool['reward model']['minus self'])}, "
        f"self minus plurality {as_points(pool['self']['minus plurality'])}",
        f"hard problems: {hard}",
    ]
    for label, row in rows.items():
        if label != "single" and not label.startswith("majority"):
            peer = row["vote_of_equal_tokens"]
            lines.append(
                f"{label}: {as_points(row['minus_single'])} over one sample, {as_points(peer['minus_vote'])} over "
                f"a vote of {peer['n']}, at {row['tokens']:,.0f} tokens"
            )
    return lines


def plot(rows: Mapping[str, Mapping[str, Any]], swept: Mapping[str, Any], path: Path) -> None:
    """Tokens are those generated and those read, by a reward model too."""
    figure, (left, right) = panels(2, 12, 4.8)
    votes = sorted((row for label, row in rows.items() if label.startswith("majority")), key=lambda r: r["tokens"])
    line(left, [r["tokens"] for r in votes], [r["accuracy"] for r in votes], 0, "vote", ".-")
    for place, (name, label) in enumerate(LABELS.items()):
        mine = [row for key, row in rows.items() if key.partition(":")[0] == name]
        colour = 1 + place % (len(COLOURS) - 1)
        line(left, [r["tokens"] for r in mine], [r["accuracy"] for r in mine], colour, label, SHAPES[place])
    logarithmic(left, "tokens a problem: generated, and read once")
    left.set_ylabel("right answers, %")
    sizes = [1, *map(int, swept)]
    for place, name in enumerate(next(iter(swept.values()))):
        estimates = [rows["single"]["accuracy"], *(of[name]["accuracy"] for of in swept.values())]
        x = [n * 1.03 ** (place - 1.5) for n in sizes]  # whiskers side by side
        line(right, x, estimates, 1 + place, name, "o--" if "upper bound" in name else "o-")
    logarithmic(right, "samples in the pool")
    right.set_xticks(sizes, [str(n) for n in sizes])
    for axes in (left, right):
        axes.legend(fontsize=8, loc="upper left")
    save(figure, path)


if __name__ == "__main__":
    main()
