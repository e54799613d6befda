"""Teach the solver to predict at every token whether another sample would be better (Manvi et al. 2024, 2410.02725).

The solver's own layers stay as they are; on top of them are two that have learnt to compare (`training.compare`, with
the solver for a backbone). The label of a sample is the share of the solver's other samples of the problem that are no
better, and each of its tokens has this label: in the middle of a sample it is the value of going on. As for the reward
model, a pairwise loss compares right and wrong samples of one problem. One number a sample is too little to learn from,
so a second head learns at which token a sample goes wrong; it is dropped at the end.

    torchrun --nproc-per-node 2 -m training.self_evaluation --steps 700 --init runs/skills/compare/final \
        --samples runs/skills/samples --dev runs/skills/dev --out runs/self
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.reward import Solution, SolutionBatch, collate, judge_options, loss_of, pairwise, start, train


def value_loss(margin: Tensor, values: Tensor, batch: SolutionBatch) -> Tensor:
    """Cross entropy against the values of whole samples at every token, step ends and the last token most."""
    every = F.binary_cross_entropy_with_logits(margin, values[:, None].expand_as(margin), reduction="none")
    last = every[torch.arange(len(batch.last)), batch.last]
    in_solution = (batch.weight > 0).float()
    return (every * in_solution).sum() / in_solution.sum() + last.mean() + 0.3 * pairwise(margin, batch)


def main() -> None:
    run, model, backbone = start(judge_options(__doc__).parse_args())
    where = nn.Linear(model.config.hidden_size, 1)
    where.weight.data[0] = model.score.weight.data[1] - model.score.weight.data[0]
    nn.init.zeros_(where.bias)

    def losses(groups: Sequence[list[Solution]]) -> tuple[dict[str, Tensor], Tensor]:
        batch = collate(groups)
        values = torch.tensor([solution.value for group in groups for solution in group])
        with torch.autocast("cpu", torch.bfloat16):
            hidden = backbone(batch.ids)
            logits, places = model.head(hidden).float(), where(hidden).float()[..., 0]
        value = value_loss(logits[..., 1] - logits[..., 0], values, batch)
        return {"loss": value + loss_of(places, batch)}, batch.ids

    train(run, model, losses, heads=where, evaluate_every=100)


if __name__ == "__main__":
    main()
