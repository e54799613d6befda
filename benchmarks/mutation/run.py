"""Mutation testing: draws a random sample of mutants of core and strategies, and runs the tests that reach each one.

    python -m benchmarks.mutation.run                 # 300 mutants; after a stop, the same command continues
    python -m benchmarks.mutation.run --mutants 20 --sources src/thinktime/core/ledger.py

A mutant is one small fault (`mutants.py`). It is killed if a test fails or takes far too long, and survives
if all tests pass. The tests of a mutant are those that call its function (recorded by `watch.py`), the fastest first.
They run in a fork of one process (`forks.py`), or in a new process if the fault is outside a function.
A later run repeats the survivors, because there may be new tests, and all mutants of files whose code has changed.

Existing tools do not fit: mutmut (3.8.1) draws no sample and first runs the whole suite on its own copy of every
function; cosmic-ray (8.7.0) samples mutants without a seed and has one test command for all files. Both would need
a sampler and a selection of tests, which is most of the code here.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from benchmarks.mutation.forks import Forks, Try
from benchmarks.mutation.mutants import Mutant, code, mutants
from thinktime.bench.environment import environment

ROOT = Path(__file__).parents[2]
SOURCES = ("src/thinktime/core", "src/thinktime/strategies")
TESTS = """
bad_input bank bench_failures budget environments generative_reward monte_carlo nested noise_search particles planning
roles scores sampling_strategies search selection selectors skills steering step_searches strategies strategy_options
testing tree_search verification
"""
"""Test files that load no model and start no server, so that a mutant takes seconds."""
ARGUMENTS = ["-q", "-n", "0", "-p", "no:cacheprovider"]
SLOWER, START = 10, 20
"""The time limit of a test: this many times the seconds that it takes without a fault, plus this many seconds."""


def run_pytest(tree: Path, *arguments: str, seconds: float | None = None) -> int:
    """The exit status of pytest on a copy of the project."""
    paths = os.pathsep.join([str(tree / "src"), str(tree)])
    settings = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "pytest", *ARGUMENTS, *arguments]
    return subprocess.run(command, cwd=tree, env=settings, capture_output=True, timeout=seconds).returncode


def write(path: Path, source: str) -> None:
    """Replace a source and delete its compiled file: Python detects changes only by size and whole seconds."""
    path.write_text(source)
    for compiled in path.parent.glob(f"__pycache__/{path.stem}.*"):
        compiled.unlink()


def tests_of(mutant: Mutant, tests: dict[str, Any]) -> dict[str, int]:
    """The tests that call the function of a mutant, the fastest first, and their time limits in seconds."""
    here = f"{mutant.file}:{mutant.function or ''}"
    runs = here.__eq__ if mutant.function else lambda ran: ran.startswith(here)
    wanted = [name for name, test in tests.items() if any(map(runs, test["functions"]))]
    if not wanted and not mutant.function:
        wanted = list(tests)  # a file without functions, such as one of dataclasses
    wanted.sort(key=lambda name: tests[name]["seconds"])
    return {name: START + round(SLOWER * tests[name]["seconds"]) for name in wanted}


def outcome_on_disk(tree: Path, mutant: Mutant, source: str, limits: Mapping[str, int]) -> str:
    """``killed``, ``timed out`` or ``survived`` with the mutant in the source file of a copy of the project."""
    (tree / "wanted").write_text("\n".join(limits))
    path = tree / mutant.file
    write(path, mutant.applied(source))
    try:
        return "killed" if run_pytest(tree, "-x", "@wanted", seconds=sum(limits.values())) else "survived"
    except subprocess.TimeoutExpired:
        return "timed out"
    finally:
        write(path, source)


def summary(done: dict[str, str]) -> dict[str, Any]:
    """Counts by file, the share that was killed or timed out, and the survivors."""
    files: dict[str, Counter[str]] = {}
    for name, came in done.items():
        files.setdefault(name.partition(":")[0], Counter())[came] += 1
    survivors = sorted(name for name, came in done.items() if came in ("survived", "untested"))
    return {
        "mutants": len(done),
        "share_killed": round(1 - len(survivors) / len(done), 4),
        "files": {file: dict(sorted(counts.items())) for file, counts in sorted(files.items())},
        "survivors": survivors,
        "outcomes": done,
    }


def digest(text: str) -> str:
    """SHA-256 in hexadecimal."""
    return hashlib.sha256(text.encode()).hexdigest()


def killed_before(out: Path, code: dict[str, str], sample: Collection[str]) -> dict[str, str]:
    """The killed mutants of an earlier run that are still in the sample and whose file has the same code."""
    if not out.exists():
        return {}
    before = json.loads(out.read_text())
    same = {file for file, now in code.items() if before["code"].get(file) == now}
    return {
        name: came
        for name, came in before["outcomes"].items()
        if name in sample and name.partition(":")[0] in same and came in ("killed", "timed out")
    }


def files(paths: Sequence[str]) -> list[str]:
    """The Python files at or below paths of the project."""
    found = [path for name in paths for path in sorted((ROOT / name).rglob("*.py")) or [ROOT / name]]
    return [str(path.relative_to(ROOT)) for path in found]


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--mutants", type=int, default=300)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--sources", nargs="+", default=SOURCES)
    options.add_argument("--tests", nargs="+", default=[f"tests/test_{name}.py" for name in TESTS.split()])
    options.add_argument("--out", type=Path, default=Path(__file__).with_name("result.json"))
    args = options.parse_args()
    sources = {file: (ROOT / file).read_text() for file in files(args.sources)}
    everything = [mutant for file, source in sources.items() for mutant in mutants(file, source)]
    sample = sorted(everything, key=lambda mutant: digest(f"{args.seed} {mutant.name}"))[: args.mutants]
    provenance = {
        "command": " ".join(["python", "-m", "benchmarks.mutation.run", *sys.argv[1:]]),
        "seed": args.seed,
        "of": len(everything),
        "code": {file: digest(code(source))[:16] for file, source in sources.items()},
        "environment": environment(),
    }
    done = killed_before(args.out, provenance["code"], {mutant.name for mutant in sample})
    read = digest("".join((ROOT / file).read_text() for file in (*files(["src"]), *files(args.tests))))
    told = ROOT / "runs" / f"mutation-{read}.json"
    if not told.exists():
        told.parent.mkdir(exist_ok=True)
        if run_pytest(ROOT, "-p", "benchmarks.mutation.watch", "--functions", str(told), *args.tests):
            told.unlink(missing_ok=True)
            raise SystemExit("the tests fail without a mutant; see pytest " + " ".join(args.tests))
    tests = json.loads(told.read_text())

    def work(in_fork: Try) -> None:
        with tempfile.TemporaryDirectory() as folder:
            tree = Path(folder) / "thinktime"
            shutil.copytree(ROOT, tree, ignore=shutil.ignore_patterns(".git", ".venv", "runs", "__pycache__"))
            for mutant in sample:
                if mutant.name in done:
                    continue
                limits, source = tests_of(mutant, tests), sources[mutant.file]
                found = in_fork(mutant, source, limits) if limits else "untested"
                done[mutant.name] = found or outcome_on_disk(tree, mutant, source, limits)
                print(f"{done[mutant.name]:9} {mutant.name}", file=sys.stderr, flush=True)
                args.out.write_text(json.dumps({**provenance, **summary(done)}, indent=1) + "\n")

    status = pytest.main([*ARGUMENTS, "-s", *args.tests], plugins=[Forks(ROOT, work)])
    raise SystemExit(status)


if __name__ == "__main__":
    main()
