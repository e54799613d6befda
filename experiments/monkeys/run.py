"""Repeated sampling: how coverage grows, how well that is forecast, and how much of it votes can use (2407.21787).

    python -m experiments.monkeys.run [FOLDER]      # recorded samples; about a minute
    python -m experiments.monkeys.run --bank FILE   # the shipped model's samples

Beside coverage, which is an oracle's, stands a verifier that needs no reference: the arithmetic of a solution worked
out again. No model here writes programs; a bench of any model that does takes ``programs:FILE``. Writes
``recorded.json`` and ``recorded.png`` (or ``pocket.*``) beside this file.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from random import Random
from statistics import fmean, pstdev
from typing import Any

from experiments.intervals import Estimate, difference, mean
from experiments.monkeys import coverage as laws
from experiments.monkeys.health import Judged
from experiments.monkeys.health import health as health_of
from experiments.plot import COLOURS, legend_below, line, logarithmic, panels, save
from experiments.pools import describe, run, text
from thinktime.answers import canonical, extract
from thinktime.bench.execution import arithmetic
from thinktime.bench.samples import Pool, Sample, Sampled
from thinktime.bench.selectors import Select, SelectorPoint, curve, plateau
from thinktime.bench.statistics import pass_at_k
from thinktime.core.errors import InputError
from thinktime.core.selection import best, majority, weighted_majority

HERE = Path(__file__).parent
SEEN = 64
"""Samples a problem from which the rest is forecast; a quarter of them all where there are few."""
LEAST = 32
"""Samples a problem without which there is no growth after 16 to speak of."""
GAP_AT = 256
CLOSED = 0.01
"""A gap surely below this is closed."""
FORECASTS = 20


def curve_of(counts: Sequence[tuple[int, int]], ks: Sequence[int], seed: int) -> dict[str, Estimate]:
    """Mean pass@k by k, as far as the samples of every problem reach."""
    most = min(n for n, _ in counts)
    return {str(k): mean((pass_at_k(n, right, k) for n, right in counts), seed) for k in ks if k <= most}


def readable(sample: Sample, problem: Sampled) -> bool:
    """Whether an unreadable sample has the right answer in its text after all."""
    answer = extract(sample.text) if sample.key is None else None
    return answer is not None and problem.reference is not None and canonical(answer) == problem.reference


def health(pool: Pool) -> dict[str, Any]:
    """What is wrong with samples and labels."""
    samples = [(sample, problem) for problem in pool.problems for sample in problem.samples]
    known = [(s, p) for s, p in samples if s.judged and s.key is not None and p.reference is not None]
    distinct = list(map(laws.distinct, pool.problems))
    return {
        "unjudged": sum(not sample.judged for sample, _ in samples),
        "unreadable": sum(sample.key is None for sample, _ in samples),
        "right_but_unreadable": sum(readable(sample, problem) for sample, problem in samples),
        "labels_against_reference": sum(s.correct != (s.key == p.reference) for s, p in known),
        "distinct_texts": {"mean": fmean(distinct), "least": min(distinct)},
        "pass_rates": [round(problem.pass_rate, 4) for problem in pool.problems],
        "needle_share": laws.needles(pool.counts),
        "never_solved_share": fmean(right == 0 for _, right in pool.counts),
    }


worked_out = lru_cache(maxsize=None)(arithmetic)


def verifier(pool: Pool, ks: Sequence[int], seed: int) -> dict[str, Any]:
    """The health of the arithmetic as a verifier, and the coverage that it would claim."""
    judged = [[s for s in problem.samples if s.judged] for problem in pool.problems]
    found = health_of([[Judged((worked_out(s.text),), s.correct) for s in samples] for samples in judged], seed)
    shares = {name: getattr(found, name) for name in ("false_positives", "false_negatives", "wrong_accepted")}
    accepted = [(len(p.samples), sum(worked_out(s.text) for s in p.samples)) for p in pool.problems]
    claims = {"claimed_coverage": curve_of(accepted, ks, seed)}
    return {name: share and share.as_dict() for name, share in shares.items()} | claims


def rounded(**values: float) -> dict[str, float]:
    return {name: round(value, 6) for name, value in values.items()}


def forecasts(pool: Pool, top: int, seed: int) -> dict[str, Any]:
    """Coverage at ``top`` from few k: the law on the known curve, then both forecasters on as many samples."""
    seen = min(SEEN, top // 4)
    truth = laws.coverage(pool.counts, top)
    ks = laws.grid(seen)
    early = laws.fit_power_law(ks, [laws.coverage(pool.counts, k) for k in ks])
    rng = Random(seed)
    found: dict[str, list[float]] = {"power_law": [], "rates": []}
    for _ in range(FORECASTS):
        counts = [(seen, sum(s.correct for s in rng.sample(p.samples, seen))) for p in pool.problems]
        found["power_law"].append(laws.fit_power_law(ks, [laws.coverage(counts, k) for k in ks])(top) - truth)
        found["rates"].append(laws.fit_rates(counts)(top) - truth)
    rates, subsets = laws.fit_rates(pool.counts), {"subsets": FORECASTS}
    return {
        "k": top,
        "seen": seen,
        "times_beyond": top / seen,
        "truth": round(truth, 6),
        "power_law_on_known_curve": rounded(**asdict(early), forecast=early(top), error=early(top) - truth),
        "rates_on_all_samples": rounded(**asdict(rates), forecast=rates(top)),
        "from_seen_samples": {
            name: rounded(mean_error=fmean(e), sd=pstdev(e), mean_absolute_error=fmean(map(abs, e))) | subsets
            for name, e in found.items()
        },
    }


def selectors(pool: Pool) -> dict[str, Select]:
    """The vote, and selection by reward where there are rewards."""
    found: dict[str, Select] = {"majority": majority}
    if any(sample.reward is not None for problem in pool.problems for sample in problem.samples):
        found |= {"best_of_n": best, "weighted_majority": weighted_majority}
    return found


def selected(points: Mapping[int, SelectorPoint], ks: Sequence[int]) -> dict[str, Any]:
    return {
        "by_k": {str(k): points[k].accuracy.as_dict() | {"sd_over_subsets": round(points[k].sd, 6)} for k in ks},
        "plateau_k": plateau({k: points[k].accuracy.value for k in ks}),
    }


def above_chance(pool: Pool, ks: Sequence[int]) -> dict[int, tuple[list[float], list[float]]]:
    """Chance coverage of every problem and coverage minus it, by k; problems without a reference are left out."""
    known = [problem for problem in pool.problems if problem.reference is not None]
    answers = [[sample.key for sample in problem.samples] for problem in known]
    found = {}
    for k in ks:
        guessed = laws.chance(answers, [problem.reference for problem in known], k)
        full = [pass_at_k(*problem.counts, k) for problem in known]
        found[k] = guessed, [covered - guess for covered, guess in zip(full, guessed, strict=True)]
    return found


def measure(pool: Pool, seed: int) -> dict[str, Any]:
    """Everything about one pool."""
    if pool.fewest < LEAST:
        raise InputError("samples", pool.fewest, f"the law of coverage takes {LEAST} of every problem")
    ks = [2**i for i in range(pool.fewest.bit_length()) if 2**i <= pool.fewest]
    top = ks[-1]
    points = {name: curve(pool.problems, ks, select, seed=seed) for name, select in selectors(pool).items()}
    points["arithmetic_majority"] = curve(
        pool.problems, ks, weighted_majority, score=lambda sample: float(worked_out(sample.text)), seed=seed
    )
    fine = laws.grid(top)
    judged = [(sum(sample.judged for sample in problem.samples), problem.counts[1]) for problem in pool.problems]
    gap_k = min(GAP_AT, top)
    covered = [pass_at_k(n, right, gap_k) for n, right in pool.counts]
    gaps = {name: difference(covered, of[gap_k].each, seed) for name, of in points.items()}
    guessing = above_chance(pool, ks)
    growth = difference(guessing[top][1], guessing[16][1], seed)
    return describe(pool) | {
        "health": health(pool),
        "oracle_coverage": curve_of(pool.counts, ks, seed),
        "oracle_coverage_of_judged_samples": curve_of(judged, ks, seed),
        "chance_coverage": {str(k): round(fmean(guess), 6) for k, (guess, _) in guessing.items()},
        "oracle_coverage_minus_chance": {str(k): mean(over, seed) for k, (_, over) in guessing.items()},
        "growth_above_chance_after_16": growth | {"to_k": top},
        "power_law": rounded(**asdict(laws.fit_power_law(fine, [laws.coverage(pool.counts, k) for k in fine]))),
        "forecast": forecasts(pool, top, seed),
        "selectors": {name: selected(of, ks) for name, of in points.items()},
        "gap": {"k": gap_k} | gaps,
        "arithmetic": verifier(pool, ks, seed),
        "sample_length": round(fmean(s.length for p in pool.problems for s in p.samples), 2),
    }


def verdict(measured: Mapping[str, Any]) -> dict[str, Any]:
    """Against the falsifier: coverage minus chance must grow after k = 16, and no selector may close the gap.

    What an interval leaves open is undecided.
    """
    growth = measured["growth_above_chance_after_16"]
    gaps = {name: gap for name, gap in measured["gap"].items() if name != "k"}
    least = min(gaps.values(), key=lambda gap: gap["low"])
    ahead = measured["forecast"]["power_law_on_known_curve"]["error"]
    holds = growth["low"] > 0 and least["low"] > 0
    falsified = growth["high"] <= 0 or min(gap["high"] for gap in gaps.values()) < CLOSED
    return {
        "verdict": "holds" if holds else "falsified" if falsified else "undecided",
        "grows_above_chance_after_16": growth["low"] > 0,
        "gap_stays_open": least["low"] > 0,
        "gap_at_least_10_points": all(gap["value"] >= 0.10 for gap in gaps.values()),
        "fit_mean_error_below_0.02": measured["power_law"]["mean_error"] < 0.02,
        "forecast_within_0.05": abs(ahead) <= 0.05,
        "chance_below_0.02": measured["chance_coverage"][str(measured["gap"]["k"])] < 0.02,
    }


def plot(result: Mapping[str, Any], path: Path) -> None:
    """A panel a pool: coverage, its fits, chance, and the selectors, with intervals over problems."""
    count = len(result["pools"])
    figure, each = panels(count, 6.4 * count, 4.8, sharey=True)
    for axes, (name, pool) in zip(each, result["pools"].items(), strict=True):
        ks = [int(k) for k in pool["oracle_coverage"]]
        lines = [("coverage (oracle)", pool["oracle_coverage"], 1, "o-")]
        for place, (selector, of) in enumerate(pool["selectors"].items()):
            lines.append((selector.replace("_", " "), of["by_k"], 3 + place, "s-"))
        for place, (label, rows, colour, style) in enumerate(lines):
            x = [k * 1.04 ** (place - 0.5) for k in ks]  # whiskers side by side
            line(axes, x, [rows[str(k)] for k in ks], colour, label, style)
        fit, beta = pool["forecast"]["power_law_on_known_curve"], pool["forecast"]["rates_on_all_samples"]
        early = laws.PowerLaw(fit["a"], fit["b"], fit["mean_error"], fit["max_error"])
        rates, fine = laws.Rates(beta["alpha"], beta["beta"]), laws.grid(ks[-1])
        chances = [pool["chance_coverage"][str(k)] for k in ks]
        for at, shares, style, shade, label in (
            (fine, [early(k) for k in fine], "--", COLOURS[0], f"power law of k ≤ {pool['forecast']['seen']}"),
            (fine, [rates(k) for k in fine], "-.", COLOURS[6], "Beta of success rates"),
            (ks, chances, ":", COLOURS[2], "chance coverage"),
        ):
            axes.plot(at, [100 * share for share in shares], style, color=shade, lw=1.4, label=label)
        logarithmic(axes, "samples per problem, k")
        axes.set_xticks(ks, [str(k) for k in ks])
        axes.set_ylim(0, 102)
        axes.set_title(f"{name}\n{pool['n_problems']} problems, 95% intervals over problems")
    each[0].set_ylabel("problems, %")
    legend_below(figure, each[0], 3 if count == 1 else 7)
    save(figure, path, (0, 0.1 if count == 1 else 0.06, 1, 1))


def prices(found: Mapping[str, Pool], measured: Mapping[str, Any]) -> dict[str, Any]:
    """The cheapest model and number of samples for a coverage."""
    models = [
        laws.SampledModel(name, pool.counts, 0.0, measured[name]["sample_length"]) for name, pool in found.items()
    ]
    chosen = {
        str(target): choice and asdict(choice) for target in (0.8, 0.9) for choice in [laws.cheapest(models, target)]
    }
    unit = next(iter(found.values())).unit
    return {"cheapest_for_oracle_coverage": {"cost_unit": f"{unit} generated"} | chosen}


def lines(measured: Mapping[str, Any]) -> Iterator[str]:
    """What is printed of a pool."""
    ahead, gaps = measured["forecast"], measured["gap"]
    majority_at = measured["selectors"]["majority"]["by_k"]
    for k, share in measured["oracle_coverage"].items():
        yield f"k={k:>4} oracle coverage {text(share)}  majority {text(majority_at[k])}"
    error = ahead["power_law_on_known_curve"]["error"]
    yield f"forecast of k={ahead['k']} from k<={ahead['seen']}: off by {error:+.4f}"
    for name, gap in gaps.items():
        if name != "k":
            yield f"gap of {name} at {gaps['k']}: {text(gap)}"
    known = {name: share for name, share in measured["arithmetic"].items() if share and name != "claimed_coverage"}
    yield "arithmetic as a verifier: " + ", ".join(f"{name} {text(share)}" for name, share in known.items())


if __name__ == "__main__":
    run(HERE, __doc__, measure, verdict, plot, lines, prices)
