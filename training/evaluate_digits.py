"""How good the shipped image model is: what the judge recognises, and a Fréchet distance in the judge's features.

    python -m training.evaluate_digits shared/data/mnist --out src/thinktime/pocket/models/digits/quality.json

The distance is between as many drawn as real digits (the images of the scorer and the judge, which the model never
saw), and stands beside that of the images it was trained on, the least that a perfect model could be expected to have.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from thinktime.bench.statistics import mean_interval
from thinktime.core.search import Search
from thinktime.core.types import Problem, Sampling
from thinktime.generators.diffusion import DiffusionGenerator
from thinktime.models.diffusion.classifier import Classifier
from thinktime.pocket import directory
from training.digits import CLASSES, digits


def frechet(
    one: NDArray[np.float64],
    other: NDArray[np.float64],
    weights: NDArray[np.float64] | None = None,
    others: NDArray[np.float64] | None = None,
) -> float:
    """Of normal distributions fitted to two sets of features [n, width], where given with weights [n]."""
    a, b = np.cov(one.T, aweights=weights), np.cov(other.T, aweights=others)
    roots = np.linalg.eigvals(a @ b).real.clip(0)
    apart = np.average(one, 0, weights) - np.average(other, 0, others)
    return float((apart**2).sum() + np.trace(a) + np.trace(b) - 2 * np.sqrt(roots).sum())


async def drawn(generator: DiffusionGenerator, per_class: int) -> Any:
    """Pictures of every class, one class after another."""
    sampling = Sampling(max_length=generator.levels.steps)
    problems = [Problem(f"quality/{label}", label) for label in range(CLASSES)]
    searches = [Search(problem, generator, sampling=sampling) for problem in problems]
    found = await asyncio.gather(*(search.extend([search.root], per_class) for search in searches))
    return generator.model.pictures([node.state.x for leaves in found for node in leaves])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--per-class", type=int, default=150)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    judge = Classifier.load(directory("digits_judge"))

    def features(pictures: Any) -> NDArray[np.float64]:
        with torch.inference_mode():
            return judge.features(torch.as_tensor(np.stack(pictures))).double().numpy()

    unseen = np.concatenate([digits(args.data, part)[0].numpy() for part in ("scorer", "judge")]) / 2 + 0.5
    trained = digits(args.data, "generator")[0].numpy()[: 10 * args.per_class] / 2 + 0.5
    rows = {}
    for steps, eta, guidance in ((10, 1.0, 1.0), (20, 1.0, 1.0), (20, 0.0, 1.0), (20, 1.0, 2.0), (50, 1.0, 1.0)):
        generator = DiffusionGenerator(directory("digits"), steps=steps, eta=eta, guidance=guidance)
        pictures = asyncio.run(drawn(generator, args.per_class))
        seen = judge.log_probabilities(pictures).argmax(-1).reshape(CLASSES, args.per_class)
        right = (seen == np.arange(CLASSES)[:, None]).astype(float)
        rows[f"steps={steps},eta={eta:g},guidance={guidance:g}"] = {
            "judge_accuracy": asdict(mean_interval(right.ravel().tolist())),
            "by_class": [round(share, 3) for share in right.mean(1).tolist()],
            "frechet": round(frechet(features(pictures), features(unseen[: len(pictures)])), 3),
        }
        print(json.dumps(rows), flush=True)
    least = round(frechet(features(trained), features(unseen[: len(trained)])), 3)
    out = {"command": "python -m training.evaluate_digits MNIST", "n": 10 * args.per_class}
    out |= {"frechet_of_training_images": least, "settings": rows}
    args.out.write_text(json.dumps(out, indent=1) + "\n")


if __name__ == "__main__":
    main()
