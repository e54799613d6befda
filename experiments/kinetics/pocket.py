"""Sparse attention on the shipped solver, whose problems need numbers from the start of the prompt (2506.05333).

    python -m experiments.kinetics.pocket        # six minutes on a busy core; writes pocket.json and .png

A problem lists its prices first and asks for a sum at the end. The prompt and the first layer are dense. Every later
token attends to the first 2 and the last 8 positions, and between them to the best ones, the best blocks of 4, random
ones, or none. Temperature 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

from experiments.harness import language_model
from experiments.intervals import as_points, difference, mean
from experiments.kinetics.sparse import NAMES, Writer
from experiments.plot import COLOURS, line, panels, save
from experiments.provenance import begin, write_json
from thinktime.bench.tasks import load
from thinktime.planning.kinetics import Sparse

HERE = Path(__file__).parent
SINK, LOCAL, BLOCK = 2, 8, 4
BUDGETS = (16, 24, 32, 48, 64)


def attention(kind: str, budget: int) -> Sparse:
    """An attention of the experiment."""
    return Sparse(kind, budget, SINK, LOCAL, BLOCK)


def plot(result: Mapping[str, Any], path: Path) -> None:
    """The attention that is kept, and the accuracy, against the budget."""
    figure, (left, right) = panels(2, 11, 4.4)
    for colour, kind in enumerate(NAMES):
        kept = [100 * result["attention_kept"][f"{kind} {budget}"] for budget in BUDGETS]
        left.plot(BUDGETS, kept, "o-", color=COLOURS[colour], ms=4, label=NAMES[kind])
        line(right, BUDGETS, [result["sparse"][f"{kind} {b}"]["accuracy"] for b in BUDGETS], colour, NAMES[kind])
    right.axhline(100 * result["dense"]["accuracy"]["value"], color="#555555", lw=0.8, ls="--")
    for axes in (left, right):
        axes.axvline(result["mean_context"] / 3, color="#999999", lw=0.8, ls=":")
        axes.set_xlabel("positions that a token attends to")
    left.set(ylabel="attention on kept positions, %", title="of dense attention; dotted: a third of the context")
    right.set(ylabel="right, %", title="accuracy; dashed: dense attention")
    left.legend(fontsize=8)
    save(figure, path)


def main() -> None:
    args, made = begin(HERE, __doc__, "pocket", "pocket.json", problems=100)
    task = load("pocket", args.problems, seed=0)
    writer = Writer(language_model(dtype="float32"), task, task.problems)
    every = [attention(kind, budget) for budget in BUDGETS for kind in NAMES]
    dense = writer.write(None, every)
    found = {f"{each.kind} {each.budget}": writer.write(each) for each in every}

    def row(of: Mapping[str, Any]) -> dict[str, Any]:
        return {
            "accuracy": mean(of["right"]),
            "minus_dense": difference(of["right"], dense["right"]),
            "same_text": mean(a == b for a, b in zip(of["texts"], dense["texts"], strict=True)),
            "unanswered": sum(not each for each in of["answered"]),
            "cut": sum(not each for each in of["ended"]),
            "tokens": fmean(of["tokens"]),
            "seconds": of["seconds"] / len(of["right"]),
        }

    result = made | {
        "model": writer.name,
        "n_problems": len(task.problems),
        "sink": SINK,
        "local": LOCAL,
        "block": BLOCK,
        "mean_context": fmean(len(p) + n / 2 for p, n in zip(writer.prompts, dense["tokens"], strict=True)),
        "attention_kept": dense["kept"],
        "dense": row(dense),
        "sparse": {name: row(of) for name, of in found.items()},
    }
    write_json(args.out / "pocket.json", result)
    plot(result, args.out / "pocket.png")
    print("dense", as_points(result["dense"]["accuracy"]), "context", result["mean_context"])
    for name, of in result["sparse"].items():
        kept, gap = result["attention_kept"][name], as_points(of["minus_dense"])
        print(name, f"{kept:.3f}", gap, as_points(of["same_text"]), of["tokens"], of["seconds"])


if __name__ == "__main__":
    main()
