"""Row 35: how many evaluations does a tree save against best-of-n (Jain et al. 2025, arXiv 2506.20701)?

    python -m experiments.dts.run            # 40 draws at 250, 1,000 and 4,000 evaluations

Beside it DTS as a sampler: how far its pictures are, in the judge's features, from the law that it should draw from:
the pictures of the model, weighted by the classifier.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from experiments.image_bench import ImageBench, finish, minus, of_first, options, plot, reward, summary
from experiments.plot import grouped
from thinktime.core.particles import normalised
from thinktime.core.search import Search
from thinktime.core.types import Node
from thinktime.core.usage import Budget
from thinktime.strategies.diffusion.dts import DTS
from thinktime.strategies.diffusion.fk_steering import FKSteering
from thinktime.testing.chains import Chain, descents, total_variation
from training.evaluate_digits import frechet

HERE = Path(__file__).parent
TARGET, STEPS, BUDGETS = 7, 20, (240, 1000, 4000)
ROUNDS = (10, 100, 1000, 10000)
POPULATIONS, LAW, DRAWN = 10, 4000, 100
"""Runs of a sampler, plain samples that the law is known from, and draws from each tree."""


def chains() -> dict[str, dict[int, float]]:
    """Mean total variation over six chains of 3 levels of 3 states, by rounds of the tree."""
    found: dict[str, dict[int, float]] = {}
    for name, widen, backup in (("C=1", 1.0, "mean"), ("C=2", 2.0, "mean"), ("C=1, sum", 1.0, "sum")):
        found[name] = {}
        for rounds in ROUNDS:
            strategy = DTS(n=rounds, variant="sample", factor=3.0, widen=widen, backup=backup)
            errors = []
            for seed in range(6):
                chain = Chain.drawn(seed, levels=3)
                tree = asyncio.run(strategy.grow(chain.search(seed)))
                errors.append(total_variation(descents(tree, 3.0), chain.tilted(3.0)))
            found[name][rounds] = fmean(errors)
    return found


Found = tuple[list[Node], list[float]]
"""Pictures and the logarithms of their weights."""


@dataclass(frozen=True)
class Cloud:
    """Clean states, and how much each weighs."""

    states: list[Any]
    weights: list[float]

    def against(self, law: Cloud, bench: ImageBench) -> dict[str, float]:
        """The distance in features, and the share of the pictures that are the target to the judge."""
        mine, theirs = (np.array(bench.features(cloud.states)) for cloud in (self, law))
        seen = np.array([hits for _, hits in bench.judge(self.states, None)])
        return {
            "frechet": frechet(mine, theirs, np.array(self.weights), np.array(law.weights)),
            "sevens": float(np.average(seen, weights=self.weights)),
            "pictures": len({state.tobytes() for state in self.states}) / POPULATIONS,
        }


def sets(bench: ImageBench) -> dict[str, dict[str, float]]:
    """Pictures drawn by trees, by populations of particles, and by weights of plain samples, against the law."""
    law = asyncio.run(populations(bench, partial(plain, n=LAW // POPULATIONS), Budget(), 1000))
    again = asyncio.run(populations(bench, partial(plain, n=LAW // POPULATIONS), Budget(), 2000))
    rows = {f"weights, {LAW * STEPS // POPULATIONS}": again.against(law, bench)}
    for nfe in BUDGETS:
        ways: dict[str, Callable[[Search], Awaitable[Found]]] = {
            "weights": partial(plain, n=nfe // STEPS),
            "FK": partial(particles, n=nfe // STEPS),
            "DTS": tree,
        }
        for name, way in ways.items():
            rows[f"{name}, {nfe}"] = asyncio.run(populations(bench, way, Budget(nfe=nfe), 0)).against(law, bench)
            print(name, nfe, rows[f"{name}, {nfe}"], flush=True)
    return rows


async def populations(
    bench: ImageBench, way: Callable[[Search], Awaitable[Found]], budget: Budget, first: int
) -> Cloud:
    """One cloud of several runs, which count alike."""
    searches = [bench.search(None, first + seed, budget) for seed in range(POPULATIONS)]
    found = await asyncio.gather(*map(way, searches))
    states = [node.state.x for nodes, _ in found for node in nodes]
    return Cloud(states, [weight for _, log_weights in found for weight in normalised(log_weights)])


async def plain(search: Search, n: int) -> Found:
    """Samples, weighted by their reward."""
    nodes = await search.extend([search.root], n)
    return nodes, [score or 0.0 for score in await search.score(nodes)]


async def particles(search: Search, n: int) -> Found:
    """A population and the weights that its particles have at the end."""
    population = await FKSteering(n=n, factor=1.0).filter(search)
    return [particle.node for particle in population], [particle.log_weight for particle in population]


async def tree(search: Search) -> Found:
    """Draws from a tree."""
    grown, rng = await DTS(n=65536, variant="sample", walks=4).grow(search), search.random("draws")
    return [grown.draw(1.0, rng).node for _ in range(DRAWN)], [0.0] * DRAWN


def main() -> None:
    args = options(__doc__, "dts", draws=40).parse_args()
    bench = ImageBench(args.kept, STEPS, 1.0, TARGET)
    draws = [(None, seed) for seed in range(args.draws)]
    most = BUDGETS[-1] // STEPS
    pool = bench.run("best_of_n", "best_of_n", {"n": most}, draws)
    sizes = [n for n in (1, 2, 4, 8, 12, 25, 50, 100, 200) if n <= most]
    plain = {n * STEPS: of_first(pool, n, STEPS) for n in sizes}
    rows: dict[str, Any] = {f"best of n, {nfe}": summary(found) for nfe, found in plain.items()}
    for nfe in BUDGETS:
        for name, kind, given in (
            ("DTS*", "dts", {"n": 65536, "walks": 4}),
            ("FK", "fk_steering", {"n": nfe // STEPS, "factor": 1.0}),
        ):
            found = bench.run(f"{name[:3]}-{nfe}", kind, given, draws, nfe=nfe)
            rows[f"{name}, {nfe}"] = summary(found) | {
                "reward_minus_best_of_n": minus(found, plain[nfe], reward),
                "hit_minus_best_of_n": minus(found, plain[nfe]),
            }
    lost = sum(rows[f"DTS*, {nfe}"]["reward_minus_best_of_n"]["value"] < 0 for nfe in BUDGETS)
    verdict = [
        f"{'falsified' if lost >= 2 else 'holds'}: best-of-n has the higher reward at {lost} of {len(BUDGETS)} budgets"
    ]
    for nfe in BUDGETS:
        mine = rows[f"DTS*, {nfe}"]["reward"]["value"]
        reached = [n for n in plain if rows[f"best of n, {n}"]["reward"]["value"] >= mine]
        times = f"{min(reached) / nfe:.1f}" if reached else f"more than {max(plain) / nfe:.1f}"
        verdict.append(f"best-of-n reaches the reward of DTS* at {nfe} NFE with {times} times as many")
    exact = chains()
    for name, errors in exact.items():
        verdict.append(f"chains, {name}: total variation {', '.join(f'{error:.3f}' for error in errors.values())}")
    law = sets(bench)
    for name, row in law.items():
        verdict.append(
            f"as a sampler, {name}: distance {row['frechet']:.2f}, {100 * row['sevens']:.0f}% sevens, "
            f"{row['pictures']:.0f} different pictures a run"
        )
    result = {"steps": STEPS, "target": TARGET, "rows": rows, "chains": exact, "sets": law}
    finish(HERE, len(draws), result, verdict)
    titles = {"reward": "log-probability of a seven, by the scorer", "hit": "sevens for the judge, %"}
    plot(grouped((label.rpartition(", ")[0], row) for label, row in rows.items()), titles, HERE / "plot.png")


if __name__ == "__main__":
    main()
