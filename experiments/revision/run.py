"""Row 08, its revision half: one answer after another, or side by side (Snell et al. 2024, arXiv 2408.03314)?

    python -m experiments.revision.run        # 500 problems; half an hour on two idle cores

Sixteen answers of the skilled model, as chains side by side times answers in a chain. The reward model chooses within a
chain, then among the winners of the chains, or a vote over all does.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from typing import Any, ClassVar

import numpy as np

from experiments.compute_optimal.run import members_of
from experiments.harness import Arm, Experiment, correct, minus, options, reward_model, skilled, summary
from experiments.intervals import Estimate, areas, as_percent, as_points, difference, mean, share
from experiments.plot import COLOURS, line, panels, save
from thinktime.bench.runner import Outcome
from thinktime.bench.tasks import Task
from thinktime.core.search import Search
from thinktime.core.trace import Answer
from thinktime.planning.difficulty import BINS, binned, cross_validated
from thinktime.strategies.revision.revision import Revision

HERE = Path(__file__).parent
N = 16
CHAINS = (16, 8, 4, 2, 1)
SELECTORS = ("verifier", "majority")
REFERENCES = ("single", "majority:n=16", "weighted_majority:n=16")
FOUR, ONE = 4, 1
"""Numbers of chains: where steps are measured most often over three revisions, and where there are most of them."""
RISES = 3
WARNING = (
    "the reward model was trained on first answers of the solver, not on revisions: its scores of them are outside of "
    "what it knows (see reward_model_by_step)"
)


@dataclass(frozen=True)
class Attempt:
    """One answer of a chain; it has a score where the reward model chooses."""

    answer: str | None
    right: bool
    score: float | None


@dataclass
class Noted:
    """A revision whose chains are noted, problem by problem."""

    strategy: Revision
    task: Task
    found: dict[str, list[list[Attempt]]] = field(default_factory=dict)
    needs: ClassVar[frozenset[str]] = Revision.needs

    async def __call__(self, search: Search) -> Answer:
        """The strategy's answer."""
        answer = await self.strategy(search)
        (keys,) = [event["chains"] for event in search.events if "chains" in event]
        self.found[search.problem.id] = [[self._attempt(search, key) for key in chain] for chain in keys]
        return answer

    def _attempt(self, search: Search, key: str) -> Attempt:
        record = search.trace[key]
        text = self.task.answers.read(record.node.state) if record.node.done else None
        return Attempt(text, self.task.check(text, search.problem.reference), record.score)

    def chains(self) -> list[list[list[Attempt]]]:
        """In the order of the problems."""
        return [self.found[problem.id] for problem in self.task.problems]


def label_of(chains: int, select: str) -> str:
    """As on the command line."""
    return f"revision:n={N},chains={chains},select={select}"


def by_step(chains: Sequence[Sequence[Sequence[Attempt]]]) -> dict[str, Any]:
    """Success at every step, what it gains, and what a revision turns: shares of right and of wrong answers before."""
    length = max(len(chain) for problem in chains for chain in problem)
    rates = [[fmean(c[step].right for c in problem if len(c) > step) for problem in chains] for step in range(length)]
    pairs = [[[(c[s], c[s + 1]) for c in problem if len(c) > s + 1] for problem in chains] for s in range(length - 1)]
    return {
        "pass_at_1": list(map(mean, rates)),
        "minus_first": [difference(values, rates[0]) for values in rates[1:]],
        "minus_one_before": [difference(b, a) for a, b in pairwise(rates)],
        "right_to_wrong": [turned(of_step, right=True) for of_step in pairs],
        "wrong_to_right": [turned(of_step, right=False) for of_step in pairs],
        "same_answer": [fmean(a.answer == b.answer for problem in of_step for a, b in problem) for of_step in pairs],
    }


def turned(pairs: Sequence[Sequence[tuple[Attempt, Attempt]]], *, right: bool) -> Estimate | None:
    """Share of the right (or wrong) answers that the next one is not; None where there are none."""
    before = [float(sum(a.right == right for a, _ in problem)) for problem in pairs]
    after = [float(sum(a.right == right != b.right for a, b in problem)) for problem in pairs]
    return share(after, before)


def areas_by_step(chains: Sequence[Sequence[Sequence[Attempt]]]) -> list[dict[str, float | None]]:
    """How well the reward model tells right from wrong answers at every step: over all, and within problems."""
    rows = []
    for step in range(max(len(chain) for problem in chains for chain in problem)):
        attempts = [[c[step] for c in problem if len(c) > step and c[step].score is not None] for problem in chains]
        scores = [[attempt.score or 0.0 for attempt in problem] for problem in attempts]
        pooled, within = areas(scores, [[attempt.right for attempt in problem] for problem in attempts])
        rows.append({"auc": pooled, "auc_within": fmean(within) if within else None})
    return rows


def bin_rows(outcomes: Mapping[str, Sequence[Outcome]], bins: Sequence[int], rates: Sequence[float]) -> list[Any]:
    """Accuracy of every split in every bin, and all sequential minus all parallel."""
    rows = []
    for members in members_of(bins):
        mine = [rates[place] for place in members]
        row: dict[str, Any] = {"pass_at_1": fmean(mine), "from": min(mine), "to": max(mine), "n_problems": len(mine)}
        for select in SELECTORS:
            right = {c: [correct(outcomes[label_of(c, select)][place]) for place in members] for c in CHAINS}
            row[select] = {
                "accuracy": {str(c): mean(values) for c, values in right.items()},
                "sequential_minus_parallel": difference(right[1], right[N]),
            }
        rows.append(row)
    return rows


def policies(outcomes: Mapping[str, Sequence[Outcome]], bins: Sequence[int]) -> dict[str, Any]:
    """A policy that picks each bin's best split on the other half, against the best split for all."""
    rows = {}
    for select in SELECTORS:
        right = {str(c): list(map(correct, outcomes[label_of(c, select)])) for c in CHAINS}
        gained, picks = cross_validated(right, bins)
        best = max(right, key=lambda chains: fmean(right[chains]))
        gain = difference(gained, right[best])
        rows[select] = {"accuracy": mean(gained), "best_for_all": best, "minus_best_for_all": gain, "picks": picks}
    return rows


def preference(bins: Sequence[int], outcomes: Mapping[str, Sequence[Outcome]], select: str) -> dict[str, Any]:
    """All sequential minus all parallel in the two easiest and in the two hardest bins."""
    a, b = outcomes[label_of(1, select)], outcomes[label_of(N, select)]
    members = members_of(bins)
    sides = {"easy": sorted(members[0] + members[1]), "hard": sorted(members[-2] + members[-1])}
    return {side: minus([a[i] for i in places], [b[i] for i in places]) for side, places in sides.items()}


def main() -> None:
    args = options(__doc__).parse_args()
    if args.problems < 4 * BINS:
        sys.exit(f"problems={args.problems}: a half of a bin has fewer than 2; give {4 * BINS} or more")
    print(f"warning: {WARNING}", file=sys.stderr)
    experiment = Experiment(HERE, args, skilled(), reward_model(dtype="float32"))
    splits = [Revision(n=N, chains=c, select=select) for c in CHAINS for select in SELECTORS]
    noted = {label_of(split.chains, split.select): Noted(split, experiment.task) for split in splits}
    outcomes = experiment.run([*(Arm(label, strategy) for label, strategy in noted.items()), *REFERENCES])
    other = Noted(Revision(n=N, chains=N, select="majority"), experiment.task)
    experiment.run([Arm("16 other first answers", other)], seed=1)
    rates = [fmean(chain[0].right for chain in problem) for problem in other.chains()]
    bins = binned(rates)
    references = {}
    for label, revision in noted.items():
        peers = (*REFERENCES[1:], label_of(N, revision.strategy.select))
        references[label] = {peer: minus(outcomes[label], outcomes[peer]) for peer in peers if peer != label}
    result = {
        "warning": WARNING,
        "arms": {label: summary(found) for label, found in outcomes.items()},
        "minus_references": references,
        "steps_by_chains": {str(c): by_step(noted[label_of(c, "verifier")].chains()) for c in CHAINS if c < N},
        "reward_model_by_step": areas_by_step(noted[label_of(FOUR, "verifier")].chains()),
        "bins": bin_rows(outcomes, bins, rates),
        "sequential_minus_parallel": {select: preference(bins, outcomes, select) for select in SELECTORS},
        "policies": policies(outcomes, bins),
    }
    plot(result, experiment.out)
    experiment.finish(result, verdict(result))


def verdict(result: Mapping[str, Any]) -> list[str]:
    """Against the card: success over three revisions, right answers turned wrong, and the preference of easy bins."""
    steps = result["steps_by_chains"][str(FOUR)]
    rises = [gain["value"] > 0 for gain in steps["minus_one_before"][:RISES]]
    holds = all(rises) and steps["minus_first"][RISES - 1]["low"] > 0
    one = result["steps_by_chains"][str(ONE)]
    lines = [
        f"success rises over {RISES} revisions: {'holds' if holds else 'falsified'}: against the first answer "
        + "; ".join(map(as_points, steps["minus_first"])),
        "success by step of one long chain, %: " + " ".join(f"{100 * rate['value']:.1f}" for rate in one["pass_at_1"]),
        "right answers turned wrong, by step: " + " ".join(map(percent, steps["right_to_wrong"])),
        "wrong answers turned right, by step: " + " ".join(map(percent, steps["wrong_to_right"])),
    ]
    for select, sides in result["sequential_minus_parallel"].items():
        easy = sides["easy"]
        preferred = "holds" if easy["low"] > 0 else "falsified" if easy["high"] < 0 else "not decided"
        lines.append(
            f"easy bins prefer sequential, {select}: {preferred}: all sequential minus all parallel "
            f"{as_points(easy)} in the two easiest bins, {as_points(sides['hard'])} in the two hardest"
        )
    for select, policy in result["policies"].items():
        gain = as_points(policy["minus_best_for_all"])
        lines.append(f"a split for each bin, {select}: {gain} against {policy['best_for_all']} chains for all")
    inside = [row["auc_within"] for row in result["reward_model_by_step"]]
    known = ["none" if area is None else f"{area:.3f}" for area in inside]
    lines.append("the reward model's AUC within problems, by step: " + " ".join(known))
    for chains in CHAINS:
        usage = result["arms"][label_of(chains, "verifier")]["usage"]
        lines.append(
            f"{chains} chains of {N // chains}: {usage['generated_tokens']:,.0f} tokens generated, "
            f"{usage['prompt_tokens']:,.0f} of prompts newly read, {usage['flops'] / 1e9:.2f} GFLOPs, "
            f"and {usage['scorer_flops'] / 1e9:.2f} of the reward model"
        )
    for label, row in result["minus_references"].items():
        lines.append(f"{label} minus " + "; ".join(f"{peer}: {as_points(gain)}" for peer, gain in row.items()))
    return lines


def percent(estimate: Estimate | None) -> str:
    """A share with its interval, or none."""
    return "none" if estimate is None else as_percent(estimate).replace(" ", "% ", 1)


def plot(result: Mapping[str, Any], out: Path) -> None:
    """Success along a chain and what revisions turn; accuracy by split, for all and bin by bin."""
    figure, (left, middle, right) = panels(3, 14, 4.4)
    for place, (chains, steps) in enumerate(reversed(result["steps_by_chains"].items())):
        x = np.arange(1, len(steps["pass_at_1"]) + 1) + 0.08 * (place - 1.5)
        label = f"{chains} chains of {N // int(chains)}" if int(chains) > 1 else f"one chain of {N}"
        line(left, x, steps["pass_at_1"], place, label)
    left.set(xlabel="answer in the chain; the first is no revision", ylabel="right answers, %")
    places = range(len(CHAINS))
    for place, select in enumerate(SELECTORS):
        line(middle, places, [result["arms"][label_of(c, select)]["accuracy"] for c in CHAINS], place + 1, select)
        reference = REFERENCES[2 - place]
        name = reference.partition(":")[0].replace("_", " ")
        height = 100 * result["arms"][reference]["accuracy"]["value"]
        middle.axhline(height, ls="--", lw=1, color=COLOURS[place + 1], label=f"{name} of {N} ordinary samples")
    middle.set_ylabel("right answers, %")
    for number, row in enumerate(result["bins"]):
        accuracies = [row["verifier"]["accuracy"][str(c)] for c in CHAINS]
        line(right, places, accuracies, number, f"{100 * row['pass_at_1']:.0f}%")
    right.set_ylabel("right answers, % (verifier)")
    for axes in (middle, right):
        axes.set_xticks(places, [f"{c} x {N // c}" for c in CHAINS])
        axes.set_xlabel("chains x answers in a chain")
    for axes in (left, middle, right):
        title = "bins by success of other first answers" if axes is right else None
        axes.legend(fontsize=7, title=title, title_fontsize=7)
    save(figure, out / "plot.png")


if __name__ == "__main__":
    main()
