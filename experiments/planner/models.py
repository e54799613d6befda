"""Which model, and how much? Calibrations over Qwen2.5-Coder 0.5B and 1.5B, within budgets of FLOPs.

    python -m experiments.planner.models

The samples are programs for GSM8K of both models, in `experiments/kinetics/sizes.json.gz`, so this needs no model. The
strategies are votes of either model, and cascades of both. FLOPs are those of the law in `thinktime.planning.kinetics`,
the prompts among them. A calibration is made on four folds of the problems, and judged on the fifth, for several random
orders of the samples. Policies by difficulty may draw first samples of either model, and choose either model in each
bin; the first samples are charged. Writes ``models.json`` and ``models.png``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from random import Random
from statistics import fmean
from typing import Any

import numpy as np

from experiments.cascade.replay import SETTINGS, agreement
from experiments.intervals import as_number, as_percent, as_points, difference, mean, ratio
from experiments.kinetics.frontier import flops_of
from experiments.kinetics.sizes import Run, common, runs
from experiments.planner.banks import by_name, signals
from experiments.planner.run import FOLDS, ORDERS, Floats, fixed, folds, highest, on
from experiments.plot import COLOURS, line, panels, save
from experiments.pools import likelihood
from experiments.provenance import begin, write_json
from thinktime.bench.samples import Sample
from thinktime.bench.selectors import candidates
from thinktime.core.types import MAIN
from thinktime.core.usage import Budget
from thinktime.planning.arms import Arm, begins_with
from thinktime.planning.bins import MOST, is_plain
from thinktime.planning.calibration import Advice, Calibration
from thinktime.planning.kinetics import kinetics
from thinktime.strategies.options import DRAFT

HERE = Path(__file__).parent
SMALL, LARGE = "0.5B", "1.5B"
SIZES = (2, 3, 4, 6, 8)
BUDGETS = (1.1, 2, 3, 4, 5, 7, 10)
"""In multiples of the FLOPs of one sample of the small model."""
BOTH, WITHOUT_CASCADE, ONE = "planner", "planner, no cascade", "one for all"
ALWAYS, EQUAL_SHARES = "by difficulty, always", "by difficulty, equal shares alone"
"""Policies that are followed even if the folds of the calibration do not show that they are better."""
Choice = Callable[[Calibration, Budget], Advice]


def followed(calibration: Calibration, budget: Budget) -> Advice:
    """The policy by difficulty of the largest budget within this one, whether or not it is better across folds."""
    limit = budget.flops or 0.0
    found = max((p for p in calibration.policies if p.budget <= limit), key=lambda p: p.budget, default=None)
    return replace(calibration.one(budget), policy=found)


def of_model(role: str) -> Choice:
    """The planner with the arms of one model."""

    def choose(calibration: Calibration, budget: Budget) -> Advice:
        arms = (arm for arm in calibration.arms if arm.model == role and "cascade" not in arm.strategy)
        return replace(calibration, arms=tuple(arms)).one(budget)

    return choose


def without_cascade(calibration: Calibration, budget: Budget) -> Advice:
    """The planner with votes of both models."""
    return replace(calibration, arms=tuple(a for a in calibration.arms if "cascade" not in a.strategy)).one(budget)


CHOICES: Mapping[str, Choice] = {
    BOTH: Calibration.choose,
    ONE: Calibration.one,
    ALWAYS: followed,
    EQUAL_SHARES: followed,
    WITHOUT_CASCADE: without_cascade,
    f"planner, {SMALL} alone": of_model(DRAFT),
    f"planner, {LARGE} alone": of_model(MAIN),
    "best point": fixed(highest),
    "spend it all": fixed(lambda arms: arms[-1]),
    "random": fixed(lambda arms: Random(str(arms[0].tokens)).choice(arms)),
}


class Samples:
    """The samples of a model in a random order, and what they cost.

    Args:
        run: the model with its problems.
        order: the number of the random order.
    """

    def __init__(self, run: Run, order: int) -> None:
        self._run = run
        self.each = [Random(f"{order}/{p.id}").sample(p.samples[: run.samples], run.samples) for p in run.problems]

    def flops(self, place: int, n: int) -> float:
        """FLOPs of the first ``n`` samples of a problem; the prompt is read once."""
        prompt = self._run.prompts[self._run.problems[place].id]
        costs = [kinetics(self._run.shape, 1, prompt, sample.length) for sample in self.each[place][:n]]
        return flops_of(costs[0]) + sum(cost.flops for cost in costs[1:])

    def vote(self, place: int, n: int) -> tuple[bool, float]:
        """Whether a vote of the first ``n`` samples is right, and the share that agrees with it."""
        chosen, agreed = agreement(candidates(self.each[place][:n], likelihood))
        return chosen is not None and chosen.key in self._run.problems[place].right, agreed

    def rate(self, place: int) -> float:
        """Pass@1 of a problem over all of its samples."""
        return fmean(float(sample.correct) for sample in self.each[place])

    def tokens(self, place: int, n: int) -> int:
        """Generated tokens of the first ``n`` samples of a problem."""
        return sum(sample.length for sample in self.each[place][:n])


def calibration_of(small: Run, large: Run, order: int) -> tuple[Calibration, dict[str, Floats]]:
    """Votes of both models and cascades of both; and the FLOPs of each arm on each problem."""
    models = {DRAFT: Samples(small, order), MAIN: Samples(large, order)}
    places = range(len(large.problems))
    arms, flops = [], dict[str, Floats]()

    def add(
        strategy: str, rows: Sequence[tuple[float, float, float]], seen: Sequence[tuple[float, float]] = ()
    ) -> None:
        right, tokens, spent = zip(*rows, strict=True)
        flops[strategy] = np.array(spent)
        usage = {"flops": fmean(spent), "scorer_flops": 0.0, "judge_tokens": 0.0}
        arms.append(Arm(strategy, right, tokens, usage, None, {"total": len(right)}, by_name(seen)))

    for role, run in ((DRAFT, small), (MAIN, large)):
        own = models[role]
        for n in (1, *(size for size in SIZES if size <= run.samples)):
            text = "single" if n == 1 else f"majority:n={n}"
            rows = [(float(own.vote(p, n)[0]), float(own.tokens(p, n)), own.flops(p, n)) for p in places]
            seen = [signals(own.each[p][:n]) for p in places] if n <= MOST else ()
            add(text if role == MAIN else f"delegate({text})", rows, seen)
    for n, threshold in SETTINGS:
        rows = []
        for place in places:
            right, agreed = models[DRAFT].vote(place, n)
            tokens, spent = models[DRAFT].tokens(place, n), models[DRAFT].flops(place, n)
            if agreed < threshold:
                answer = models[MAIN].each[place][0]
                right = answer.correct if answer.answered else right
                tokens, spent = tokens + answer.length, spent + models[MAIN].flops(place, 1)
            rows.append((float(right), float(tokens), spent))
        add(f"cascade:n={n},threshold={threshold:g}", rows)
    names = {"main": large.about["model"], "draft": small.about["model"]}
    model = {"generator": names["main"], "scorer": None, "models": names}
    ids = tuple(problem.id for problem in large.problems)
    made = Calibration({"name": "gsm8k-program"}, model, {"temperature": large.temperature}, 0, ids, tuple(arms), ({},))
    rates = tuple(map(models[MAIN].rate, places))
    return replace(made, rates=rates).in_unit("flops"), flops


def outcome(
    advice: Advice, whole: Calibration, flops: Mapping[str, Floats], places: Sequence[int]
) -> tuple[list[float], list[float], list[str]]:
    """Right answers and FLOPs of what is advised on these problems, first samples charged, and the strategies."""
    arms = {arm.strategy: arm for arm in whole.arms}
    if (policy := advice.policy) is None:
        text = advice.arm.strategy
        return list(arms[text].on(places).right), flops[text][list(places)].tolist(), [text]
    bins, firsts = policy.bins, [arm for arm in whole.arms if is_plain(arm)]
    first = next(arm for arm in firsts if (arm.model, arm.size) == (bins.model, bins.samples))
    picks = [policy.strategies[bins.place(first.signals[bins.signal][place])] for place in places]
    right = [arms[text].right[place] for text, place in zip(picks, places, strict=True)]
    spent = []
    for text, place in zip(picks, places, strict=True):
        own, before = float(flops[text][place]), float(flops[first.strategy][place])
        spent.append(max(own, before) if begins_with(text, bins.model) else own + before)
    kind = "limits" if bins.limits else "shares"
    return right, spent, [f"{kind} of {bins.signal} of {first.strategy}: {' < '.join(policy.strategies)}"]


Seen = list[tuple[list[int], tuple[Calibration, Calibration]]]


def chosen_on_folds(
    whole: Calibration, flops: Mapping[str, Floats], seen_by_fold: Seen, budget: Budget
) -> dict[str, Any]:
    """By choice: right answers and FLOPs of the problems of each fold, and the strategies of the folds."""
    count = len(whole.problems)
    found: dict[str, Any] = {name: (np.zeros(count), np.zeros(count), []) for name in CHOICES}
    for held, seen in seen_by_fold:
        for name, (right, spent, taken) in found.items():
            calibration = seen[name == EQUAL_SHARES]
            right[held], spent[held], texts = outcome(CHOICES[name](calibration, budget), whole, flops, held)
            taken += texts
    return found


def calibrated(whole: Calibration, seed: int) -> Seen:
    """By fold: its problems, and the calibration of the other folds with policies; also without fixed limits."""
    count = len(whole.problems)
    found = []
    for held in folds(count, seed):
        seen = on(whole, sorted(set(range(count)) - set(held)))
        found.append((held, (seen.with_policies(), replace(seen, rates=()).with_policies())))
    return found


def measure(small: Run, large: Run, seed: int) -> dict[str, Any]:
    """Every choice at every budget, beside the best arm with hindsight."""
    made = [calibration_of(small, large, seed + order) for order in range(ORDERS)]
    right = {a.strategy: np.mean([_right(each, a.strategy) for each, _ in made], axis=0) for a in made[0][0].arms}
    flops = {name: np.mean([spent[name] for _, spent in made], axis=0) for name in right}
    one = flops["delegate(single)"].mean()
    seen = [calibrated(each, seed) for each, _ in made]
    rows = []
    for share in BUDGETS:
        budget = Budget(flops=share * one)
        within = [name for name in right if flops[name].mean() <= share * one]
        best = max(within, key=lambda name: right[name].mean())
        folded = [chosen_on_folds(*each, by_fold, budget) for each, by_fold in zip(made, seen, strict=True)]
        row: dict[str, Any] = {
            "flops": share * one,
            "hindsight": {"strategy": best, "accuracy": mean(right[best].tolist(), seed)},
        }
        base = np.mean([each[f"planner, {LARGE} alone"][0] for each in folded], axis=0)
        one_for_all, its_flops = (np.mean([each[ONE][part] for each in folded], axis=0) for part in (0, 1))
        for name in CHOICES:
            mine, spent = (np.mean([each[name][part] for each in folded], axis=0) for part in (0, 1))
            texts = [text for each in folded for text in each[name][2]]
            row[name] = {
                "accuracy": mean(mine.tolist(), seed),
                "flops": float(spent.mean()),
                "minus_hindsight": difference(mine.tolist(), right[best].tolist(), seed),
                "minus_large_alone": difference(mine.tolist(), base.tolist(), seed),
                "minus_one_for_all": difference(mine.tolist(), one_for_all.tolist(), seed),
                "its_flops_over_one_for_all": ratio(spent.tolist(), its_flops.tolist(), seed),
                "share_by_difficulty": sum(": " in text for text in texts) / len(texts),
                "taken": {text: texts.count(text) / len(texts) for text in sorted(set(texts))},
            }
        rows.append(row)
    return {
        "n_problems": len(large.problems),
        "models": {label: run.about["model"] for label, run in ((SMALL, small), (LARGE, large))},
        "samples_each": {label: run.samples for label, run in ((SMALL, small), (LARGE, large))},
        "without_answer": {label: _unread(run) for label, run in ((SMALL, small), (LARGE, large))},
        "arms": {
            name: {
                "accuracy": mean(right[name].tolist(), seed),
                "flops": float(flops[name].mean()),
                "large_over_its_flops": ratio(flops["single"].tolist(), flops[name].tolist(), seed),
                "minus_large": difference(right[name].tolist(), right["single"].tolist(), seed),
            }
            for name in sorted(right, key=lambda name: flops[name].mean())
        },
        "rows": rows,
    }


def _right(calibration: Calibration, strategy: str) -> Sequence[float]:
    return next(arm.right for arm in calibration.arms if arm.strategy == strategy)


def _unread(run: Run) -> int:
    lost: list[Sample] = [s for p in run.problems for s in p.samples[: run.samples] if not s.answered]
    return len(lost)


def draw(result: Mapping[str, Any], path: Path) -> None:
    """Accuracy against FLOPs: votes of each model, cascades, and the planner."""
    figure, (axes,) = panels(1, 7, 4.4)
    kinds: Mapping[str, Callable[[str], bool]] = {
        f"votes of the {SMALL}": lambda name: name.startswith("delegate"),
        f"votes of the {LARGE}": lambda name: not name.startswith(("delegate", "cascade")),
    }
    for colour, (label, holds) in enumerate(kinds.items()):
        own = [row for name, row in result["arms"].items() if holds(name)]
        line(axes, [row["flops"] for row in own], [row["accuracy"] for row in own], colour, label)
    own = [row for name, row in result["arms"].items() if name.startswith("cascade")]
    heights = [100 * row["accuracy"]["value"] for row in own]
    axes.plot([row["flops"] for row in own], heights, "s", color=COLOURS[2], label="cascades")
    points = sorted((row[BOTH]["flops"], row[BOTH]["accuracy"]["value"]) for row in result["rows"])
    axes.plot(*zip(*((x, 100 * y) for x, y in points), strict=True), "k*", label="planner on held-out problems")
    axes.set(xscale="log", xlabel="FLOPs for a problem, the prompt among them", ylabel="right, %")
    axes.legend(fontsize=8, loc="upper left")
    save(figure, path)


def main() -> None:
    args, made = begin(HERE, __doc__, "models", "models.json")
    small, large = common([run for run in runs() if run.temperature and run.label in (SMALL, LARGE)])
    result = made | {"folds": FOLDS, "orders": ORDERS} | measure(small, large, args.seed)
    write_json(args.out / "models.json", result)
    draw(result, args.out / "models.png")
    for name, row in result["arms"].items():
        print(f"| `{name}` | {as_percent(row['accuracy'])} | {row['flops']:.3g} | {as_points(row['minus_large'])} |")
    for row in result["rows"]:
        cells = [f"{as_points(row[name]['minus_hindsight'])}, {row[name]['flops']:.3g}" for name in CHOICES]
        best = f"{as_percent(row['hindsight']['accuracy'])} (`{row['hindsight']['strategy']}`)"
        print(f"| {row['flops']:.3g} | {best} | {' | '.join(cells)} |")
    for row in result["rows"]:
        cells = [
            f"{as_points(row[name]['minus_one_for_all'])}, {as_number(row[name]['its_flops_over_one_for_all'])}, "
            f"{row[name]['share_by_difficulty']:.0%}"
            for name in (BOTH, ALWAYS, EQUAL_SHARES)
        ]
        print(f"| {row['flops']:.3g} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
