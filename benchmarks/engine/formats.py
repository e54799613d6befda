"""How fast this processor multiplies with weights of each number type: one matrix of a real model, one thread.

    python -m benchmarks.engine.formats

The types take turns, and each figure is the best of its repetitions, in seconds of processor time. So other processes
disturb it little. `thinktime.models.engine.models` chooses the type for ``--dtype auto`` after these figures.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from torch import Tensor, nn

from thinktime.bench.environment import environment
from thinktime.models.engine.products import dense_product, packed_product, packs

OUT, IN = 4864, 896
"""The matrix of a gate of Qwen2.5-0.5B."""
ROWS = (1, 2, 4, 8, 16, 32, 64, 128)
REPETITIONS = 7


def products() -> dict[str, Callable[[Tensor], Tensor]]:
    """A product with the same random matrix for each type that this processor has."""
    torch.manual_seed(0)
    layer = nn.Linear(IN, OUT, bias=False)
    half = nn.Linear(IN, OUT, bias=False, dtype=torch.bfloat16)
    half.weight.data = layer.weight.data.bfloat16()
    float32, bfloat16 = dense_product(layer), dense_product(half)
    found: dict[str, Callable[[Tensor], Tensor]] = {
        "float32": lambda x: float32(x, None),
        "bfloat16": lambda x: bfloat16(x.bfloat16(), None),
    }
    if packs(torch.float16, torch.device("cpu")):
        with ThreadPoolExecutor(1) as pool:
            float16 = packed_product(pool, layer)
        found["float16, packed"] = lambda x: float16(x, None)
    return found


def gflops(product: Callable[[Tensor], Tensor], x: Tensor) -> float:
    """Billion operations in a second of processor time, for one call."""
    start = time.process_time_ns()
    calls = 0
    while (spent := time.process_time_ns() - start) < 20_000_000:
        product(x)
        calls += 1
    return 2 * calls * len(x) * OUT * IN / spent


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "formats.json")
    args = parser.parse_args()
    torch.set_num_threads(1)
    found = products()
    rows: dict[str, dict[str, float]] = {}
    for n in ROWS:
        x = torch.randn(n, IN)
        best = dict.fromkeys(found, 0.0)
        for _ in range(REPETITIONS):
            for name, product in found.items():
                best[name] = max(best[name], gflops(product, x))
        rows[str(n)] = {name: round(value, 1) for name, value in best.items()}
        print(n, json.dumps(rows[str(n)]))
    matrix, capability = [OUT, IN], torch.backends.cpu.get_cpu_capability()
    result = {"environment": environment(), "matrix": matrix, "capability": capability, "gflops_by_rows": rows}
    args.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
