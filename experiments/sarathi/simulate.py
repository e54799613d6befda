"""What chunked prefill would gain on a device we do not have: the engine's scheduler under a roofline clock.

    python -m experiments.sarathi.simulate       # a minute; writes simulation.json and simulation.png

Everything but the forward pass is the engine's own: the scheduler, the blocks, the token budget. An iteration takes as
long as its operations or its memory traffic, whichever is more (SARATHI, arXiv 2308.16369). The device is an A6000 that
reaches what the paper measured with LLaMA-13B: 235 ms for a prompt of 1,021 tokens, 50 ms for four decodes.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from experiments.plot import COLOURS, panels, save
from experiments.provenance import write_json
from thinktime.models.engine.blocks import BlockPool
from thinktime.models.engine.costs import Shape
from thinktime.models.engine.rows import Row
from thinktime.models.engine.scheduler import Scheduler

HERE = Path(__file__).parent
LLAMA_13B = Shape(layers=40, heads=40, kv_heads=40, head_dim=128, parameters=13_000_000_000, bytes_per_value=2)
BLOCK = 16
BUDGET = 256


@dataclass(frozen=True)
class Device:
    """Operations and bytes a second that are reached, and the bytes there are."""

    flops: float
    bandwidth: float
    memory: float

    def seconds(self, shape: Shape, tokens: int, attended: int, kv_read: int) -> float:
        """The longer of computing and of reading the weights and the keys and values."""
        operations = 2 * shape.parameters * tokens + shape.flops_per_attended * attended
        traffic = shape.parameters * shape.bytes_per_value + kv_read * shape.kv_bytes_per_token
        return max(operations / self.flops, traffic / self.bandwidth)

    def rows(self, shape: Shape, length: int) -> int:
        """How many rows of ``length`` tokens its memory holds beside the weights."""
        free = self.memory - shape.parameters * shape.bytes_per_value
        return int(free // (length * shape.kv_bytes_per_token))


A6000 = Device(flops=113e12, bandwidth=0.54e12, memory=48e9)


@dataclass(frozen=True)
class Simulation:
    """Seconds of every iteration, and tokens of prompts and answers."""

    iterations: list[float]
    tokens: int

    @property
    def rate(self) -> float:
        """Tokens a second."""
        return self.tokens / sum(self.iterations)

    @property
    def variation(self) -> float:
        """Standard deviation over mean of the iterations' lengths."""
        return float(np.std(self.iterations) / np.mean(self.iterations))


def simulate(
    device: Device, shape: Shape, prompt: int, answer: int, rows: int, waves: int, mode: str, budget: int = BUDGET
) -> Simulation:
    """``rows * waves`` requests that all wait from the start.

    ``token_budget`` chunks prompts beside running rows, ``prefill_first`` reads them whole between iterations of
    rows, ``request_level`` starts the next ``rows`` requests when all of the last ones are done.
    """
    pool = BlockPool((rows + 1) * (-(-(prompt + answer) // BLOCK) + 2), BLOCK)
    scheduler = Scheduler(pool, budget, rows, chunked=mode == "token_budget")
    waiting = [tuple(range(k * prompt, (k + 1) * prompt)) for k in range(rows * waves)]
    times: list[float] = []
    while waiting or scheduler.busy:
        if mode != "request_level" or not scheduler.busy:
            for ids in waiting[:rows]:
                scheduler.add(Row(ids, 0, answer), prompt - 1)
            del waiting[:rows]
        iteration = scheduler.schedule()
        lengths = [(job.prefix.length, 1) for jobs, _ in iteration.decoding for job in jobs[:1]]
        lengths += [(trunk.prefix.length, len(new)) for trunk, new in iteration.chunks]
        attended = sum(new * length - new * (new - 1) // 2 for length, new in lengths)
        read = sum(length for length, _ in lengths)
        times.append(device.seconds(shape, sum(new for _, new in lengths), attended, read))
        pool.settle()
        drawn = [job for jobs, _ in iteration.decoding for job in jobs]
        for trunk, _ in iteration.chunks:
            if not trunk.left:
                drawn += trunk.jobs
                scheduler.branch(trunk)
        for job in drawn:
            job.ids.append(-1 - job.ids[0] - len(job.ids) * 10**9)  # nobody else's token
            if len(job.ids) == prompt + answer:
                scheduler.remove(job)
    return Simulation(times, rows * waves * (prompt + answer))


MODES = ("request_level", "prefill_first", "token_budget")


def point(length: int, answer: int, rows: int, waves: int) -> dict[str, Any]:
    """All modes at one length of the answers."""
    runs = {mode: simulate(A6000, LLAMA_13B, length - answer, answer, rows, waves, mode) for mode in MODES}
    return {
        "prompt": length - answer,
        "answer": answer,
        "ratio": (length - answer) / answer,
        "tokens_per_second": {mode: round(run.rate, 1) for mode, run in runs.items()},
        "gain_over_request_level": round(runs["token_budget"].rate / runs["request_level"].rate, 4),
        "gain_over_prefill_first": round(runs["token_budget"].rate / runs["prefill_first"].rate, 4),
        "variation": {mode: round(run.variation, 3) for mode, run in runs.items()},
        "longest_ms": {mode: round(1e3 * max(run.iterations), 1) for mode, run in runs.items()},
    }


def sweep(length: int, ratios: Sequence[float], waves: int) -> dict[str, Any]:
    """All modes over prompt-to-answer ratios at one total length."""
    rows = A6000.rows(LLAMA_13B, length)
    points = [point(length, max(2, round(length / (1 + ratio))), rows, waves) for ratio in ratios]
    best = max(points, key=lambda point: point["gain_over_request_level"])
    return {"rows": rows, "predicted_ratio": round(BUDGET / (rows - 1), 2), "best": best, "points": points}


def plot(result: dict[str, Any], path: Path) -> None:
    """Gain against the ratio, with the predicted peaks, and the iterations' variation."""
    figure, (gain, variation) = panels(2, 11, 4.2)
    for (length, run), colour in zip(result["by_length"].items(), COLOURS[1:], strict=False):
        ratios = [point["ratio"] for point in run["points"]]
        gains = [point["gain_over_request_level"] for point in run["points"]]
        gain.plot(ratios, gains, "o-", ms=3, color=colour, label=f"{length} tokens, {run['rows']} rows")
        gain.axvline(run["predicted_ratio"], color=colour, ls=":", lw=1)
        for mode, style in (("prefill_first", "--"), ("token_budget", "-")):
            variation.plot(ratios, [point["variation"][mode] for point in run["points"]], style, color=colour, lw=1.4)
    gain.set_ylabel("throughput over request-level batches")
    gain.set_title("chunked prefill; dotted: where P : D = C / (B - 1)", size=12)
    gain.legend()
    variation.set_ylabel("deviation over mean of iteration time")
    variation.set_title("solid: chunked; dashed: whole prompts", size=12)
    for axes in (gain, variation):
        axes.set(xscale="log", xlabel="prompt tokens per answer token")
    save(figure, path)


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()  # it has no options
    ratios = [1, 2, 4, 6, 8, 11, 15, 20, 27, 36, 50, 75, 120]
    four = [(1020, 1)] * 4
    decode = A6000.seconds(LLAMA_13B, 4, sum(length for length, _ in four), sum(length for length, _ in four))
    result: dict[str, Any] = {
        "command": "python -m experiments.sarathi.simulate",
        "device": A6000.__dict__ | {"calibrated": {"prompt of 1021, ms": 234.8, "four decodes, ms": 49.96}},
        "model_gives": {
            "prompt of 1021, ms": round(1e3 * A6000.seconds(LLAMA_13B, 1021, 1021 * 1022 // 2, 1021), 1),
            "four decodes, ms": round(1e3 * decode, 1),
        },
        "budget": BUDGET,
        "by_length": {str(length): sweep(length, ratios, waves=8) for length in (1024, 2048, 3072)},
    }
    write_json(HERE / "simulation.json", result)
    plot(result, HERE / "simulation.png")
    for length, run in result["by_length"].items():
        best = run["best"]
        print(
            f"{length} tokens, {run['rows']} rows: best gain {best['gain_over_request_level']:.2f} at P:D "
            f"{best['ratio']:.0f} (predicted {run['predicted_ratio']}); iterations vary by {best['variation']}"
        )


if __name__ == "__main__":
    main()
