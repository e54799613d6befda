"""Row 35, positive control: the tree on a diffusion whose target is known, against the rarity of what is wanted.

    python -m experiments.dts.control            # 10 minutes; goes on where it was stopped

The model is `experiments.mixture`: exact steps, no network. As a sampler the tree has to converge to
``p * exp(factor * reward)``; the factor gives the wanted mode half of the mass if no other mode has a reward. As a
search the greedy tree has to find the wanted mode with fewer evaluations than best-of-n, whose chance is known exactly.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from functools import partial
from math import log
from pathlib import Path
from typing import Any

from experiments.intervals import Estimate, as_number, mean
from experiments.mixture import MEANS, Mixture, nearest
from experiments.plot import COLOURS, line, logarithmic, panels, save
from experiments.provenance import provenance, write_json
from thinktime.bench.statistics import SHARES, mean_interval
from thinktime.core.particles import normalised
from thinktime.core.search import Search
from thinktime.core.usage import Budget
from thinktime.strategies.diffusion.dts import DTS
from thinktime.strategies.diffusion.fk_steering import FKSteering
from thinktime.testing.chains import descents

HERE = Path(__file__).parent
RARITIES, HINTS, STEPS = (0.1, 0.03, 0.01), (0.0, 0.5), 20
SAMPLES = (10, 40, 160)
"""Budgets, in plain samples that cost as much."""
TREES, SEARCHES = 10, 40
DEPTHS = (5, 10, 20)
MOST = 65536
"""The most rounds of a tree; its budget ends it sooner."""

Law = list[float]
"""The probability of each mode."""
Sampler = Callable[[Search, float, int], Awaitable[Law]]


def modes(weights: Mapping[Any, float]) -> Law:
    """The probability of each mode, from weighted end states."""
    law = [0.0] * len(MEANS)
    for spot, weight in weights.items():
        law[nearest(spot.point)] += weight
    return law


async def tree(search: Search, factor: float, n: int, widen: float, backup: str = "mean") -> Law:
    """The law of draws from a tree."""
    strategy = DTS(n=MOST, variant="sample", factor=factor, widen=widen, backup=backup)
    return modes(descents(await strategy.grow(search), factor))


async def plain(search: Search, factor: float, n: int) -> Law:
    """Samples, weighted by their reward."""
    nodes = await search.extend([search.root], n)
    scores = [factor * (score or 0.0) for score in await search.score(nodes)]
    return modes(dict(zip((node.state for node in nodes), normalised(scores), strict=True)))


async def particles(search: Search, factor: float, n: int) -> Law:
    """A population with the weights of its particles."""
    population = await FKSteering(n=n, factor=factor).filter(search)
    law = [0.0] * len(MEANS)
    weights = normalised([particle.log_weight for particle in population])
    for particle, weight in zip(population, weights, strict=True):
        law[nearest(particle.node.state.point)] += weight
    return law


SAMPLERS: dict[str, Sampler] = {
    "tree": partial(tree, widen=1.0),
    "tree, twice as wide": partial(tree, widen=2.0),
    "tree, values are summed": partial(tree, widen=1.0, backup="sum"),
    "plain weighted samples": plain,
    "particles": particles,
}


def rate(hits: Iterable[bool]) -> Estimate:
    """The share of runs that hit, with an exact interval if all or none do."""
    return mean_interval([float(hit) for hit in hits], bounds=SHARES).as_dict()


def half(rarity: float) -> float:
    """The factor at which the wanted mode has half of the mass, if it alone has a reward."""
    return log((1 - rarity) / rarity)


def sampled(mixture: Mixture, name: str, samples: int) -> list[Law]:
    """The laws of `TREES` runs of a sampler."""
    budget = Budget(nfe=samples * mixture.steps)
    return [
        asyncio.run(_sample(name, mixture.search(seed, budget), half(mixture.rarity), samples)) for seed in range(TREES)
    ]


async def _sample(name: str, search: Search, factor: float, n: int) -> Law:
    return await SAMPLERS[name](search, factor, n)


def first_hits(mixture: Mixture) -> list[int | None]:
    """Evaluations after which each greedy tree has the wanted mode; None if it has not at the end of its budget."""

    def hit(seed: int, samples: int) -> int | None:
        search = mixture.search(seed, Budget(nfe=samples * mixture.steps))
        asyncio.run(DTS(n=MOST)(search))
        spent = 0
        for record in search.trace.values():
            spent += record.node.usage.denoiser_calls
            if record.node.done and nearest(record.node.state.point) == 0:
                return spent
        return None

    # a tree with a larger budget begins with the tree of a smaller one
    return [next(filter(None, (hit(seed, n) for n in SAMPLES)), None) for seed in range(SEARCHES)]


def errors(laws: Sequence[Law], exact: Law) -> dict[str, Any]:
    """Total variation from the exact law, and the share of the wanted mode, over runs."""
    return {
        "variation": mean(sum(abs(a - b) for a, b in zip(law, exact, strict=True)) / 2 for law in laws),
        "wanted": mean(law[0] for law in laws),
        "wanted_exact": exact[0],
    }


class Kept:
    """Cells of the result that are computed once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def __call__(self, name: str, compute: Callable[[], Any]) -> Any:
        """The cell of this name."""
        path = self.folder / f"{name}.json"
        if not path.exists():
            started, found = time.perf_counter(), compute()
            path.write_text(json.dumps(found))
            print(f"{name}: {time.perf_counter() - started:.0f} s", flush=True)
        return json.loads(path.read_text())


def sampler_table(kept: Kept, mixture: Mixture, names: Sequence[str]) -> dict[str, Any]:
    """The errors of samplers at every budget."""
    exact = mixture.tilted(half(mixture.rarity))
    table: dict[str, Any] = {}
    for name in names:
        table[name] = {}
        for n in SAMPLES:
            label = f"{name}-{mixture.rarity}-{mixture.hint}-{mixture.steps}-{n}"
            table[name][str(n)] = errors(kept(label, partial(sampled, mixture, name, n)), exact)
    return table


def search_table(kept: Kept, mixture: Mixture) -> dict[str, Any]:
    """How many greedy trees have the wanted mode by each budget, and after how many evaluations on average.

    Evaluations are counted in plain samples that cost as much. A tree without a hit counts with the whole budget, and
    so does a best-of-n without one.
    """
    hits = kept(f"greedy-{mixture.rarity}-{mixture.hint}", partial(first_hits, mixture))
    most, miss = SAMPLES[-1], 1 - mixture.rarity
    until = mean(most if hit is None else hit / mixture.steps for hit in hits)
    plain_until = (1 - miss**most) / mixture.rarity
    return {
        "found": {str(n): rate(hit is not None and hit <= n * mixture.steps for hit in hits) for n in SAMPLES},
        "best_of_n": {str(n): 1 - miss**n for n in SAMPLES},
        "until_found": until,
        "best_of_n_until_found": plain_until,
        "best_of_n_takes_times": {
            "value": plain_until / until["value"],
            "low": plain_until / until["high"],
            "high": plain_until / until["low"],
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kept", type=Path, default=Path("runs/experiments/dts-control"))
    parser.add_argument("--out", type=Path, default=HERE)
    args = parser.parse_args()
    kept = Kept(args.kept)
    names = [name for name in SAMPLERS if "summed" not in name]
    result: dict[str, Any] = {"sampler": {}, "search": {}, "depth": {}}
    for hint in HINTS:
        for rarity in RARITIES:
            mixture, place = Mixture(rarity, hint, STEPS), f"rarity {rarity}, hint {hint}"
            result["search"][place] = search_table(kept, mixture)
            if not hint or rarity == RARITIES[-1]:
                result["sampler"][place] = sampler_table(kept, mixture, names)
    for steps in DEPTHS:
        result["depth"][str(steps)] = sampler_table(kept, Mixture(RARITIES[0], 0.0, steps), list(SAMPLERS))
    whole = {**provenance(HERE, 0, "control"), "steps": STEPS, "trees": TREES, "searches": SEARCHES, **result}
    write_json(args.out / "control.json", whole)
    report(whole)
    plot(whole, args.out / "control.png")


def report(result: Mapping[str, Any]) -> None:
    """Print the tables."""
    for place, row in result["search"].items():
        for n, found in row["found"].items():
            print(place, n, "found", as_number(found), f"best of n {row['best_of_n'][n]:.2f}")
        print(place, "best of n takes", as_number(row["best_of_n_takes_times"]), "times as many evaluations")
    for part in ("sampler", "depth"):
        for place, samplers in result[part].items():
            for name, rows in samplers.items():
                for n, row in rows.items():
                    shares = f"{as_number(row['wanted'])} of {row['wanted_exact']:.2f}"
                    print(part, place, name, n, as_number(row["variation"]), shares)


def plot(result: Mapping[str, Any], path: Path) -> None:
    """Found by greedy trees and by best-of-n, and the error of samplers, against the budget."""
    figure, (search, sampler, depth) = panels(3, 15, 4.4)
    for colour, rarity in enumerate(RARITIES):
        for hint, style in zip(HINTS, ("o--", "o-"), strict=True):
            row = result["search"][f"rarity {rarity}, hint {hint}"]
            label = f"{100 * rarity:g} %, {'graded' if hint else 'all or nothing'}"
            line(search, SAMPLES, row["found"].values(), colour, label, style)
        exact = [100 * share for share in row["best_of_n"].values()]
        search.plot(SAMPLES, exact, ":", color=COLOURS[colour], label=f"{100 * rarity:g} %, best of n")
    search.set(title="the wanted mode is found, %")
    for colour, (name, rows) in enumerate(result["sampler"][f"rarity {RARITIES[0]}, hint 0.0"].items()):
        line(sampler, SAMPLES, [row["variation"] for row in rows.values()], colour, name, scale=1)
    sampler.set(title=f"total variation, wanted mode {100 * RARITIES[0]:g} %")
    for colour, steps in enumerate(DEPTHS):
        for name, style in (("tree", "o-"), ("tree, twice as wide", "o--")):
            rows = result["depth"][str(steps)][name]
            line(
                depth, SAMPLES, [row["variation"] for row in rows.values()], colour, f"{name}, {steps} levels", style, 1
            )
    depth.set(title="total variation by the depth of the tree")
    for axes in (search, sampler, depth):
        logarithmic(axes, "budget, in plain samples")
        axes.legend(fontsize=7)
    save(figure, path)


if __name__ == "__main__":
    main()
