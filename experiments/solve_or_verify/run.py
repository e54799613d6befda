"""Row 46: solve or verify, and when (Singhi et al. 2025, arXiv 2504.01005)?

    python -m experiments.solve_or_verify.run                # 2 x 200 problems, 64 solutions, 16 checks of each
    python -m experiments.solve_or_verify.run --second DIR   # a second verifier, checking the same solutions

Curves over budgets are measured on the first half of the problems, each split chosen on one half of these and measured
on the other; on the second half, sampled with another seed, the law is held to the best fixed split. Seeds are those of
sampling: each model was trained once. Keys and values are shared: a check reads its solution on from where it was
written, and all checks of a solution read their prompt once. A second verifier reads the solutions as well.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from experiments.harness import SKILLED_BANK, Arm, Experiment, minus, options, run_arms, skilled, summary
from experiments.intervals import Estimate, as_number, as_points, mean
from experiments.plot import COLOURS, line, logarithmic, panels, save
from experiments.solve_or_verify.collect import collect
from experiments.solve_or_verify.measure import NEVER, verifier, votes
from thinktime.bank.store import Bank
from thinktime.bench.tasks import Task
from thinktime.generators.local import LocalGenerator
from thinktime.strategies.verification.solve_or_verify import SolveOrVerify

HERE = Path(__file__).parent
NAMES = {"best_of_n": "best of n by checks", "weighted": "vote weighted by checks"}
WORSE = 0.02


def live(found: Mapping[str, Any], experiment: Experiment, held_out: Task) -> dict[str, Any]:
    """The strategy itself on the held-out problems: one draw of each, with what it was charged."""
    weighted = found["by_select"]["weighted"]
    options = {name: estimate["value"] for name, estimate in weighted["law"].items()}
    options |= {"crossover": weighted["crossover"] or NEVER, "unreadable": "plurality"}
    lam = found["lambda"]["all"]["value"]
    budgets = [row["budget"] for row in found["allocator"]]
    arms = [Arm(f"solve_or_verify:n={n}", SolveOrVerify(n, lam, **options)) for n in budgets]
    votes = [f"majority:n={n}" for n in budgets]
    solver, scorer = experiment.generator, experiment.scorer
    outcomes = run_arms([*arms, *votes], held_out, solver, scorer, experiment.bank, seed=1)
    rows = {label: summary(outcome) for label, outcome in outcomes.items()}
    for arm, vote in zip(arms, votes, strict=True):
        rows[arm.label]["minus_vote"] = minus(outcomes[arm.label], outcomes[vote])
    return rows


def verdict(pass_at_1: Estimate, verifiers: Mapping[str, Any]) -> list[str]:
    """Against the card: a law that loses over two points to the best fixed split, or an order that the seed flips."""
    lines = [f"single sample: {100 * pass_at_1['value']:.1f}% right (wanted: 30 to 60%)"]
    for name, found in verifiers.items():
        area = found["auc_of_one_check"]["overall"]
        missing = found["missing_verdicts"]["fitted"]
        lines.append(
            f"{name}: AUC of one check {as_number(area)}, lambda {as_number(found['lambda']['all'])}, "
            f"{100 * missing:.1f}% of verdicts missing"
        )
        for select, of in found["by_select"].items():
            a, b = of["law"]["a"], of["law"]["b"]
            crossing = "not reached" if of["crossover"] is None else f"at {of['crossover']} solutions"
            lines.append(f"{name}, {select}: a {as_number(a)}, b {as_number(b)}; crossover {crossing}")
            pairs = zip(of["curve"], of["minus_random_verdicts"], strict=True)
            row, by_chance = [pair for pair in pairs if pair[0]["budget"] == pair[0]["vote"]][-1]
            lines.append(
                f"{name}, {select}, budget {row['budget']}: {as_points(row['minus_vote'])} points against a vote of as "
                f"many solutions, {as_points(by_chance)} against random verdicts"
            )
        lost = [row["minus_best_in_hindsight"] for row in found["allocator"]]
        flips = found["order_flips_with_the_seed"]
        holds = all(row["value"] >= -WORSE for row in lost) and not flips
        lines.append(
            f"{name}: {'holds' if holds else 'falsified'}: law minus best fixed split on held-out problems "
            f"{'; '.join(map(as_points, lost))}; order flips: {', '.join(flips) or 'none'}"
        )
        alone = [row["without_crossover_minus_best_in_hindsight"] for row in found["allocator"]]
        known = [row["minus_best_of_the_fitting_problems"] for row in found["allocator"]]
        lines.append(f"{name}: the law without a crossover minus the same {'; '.join(map(as_points, alone))}")
        lines.append(f"{name}: the law minus the best split of the fitting problems {'; '.join(map(as_points, known))}")
    return lines


def main() -> None:
    parser = options(__doc__, problems=200, bank=SKILLED_BANK)
    parser.add_argument("--solutions", type=int, default=64)
    parser.add_argument("--checks", type=int, default=16)
    parser.add_argument("--second", type=Path, help="directory of another verifier with the same words")
    args = parser.parse_args()
    each = args.problems
    args.problems *= 2
    experiment = Experiment(HERE, args, skilled())
    solver, task = experiment.generator, experiment.task
    halves = [replace(task, problems=task.problems[start : start + each]) for start in (0, each)]
    verifiers = {"own": solver}
    if args.second:
        verifiers["second"] = LocalGenerator(args.second, dtype="float32")
    with Bank(args.bank) as bank:
        fitted, held_out = (
            collect(half, solver, verifiers, bank, args.solutions, args.checks, seed)
            for seed, half in enumerate(halves)
        )
    solved = fitted["own"].verdicts
    measured = {name: verifier(fitted[name], held_out[name]) for name in verifiers}
    pass_at_1 = mean(solved.coverage(1))
    result = {
        "solutions": args.solutions,
        "checks": args.checks,
        "models": {name: model.name for name, model in verifiers.items()},
        "pass_at_1": {"fitted": pass_at_1, "held_out": mean(held_out["own"].verdicts.coverage(1))},
        "votes": votes(solved),
        "verifiers": measured,
        "live": live(measured["own"], experiment, halves[1]),
    }
    plot(result, experiment.out / "plot.png")
    experiment.finish({"n_problems": each, **result}, verdict(pass_at_1, measured))


def plot(result: Mapping[str, Any], path: Path) -> None:
    """By tokens, by the cost model, and the law with its fit."""
    figure, (by_tokens, by_cost, law) = panels(3, 15, 4.6)
    for axes, x in ((by_tokens, "tokens"), (by_cost, "budget")):
        rows = result["votes"]
        line(axes, [r[x] for r in rows], [r["accuracy"] for r in rows], 0, "vote")
        covered = [100 * r["coverage"]["value"] for r in rows]
        axes.plot([r[x] for r in rows], covered, "--", color="#999999", label="coverage (upper bound)")
        place = 0
        for name, found in result["verifiers"].items():
            for select, of in found["by_select"].items():
                place += 1
                label = NAMES[select] + (", second verifier" if name == "second" else "")
                xs = [r[x] * 1.02**place for r in of["curve"]]  # whiskers side by side
                line(axes, xs, [r["accuracy"] for r in of["curve"]], place, label)
        axes.set_ylabel("right answers, %")
    logarithmic(by_tokens, "tokens a problem: generated, and read for the first time")
    logarithmic(by_cost, "budget S(1 + λV), in solutions")
    of = result["verifiers"]["own"]["by_select"]["weighted"]
    spent = [r["budget"] for r in of["curve"]]
    for place, (what, factor, exponent) in enumerate(
        (("solutions", "alpha_s", "a"), ("checks of each", "alpha_v", "b"))
    ):
        alpha, power = (of["law"][name]["value"] for name in (factor, exponent))
        best = [sum(split[place] for split in r["splits"]) / len(r["splits"]) for r in of["curve"]]
        law.plot(spent, best, "o", color=COLOURS[place + 1], label=f"{what}, best")
        fitted = [alpha * c**power for c in spent]
        law.plot(spent, fitted, "-", color=COLOURS[place + 1], label=f"{alpha:.2f} · budget^{power:.2f}")
    logarithmic(law, "budget, in solutions")
    law.set_yscale("log", base=2)
    for axes in (by_tokens, by_cost, law):
        axes.legend(fontsize=8)
    save(figure, path)


if __name__ == "__main__":
    main()
