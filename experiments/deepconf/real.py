"""DeepConf on samples of a real model (2508.15260).

    python -m experiments.deepconf.real gsm8k-program

The strategies run on the samples of a committed export (`experiments.banks.words`), all on the same ones. First the AUC
within a problem of each measure of confidence: it says whether a vote can gain. An export without the confidences of
tokens only has the mean: the geometric mean of the probabilities of the drawn tokens. Writes ``real.json`` and
``real.png``.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.banks.judge import SUFFIX, exports, judged_pool
from experiments.banks.words import confidences, saying
from experiments.constructed import rows, solved
from experiments.intervals import as_number, as_points
from experiments.plot import panels, save
from experiments.pools import beside_greedy, confidence, describe
from experiments.provenance import FORCE, provenance, refuse_another, write_json
from thinktime.bench.samples import Pool
from thinktime.bench.verifiers import Scored, verify
from thinktime.core.errors import ThinktimeError
from thinktime.strategies.sampling.deepconf import MEASURES

HERE = Path(__file__).parent
N, WINDOW = 8, 16
CONTROL = f"majority:n={N}"
SHARES = {0.9: "nine tenths", 0.5: "half", 0.1: "a tenth"}
BASELINES = {"single": "one sample", "majority:n=4": "vote of 4", CONTROL: f"vote of {N}"}


def arms(measures: Sequence[str]) -> dict[str, str]:
    """The strategies of an export that has these measures of confidence, with their names."""
    found = dict(BASELINES)
    for by in measures:
        for keep, name in SHARES.items():
            found[f"deepconf:n={N},keep={keep},by={by},window={WINDOW}"] = f"keep {name}, {by}"
    if "lowest" in measures:
        found[f"deepconf_online:n={N},warmup=4,keep=0.5,window={WINDOW},every={WINDOW}"] = "online, keep half"
    return found


def quality(pool: Pool, known: Mapping[tuple[str, int], Sequence[float]], by: str, seed: int) -> dict[str, Any]:
    """The AUC of one measure of confidence, within a problem and over all samples."""
    scored = []
    for problem in pool.problems:
        kept = [(known[problem.id, place], s.correct) for place, s in enumerate(problem.samples) if s.answered]
        scores = tuple(MEASURES[by](tokens, WINDOW) for tokens, _ in kept)
        scored.append(Scored(scores, tuple(right for _, right in kept), len(problem.samples) - len(kept)))
    report = verify(scored, seed=seed).as_dict()
    return {name: report[name] for name in ("within", "n_within", "pooled", "n_samples", "missing")}


def measure(path: Path, seed: int) -> dict[str, Any]:
    """The measures and the arms on one export."""
    pool, known, measures = judged_pool(path, N), confidences(path), tuple(MEASURES)
    if not known:
        known = {
            (problem.id, place): [confidence(sample)] * sample.length
            for problem in pool.problems
            for place, sample in enumerate(problem.samples)
        }
        measures = ("mean",)
    say, names = saying(pool, known), arms(measures)
    found = {arm: [solved(arm, problem.id, say) for problem in pool.problems] for arm in names}
    samples = [sample for problem in pool.problems for sample in problem.samples]
    return describe(pool) | {
        "without_answer": sum(sample.key is None for sample in samples),
        "cut": sum(not sample.ended for sample in samples),
        "tokens_of_a_sample": sum(sample.length for sample in samples) / len(samples),
        "measures": {by: quality(pool, known, by, seed) for by in measures},
        "names": names,
        "arms": rows(found, CONTROL),
        **beside_greedy({path.name.removesuffix(SUFFIX).removesuffix("-confidences"): pool}, {}),
    }


def plot(result: Mapping[str, Any], path: Path) -> None:
    """The arms of every export: points over the vote."""
    figure, each = panels(len(result["pools"]), 7.5 * len(result["pools"]), 4.2)
    for axes, (name, pool) in zip(each, result["pools"].items(), strict=True):
        shown = [arm for arm in pool["names"] if arm != CONTROL]
        for place, arm in enumerate(shown):
            row = pool["arms"][arm]
            x, whiskers = 100 * row["minus_control"]["value"], row["minus_control"]
            spread = [[x - 100 * whiskers["low"]], [100 * whiskers["high"] - x]]
            axes.errorbar([x], [-place], xerr=spread, fmt="o", color="#0072b2", ms=4)
        axes.set_yticks([-place for place in range(len(shown))], [pool["names"][arm] for arm in shown])
        axes.axvline(0, color="#555555", lw=0.8)
        axes.set(xlabel=f"points over a vote of {N}", title=f"{name}: {pool['n_problems']} problems")
    save(figure, path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("exports", nargs="+", help="names of committed exports")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=HERE)
    parser.add_argument(FORCE, action="store_true", help="overwrite the result of another command")
    args = parser.parse_args()
    made = provenance(HERE, args.seed, "real")
    refuse_another(args.out / "real.json", made["command"], force=args.force)
    try:
        found = {name: measure(path, args.seed) for name, path in zip(args.exports, exports(args.exports), strict=True)}
    except ThinktimeError as error:
        sys.exit(str(error))
    result = made | {"pools": found}
    write_json(args.out / "real.json", result)
    plot(result, args.out / "real.png")
    for name, pool in found.items():
        print(f"{name}: {pool['n_problems']} problems, {pool['n_samples']} samples")
        for by, report in pool["measures"].items():
            print(f"  AUC of {by}: within {report['within'] and as_number(report['within'])} ({report['n_within']})")
        for arm, row in pool["arms"].items():
            gain, cost = as_points(row["minus_control"]), as_number(row["tokens_over_control"])
            print(f"  {pool['names'][arm]}: {as_points(row['accuracy'])}, {gain}, tokens {cost}")


if __name__ == "__main__":
    main()
