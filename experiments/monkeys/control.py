"""Repeated sampling where the law of coverage and the quality of the verifier are true by construction (2407.21787).

    python -m experiments.monkeys.control            # two minutes; writes control.json and control.png

The law: 400 problems have success rates from a mixture whose coverage is exp(a k^-b) for 1 to 1,024 samples, with a
coverage of 0.3 at one sample. 256 samples of each are drawn, and the law is fitted to them: does it find b? Fitted to
16 of them, does it forecast 256?

The verifier: samples have answers, and scores of a chosen AUC. A right answer is unlike any other; of wrong samples six
in ten agree. How much of coverage does a selection of n samples reach, by AUC?
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from math import log
from pathlib import Path
from random import Random
from statistics import fmean
from typing import Any

import numpy as np
from scipy.optimize import nnls

from experiments.constructed import shift
from experiments.intervals import Floats, difference, mean
from experiments.monkeys import coverage as laws
from experiments.plot import COLOURS, line, logarithmic, panels, save
from experiments.provenance import FORCE, provenance, refuse_another, write_json
from thinktime.bench.samples import Sample, Sampled
from thinktime.bench.selectors import curve
from thinktime.bench.statistics import pass_at_k
from thinktime.core.selection import best, majority

HERE = Path(__file__).parent
EXPONENTS = (0.2, 0.3, 0.4, 0.5, 0.6)
FIRST = 0.3
"""Coverage at one sample."""
PROBLEMS, SAMPLES, SEEN = 400, 256, 16
AUCS = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)
MAPPED = 0.3
"""The exponent of the problems of the map."""
SIZES = (1, 4, 16, 64)
REFITS = 500
DRAWS = 20


def mixture(exponent: float) -> tuple[Floats, Floats, float]:
    """Success rates and their weights, of which coverage is the law; and the greatest error of that coverage."""
    rates, ks = np.logspace(-7, 0, 300), np.array(laws.grid(1024, 60), dtype=float)
    law = np.exp(log(FIRST) * ks**-exponent)
    covered = 1 - (1 - rates)[None, :] ** ks[:, None]
    total = 100.0  # holds the sum of the weights at 1
    weights, _ = nnls(np.vstack([covered, np.full(len(rates), total)]), np.append(law, total), maxiter=20_000)
    return rates, weights / weights.sum(), float(np.abs(covered @ weights - law).max())


def fitted(
    counts: Sequence[tuple[int, int]], most: int, seed: int, refits: int = REFITS
) -> tuple[laws.PowerLaw, dict[str, Any]]:
    """The law of all k up to ``most``, and its exponent with an interval over problems."""
    ks = laws.grid(most)
    table = np.array([[pass_at_k(n, right, k) for k in ks] for n, right in counts])
    law = laws.fit_power_law(ks, table.mean(0).tolist())
    rng = np.random.default_rng(seed)
    drawn = [
        laws.fit_power_law(ks, table[rng.integers(0, len(table), len(table))].mean(0).tolist()).b for _ in range(refits)
    ]
    low, high = np.percentile(drawn, [2.5, 97.5])
    return law, {"value": law.b, "low": float(low), "high": float(high)}


def recovered(exponent: float, seed: int) -> dict[str, Any]:
    """The law of one exponent, drawn and fitted."""
    rates, weights, error = mixture(exponent)
    rng = np.random.default_rng([seed, round(100 * exponent)])
    counts = [(SAMPLES, int(rng.binomial(SAMPLES, p))) for p in rng.choice(rates, PROBLEMS, p=weights)]
    law, interval = fitted(counts, SAMPLES, seed)
    early = laws.fit_power_law(laws.grid(SEEN), [laws.coverage(counts, k) for k in laws.grid(SEEN)])
    covered = {k: [pass_at_k(n, right, k) for n, right in counts] for k in (1, SEEN, SAMPLES)}
    return {
        "error_of_construction": error,
        "exponent": interval,
        "a": law.a,
        "mean_error_of_fit": law.mean_error,
        "coverage": {str(k): mean(each, seed) for k, each in covered.items()},
        "gain": difference(covered[SAMPLES], covered[1], seed),
        "growth_after_16": difference(covered[SAMPLES], covered[SEEN], seed),
        "forecast_error": early(SAMPLES) - laws.coverage(counts, SAMPLES),
    }


def verified(auc: float, seed: int, problems: int = PROBLEMS // 2) -> list[Sampled]:
    """Problems of the mapped law, whose samples have scores of this AUC; only the scores depend on the AUC."""
    rates, weights, _ = mixture(MAPPED)
    found = []
    for place, rate in enumerate(np.random.default_rng(seed).choice(rates, problems, p=weights)):
        rng, samples = Random(f"{seed}/{place}"), []
        for _ in range(SIZES[-1]):
            right, noise, wrong = rng.random() < rate, rng.gauss(0, 1), rng.randint(2, 9)
            attractive = rng.random() < 0.6
            key = f"{place}: {'right' if right else 1 if attractive else wrong}"
            samples.append(Sample(1, key, right, reward=noise + (shift(auc) if right else 0.0)))
        found.append(Sampled(str(place), tuple(samples), f"{place}: right"))
    return found


def map_of(seed: int) -> dict[str, Any]:
    """Coverage, the vote and best-of-n by size; best-of-n minus one sample, and minus the vote of the same n."""
    result: dict[str, Any] = {"by_auc": {}}
    for auc in AUCS:
        problems = verified(auc, seed)
        votes = curve(problems, SIZES, majority, draws=DRAWS, seed=seed)
        chosen = curve(problems, SIZES, best, draws=DRAWS, seed=seed)
        full = {n: [pass_at_k(*problem.counts, n) for problem in problems] for n in SIZES}
        result["coverage"] = {str(n): mean(full[n], seed) for n in SIZES}
        result["majority"] = {str(n): votes[n].accuracy.as_dict() for n in SIZES}
        result["by_auc"][str(auc)] = {
            str(n): {
                "best_of_n": chosen[n].accuracy.as_dict(),
                "minus_one_sample": difference(chosen[n].each, full[1], seed),
                "minus_majority": difference(chosen[n].each, votes[n].each, seed),
                "share_of_gain": (fmean(chosen[n].each) - fmean(full[1])) / (fmean(full[n]) - fmean(full[1]) or 1.0),
            }
            for n in SIZES
        }
    return result


def plot(result: Mapping[str, Any], path: Path) -> None:
    """The fitted exponent against the true one, and what a selection reaches against the AUC of its verifier."""
    figure, (left, right) = panels(2, 11.5, 4.4)
    by = result["by_exponent"]
    left.plot([0, 0.7], [0, 0.7], color=COLOURS[0], lw=0.8, label="fitted = true")
    line(left, map(float, by), [row["exponent"] for row in by.values()], 1, "256 samples of 400 problems", "o", scale=1)
    left.set(
        xlabel="exponent of the law",
        ylabel="fitted exponent",
        title="the law of coverage",
        xlim=(0, 0.7),
        ylim=(0, 0.7),
    )
    left.legend()
    mapped = result["map"]
    sizes = list(map(int, mapped["coverage"]))
    line(right, sizes, mapped["coverage"].values(), 2, "coverage (a perfect verifier)", "o--")
    line(right, sizes, mapped["majority"].values(), 0, "vote", "s-")
    for place, (auc, row) in enumerate(mapped["by_auc"].items()):
        if auc in ("0.5", "0.7", "0.9", "0.99"):
            chosen = [row[str(n)]["best_of_n"] for n in sizes]
            line(right, sizes, chosen, (4, 0, 5, 0, 1, 0, 3)[place], f"best of n, AUC {auc}")
    logarithmic(right, "samples, n")
    right.set(ylabel="right, %", title="what a selection makes of it")
    right.legend(fontsize=8)
    save(figure, path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=HERE)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(FORCE, action="store_true", help="overwrite the result of another command")
    args = parser.parse_args()
    made = provenance(HERE, args.seed, "control")
    refuse_another(args.out / "control.json", made["command"], force=args.force)
    found = {str(exponent): recovered(exponent, args.seed) for exponent in EXPONENTS}
    result = made | {"n_problems": PROBLEMS, "n_samples": SAMPLES, "by_exponent": found, "map": map_of(args.seed)}
    write_json(args.out / "control.json", result)
    plot(result, args.out / "control.png")
    for exponent, row in found.items():
        print(exponent, row["exponent"], f"forecast off by {row['forecast_error']:+.4f}", row["gain"])
    for auc, row in result["map"]["by_auc"].items():
        print(auc, {n: f"{100 * at['best_of_n']['value']:.1f}" for n, at in row.items()})


if __name__ == "__main__":
    main()
