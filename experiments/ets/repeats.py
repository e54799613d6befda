"""Row 05 on real samples: how often does a step repeat another one, so that merging and shared prefixes save memory?

    python -m experiments.ets.repeats     # seconds, without a model

The samples are the committed ones of Qwen2.5-Coder-0.5B: GSM8K as programs, eight of each problem. A step is a line. A
line is a repeat if another sample has the same line after the same lines: a search that merges equal siblings would
hold it once. Memory is counted in characters, because the export does not say which line has which tokens.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments.intervals import ratio, share
from experiments.plot import line, panels, save
from experiments.provenance import provenance, write_json
from thinktime.bench.bank_export import exported_bank, header_of

HERE = Path(__file__).parent
EXPORT = HERE.parent / "banks" / "qwen2.5-coder-0.5b-instruct" / "gsm8k-program.jsonl.gz"
DEPTHS = 12
"""Lines of a program that are reported one by one."""


def counts(texts: Sequence[str]) -> tuple[list[int], list[int], int, int]:
    """Of the samples of a problem: lines and repeats by depth, characters of all samples, and of different prefixes."""
    seen: set[str] = set()
    lines, repeats = [0] * DEPTHS, [0] * DEPTHS
    whole = different = 0
    for text in texts:
        prefix = ""
        for depth, step in enumerate(text.splitlines(keepends=True)):
            prefix += step
            whole += len(step)
            different += 0 if prefix in seen else len(step)
            if depth < DEPTHS:
                lines[depth] += 1
                repeats[depth] += prefix in seen
            seen.add(prefix)
    return lines, repeats, whole, different


def measure(problems: Sequence[Sequence[str]]) -> dict[str, Any]:
    """The share of repeats by depth, and how many times shorter the samples are if every prefix is held once."""
    found = [counts(texts) for texts in problems]
    return {
        "n_problems": len(problems),
        "n_samples": sum(map(len, problems)),
        "repeats": share([sum(repeats) for _, repeats, _, _ in found], [sum(lines) for lines, _, _, _ in found]),
        "repeats_by_depth": [
            share([repeats[depth] for _, repeats, _, _ in found], [lines[depth] for lines, _, _, _ in found])
            for depth in range(DEPTHS)
        ],
        "whole_over_different": ratio([whole for *_, whole, _ in found], [different for *_, different in found]),
    }


def samples(path: Path) -> list[list[str]]:
    """The samples of each problem in an export."""
    found: dict[str, list[str]] = defaultdict(list)
    task = header_of(path)["task"]
    with exported_bank(path) as bank:
        for number in range(1, header_of(path)["n"]["problems"] + 1):
            problem = f"gsm8k-{task['split']}-{number}"
            found[problem] = [sample["state"]["text"] for sample in bank.samples_of(problem)]
    return [mine for mine in found.values() if mine]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=HERE)
    args = parser.parse_args()
    result = measure(samples(EXPORT))
    write_json(
        args.out / "repeats.json", provenance(HERE, 0, "repeats") | {"model": header_of(EXPORT)["model"]} | result
    )
    plot(result, args.out / "repeats.png")


def plot(result: dict[str, Any], path: Path) -> None:
    """The share of repeats against the depth."""
    figure, (axes,) = panels(1, 6, 3.6)
    line(axes, range(1, DEPTHS + 1), result["repeats_by_depth"], 1, "lines of 8 samples that repeat another")
    axes.set(xlabel="line of the program", ylabel="%", ylim=(0, 100))
    axes.legend(fontsize=8)
    save(figure, path)


if __name__ == "__main__":
    main()
