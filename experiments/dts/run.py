"""Row 35: how many evaluations does a tree save against best-of-n (Jain et al. 2025, arXiv 2506.20701)?

    python -m experiments.dts.run            # 40 draws at 250, 1,000 and 4,000 evaluations

The shipped digits, told no class, are steered to one by a classifier and judged by another. That the tree is
exact on chains is in the tests. Falsified, by the card, if best-of-n is better at two of the three budgets.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt

from experiments.pictures import Easel, hit, minus, of_first, reward, run, summary, write
from experiments.plot import COLOURS, bars, save
from thinktime.core.usage import Budget
from thinktime.strategies import make

HERE = Path(__file__).parent
TARGET, STEPS, BUDGETS = 7, 20, (240, 1000, 4000)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=40)
    parser.add_argument("--kept", type=Path, default=Path("runs/experiments/dts"))
    args = parser.parse_args()
    easel = Easel(STEPS, 1.0, TARGET)
    draws: list[tuple[int | None, int]] = [(None, seed) for seed in range(args.draws)]
    most = BUDGETS[-1] // STEPS
    pool = run(easel, "best_of_n", make("best_of_n", {"n": most}), draws, Budget(), args.kept)
    sizes = [n for n in (1, 2, 4, 8, 12, 25, 50, 100, 200) if n <= most]
    plain = {n * STEPS: of_first(pool, n, STEPS) for n in sizes}
    rows: dict[str, Any] = {f"best of n, {nfe}": summary(found) for nfe, found in plain.items()}
    for nfe in BUDGETS:
        for name, strategy in (
            ("DTS*", make("dts", {"n": 65536, "walks": 4})),
            ("FK", make("fk_steering", {"n": nfe // STEPS, "factor": 1.0})),
        ):
            found = run(easel, f"{name[:3]}-{nfe}", strategy, draws, Budget(nfe=nfe), args.kept)
            against = {"reward_minus_best_of_n": minus(found, plain[nfe], reward)}
            against["hit_minus_best_of_n"] = minus(found, plain[nfe], hit)
            rows[f"{name}, {nfe}"] = summary(found) | against
    lost = sum(rows[f"DTS*, {nfe}"]["reward_minus_best_of_n"]["value"] < 0 for nfe in BUDGETS)
    verdict = [
        f"{'falsified' if lost >= 2 else 'holds'}: best-of-n has the higher reward at {lost} of {len(BUDGETS)} budgets"
    ]
    for nfe in BUDGETS:
        mine = rows[f"DTS*, {nfe}"]["reward"]["value"]
        reached = [n for n, found in plain.items() if summary(found)["reward"]["value"] >= mine]
        times = (
            f"{min(reached) / nfe:.1f} times as many" if reached else f"more than {max(plain) / nfe:.1f} times as many"
        )
        verdict.append(f"best-of-n reaches the reward of DTS* at {nfe} NFE with {times}")
    print(*verdict, sep="\n")
    write(HERE, len(draws), {"steps": STEPS, "target": TARGET, "rows": rows, "verdict": verdict})
    plot(rows)


def plot(rows: Mapping[str, Any]) -> None:
    """Reward and hits against evaluations."""
    figure, panels = plt.subplots(1, 2, figsize=(10, 4.4), dpi=150)
    for axes, measure, scale in zip(panels, ("reward", "hit"), (1, 100), strict=True):
        for colour, name in zip(COLOURS, ("best of n", "FK", "DTS*"), strict=False):
            mine = {int(label.rpartition(" ")[2]): row for label, row in rows.items() if label.startswith(name)}
            y, whiskers = bars((row[measure] for row in mine.values()), scale)
            axes.errorbar(list(mine), y, whiskers, label=name, color=colour, marker="o", ms=4, lw=1.8, elinewidth=0.7)
        axes.set_xscale("log")
        axes.set_xlabel("evaluations of the denoiser")
    panels[0].set_ylabel("log-probability of a seven, by the scorer")
    panels[1].set_ylabel("sevens for the judge, %")
    panels[0].legend(frameon=False)
    save(figure, HERE / "plot.png")


if __name__ == "__main__":
    main()
