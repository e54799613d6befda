"""The FLOPs of this machine for each byte that it reads, on one thread.

    python -m experiments.kinetics.device       # seconds; writes device.json

Products of float32 matrices that fit the cache, against a sum over an array that does not. The best of several turns
counts, because other work on the machine only makes it slower.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import torch

from experiments.provenance import begin, write_json

HERE = Path(__file__).parent
SIDE, BYTES, TURNS = 512, 1 << 29, 15


def best(work: Callable[[], object]) -> float:
    """The least seconds of several turns."""
    found = []
    for _ in range(TURNS):
        started = time.perf_counter()
        work()
        found.append(time.perf_counter() - started)
    return min(found)


def main() -> None:
    args, made = begin(HERE, __doc__, "device", "device.json")
    torch.set_num_threads(1)
    a, b, long = torch.randn(SIDE, SIDE), torch.randn(SIDE, SIDE), torch.ones(BYTES // 4)
    flops, read = 2 * SIDE**3 / best(lambda: a @ b), BYTES / best(long.sum)
    result = made | {"flops_per_second": flops, "bytes_per_second": read, "intensity": flops / read}
    write_json(args.out / "device.json", result)
    print(f"{flops:.3g} FLOP/s, {read:.3g} B/s: {flops / read:.1f} FLOPs a byte")


if __name__ == "__main__":
    main()
