"""Plans by FLOPs and by eFLOPs for a family of models whose accuracy is known by construction (2506.05333).

    python -m experiments.kinetics.control       # half a minute; writes control.json and control.png

The six models have the shapes of Qwen3 from 0.6B to 32B. A sample of a model solves a problem with a probability that
rises by 0.6 in the logit with every doubling of the parameters; problems differ by a deviation of 2. All models write
equally long samples, whose mean length is on the map. The plans are 1 to 32 samples with caps of half, one, two and
four times the mean length.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import comb
from pathlib import Path
from typing import Any

import numpy as np

from experiments.intervals import as_number, as_points
from experiments.kinetics.frontier import Measured, best_by_budget, compared, flops_of, savings
from experiments.plot import COLOURS, line, logarithmic, panels, save
from experiments.provenance import begin, write_json
from thinktime.planning.kinetics import KineticsCost, Sparse, architecture, kinetics

HERE = Path(__file__).parent
FAMILY = {
    name: architecture(dict(zip(("parameters", "layers", "heads", "kv_heads", "head_dim"), numbers, strict=True)))
    for name, numbers in {
        "0.6B": (0.6e9, 28, 16, 8, 128),
        "1.7B": (1.7e9, 28, 16, 8, 128),
        "4B": (4.0e9, 36, 32, 8, 128),
        "8B": (8.19e9, 36, 32, 8, 128),
        "14B": (14.8e9, 40, 40, 8, 128),
        "32B": (32.8e9, 64, 64, 8, 128),
    }.items()
}
GAIN, SPREAD, MIDDLE = 0.6, 2.0, 8e9
"""Logits of a doubling, the deviation of problems, and the parameters at which half of the problems are as likely."""
PROMPT, DRAWN = 200, 32
SAMPLES = (1, 2, 4, 8, 16, 32)
CAPS = (0.5, 1, 2, 4)
"""Times the mean length."""
LENGTHS = (64, 256, 1024, 4096, 16384)
INTENSITIES = (1.0, 10.0, 100.0, 281.25, 562.5, 1125.0)
TARGETS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
MAIN_LENGTH, MAIN_INTENSITY = 4096, 562.5
SPARSE = 1024
"""Positions of block top-k attention, which loses no accuracy by construction."""


def lengths(rng: np.random.Generator, shape: tuple[int, int], mean: int) -> Any:
    """Lengths of samples in sixteenths of the mean length, log-normal with a deviation of 0.6, at most 4 times it."""
    drawn = rng.lognormal(-0.18, 0.6, shape)
    return np.clip(np.round(drawn * 16), 1, 64).astype(int) * (mean // 16)


def plans(problems: int, mean: int, sparse: Sparse | None = None) -> list[Measured]:
    """All plans of the family, on the same problems for all mean lengths."""
    rng = np.random.default_rng(0)
    hardness = rng.normal(0, SPREAD, problems)
    found = []
    for name, shape in FAMILY.items():
        logit = GAIN * np.log2(shape.parameters / MIDDLE) - hardness
        right = rng.random((problems, DRAWN)) < 1 / (1 + np.exp(-logit[:, None]))
        drawn = lengths(rng, (problems, DRAWN), mean)
        for samples in SAMPLES:
            table: dict[int, KineticsCost] = {
                int(n): kinetics(shape, samples, PROMPT, int(n), sparse=sparse) for n in np.unique(drawn)
            }
            for times in CAPS:
                cap = int(times * mean)
                cut = np.minimum(drawn, cap)
                solved = (right & (drawn <= cap)).sum(1)
                missed = np.array([comb(DRAWN - c, samples) / comb(DRAWN, samples) for c in range(DRAWN + 1)])
                flops, traffic = (
                    np.vectorize({n: of(cost) for n, cost in table.items()}.__getitem__, otypes=[float])(cut).mean(1)
                    for of in (flops_of, lambda cost: cost.kv_bytes)
                )
                success = 1 - missed[solved]
                found.append(Measured(name, float(shape.parameters), samples, cap, success, flops, traffic))
    return found


def plot(result: Mapping[str, Any], path: Path) -> None:
    """How much larger the models by eFLOPs are, what plans by FLOPs cost more, and the model of the best plan."""
    figure, (left, middle, right) = panels(3, 16, 4.6)
    for colour, intensity in enumerate(map(str, INTENSITIES)):
        rows = [result["by_length"][str(length)][intensity] for length in LENGTHS]
        label = f"{float(intensity):g} FLOPs a byte"
        line(left, LENGTHS, [row["doublings_of_size"] for row in rows], colour, label, scale=1)
        line(middle, LENGTHS, [row["cost_of_plans_by_flops"] for row in rows], colour, label, scale=1)
    rows = [result["sparse"][str(length)] for length in LENGTHS]
    line(middle, LENGTHS, rows, 6, f"dense plans over those with best blocks of {SPARSE}", "s--", 1)
    for axes in (left, middle):
        logarithmic(axes, "mean tokens of a sample")
    left.axhline(0, color="#555555", lw=0.8)
    left.set(ylabel="doublings of the model", title="larger models of plans by eFLOPs")
    left.legend(fontsize=8)
    middle.axhline(1, color="#555555", lw=0.8)
    middle.set(ylabel="times the eFLOPs of plans by eFLOPs", title="cost of plans by FLOPs")
    middle.legend(middle.get_legend_handles_labels()[0][-1:], middle.get_legend_handles_labels()[1][-1:], fontsize=8)
    for colour, (label, name) in enumerate((("by FLOPs", "flops"), ("by eFLOPs", "eflops"))):
        of = result["budgets"][name]
        right.plot(
            [100 * row["right"] for row in of],
            [row["size"] for row in of],
            "o-",
            color=COLOURS[colour],
            ms=4,
            label=label,
        )
    right.set_yscale("log", base=2)
    right.set_yticks([shape.parameters for shape in FAMILY.values()], list(FAMILY))
    right.set(xlabel="problems solved, %", title=f"model of the best plan, {MAIN_LENGTH:,} tokens, {MAIN_INTENSITY:g}")
    right.legend(fontsize=8)
    save(figure, path)


def doubling(found: Sequence[Measured], intensity: float) -> list[float]:
    """Budgets from the cheapest plan to the dearest, in steps of a doubling."""
    costs = [float(plan.cost(intensity).mean()) for plan in found]
    return [min(costs) * 2**step for step in range(int(np.log2(max(costs) / min(costs))) + 2)]


def main() -> None:
    args, made = begin(HERE, __doc__, "control", "control.json", problems=400)
    by_length, sparse, budgets = {}, {}, {}
    for length in LENGTHS:
        found = plans(args.problems, length)
        by_length[str(length)] = {str(each): compared(found, TARGETS, each) for each in INTENSITIES}
        if length == MAIN_LENGTH:
            for name, each in (("flops", 0.0), ("eflops", MAIN_INTENSITY)):
                budgets[name] = best_by_budget(found, each, doubling(found, each))
        thin = plans(args.problems, length, Sparse("block_topk", SPARSE))
        saved = sparse[str(length)] = savings(thin, found, TARGETS, MAIN_INTENSITY)
        print(length, "sparse", as_number(saved), flush=True)
        for name, row in by_length[str(length)].items():
            sizes, costs = as_number(row["doublings_of_size"]), as_number(row["cost_of_plans_by_flops"])
            print(length, name, sizes, costs, as_points(row["right_minus_plans_by_flops"]), flush=True)
    result = made | {
        "n_problems": args.problems,
        "targets": TARGETS,
        "family": {name: shape.parameters for name, shape in FAMILY.items()},
        "by_length": by_length,
        "sparse_positions": SPARSE,
        "sparse": sparse,
        "budgets": budgets,
    }
    write_json(args.out / "control.json", result)
    plot(result, args.out / "control.png")


if __name__ == "__main__":
    main()
