"""The cascade's control and map: constructed samples, where a dial says how well agreement tells right from wrong.

    python -m experiments.cascade.control      # half a minute on one core

A sample of the small model is right with the problem's own probability, from 0.1 to 0.9. One of the large model is
right with a probability that is 0.05 to 0.4 higher, at most 0.98. A token of the large model costs 10 times as much. A
wrong sample gives the problem's attractive wrong answer with the probability on the dial, and else one of a thousand
rare ones. At 0, only right samples agree. At 1, wrong ones agree as well.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from random import Random
from typing import Any

from experiments.cascade.replay import SETTINGS, Model, Pair
from experiments.plot import line, panels, save
from experiments.provenance import begin, write_json
from thinktime.bench.samples import Sample, Sampled

HERE = Path(__file__).parent
ATTRACTIONS = (0.0, 0.25, 0.5, 0.75, 1.0)
PRICES = (2.0, 3.0, 10.0, 30.0)
SAMPLES, TOKENS, PRICE, ATTRACTION = 8, 60, 10.0, 0.25


def problem(name: str, attraction: float) -> tuple[Sampled, Sampled]:
    """The samples of the small and of the large model. The right ones are the same at any attraction."""
    rng = Random(name)
    chance = rng.uniform(0.1, 0.9)
    chances = chance, min(0.98, chance + rng.uniform(0.05, 0.4))
    small, large = (Sampled(name, tuple(_sample(rng, each, attraction) for _ in range(SAMPLES))) for each in chances)
    return small, large


def _sample(rng: Random, chance: float, attraction: float) -> Sample:
    right, attracted, rare = rng.random() < chance, rng.random() < attraction, rng.randrange(1000)
    return Sample(TOKENS, "right" if right else "attractive" if attracted else f"rare {rare}", right)


def pair(problems: int, attraction: float, price: float) -> Pair:
    """Both models on all problems."""
    small, large = zip(*(problem(f"cascade {i}", attraction) for i in range(problems)), strict=True)
    return Pair(Model(small), Model(large, price))


def main() -> None:
    args, made = begin(HERE, __doc__, "control", "control.json", problems=500)
    dial = {str(each): pair(args.problems, each, PRICE).measure() for each in ATTRACTIONS}
    prices = {str(each): pair(args.problems, ATTRACTION, each).measure()["cascade"] for each in PRICES}
    result = {**made, "n_problems": args.problems, "price": PRICE, "attraction": dial, "by_price": prices}
    write_json(args.out / "control.json", result)
    plot(result, args.out / "control.png")


def plot(result: Mapping[str, Any], path: Path) -> None:
    """Points over random deferral, and over what costs the same, against the AUC of the agreement."""
    figure, axes_of = panels(2, 11, 4.2)
    rows = list(result["attraction"].values())
    measures = {
        "minus_random_deferral": "points over random deferral",
        "minus_equal_cost": "points over both models alone at equal cost",
    }
    for axes, (measure, label) in zip(axes_of, measures.items(), strict=True):
        for colour, (n, threshold) in enumerate(SETTINGS):
            name = f"n={n}, threshold {threshold:g}"
            line(
                axes,
                [row["auc"][str(n)] for row in rows],
                [row["cascade"][name][measure] for row in rows],
                colour,
                name,
            )
        axes.axhline(0, color="#999999", lw=0.8)
        axes.set_xlabel("AUC of the agreement over problems")
        axes.set_ylabel(label)
        axes.legend(fontsize=8)
    save(figure, path)


if __name__ == "__main__":
    main()
