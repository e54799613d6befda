"""Row 08, its search half: do harder problems want another search (Snell et al. 2024, arXiv 2408.03314)?

    python -m experiments.compute_optimal.run        # 500 problems; half an hour on two idle cores

Controls: beam search with random numbers for rewards, and the weighted vote that costs as much: for a search by
operations of solver and reward model, for a policy that predicts by the 16 samples that it looks at first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from experiments.harness import Experiment, arm, correct, minus, options, summary, vote_of_equal_cost
from experiments.intervals import as_points, difference, mean
from experiments.plot import COLOURS, bars, panels, save
from thinktime.bench.controls import Scrambled
from thinktime.bench.runner import Outcome
from thinktime.planning.difficulty import BINS, binned, cross_validated

HERE = Path(__file__).parent
SIZES = (4, 8, 16, 32)
METHODS = {
    "vote": "weighted_majority:n={n}",
    "beam": "beam_search:n={n},width=4",
    "beam of 2": "beam_search:n={n},width=2",
    "lookahead 1": "beam_search:n={n},width=4,lookahead=1",
}
EXTRA = ("beam_search:n=16,width=4,lookahead=3",)
"""The longest lookahead. A width of the root of n is 2 at 4 and 8, and 4 at 16 and 32: these are there."""
GUIDED = "beam_search:n=16,width=4"
RANDOM = f"random rewards, {GUIDED}"
SAMPLES = 16
"""Samples of a problem from which its difficulty is taken."""


def label_of(name: str, n: int) -> str:
    """A method at a size, as it is typed."""
    return METHODS[name].format(n=n)


def last_rewards(found: Sequence[Outcome]) -> list[float]:
    """Mean reward of a problem's complete samples: its difficulty as it can be known without labels."""
    means = []
    for outcome in found:
        scores = [n["score"] for n in outcome.trace if n["finish"] == "eos" and n["score"] is not None]
        means.append(fmean(scores) if scores else 0.0)
    return means


def main() -> None:
    experiment = Experiment(HERE, options(__doc__).parse_args())
    labels = [label_of(name, n) for n in SIZES for name in METHODS if name != "lookahead 1" or n < 32]
    random = replace(arm(GUIDED), label=RANDOM, scorer=Scrambled(experiment.scorer))
    outcomes = experiment.run([*labels, *EXTRA, random])
    largest = label_of("vote", SIZES[-1])
    equals = {
        label: vote_of_equal_cost(found, outcomes[largest], SIZES[-1])
        for label, found in outcomes.items()
        if "beam" in label
    }
    charged = {n: label_of("vote", n + SAMPLES) for n in SIZES}
    voted = outcomes | experiment.run(sorted({*equals.values(), *charged.values()} - set(outcomes)))
    other = label_of("vote", SAMPLES)
    sampled = experiment.run([other], seed=1)[other]
    rates = pass_rates(sampled)
    difficulty = {"oracle": binned(rates), "predicted": binned(last_rewards(sampled))}
    right = {label: list(map(correct, found)) for label, found in voted.items()}
    members = members_of(difficulty["oracle"])
    by_bin, of_2_by_bin = (
        {str(n): [minus_vote(name, n, right, some) for some in members] for n in SIZES}
        for name in ("beam", "beam of 2")
    )
    policies = {}
    for source, bins in difficulty.items():
        for n in SIZES:
            choice = {label: right[label] for label in labels if f"n={n}" in label.split(",")[0]}
            gained, picks = cross_validated(choice, bins)
            best = max(choice, key=lambda label: fmean(choice[label]))
            gain = difference(gained, choice[best])
            policy = {"accuracy": mean(gained), "best_single": best, "minus_best_single": gain, "picks": picks}
            if source == "predicted":
                policy["vote_of_equal_cost"] = charged[n]
                policy["minus_vote_of_equal_cost"] = difference(gained, right[charged[n]])
            policies[f"{source}, n={n}"] = policy
    without = {label: label.partition(",lookahead")[0] for label in outcomes if "lookahead" in label}
    look = {label: minus(outcomes[label], outcomes[shorter]) for label, shorter in without.items()}
    rows: dict[str, dict[str, Any]] = {label: summary(found) for label, found in voted.items()}
    for label, vote in equals.items():
        rows[label]["vote_of_equal_cost"] = vote
        rows[label]["minus_vote_of_equal_cost"] = minus(outcomes[label], voted[vote])
    rows[GUIDED]["minus_random_rewards"] = minus(outcomes[GUIDED], outcomes[RANDOM])
    of_2 = {str(n): minus(outcomes[label_of("beam of 2", n)], outcomes[label_of("vote", n)]) for n in SIZES}
    lines = verdict(by_bin, policies, look, rows)
    lines += [f"beam of 2 minus vote, n={n}: {as_points(gain)}" for n, gain in of_2.items()]
    pass_at_1 = [fmean(rates[place] for place in some) for some in members]
    plot({4: by_bin, 2: of_2_by_bin}, pass_at_1, experiment.out)
    result = {"arms": rows, "pass_at_1_by_bin": pass_at_1, "beam_minus_vote_by_bin": by_bin, "policies": policies}
    result |= {"beam_of_2_minus_vote": of_2, "beam_of_2_minus_vote_by_bin": of_2_by_bin, "lookahead_minus_beam": look}
    experiment.finish(result, lines)


def pass_rates(sampled: Sequence[Outcome]) -> list[float]:
    """Share of right samples of every problem."""
    return [fmean(outcome.samples) if outcome.samples else 0.0 for outcome in sampled]


def members_of(bins: Sequence[int]) -> list[list[int]]:
    """The places of the problems of every bin."""
    return [[place for place, mine in enumerate(bins) if mine == number] for number in range(BINS)]


def minus_vote(name: str, n: int, right: Mapping[str, Sequence[float]], places: Sequence[int]) -> dict[str, float]:
    """A beam search minus the weighted vote, on the problems at these places."""
    beam, vote = right[label_of(name, n)], right[label_of("vote", n)]
    return difference([beam[i] for i in places], [vote[i] for i in places])


def verdict(
    by_bin: Mapping[str, Any], policies: Mapping[str, Any], look: Mapping[str, Any], rows: Mapping[str, Any]
) -> list[str]:
    """Against the card: a policy by bins that is no better than the best arm for all, on held-out problems."""
    lines = []
    for name, policy in policies.items():
        gain = policy["minus_best_single"]
        lines.append(f"{name}: {as_points(gain)} points over {policy['best_single']} for all")
        if "vote_of_equal_cost" in policy:
            lost = policy["minus_vote_of_equal_cost"]
            lines.append(
                f"{name}, its {SAMPLES} samples charged: {as_points(lost)} over {policy['vote_of_equal_cost']}"
            )
    better = any(policy["minus_best_single"]["low"] > 0 for policy in policies.values())
    lines.append("holds" if better else "falsified: no gain from choosing by difficulty on this task")
    for n, bins in by_bin.items():
        lines.append(f"beam minus vote, n={n}, easiest to hardest: " + "; ".join(map(as_points, bins)))
    lines += [f"{label} minus no lookahead: {as_points(gain)}" for label, gain in look.items()]
    for label, row in rows.items():
        if "vote_of_equal_cost" in row:
            lines.append(f"{label} minus {row['vote_of_equal_cost']}: {as_points(row['minus_vote_of_equal_cost'])}")
        if "minus_random_rewards" in row:
            lines.append(f"{label} minus the same with random rewards: {as_points(row['minus_random_rewards'])}")
    return lines


def plot(by_width: Mapping[int, Mapping[str, Any]], pass_at_1: Sequence[float], out: Path) -> None:
    """Beam search minus the vote, bin by bin, a panel for each width."""
    figure, both = panels(len(by_width), 12, 4.2, sharey=True)
    for axes, (width, by_bin) in zip(both, by_width.items(), strict=True):
        thick = 0.8 / len(by_bin)
        for place, (n, bins) in enumerate(by_bin.items()):
            x = np.arange(BINS) + (place - (len(by_bin) - 1) / 2) * thick
            y, whiskers = bars(bins)
            axes.bar(x, y, thick * 0.9, yerr=whiskers, color=COLOURS[place + 1], label=f"n = {n}", error_kw={"lw": 0.7})
        axes.axhline(0, color="#555555", lw=0.8)
        axes.set_xticks(range(BINS), [f"{100 * rate:.0f}%" for rate in pass_at_1])
        axes.set_xlabel("bins of problems by the solver's own success: mean share of right samples")
        axes.set_title(f"width {width}: n/{width} steps are kept")
    both[0].set_ylabel("beam search minus weighted vote, points")
    both[0].legend(fontsize=8, loc="upper left")
    save(figure, out / "plot.png")


if __name__ == "__main__":
    main()
