"""Pictures per second beside the pipeline of ``diffusers``, and the memory of a growing tree.

    python -m benchmarks.images.run              # a few minutes; writes ``result.json`` beside this file

Both draw the same number of pictures of the shipped digits with the same number of steps: the pipeline in one batch,
ours as one search and as four searches. They take turns, so a busy machine slows both.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch

from thinktime import pocket
from thinktime.bench.environment import environment
from thinktime.core.search import Search
from thinktime.core.types import Problem, Sampling
from thinktime.generators.diffusion import DiffusionGenerator
from thinktime.models.diffusion.models import DiffusionModel
from thinktime.pocket.digits import STEPS
from thinktime.scorers.pictures import PictureScorer, ink
from thinktime.strategies import make

HERE = Path(__file__).parent
PICTURES = 64
MEMORY = 2_000_000
"""Most bytes of states in memory."""


def pipeline(batch: int) -> float:
    """Seconds of the pipeline of ``diffusers`` for a batch of pictures; its network gets their class."""
    import diffusers

    painter: Any = diffusers.DDIMPipeline.from_pretrained(pocket.directory("digits"))
    painter.unet.float()
    painter.set_progress_bar_config(disable=True)
    painter.unet.forward = partial(painter.unet.forward, class_labels=torch.arange(batch) % 10)
    started = time.perf_counter()
    painter(batch_size=batch, num_inference_steps=STEPS, eta=1.0, output_type="np")
    return time.perf_counter() - started


def ours(generator: DiffusionGenerator, searches: int, seed: int) -> float:
    """Seconds of the same number of pictures by independent searches."""

    async def run() -> None:
        sampling = Sampling(max_length=STEPS)
        found = [Search(Problem(str(i), i % 10), generator, sampling=sampling, seed=seed) for i in range(searches)]
        leaves = await asyncio.gather(*(each.extend([each.root], PICTURES // searches) for each in found))
        generator.model.pictures([leaf.state.x for each in leaves for leaf in each])

    started = time.perf_counter()
    asyncio.run(run())
    return time.perf_counter() - started


def held(model: DiffusionModel, rounds: int) -> dict[str, float]:
    """Nodes of a tree, bytes of states in memory, and bytes of all states."""
    generator = DiffusionGenerator(model, steps=STEPS, memory=MEMORY)
    scorer = PictureScorer(generator, ink, "ink")
    search = Search(Problem("tree", 3), generator, scorers=scorer, sampling=Sampling(max_length=STEPS))
    asyncio.run(make("dts", {"n": rounds, "walks": 8})(search))
    size = 4 * 2 * int(torch.tensor(model.shape).prod())
    return {"nodes": len(search.trace), "in_memory": generator.store.held, "in_all": size * len(search.trace)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    model = DiffusionModel(pocket.directory("digits"))
    generator = DiffusionGenerator(model, steps=STEPS)
    runs: dict[str, Callable[[int], float]] = {
        "pipeline": lambda seed: pipeline(PICTURES),
        "one search": lambda seed: ours(generator, 1, seed),
        "four searches": lambda seed: ours(generator, 4, seed),
    }
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for seed in range(args.rounds + 1):  # the first round warms up
        for name, one in runs.items():
            took = one(seed)
            if seed:
                seconds[name].append(took)
    nfe = PICTURES * STEPS
    ratios = {
        name: [a / b for a, b in zip(seconds["pipeline"], times, strict=True)]
        for name, times in seconds.items()
        if name != "pipeline"
    }
    result = {
        "command": "python -m benchmarks.images.run",
        "environment": environment(),
        "threads": torch.get_num_threads(),
        "pictures": PICTURES,
        "steps": STEPS,
        "nfe_per_second": {name: _spread([nfe / took for took in times]) for name, times in seconds.items()},
        "over_pipeline": {name: _spread(values) for name, values in ratios.items()},
        "tree": [held(model, rounds) for rounds in (25, 100, 400)],
    }
    print(json.dumps(result, indent=1))
    (HERE / "result.json").write_text(json.dumps(result, indent=1) + "\n")


def _spread(values: list[float]) -> dict[str, float]:
    return {"median": round(median(values), 3), "min": round(min(values), 3), "max": round(max(values), 3)}


if __name__ == "__main__":
    main()
