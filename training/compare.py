"""Teach layers on top of the backbone to compare: was this token the one to expect?

The backbone knows at every token what should come next; whether that is what came, it never had to say. From a reward
model's own data this takes very long to learn, with one wrong token in a solution. Here every solution has many: digits
of reference solutions are swapped at random, and the label of a token is whether the backbone gave it more than half of
the probability. The backbone stays as it is; what comes out is where the reward model starts.

    torchrun --nproc-per-node 2 -m training.compare --steps 200 --backbone runs/solver/final --out runs/compare
"""

from __future__ import annotations

import argparse
import math
import time
from dataclasses import replace
from pathlib import Path
from random import Random

import torch
import torch.nn.functional as F
from torch import Tensor

from thinktime.engine.llama import Llama
from thinktime.pocket import tokenizer as pocket_tokenizer
from thinktime.pocket.problems import LEVELS, draw
from training.common import MuonAdam, average_gradients, rate_scale, start_as_identity, start_processes, write_row
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
    """Other digits in a share of the places of ``mask``; those behind a space are a kind of their own."""
    draws = torch.randint(0, 10, ids.shape)
    hit = mask & (torch.rand(ids.shape) < SWAPPED)
    for kind in digits:
        ids = torch.where(hit & torch.isin(ids, kind), kind[draws], ids)
    return ids


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backbone", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--batch", type=int, default=32, help="problems a batch and process")
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--muon-rate", type=float, default=0.02)
    parser.add_argument("--adam-rate", type=float, default=0.003)
    parser.add_argument("--weight-decay", type=float, default=0.1)
    args = parser.parse_args()
    rank, world = start_processes(args.seed)
    args.out.mkdir(parents=True, exist_ok=True)
    tokenizer = pocket_tokenizer.build()
    backbone = Llama.load(args.backbone)
    model = with_layers(backbone, args.layers)
    expecting = torch.compile(backbone.model, dynamic=True)
    judging = torch.compile(model.model, dynamic=True)
    optimizer = MuonAdam(model, args.muon_rate, args.adam_rate, args.weight_decay)
    vocabulary = tokenizer.get_vocab()
    digits = (
        torch.tensor([vocabulary[f"Ġ{digit}"] for digit in range(10)]),
        torch.tensor([vocabulary[str(digit)] for digit in range(10)]),
    )
    rng = Random(f"compare/{args.seed}/{rank}")
    torch.manual_seed(args.seed * world + rank)
    log = (args.out / "log.jsonl").open("a")
    start, running = time.time(), 0.0
    for step in range(args.steps):
        batch = [draw(rng, rng.choice(LEVELS), "train") for _ in range(args.batch)]
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
        loss = (token * weight).sum() / weight.sum()
        loss.backward()  # type: ignore[no-untyped-call]
        average_gradients(model, world, 0)
        optimizer.step(rate_scale(step, args.steps, falling=0.6))
        running = 0.97 * running + 0.03 * loss.item() if step else loss.item()
        if not rank and (step + 1) % 50 == 0:
            write_row(log, {"step": step + 1, "minutes": (time.time() - start) / 60, "loss": running})
    if not rank:
        model.save(args.out / "final", torch.float32)


if __name__ == "__main__":
    main()
