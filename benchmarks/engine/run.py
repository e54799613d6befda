"""Measures the engine beside its peers. Every claim about its speed is a ratio within this run.

    python -m benchmarks.engine.run            # a quarter of an hour on two idle cores
    python -m benchmarks.engine.run --quick    # every section at a tiny size, to see that it works

It writes ``result.json`` and ``plot.png`` beside this file; with ``--quick`` it writes them to a temporary folder.
Contenders take turns, so a ratio compares the same minutes on the same machine. Seconds depend on the machine.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks.engine import early_stop, memory, overhead, prefill, sampling, tree
from benchmarks.engine.llama_cpp import LlamaCpp, missing
from benchmarks.engine.peers import Transformers
from benchmarks.engine.plot import plot
from benchmarks.engine.table import lines
from thinktime import pocket
from thinktime.bench.environment import environment
from thinktime.models.engine.llama import LlamaConfig
from thinktime.models.engine.models import load_language_model

HERE = Path(__file__).parent
QUICK = Path("runs/benchmark-quick")


def sections(quick: bool) -> dict[str, Callable[[], dict[str, Any]]]:
    """The sections by name, each at full or tiny size."""
    directory = pocket.directory("solver")
    solver, peer, config = load_language_model(directory), Transformers(directory), LlamaConfig.read(directory)
    llama = None if missing() else LlamaCpp(directory)
    sizes: tuple[int, ...]
    budgets: tuple[int, ...]
    if quick:
        sizes, load, budgets = (1, 4), prefill.Load(tokens=12, arrivals=2, length=256), (64, 128)
    else:
        sizes, load, budgets = (
            (1, 16, 64, 128, 512),
            prefill.Load(tokens=128, arrivals=4, length=2048),
            (64, 128, 256, 512),
        )
    return {
        "sampling": lambda: sampling.measure(solver, peer, llama, sizes, 2 if quick else 3, 4 if quick else 32),
        "tree": lambda: tree.measure(solver, peer, *((2, 4, 2, 2) if quick else (32, 16, 8, 3))),
        "prefill": lambda: prefill.measure(config, load, budgets, 1 if quick else 3),
        "early_stop": lambda: early_stop.measure(solver, *((8, 2, 16, 2) if quick else (64, 4, 96, 3))),
        "iterations": lambda: overhead.iterations(
            solver, (1, 8) if quick else (1, 64, 512), 8 if quick else 16, 1 if quick else 3
        ),
        "tree_growth": lambda: overhead.tree_growth((100, 1000) if quick else (100, 1000, 10_000, 100_000)),
        "memory": lambda: memory.measure(
            *(((8 << 20,), 8, 16) if quick else ((16 << 20, 64 << 20, 256 << 20, 1 << 30), 128, 96))
        ),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="The engine beside its peers.")
    parser.add_argument("--quick", action="store_true", help="every section, tiny")
    quick = parser.parse_args().quick
    where = QUICK if quick else HERE
    where.mkdir(parents=True, exist_ok=True)
    result: dict[str, Any] = {
        "command": "python -m benchmarks.engine.run" + (" --quick" if quick else ""),
        "environment": environment(),
        "threads": torch.get_num_threads(),
        "dtype": "float32",
        "gpu": "not measured",
        "llama.cpp": missing() or "measured",
        "seconds": {},
    }
    for name, measure in sections(quick).items():
        started = time.perf_counter()
        result[name] = measure()
        result["seconds"][name] = round(time.perf_counter() - started, 1)
        print("\n".join([f"{name} ({result['seconds'][name]:.0f} s)", *lines(name, result[name])]), flush=True)
    (where / "result.json").write_text(json.dumps(result, indent=1) + "\n")
    plot(result, where / "plot.png")


if __name__ == "__main__":
    main()
