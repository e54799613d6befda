"""Scores of the samples of an export, in one small file, so that other experiments can replay them without a model.

    python -m experiments.verifiers.scores EXPORT --part p_yes_0.5b=FILE --head FILE --out scores.jsonl.gz

The parts are files of `experiments.verifiers.collect`. The first line of the result says where everything comes from.
Then each line is a problem with the scores of its samples by name. A sample without an answer has no scores, and
``_half`` is the score after half of the lines.
"""

from __future__ import annotations

import argparse
import gzip
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from experiments.banks.judge import digest, judged_pool
from thinktime.bench.samples import Sampled
from thinktime.core.errors import InputError
from thinktime.files import write_whole

HERE = Path(__file__).parent
FILE = HERE / "scores.jsonl.gz"
EXPORT = HERE.parent / "banks" / "qwen2.5-coder-0.5b-instruct" / "gsm8k-program.jsonl.gz"
Scores = Mapping[str, float]


@dataclass(frozen=True)
class Verified:
    """A problem with its samples, and the scores of each sample by name."""

    problem: Sampled
    scores: Sequence[Scores]

    @property
    def mixed(self) -> bool:
        """Whether the samples with an answer are right and wrong; on other problems a choice cannot be wrong."""
        return len({sample.correct for sample in self.problem.samples if sample.answered}) == 2

    def has(self, name: str) -> bool:
        """Whether every answered sample has this score."""
        pairs = zip(self.problem.samples, self.scores, strict=True)
        return all(name in scores for sample, scores in pairs if sample.answered)

    def scored(self, name: str) -> Sampled:
        """The problem with this score as the reward of each sample; where no choice can be wrong, it may be missing."""
        pairs = zip(self.problem.samples, self.scores, strict=True)
        rewarded = (replace(sample, reward=scores.get(name, 0.5)) for sample, scores in pairs)
        return replace(self.problem, samples=tuple(rewarded))


def header(path: Path = FILE) -> dict[str, Any]:
    """Where the scores come from, and what they cost."""
    found: dict[str, Any] = json.loads(gzip.decompress(path.read_bytes()).partition(b"\n")[0])
    return found


def verified(path: Path = FILE, export: Path = EXPORT) -> list[Verified]:
    """The problems of an export with the scores of a file.

    Raises:
        InputError: the scores are of another export.
    """
    if header(path)["export"] != digest(export):
        raise InputError("scores", path.name, f"they are of another {export.name}; make them again")
    _, *lines = gzip.decompress(path.read_bytes()).decode().splitlines()
    scores = {row["problem"]: row["samples"] for row in map(json.loads, lines)}
    pool = judged_pool(export)
    return [Verified(each, scores.get(each.id, [{}] * len(each.samples))) for each in pool.problems]


def covered(problems: Sequence[Verified], name: str) -> list[Verified]:
    """The first problems, up to the last mixed one that has this score: all choices among their samples are known."""
    found: list[Verified] = []
    for each in problems:
        if each.mixed and not each.has(name):
            break
        found.append(each)
    while found and not found[-1].mixed:
        found.pop()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("export", type=Path)
    parser.add_argument("--part", action="append", default=[], help="NAME=FILE, of experiments.verifiers.collect")
    parser.add_argument("--head", type=Path, help="cross-fitted scores, of experiments.verifiers.train")
    parser.add_argument("--out", type=Path, default=FILE)
    args = parser.parse_args()
    scores: dict[str, list[dict[str, float]]] = {}
    costs: dict[str, dict[str, float]] = {}
    for part in args.part:
        name, _, file = part.partition("=")
        for row in map(json.loads, Path(file).read_text().splitlines()):
            mine = scores.setdefault(row["problem"], [{} for _ in row["samples"]])
            for place, sample in enumerate(row["samples"]):
                for kind, suffix in (("end", ""), ("half", "_half")):
                    if sample.get(kind) is not None:
                        mine[place][name + suffix] = round(sample[kind], 6)
                for k in range(1, len(sample.get("check", ())) + 1):
                    seen = [verdict for verdict in sample["check"][:k] if verdict is not None]
                    if seen:
                        mine[place][f"{name}_of_{k}"] = round(sum(seen) / len(seen), 6)
            for kind, label in (("states", "head"), ("end", name), ("half", f"{name}_half"), ("check", name)):
                for what, value in row.get(f"{kind}_cost", {}).items():
                    costs.setdefault(label, {}).setdefault(what, 0.0)
                    costs[label][what] += value
    for row in map(json.loads, args.head.read_text().splitlines()) if args.head else ():
        mine = scores[row["problem"]]
        for place, values in row["samples"].items():
            mine[int(place)]["head"] = values[-1]
            mine[int(place)]["head_half"] = values[max(1, len(values) // 2) - 1]
    first = {
        "export": digest(args.export),
        "costs": costs,
        "command": " ".join(["python -m experiments.verifiers.scores", *(Path(word).name for word in sys.argv[1:])]),
    }
    lines = [first, *({"problem": problem, "samples": rows} for problem, rows in scores.items())]
    text = "".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines)
    write_whole(args.out, gzip.compress(text.encode(), 9, mtime=0))
    print(f"{len(scores)} problems, {args.out.stat().st_size} bytes")


if __name__ == "__main__":
    main()
