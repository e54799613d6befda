"""Row 51 with selectors of known quality: how good must a selector be, and does it choose steps or whole solutions?

    python -m experiments.o1_patterns.control     # a minute; writes control.json and control.png

Two maps. One has real samples (the committed bank of Qwen2.5-Coder-0.5B on GSM8K as programs) and selectors that are
an oracle degraded to an AUC (Green and Swets 1966, the binormal model): the best of n by such a selector. The other has
the constructed model (`experiments.chains`), whose steps can be selected too: the best of four at every step, against
the best of four whole solutions, at equal tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

from experiments.banks.judge import exports, judged_pool
from experiments.chains import Dial, arguments, compare, in_parts, names, row, solve
from experiments.constructed import shift
from experiments.intervals import difference, mean
from experiments.plot import line, panels, save
from experiments.provenance import provenance, write_json
from thinktime.bench.samples import Sampled
from thinktime.bench.selectors import curve
from thinktime.core.selection import best, majority

HERE = Path(__file__).parent
POOL = "gsm8k-program"
SIZES = (2, 4, 8)
AUCS = (0.5, 0.6, 0.7, 0.8, 0.9, 0.97)
STEPWISE, WHOLE = "beam_search:n=4,width=4", "best_of_n:n=4"
"""A beam of one: four candidates at every step, of which the reward keeps the best."""


def graded(problem: Sampled, auc: float) -> Sampled:
    """The problem with the dial's scores of its samples as rewards."""
    samples = tuple(
        replace(sample, reward=shift(auc) * sample.correct + Random(f"{problem.id}/{place}").gauss(0, 1))
        for place, sample in enumerate(problem.samples)
    )
    return replace(problem, samples=samples)


def oracle(problem: Sampled) -> Sampled:
    """The problem with the truth as rewards."""
    return replace(problem, samples=tuple(replace(each, reward=float(each.correct)) for each in problem.samples))


def selectors(problems: Sequence[Sampled], seed: int) -> dict[str, Any]:
    """Accuracy by selector and by size of the pool, with differences to one sample and to the vote."""
    single = [problem.pass_rate for problem in problems]
    vote = curve(problems, SIZES, majority, seed=seed)
    chosen = {"vote": vote, "oracle": curve(list(map(oracle, problems)), SIZES, best, seed=seed)}
    for auc in AUCS:
        chosen[str(auc)] = curve([graded(problem, auc) for problem in problems], SIZES, best, seed=seed)
    by_size = {
        name: {
            str(n): {
                "accuracy": point.accuracy.as_dict(),
                "minus_single": difference(point.each, single),
                "minus_vote": difference(point.each, vote[n].each),
            }
            for n, point in points.items()
        }
        for name, points in chosen.items()
    }
    return {"n_problems": len(problems), "single": mean(single), "by_selector": by_size}


def steps(auc: float, problems: Sequence[str]) -> dict[str, Any]:
    """One solution, the best of four, and step by step the best of four, with a reward of this AUC."""
    dial = Dial(auc)
    found = {label: [solve(label, name, dial) for name in problems] for label in ("single", WHOLE, STEPWISE)}
    return {
        label: row(mine)
        | {"against_single": compare(mine, found["single"]), "against_whole": compare(mine, found[WHOLE])}
        for label, mine in found.items()
    }


def main() -> None:
    args = arguments(__doc__)
    pool = judged_pool(exports([POOL])[0])
    chosen = selectors(pool.problems, seed=0) | {"generator": pool.generator, "samples": pool.fewest}
    problems = names(args.problems)
    stepwise = in_parts(args.parts / f"row51-{args.problems}.json", AUCS, lambda auc: steps(auc, problems))
    result = {**provenance(HERE, 0, "control"), "selectors": chosen, "n_problems": args.problems, "by_auc": stepwise}
    write_json((args.out or HERE) / "control.json", result)
    plot(result, (args.out or HERE) / "control.png")


def plot(result: Mapping[str, Any], path: Path) -> None:
    """Points over one sample against the AUC of the selector, of whole solutions and of steps."""
    figure, (whole, stepwise) = panels(2, 12, 4.6)
    table = result["selectors"]["by_selector"]
    for colour, n in enumerate(SIZES):
        line(whole, AUCS, [table[str(auc)][str(n)]["minus_single"] for auc in AUCS], colour, f"best of {n}")
        for name, style in (("vote", ":"), ("oracle", "--")):
            height = 100 * table[name][str(n)]["minus_single"]["value"]
            whole.axhline(height, color=whole.lines[-1].get_color(), ls=style, lw=1)
    for colour, (label, name) in enumerate(((WHOLE, "best of 4 solutions"), (STEPWISE, "best of 4 at every step"))):
        rows = [result["by_auc"][str(auc)][label]["against_single"]["minus"] for auc in AUCS]
        line(stepwise, AUCS, rows, colour, name)
    whole.set(title="real samples; dashed: oracle, dotted: vote", ylabel="points over one sample")
    stepwise.set(title="constructed model, equal tokens", ylabel="points over one sample")
    for axes in (whole, stepwise):
        axes.set_xlabel("AUC of the selector")
        axes.legend(fontsize=8)
    save(figure, path)


if __name__ == "__main__":
    main()
