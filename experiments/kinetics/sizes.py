"""Samples of models of several sizes on the same problems, with all that their cost depends on, in one small file.

    python -m experiments.kinetics.sizes EXPORT...

The exports are of `thinktime bank export`, of any models and temperatures, and of one task. Each has its judgements
(`experiments.banks.judge`) beside it. The texts are left out, so an analysis does not need the exports.
"""

from __future__ import annotations

import argparse
import gzip
import json
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from experiments.banks.judge import judged
from thinktime.bench.bank_export import LONGEST, header_of
from thinktime.bench.jsonl import read_jsonl
from thinktime.bench.samples import Sample, Sampled
from thinktime.core.errors import ThinktimeError
from thinktime.files import write_whole
from thinktime.models.engine.costs import Shape
from thinktime.planning.kinetics import architecture

HERE = Path(__file__).parent
FILE = HERE / "sizes.json.gz"
MODELS = {
    name: (label, architecture(dict(zip(("parameters", "layers", "heads", "kv_heads", "head_dim"), each, strict=True))))
    for name, label, *each in (
        ("smollm2-135m-instruct", "135M", 134_515_008, 30, 9, 3, 64),
        ("qwen2.5-coder-0.5b-instruct", "0.5B", 494_032_768, 24, 14, 2, 64),
        ("qwen2.5-coder-1.5b-instruct", "1.5B", 1_543_714_304, 28, 12, 2, 128),
    )
}
"""The models by their names in the catalogue: a short name, and the shape. Values have 2 bytes."""


@dataclass(frozen=True)
class Run:
    """The samples of one model at one temperature.

    ``prompts`` are the tokens of each problem's prompt, and ``seconds`` those of each of its samples: machine time of
    one thread, on which other samples run at once.
    """

    label: str
    shape: Shape
    temperature: float
    problems: tuple[Sampled, ...]
    prompts: Mapping[str, int]
    seconds: Mapping[str, Sequence[float]]
    about: Mapping[str, Any]

    @property
    def samples(self) -> int:
        """Of each problem."""
        return min(len(problem.samples) for problem in self.problems)

    def only(self, ids: Sequence[str]) -> Run:
        """The same with these problems, in this order."""
        found = {problem.id: problem for problem in self.problems}
        return replace(self, problems=tuple(found[id] for id in ids))


def runs(path: Path = FILE) -> list[Run]:
    """What the file holds, the smallest model first, then by temperature."""
    found = []
    for row in json.loads(gzip.decompress(path.read_bytes())):
        label, shape = MODELS[row["name"]]
        problems = tuple(
            Sampled(each["id"], tuple(map(_sample, each["samples"])), each["reference"]) for each in row["problems"]
        )
        prompts = {each["id"]: each["prompt"] for each in row["problems"]}
        seconds = {each["id"]: [sample[5] for sample in each["samples"]] for each in row["problems"]}
        found.append(Run(label, shape, row["temperature"], problems, prompts, seconds, row["about"]))
    return sorted(found, key=lambda run: (run.shape.parameters, run.temperature))


def _sample(row: Sequence[Any]) -> Sample:
    length, answer, right, ended, logprob, _ = row
    return Sample(length, answer, right, ended, logprob=logprob)


def common(found: Sequence[Run]) -> list[Run]:
    """The runs with the problems that all of them have."""
    ids = [problem.id for problem in found[0].problems]
    for run in found[1:]:
        theirs = {problem.id for problem in run.problems}
        ids = [id for id in ids if id in theirs]
    return [run.only(ids) for run in found]


def collected(path: Path) -> dict[str, Any]:
    """The row of an export."""
    header = header_of(path)
    prompts: dict[str, int] = {}
    seconds: dict[str, list[float]] = defaultdict(list)
    for _, row in read_jsonl(path, LONGEST):
        if "index" in row and "cut" not in row:
            usage = row["usage"]
            prompts[row["problem"]] = usage.get("prompt_tokens", 0) + usage.get("cached_tokens", 0)
            seconds[row["problem"]].append(usage.get("seconds", 0.0))
    problems = [
        {
            "id": problem["id"],
            "reference": problem["reference"],
            "prompt": prompts[problem["id"]],
            "samples": [
                [length, answer, right, ended, logprob, spent]
                for (answer, right, length, ended, logprob, _), spent in zip(
                    problem["samples"], seconds[problem["id"]], strict=False
                )
            ],
        }
        for problem in judged(path)["problems"]
    ]
    return {
        "name": header["provenance"]["name"],
        "temperature": header["sampling"]["temperature"],
        "about": {name: header[name] for name in ("model", "provenance", "task", "sampling", "seed", "date")},
        "problems": problems,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("exports", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, default=FILE)
    args = parser.parse_args()
    try:
        rows = [collected(path) for path in args.exports]
    except ThinktimeError as error:
        sys.exit(str(error))
    text = json.dumps(rows, separators=(",", ":")).replace('{"id"', '\n{"id"')
    write_whole(args.out, gzip.compress(text.encode(), 9, mtime=0))
    for row in rows:
        samples = [sample for problem in row["problems"] for sample in problem["samples"]]
        right = sum(sample[2] for sample in samples)
        print(f"{row['name']} at {row['temperature']}: {len(row['problems'])} problems, {right}/{len(samples)} right")


if __name__ == "__main__":
    main()
