"""What both trainings share: two processes that average gradients, and the optimizers."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import TextIO

import torch
import torch.distributed as dist
from torch import nn


def start_processes(seed: int) -> tuple[int, int]:
    """Join the processes that ``torchrun`` started, one thread each; rank and number of them."""
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    if world > 1:
        dist.init_process_group("gloo")
    return rank, world


def start_as_identity(model: nn.Module) -> None:
    """Draw the matrices; what a layer adds is zero at first."""
    for name, value in model.named_parameters():
        if value.ndim == 2:
            outward = "o_proj" in name or "down_proj" in name
            std = 0.0 if outward else 0.02 if "embed" in name else value.shape[1] ** -0.5
            nn.init.normal_(value, std=std)


def write_row(log: TextIO, row: Mapping[str, object]) -> None:
    """Print a row of the curve and add it to the log at once."""
    line = json.dumps(row)
    print(line, flush=True)
    log.write(line + "\n")
    log.flush()


def average_gradients(model: nn.Module, world: int, count: int) -> int:
    """Average the gradients over the processes; the sum of their counts."""
    if world == 1:
        return count
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    flat = torch.cat([*(g.flatten() for g in gradients), torch.tensor([float(count)])])
    dist.all_reduce(flat)
    at = 0
    for gradient in gradients:
        gradient.copy_(flat[at : at + gradient.numel()].view_as(gradient) / world)
        at += gradient.numel()
    return int(flat[-1])


class MuonAdam:
    """Muon for the matrices inside the layers, AdamW for embeddings, heads and scales.

    Muon needs the weight decay: without it the query and key matrices grow until attention is all or nothing and
    stops learning where to look.
    """

    def __init__(self, model: nn.Module, muon_rate: float, adam_rate: float, weight_decay: float) -> None:
        trained = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
        inner = [p for n, p in trained if p.ndim == 2 and "layers." in n]
        outer = [p for n, p in trained if p.ndim != 2 or "layers." not in n]
        self._muon = torch.optim.Muon(inner, lr=muon_rate, weight_decay=weight_decay, momentum=0.95)
        self._adam = torch.optim.AdamW(outer, lr=adam_rate, betas=(0.9, 0.98), weight_decay=0.0, fused=True)
        self._rates = (muon_rate, adam_rate)

    def step(self, scale: float) -> None:
        """Apply the gradients at ``scale`` times the rates and forget them."""
        for optimizer, rate in zip((self._muon, self._adam), self._rates, strict=True):
            optimizer.param_groups[0]["lr"] = rate * scale
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)


def rate_scale(step: int, steps: int, falling: float) -> float:
    """Warm up over 50 steps, then constant, then linear to 0 over the last ``falling`` share."""
    return min(1.0, (step + 1) / 50, (1 - step / steps) / falling)
