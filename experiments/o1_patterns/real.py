"""Row 51 on real samples: which selector makes the most of a pool, and how far is it from an oracle?

    python -m experiments.o1_patterns.real     # a minute, without a model; writes real.json and real.png

The samples are those of the committed banks. Selectors that cost nothing choose among 2, 4 and 8 of them.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

from experiments.banks.judge import exports, judged_pool
from experiments.intervals import difference, mean
from experiments.o1_patterns.control import SIZES, oracle
from experiments.plot import line, logarithmic, panels, save
from experiments.provenance import FORCE, provenance, refuse_another, write_json
from thinktime.bench.samples import Pool, Sampled
from thinktime.bench.selectors import curve
from thinktime.bench.verifiers import FREE, Scoring
from thinktime.core.selection import best, majority

HERE = Path(__file__).parent
SELECTORS = ("confidence", "likelihood", "shortness")


def scored(problem: Sampled, scoring: Scoring) -> Sampled:
    """The problem with a free verifier's scores as rewards."""
    return replace(problem, samples=tuple(replace(each, reward=scoring(problem, each)) for each in problem.samples))


def measure(pool: Pool, seed: int) -> dict[str, Any]:
    """Accuracy by selector and by size of the pool, against one sample and against the oracle."""
    problems, sizes = pool.problems, [n for n in SIZES if n <= pool.fewest]
    single = [problem.pass_rate for problem in problems]
    chosen = {name: curve([scored(p, FREE[name][0]) for p in problems], sizes, best, seed=seed) for name in SELECTORS}
    chosen["vote"] = curve(problems, sizes, majority, seed=seed)
    chosen["oracle"] = curve(list(map(oracle, problems)), sizes, best, seed=seed)
    samples = [sample for problem in problems for sample in problem.samples]
    return {
        "generator": pool.generator,
        "setting": pool.setting,
        "n_problems": len(problems),
        "samples": {
            "total": len(samples),
            "unreadable": sum(sample.ended and sample.key is None for sample in samples),
            "cut": sum(not sample.ended for sample in samples),
        },
        "tokens_of_a_sample": fmean(sample.length for sample in samples),
        "single": mean(single),
        "by_selector": {
            name: {
                str(n): {
                    "accuracy": points[n].accuracy.as_dict(),
                    "minus_single": difference(points[n].each, single),
                    "minus_vote": difference(points[n].each, chosen["vote"][n].each),
                    "minus_oracle": difference(points[n].each, chosen["oracle"][n].each),
                }
                for n in sizes
            }
            for name, points in chosen.items()
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=["gsm8k-program"], help="of committed banks")
    parser.add_argument("--out", type=Path, default=HERE)
    parser.add_argument(FORCE, action="store_true", help="overwrite the result of another command")
    args = parser.parse_args()
    made = provenance(HERE, 0, "real")
    refuse_another(args.out / "real.json", made["command"], force=args.force)
    paths: Sequence[Path] = exports(args.names)
    pools = {name: measure(judged_pool(path), 0) for name, path in zip(args.names, paths, strict=True)}
    write_json(args.out / "real.json", made | {"pools": pools})
    plot(pools, args.out / "real.png")


def plot(pools: Mapping[str, Any], path: Path) -> None:
    """Accuracy against the size of the pool, a line a selector."""
    figure, table = panels(len(pools), 6 * len(pools), 4.4)
    for axes, (name, one) in zip(table, pools.items(), strict=True):
        for colour, (selector, by_size) in enumerate(one["by_selector"].items()):
            sizes = [1, *map(int, by_size)]
            estimates = [one["single"], *(each["accuracy"] for each in by_size.values())]
            line(axes, sizes, estimates, colour, selector, "o--" if selector == "oracle" else "o-")
        logarithmic(axes, "samples in the pool")
        axes.set(title=name, ylabel="right answers, %")
        axes.legend(fontsize=8)
    save(figure, path)


if __name__ == "__main__":
    main()
