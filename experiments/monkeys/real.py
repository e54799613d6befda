"""Repeated sampling on samples of a real model: coverage, its law, and what can be selected (2407.21787).

    python -m experiments.monkeys.real                   # all committed exports; a minute
    python -m experiments.monkeys.real --real humaneval  # one of them

For functions with tests, best-of-n by the tests is coverage itself. Beside it stand selectors that need no reference:
the vote over answers, the likeliest sample, and the examples that the prompt shows. Writes ``real.json`` and
``real.png``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from experiments.intervals import as_number, difference, mean
from experiments.monkeys import coverage as laws
from experiments.monkeys.control import fitted
from experiments.monkeys.health import Judged
from experiments.monkeys.health import health as health_of
from experiments.plot import COLOURS, line, logarithmic, panels, save
from experiments.pools import beside_greedy, describe, run, selectors, text
from thinktime.bench.samples import Pool
from thinktime.bench.selectors import curve
from thinktime.bench.statistics import pass_at_k
from thinktime.core.errors import InputError

HERE = Path(__file__).parent
FEWEST, FITTED = 4, 5
"""Samples of a problem without which there is nothing to measure, and no law to fit."""
SELECTORS = {"vote": 3, "likeliest sample": 2, "examples of the prompt": 4}
"""Their colours."""
FORECAST = 64
"""Samples for which the fits are extrapolated."""


def examples(pool: Pool, seed: int) -> dict[str, Any] | None:
    """The errors of the examples as a verifier of the tests; None for a task without examples."""
    shown = [
        [Judged((sample.reward == 1,), sample.correct) for sample in problem.samples if sample.reward is not None]
        for problem in pool.problems
    ]
    shown = [samples for samples in shown if samples]
    if not shown:
        return None
    found = health_of(shown, seed)
    shares = {name: getattr(found, name) for name in ("false_positives", "false_negatives", "wrong_accepted")}
    return {"n_problems": len(shown)} | {name: share and share.as_dict() for name, share in shares.items()}


def chance(pool: Pool, k: int) -> list[float] | None:
    """Coverage by guessing of each problem; None if answers are programs."""
    if any(problem.reference is None for problem in pool.problems):
        return None
    answers = [[sample.key for sample in problem.samples] for problem in pool.problems]
    return laws.chance(answers, [problem.reference for problem in pool.problems], k)


def forecast(pool: Pool, seen: int) -> dict[str, float]:
    """The laws of the first ``seen`` k, at all samples."""
    most = pool.fewest
    counts = [(most, right) for _, right in pool.counts]
    ks = list(range(1, seen + 1))
    power = laws.fit_power_law(ks, [laws.coverage(counts, k) for k in ks])
    rates = laws.fit_rates([(seen, sum(s.correct for s in problem.samples[:seen])) for problem in pool.problems])
    truth = laws.coverage(counts, most)
    return {"seen": seen, "k": most, "truth": truth, "power_law": power(most) - truth, "rates": rates(most) - truth}


def measure(pool: Pool, seed: int) -> dict[str, Any]:
    """Everything about one pool; each problem has the same number of samples."""
    if pool.fewest < FEWEST:
        raise InputError("samples", pool.fewest, f"{FEWEST} of every problem are needed; name other exports")
    most = pool.fewest
    pool = replace(pool, problems=tuple(replace(p, samples=p.samples[:most]) for p in pool.problems))
    ks = [2**i for i in range(most.bit_length()) if 2**i <= most]
    full = {k: [pass_at_k(n, right, k) for n, right in pool.counts] for k in ks}
    points = {
        name: curve(pool.problems, ks, of, score=score, seed=seed) for name, (of, score) in selectors(pool).items()
    }
    law, exponent = fitted(pool.counts, most, seed) if most >= FITTED else (None, None)
    rates = laws.fit_rates(pool.counts)
    guesses = {k: chance(pool, k) for k in ks}
    samples = [sample for problem in pool.problems for sample in problem.samples]
    return describe(pool) | {
        "samples": {
            "each": most,
            "right": sum(sample.correct for sample in samples),
            "without_answer": sum(sample.key is None for sample in samples),
            "cut": sum(not sample.ended for sample in samples),
            "tokens_each": fmean(sample.length for sample in samples),
        },
        "never_solved_share": fmean(right == 0 for _, right in pool.counts),
        "coverage": {str(k): mean(full[k], seed) for k in ks},
        "chance_coverage": {str(k): fmean(guess) if (guess := guesses[k]) else None for k in ks},
        "gain_of_last_doubling": difference(full[most], full[ks[-2]], seed),
        "gain_of_last_doubling_above_chance": _above(full, guesses, ks, seed),
        "gain": difference(full[most], full[1], seed),
        "selectors": {name: {str(k): of[k].accuracy.as_dict() for k in ks} for name, of in points.items()},
        "selector_minus_one_sample": {name: difference(of[most].each, full[1], seed) for name, of in points.items()},
        "gap": {name: difference(full[most], of[most].each, seed) for name, of in points.items()},
        "examples": examples(pool, seed),
        "power_law": law and asdict(law) | {"exponent": exponent, f"at_{FORECAST}": law(FORECAST)},
        "rates": asdict(rates) | {f"at_{FORECAST}": rates(FORECAST)},
        "forecast": forecast(pool, most // 2) if most >= 2 * FITTED else None,
    }


def _above(
    full: Mapping[int, Sequence[float]], guesses: Mapping[int, list[float] | None], ks: Sequence[int], seed: int
) -> Any:
    most, before = ks[-1], ks[-2]
    high, low = guesses[most], guesses[before]
    if high is None or low is None:
        return None
    after = [covered - guess for covered, guess in zip(full[most], high, strict=True)]
    return difference(after, [covered - guess for covered, guess in zip(full[before], low, strict=True)], seed)


def verdict(measured: Mapping[str, Any]) -> dict[str, Any]:
    """Coverage must grow above chance with the last doubling, and no selector without a reference may close the gap."""
    growth = measured["gain_of_last_doubling_above_chance"] or measured["gain_of_last_doubling"]
    open_gaps = all(gap["low"] > 0 for gap in measured["gap"].values())
    holds = growth["low"] > 0 and open_gaps
    return {
        "verdict": "holds" if holds else "does not hold",
        "still_grows": growth["low"] > 0,
        "gap_stays_open": open_gaps,
    }


def plot(result: Mapping[str, Any], path: Path) -> None:
    """A panel a task: coverage, its law up to 64 samples, and the selectors."""
    figure, each = panels(len(result["pools"]), 5.4 * len(result["pools"]), 4.6, sharey=True)
    for axes, (name, pool) in zip(each, result["pools"].items(), strict=True):
        ks = [int(k) for k in pool["coverage"]]
        line(axes, ks, pool["coverage"].values(), 1, "coverage (a perfect verifier)")
        for selector, points in pool["selectors"].items():
            line(axes, ks, points.values(), SELECTORS[selector], selector, "s-")
        fine = laws.grid(FORECAST)
        if fit := pool["power_law"]:
            law = laws.PowerLaw(fit["a"], fit["b"], fit["mean_error"], fit["max_error"])
            axes.plot(fine, [100 * law(k) for k in fine], "--", color=COLOURS[0], lw=1.2, label="power law")
        rates = laws.Rates(pool["rates"]["alpha"], pool["rates"]["beta"])
        axes.plot(fine, [100 * rates(k) for k in fine], "-.", color=COLOURS[6], lw=1.2, label="Beta of success rates")
        logarithmic(axes, "samples per problem, k")
        axes.set_title(f"{name}: {pool['n_problems']} problems, {pool['samples']['each']} samples of each")
    each[0].set(ylabel="right, %", ylim=(0, 100))
    handles: dict[str, Any] = {}
    for axes in each:
        handles |= dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    figure.legend(
        handles.values(), handles.keys(), loc="outside lower center", ncols=3 if len(each) > 1 else 2, fontsize=9
    )
    save(figure, path, (0, 0.15, 1, 1))


def lines(measured: Mapping[str, Any]) -> Iterator[str]:
    """What is printed of a pool."""
    for k, share in measured["coverage"].items():
        chosen = "  ".join(f"{name} {text(of[k])}" for name, of in measured["selectors"].items())
        yield f"k={k:>3} coverage {text(share)}  {chosen}"
    if law := measured["power_law"]:
        yield f"exponent {as_number(law['exponent'])}, mean error {law['mean_error']:.4f}"
    at = {name: of and round(of[f"at_{FORECAST}"], 3) for name in ("power_law", "rates") for of in [measured[name]]}
    yield f"forecast {measured['forecast']}; at {FORECAST}: {at}"
    yield f"gaps {', '.join(f'{name} {text(gap)}' for name, gap in measured['gap'].items())}"
    yield f"examples {measured['examples']}"


if __name__ == "__main__":
    run(HERE, __doc__, measure, verdict, plot, lines, beside_greedy, module="real")
