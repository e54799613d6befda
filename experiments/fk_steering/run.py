"""Row 38: do particles beat best-of-n at as many evaluations (Singhal et al. 2025, arXiv 2501.06848)?

    python -m experiments.fk_steering.run            # 3 seeds x 200 draws, 2, 4 and 8 particles

The shipped digits, told no class, are steered to one by a classifier and judged by another. One digit in ten would be
right by chance. Falsified, by the card, if steering is no better than the best of as many samples over 600 draws.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from experiments.arms import points
from experiments.pictures import ImageBench, minus, of_first, plot, reward, run, summary, write
from thinktime.core.usage import Budget
from thinktime.strategies import make

HERE = Path(__file__).parent
TARGET, STEPS, SIZES = 7, 20, (2, 4, 8)
ARMS: dict[str, dict[str, str | float]] = {
    "factor 10": {"factor": 10.0},
    "factor 1": {"factor": 1.0},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=600)
    parser.add_argument("--kept", type=Path, default=Path("runs/experiments/fk_steering"))
    args = parser.parse_args()
    bench = ImageBench(STEPS, 1.0, TARGET)
    draws: list[tuple[int | None, int]] = [(None, seed) for seed in range(args.draws)]
    most = run(bench, f"best_of_{SIZES[-1]}", make("best_of_n", {"n": SIZES[-1]}), draws, Budget(), args.kept)
    plain = {n: of_first(most, n, STEPS) for n in (1, *SIZES)}
    rows: dict[str, Any] = {f"best of {n}": summary(found) for n, found in plain.items()}
    for name, options in ARMS.items():
        for n in SIZES:
            label = f"{name}, {n} particles"
            strategy = make("fk_steering", {"n": n, **options})
            found = run(bench, label.replace(", ", "-").replace(" ", ""), strategy, draws, Budget(), args.kept)
            against = {"hit_minus_best_of_n": minus(found, plain[n]), "reward_minus": minus(found, plain[n], reward)}
            roots = [draw["events"][-1]["roots"] for draw in found]
            rows[label] = summary(found) | against | {"roots_alive": sum(roots) / len(roots)}
    verdict = []
    for name in ARMS:
        gains = [rows[f"{name}, {n} particles"]["hit_minus_best_of_n"] for n in SIZES]
        holds = all(gain["value"] > 0 for gain in gains)
        told = "; ".join(f"{n}: {points(gain)}" for n, gain in zip(SIZES, gains, strict=True))
        verdict.append(f"{name}: {'holds' if holds else 'falsified'}; hits against best-of-n at as many NFE {told}")
    print(*verdict, sep="\n")
    write(HERE, len(draws), {"steps": STEPS, "target": TARGET, "rows": rows, "verdict": verdict})
    lines = {"best of n": [f"best of {n}" for n in (1, *SIZES)]}
    lines |= {name: [f"{name}, {n} particles" for n in SIZES] for name in ARMS}
    plot(rows, lines, ("a seven for the judge", "a seven for the scorer that steered"), HERE / "plot.png")


if __name__ == "__main__":
    main()
