"""Real samples as words, so that a strategy runs on them as it runs on the samples of `experiments.constructed`.

A sample becomes as many words as it has tokens, with their confidences. The last word is its answer: 0 if it is right,
a number of its own for each wrong answer, and no number if it has no answer or was cut.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path

from experiments.constructed import RIGHT, Say
from thinktime.bench.bank_export import LONGEST
from thinktime.bench.jsonl import read_jsonl
from thinktime.bench.samples import Pool, Sampled


def texts(problem: Sampled) -> list[str]:
    """The samples of a problem as words."""
    numbers: dict[Hashable, str] = {}
    found = []
    for sample in problem.samples:
        label = "none"
        if sample.answered:
            label = RIGHT if sample.correct else numbers.setdefault(sample.key, str(len(numbers) + 1))
        found.append(" ".join(["so"] * (sample.length - 1) + [label]))
    return found


def confidences(path: Path) -> dict[tuple[str, int], Sequence[float]]:
    """The confidences of the tokens of every whole sample of an export, by problem and index."""
    rows = (row for _, row in read_jsonl(path, LONGEST))
    return {
        (row["problem"], row["index"]): row["confidences"] for row in rows if "confidences" in row and "cut" not in row
    }


def saying(pool: Pool, known: Mapping[tuple[str, int], Sequence[float]] | None = None) -> Say:
    """What `experiments.constructed.solved` needs to run a strategy on these samples."""
    words = {problem.id: texts(problem) for problem in pool.problems}
    return lambda problem, index: (words[problem][index], (known or {}).get((problem, index), ()))
