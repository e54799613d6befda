"""The training loop of the text models: one or two processes that average their gradients, Muon and AdamW, a log."""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TextIO, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from thinktime.models.engine.llama import Llama

PAD_ID = 0
SMOOTHING = 0.98
"""The weight of the past in the losses that the log shows."""
Item = TypeVar("Item")
Batch = TypeVar("Batch")


def options(description: str | None, *, muon_rate: float, adam_rate: float) -> argparse.ArgumentParser:
    """The options that every training has; the rates are their defaults."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of the checkpoints and of log.jsonl")
    parser.add_argument("--steps", type=int, required=True, help="the rate falls linearly to 0 at the last one")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--muon-rate", type=float, default=muon_rate)
    parser.add_argument("--adam-rate", type=float, default=adam_rate)
    parser.add_argument("--weight-decay", type=float, default=0.1, help="without it attention saturates")
    return parser


class TrainingRun:
    """One process of a training: its place among the processes, and the options of the run.

    It joins the processes that ``torchrun`` started, takes one thread, seeds torch and makes the folder of the run.
    """

    def __init__(self, args: argparse.Namespace) -> None:
        torch.set_num_threads(1)
        torch.manual_seed(args.seed)
        self.rank, self.world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
        if self.world > 1:
            dist.init_process_group("gloo")
        self.args = args
        args.out.mkdir(parents=True, exist_ok=True)

    def share(self, batch: Sequence[Item]) -> Sequence[Item]:
        """The part of a batch that this process takes; neighbours in length, so no process waits for another."""
        return batch[self.rank :: self.world]

    def train(
        self,
        model: Llama,
        batches: Iterable[Batch],
        losses: Callable[[Batch], tuple[Mapping[str, Tensor], Tensor]],
        *,
        falling: float,
        heads: nn.Module | None = None,
        stop: int | None = None,
        log_every: int = 50,
        evaluate: Callable[[], Mapping[str, object]] = dict,
        evaluate_every: int = 500,
        after_step: Callable[[int], None] = lambda tokens: None,
    ) -> None:
        """Train ``model``, and save it as ``latest`` with every row of the log and as ``final`` at the end.

        Args:
            model: what is saved.
            batches: endless; this process's own share of each.
            losses: of a batch, by name, and its ids ``[rows, tokens]``. The sum of the losses is minimised.
            falling: share of the steps over which the rate falls.
            heads: trained beside the model and not saved.
            stop: the step to stop at, if the run does not go to the end of its schedule.
            log_every: steps between two rows of the log.
            evaluate: figures on dev problems, for the log.
            evaluate_every: steps between two evaluations.
            after_step: called in the first process with the number of tokens so far.
        """
        args, trained = self.args, model if heads is None else nn.ModuleList([model, heads])
        optimizer = MuonAdam(trained.train(), args.muon_rate, args.adam_rate, args.weight_decay)
        log = (args.out / "log.jsonl").open("a")
        start, tokens, smooth = time.time(), 0, dict[str, float]()
        for step, batch in enumerate(islice(batches, stop or args.steps), 1):
            parts, ids = losses(batch)
            torch.stack([*parts.values()]).sum().backward()  # type: ignore[no-untyped-call]
            tokens += average_gradients(trained, self.world, int((ids != PAD_ID).sum()))
            optimizer.step(rate_scale(step - 1, args.steps, falling))
            if self.rank:
                continue
            for name, loss in parts.items():
                smooth[name] = SMOOTHING * smooth.get(name, loss.item()) + (1 - SMOOTHING) * loss.item()
            if step % log_every == 0:
                minutes = round((time.time() - start) / 60, 2)
                figures = evaluate() if step % evaluate_every == 0 else {}
                write_row(log, {"step": step, "tokens": tokens, "minutes": minutes, **smooth, **figures})
                model.save(args.out / "latest", torch.float32)
            after_step(tokens)
        if not self.rank:
            model.save(args.out / "final", torch.float32)


def padded(rows: Sequence[Sequence[float]], multiple: int, beyond: int = 0, dtype: torch.dtype = torch.int64) -> Tensor:
    """Rows as a tensor ``[rows, tokens]``; zeros fill them to a multiple of ``multiple``, and ``beyond`` more."""
    length = -(-(max(map(len, rows)) - beyond) // multiple) * multiple + beyond
    return torch.tensor([[*row, *[PAD_ID] * (length - len(row))] for row in rows], dtype=dtype)


def start_as_identity(model: nn.Module) -> None:
    """Draw the matrices; the output of every layer is zero at first."""
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
