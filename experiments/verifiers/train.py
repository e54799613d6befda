"""Train a process reward head on hidden states of a frozen model.

    python -m experiments.verifiers.train EXPORT --states FOLDER --out head.safetensors

`experiments.verifiers.collect` writes the folder. Every prefix of a sample that ends a line is an example. Its label
is whether the whole sample is right: a Monte Carlo estimate of the value of the prefix from one roll-out. All samples
weigh the same.

The head is logistic regression on the states of one layer. Layer and penalty are options, and nothing is chosen by the
result; ``--grid`` prints the AUC of other values. The head is trained on the first half of the problems, or on all of
them if ``--test`` names other problems. ``--scores`` gets the scores of these other problems. Without them it gets the
scores of all problems, each by a head that was trained on four fifths of the other problems. The head's file has what
it takes to repeat this.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import load_file, save_file
from scipy.optimize import minimize
from torch import Tensor

from experiments.banks.judge import digest, judged_pool
from experiments.intervals import Estimate, areas, as_number, mean
from experiments.verifiers.collect import LAYERS
from thinktime.bench.bank_export import header_of
from thinktime.bench.samples import Sampled

PENALTIES = (0.001, 0.01, 0.1)
"""Of the grid."""
FOLDS = 5
STEPS = 60
Array = npt.NDArray[np.float64]


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


def named(export: Path, folder: Path) -> Iterator[tuple[Sampled, int, Tensor]]:
    """The samples of an export whose states are in a folder: problem, place, states ``[lines, layers, hidden]``."""
    for problem in judged_pool(export).problems:
        file = folder / f"{problem.id}.safetensors"
        if file.exists():
            for key, states in load_file(file).items():
                yield problem, int(key), states.float()


def examples(export: Path, folder: Path) -> Examples:
    """The prefixes of these samples."""
    parts = list(named(export, folder))
    if not parts:
        sys.exit(f"states={str(folder)!r}: no states of this export are there; run experiments.verifiers.collect")
    numbers = {id: number for number, id in enumerate(dict.fromkeys(problem.id for problem, *_ in parts))}
    lengths = torch.tensor([len(states) for *_, states in parts])
    about = [[p.samples[place].correct, number, numbers[p.id]] for number, (p, place, _) in enumerate(parts)]
    right, sample, problem_of = torch.tensor(about).repeat_interleave(lengths, 0).T
    last = torch.zeros(int(lengths.sum()), dtype=torch.bool)
    last[lengths.cumsum(0) - 1] = True
    return Examples(torch.cat([states for *_, states in parts]), right.bool(), sample, problem_of, last)


@dataclass(frozen=True)
class Head:
    """A linear read-out of the states of one layer."""

    layer: int
    weight: Tensor
    bias: float

    def __call__(self, found: Examples) -> Tensor:
        """The logit of every prefix."""
        return found.states[:, self.layer].double() @ self.weight + self.bias


def fit(found: Examples, layer: int, penalty: float) -> Head:
    """Logistic regression with a penalty on the weights; ``layer`` is a place in `LAYERS`."""
    states = found.states[:, layer].double()
    centre, scale = states.mean(0), states.std(0) + 1e-6
    inputs = (states - centre) / scale
    solution = logistic(inputs.numpy(), found, penalty)
    raw = torch.from_numpy(solution[:-1]) / scale
    return Head(layer, raw, float(solution[-1]) - float(raw @ centre))


def logistic(inputs: Array, found: Examples, penalty: float = 0.0) -> Array:
    """The weights and the offset with the least penalised loss, ``[inputs + 1]``; every sample weighs the same."""
    share = (found.weights / found.weights.sum()).numpy()
    sign = np.where(found.right.numpy(), 1.0, -1.0)

    def loss(solution: Array) -> tuple[float, Array]:
        margin = sign * (inputs @ solution[:-1] + solution[-1])
        pull = -share * sign / (1 + np.exp(np.minimum(margin, 700)))
        value = float(share @ np.logaddexp(0, -margin)) + penalty * float(solution[:-1] @ solution[:-1])
        return value, np.append(inputs.T @ pull + 2 * penalty * solution[:-1], pull.sum())

    start = np.zeros(inputs.shape[1] + 1)
    best: Array = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": STEPS}).x
    return best


def folds(found: Examples) -> Iterator[tuple[Tensor, Tensor]]:
    """Prefixes to fit on and to score, by folds of problems."""
    numbers = torch.unique(found.problem)
    which = torch.zeros(int(numbers.max()) + 1, dtype=torch.long)
    which[numbers] = torch.arange(len(numbers)) % FOLDS
    for fold in range(FOLDS):
        out = which[found.problem] == fold
        yield torch.where(~out)[0], torch.where(out)[0]


def cross_fitted(found: Examples, layer: int, penalty: float) -> Tensor:
    """The logit of every prefix by a head that did not see its problem."""
    logits = torch.empty(len(found.right), dtype=torch.float64)
    for rest, out in folds(found):
        logits[out] = fit(found.pick(rest), layer, penalty)(found.pick(out))
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


def report(found: Examples, logits: Tensor) -> dict[str, Any]:
    """How well the scores of whole samples tell right ones from wrong ones."""
    pooled, within = areas_of(found, logits)
    estimate: Estimate | None = mean(within) if within else None
    return {
        "n_problems": len(torch.unique(found.problem)),
        "n_samples": int(found.last.sum()),
        "n_prefixes": len(found.right),
        "pooled": pooled,
        "within": estimate,
        "n_within": len(within),
    }


def halves(found: Examples) -> tuple[Examples, Examples]:
    """The prefixes of the first half of the problems, and those of the others."""
    numbers = torch.unique(found.problem)
    first = found.problem < numbers[len(numbers) // 2]
    return found.pick(torch.where(first)[0]), found.pick(torch.where(~first)[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("export", type=Path)
    parser.add_argument("--states", type=Path, required=True)
    parser.add_argument("--test", type=Path, nargs=2, metavar=("EXPORT", "STATES"), help="held-out problems")
    parser.add_argument("--layer", type=int, choices=LAYERS, default=15)
    parser.add_argument("--penalty", type=float, default=0.01, help="of the squared weights on standardised states")
    parser.add_argument("--grid", action="store_true", help="print the AUC of all layers and some penalties")
    parser.add_argument(
        "--scores", type=Path, help="write scores of all samples here: of the held-out ones, else cross-fitted"
    )
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    header, everything = header_of(args.export), examples(args.export, args.states)
    if args.test:
        train, held_out = everything, examples(*args.test)
    else:
        train, held_out = halves(everything)
    layer = LAYERS.index(args.layer)
    started = time.perf_counter()
    inner = cross_fitted(train, layer, args.penalty)
    scale, offset = map(float, logistic(inner.numpy()[:, None], train))  # Platt 1999
    if scale <= 0:
        sys.exit(f"states={str(args.states)!r}: on folds of the problems right samples do not score higher; give more")
    raw = fit(train, layer, args.penalty)
    head = Head(layer, scale * raw.weight, scale * raw.bias + offset)
    about: dict[str, Any] = {
        "model": header["model"],
        "sha256": header["provenance"].get("sha256", {}),
        "task": header["task"]["name"],
        "split": header["task"].get("split"),
        "export": digest(args.export),
        "label": "whether the whole sample is right (one roll-out), for every prefix that ends a line",
        "layer": args.layer,
        "penalty": args.penalty,
        "train": report(train, inner),
        "held_out": report(held_out, head(held_out)),
        "seconds": round(time.perf_counter() - started, 1),
        "command": " ".join(["python -m experiments.verifiers.train", *(Path(word).name for word in sys.argv[1:])]),
    }
    weights = header["model"].partition("@")[2].partition("/")[0]
    metadata = {"layer": str(args.layer), "weights": weights, "about": json.dumps(about)}
    args.out.parent.mkdir(parents=True, exist_ok=True)
    tensors = {"weight": head.weight.float(), "bias": torch.tensor([head.bias]).float()}
    save_file(tensors, args.out, metadata)
    print(json.dumps(about, indent=1))
    if args.scores and args.test:
        _write_scores(args.scores, list(named(*args.test)), head(held_out))
    elif args.scores:
        logits = cross_fitted(everything, layer, args.penalty)
        _write_scores(args.scores, list(named(args.export, args.states)), scale * logits + offset)
        print(json.dumps({"cross-fitted": report(everything, logits)}))
    for other, penalty in product(range(len(LAYERS)), PENALTIES) if args.grid else ():
        area = report(everything, cross_fitted(everything, other, penalty))["within"]
        print(f"layer {LAYERS[other]}, penalty {penalty:g}: AUC within a problem {as_number(area)}", flush=True)


def _write_scores(path: Path, samples: Sequence[tuple[Sampled, int, Tensor]], logits: Tensor) -> None:
    """A line for each problem: the scores of its samples, by place, after each line."""
    by_problem: dict[str, dict[int, list[float]]] = {}
    parts = torch.split(logits.sigmoid(), [len(states) for *_, states in samples])
    for (problem, place, _), part in zip(samples, parts, strict=True):
        by_problem.setdefault(problem.id, {})[place] = [round(value, 6) for value in part.tolist()]
    lines = ({"problem": problem, "samples": scores} for problem, scores in by_problem.items())
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


if __name__ == "__main__":
    main()
