"""Train the process reward model on the shipped solver's own samples.

It starts from a backbone that was trained longer than the solver, so it does not share its blind spots. The layers on
top have learnt to compare a token with the prediction (`training.compare`). Here they learn which differences matter,
and to carry them to the end; the backbone stays as it is. Every token of a solution has a label, right so far or not,
exact to the token that makes a step wrong: so the model learns where to look, and its score holds at step ends and in
mid-step. Selection needs the samples of *one* problem in order: a batch takes problems with right and wrong samples, in
equal number, and a pairwise loss compares them.

    torchrun --nproc-per-node 2 -m training.reward --steps 1500 --init runs/compare/final \
        --samples runs/samples --dev runs/dev --out runs/reward
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random
from statistics import fmean
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from experiments.intervals import areas
from thinktime.models.engine.llama import Llama
from thinktime.pocket import tokenizer as pocket_tokenizer
from thinktime.pocket.tokenizer import STEP
from training.compare import freeze
from training.loop import TrainingRun, options, padded
from training.sample import sampled


@dataclass(frozen=True)
class Solution:
    """One sample: ids from the prompt on, the label of every solution token, and which tokens end a step."""

    ids: list[int]
    start: int
    labels: list[bool]
    ends: list[int]
    """Offsets into ``labels``."""
    value: float
    """The share of the other samples of the problem that are no better, by right and wrong."""

    @property
    def right(self) -> bool:
        """Whether the whole solution is right."""
        return self.labels[-1]


Losses = Callable[[Sequence[list[Solution]]], tuple[dict[str, Tensor], Tensor]]
"""Of the problems of a batch, by name, and the ids."""


def read(folder: Path) -> list[list[Solution]]:
    """The samples of each problem, duplicates removed, from all files of a folder."""
    step_id = pocket_tokenizer.build().encode(STEP).ids[0]
    problems = []
    for row in sampled(folder):
        solutions = {}
        right = sum(sample["correct"] for sample in row["samples"])
        for sample in row["samples"]:
            ids = sample["ids"]
            labels = [place < sample["wrong_at"] for place in range(len(ids))]
            ends = [place for place, token in enumerate(ids) if token == step_id or place == len(ids) - 1]
            if len(ends) == len(sample["steps"]):  # not so where the length limit or a blank line broke the format
                value = 1.0 if sample["correct"] else 1 - right / (len(row["samples"]) - 1)
                solutions[tuple(ids)] = Solution(row["prompt"] + ids, len(row["prompt"]), labels, ends, value)
        problems.append(list(solutions.values()))
    return [solutions for solutions in problems if solutions]


def epoch(problems: list[list[Solution]], rng: Random, size: int) -> Iterator[list[list[Solution]]]:
    """One epoch of problems, up to two right and two wrong solutions each; unanimous problems less often."""
    picked = []
    for solutions in problems:
        right = [s for s in solutions if s.right]
        wrong = [s for s in solutions if not s.right]
        if right and wrong:
            picked.append(rng.sample(right, min(2, len(right))) + rng.sample(wrong, min(2, len(wrong))))
        elif rng.random() < 0.4:
            picked.append(rng.sample(right or wrong, 1))
    rng.shuffle(picked)
    for start in range(0, len(picked), 16 * size):
        pool = sorted(picked[start : start + 16 * size], key=lambda group: max(len(s.ids) for s in group))
        chunks = [pool[i : i + size] for i in range(0, len(pool) - size + 1, size)]
        rng.shuffle(chunks)
        yield from chunks


def batches(problems: list[list[Solution]], run: TrainingRun, size: int) -> Iterator[Sequence[list[Solution]]]:
    """This process's share of epoch after epoch; ``size`` problems a batch and process."""
    rng = Random(run.args.seed)
    while True:
        yield from map(run.share, epoch(problems, rng, size * run.world))


@dataclass(frozen=True)
class SolutionBatch:
    """Tensors of a batch, ``[rows, tokens]``; ``problem`` and ``last`` are ``[rows]``."""

    ids: Tensor
    label: Tensor
    weight: Tensor
    problem: Tensor
    last: Tensor
    right: Tensor


def collate(groups: Sequence[list[Solution]], multiple: int = 16) -> SolutionBatch:
    """Pad and label."""
    rows = [solution for group in groups for solution in group]
    return SolutionBatch(
        padded([s.ids for s in rows], multiple),
        padded([[False] * s.start + s.labels for s in rows], multiple, dtype=torch.float32),
        padded([[0.0] * s.start + weights(s) for s in rows], multiple, dtype=torch.float32),
        torch.tensor([place for place, group in enumerate(groups) for _ in group]),
        torch.tensor([len(s.ids) - 1 for s in rows]),
        torch.tensor([s.right for s in rows]),
    )


def weights(solution: Solution) -> list[float]:
    """Of its tokens. Step ends and the first wrong token weigh most; what follows a wrong step weighs little."""
    found, labels = torch.full((len(solution.labels),), 0.3), solution.labels
    found[solution.ends] = 1.0
    if not solution.right:
        found[labels.index(False)] = 1.0
    first_bad_end = next((end for end in solution.ends if not labels[end]), len(labels))
    found[first_bad_end + 1 :] *= 0.3
    return found.tolist()


def margins(model: Llama, backbone: Any, ids: Tensor) -> Tensor:
    """Logit of "right" against "wrong" at every token, ``[rows, tokens]``."""
    with torch.autocast("cpu", torch.bfloat16):
        logits = model.head(backbone(ids)).float()
    return logits[..., 1] - logits[..., 0]


def loss_of(margin: Tensor, batch: SolutionBatch) -> Tensor:
    """Cross entropy over tokens, plus the pairwise loss between right and wrong solutions of one problem."""
    token = F.binary_cross_entropy_with_logits(margin, batch.label, reduction="none")
    loss = (token * batch.weight).sum() / batch.weight.sum()
    return loss + 0.3 * pairwise(margin, batch)


def pairwise(margin: Tensor, batch: SolutionBatch) -> Tensor:
    """The mean loss over pairs of a right and a wrong solution of one problem, by their last tokens; 0 without any."""
    final = margin[torch.arange(len(batch.last)), batch.last]
    pairs = batch.right[:, None] & ~batch.right[None, :] & (batch.problem[:, None] == batch.problem[None, :])
    return F.softplus(-(final[:, None] - final[None, :])[pairs]).mean() if pairs.any() else final.sum() * 0


@torch.no_grad()
def evaluate(model: Llama, problems: list[list[Solution]]) -> dict[str, float | None]:
    """AUC over all steps, over steps to the first error, of final answers, and within a problem."""
    steps, to_error, finals = [], [], []
    for start in range(0, len(problems), 16):
        groups = problems[start : start + 16]
        rows = iter(margins(model, model.model, collate(groups).ids).tolist())
        for group in groups:
            mine = [[row[s.start + end] for end in s.ends] for s, row in zip(group, rows, strict=False)]
            finals.append(([scores[-1] for scores in mine], [s.right for s in group]))
            for s, scores in zip(group, mine, strict=True):
                labels = [s.labels[end] for end in s.ends]
                cut = labels.index(False) + 1 if False in labels else len(labels)
                steps.append((scores, labels))
                to_error.append((scores[:cut], labels[:cut]))
    final, within = areas(*zip(*finals, strict=True))
    return {
        "steps": areas(*zip(*steps, strict=True))[0],
        "to_first_error": areas(*zip(*to_error, strict=True))[0],
        "final": final,
        "within_problem": fmean(within) if within else None,
        "mixed_problems": len(within),
    }


def judge_options(description: str | None) -> argparse.ArgumentParser:
    """The options of training a judge of samples."""
    parser = options(description, muon_rate=0.01, adam_rate=0.002)
    parser.add_argument("--init", type=Path, required=True, help="what training.compare made")
    parser.add_argument("--samples", type=Path, required=True)
    parser.add_argument("--dev", type=Path, required=True, help="samples of dev problems, for the curve")
    parser.add_argument("--batch", type=int, default=12, help="problems a batch and process")
    parser.add_argument("--layers", type=int, default=2, help="how many of the last layers are trained")
    return parser


def start(args: argparse.Namespace) -> tuple[TrainingRun, Llama, Any]:
    """The run, the model of which the last layers are trained, and its compiled backbone."""
    run, model = TrainingRun(args), Llama.load(args.init)
    freeze(model, model.config.num_hidden_layers - args.layers)
    return run, model, torch.compile(model.model, dynamic=True)


def train(run: TrainingRun, model: Llama, losses: Losses, **options: Any) -> None:
    """Train on the samples, and print what the judge is worth on all dev problems."""
    problems, dev = read(run.args.samples), read(run.args.dev)
    mixed = sum(len({s.right for s in group}) == 2 for group in problems)
    print(f"{len(problems)} problems, {sum(map(len, problems))} distinct samples, {mixed} mixed", flush=True)
    drawn, curve = batches(problems, run, run.args.batch), partial(evaluate, model, dev[:150])
    run.train(model, drawn, losses, falling=0.6, evaluate=curve, **options)
    if not run.rank:
        print(json.dumps(evaluate(model, dev)), flush=True)


def main() -> None:
    run, model, backbone = start(judge_options(__doc__).parse_args())

    def losses(groups: Sequence[list[Solution]]) -> tuple[dict[str, Tensor], Tensor]:
        batch = collate(groups)
        return {"loss": loss_of(margins(model, backbone, batch.ids), batch)}, batch.ids

    train(run, model, losses, log_every=250)


if __name__ == "__main__":
    main()
