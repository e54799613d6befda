"""Row 06: does searching noises buy more than denoising steps (Ma et al. 2025, arXiv 2501.09732)?

    python -m experiments.noise_search.run            # 200 prompts, 3 seeds

The shipped digits with a deterministic sampler, a classifier as verifier, another as judge. More steps, more noises, a
climb among neighbours and the search over paths are compared at as many evaluations. Falsified, by the card, if the
best of 16 is not more than two standard errors above one sample, or more steps do as well.

That is easy where the model is told the digit. So the searches are compared once more where only the verifier knows
it: one noise in ten is right by chance. There two other verifiers, an ensemble by ranks of all three, and the judge
itself (an oracle: a ceiling, no method) choose from the same 16, and the winner at 10 steps is painted again in 20.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from experiments.arms import points
from experiments.pictures import Draw, ImageBench, diversity, minus, of_first, plot, run, seen_by_scorer, summary, write
from thinktime.core.usage import Budget
from thinktime.strategies import make
from thinktime.strategies.ensemble import mean_ranks

HERE = Path(__file__).parent
STEPS, CURVE, MOST = 20, (5, 10, 20, 40, 80, 160), 16
SEARCHES: Mapping[str, tuple[str, Mapping[str, int]]] = {
    "zero order": ("zero_order", {"n": 4, "rounds": 64}),
    "paths": ("search_over_paths", {"n": 2, "width": 2}),
}
VERIFIERS = {"compressibility": 1.0, "symmetry": 1.0}
"""Beside the class."""


def untold(each: int, kept: Path) -> dict[str, list[Draw]]:
    """Every digit from a model that is told none, all of them as one list of draws for each way to search."""
    found: dict[str, list[Draw]] = {}
    for digit in range(10):
        draws: list[tuple[int | None, int]] = [(None, 1000 * digit + seed) for seed in range(each)]
        here = kept / f"untold-{digit}"
        bench, half = ImageBench(STEPS, 0.0, digit), ImageBench(STEPS // 2, 0.0, digit)
        several = ImageBench(STEPS, 0.0, digit, beside=VERIFIERS)
        pool = run(several, f"random-{MOST}", make("best_of_n", {"n": MOST}), draws, Budget(), here)
        mine = chosen_by(pool)
        for name, (kind, options) in SEARCHES.items():
            budget = Budget(nfe=MOST * STEPS)
            mine[name] = run(bench, name.replace(" ", "_"), make(kind, options), draws, budget, here)
        again = make("zero_order", {"start": MOST, "rounds": 0, "final_steps": STEPS})
        mine[f"random, {MOST}, 10 steps, winner again in {STEPS}"] = run(half, "again", again, draws, Budget(), here)
        for name, some in mine.items():
            found.setdefault(name, []).extend(draw | {"prompt": digit} for draw in some)
    return found


def chosen_by(pool: list[Draw]) -> dict[str, list[Draw]]:
    """The same samples, chosen from by every verifier, by all together, and by the judge."""

    def by(rate: Callable[[Draw], list[float]]) -> list[Draw]:
        found = []
        for draw in pool:
            rated = rate(draw)
            pictures = [picture | {"reward": picture["parts"][0]} for picture in draw["pool"]]
            found.append(draw | {"chosen": max(range(len(rated)), key=rated.__getitem__), "pool": pictures})
        return found

    def scores(part: int, draw: Draw) -> list[float]:
        return [picture["parts"][part] for picture in draw["pool"]]

    names = ["class", *VERIFIERS]
    ways = {
        f"random, {MOST}" if name == "class" else f"random, {MOST}, by {name}": by(partial(scores, part))
        for part, name in enumerate(names)
    }
    ways[f"random, {MOST}, ensemble"] = by(
        lambda draw: [-r for r in mean_ranks(list(zip(*(picture["parts"] for picture in draw["pool"]), strict=True)))]
    )
    ways[f"random, {MOST}, oracle"] = by(lambda draw: [picture["judged"][0] for picture in draw["pool"]])
    return ways


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompts", type=int, default=200)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--kept", type=Path, default=Path("runs/experiments/noise_search"))
    args = parser.parse_args()
    each = args.prompts // 10
    draws: list[tuple[int | None, int]] = [(digit, seed) for digit in range(10) for seed in range(each * args.seeds)]
    rows: dict[str, Any] = {}
    steps = {}
    for count in CURVE:
        bench = ImageBench(count, 0.0, None)
        steps[count] = run(bench, f"steps-{count}", make("best_of_n", {"n": 1}), draws, Budget(), args.kept)
        rows[f"{count} steps"] = summary(steps[count])
    bench = ImageBench(STEPS, 0.0, None)
    pool = run(bench, f"random-{MOST}", make("best_of_n", {"n": MOST}), draws, Budget(), args.kept)
    random = {n: of_first(pool, n, STEPS) for n in (1, 2, 4, 8, MOST)}
    rows |= {f"random, {n}": summary(found) for n, found in random.items()}
    nfe = MOST * STEPS
    easy = {f"random, {MOST}": random[MOST]}
    for name, (kind, options) in SEARCHES.items():
        strategy = make(kind, options)
        easy[name] = found = run(bench, name.replace(" ", "_"), strategy, draws, Budget(nfe=nfe), args.kept)
        rows[name] = summary(found) | {"hit_minus_random": minus(found, random[MOST])}
    gain = minus(random[MOST], random[1])
    by_steps = minus(random[MOST], steps[CURVE[-1]])
    rows[f"random, {MOST}"] |= {"hit_minus_one_sample": gain, "hit_minus_most_steps": by_steps}
    believes = minus(random[MOST], random[1], seen_by_scorer)
    verdict = [
        f"{'holds' if gain['low'] > 0 and by_steps['low'] > 0 else 'falsified'}: best of {MOST} minus one sample "
        f"{points(gain)}, minus {CURVE[-1]} steps {points(by_steps)}",
        f"the verifier believes {points(believes)}, the judge sees {points(gain)}",
        f"zero order minus random at {nfe} NFE {points(rows['zero order']['hit_minus_random'])}",
        f"paths minus random at {rows['paths']['usage']['denoiser_calls']:.0f} against {nfe} NFE "
        f"{points(rows['paths']['hit_minus_random'])}",
    ]
    told_nothing = untold(each, args.kept)
    rows |= {f"untold, {name}": summary(found) for name, found in told_nothing.items()}
    for name, found in told_nothing.items():
        rows[f"untold, {name}"]["hit_minus_random"] = minus(found, told_nothing[f"random, {MOST}"])
        verdict.append(
            f"told no digit, {name} minus random, {MOST}: {points(rows[f'untold, {name}']['hit_minus_random'])}"
        )
    for prefix, arms in (("", easy), ("untold, ", told_nothing)):
        for name, found in arms.items():
            rows[f"{prefix}{name}"]["diversity"] = diversity(found, lambda draw: draw["prompt"])
    print(*verdict, sep="\n")
    write(HERE, len(draws), {"steps": STEPS, "rows": rows, "verdict": verdict})
    lines = {
        "more steps": [f"{count} steps" for count in CURVE],
        "random search": [f"random, {n}" for n in (1, 2, 4, 8, MOST)],
        "zero order": ["zero order"],
        "paths": ["paths"],
    }
    lines |= {f"told no digit: {name}": [f"untold, {name}"] for name in (f"random, {MOST}", *SEARCHES)}
    plot(rows, lines, ("the digit for the judge", "the digit for the verifier"), HERE / "plot.png")


if __name__ == "__main__":
    main()
