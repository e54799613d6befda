"""Row 06: does searching noises buy more than denoising steps (Ma et al. 2025, arXiv 2501.09732)?

    python -m experiments.noise_search.run            # 200 prompts, 3 seeds

The shipped digits with a deterministic sampler, a classifier as verifier, another as judge. More steps, more noises, a
climb among neighbours and the search over paths are compared at as many evaluations. Falsified, by the card, if the
best of 16 is not more than two standard errors above one sample, or more steps do as well.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from experiments.arms import points
from experiments.pictures import Easel, minus, of_first, plot, run, seen_by_scorer, summary, write
from thinktime.core.usage import Budget
from thinktime.strategies import make

HERE = Path(__file__).parent
STEPS, CURVE, MOST = 20, (5, 10, 20, 40, 80, 160), 16


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
        easel = Easel(count, 0.0, None)
        steps[count] = run(easel, f"steps-{count}", make("best_of_n", {"n": 1}), draws, Budget(), args.kept)
        rows[f"{count} steps"] = summary(steps[count])
    easel = Easel(STEPS, 0.0, None)
    pool = run(easel, f"random-{MOST}", make("best_of_n", {"n": MOST}), draws, Budget(), args.kept)
    random = {n: of_first(pool, n, STEPS) for n in (1, 2, 4, 8, MOST)}
    rows |= {f"random, {n}": summary(found) for n, found in random.items()}
    nfe = MOST * STEPS
    for name, strategy in (
        ("zero order", make("zero_order", {"n": 4, "rounds": 64})),
        ("paths", make("search_over_paths", {"n": 2, "width": 2})),
    ):
        found = run(easel, name.replace(" ", "_"), strategy, draws, Budget(nfe=nfe), args.kept)
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
    print(*verdict, sep="\n")
    write(HERE, len(draws), {"steps": STEPS, "rows": rows, "verdict": verdict})
    lines = {
        "more steps": [f"{count} steps" for count in CURVE],
        "random search": [f"random, {n}" for n in (1, 2, 4, 8, MOST)],
        "zero order": ["zero order"],
        "paths": ["paths"],
    }
    plot(rows, lines, ("the digit for the judge", "the digit for the verifier"), HERE / "plot.png")


if __name__ == "__main__":
    main()
