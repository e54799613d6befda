"""All methods on pictures: reward against evaluations, and how much of it the judge believes.

    python -m experiments.images.run            # 60 draws, 5 budgets; half an hour on two cores

Threes, fives and eights, which the shipped model draws worst, with as much ink as they will bear: there is always more
to be had. The scorer's classifier steers, another judges, and the difference between the two is what was gained by
fooling the first. Beside the curve: how well the score of a clean estimate foretells that of the picture, by level.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np

from experiments.pictures import Draw, ImageBench, judged, minus, of_first, reward, run, summary, write
from experiments.plot import COLOURS, bars, save
from thinktime.core.usage import Budget
from thinktime.strategies import make

HERE = Path(__file__).parent
DIGITS, STEPS, BUDGETS, INK = (3, 5, 8), 20, (80, 160, 320, 640, 1280), {"ink": 10.0}
SEARCHES: Mapping[str, tuple[str, float, Mapping[str, Any]]] = {
    "beam": ("beam_search", 1.0, {"width": 4}),
    "MCTS": ("mcts", 1.0, {"n": 65536}),
    "FK, factor 10": ("fk_steering", 1.0, {}),
    "FK, factor 1": ("fk_steering", 1.0, {"factor": 1.0}),
    "DTS*": ("dts", 1.0, {"n": 65536, "walks": 4}),
    "zero order": ("zero_order", 0.0, {"rounds": 65536}),
    "paths": ("search_over_paths", 0.0, {"width": 2}),
}
"""The strategy, the sampler's noise, and options; ``n`` fits the budget where it is not given."""
SAMPLED: Mapping[str, tuple[float, float | None]] = {
    "best of n": (1.0, None),
    "best of noises": (0.0, None),
    "best of n, pulled": (1.0, 1.0),
}
"""The sampler's noise, and how strongly slopes pull."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=60)
    parser.add_argument("--kept", type=Path, default=Path("runs/experiments/images"))
    args = parser.parse_args()
    draws: list[tuple[int | None, int]] = [(digit, seed) for digit in DIGITS for seed in range(args.draws // 3)]
    benches = {eta: ImageBench(STEPS, eta, None, beside=INK) for eta in (0.0, 1.0)}
    most = BUDGETS[-1] // STEPS
    rows: dict[str, Any] = {}
    found: dict[str, list[Draw]] = {}
    for name, (eta, pull) in SAMPLED.items():
        bench = benches[eta] if pull is None else ImageBench(STEPS, eta, None, beside=INK, pull=pull)
        pool = run(bench, name.replace(" ", "_"), make("best_of_n", {"n": most}), draws, Budget(), args.kept)
        found |= {f"{name}, {nfe}": of_first(pool, nfe // STEPS, STEPS) for nfe in (STEPS, *BUDGETS)}
    for name, (kind, eta, given) in SEARCHES.items():
        for nfe in BUDGETS:
            options = {"n": nfe // STEPS if kind != "zero_order" else 4, **given}
            options["n"] = paths_within(nfe) if kind == "search_over_paths" else options["n"]
            label = f"{name}, {nfe}"
            strategy = make(kind, options)
            kept = label.replace(", ", "-").replace(" ", "_").replace("*", "")
            found[label] = run(benches[eta], kept, strategy, draws, Budget(nfe=nfe), args.kept)
    for label, chosen in found.items():
        rows[label] = summary(chosen)
        for name in ("best of n", "best of noises"):
            plain = found[f"{name}, {label.rpartition(' ')[2]}"]
            for of in (reward, judged):
                rows[label][f"{of.__name__}_minus_{name.replace(' ', '_')}"] = minus(chosen, plain, of)
    foretold = correlations(benches[1.0], draws)
    verdict = [
        f"{label}: reward {told(rows[label]['reward_minus_best_of_n'])}, by the judge "
        f"{told(rows[label]['judged_minus_best_of_n'])} against best of n; gap {told(rows[label]['gap'])}; "
        f"{rows[label]['usage']['denoiser_calls']:.0f} NFE"
        for label in rows
        if not label.startswith("best of n, ") or "pulled" in label
    ]
    verdict += [
        f"{name}, {nfe}: reward {told(rows[f'{name}, {nfe}']['reward_minus_best_of_noises'])} against best of noises"
        for name in ("zero order", "paths")
        for nfe in BUDGETS
    ]
    verdict += [reached(rows, name) for name in SEARCHES]
    print(*verdict, sep="\n")
    beside = {"steps": STEPS, "digits": DIGITS, "weights": {"class": 1.0, **INK}, "foretold": foretold}
    plot(write(HERE, len(draws), {**beside, "rows": rows, "verdict": verdict}))


def paths_within(nfe: int) -> int:
    """Paths of width 2 that the budget finishes: 18 steps to the first level, then four rounds of 2 times 17."""
    each = 18 + 4 * 2 * 17
    return max(1, nfe // each)


def told(difference: Mapping[str, float]) -> str:
    return f"{difference['value']:+.2f} [{difference['low']:+.2f}, {difference['high']:+.2f}]"


def reached(rows: Mapping[str, Any], name: str) -> str:
    """How many times a method's evaluations best-of-n takes for its reward, between budgets by their logarithms."""
    budgets = (STEPS, *BUDGETS)
    plain = [rows[f"best of n, {nfe}"]["reward"]["value"] for nfe in budgets]
    parts = []
    for nfe in BUDGETS:
        row = rows[f"{name}, {nfe}"]
        value, spent = row["reward"]["value"], row["usage"]["denoiser_calls"]
        enough = np.exp(np.interp(value, plain, np.log(budgets)))
        parts.append(f"{nfe}: {'more than ' if value > plain[-1] else ''}{enough / spent:.1f}")
    return f"{name}: times its evaluations that best-of-n takes for the same reward: " + "; ".join(parts)


def correlations(bench: ImageBench, draws: Sequence[tuple[int | None, int]], n: int = 8) -> list[dict[str, float]]:
    """By level, how the score of the clean estimate goes with that of the picture: over all, and within a prompt."""

    async def scored(prompt: int | None, seed: int) -> list[list[float]]:
        search = bench.search(prompt, seed + 10_000)
        nodes = await search.extend([search.root], n, until="step")
        levels = []
        while True:
            levels.append([score or 0.0 for score in await search.score(nodes)])
            if all(node.done for node in nodes):
                return levels
            nodes = await search.extend(nodes, until="step")

    async def every() -> list[list[list[float]]]:
        return list(await asyncio.gather(*(scored(prompt, seed) for prompt, seed in draws)))

    table = np.array(asyncio.run(every()))  # [draw, level, particle]
    within = table - table.mean(-1, keepdims=True)
    return [
        {
            "steps_left": STEPS - position,
            "over_all": float(np.corrcoef(table[:, position].ravel(), table[:, -1].ravel())[0, 1]),
            "within_a_draw": float(np.corrcoef(within[:, position].ravel(), within[:, -1].ravel())[0, 1]),
        }
        for position in range(STEPS + 1)
    ]


def plot(result: Mapping[str, Any]) -> None:
    """Reward, what the judge says of it, and the gap between them against evaluations; and what levels foretell."""
    rows = result["rows"]
    figure, panels = plt.subplots(1, 4, figsize=(19, 4.8), dpi=150)
    for axes, measure in zip(panels, ("reward", "judged", "gap"), strict=False):
        for place, name in enumerate((*SAMPLED, *SEARCHES)):
            mine = [row for label, row in rows.items() if label.rpartition(", ")[0] == name]
            y, whiskers = bars((row[measure] for row in mine), 1)
            style = {"color": COLOURS[place % len(COLOURS)], "ls": "-" if place < len(COLOURS) else "--"}
            x = [row["usage"]["denoiser_calls"] for row in mine]
            axes.errorbar(x, y, whiskers, label=name, marker="o", ms=3.5, lw=1.6, elinewidth=0.4, **style)
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        axes.set_xlabel("evaluations of the denoiser")
        axes.grid(alpha=0.25)
    panels[0].set_title("reward: log p(digit) + 10 ink, by the scorer", loc="left", fontsize=10)
    panels[1].set_title("the same with the judge's log p(digit)", loc="left", fontsize=10)
    panels[2].set_title("scorer minus judge", loc="left", fontsize=10)
    for key, name in (("over_all", "over all"), ("within_a_draw", "within a digit and seed")):
        panels[3].plot([r["steps_left"] for r in result["foretold"]], [r[key] for r in result["foretold"]], label=name)
    panels[3].invert_xaxis()
    panels[3].set_xlabel("steps left")
    panels[3].set_title("correlation with the score of the picture", loc="left", fontsize=10)
    panels[3].legend(frameon=False)
    panels[3].grid(alpha=0.25)
    figure.legend(
        *panels[0].get_legend_handles_labels(), frameon=False, loc="outside lower center", ncols=10, fontsize=9
    )
    save(figure, HERE / "plot.png", (0, 0.08, 1, 1))


if __name__ == "__main__":
    main()
