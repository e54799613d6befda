"""Row 06: does searching noises buy more than denoising steps (Ma et al. 2025, arXiv 2501.09732)?

    python -m experiments.noise_search.run            # 200 prompts, 3 seeds

Falsified, by the card, if the best of 16 is not more than two standard errors above one sample, or more steps do as
well. That is easy where the model is asked for the digit, so the searches are compared once more where only the
verifier knows it: one noise in ten is right by chance. The oracle of these rows is a ceiling, no method.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from experiments.image_bench import Draw, ImageBench, diversity, finish, minus, of_first, plot, scorer_believes, summary
from experiments.intervals import as_points
from thinktime.strategies.sampling.ensemble import mean_ranks

HERE = Path(__file__).parent
STEPS, CURVE, MOST = 20, (5, 10, 20, 40, 80, 160), 16
SEARCHES: Mapping[str, tuple[str, Mapping[str, int]]] = {
    "zero order": ("zero_order", {"n": 4, "rounds": 64}),
    "paths": ("search_over_paths", {"n": 2, "width": 2}),
}
VERIFIERS = {"compressibility": 1.0, "symmetry": 1.0}
"""Beside the class."""


def without_class(each: int, kept: Path) -> dict[str, list[Draw]]:
    """Every digit from a model that is asked for no class, all digits as one list of draws for each way to search."""
    found: dict[str, list[Draw]] = {}
    for digit in range(10):
        draws = [(None, 1000 * digit + seed) for seed in range(each)]
        here = kept / f"untold-{digit}"
        bench, half = ImageBench(here, STEPS, 0.0, digit), ImageBench(here, STEPS // 2, 0.0, digit)
        several = ImageBench(here, STEPS, 0.0, digit, beside=VERIFIERS)
        mine = chosen_by(several.run(f"random-{MOST}", "best_of_n", {"n": MOST}, draws))
        for name, (kind, options) in SEARCHES.items():
            mine[name] = bench.run(name.replace(" ", "_"), kind, options, draws, nfe=MOST * STEPS)
        again = {"start": MOST, "rounds": 0, "final_steps": STEPS}
        mine[f"random, {MOST}, 10 steps, winner again in {STEPS}"] = half.run("again", "zero_order", again, draws)
        for name, some in mine.items():
            found.setdefault(name, []).extend(draw | {"prompt": digit} for draw in some)
    return found


def chosen_by(pool: list[Draw]) -> dict[str, list[Draw]]:
    """The same samples, chosen from by every verifier, by all together, and by the judge."""

    def by(rate: Callable[[list[dict[str, Any]]], list[float]]) -> list[Draw]:
        found = []
        for draw in pool:
            rated = rate(draw["pool"])
            pictures = [picture | {"reward": picture["parts"][0]} for picture in draw["pool"]]
            found.append(draw | {"chosen": max(range(len(rated)), key=rated.__getitem__), "pool": pictures})
        return found

    def part(place: int) -> list[Draw]:
        return by(lambda pictures: [picture["parts"][place] for picture in pictures])

    def ranks(pictures: list[dict[str, Any]]) -> list[float]:
        return [-rank for rank in mean_ranks(list(zip(*(picture["parts"] for picture in pictures), strict=True)))]

    everything = f"random, {MOST}"
    ways = {everything: part(0)} | {f"{everything}, by {name}": part(n) for n, name in enumerate(VERIFIERS, 1)}
    ways[f"{everything}, ensemble"] = by(ranks)
    ways[f"{everything}, oracle"] = by(lambda pictures: [picture["judged"][0] for picture in pictures])
    return ways


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompts", type=int, default=200)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--kept", type=Path, default=Path("runs/experiments/noise_search"))
    args = parser.parse_args()
    each, nfe = args.prompts // 10, MOST * STEPS
    draws = [(digit, seed) for digit in range(10) for seed in range(each * args.seeds)]
    steps = {
        count: ImageBench(args.kept, count, 0.0, None).run(f"steps-{count}", "best_of_n", {"n": 1}, draws)
        for count in CURVE
    }
    bench = ImageBench(args.kept, STEPS, 0.0, None)
    pool = bench.run(f"random-{MOST}", "best_of_n", {"n": MOST}, draws)
    random = {n: of_first(pool, n, STEPS) for n in (1, 2, 4, 8, MOST)}
    easy = {f"random, {MOST}": random[MOST]}
    for name, (kind, options) in SEARCHES.items():
        easy[name] = bench.run(name.replace(" ", "_"), kind, options, draws, nfe=nfe)
    found = {f"{count} steps": some for count, some in steps.items()}
    found |= {f"random, {n}": some for n, some in random.items()} | easy
    rows: dict[str, Any] = {name: summary(some) for name, some in found.items()}
    gains = {name: minus(easy[name], random[MOST]) for name in SEARCHES}
    for name, gain in gains.items():
        rows[name]["hit_minus_random"] = gain
    gain = minus(random[MOST], random[1])
    by_steps = minus(random[MOST], steps[CURVE[-1]])
    rows[f"random, {MOST}"] |= {"hit_minus_one_sample": gain, "hit_minus_most_steps": by_steps}
    believes = minus(random[MOST], random[1], scorer_believes)
    verdict = [
        f"{'holds' if gain['low'] > 0 and by_steps['low'] > 0 else 'falsified'}: best of {MOST} minus one sample "
        f"{as_points(gain)}, minus {CURVE[-1]} steps {as_points(by_steps)}",
        f"the verifier believes {as_points(believes)}, the judge sees {as_points(gain)}",
        f"zero order minus random at {nfe} NFE {as_points(gains['zero order'])}",
        f"paths minus random at {rows['paths']['usage']['denoiser_calls']:.0f} against {nfe} NFE "
        f"{as_points(gains['paths'])}",
    ]
    hard = without_class(each, args.kept)
    for name, some in hard.items():
        gain = minus(some, hard[f"random, {MOST}"])
        rows[f"untold, {name}"] = summary(some) | {"hit_minus_random": gain}
        verdict.append(f"no class asked for, {name} minus random, {MOST}: {as_points(gain)}")
    for prefix, arms in (("", easy), ("untold, ", hard)):
        for name, some in arms.items():
            rows[f"{prefix}{name}"]["diversity"] = diversity(some, lambda draw: draw["prompt"])
    finish(HERE, len(draws), {"steps": STEPS, "rows": rows}, verdict)
    families = {
        "more steps": [rows[f"{count} steps"] for count in CURVE],
        "random search": [rows[f"random, {n}"] for n in random],
    }
    families |= {name: [rows[name]] for name in SEARCHES}
    families |= {f"no class asked for: {name}": [rows[f"untold, {name}"]] for name in (f"random, {MOST}", *SEARCHES)}
    titles = {"hit": "the digit for the judge, %", "scorer_believes": "the digit for the verifier, %"}
    plot(families, titles, HERE / "plot.png")


if __name__ == "__main__":
    main()
