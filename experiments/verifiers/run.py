"""How well verifiers tell right samples of a real model from wrong ones.

    python -m experiments.verifiers.run          # seconds; no model is loaded and no program runs

Verifiers that cost nothing are measured on all samples of the committed exports. Those that need a model are measured
on the problems of `experiments.verifiers.scores`, beside the free ones on the same samples. Writes ``result.json`` and
``plot.png`` beside this file, and prints the tables.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.banks.judge import SUFFIX, exports, judged_pool
from experiments.intervals import as_number, difference, mean
from experiments.plot import COLOURS, bars, panels, save
from experiments.provenance import FORCE, provenance, refuse_another, write_json
from experiments.verifiers.scores import EXPORT, FILE, Verified, header, verified
from thinktime.bench.bank_export import header_of
from thinktime.bench.samples import Pool, Sample, Sampled
from thinktime.bench.statistics import auc
from thinktime.bench.verifiers import FREE, Scored, Scoring, scored, verify
from thinktime.core.errors import ThinktimeError

HERE = Path(__file__).parent
BASELINE = "confidence"


def whole_number(problem: Sampled, sample: Sample) -> float:
    """1 if the program gives a whole number above 0, as the answers of word problems are; else 0."""
    try:
        value = float(str(sample.key))
    except ValueError:
        return 0.0
    return float(value > 0 and value == int(value)) if abs(value) < 1e15 else 0.0


def verifiers(pool: Pool) -> dict[str, tuple[Scoring, bool]]:
    """The verifiers that cost nothing; of programs that give numbers also whether it is a whole one."""
    numbers = any(problem.reference is not None for problem in pool.problems)
    return {**FREE, **({"whole number": (whole_number, True)} if numbers else {})}


def measure(pool: Pool, seed: int) -> dict[str, Any]:
    """The pass rate of a pool, and the report on each verifier that costs nothing."""
    reports = {
        name: verify([scored(problem, scoring) for problem in pool.problems], probabilities=probabilities, seed=seed)
        for name, (scoring, probabilities) in verifiers(pool).items()
    }
    samples = [sample for problem in pool.problems for sample in problem.samples]
    return {
        "generator": pool.generator,
        "setting": pool.setting,
        "n_problems": len(pool.problems),
        "n_samples": len(samples),
        "pass_rate": mean((problem.pass_rate for problem in pool.problems), seed),
        "unanswered": sum(not sample.answered for sample in samples),
        "verifiers": {name: report.as_dict() for name, report in reports.items()},
    }


def by_name(each: Verified, name: str) -> Scored:
    """The samples of a problem that have this score."""
    pairs = [
        (scores[name], sample.correct)
        for sample, scores in zip(each.problem.samples, each.scores, strict=True)
        if sample.answered and name in scores
    ]
    return Scored(tuple(score for score, _ in pairs), tuple(right for _, right in pairs), len(each.scores) - len(pairs))


def on_the_same(each: Verified, name: str, scoring: Scoring) -> Scored:
    """A free verifier on the samples of a problem that have the named score."""
    pairs = [
        (scoring(each.problem, sample), sample.correct)
        for sample, scores in zip(each.problem.samples, each.scores, strict=True)
        if sample.answered and name in scores
    ]
    kept = [(score, right) for score, right in pairs if score is not None]
    return Scored(tuple(score for score, _ in kept), tuple(right for _, right in kept), len(pairs) - len(kept))


def with_models(problems: Sequence[Verified], seed: int) -> dict[str, Any]:
    """The report on each verifier that needs a model, on mixed problems, and its AUC minus that of the confidence."""
    mixed = [each for each in problems if each.mixed]
    names = sorted({name for each in mixed for scores in each.scores for name in scores})
    found = {}
    for name in names:
        some = [each for each in mixed if by_name(each, name).auc is not None]
        free = {other: [on_the_same(each, name, scoring) for each in some] for other, (scoring, _) in FREE.items()}
        mine = [by_name(each, name) for each in some]
        areas = [one.auc or 0.0 for one in mine]
        theirs = [auc(one.scores, one.right) or 0.0 for one in free[BASELINE]]
        found[name] = {
            **verify(mine, probabilities=True, seed=seed).as_dict(),
            "minus_confidence": difference(areas, theirs, seed),
            "free": {other: verify(those, seed=seed).as_dict()["within"] for other, those in free.items()},
        }
    return found


def costs_of(rows: Mapping[str, Mapping[str, float]]) -> dict[str, dict[str, float]]:
    """The cost of one score: tokens that are charged, tokens that were computed, and seconds of the processor."""
    return {
        name: {
            what: round(cost[what] / cost["scores"], 3) for what in ("tokens", "computed", "seconds") if what in cost
        }
        for name, cost in rows.items()
    }


def table(name: str, measured: dict[str, Any]) -> str:
    """The table of a pool in Markdown."""
    lines = [
        f"{name}: {measured['n_problems']} problems, {measured['n_samples']} samples, pass rate "
        f"{as_number(measured['pass_rate'])}, {measured['unanswered']} without an answer",
        "",
        "| verifier | AUC within a problem | problems with both | AUC over all samples | calibration error |",
        "|---|---|---|---|---|",
    ]
    for verifier, report in measured["verifiers"].items():
        within, pooled, ece = (as_number(report[key]) if report[key] else "-" for key in ("within", "pooled", "ece"))
        lines.append(f"| {verifier} | {within} | {report['n_within']} | {pooled} | {ece} |")
    return "\n".join(lines)


def model_table(found: dict[str, Any], costs: dict[str, dict[str, float]]) -> str:
    """The table of the verifiers that need a model."""
    lines = [
        "| verifier | problems | AUC within a problem | minus confidence | calibration error | tokens | seconds |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, report in found.items():
        cost = costs.get(name.removesuffix("_half") if name.startswith("head") else name, {})
        paid = [str(cost.get(what, "-")) for what in ("computed", "seconds")]
        within, minus, ece = (as_number(report[key]) for key in ("within", "minus_confidence", "ece"))
        lines.append(f"| {name} | {report['n_within']} | {within} | {minus} | {ece} | {' | '.join(paid)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="committed exports, as gsm8k-program; all unless given")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=HERE, help="folder of the result")
    parser.add_argument(FORCE, action="store_true", help="overwrite the result of another command")
    args = parser.parse_args()
    made = provenance(HERE, args.seed)
    refuse_another(args.out / "result.json", made["command"], force=args.force)
    found = {}
    try:
        for path in exports(args.names):
            name = path.name.removesuffix(SUFFIX)
            found[name] = measure(judged_pool(path), args.seed) | {"provenance": header_of(path)["provenance"]}
            print(table(name, found[name]) + "\n", flush=True)
        about = header(FILE)
        models = {
            "export": EXPORT.name,
            "commands": about["command"],
            "costs": costs_of(about["costs"]),
            "verifiers": with_models(verified(), args.seed),
        }
    except ThinktimeError as error:
        sys.exit(str(error))
    print(model_table(models["verifiers"], models["costs"]))
    result = {**made, "tasks": found, "models": models}
    write_json(args.out / "result.json", result)
    plot(result, args.out / "plot.png")


def plot(result: dict[str, Any], path: Path) -> None:
    """The AUC within a problem of all verifiers."""
    free = result["tasks"][EXPORT.name.removesuffix(SUFFIX)]["verifiers"]
    rows = {**free, **result["models"]["verifiers"]}
    figure, (axes,) = panels(1, 8, 4.4)
    values, whiskers = bars([row["within"] for row in rows.values()], scale=1)
    places = range(len(rows))
    colours = [COLOURS[0 if name in free else 1] for name in rows]
    axes.errorbar(values, places, xerr=whiskers, fmt="none", ecolor="#999999")
    axes.scatter(values, places, c=colours, zorder=3)
    axes.set_yticks(list(places), list(rows))
    axes.invert_yaxis()
    axes.axvline(0.5, color="#999999", lw=0.8)
    axes.set(xlabel="AUC within a problem", title="Qwen2.5-Coder-0.5B, GSM8K as programs; blue: needs a model")
    save(figure, path)


if __name__ == "__main__":
    main()
