"""All methods on pictures: reward against evaluations, and how much of it the judge believes.

    python -m experiments.images.run            # 60 draws, 5 budgets; half an hour on two cores

Beside the curve: how well the score of a clean estimate predicts the score of the picture, by level.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.image_bench import ImageBench, draw_lines, finish, judged, minus, of_first, options, reward, summary
from experiments.plot import grouped, legend_below, panels, save

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
    args = options(__doc__, "images", draws=60).parse_args()
    draws = [(digit, seed) for digit in DIGITS for seed in range(args.draws // 3)]
    benches = {eta: ImageBench(args.kept, STEPS, eta, None, beside=INK) for eta in (0.0, 1.0)}
    most = BUDGETS[-1] // STEPS
    found: dict[str, Any] = {}
    for name, (eta, pull) in SAMPLED.items():
        bench = benches[eta] if pull is None else ImageBench(args.kept, STEPS, eta, None, beside=INK, pull=pull)
        pool = bench.run(name.replace(" ", "_"), "best_of_n", {"n": most}, draws)
        found |= {f"{name}, {nfe}": of_first(pool, nfe // STEPS, STEPS) for nfe in (STEPS, *BUDGETS)}
    for name, (kind, eta, given) in SEARCHES.items():
        for nfe in BUDGETS:
            usual = {"zero_order": 4, "search_over_paths": paths_within(nfe)}
            label = f"{name}, {nfe}"
            kept = label.replace(", ", "-").replace(" ", "_").replace("*", "")
            chosen = {"n": usual.get(kind, nfe // STEPS), **given}
            found[label] = benches[eta].run(kept, kind, chosen, draws, nfe=nfe)
    rows: dict[str, Any] = {}
    for label, some in found.items():
        rows[label] = summary(some)
        for name in ("best of n", "best of noises"):
            plain = found[f"{name}, {label.rpartition(' ')[2]}"]
            for of in (reward, judged):
                rows[label][f"{of.__name__}_minus_{name.replace(' ', '_')}"] = minus(some, plain, of)
    predicted = correlations(benches[1.0], draws)
    result = {"steps": STEPS, "digits": DIGITS, "weights": {"class": 1.0, **INK}, "foretold": predicted, "rows": rows}
    finish(HERE, len(draws), result, verdict(rows))
    plot(rows, predicted)


def verdict(rows: Mapping[str, Any]) -> list[str]:
    """Every arm against the best of as many samples and of as many noises."""
    lines = [
        f"{label}: reward {signed(row['reward_minus_best_of_n'])}, by the judge {signed(row['judged_minus_best_of_n'])}"
        f" against best of n; gap {signed(row['gap'])}; {row['usage']['denoiser_calls']:.0f} NFE"
        for label, row in rows.items()
        if not label.startswith("best of n, ") or "pulled" in label
    ]
    for name in ("zero order", "paths"):
        for nfe in BUDGETS:
            gain = signed(rows[f"{name}, {nfe}"]["reward_minus_best_of_noises"])
            lines.append(f"{name}, {nfe}: reward {gain} against best of noises")
    return lines + [reached(rows, name) for name in SEARCHES]


def paths_within(nfe: int) -> int:
    """Paths of width 2 that the budget finishes: 18 steps to the first level, then four rounds of 2 times 17."""
    each = 18 + 4 * 2 * 17
    return max(1, nfe // each)


def signed(difference: Mapping[str, float]) -> str:
    """A difference of rewards with its interval."""
    return "{value:+.2f} [{low:+.2f}, {high:+.2f}]".format(**difference)


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


def correlations(bench: ImageBench, draws: Sequence[tuple[int, int]], n: int = 8) -> list[dict[str, float]]:
    """By level, how the score of the clean estimate goes with that of the picture: over all, and within a prompt."""

    async def scored(prompt: int | None, seed: int) -> list[list[float]]:
        search = bench.search(prompt, seed + 10_000)
        nodes = await search.extend([search.root], n, until="step")
        levels = [[score or 0.0 for score in await search.score(nodes)]]
        while not all(node.done for node in nodes):
            nodes = await search.extend(nodes, until="step")
            levels.append([score or 0.0 for score in await search.score(nodes)])
        return levels

    async def every() -> list[list[list[float]]]:
        return list(await asyncio.gather(*(scored(prompt, seed) for prompt, seed in draws)))

    table = np.array(asyncio.run(every()))  # [draw, level, particle]
    within = table - table.mean(-1, keepdims=True)

    def with_last(scores: Any, level: int) -> float:
        return float(np.corrcoef(scores[:, level].ravel(), scores[:, -1].ravel())[0, 1])

    return [
        {"steps_left": STEPS - k, "over_all": with_last(table, k), "within_a_draw": with_last(within, k)}
        for k in range(STEPS + 1)
    ]


def plot(rows: Mapping[str, Any], predicted: Sequence[Mapping[str, float]]) -> None:
    """Reward, the judge's part in it and the gap between them against evaluations; and what levels predict."""
    figure, each = panels(4, 19, 4.8)
    titles = {
        "reward": "reward: log p(digit) + 10 ink, by the scorer",
        "judged": "the same with the judge's log p(digit)",
        "gap": "scorer minus judge",
    }
    draw_lines(each, grouped((label.rpartition(", ")[0], row) for label, row in rows.items()), titles)
    for key, name in (("over_all", "over all"), ("within_a_draw", "within a digit and seed")):
        each[3].plot([row["steps_left"] for row in predicted], [row[key] for row in predicted], label=name)
    each[3].invert_xaxis()
    each[3].set(xlabel="steps left", title="correlation with the score of the picture")
    each[3].legend()
    legend_below(figure, each[0], 10)
    save(figure, HERE / "plot.png", (0, 0.08, 1, 1))


if __name__ == "__main__":
    main()
