"""Row 35, positive control: the tree on a diffusion whose target is known, against the rarity of what is wanted.

    python -m experiments.dts.control            # 10 minutes; goes on where it was stopped

The model is `experiments.mixture`: exact steps, no network. As a sampler the tree has to converge to
``p * exp(factor * reward)``; the factor gives the wanted mode half of the mass if no other mode has a reward. As a
search the greedy tree has to find the wanted mode with fewer evaluations than best-of-n, whose chance is known exactly.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from functools import partial
from math import log
from pathlib import Path
from typing import Any

from experiments.intervals import Estimate, as_number, mean
from experiments.kept import Kept
from experiments.mixture import MEANS, Mixture, nearest
from experiments.plot import COLOURS, line, logarithmic, panels, save
from experiments.provenance import provenance, write_json
from thinktime.bench.statistics import SHARES, mean_interval
from thinktime.core.particles import normalised
from thinktime.core.search import Search
from thinktime.core.usage import Budget
from thinktime.strategies import make
from thinktime.strategies.diffusion.dts import DTS
from thinktime.strategies.diffusion.fk_steering import FKSteering
from thinktime.testing.chains import descents

HERE = Path(__file__).parent
SAMPLES = (10, 40, 160)
"""Budgets of samplers, in plain samples that cost as much."""
RARITIES, STRIDES = (0.1, 0.03), (1, 4)
"""Of the samplers. With a larger stride the tree has fewer levels."""
SIZES = (10, 20, 40, 80)
"""Budgets of searches."""
PLACES = ((0.1, 0.5), (0.03, 0.5), (0.01, 0.5), (0.03, 0.0))
"""Rarity and hint of the searches."""
ARMS: Mapping[str, tuple[int, Mapping[str, float]]] = {
    "defaults": (1, {}),
    "four steps at once": (4, {}),
    "four steps at once, narrow": (4, {"alpha": 0.25, "explore": 0.2}),
}
"""Strides and options of the greedy trees."""
TREES, SEARCHES = 10, 40
MOST, ROUNDS = 65536, 4096
"""The most rounds of a tree that samples, and of one that searches; rounds that end at a known end cost nothing."""

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


TREE_SAMPLERS = ["tree", "tree, twice as wide"]


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


def first_hits(mixture: Mixture, options: Mapping[str, float]) -> list[int | None]:
    """Evaluations after which each greedy tree has the wanted mode; None if it has not at the end of its budget."""

    def hit(seed: int, samples: int) -> int | None:
        search = mixture.search(seed, Budget(nfe=samples * mixture.steps))
        asyncio.run(make("dts", {"n": ROUNDS, **options})(search))
        spent = 0
        for record in search.trace.values():
            spent += record.node.usage.denoiser_calls
            if record.node.done and nearest(record.node.state.point) == 0:
                return spent
        return None

    # a tree with a larger budget begins with the tree of a smaller one
    return [next(filter(None, (hit(seed, n) for n in SIZES)), None) for seed in range(SEARCHES)]


def errors(laws: Sequence[Law], exact: Law) -> dict[str, Any]:
    """Total variation from the exact law, and the share of the wanted mode, over runs."""
    return {
        "variation": mean(sum(abs(a - b) for a, b in zip(law, exact, strict=True)) / 2 for law in laws),
        "wanted": mean(law[0] for law in laws),
        "wanted_exact": exact[0],
    }


def sampler_table(kept: Kept, mixture: Mixture, names: Sequence[str]) -> dict[str, Any]:
    """The errors of samplers at every budget."""
    exact = mixture.tilted(half(mixture.rarity))
    table: dict[str, Any] = {}
    for name in names:
        table[name] = {}
        for n in SAMPLES:
            label = f"{name}, {mixture.rarity}, {mixture.stride}, {n}"
            table[name][str(n)] = errors(kept(label, partial(sampled, mixture, name, n)), exact)
    return table


def search_table(kept: Kept, mixture: Mixture, name: str) -> dict[str, Any]:
    """How many greedy trees have the wanted mode by each budget, and after how many evaluations on average.

    Evaluations are counted in plain samples that cost as much. A tree without a hit counts with the whole budget, and
    so does a best-of-n without one.
    """
    label = f"search, {name}, {mixture.rarity}, {mixture.hint}"
    hits = kept(label, partial(first_hits, mixture, ARMS[name][1]))
    most, miss = SIZES[-1], 1 - mixture.rarity
    until = mean(most if hit is None else hit / mixture.steps for hit in hits)
    plain_until = (1 - miss**most) / mixture.rarity
    return {
        "found": {str(n): rate(hit is not None and hit <= n * mixture.steps for hit in hits) for n in SIZES},
        "best_of_n": {str(n): 1 - miss**n for n in SIZES},
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
    result: dict[str, Any] = {"search": {}, "sampler": {}, "depth": {}}
    for rarity, hint in PLACES:
        result["search"][f"{rarity}, hint {hint}"] = {
            name: search_table(kept, Mixture(rarity, hint, stride=stride), name) for name, (stride, _) in ARMS.items()
        }
    for rarity in RARITIES:
        result["sampler"][str(rarity)] = sampler_table(kept, Mixture(rarity), list(SAMPLERS))
    for stride in STRIDES:
        result["depth"][str(stride)] = sampler_table(kept, Mixture(RARITIES[0], stride=stride), TREE_SAMPLERS)
    whole = {**provenance(HERE, 0, "control"), "trees": TREES, "searches": SEARCHES, **result}
    write_json(args.out / "control.json", whole)
    report(whole)
    plot(whole, args.out / "control.png")


def report(result: Mapping[str, Any]) -> None:
    """Print the tables."""
    for place, arms in result["search"].items():
        for name, row in arms.items():
            shares = ", ".join(f"{n}: {as_number(each)}" for n, each in row["found"].items())
            print(place, name, "found by", shares)
            print("   best of n takes", as_number(row["best_of_n_takes_times"]), "times as many evaluations")
    for part in ("sampler", "depth"):
        for place, samplers in result[part].items():
            for name, rows in samplers.items():
                for n, row in rows.items():
                    shares = f"{as_number(row['wanted'])} of {row['wanted_exact']:.2f}"
                    print(part, place, name, n, as_number(row["variation"]), shares)


def plot(result: Mapping[str, Any], path: Path) -> None:
    """Found by greedy trees and by best-of-n, and the error of samplers, against the budget."""
    figure, (search, times, sampler) = panels(3, 15, 4.4)
    place = result["search"]["0.01, hint 0.5"]
    for colour, (name, row) in enumerate(place.items(), 1):
        line(search, SIZES, row["found"].values(), colour, f"DTS*, {name}")
    search.plot(SIZES, [100 * share for share in row["best_of_n"].values()], ":", color=COLOURS[0], label="best of n")
    search.set(title="the wanted mode (1 %) is found, %")
    rarities = [rarity for rarity, hint in PLACES if hint]
    for colour, name in enumerate(ARMS, 1):
        rows = [result["search"][f"{rarity}, hint 0.5"][name]["best_of_n_takes_times"] for rarity in rarities]
        line(times, [100 * rarity for rarity in rarities], rows, colour, f"DTS*, {name}", scale=1)
    times.axhline(1, ls=":", color=COLOURS[0])
    times.set(title="best of n takes times as many evaluations", ylim=(0, None))
    for colour, (name, rows) in enumerate(result["sampler"][str(RARITIES[0])].items()):
        line(sampler, SAMPLES, [row["variation"] for row in rows.values()], colour, name, scale=1)
    rows = result["depth"][str(STRIDES[-1])][TREE_SAMPLERS[-1]]
    label = f"{TREE_SAMPLERS[-1]}, four steps at once"
    line(sampler, SAMPLES, [row["variation"] for row in rows.values()], len(SAMPLERS), label, scale=1)
    sampler.set(title="samplers: total variation from the target (10 % wanted)", ylim=(0, None))
    for axes, title in (
        (search, "plain samples"),
        (times, "% of plain samples are wanted"),
        (sampler, "plain samples"),
    ):
        logarithmic(axes, f"budget, in {title}" if axes is not times else title)
        axes.legend(fontsize=7)
    save(figure, path)


if __name__ == "__main__":
    main()
