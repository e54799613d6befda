"""Draws one figure of the whole run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from experiments.plot import COLOURS

GREY, BLUE, GREEN, RED, PINK, SKY, BROWN = COLOURS
NAMES = {
    "ours": "thinktime",
    "generate": "transformers generate",
    "generate_batch": "transformers generate_batch",
    "llama_cpp": "llama.cpp",
}


def plot(result: Mapping[str, Any], path: Path) -> None:
    """Draw six panels; whiskers are the minimum and the maximum over rounds."""
    figure, axes = plt.subplots(2, 3, figsize=(15, 8), dpi=150)
    panels = (_sampling, _tree, _prefill, _early_stop, _iterations, _growth)
    names = ("sampling", "tree", "prefill", "early_stop", "iterations", "tree_growth")
    for panel, name, axis in zip(panels, names, axes.flat, strict=True):
        panel(axis, result[name])
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
    figure.suptitle(f"{result['environment']['cpu']}, threads: {result['threads']}, float32", x=0.01, ha="left")
    figure.tight_layout()
    figure.savefig(path)
    plt.close(figure)


def _whiskers(spreads: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    middle = [s["median"] for s in spreads]
    below = [s["median"] - s["min"] for s in spreads]
    above = [s["max"] - s["median"] for s in spreads]
    return {"y": middle, "yerr": [below, above]}


def _sampling(axes: Any, section: Mapping[str, Any]) -> None:
    rows = [int(size) for size in section["by_rows"]]
    for (name, label), colour in zip(NAMES.items(), (BLUE, GREY, RED, GREEN), strict=True):
        if name not in next(iter(section["by_rows"].values()))["ratio"] and name != "ours":
            continue
        rates = _whiskers([run["tokens_per_second"][name] for run in section["by_rows"].values()])
        axes.errorbar(rows, **rates, label=label, color=colour, marker="o", ms=4, lw=1.8, elinewidth=0.7)
    axes.set_xscale("log", base=2)
    axes.set_xticks(rows, [str(size) for size in rows])
    axes.set_ylim(bottom=0)
    axes.set_xlabel("rows, different prompts")
    axes.set_ylabel("useful tokens a second")
    axes.set_title("independent samples", loc="left")
    axes.legend(frameon=False)


def _tree(axes: Any, section: Mapping[str, Any]) -> None:
    names = list(section["seconds"])
    bars = _whiskers([section["seconds"][name] for name in names])
    axes.bar([NAMES[name] for name in names], bars["y"], yerr=bars["yerr"], color=(BLUE, GREY), width=0.55)
    axes.set_ylabel("seconds")
    shape = f"{section['problems']} problems, width {section['width']}, depth {section['depth']}"
    axes.set_title(f"tree search: {shape}", loc="left")


def _prefill(axes: Any, section: Mapping[str, Any]) -> None:
    runs = section["by_budget"]
    labels = [name if name == "whole" else f"chunks, {name}" for name in runs]
    indices = range(len(labels))
    for name, label, colour, shift in (("worst", "worst", RED, -0.2), ("p99", "99th percentile", BLUE, 0.2)):
        bars = _whiskers([run[f"{name}_gap_ms"] for run in runs.values()])
        axes.bar([p + shift for p in indices], bars["y"], yerr=bars["yerr"], width=0.38, color=colour, label=label)
    axes.set_xticks(list(indices), labels, rotation=20)
    axes.set_ylabel("gap between tokens, ms")
    axes.set_title(f"{section['load']['length']}-token prompts arrive", loc="left")
    axes.legend(frameon=False)


def _early_stop(axes: Any, section: Mapping[str, Any]) -> None:
    cases = ("batch", "queue")
    bars = _whiskers([section[case]["time_saving"] for case in cases])
    labels = [f"{section[case]['rows']} rows, {section['places']} places" for case in cases]
    axes.bar(labels, bars["y"], yerr=bars["yerr"], color=BLUE, width=0.5)
    axes.axhline(section["batch"]["ideal_saving"], ls="--", color=GREY, label="saved tokens")
    axes.set_ylabel("share of the time saved")
    axes.set_title("three of four rows cancelled at a quarter", loc="left")
    axes.legend(frameon=False)


def _iterations(axes: Any, section: Mapping[str, Any]) -> None:
    runs = section["by_rows"]
    rows = [f"{size} rows" for size in runs]
    bottom = [0.0] * len(rows)
    parts = ("layers", "attention", "head", "sampling", "bookkeeping")
    for part, colour in zip(parts, (BLUE, SKY, BROWN, GREEN, RED), strict=True):
        shares = [100 * run["share"][part]["median"] for run in runs.values()]
        axes.bar(rows, shares, bottom=bottom, color=colour, label=part, width=0.55)
        bottom = [a + b for a, b in zip(bottom, shares, strict=True)]
    axes.set_ylim(0, 100)
    axes.set_ylabel("share of an iteration, %")
    axes.set_title("where the time goes", loc="left")
    axes.legend(frameon=False, ncols=3, loc="upper center", bbox_to_anchor=(0.5, -0.08))


def _growth(axes: Any, section: Mapping[str, Any]) -> None:
    sizes = [int(size) for size in section["seconds"]]
    axes.loglog(sizes, list(section["seconds"].values()), color=BLUE, marker="o", ms=4, lw=1.8)
    axes.set_xlabel("nodes of one token")
    axes.set_ylabel("seconds")
    axes.set_title(f"building a tree: slope {section['log_log_slope']:.2f}", loc="left")
