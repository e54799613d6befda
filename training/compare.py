"""Teach layers on top of the backbone to compare: was this token the one to expect?

The backbone predicts every token, but it was never trained to compare its prediction with the token that follows. From
a reward model's own data this takes very long to learn, with one wrong token in a solution. Here every solution has
many: digits of reference solutions are swapped at random, and the label of a token is whether the backbone gave it more
than half of the probability. The backbone stays as it is; the reward model starts from the result.

    torchrun --nproc-per-node 2 -m training.compare --steps 200 --backbone runs/solver/final --out runs/compare
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from random import Random

import torch
import torch.nn.functional as F
from torch import Tensor

from thinktime.models.engine.llama import Llama
from thinktime.pocket import tokenizer as pocket_tokenizer
from thinktime.pocket.problems import LEVELS, WordProblem, draw
from training.loop import TrainingRun, options, start_as_identity
from training.solver import encode

SWAPPED = 0.12


def with_layers(backbone: Llama, more: int) -> Llama:
    """A classifier of two labels: the backbone, frozen, and ``more`` layers that begin as the identity."""
    n_layers = backbone.config.num_hidden_layers
    model = Llama(replace(backbone.config, num_hidden_layers=n_layers + more), labels=2)
    start_as_identity(model)
    model.model.load_state_dict(backbone.model.state_dict(), strict=False)
    torch.nn.init.zeros_(model.score.weight)
    torch.nn.init.zeros_(model.score.bias)
    freeze(model, n_layers)
    return model


def freeze(model: Llama, layers: int) -> None:
    """Keep the embedding and the first ``layers`` layers as they are."""
    for part in (model.model.embed_tokens, *list(model.model.layers)[:layers]):
        part.requires_grad_(False)


def swap_digits(ids: Tensor, mask: Tensor, digits: tuple[Tensor, Tensor]) -> Tensor:
    """Swap the digits at a share of the places of ``mask``; digits behind a space are tokens of another kind."""
    draws = torch.randint(0, 10, ids.shape)
    hit = mask & (torch.rand(ids.shape) < SWAPPED)
    for kind in digits:
        ids = torch.where(hit & torch.isin(ids, kind), kind[draws], ids)
    return ids


def batches(rng: Random, size: int) -> Iterator[list[WordProblem]]:
    """Endless batches of fresh problems of all levels."""
    while True:
        yield [draw(rng, rng.choice(LEVELS), "train") for _ in range(size)]


def main() -> None:
    parser = options(__doc__, muon_rate=0.02, adam_rate=0.003)
    parser.add_argument("--backbone", type=Path, required=True)
    parser.add_argument("--batch", type=int, default=32, help="problems a batch and process")
    parser.add_argument("--layers", type=int, default=2)
    args = parser.parse_args()
    run = TrainingRun(args)
    tokenizer = pocket_tokenizer.build()
    backbone = Llama.load(args.backbone)
    model = with_layers(backbone, args.layers)
    expecting = torch.compile(backbone.model, dynamic=True)
    judging = torch.compile(model.model, dynamic=True)
    vocabulary = tokenizer.get_vocab()
    digits = (
        torch.tensor([vocabulary[f"Ġ{digit}"] for digit in range(10)]),
        torch.tensor([vocabulary[str(digit)] for digit in range(10)]),
    )
    torch.manual_seed(args.seed * run.world + run.rank)

    def losses(batch: list[WordProblem]) -> tuple[dict[str, Tensor], Tensor]:
        ids, mask = encode(tokenizer, batch)
        ids = swap_digits(ids, mask, digits)
        with torch.autocast("cpu", torch.bfloat16):
            with torch.no_grad():
                logprobs = backbone.head(expecting(ids[:, :-1])).float().log_softmax(-1)
            logits = model.head(judging(ids)).float()
        expected = (logprobs.gather(2, ids[:, 1:, None])[..., 0] > math.log(0.5)).float()
        margin = (logits[..., 1] - logits[..., 0])[:, 1:]
        token = F.binary_cross_entropy_with_logits(margin, expected, reduction="none")
        weight = torch.where(expected > 0, 0.2, 1.0) * mask[:, 1:]
        return {"loss": (token * weight).sum() / weight.sum()}, ids

    drawn = batches(Random(f"compare/{args.seed}/{run.rank}"), args.batch)
    run.train(model, drawn, losses, falling=0.6)


if __name__ == "__main__":
    main()
