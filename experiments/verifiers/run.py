"""Verifiers that cost nothing, on samples of a real model: how well they tell right samples from wrong ones.

    python -m experiments.verifiers.run gsm8k-program.jsonl.gz --data FOLDER

Each file is an export of a bank (`thinktime bank export`). No model is loaded; programs run in the sandbox. Writes
``result.json`` beside this file, and prints the table.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from experiments.intervals import as_number, mean
from experiments.provenance import provenance, write_json
from thinktime.bench.bank_export import exported_pool, header_of
from thinktime.bench.samples import Pool
from thinktime.bench.tasks import load
from thinktime.bench.verifiers import FREE, scored, verify
from thinktime.core.errors import ThinktimeError

HERE = Path(__file__).parent


def measure(pool: Pool, seed: int) -> dict[str, Any]:
    """The pass rate of a pool, and the report on each verifier."""
    reports = {
        name: verify([scored(problem, scoring) for problem in pool.problems], probabilities=probabilities, seed=seed)
        for name, (scoring, probabilities) in FREE.items()
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("exports", nargs="+", type=Path)
    parser.add_argument("--data", type=Path, help="a folder with the benchmarks' files")
    parser.add_argument("--samples", type=int, default=8, help="of each problem; problems with fewer are left out")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=HERE, help="folder of the result")
    args = parser.parse_args()
    found = {}
    try:
        for path in args.exports:
            header = header_of(path)
            task = load(header["task"]["name"], data=args.data, split=header["task"].get("split", "test"))
            found[task.name] = measure(exported_pool(path, task, args.samples), args.seed)
            found[task.name]["provenance"] = header["provenance"]
            print(table(task.name, found[task.name]) + "\n", flush=True)
    except ThinktimeError as error:
        sys.exit(str(error))
    write_json(args.out / "result.json", provenance(HERE, args.seed) | {"tasks": found})


if __name__ == "__main__":
    main()
