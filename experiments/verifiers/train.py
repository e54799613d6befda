"""Train a process reward head on hidden states of a frozen model.

    python -m experiments.verifiers.train TRAIN_EXPORT --states FOLDER --test EXPORT FOLDER --out head.safetensors

`experiments.verifiers.collect` writes the folders. Every prefix of a sample that ends a line is an example. Its label
is whether the whole sample is right: a Monte Carlo estimate of the value of the prefix from one roll-out. All samples
weigh the same.

The head is logistic regression on one layer. The layer, the penalty, and whether the states of a problem are centred
for the fit are those with the highest AUC within a problem on folds of the training problems. Scores of these folds
also give the scale and the offset that make the outputs probabilities. The file has what it takes to repeat this.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from experiments.banks.judge import digest, judged_pool
from experiments.intervals import Estimate, areas, mean
from experiments.verifiers.collect import LAYERS
from thinktime.bench.bank_export import header_of

PENALTIES = (1e-3, 1e-2, 1e-1)
"""Of the squared weights on standardised states, beside the mean loss."""
FOLDS = 5
STEPS = 60


@dataclass(frozen=True)
class Examples:
    """Prefixes of samples: their hidden states ``[prefixes, layers, hidden]``, and of each its sample and problem."""

    states: Tensor
    right: Tensor
    sample: Tensor
    problem: Tensor
    last: Tensor
    """Whether a prefix is the whole sample."""

    def pick(self, rows: Tensor) -> Examples:
        """Some of the prefixes."""
        return Examples(*(getattr(self, name)[rows] for name in self.__dataclass_fields__))

    @property
    def weights(self) -> Tensor:
        """One over the number of prefixes of the sample."""
        counts = torch.bincount(self.sample)
        return 1.0 / counts[self.sample].double()


def examples(export: Path, folder: Path, n: int) -> Examples:
    """The prefixes of the samples of an export whose states are in a folder."""
    parts: list[tuple[Tensor, bool, int, int]] = []
    place = 0
    for number, problem in enumerate(judged_pool(export, n).problems):
        file = folder / f"{problem.id}.npz"
        if not file.exists():
            continue
        with np.load(file) as found:
            for key in found.files:
                parts.append((torch.from_numpy(found[key]).float(), problem.samples[int(key)].correct, place, number))
                place += 1
    if not parts:
        sys.exit(f"states={str(folder)!r}: no states of this export are there; run experiments.verifiers.collect")
    lengths = torch.tensor([len(states) for states, *_ in parts])
    right, sample, problem_of = (
        torch.tensor([part[i] for part in parts]).repeat_interleave(lengths) for i in (1, 2, 3)
    )
    last = torch.zeros(int(lengths.sum()), dtype=torch.bool)
    last[lengths.cumsum(0) - 1] = True
    return Examples(torch.cat([states for states, *_ in parts]), right, sample, problem_of, last)


@dataclass(frozen=True)
class Head:
    """A linear read-out of the states of one layer."""

    layer: int
    weight: Tensor
    bias: float

    def __call__(self, found: Examples) -> Tensor:
        """The logit of every prefix."""
        return found.states[:, self.layer].double() @ self.weight + self.bias


def fit(found: Examples, layer: int, penalty: float, *, centred: bool) -> Head:
    """Logistic regression with a penalty on the weights; ``layer`` is a place in `LAYERS`."""
    states = found.states[:, layer].double()
    centre, scale = states.mean(0), states.std(0) + 1e-6
    inputs = (states - centre) / scale
    if centred:
        _, group = torch.unique(found.problem, return_inverse=True)
        counts = torch.bincount(group)[:, None]
        inputs = (
            inputs - (torch.zeros(len(counts), inputs.shape[1]).double().index_add_(0, group, inputs) / counts)[group]
        )
    labels, share = found.right.double(), found.weights / found.weights.sum()
    weight = torch.zeros(inputs.shape[1], dtype=torch.float64, requires_grad=True)
    offset = torch.zeros((), dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([weight, offset], max_iter=STEPS, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimiser.zero_grad()
        each = torch.nn.functional.binary_cross_entropy_with_logits(inputs @ weight + offset, labels, reduction="none")
        value = (share * each).sum() + penalty * (weight**2).sum()
        value.backward()
        return value

    optimiser.step(loss)
    raw = weight.detach() / scale
    return Head(layer, raw, float(offset) - float(raw @ centre))


def folds(found: Examples) -> Iterator[tuple[Tensor, Tensor]]:
    """Prefixes to fit on and to score, by folds of problems."""
    numbers = torch.unique(found.problem)
    which = torch.zeros(int(numbers.max()) + 1, dtype=torch.long)
    which[numbers] = torch.arange(len(numbers)) % FOLDS
    for fold in range(FOLDS):
        out = which[found.problem] == fold
        yield torch.where(~out)[0], torch.where(out)[0]


def cross_fitted(found: Examples, layer: int, penalty: float, *, centred: bool) -> Tensor:
    """The logit of every prefix by a head that did not see its problem."""
    logits = torch.empty(len(found.right), dtype=torch.float64)
    for rest, out in folds(found):
        logits[out] = fit(found.pick(rest), layer, penalty, centred=centred)(found.pick(out))
    return logits


def areas_of(found: Examples, logits: Tensor) -> tuple[float | None, list[float]]:
    """The AUC of whole samples: over all, and within each problem."""
    whole = torch.where(found.last)[0]
    by_problem: dict[int, tuple[list[float], list[bool]]] = {}
    for row in whole.tolist():
        scores, right = by_problem.setdefault(int(found.problem[row]), ([], []))
        scores.append(float(logits[row]))
        right.append(bool(found.right[row]))
    return areas([scores for scores, _ in by_problem.values()], [right for _, right in by_problem.values()])


def calibrated(logits: Tensor, found: Examples) -> tuple[float, float]:
    """The scale and the offset of logits that fit the labels best (Platt 1999)."""
    scale, offset = (torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in (1.0, 0.0))
    optimiser = torch.optim.LBFGS([scale, offset], max_iter=100, line_search_fn="strong_wolfe")
    share = found.weights / found.weights.sum()

    def loss() -> Tensor:
        optimiser.zero_grad()
        each = torch.nn.functional.binary_cross_entropy_with_logits(
            scale * logits + offset, found.right.double(), reduction="none"
        )
        value = (share * each).sum()
        value.backward()
        return value

    optimiser.step(loss)
    return float(scale.detach()), float(offset.detach())


def report(found: Examples, logits: Tensor) -> dict[str, Any]:
    """How well whole samples are told apart."""
    pooled, within = areas_of(found, logits)
    estimate: Estimate | None = mean(within) if within else None
    n = len(torch.unique(found.problem)), int(found.last.sum()), len(found.right)
    return {
        "n_problems": n[0],
        "n_samples": n[1],
        "n_prefixes": n[2],
        "pooled": pooled,
        "within": estimate,
        "n_within": len(within),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("export", type=Path)
    parser.add_argument("--states", type=Path, required=True)
    parser.add_argument("--samples", type=int, default=4, help="of each problem of the export")
    parser.add_argument("--test", type=Path, nargs=2, metavar=("EXPORT", "STATES"))
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    started = time.perf_counter()
    header = header_of(args.export)
    found = examples(args.export, args.states, args.samples)
    choices = list(product(range(len(LAYERS)), PENALTIES, (False, True)))
    scored = [cross_fitted(found, layer, penalty, centred=centred) for layer, penalty, centred in choices]
    quality = [float(np.mean(areas_of(found, logits)[1])) for logits in scored]
    best = int(np.argmax(quality))
    layer, penalty, centred = choices[best]
    head = fit(found, layer, penalty, centred=centred)
    scale, offset = calibrated(scored[best], found)
    head = Head(layer, scale * head.weight, scale * head.bias + offset)
    about: dict[str, Any] = {
        "model": header["model"],
        "sha256": header["provenance"].get("sha256", {}),
        "task": header["task"]["name"],
        "split": header["task"].get("split"),
        "export": digest(args.export),
        "label": "whether the whole sample is right (one roll-out), for every prefix that ends a line",
        "choice": {"layer": LAYERS[layer], "penalty": penalty, "centred": centred, "folds": FOLDS},
        "cross_fitted": report(found, scored[best]),
        "seconds": round(time.perf_counter() - started, 1),
        "command": " ".join(["python -m experiments.verifiers.train", *(Path(word).name for word in sys.argv[1:])]),
    }
    if args.test:
        test = examples(args.test[0], args.test[1], 8)
        about["held_out"] = report(test, head(test))
    digits = header["model"].partition("@")[2].partition("/")[0]
    metadata = {"layer": str(LAYERS[layer]), "weights": digits, "about": json.dumps(about)}
    args.out.parent.mkdir(parents=True, exist_ok=True)
    tensors = {"weight": head.weight.float(), "bias": torch.tensor([head.bias]).float()}
    save_file(tensors, args.out, metadata)
    for choice, area in zip(choices, quality, strict=True):
        print(f"layer {LAYERS[choice[0]]}, penalty {choice[1]:g}, centred {choice[2]}: AUC within {area:.3f}")
    print(json.dumps(about, indent=1))


if __name__ == "__main__":
    main()
