"""Are the results of the demo and of the summary the same as before, digit for digit?

    python -m experiments.unchanged               # compare with unchanged.json; exits 1 and names what moved
    python -m experiments.unchanged --write       # accept today's results, in the commit that says why they moved

A change of the core must not move a result. Seconds, the command and the environment differ from run to run and are
left out. The full summary takes an hour, so this script asks a few problems; every sample comes fresh from the models.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from experiments.harness import language_model, reward_model, run_arms, summary
from experiments.summary.run import arms
from thinktime.bench.tasks import load
from thinktime.cli.bench import bench

EXPECTED = Path(__file__).with_suffix(".json")
DEMO, SUMMARY = 24, 12
"""Problems of each."""
LEFT_OUT = ("command", "environment", "seconds")


def results(folder: Path) -> dict[str, Any]:
    """The demo's result file, and the accuracy and every cost of each arm of the summary."""
    bench(out=folder, problems=DEMO)
    demo = json.loads((folder / "result.json").read_text())
    task = load("pocket", SUMMARY, seed=0)
    found = run_arms(arms(), task, language_model(), reward_model(), folder / "bank.db")
    rows = {label: summary(outcomes) for label, outcomes in found.items()}
    return {"demo": demo, "summary": json.loads(json.dumps(rows))}


def values(tree: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    """Every value of a JSON tree with its place, without what differs from run to run."""
    if isinstance(tree, dict | list):
        for key, inner in tree.items() if isinstance(tree, dict) else enumerate(tree):
            if key not in LEFT_OUT:
                yield from values(inner, f"{place}/{key}")
    else:
        yield place, tree


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        whole = results(Path(folder))
    if args.write:
        EXPECTED.write_text(json.dumps(whole) + "\n")
        return
    expected, found = dict(values(json.loads(EXPECTED.read_text()))), dict(values(whole))
    moved = [place for place, value in expected.items() if found.get(place) != value]
    for place in moved:
        print(f"{place}: {expected[place]} before, {found.get(place)} now")
    same, new = len(expected) - len(moved), len(found.keys() - expected.keys())
    print(f"{same} of {len(expected)} values are the same; {new} are new")
    sys.exit(bool(moved))


if __name__ == "__main__":
    main()
