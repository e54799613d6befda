"""Row 38: do particles beat best-of-n at as many evaluations (Singhal et al. 2025, arXiv 2501.06848)?

    python -m experiments.fk_steering.run            # 3 seeds x 200 draws, 2, 4 and 8 particles

Falsified, by the card, if steering is no better than the best of as many samples over 600 draws.
"""

from __future__ import annotations

from pathlib import Path
from statistics import fmean
from typing import Any

from experiments.image_bench import ImageBench, finish, minus, of_first, options, plot, reward, summary
from experiments.intervals import as_points

HERE = Path(__file__).parent
TARGET, STEPS, SIZES = 7, 20, (2, 4, 8)
ARMS = {"factor 10": {"factor": 10.0}, "factor 1": {"factor": 1.0}}


def main() -> None:
    args = options(__doc__, "fk_steering", draws=600).parse_args()
    bench = ImageBench(args.kept, STEPS, 1.0, TARGET)
    draws = [(None, seed) for seed in range(args.draws)]
    most = bench.run(f"best_of_{SIZES[-1]}", "best_of_n", {"n": SIZES[-1]}, draws)
    plain = {n: of_first(most, n, STEPS) for n in (1, *SIZES)}
    rows: dict[str, Any] = {f"best of {n}": summary(found) for n, found in plain.items()}
    families = {"best of n": list(rows.values())}
    verdict = []
    for name, options_of_arm in ARMS.items():
        gains = {}
        for n in SIZES:
            found = bench.run(f"{name.replace(' ', '')}-{n}particles", "fk_steering", {"n": n, **options_of_arm}, draws)
            gains[n] = minus(found, plain[n])
            against = {"hit_minus_best_of_n": gains[n], "reward_minus": minus(found, plain[n], reward)}
            roots = fmean(draw["roots"] for draw in found)
            rows[f"{name}, {n} particles"] = summary(found) | against | {"roots_alive": roots}
        families[name] = [rows[f"{name}, {n} particles"] for n in SIZES]
        claim = "holds" if all(gain["value"] > 0 for gain in gains.values()) else "falsified"
        figures = "; ".join(f"{n}: {as_points(gain)}" for n, gain in gains.items())
        verdict.append(f"{name}: {claim}; hits against best-of-n at as many NFE {figures}")
    finish(HERE, len(draws), {"steps": STEPS, "target": TARGET, "rows": rows}, verdict)
    titles = {"hit": "a seven for the judge, %", "scorer_believes": "a seven for the scorer that steered, %"}
    plot(families, titles, HERE / "plot.png")


if __name__ == "__main__":
    main()
